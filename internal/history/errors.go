package history

import (
	"cmp"
	"context"
	"maps"
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
	// The newest first: by when the first or the latest run with the error was created.
	ByFirstSeen ErrorOrder = "firstSeen"
	ByLastSeen  ErrorOrder = "lastSeen"
)

// ErrorOrders lists those that the REST API has.
func ErrorOrders() []ErrorOrder { return []ErrorOrder{ByCount, ByTests, ByBranches, ByError} }

func (o ErrorOrder) value(e Error) int {
	switch o {
	case ByCount:
		return e.Count
	case ByTests:
		return e.Tests
	case ByBranches:
		return e.Branches
	case ByFirstSeen:
		return int(e.FirstSeen.UnixMicro())
	case ByLastSeen:
		return int(e.LastSeen.UnixMicro())
	default:
		return 0
	}
}

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

// occurrence is an error in one result, in small numbers: a period has very many.
type occurrence struct {
	error  int32
	test   int32 // 0 for a spec that could not run
	branch int32 // in the order in which branches were seen
	run    int32 // in the order of creation
}

// occurrences are those of a period.
type occurrences struct {
	list     []occurrence
	runs     []time.Time // when each was created
	branches map[string]int32
}

func findErrors(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter) (*occurrences, error) {
	o := &occurrences{branches: map[string]int32{}}
	last := ""
	err := tx.EachHistoryPart(ctx, projectID, filter, store.OldestFirst,
		func(r store.HistoryRun, _ store.HistoryPart, packed []byte) error {
			if last != r.ID {
				last, o.runs = r.ID, append(o.runs, r.CreatedAt)
			}
			branch, known := o.branches[r.Branch]
			if !known {
				branch = int32(len(o.branches))
				o.branches[r.Branch] = branch
			}
			at := occurrence{branch: branch, run: int32(len(o.runs) - 1)}
			return unpack(packed, 0, func(e *Execution) {
				if at.test, at.error = 0, int32(e.Error); e.Error > 0 {
					o.list = append(o.list, at)
				}
				for _, result := range e.Results {
					if at.test, at.error = int32(result.Test), int32(result.Error); result.Error > 0 {
						o.list = append(o.list, at)
					}
				}
			})
		})
	return o, err
}

// count counts a part of the list, which it sorts, by error. Only errors with a name
// count.
func (o *occurrences) count(list []occurrence, names map[int]store.HistoryName) []Error {
	slices.SortFunc(list, func(a, b occurrence) int {
		return cmp.Or(cmp.Compare(a.error, b.error), cmp.Compare(a.test, b.test), cmp.Compare(a.run, b.run))
	})
	var out []Error
	branches := make([]bool, len(o.branches))
	for len(list) > 0 {
		n := slices.IndexFunc(list, func(v occurrence) bool { return v.error != list[0].error })
		if n < 0 {
			n = len(list)
		}
		of := list[:n]
		list = list[n:]
		name, wanted := names[int(of[0].error)]
		if !wanted {
			continue
		}
		clear(branches)
		e := Error{Fingerprint: name.Key, Headline: name.Text, Count: n}
		first, last, test := of[0].run, of[0].run, int32(0)
		for _, v := range of {
			first, last = min(first, v.run), max(last, v.run)
			if v.test != test {
				e.Tests, test = e.Tests+1, v.test
			}
			if !branches[v.branch] {
				e.Branches, branches[v.branch] = e.Branches+1, true
			}
		}
		e.FirstSeen, e.LastSeen = o.runs[first], o.runs[last]
		out = append(out, e)
	}
	return out
}

func (o ErrorOrder) sort(list []Error, ascending bool) {
	slices.SortFunc(list, func(a, b Error) int {
		order := cmp.Or(cmp.Compare(o.value(a), o.value(b)), cmp.Compare(a.Headline, b.Headline),
			cmp.Compare(a.Fingerprint, b.Fingerprint))
		if !ascending {
			order = -order
		}
		return order
	})
}

// timeline counts day by day: occurrences are in the order of runs.
func (o *occurrences) timeline(q ErrorQuery, names map[int]store.HistoryName) (days []ErrorDay) {
	day := func(v occurrence) time.Time { return o.runs[v.run].Truncate(24 * time.Hour) }
	for list := o.list; len(list) > 0; {
		d := ErrorDay{Day: day(list[0])}
		n, _ := slices.BinarySearchFunc(list, d.Day, func(v occurrence, at time.Time) int {
			return cmp.Or(day(v).Compare(at), -1) // beyond those of the day
		})
		d.Top = o.count(list[:n], names)
		list = list[n:]
		for _, e := range d.Top {
			d.Count += e.Count
		}
		if d.Count == 0 {
			continue
		}
		q.TopBy.sort(d.Top, false)
		d.Top = d.Top[:min(q.Top, len(d.Top))]
		days = append(days, d)
	}
	return days
}

// Errors lists a page of the errors of a project.
func Errors(ctx context.Context, tx *store.Tx, projectID string, q ErrorQuery) (ErrorList, error) {
	found, err := findErrors(ctx, tx, projectID, q.Filter)
	if err != nil {
		return ErrorList{}, err
	}
	names, err := tx.HistoryNames(ctx, projectID, store.ErrorName, nil)
	if err != nil {
		return ErrorList{}, err
	}
	if part := strings.ToLower(q.Message); part != "" {
		maps.DeleteFunc(names, func(_ int,
			n store.HistoryName) bool {
			return !strings.Contains(strings.ToLower(n.Text), part)
		})
	}
	var out ErrorList
	out.Timeline = found.timeline(q, names) // before the list is sorted as a whole
	list := found.count(found.list, names)
	q.Order.sort(list, q.Ascending)
	out.List, out.Total = page(list, q.Page, q.Limit), len(list)
	return out, nil
}
