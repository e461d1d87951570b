package history

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Trace is one test over a period.
type Trace struct {
	TestDescription
	Metrics  TestMetrics
	Health   Health
	Evidence Evidence
	Results  []TracedResult // oldest first
	Errors   []TracedError  // the most frequent first
	// ErrorsSince is the start of the runs in which these errors were looked for in other tests; zero if it is the
	// whole period.
	ErrorsSince time.Time
}

// TracedResult is a result of a test.
type TracedResult struct {
	Run      store.HistoryRun
	Group    string
	State    run.TestState
	Flaky    bool
	Duration time.Duration // of all attempts

	error int
}

// TracedError is an error that a test failed or was flaky with.
type TracedError struct {
	Fingerprint string
	Headline    string
	Count       int
	Last        TracedResult // the latest with it
	Others      int          // different tests that had it, too

	number int
}

// TraceTest finds the results and errors of a test in a period.
func TraceTest(ctx context.Context, tx *store.Tx, projectID, signature string,
	filter store.HistoryFilter) (Trace, error) {
	owner, name, err := tx.TestOfSignature(ctx, signature)
	if err == nil && owner != projectID {
		err = run.Missing("test", signature)
	}
	if err != nil {
		return Trace{}, err
	}
	specs, err := tx.HistoryNames(ctx, projectID, store.SpecName, []int{name.Spec})
	if err != nil {
		return Trace{}, err
	}
	t := Trace{TestDescription: TestDescription{Signature: signature, Spec: specs[name.Spec].Key}}
	if t.Title, err = titleOf(name); err != nil {
		return Trace{}, err
	}
	var tally testTally
	err = eachOfSpec(ctx, tx, projectID, filter, name.Spec, func(s store.HistorySlice, e *Execution) {
		for _, v := range e.Results {
			if v.Test == name.Number {
				tally.add(&v)
				t.Results = append(t.Results, traced(s, v))
			}
		}
	})
	if err != nil {
		return Trace{}, err
	}
	t.Metrics, t.Health, t.Evidence = tally.metrics(DefaultStates()), tally.recent.Health(), tally.recent.Evidence()
	return t, t.addErrors(ctx, tx, projectID, filter, name.Number)
}

// eachOfSpec calls f with the executions of a spec, those of the oldest run first.
func eachOfSpec(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter, spec int,
	f func(store.HistorySlice, *Execution)) error {
	return tx.HistorySlices(ctx, projectID, filter, func(contents []byte, wanted func(first, length int)) error {
		return findSpec(contents, spec, wanted)
	}, func(s store.HistorySlice, packed []byte) error {
		return unpack(packed, everything, func(e *Execution) { f(s, e) })
	})
}

func traced(s store.HistorySlice, v Result) TracedResult {
	return TracedResult{Run: s.Run, Group: s.Group, State: v.State.Name(), Flaky: v.Flaky(),
		Duration: time.Duration(v.Duration) * time.Millisecond, error: v.Error}
}

// addErrors counts the errors of the results, and the other tests that had them.
func (t *Trace) addErrors(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter,
	test int) error {
	byNumber := map[int]*TracedError{}
	for _, v := range t.Results {
		if v.error == 0 {
			continue
		}
		e := byNumber[v.error]
		if e == nil {
			e = &TracedError{number: v.error}
			byNumber[v.error] = e
		}
		e.Count, e.Last = e.Count+1, v
	}
	if len(byNumber) == 0 {
		return nil
	}
	others := map[[2]int]bool{} // pairs of an error and a test
	var err error
	t.ErrorsSince, err = glance(ctx, tx, projectID, filter, withError,
		func(_ store.HistoryRun, _ store.HistoryPart, e *Execution) {
			for _, v := range e.Results {
				if v.Error > 0 && v.Test != test && byNumber[v.Error] != nil {
					others[[2]int{v.Error, v.Test}] = true
				}
			}
		})
	if err != nil {
		return err
	}
	for pair := range others {
		byNumber[pair[0]].Others++
	}
	for _, e := range byNumber {
		t.Errors = append(t.Errors, *e)
	}
	slices.SortFunc(t.Errors, func(a, b TracedError) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.number, b.number))
	})
	t.Errors = t.Errors[:min(Shown, len(t.Errors))]
	numbers := make([]int, len(t.Errors))
	for i, e := range t.Errors {
		numbers[i] = e.number
	}
	names, err := tx.HistoryNames(ctx, projectID, store.ErrorName, numbers)
	for i, e := range t.Errors {
		t.Errors[i].Fingerprint, t.Errors[i].Headline = names[e.number].Key, names[e.number].Text
	}
	return err
}

// maxGlance limits how many bytes of packed results glance goes through: about 400,000
// results, some 10 ms of a processor.
const maxGlance = 2 << 20

