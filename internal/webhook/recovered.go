package webhook

import (
	"slices"

	"runbell/internal/run"
)

// An event is [Recovered] when its run or group passed and the result before it,
// on the same branch, was a failure. Which result that is, and whether it failed,
// is decided here; package lifecycle reads the earlier runs.

// WithRecovered adds Recovered to what a run or group came to, if it did. failedBefore says whether the
// result before it was a failure, and is asked only if that matters.
func WithRecovered(results []Result, failedBefore func() (bool, error)) ([]Result, error) {
	if !slices.Contains(results, Passed) {
		return results, nil
	}
	failed, err := failedBefore()
	if failed {
		results = append(slices.Clone(results), Recovered)
	}
	return results, err
}

// Track names what a result is compared with in earlier runs of the branch: at
// group scope the group of the same name, or the only group of a run that named
// none (""); at run scope the whole run.
func Track(g run.Group) string {
	if g.Explicit {
		return g.Name
	}
	return ""
}

// HadFailed says whether an earlier run had failed, by those of its groups that a
// result is compared with.
func HadFailed(groups []run.Group) bool {
	return slices.ContainsFunc(groups, func(g run.Group) bool { return !g.Counts.Green() })
}
