package history

import "math/bits"

// Health says whether a test can be trusted.
type Health string

// The healths of a test.
const (
	Unknown Health = "unknown" // it never ran, or never passed and failed too seldom to be broken
	Healthy Health = "healthy"
	Flaky   Health = "flaky"
	Broken  Health = "broken"
)

// Healths lists them.
func Healths() []Health { return []Health{Unknown, Healthy, Flaky, Broken} }

const (
	// window is how many of the latest results a health looks at.
	window = 20
	// brokenAfter is how many failures in a row make a test broken.
	brokenAfter = 3
	// flakyAfter is how many unstable results make a test flaky.
	flakyAfter = 2
)

// Recent is the latest results of a test, 20 at most. Results that were pending or
// skipped do not count, because they say nothing.
type Recent struct {
	n             uint8
	failed, flaky uint32 // a bit for each result, the latest is the lowest
}

// Add adds a result that is later than those before.
func (r *Recent) Add(v *Result) {
	switch {
	case !v.Ran():
		return
	case v.State == failed:
		r.failed, r.flaky = r.failed<<1|1, r.flaky<<1
	case v.Attempts > 1:
		r.failed, r.flaky = r.failed<<1, r.flaky<<1|1
	default:
		r.failed, r.flaky = r.failed<<1, r.flaky<<1
	}
	if r.n < window {
		r.n++
	}
}

// merge adds results that are later than those before.
func (r *Recent) merge(later Recent) {
	own := uint32(1)<<later.n - 1
	r.failed, r.flaky = r.failed<<later.n|later.failed&own, r.flaky<<later.n|later.flaky&own
	r.n = min(window, r.n+later.n)
}

// Evidence is what decides the health of a test.
type Evidence struct {
	Results int // of the latest 20, those there are
	Failed  int // of the latest ones in a row
	Retried int // passes after a retry
	Alone   int // single failures between two passes
}

// Evidence counts what the rule looks at.
func (r *Recent) Evidence() Evidence {
	seen := uint32(1)<<r.n - 1
	between := seen >> 2 << 1 // results with one before and one after them
	alone := r.failed & between &^ (r.failed << 1) &^ (r.failed >> 1)
	return Evidence{Results: int(r.n), Failed: bits.TrailingZeros32(^(r.failed & seen)),
		Retried: bits.OnesCount32(r.flaky & seen), Alone: bits.OnesCount32(alone)}
}

// Health is the rule. A test is broken if its latest 3 results failed. Otherwise it is unknown if it never passed, and
// flaky if 2 of the latest 20 were unstable: the test passed after a retry, or it failed once between two passes.
// Otherwise it is healthy. So one bad day does not make a test flaky, and neither does a regression of several runs.
// 20 good results make it healthy again.
func (r *Recent) Health() Health {
	switch e := r.Evidence(); {
	case e.Failed >= brokenAfter:
		return Broken
	case e.Failed == e.Results:
		return Unknown
	case e.Retried+e.Alone >= flakyAfter:
		return Flaky
	default:
		return Healthy
	}
}
