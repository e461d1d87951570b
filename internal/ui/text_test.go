package ui

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"runbell/internal/run"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"nothing to do\n\tat all":        "nothing to do\n\tat all",
		"\x1b[31mred\x1b[0m":             "red",
		"\x1b[1;38;5;196mbold\x1b[m":     "bold",
		"\x1b[38:2::1:2:3mcolons\x1b[0m": "colons",
		"\x1b[2K\x1b[1Aerased":           "erased",
		"\x1b[?25lcursor\x1b[?25h":       "cursor",
		"\x1b]8;;https://x.test\x07link\x1b]8;;\x07":             "link",
		"\x1b]0;title\x1b\\text":                                 "text",
		"\x1b]8;;https://x.test\u009clink":                       "link",
		"\x1bPdevice\x1b\\control":                               "control",
		"\x1b]unterminated\nnext line":                           "\nnext line",
		"\x1b(Bcharset\x1b)0":                                    "charset",
		"\x1b7saved\x1b8\x1bc\x1bM":                              "saved",
		"\u009b31mC1\u009b0m":                                    "C1",
		"\u009d0;title\u009ctext":                                "text",
		"unfinished \x1b":                                        "unfinished ",
		"unfinished \x1b[":                                       "unfinished ",
		"unfinished \x1b[31":                                     "unfinished ",
		"broken \x1b[31\nnext":                                   "broken \nnext",
		"a\r\nb":                                                 "a\nb",
		"10%\r20%":                                               "10%\n20%",
		"bell\x07 and null\x00 and delete\x7f":                   "bell and null and delete",
		"broken \xff utf-8":                                      "broken \uFFFD utf-8",
		"broken \xff \x1b[31mutf-8":                              "broken \uFFFD utf-8",
		"✓ naïve 你好 🎥\x1b[0m":                                    "✓ naïve 你好 🎥",
		"array[31m] is no sequence":                              "array[31m] is no sequence",
		"\x1b[31m\x1b[1mnested\x1b[22m\x1b[39m \x1b[4mx\x1b[24m": "nested x",
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\r\n\u009b1m\x1b]8;;x\x07y\x1b\\\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := plain(s)
		if !utf8.ValidString(got) {
			t.Errorf("plain(%q) = %q is not UTF-8", s, got)
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r <= 0x9f }); i >= 0 {
			t.Errorf("plain(%q) = %q has a control character at %d", s, got, i)
		}
		if again := plain(got); again != got {
			t.Errorf("plain twice: %q, then %q", got, again)
		}
		if strings.Count(got, "\n") < strings.Count(s, "\n") {
			t.Errorf("plain(%q) = %q lost a line", s, got)
		}
	})
}

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

func TestHeadline(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"just this":               "just this",
		compile:                   "Error: Cannot find module './does-not-exist'",
		"first\nsecond":           "first",
		"\x1b[31mTypeError: x":    "TypeError: x",
		"We failed to do it:\n\n": "We failed to do it",
	} {
		if got := headline(in); got != want {
			t.Errorf("headline(%q) = %q, want %q", in, got, want)
		}
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
