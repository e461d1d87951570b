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
	error int32
	test  int32 // the spec, below 0, if it could not run
	run   int32 // in the order of creation
	group int32 // in the list of groups
}

// occurrences are those of a period, in the order of runs.
type occurrences struct {
	list     []occurrence
	runs     []store.HistoryRun
	groups   []string
	branches []int32 // of each run: the number of its branch

	// When a test and a branch were last counted: at which call, for which error.
	counted              int32
	testSeen, branchSeen []int32
}

// occurrenceBytes is what an occurrence takes.
const occurrenceBytes = 16

func scanErrors(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter) (*occurrences, error) {
	o := &occurrences{}
	var err error
	o.runs, err = scan(ctx, tx, projectID, filter, []scanner{{withError, func(run int, group string, e *Execution) {
		v := occurrence{run: int32(run), group: o.groupOf(group)}
		add := func(error, test int) {
			if error > 0 {
				v.error, v.test = int32(error), int32(test)
				o.list = append(o.list, v)
			}
		}
		add(e.Error, -e.Spec)
		for _, r := range e.Results {
			add(r.Error, r.Test)
		}
	}}})
	o.list, o.runs = slices.Clone(o.list), slices.Clone(o.runs) // they grew beyond what they need
	return o, err
}

// groupOf is the place of a group in the list of groups.
func (o *occurrences) groupOf(name string) int32 {
	n := slices.Index(o.groups, name)
	if n < 0 {
		n = len(o.groups)
		o.groups = append(o.groups, name)
	}
	return int32(n)
}

// merge adds the occurrences in later runs.
func (o *occurrences) merge(later *occurrences) {
	before := int32(len(o.runs))
	groups := make([]int32, len(later.groups))
	for n, name := range later.groups {
		groups[n] = o.groupOf(name)
	}
	o.list = slices.Grow(o.list, len(later.list))
	for _, v := range later.list {
		v.run, v.group = v.run+before, groups[v.group]
		o.list = append(o.list, v)
	}
	o.runs = append(o.runs, later.runs...)
}

// eachErrorDay calls add with the occurrences of a day, or of some small ones, the oldest first.
func (x *Explorer) eachErrorDay(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter,
	add func(*occurrences)) error {
	return sumDays(ctx, tx, x, "errors", projectID, filter, 0, func(part store.HistoryFilter) (*occurrences, int, error) {
		found, err := scanErrors(ctx, tx, projectID, part)
		return found, len(found.list)*occurrenceBytes + len(found.runs)*runBytes, err
	}, add)
}

func (x *Explorer) findErrors(ctx context.Context, tx *store.Tx, projectID string,
	filter store.HistoryFilter) (*occurrences, error) {
	o := &occurrences{}
	err := x.eachErrorDay(ctx, tx, projectID, filter, o.merge)
	branches := map[string]int32{}
	for _, r := range o.runs {
		if _, known := branches[r.Branch]; !known {
			branches[r.Branch] = int32(len(branches))
		}
		o.branches = append(o.branches, branches[r.Branch])
	}
	last := int32(0)
	for _, v := range o.list {
		last = max(last, v.test)
	}
	o.testSeen, o.branchSeen = make([]int32, last+1), make([]int32, len(branches))
	return o, err
}

// withError looks at the executions with an error.
func withError(e *Summary) bool { return e.Error > 0 || e.Errors }

// keep drops the occurrences of errors without a name.
func (o *occurrences) keep(names map[int]store.HistoryName) {
	o.list = slices.DeleteFunc(o.list, func(v occurrence) bool {
		_, wanted := names[int(v.error)]
		return !wanted
	})
}

// count counts a part of the list by error.
func (o *occurrences) count(list []occurrence, names map[int]store.HistoryName) []Error {
	// To sort by error, in the order of runs, it counts how many come before.
	last := int32(0)
	for _, v := range list {
		last = max(last, v.error)
	}
	ends := make([]int32, last+2)
	for _, v := range list {
		ends[v.error+1]++
	}
	for n := range ends[1:] {
		ends[n+1] += ends[n]
	}
	sorted := make([]occurrence, len(list))
	for _, v := range list {
		sorted[ends[v.error]] = v
		ends[v.error]++ // the place of the next one; finally, the end of the error
	}
	var out []Error
	for begin := 0; begin < len(sorted); begin = int(ends[sorted[begin].error]) {
		out = append(out, o.countOne(sorted[begin:ends[sorted[begin].error]], names))
	}
	return out
}

// countOne counts the occurrences of one error.
func (o *occurrences) countOne(of []occurrence, names map[int]store.HistoryName) Error {
	name := names[int(of[0].error)]
	e := Error{Fingerprint: name.Key, Headline: name.Text, Count: len(of),
		FirstSeen: o.runs[of[0].run].CreatedAt, LastSeen: o.runs[of[len(of)-1].run].CreatedAt}
	o.counted++
	for _, v := range of {
		if v.test > 0 && o.testSeen[v.test] != o.counted {
			o.testSeen[v.test] = o.counted
			e.Tests++
		}
		if branch := o.branches[v.run]; o.branchSeen[branch] != o.counted {
			o.branchSeen[branch] = o.counted
			e.Branches++
		}
	}
	return e
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
	day := func(v occurrence) time.Time { return o.runs[v.run].CreatedAt.Truncate(24 * time.Hour) }
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
		q.TopBy.sort(d.Top, false)
		d.Top = d.Top[:min(q.Top, len(d.Top))]
		days = append(days, d)
	}
	return days
}

// Errors lists a page of the errors of a project.
func (x *Explorer) Errors(ctx context.Context, tx *store.Tx, projectID string, q ErrorQuery) (ErrorList, error) {
	found, err := x.findErrors(ctx, tx, projectID, q.Filter)
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
	found.keep(names)
	out.Timeline = found.timeline(q, names)
	list := found.count(found.list, names)
	q.Order.sort(list, q.Ascending)
	out.List, out.Total = page(list, q.Page, q.Limit), len(list)
	return out, nil
}
