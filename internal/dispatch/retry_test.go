package dispatch_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"runbell/internal/config"
	"runbell/internal/dispatch"
)

func TestParseSchedule(t *testing.T) {
	for in, want := range map[string]dispatch.Schedule{
		"":                                    nil,
		"  ":                                  nil,
		"5s":                                  {5 * time.Second},
		" 5s , 30s,5m ":                       {5 * time.Second, 30 * time.Second, 5 * time.Minute},
		"0s,720h":                             {0, 720 * time.Hour},
		"5s,30s,5m,30m,2h,5h,10h,14h,20h,24h": dispatch.DefaultSchedule(),
		strings.Repeat("1s,", 49) + "1s":      slices.Repeat(dispatch.Schedule{time.Second}, 50),
	} {
		if got, err := dispatch.ParseSchedule(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for in, says := range map[string]string{
		"5":                              `"5"`,
		"5s,":                            `""`,
		",5s":                            `""`,
		"5s;30s":                         `"5s;30s"`,
		"-1s":                            `"-1s"`,
		"5s, soon":                       `"soon"`,
		"721h":                           `"721h"`,
		strings.Repeat("1s,", 50) + "1s": "51 waits",
	} {
		if got, err := dispatch.ParseSchedule(in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, %v; want an error that says %s", in, got, err, says)
		}
	}
}

// The flag of 'runbell serve' has the default as text.
func TestTheDefaultScheduleIsThatOfTheServer(t *testing.T) {
	flag, _ := reflect.TypeFor[config.Serve]().FieldByName("WebhookRetries")
	if got, err := dispatch.ParseSchedule(flag.Tag.Get("default")); err != nil || !slices.Equal(got, dispatch.DefaultSchedule()) {
		t.Errorf("without --webhook-retries it is %v, %v; want %v", got, err, dispatch.DefaultSchedule())
	}
}

func TestTheDefaultScheduleSpansThreeDays(t *testing.T) {
	var total time.Duration
	for _, wait := range dispatch.DefaultSchedule() {
		total += wait
	}
	if total < 72*time.Hour || total > 80*time.Hour {
		t.Errorf("it spans %v", total)
	}
}

func TestOneMoreAttemptThanWaits(t *testing.T) {
	s := dispatch.Schedule{time.Second, time.Minute}
	for attempt, want := range map[int]bool{-1: false, 0: false, 1: true, 2: true, 3: false, 4: false} {
		if wait, ok := s.Next(attempt, 0.5); ok != want || ok != (wait > 0) {
			t.Errorf("after attempt %d: %v, %v; want another: %v", attempt, wait, ok, want)
		}
	}
	if _, ok := dispatch.Schedule(nil).Next(1, 0.5); ok {
		t.Error("without waits there is a second attempt")
	}
}

func TestJitterIsAtMostAFifthToEitherSide(t *testing.T) {
	s := dispatch.Schedule{100 * time.Second}
	for random, want := range map[float64]time.Duration{0: 80 * time.Second, 0.25: 90 * time.Second, 0.5: 100 * time.Second, 0.75: 110 * time.Second} {
		if got, _ := s.Next(1, random); got != want {
			t.Errorf("with %v: %v, want %v", random, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		wait := time.Duration(rapid.Int64Range(0, int64(30*24*time.Hour)).Draw(t, "wait"))
		random := rapid.Float64Range(0, 0.9999999).Draw(t, "random")
		got, ok := dispatch.Schedule{wait}.Next(1, random)
		// One nanosecond for the rounding of floats.
		low, high := wait-wait/5-1, wait+wait/5+1
		if !ok || got < 0 || got < low || got > high {
			t.Fatalf("%v became %v, %v", wait, got, ok)
		}
	})
}
