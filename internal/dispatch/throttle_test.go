package dispatch

import (
	"strings"
	"testing"
	"time"

	"runbell/internal/webhook"
)

// answered makes a throttle learn from outcomes, a letter each: s is a success, f a failure, b a 429, t a timeout. It
// returns the time of the last.
func answered(t *throttle, now time.Time, answers string) time.Time {
	for _, letter := range answers {
		a, d := webhook.Attempt{Class: webhook.BadStatus, Status: 500}, webhook.Decision{State: webhook.Waiting}
		switch letter {
		case 's':
			a, d = webhook.Attempt{Class: webhook.OK, Status: 200}, webhook.Decision{State: webhook.Delivered}
		case 'b':
			a.Status = 429
		case 't':
			a = webhook.Attempt{Class: webhook.Timeout}
		}
		now = now.Add(time.Millisecond)
		t.settle(now, a, d)
	}
	return now
}

// How many requests may be in flight after outcomes, and how long none may begin.
func TestThrottle(t *testing.T) {
	for _, c := range []struct {
		before  int // failures that the lane before has stored
		answers string
		window  int
		pause   time.Duration
	}{
		{0, "", 1, 0},
		{0, "s", 2, 0},
		{0, "sss", 8, 0},
		{0, "ssssssssss", webhook.MaxInFlight, 0},
		{0, "sssff", 8, 0},
		{0, "sssfffff", 8, 0},
		{0, "sssffffff", 1, firstPause},
		{0, "t", 1, firstPause},
		{0, "ssst", 1, firstPause},
		{0, "fffff", 1, 4 * firstPause},
		{0, "ttt", 1, 4 * firstPause},
		{0, strings.Repeat("f", 100), 1, longestPause},
		{2, "f", 1, firstPause},
		{5, "f", 1, 8 * firstPause},
		{0, "ffffs", 2, 2*firstPause - time.Millisecond}, // the current pause continues
	} {
		throttle := newThrottle(c.before)
		now := answered(&throttle, time.Unix(0, 0), c.answers)
		if got := max(throttle.wait(now), 0); throttle.window != c.window || got != c.pause {
			t.Errorf("%d failures, then %q: %d at the same time after %s, want %d after %s", c.before, c.answers, throttle.window, got, c.window, c.pause)
		}
	}
}

// When an endpoint struggles, and the count that the next lane gets.
func TestThrottleStruggles(t *testing.T) {
	long := strings.Repeat("s", 1000)
	for _, c := range []struct {
		before  int
		answers string
		want    bool
		stored  int
	}{
		{0, "", false, 0},
		{0, "ff", false, 2},
		{0, "fff", true, 3},
		{0, "t", true, 3},
		{0, "sfff", false, 2},
		{0, "sffff", true, 3},
		{0, "ffsff", true, 3},
		{0, "fsfsfsfsfsfsfs", false, 0},
		{0, "ffsffsffsffs", false, 0}, // the last success ends it
		{0, "fffs", false, 0},
		{0, long + "t", true, 3},
		{0, long + strings.Repeat("f", credit+struggles-1), false, struggles - 1},
		{0, long + strings.Repeat("f", credit+struggles), true, struggles},
		{0, long + strings.Repeat("ffs", credit), false, 0},
		{0, long + "bb", false, 2},
		{0, long + "bbb", true, 3},
		{0, long + "bsbsbsb", false, 1},
		{3, "", true, 3},
		{3, "s", false, 0},
		{2, "f", true, 3},
		{100, "s", false, 0},
	} {
		throttle := newThrottle(c.before)
		answered(&throttle, time.Unix(0, 0), c.answers)
		if got, stored := throttle.struggling(), throttle.stored(); got != c.want || stored != c.stored {
			t.Errorf("%d failures, then %q: struggling is %v with %d failures, want %v with %d", c.before, c.answers, got, stored, c.want, c.stored)
		}
	}
}

// The rate, Retry-After and pauses: the longest counts.
func TestThrottleHoldsOff(t *testing.T) {
	now := time.Unix(0, 0)
	throttle := newThrottle(0)
	throttle.begun(now, 0)
	if got := throttle.wait(now); got > 0 {
		t.Errorf("no rate: a wait of %s", got)
	}
	throttle.begun(now, 7)
	if got := 7 * throttle.wait(now); got < time.Minute || got > time.Minute+time.Microsecond {
		t.Errorf("7 waits of 7 a minute take %s", got)
	}
	throttle.settle(now, webhook.Attempt{Class: webhook.BadStatus, Status: 429}, webhook.Decision{State: webhook.Waiting, Hold: 90 * time.Second})
	if got := throttle.wait(now); got != 90*time.Second {
		t.Errorf("after Retry-After: 90, a wait of %s", got)
	}
	throttle.begun(now, 7)
	throttle.holdOff(now.Add(time.Second))
	if got := throttle.wait(now); got != 90*time.Second {
		t.Errorf("a shorter wait made it %s", got)
	}
	if got := throttle.wait(now.Add(2 * time.Minute)); got > 0 {
		t.Errorf("when it is over, a wait of %s", got)
	}
}
