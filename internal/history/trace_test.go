package history_test

import (
	"context"
	"testing"
	"time"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// ended makes the result of a test with one attempt for each state.
func (e *execution) ended(title, failure string, attempts ...run.TestState) {
	id := title
	r := run.Result{ID: id}
	for _, state := range attempts {
		a := run.Attempt{State: state, Duration: 100}
		if state == run.Failed {
			a.Error = &run.Failure{Name: "Error", Message: failure}
		}
		r.State, r.Attempts = state, append(r.Attempts, a)
	}
	e.tests = append(e.tests, run.Announced{ID: id, Title: []string{title}})
	e.results = append(e.results, r)
}

// TestTraceAndLatest plays five runs: one test is flaky, breaks with the error of another, and a spec crashes.
func TestTraceAndLatest(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, "p")
		var ids []string
		for n, play := range []func(a, b *execution){
			func(a, b *execution) { a.ended("one", "", run.Passed); b.ended("two", "boom", run.Failed) },
			func(a, b *execution) { a.ended("one", "slow", run.Failed, run.Passed); b.ended("two", "", run.Passed) },
			func(a, b *execution) { a.ended("one", "", run.Passed); b.exception = "cannot load" },
			func(a, b *execution) { a.ended("one", "boom", run.Failed); b.ended("two", "", run.Passed) },
			func(a, b *execution) {
				a.ended("one", "boom", run.Failed, run.Failed)
				b.ended("two", "boom", run.Failed)
			},
		} {
			branch := "main"
			if n == 3 {
				branch = "feature"
			}
			r := w.start(t, &modelRun{at: day.AddDate(0, 0, n), branch: branch}, []string{"g"}, []string{"a.cy.js", "b.cy.js"})
			play(r.specs[0], r.specs[1])
			r.specs[0].duration, r.specs[1].duration = 2*time.Second, time.Second
			w.complete(t, r.specs[0])
			w.complete(t, r.specs[1])
			ids = append(ids, r.id)
		}
		w.catch(t)
		all := store.HistoryFilter{Since: day, Until: day.AddDate(0, 0, 9)}
		one := run.Signature("p", "a.cy.js", []string{"one"})
		boom := run.Fingerprint("Error: boom")
		err := db.Read(context.Background(), func(tx *store.Tx) error {
			ctx := context.Background()
			trace, err := history.TraceTest(ctx, tx, "p", one, all)
			if err != nil {
				return err
			}
			if trace.Spec != "a.cy.js" || len(trace.Results) != 5 || trace.Health != history.Healthy ||
				trace.Evidence != (history.Evidence{Results: 5, Failed: 2, Retried: 1}) || !trace.Results[1].Flaky ||
				trace.Results[4].Duration != 200*time.Millisecond || trace.Results[3].Run.Branch != "feature" {
				t.Errorf("the test is %+v", trace)
			}
			if len(trace.Errors) != 2 || trace.Errors[0].Fingerprint != boom || trace.Errors[0].Count != 2 || trace.Errors[0].Others != 1 ||
				trace.Errors[0].Last.Run.ID != ids[4] || trace.Errors[1].Others != 0 || !trace.ErrorsSince.IsZero() {
				t.Errorf("its errors are %+v", trace.Errors)
			}
			if _, err := history.TraceTest(ctx, tx, "q", one, all); run.KindOf(err) != run.NotFound {
				t.Errorf("a test of another project: %v", err)
			}
			found, err := w.explorer.TraceError(ctx, tx, "p", boom, all)
			if err != nil {
				return err
			}
			if found.Count != 4 || found.Tests != 2 || found.Branches != 2 || len(found.Days) != 3 || found.Days[2].Count != 2 ||
				!found.FirstSeen.Equal(day) || found.ByTest[0].Count != 2 || found.ByTest[0].Last.ID != ids[4] || found.ByBranch[0].Branch != "main" {
				t.Errorf("the error is %+v", found)
			}
			crash, err := w.explorer.TraceError(ctx, tx, "p", run.Fingerprint("cannot load"), all)
			if err != nil || crash.Count != 1 || crash.ByTest[0].Signature != "" || crash.ByTest[0].Spec != "b.cy.js" {
				t.Errorf("the crash is %+v, %v", crash, err)
			}
			latest, err := history.LatestOf(ctx, tx, "p", all, 3)
			if err != nil {
				return err
			}
			if f := latest.Failures; len(f) != 2 || f[0].Run.ID != ids[4] || f[0].More != 1 || f[0].Error != "Error: boom" ||
				f[1].Run.ID != ids[2] || f[1].Signature != "" || f[1].Spec != "b.cy.js" || f[1].Error != "cannot load" {
				t.Errorf("the newest failures are %+v", f)
			}
			if s := latest.Slowest; len(s) != 2 || s[0].Path != "a.cy.js" || s[0].Metrics.AvgDuration != 2000 {
				t.Errorf("the slowest specs are %+v", s)
			}
			last, err := tx.Run(ctx, ids[4])
			if err != nil {
				return err
			}
			numbers, err := tx.HistoryNumbers(ctx, "p", store.TestName, []string{one, "unknown"})
			if err != nil || len(numbers) != 1 {
				t.Errorf("numbers are %v, %v", numbers, err)
			}
			for branches, want := range map[string]history.Health{"main": history.Healthy, "none": history.Unknown} {
				healths, err := history.HealthsBefore(ctx, tx, last, []string{branches}, []int{numbers[one]})
				if err != nil || healths[numbers[one]] != want {
					t.Errorf("before the last run on %s the health is %v, want %s: %v", branches, healths, want, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
