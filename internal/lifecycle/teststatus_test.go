package lifecycle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// play records a run of one spec with some tests, by title.
func play(t *testing.T, runs *lifecycle.Service, build, branch string, tests map[string]run.TestState) string {
	t.Helper()
	joined, err := runs.Join(t.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: build, Specs: []string{"a.cy.js"}, Fingerprint: build, Commit: run.Commit{Branch: branch}})
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := runs.Claim(t.Context(), lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	var a run.Announcement
	var o run.Outcome
	for title, state := range tests {
		a.Tests = append(a.Tests, run.Announced{ID: title, Title: []string{title}})
		o.Results = append(o.Results, run.Result{ID: title, State: state, Attempts: []run.Attempt{{State: state}}})
	}
	if _, err := runs.Complete(t.Context(), claimed.Instances[0].ID, &a, o); err != nil {
		t.Fatal(err)
	}
	return joined.RunID
}

// A change of the health of a test causes one event, however many processes look for it, and only for endpoints that
// list the event.
func TestStatusIsReportedOnce(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop", func(p *run.Project) { p.DefaultBranch, p.CompletionDelay = "main", 0 })
		plain := testkit.Endpoint(t, db, "shop")
		asked := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Events = []webhook.Kind{webhook.TestStatus} })
		told := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) {
			e.Events, e.Scope, e.Payload = []webhook.Kind{webhook.TestStatus}, run.RunScope, webhook.ExtendedForm
		})
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		worker := history.NewWorker(db, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		builds := 0
		// next plays a run and returns its TEST_STATUS event.
		next := func(branch string, state run.TestState) string {
			builds++
			id := play(t, runs, fmt.Sprint("b", builds), branch, map[string]run.TestState{"wavers": state, "works": run.Passed})
			if err := runs.TellStatuses(t.Context()); err != nil { // too early: the run is not in the history yet
				t.Fatal(err)
			}
			if err := worker.Catch(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				ctx, kill := context.WithCancel(t.Context())
				after := time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, kill)
				_ = runs.TellStatuses(ctx) // it ends where it is
				after.Stop()
				kill()
			}
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					if err := runs.TellStatuses(context.WithoutCancel(t.Context())); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			return toldOf(t, db, id)
		}
		steps := []struct {
			branch string
			state  run.TestState
			want   string
		}{
			{"main", run.Passed, ""},
			{"main", run.Failed, ""},
			{"fix", run.Failed, ""}, // not the default branch
			{"main", run.Failed, ""},
			{"fix", run.Failed, ""},
			{"main", run.Failed, "wavers healthy broken"},
			{"main", run.Failed, ""},
			{"main", run.Passed, "wavers broken healthy"},
			{"main", run.Failed, ""},
			{"main", run.Passed, ""}, // one that failed alone
			{"main", run.Failed, ""},
			{"main", run.Passed, "wavers healthy flaky"},
		}
		events := 0
		for n, step := range steps {
			if got := next(step.branch, step.state); got != step.want {
				t.Errorf("run %d: told %q, want %q", n+1, got, step.want)
			}
			if step.want != "" {
				events++
			}
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			for id, want := range map[string]int{plain.ID: 0, asked.ID: events, told.ID: events} {
				list, _, err := tx.Deliveries(ctx, store.DeliveryFilter{EndpointID: id, Kinds: []webhook.Kind{webhook.TestStatus}}, store.Page{Limit: 100})
				if err != nil {
					return err
				}
				if len(list) != want {
					t.Errorf("an endpoint has %d deliveries of %s, want %d", len(list), webhook.TestStatus, want)
				}
			}
			return nil
		})

		// Another default branch starts from the beginning: its first healths are no change.
		if err := db.Write(t.Context(), func(tx *store.Tx) error {
			p, err := tx.Project(t.Context(), "shop")
			if err == nil {
				p.DefaultBranch = "fix"
				err = tx.UpdateProject(t.Context(), p)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if got := next("fix", run.Failed) + next("fix", run.Failed) + next("fix", run.Passed); got != "wavers broken healthy" {
			t.Errorf("after the default branch changed, told %q", got)
		}
	})
}

