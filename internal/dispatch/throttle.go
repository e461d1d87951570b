package dispatch

import (
	"net/http"
	"time"

	"runbell/internal/webhook"
)

const (
	// An endpoint struggles when it has failed this many times more often than it
	// has succeeded. A timeout counts for all of them, because it holds a
	// place for as long as a request may take.
	struggles = 3
	// An endpoint that works builds up credit for this many failures. So one that
	// fails at random, less often than it succeeds, does not struggle.
	credit = 16
	// An endpoint that struggles gets one request at a time, with pauses that
	// double from the first to the longest. So it costs the others nothing, and is
	// not overrun when it comes back.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// throttle decides how fast an endpoint may be called.
type throttle struct {
	window   int       // how many requests may be in flight; doubles with each success
	failures int       // less successes; negative is credit
	until    time.Time // no request begins before: a pause, the rate, or Retry-After
}

// newThrottle begins with one request at a time, after a number of failures.
func newThrottle(failures int) throttle { return throttle{window: 1, failures: failures} }

// struggling reports whether the endpoint fails so often that it gets one request
// at a time.
func (t *throttle) struggling() bool { return t.failures >= struggles }

// stored is what the throttle of the next lane begins with.
func (t *throttle) stored() int { return max(t.failures, 0) }

// wait is how long no request may begin, 0 or less if one may begin now.
func (t *throttle) wait(now time.Time) time.Duration { return t.until.Sub(now) }

// holdOff lets no request begin before a time.
func (t *throttle) holdOff(until time.Time) {
	if until.After(t.until) {
		t.until = until
	}
}

// begun counts a request that begins now against the rate; 0 is no limit.
func (t *throttle) begun(now time.Time, perMinute int) {
	if perMinute > 0 {
		t.holdOff(now.Add(time.Minute/time.Duration(perMinute) + 1)) // rounded up
	}
}

// settle learns from an attempt that ended. One success ends a struggle.
func (t *throttle) settle(now time.Time, a webhook.Attempt, d webhook.Decision) {
	if d.Hold > 0 {
		t.holdOff(now.Add(d.Hold))
	}
	if d.State == webhook.Delivered {
		if t.struggling() {
			t.failures = 0
		} else {
			t.failures = max(t.failures-1, -credit)
		}
		t.window = min(2*t.window, webhook.MaxInFlight)
		return
	}
	if a.Status == http.StatusTooManyRequests {
		t.failures = max(t.failures, 0) // no credit: the receiver itself says that it is too much
	}
	t.failures++
	if a.Class == webhook.Timeout {
		t.failures = max(t.failures, struggles)
	}
	if t.struggling() {
		t.window = 1
		t.holdOff(now.Add(min(firstPause<<min(t.failures-struggles, 10), longestPause)))
	}
}
