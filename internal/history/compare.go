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

// Verdict is the result of a test in a run, over all groups that ran it.
type Verdict struct {
	Failed bool // in one of the groups
	Flaky  bool // in one of the groups, and it failed in none
	Ran    bool // it passed or failed
	// Took is the average duration of its passes; 0 if it never passed.
	Took time.Duration

	spec   int           // its number
	passes time.Duration // the number of passes; a Duration, as a divisor
	passed time.Duration // the sum of the durations of all passes
}

// Verdicts are those of a run, by the number of the test.
type Verdicts map[int]Verdict

// RunRef is an earlier run.
type RunRef struct {
	ID        string
	CIBuildID string
	CreatedAt time.Time
}

// Earlier is an earlier run with its verdicts.
type Earlier struct {
	RunRef
	Verdicts Verdicts
}

// Change is how a test differs from an earlier run.
type Change struct {
	Test int
	// Since is, for a test that still fails, the first run since which it has failed.
	Since RunRef
	// Before and Now are the durations of a slower test.
	Before, Now time.Duration
}

// Comparison is what a run changed since an earlier one. A new test that fails or is
// flaky is in both lists.
type Comparison struct {
	NewlyFailing []Change // it did not fail before
	StillFailing []Change
	NewlyFlaky   []Change // it was not flaky before, and did not fail now
	Fixed        []Change // it failed before, and passed now
	NewTests     []Change // the earlier run does not have it
	Slower       []Change // it passed in both, and took 30 % and a tenth of a second longer
}

const (
	// slower is how much longer a slower test takes, in percent.
	slower = 30
	// It is also this much longer: durations of milliseconds vary by more than a share.
	slowerBy = 100 * time.Millisecond
)

// Compare compares a run with the first of the earlier runs, which are of one branch, the latest first. The others
// tell since when a test has failed. Lists are in the order of the numbers of tests.
func Compare(now Verdicts, earlier []Earlier) Comparison {
	var c Comparison
	if len(earlier) == 0 {
		return c
	}
	for _, number := range slices.Sorted(maps.Keys(now)) {
		v := now[number]
		before, known := earlier[0].Verdicts[number]
		change := Change{Test: number}
		if !known {
			c.NewTests = append(c.NewTests, change)
		}
		switch {
		case v.Failed && before.Failed:
			change.Since = failingSince(number, earlier)
			c.StillFailing = append(c.StillFailing, change)
		case v.Failed:
			c.NewlyFailing = append(c.NewlyFailing, change)
		case before.Failed && v.Ran:
			c.Fixed = append(c.Fixed, change)
		}
		if v.Flaky && !before.Flaky {
			c.NewlyFlaky = append(c.NewlyFlaky, change)
		}
		if before.Took > 0 && v.Took-before.Took >= slowerBy && v.Took*100 > before.Took*(100+slower) {
			change.Before, change.Now = before.Took, v.Took
			c.Slower = append(c.Slower, change)
		}
	}
	return c
}

func (c *Comparison) lists() []*[]Change {
	return []*[]Change{&c.NewlyFailing, &c.StillFailing, &c.NewlyFlaky, &c.Fixed, &c.NewTests, &c.Slower}
}

// failingSince passes over runs that did not run the test.
func failingSince(number int, earlier []Earlier) (since RunRef) {
	for _, e := range earlier {
		v := e.Verdicts[number]
		if v.Ran && !v.Failed {
			break
		}
		if v.Failed {
			since = e.RunRef
		}
	}
	return since
}

// some are a few tests with their specs. To find them in a run, only these specs are unpacked.
type some struct{ tests, specs map[int]bool }

func (s *some) add(test, spec int) {
	if s.tests == nil {
		s.tests, s.specs = map[int]bool{}, map[int]bool{}
	}
	s.tests[test], s.specs[spec] = true, true
}

func (s *some) look(e *Summary) bool { return s.specs[e.Spec] }

