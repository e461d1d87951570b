package dispatch

import (
	"net/http"
	"time"

	"runbell/internal/webhook"
)

const (
	// An endpoint struggles when it has had this many more failures than successes. It
	// struggles after one timeout, because a timeout occupies a place for as long as a
	// request may take.
	struggles = 3
	// Successes earn credit for up to this many failures. So an endpoint that fails at
	// random, but less often than it succeeds, does not struggle.
	credit = 16
	// A struggling endpoint gets one request at a time, with pauses that double from the
	// first to the longest. So it does not slow down the others, and is not flooded when
	// it recovers.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// throttle decides how fast an endpoint may be called.
type throttle struct {
	window   int       // how many requests may be in flight; doubles with each success
	failures int       // minus successes; negative is credit
	until    time.Time // no request begins before this: a pause, the rate, or Retry-After
}

// newThrottle makes a throttle that begins with one request at a time. failures is the
// count that the last lane stored.
func newThrottle(failures int) throttle { return throttle{window: 1, failures: failures} }

// struggling reports whether the endpoint fails so often that it gets one request
// at a time.
func (t *throttle) struggling() bool { return t.failures >= struggles }

// stored is the count of failures with which the next lane begins.
func (t *throttle) stored() int { return max(t.failures, 0) }

// wait returns how long no request may begin: 0 or less if one may begin now.
func (t *throttle) wait(now time.Time) time.Duration { return t.until.Sub(now) }

// holdOff keeps requests from beginning before a time.
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
		t.failures = max(t.failures, 0) // no credit: the receiver says that the load is too high
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
