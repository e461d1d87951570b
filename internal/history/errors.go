package history

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"runbell/internal/store"
)

// ErrorOrder is what errors are ordered by.
type ErrorOrder string

// The orders of errors.
const (
	ByCount    ErrorOrder = "count"
	ByTests    ErrorOrder = "tests"
	ByBranches ErrorOrder = "branches"
	ByError    ErrorOrder = "error"
)

// ErrorOrders lists them.
func ErrorOrders() []ErrorOrder { return []ErrorOrder{ByCount, ByTests, ByBranches, ByError} }

// ErrorQuery asks for errors.
type ErrorQuery struct {
	Filter    store.HistoryFilter
	Message   string // a part of the headline, in any case
	Order     ErrorOrder
	Ascending bool
	Page      int // from 0
	Limit     int
	// Top is how many errors each day of the timeline names, those with the most
	// by TopBy.
	Top   int
	TopBy ErrorOrder
}

// Error is an error over a period: all failures with one fingerprint.
type Error struct {
	Fingerprint string
	Headline    string
	Count       int // tests that failed or were flaky with it, and specs that could not run
	Tests       int // different ones
	Branches    int // different ones
	// When the first and the latest run with it were created, in the period.
	FirstSeen, LastSeen time.Time
}

// ErrorDay is a day of the timeline.
type ErrorDay struct {
	Day   time.Time // its midnight, UTC
	Count int
	Top   []Error
}

// ErrorList is a page of errors.
type ErrorList struct {
	List  []Error
	Total int
	// Timeline has the days on which there was an error, oldest first.
	Timeline []ErrorDay
}

// errorTally counts one error.
type errorTally struct {
	number      int
	count       int
	tests       map[int]struct{}
	branches    map[string]struct{}
	first, last time.Time
}

// errorTallies count errors by number.
type errorTallies map[int]*errorTally

// add counts an error. test is 0 for a spec that could not run.
func (t errorTallies) add(number, test int, r store.HistoryRun) {
	v := t[number]
	if v == nil {
		v = &errorTally{number: number, tests: map[int]struct{}{}, branches: map[string]struct{}{}, first: r.CreatedAt}
		t[number] = v
	}
	v.count++
	v.last = r.CreatedAt
	if test > 0 {
		v.tests[test] = struct{}{}
	}
	v.branches[r.Branch] = struct{}{}
}

// list orders the errors whose headline has the part. Nothing of names is needed for
// any other order and no part.
func (t errorTallies) list(names map[int]store.HistoryName, part string, by ErrorOrder, ascending bool) []Error {
	part = strings.ToLower(part)
	list := make([]Error, 0, len(t))
	for number, v := range t {
		n := names[number]
		if strings.Contains(strings.ToLower(n.Text), part) {
			list = append(list, Error{n.Key, n.Text, v.count, len(v.tests), len(v.branches), v.first, v.last})
		}
	}
	value := func(e Error) int {
		return map[ErrorOrder]int{ByCount: e.Count, ByTests: e.Tests, ByBranches: e.Branches}[by]
	}
	slices.SortFunc(list, func(a, b Error) int {
		order := cmp.Or(cmp.Compare(value(a), value(b)), cmp.Compare(a.Headline, b.Headline), cmp.Compare(a.Fingerprint, b.Fingerprint))
		if !ascending {
			order = -order
		}
		return order
	})
	return list
}

// Errors lists a page of the errors of a project.
func Errors(ctx context.Context, tx *store.Tx, projectID string, q ErrorQuery) (ErrorList, error) {
	all, days := errorTallies{}, map[time.Time]errorTallies{}
	err := tx.EachHistoryPart(ctx, projectID, q.Filter, store.OldestFirst, func(r store.HistoryRun, _ store.HistoryPart, packed []byte) error {
		day := r.CreatedAt.Truncate(24 * time.Hour)
		count := func(number, test int) {
			if number == 0 {
				return
			}
			if days[day] == nil {
				days[day] = errorTallies{}
			}
			all.add(number, test, r)
			days[day].add(number, test, r)
		}
		return unpack(packed, 0, func(e *Execution) {
			count(e.Error, 0)
			for _, result := range e.Results {
				count(result.Error, result.Test)
			}
		})
	})
	if err != nil {
		return ErrorList{}, err
	}
	names, err := tx.HistoryNames(ctx, projectID, store.ErrorName, nil)
	if err != nil {
		return ErrorList{}, err
	}
	list := all.list(names, q.Message, q.Order, q.Ascending)
	out := ErrorList{List: page(list, q.Page, q.Limit), Total: len(list)}
	for day, tallies := range days {
		d := ErrorDay{Day: day, Top: tallies.list(names, q.Message, q.TopBy, false)}
		for _, e := range d.Top {
			d.Count += e.Count
		}
		d.Top = d.Top[:min(q.Top, len(d.Top))]
		if d.Count > 0 {
			out.Timeline = append(out.Timeline, d)
		}
	}
	slices.SortFunc(out.Timeline, func(a, b ErrorDay) int { return a.Day.Compare(b.Day) })
	return out, nil
}
