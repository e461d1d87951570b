package history

import (
	"cmp"
	"context"
	"slices"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// ErrorTrace is one error over a period.
type ErrorTrace struct {
	Error
	// Days has the days on which it occurred, oldest first.
	Days []ErrorDay
	// ByTest are the tests that had it, the most often first, at most Shown.
	ByTest []ErrorPlace
	// ByBranch are the branches, the most often first, at most Shown.
	ByBranch []ErrorPlace
}

// ErrorPlace is how often an error occurred in a test or on a branch.
type ErrorPlace struct {
	TestDescription        // of a test; without a title, a spec that could not run
	Branch          string // of a branch
	Count           int
	Last            store.HistoryRun // the latest with it
	Group           string           // in it
}

// tracedError counts one error, by test and by branch.
type tracedError struct {
	ErrorTrace
	tests    map[[2]int]*ErrorPlace // a spec and a test; the test is 0 for a spec that could not run
	branches map[string]*ErrorPlace
}

func (t *tracedError) add(r store.HistoryRun, p store.HistoryPart, spec, test int) {
	if t.Count == 0 {
		t.FirstSeen = r.CreatedAt
	}
	t.Count++
	t.LastSeen = r.CreatedAt
	day := r.CreatedAt.UTC().Truncate(24 * time.Hour)
	if n := len(t.Days); n == 0 || !t.Days[n-1].Day.Equal(day) {
		t.Days = append(t.Days, ErrorDay{Day: day})
	}
	t.Days[len(t.Days)-1].Count++
	if t.tests[[2]int{spec, test}] == nil {
		t.tests[[2]int{spec, test}] = &ErrorPlace{}
	}
	if t.branches[r.Branch] == nil {
		t.branches[r.Branch] = &ErrorPlace{Branch: r.Branch}
	}
	for _, place := range []*ErrorPlace{t.tests[[2]int{spec, test}], t.branches[r.Branch]} {
		place.Count, place.Last, place.Group = place.Count+1, r, p.Group
	}
}

// TraceError finds where an error of a project occurred in a period.
func TraceError(ctx context.Context, tx *store.Tx, projectID, fingerprint string,
	filter store.HistoryFilter) (ErrorTrace, error) {
	numbers, err := tx.HistoryNumbers(ctx, projectID, store.ErrorName, []string{fingerprint})
	if err != nil {
		return ErrorTrace{}, err
	}
	number := numbers[fingerprint]
	if number == 0 {
		return ErrorTrace{}, run.Missing("error", fingerprint)
	}
	names, err := tx.HistoryNames(ctx, projectID, store.ErrorName, []int{number})
	if err != nil {
		return ErrorTrace{}, err
	}
	t := &tracedError{tests: map[[2]int]*ErrorPlace{}, branches: map[string]*ErrorPlace{}}
	t.Fingerprint, t.Headline = fingerprint, names[number].Text
	err = tx.EachHistoryPart(ctx, projectID, filter, store.OldestFirst,
		func(r store.HistoryRun, p store.HistoryPart, packed []byte) error {
			return unpack(packed, withError, func(e *Execution) {
				if e.Error == number {
					t.add(r, p, e.Spec, 0)
				}
				for _, v := range e.Results {
					if v.Error == number {
						t.add(r, p, e.Spec, v.Test)
					}
				}
			})
		})
	if err != nil {
		return ErrorTrace{}, err
	}
	return t.ErrorTrace, t.places(ctx, tx, projectID)
}

// places orders and names where the error occurred.
func (t *tracedError) places(ctx context.Context, tx *store.Tx, projectID string) error {
	t.Tests, t.Branches = len(t.tests), len(t.branches)
	most := func(a, b *ErrorPlace) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.CreatedAt.Compare(a.Last.CreatedAt))
	}
	for _, place := range t.branches {
		t.ByBranch = append(t.ByBranch, *place)
	}
	slices.SortFunc(t.ByBranch, func(a, b ErrorPlace) int { return cmp.Or(most(&a, &b), cmp.Compare(a.Branch, b.Branch)) })
	t.ByBranch = t.ByBranch[:min(Shown, len(t.ByBranch))]
	keys := make([][2]int, 0, len(t.tests))
	for key := range t.tests {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b [2]int) int {
		return cmp.Or(most(t.tests[a], t.tests[b]), slices.Compare(a[:], b[:]))
	})
	keys = keys[:min(Shown, len(keys))]
	tests, specs := []int{}, []int{}
	for _, key := range keys {
		specs = append(specs, key[0])
		if key[1] > 0 {
			tests = append(tests, key[1])
		}
	}
	slices.Sort(specs)
	names, err := descriptions(ctx, tx, projectID, tests)
	if err != nil {
		return err
	}
	paths, err := tx.HistoryNames(ctx, projectID, store.SpecName, slices.Compact(specs))
	for _, key := range keys {
		place := *t.tests[key]
		place.TestDescription = names[key[1]]
		place.Spec = paths[key[0]].Key
		t.ByTest = append(t.ByTest, place)
	}
	return err
}
