package dispatch

import (
	"time"

	"runbell/internal/webhook"
)

const (
	// An endpoint struggles after this many failures in a row. A failure without
	// a status counts as all of them.
	struggles = 3
	// An endpoint that struggles gets one request at a time, with pauses that
	// double from the first to the longest. So it costs the others nothing, and is
	// not overrun when it comes back.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// throttle decides how fast an endpoint may be called.
type throttle struct {
	window   int       // how many requests may be in flight; doubles with each success
	failures int       // in a row
	until    time.Time // no request begins before: a pause, the rate, or Retry-After
}

// newThrottle begins with one request at a time, after a number of failures.
func newThrottle(failures int) throttle { return throttle{window: 1, failures: failures} }

// struggling reports whether the endpoint fails so often that it gets one request
// at a time.
func (t *throttle) struggling() bool { return t.failures >= struggles }

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

// settle learns from the outcome of a request. A status of 0 means that there was
// no answer.
func (t *throttle) settle(now time.Time, d webhook.Decision, status int) {
	if d.Hold > 0 {
		t.holdOff(now.Add(d.Hold))
	}
	if d.State == webhook.Delivered {
		t.failures, t.window = 0, min(2*t.window, webhook.MaxInFlight)
		return
	}
	t.failures++
	if status == 0 {
		t.failures = max(t.failures, struggles)
	}
	if t.struggling() {
		t.window = 1
		t.holdOff(now.Add(min(firstPause<<min(t.failures-struggles, 10), longestPause)))
	}
}
