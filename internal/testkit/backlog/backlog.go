// Package backlog has results for a server to pack, and counts them once more.
package backlog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/database"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// counted is what a result adds to the numbers of its test.
type counted struct {
	test                    string
	passes, failures, flaky int
}

// Backlog is the results of specs, packed or not, in a database that a server has between two
// calls.
type Backlog struct {
	project, url string

	mu      sync.Mutex
	results map[string][]counted // by instance
}

// New is one without results, in a project of a database.
func New(project, url string) *Backlog {
	return &Backlog{project: project, url: url, results: map[string][]counted{}}
}

// on calls f with the database.
func (b *Backlog) on(t testing.TB, f func(*store.DB)) {
	db, err := store.Open(context.Background(), b.url, testkit.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	f(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// Add records runs with random results, without a server.
func (b *Backlog) Add(t testing.TB, build string) {
	const runs = 20
	b.on(t, func(db *store.DB) {
		verbs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		var done sync.WaitGroup
		for n := range runs {
			done.Go(func() {
				if err := b.record(verbs, fmt.Sprint(build, "-", n)); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
	})
}

// record records a run of some specs.
func (b *Backlog) record(verbs *lifecycle.Service, build string) error {
	const specs, tests = 8, 20
	var names []string
	for n := range specs {
		names = append(names, fmt.Sprint(n, ".cy.js"))
	}
	ctx := context.Background()
	joined, err := verbs.Join(ctx, lifecycle.Join{ProjectID: b.project, CIBuildID: build, Specs: names,
		Parallel: true, Batches: true, Commit: run.Commit{Branch: "main"}})
	if err != nil {
		return err
	}
	claimed, err := verbs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: specs})
	if err != nil || len(claimed.Instances) != specs {
		return fmt.Errorf("%d specs are claimed: %w", len(claimed.Instances), err)
	}
	for _, i := range claimed.Instances {
		a, o, list := b.outcome(i.Spec, tests)
		if _, err := verbs.Complete(ctx, i.ID, &a, o); err != nil {
			return err
		}
		b.mu.Lock()
		b.results[i.ID] = list
		b.mu.Unlock()
	}
	return nil
}

// outcome makes random results of a spec.
func (b *Backlog) outcome(spec string, tests int) (a run.Announcement, o run.Outcome, list []counted) {
	for n := range tests {
		id := fmt.Sprint("r", n)
		title := []string{"suite", fmt.Sprint("test ", rand.IntN(100))} // two may have one title
		red := run.Attempt{State: run.Failed, Error: &run.Failure{Message: fmt.Sprint("no ", rand.IntN(5), "x")}}
		r, c := run.Result{ID: id, State: run.Passed, Attempts: []run.Attempt{{State: run.Passed, Duration: 9}}},
			counted{test: run.Signature(b.project, spec, title), passes: 1}
		switch rand.IntN(6) {
		case 0:
			r.State, r.Attempts = run.Failed, []run.Attempt{red}
			c.passes, c.failures = 0, 1
		case 1:
			r.Attempts = append([]run.Attempt{red}, r.Attempts...)
			c.flaky = 1
		}
		a.Tests, o.Results, list = append(a.Tests, run.Announced{ID: id, Title: title}), append(o.Results, r), append(list, c)
	}
	return a, o, list
}

// Check compares the history with a recount of the results that are not due any more. It
// returns how many specs are due, and how many there are.
func (b *Backlog) Check(t testing.TB) (due, all int) {
	t.Helper()
	var waiting []string
	got := map[string]counted{}
	b.on(t, func(db *store.DB) {
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			rows, err := tx.Query(ctx, `SELECT id FROM instance WHERE history_due = 1`)
			waiting, err = database.All(rows, err, func(r database.Row) (id string, err error) {
				err = r.Scan(&id)
				return id, err
			})
			if err != nil {
				return err
			}
			list, _, err := history.NewExplorer().Tests(ctx, tx, b.project, history.TestQuery{
				Filter: store.HistoryFilter{Since: tx.Now.Add(-time.Hour), Until: tx.Now.Add(time.Hour)},
				States: history.DefaultStates(), Order: history.ByExecutions, Limit: 10_000})
			for _, v := range list {
				got[v.Signature] = counted{v.Signature, v.Metrics.Passes, v.Metrics.Failures, v.Metrics.Flaky}
			}
			return err
		})
	})
	want := map[string]counted{}
	for id, list := range b.results {
		for _, c := range list {
			if sum := want[c.test]; !slices.Contains(waiting, id) {
				want[c.test] = counted{c.test, sum.passes + c.passes, sum.failures + c.failures, sum.flaky + c.flaky}
			}
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(counted{})); diff != "" {
		t.Errorf("the history is not what a recount says (-want +got):\n%s", diff)
	}
	return len(waiting), len(b.results)
}
