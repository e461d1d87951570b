package history

import (
	"cmp"
	"context"
	"maps"
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
	number   int32
	tests    map[int32]*ErrorPlace // by the number of the test, or of a spec, below 0, that could not run
	branches map[string]*ErrorPlace
}

// add counts the error in results that are later than all before.
func (t *tracedError) add(o *occurrences) {
	for _, v := range o.list {
		if v.error == t.number {
			t.count(o.runs[v.run], o.groups[v.group], v.test)
		}
	}
}

func (t *tracedError) count(r store.HistoryRun, group string, test int32) {
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
	if t.tests[test] == nil {
		t.tests[test] = &ErrorPlace{}
	}
	if t.branches[r.Branch] == nil {
		t.branches[r.Branch] = &ErrorPlace{Branch: r.Branch}
	}
	for _, place := range []*ErrorPlace{t.tests[test], t.branches[r.Branch]} {
		place.Count, place.Last, place.Group = place.Count+1, r, group
	}
}

// TraceError finds where an error of a project occurred in a period.
func (x *Explorer) TraceError(ctx context.Context, tx *store.Tx, projectID, fingerprint string,
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
	t := &tracedError{number: int32(number), tests: map[int32]*ErrorPlace{}, branches: map[string]*ErrorPlace{}}
	t.Fingerprint, t.Headline = fingerprint, names[number].Text
	if err := x.eachErrorDay(ctx, tx, projectID, filter, t.add); err != nil {
		return ErrorTrace{}, err
	}
	err = t.places(ctx, tx, projectID)
	return t.ErrorTrace, err
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
	keys := slices.SortedFunc(maps.Keys(t.tests), func(a, b int32) int {
		return cmp.Or(most(t.tests[a], t.tests[b]), cmp.Compare(a, b))
	})
	keys = keys[:min(Shown, len(keys))]
	tests, specs := []int{}, []int{}
	for _, key := range keys {
		if key > 0 {
			tests = append(tests, int(key))
		} else {
			specs = append(specs, int(-key))
		}
	}
	names, err := descriptions(ctx, tx, projectID, tests)
	if err != nil {
		return err
	}
	paths, err := tx.HistoryNames(ctx, projectID, store.SpecName, specs)
	for _, key := range keys {
		place := *t.tests[key]
		if place.TestDescription = names[int(key)]; key < 0 {
			place.Spec = paths[int(-key)].Key
		}
		t.ByTest = append(t.ByTest, place)
	}
	return err
}