// glance reads the newest results of a period, up to a limit, for pages about something else. Since is where it
// stopped: it has read that run and all later ones. It is zero if it has read the whole period.
func glance(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter, look func(*Summary) bool,
	f func(store.HistoryRun, store.HistoryPart, *Execution)) (since time.Time, err error) {
	left, last := maxGlance, store.HistoryRun{}
	err = tx.FirstHistoryParts(ctx, projectID, filter, store.NewestFirst,
		func(r store.HistoryRun, p store.HistoryPart, packed []byte) error {
			if left < 0 && r.ID != last.ID { // whole runs only
				return errEnough
			}
			left, last = left-len(packed), r
			return unpack(packed, look, func(e *Execution) { f(r, p, e) })
		})
	if errors.Is(err, errEnough) {
		return last.CreatedAt, nil
	}
	return time.Time{}, err
}

// Latest summarizes the newest runs of a period.
type Latest struct {
	// Since is the start of the runs that were read; zero if it is the whole period.
	Since    time.Time
	Slowest  []Spec       // that took the longest on average
	Failures []NewFailure // the latest first
}

// NewFailure is the latest failure of a test, and of those that failed in the same run
// with the same error.
type NewFailure struct {
	TestDescription
	Run   store.HistoryRun
	Group string
	Error string // its headline, "" if unknown
	More  int    // other tests

	test, error int // test is 0 for a spec that could not run
	spec        int
}

// LatestOf finds the newest failures and the slowest specs, at most limit of each.
func LatestOf(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter,
	limit int) (Latest, error) {
	var out Latest
	var err error
	specs := map[int]*specTally{}
	failing := map[[2]int]bool{} // specs and tests that are counted
	add := func(f NewFailure) {
		if key := [2]int{f.spec, f.test}; failing[key] {
			return
		} else {
			failing[key] = true
		}
		alike := slices.IndexFunc(out.Failures, func(o NewFailure) bool {
			return f.Run.ID == o.Run.ID && f.error == o.error && f.error > 0
		})
		switch {
		case alike >= 0:
			out.Failures[alike].More++
		case len(out.Failures) < limit:
			out.Failures = append(out.Failures, f)
		}
	}
	out.Since, err = glance(ctx, tx, projectID, filter, func(e *Summary) bool {
		v := specs[e.Spec]
		if v == nil {
			v = &specTally{}
			specs[e.Spec] = v
		}
		v.add(e, false)
		return e.Failed
	}, func(r store.HistoryRun, p store.HistoryPart, e *Execution) {
		if e.Crashed {
			add(NewFailure{Run: r, Group: p.Group, spec: e.Spec, error: e.Error})
		}
		for _, result := range e.Results {
			if result.State == failed {
				add(NewFailure{Run: r, Group: p.Group, spec: e.Spec, test: result.Test, error: result.Error})
			}
		}
	})
	if err != nil {
		return out, err
	}
	if err := out.nameFailures(ctx, tx, projectID); err != nil {
		return out, err
	}
	out.Slowest, err = slowest(ctx, tx, projectID, specs, limit)
	return out, err
}

func (l *Latest) nameFailures(ctx context.Context, tx *store.Tx, projectID string) error {
	tests, specs, errs := []int{}, []int{}, []int{}
	for _, f := range l.Failures {
		tests, specs, errs = append(tests, f.test), append(specs, f.spec), append(errs, f.error)
	}
	slices.Sort(specs)
	slices.Sort(errs)
	names, err := descriptions(ctx, tx, projectID, tests)
	if err != nil {
		return err
	}
	paths, err := tx.HistoryNames(ctx, projectID, store.SpecName, slices.Compact(specs))
	if err != nil {
		return err
	}
	said, err := tx.HistoryNames(ctx, projectID, store.ErrorName, slices.Compact(errs))
	for i, f := range l.Failures {
		f.TestDescription, f.Error = names[f.test], said[f.error].Text
		f.Spec = paths[f.spec].Key
		l.Failures[i] = f
	}
	return err
}

func slowest(ctx context.Context, tx *store.Tx, projectID string, specs map[int]*specTally,
	limit int) ([]Spec, error) {
	type timed struct {
		number  int
		metrics SpecMetrics
	}
	var all []timed
	for number, v := range specs {
		if v.timed > 0 {
			all = append(all, timed{number, v.metrics()})
		}
	}
	slices.SortFunc(all, func(a, b timed) int {
		return cmp.Or(cmp.Compare(b.metrics.AvgDuration, a.metrics.AvgDuration), cmp.Compare(a.number, b.number))
	})
	all = all[:min(limit, len(all))]
	numbers := make([]int, len(all))
	for i, v := range all {
		numbers[i] = v.number
	}
	names, err := tx.HistoryNames(ctx, projectID, store.SpecName, numbers)
	list := make([]Spec, len(all))
	for i, v := range all {
		path := names[v.number].Key
		list[i] = Spec{Signature: run.Signature(projectID, path, nil), Path: path, Metrics: v.metrics}
	}
	return list, err
}
