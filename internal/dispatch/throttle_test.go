package dispatch

import (
	"testing"
	"time"

	"runbell/internal/webhook"
)

// answered makes a throttle learn from answers, a letter each: s is a success, f a
// failure with a status, n one without an answer. It returns the last instant.
func answered(t *throttle, now time.Time, answers string) time.Time {
	for _, a := range answers {
		now = now.Add(time.Millisecond)
		switch a {
		case 's':
			t.settle(now, webhook.Decision{State: webhook.Delivered}, 200)
		case 'f':
			t.settle(now, webhook.Decision{State: webhook.Waiting}, 500)
		case 'n':
			t.settle(now, webhook.Decision{State: webhook.Waiting}, 0)
		}
	}
	return now
}

// What the answers of an endpoint do to its throttle.
func TestThrottle(t *testing.T) {
	for _, c := range []struct {
		before  int // failures that the lane before has stored
		answers string
		window  int
		pause   time.Duration // after the last answer
	}{
		{0, "", 1, 0},
		{0, "s", 2, 0},
		{0, "sss", 8, 0},
		{0, "ssssssssss", webhook.MaxInFlight, 0},
		{0, "sssff", 8, 0},
		{0, "sssfff", 1, firstPause},
		{0, "n", 1, firstPause},
		{0, "fffff", 1, 4 * firstPause},
		{0, "nnn", 1, 4 * firstPause},
		{0, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", 1, longestPause},
		{2, "f", 1, firstPause},
		{5, "f", 1, 8 * firstPause},
		{0, "ffffs", 2, 3 * firstPause / 2}, // the pause that has begun goes on
	} {
		throttle := newThrottle(c.before)
		now := answered(&throttle, time.Unix(0, 0), c.answers)
		if got := max(throttle.wait(now), 0); throttle.window != c.window || got > c.pause+longestPause/20 || got < c.pause/2 {
			t.Errorf("%d failures, then %q: %d at the same time after %s, want %d after %s", c.before, c.answers, throttle.window, got, c.window, c.pause)
		}
	}
}

// Whether requests go one at a time depends on the failures, those of the lane
// before included.
func TestThrottleStruggles(t *testing.T) {
	for _, c := range []struct {
		before  int
		answers string
		want    bool
	}{
		{0, "", false}, {0, "ff", false}, {0, "fff", true}, {0, "n", true}, {0, "ffsff", false}, {0, "fffs", false}, {0, "sn", true},
		{3, "", true}, {3, "s", false}, {2, "f", true}, {100, "s", false},
	} {
		throttle := newThrottle(c.before)
		answered(&throttle, time.Unix(0, 0), c.answers)
		if got := throttle.struggling(); got != c.want {
			t.Errorf("%d failures, then %q: struggling is %v, want %v", c.before, c.answers, got, c.want)
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
	throttle.settle(now, webhook.Decision{State: webhook.Waiting, Hold: 90 * time.Second}, 429)
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
