package run

import (
	"cmp"
	"slices"
	"time"
)

// Expected is a spec and how long it took in recent runs, 0 if nobody knows.
type Expected struct {
	Spec     string
	Expected time.Duration
}

// HandOutOrder puts the specs of a group in the order in which machines get
// them: those that nobody knows first, then the longest expected, so that the
// last ones to end are short and all machines end together. Specs that are
// equal to it stay in the client's order.
func HandOutOrder(specs []string, recent map[string]time.Duration) []Expected {
	list := make([]Expected, len(specs))
	for i, spec := range specs {
		list[i] = Expected{spec, recent[spec]}
	}
	slices.SortStableFunc(list, func(a, b Expected) int {
		if (a.Expected == 0) != (b.Expected == 0) {
			return cmp.Compare(a.Expected, b.Expected)
		}
		return cmp.Compare(b.Expected, a.Expected)
	})
	return list
}