// verdictsOf counts packed results of one run: of all tests if only is nil.
func verdictsOf(packed [][]byte, only *some) (Verdicts, error) {
	size, look := 0, only.look
	if only == nil {
		look = everything
		for _, b := range packed {
			size += len(b) / 5 // about as many as there are results
		}
	}
	out := make(Verdicts, size)
	for _, b := range packed {
		err := unpack(b, look, func(e *Execution) {
			for _, r := range e.Results {
				if only == nil || only.tests[r.Test] {
					v := out[r.Test]
					v.spec = e.Spec
					v.add(r)
					out[r.Test] = v
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// add adds the result of one group.
func (v *Verdict) add(r Result) {
	v.Failed = v.Failed || r.State == failed
	v.Flaky = (v.Flaky || r.Flaky()) && !v.Failed
	v.Ran = v.Ran || r.Ran()
	if r.State == passed {
		v.passes++
		v.passed += time.Duration(r.Duration) * time.Millisecond
		v.Took = v.passed / v.passes
	}
}

// Shown is how many tests of each list of a RunComparison have names.
const Shown = 50

// LookBack is in how many earlier runs of a branch the first failure of a test is searched.
const LookBack = 20

// RunComparison compares a run with one branch.
type RunComparison struct {
	Comparison
	Branch string
	With   *RunRef                 // the last run of the branch that finished before; nil if there is none
	Names  map[int]TestDescription // of the first Shown tests of each list
}

// TestDescription is the name of a test.
type TestDescription struct {
	Signature string
	Spec      string
	Title     []string
}

// MainBranch is the default branch of a run: that of its project, or else the one that
// the reporter sent; "" if unknown.
func MainBranch(ofProject string, c run.Commit) string { return cmp.Or(ofProject, c.DefaultBranch) }

// HealthsBefore are the healths of tests by the results of the latest runs of some
// branches, 20 of each, that finished before a run.
func HealthsBefore(ctx context.Context, tx *store.Tx, r run.Run, branches []string,
	tests []int) (map[int]Health, error) {
	if len(tests) == 0 {
		return nil, nil // without numbers, it would read all names
	}
	var before []run.Run
	for _, branch := range branches {
		list, err := tx.FinishedBefore(ctx, r, branch, window)
		if err != nil {
			return nil, err
		}
		before = append(before, list...)
	}
	slices.SortFunc(before, func(a, b run.Run) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	names, err := tx.HistoryNames(ctx, r.ProjectID, store.TestName, tests)
	if err != nil {
		return nil, err
	}
	var wanted some
	recent := make(map[int]*Recent, len(tests))
	for _, number := range tests {
		wanted.add(number, names[number].Spec)
		recent[number] = &Recent{}
	}
	for _, b := range before {
		packed, err := tx.HistoryOfRun(ctx, b.ID)
		if err != nil {
			return nil, err
		}
		for _, part := range packed {
			err := unpack(part, wanted.look, func(e *Execution) {
				for _, result := range e.Results {
					if v := recent[result.Test]; v != nil {
						v.Add(&result)
					}
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	healths := make(map[int]Health, len(tests))
	for number, v := range recent {
		healths[number] = v.Health()
	}
	return healths, nil
}

// CompareRun compares a run with the last finished run of a branch before it.
func CompareRun(ctx context.Context, tx *store.Tx, r run.Run, branch string) (RunComparison, error) {
	list, err := CompareRunWith(ctx, tx, r, []string{branch})
	if err != nil {
		return RunComparison{}, err
	}
	return list[0], nil
}

// CompareRunWith compares a run with the last finished run before it of each of some
// branches.
func CompareRunWith(ctx context.Context, tx *store.Tx, r run.Run, branches []string) ([]RunComparison, error) {
	now, err := verdicts(ctx, tx, r.ID, nil)
	if err != nil {
		return nil, err
	}
	list := make([]RunComparison, len(branches))
	for n, branch := range branches {
		c := &list[n]
		c.Branch = branch
		before, err := tx.FinishedBefore(ctx, r, branch, LookBack)
		if err != nil {
			return nil, err
		}
		if len(before) == 0 {
			continue
		}
		earlier, err := earlierOf(ctx, tx, now, before)
		if err != nil {
			return nil, err
		}
		c.Comparison, c.With = Compare(now, earlier), &earlier[0].RunRef
		if c.Names, err = c.names(ctx, tx, r.ProjectID); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// earlierOf reads the verdicts of earlier runs: all of the latest run, and of the others only those of the tests that
// still fail.
func earlierOf(ctx context.Context, tx *store.Tx, now Verdicts, before []run.Run) ([]Earlier, error) {
	earlier := make([]Earlier, len(before))
	var failing *some // nil is all
	for n, b := range before {
		earlier[n].RunRef = RunRef{b.ID, b.CIBuildID, b.CreatedAt}
		var err error
		if earlier[n].Verdicts, err = verdicts(ctx, tx, b.ID, failing); err != nil {
			return nil, err
		}
		if n == 0 {
			failing = &some{}
			for number, v := range now {
				if v.Failed && earlier[0].Verdicts[number].Failed {
					failing.add(number, v.spec)
				}
			}
		}
		if len(failing.tests) == 0 {
			break
		}
	}
	return earlier, nil
}

func verdicts(ctx context.Context, tx *store.Tx, runID string, only *some) (Verdicts, error) {
	packed, err := tx.HistoryOfRun(ctx, runID)
	if err != nil {
		return nil, err
	}
	return verdictsOf(packed, only)
}

func (c *RunComparison) names(ctx context.Context, tx *store.Tx, projectID string) (map[int]TestDescription, error) {
	numbers := []int{}
	for _, list := range c.lists() {
		for _, change := range (*list)[:min(Shown, len(*list))] {
			numbers = append(numbers, change.Test)
		}
	}
	slices.Sort(numbers)
	return descriptions(ctx, tx, projectID, slices.Compact(numbers))
}

// descriptions reads the names of tests, by number.
func descriptions(ctx context.Context, tx *store.Tx, projectID string, numbers []int) (map[int]TestDescription, error) {
	if len(numbers) == 0 {
		return nil, nil // without numbers, it would read all names
	}
	names, err := tx.HistoryNames(ctx, projectID, store.TestName, numbers)
	if err != nil {
		return nil, err
	}
	specs, err := specsOf(ctx, tx, projectID, names)
	if err != nil {
		return nil, err
	}
	out := make(map[int]TestDescription, len(names))
	for number, n := range names {
		d := TestDescription{Signature: n.Key, Spec: specs[n.Spec].Key}
		if d.Title, err = titleOf(n); err != nil {
			return nil, err
		}
		out[number] = d
	}
	return out, nil
}
