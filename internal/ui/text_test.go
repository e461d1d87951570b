package ui

import (
	"strings"
	"testing"
	"time"

	"runbell/internal/run"
)

func TestBudget(t *testing.T) {
	b := budget{100}
	if got := b.head("\n  indented\n", 50); got != "  indented" {
		t.Errorf("head = %q", got)
	}
	if got := b.head(strings.Repeat("é", 40), 21); got != strings.Repeat("é", 10)+"…\n(59 bytes more)" {
		t.Errorf("head = %q", got)
	}
	if got := b.tail("first\nlast é", 5); got != "(8 bytes before this)\n…st é" {
		t.Errorf("tail = %q", got)
	}
	for range 20 {
		b.head(strings.Repeat("x", 1000), 1000)
	}
	if got := b.tail(strings.Repeat("x", 12_345), 1000); got != "(12 kB before this)\n…" {
		t.Errorf("of nothing left: %q", got)
	}
}

func TestNumbersAndSpans(t *testing.T) {
	for in, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 9_800: "9,800", 1_234_567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := number(in); got != want {
			t.Errorf("number(%d) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[time.Duration]string{
		0:                             "0 ms",
		999 * time.Millisecond:        "999 ms",
		2100 * time.Millisecond:       "2.1 s",
		59_990 * time.Millisecond:     "59.9 s",
		60 * time.Second:              "1 min",
		125 * time.Second:             "2 min 5 s",
		time.Hour:                     "1 h",
		26*time.Hour + 61*time.Second: "26 h 1 min",
	} {
		if got := span(in); got != want {
			t.Errorf("span(%d) = %s, want %s", in, got, want)
		}
	}
	if got := count(1, "spec") + ", " + count(2000, "spec"); got != "1 spec, 2,000 specs" {
		t.Error(got)
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		counts           run.Counts
		completed, specs int
	}{
		{run.Counts{}, 0, 5},
		{run.Counts{Passes: 5, Flaky: 2, Failures: 1, Skipped: 1, Pending: 1}, 5, 5},
		{run.Counts{Passes: 5, Announced: 100}, 1, 4},
		{run.Counts{Passes: 100_000, Failures: 1}, 9_999, 10_000},
	} {
		end := 0
		for _, s := range barOf(c.counts, c.completed, c.specs) {
			if s.W <= 0 || s.X < 0 {
				t.Errorf("%+v: a segment of %+v", c.counts, s)
			}
			end = s.X + s.W
		}
		if want := 1000 * c.completed / c.specs; end > want || end < want-1 {
			t.Errorf("%+v: the bar ends at %d, want %d", c.counts, end, want)
		}
	}
}