// toldOf is the content of the TEST_STATUS event of a run, "" if there is none.
func toldOf(t *testing.T, db *store.DB, runID string) (said string) {
	t.Helper()
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		events, err := tx.Events(ctx, runID)
		for n, e := range events {
			if e.Kind != webhook.TestStatus {
				continue
			}
			var p webhook.Payload
			if err := json.Unmarshal(e.Payload, &p); err != nil {
				return err
			}
			if err := testkit.CheckPayload(e.Payload); err != nil || e.Facts == nil || e.Sequence != int64(n+1) || said != "" || p.Changes.Total != len(p.Changes.Tests) {
				t.Errorf("event %d: %v, sequence %d, %s", n, err, e.Sequence, e.Payload)
			}
			for _, c := range p.Changes.Tests {
				said += fmt.Sprint(c.Title[0], " ", c.From, " ", c.To)
			}
		}
		return err
	})
	return said
}

// The facts of an event compare its run with earlier ones, even if its last results are not in the history yet; and
// the results that they add to the history are there once.
func TestFactsCompare(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop", func(p *run.Project) { p.DefaultBranch, p.CompletionDelay = "main", 0 })
		testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Payload, e.Scope = webhook.ExtendedForm, run.RunScope })
		testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Payload = webhook.ExtendedForm })
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		first := play(t, runs, "b1", "main", map[string]run.TestState{"breaks": run.Passed, "is mended": run.Failed, "stays red": run.Failed})
		fix := play(t, runs, "b2", "fix", map[string]run.TestState{"breaks": run.Failed, "is mended": run.Passed, "stays red": run.Failed, "is new": run.Passed})
		completeFacts(t, db, runs)
		compared := map[string]*webhook.FactsComparison{}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			for _, id := range []string{first, fix} {
				events, err := tx.Events(ctx, id)
				if err != nil {
					return err
				}
				for _, e := range events {
					var f webhook.Facts
					if err := json.Unmarshal(e.Facts, &f); err != nil {
						return err
					}
					if e.Kind == webhook.RunFinish && e.Scope == run.RunScope {
						compared[id] = f.Comparison
					} else if f.Comparison != nil {
						t.Errorf("%s at %s scope has a comparison", e.Kind, e.Scope)
					}
				}
			}
			return nil
		})
		if c := compared[first]; c == nil || c.Branch != nil || c.DefaultBranch != nil {
			t.Errorf("the first run is compared: %+v", c)
		}
		c := compared[fix]
		if c == nil || c.Branch != nil || c.DefaultBranch == nil {
			t.Fatalf("the second run is compared: %+v", c)
		}
		with := c.DefaultBranch
		got := map[string][]string{"with": {with.RunID, with.BranchName, with.BuildID}}
		for what, list := range map[string]webhook.FactsChanges{"newly failing": with.NewlyFailing, "still failing": with.StillFailing, "fixed": with.Fixed, "new": with.NewTests, "flaky": with.NewlyFlaky, "slower": with.Slower} {
			for _, test := range list.Tests {
				got[what] = append(got[what], test.Title[0])
			}
			if list.Total != len(list.Tests) {
				t.Errorf("%s: %d of %d", what, len(list.Tests), list.Total)
			}
		}
		want := map[string][]string{"with": {first, "main", "b1"}, "newly failing": {"breaks"}, "still failing": {"stays red"}, "fixed": {"is mended"}, "new": {"is new"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("compared (-want +got):\n%s", diff)
		}
		if since := with.StillFailing.Tests[0].Since; since == nil || since.RunID != first {
			t.Errorf("failing since %+v", since)
		}

		if err := history.NewWorker(db, slog.New(slog.DiscardHandler), prometheus.NewRegistry()).Catch(t.Context()); err != nil {
			t.Fatal(err)
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, _, err := history.NewExplorer().Tests(ctx, tx, "shop", history.TestQuery{States: history.DefaultStates(), Order: history.ByTitle, Ascending: true, Limit: 10})
			for _, test := range list {
				if want := map[bool]int{true: 1, false: 2}[slices.Equal(test.Title, []string{"is new"})]; test.Metrics.Executions != want {
					t.Errorf("%v has %d executions, want %d", test.Title, test.Metrics.Executions, want)
				}
			}
			return err
		})
	})
}
