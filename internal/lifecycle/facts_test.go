package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/endpoint"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// Facts are stored with an event only if an endpoint that gets it needs them. Each delivery keeps its body, whatever
// the settings are later.
func TestFactsAreFrozenWithTheEvent(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop", func(p *run.Project) { p.Name, p.CompletionDelay = "The shop", 0 })
		plain := testkit.Endpoint(t, db, "shop")
		extended := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) {
			e.Payload, e.Events, e.Scope = webhook.ExtendedForm, []webhook.Kind{webhook.RunFinish}, run.RunScope
		})
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		runID := playFailures(t, runs)
		completeFacts(t, db, runs)

		var finish webhook.Event
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			events, err := tx.Events(ctx, runID)
			for _, e := range events {
				wanted := e.Kind == webhook.RunFinish && e.Scope == run.RunScope
				if (e.Facts != nil) != wanted {
					t.Errorf("%s at %s scope has the facts %s", e.Kind, e.Scope, e.Facts)
				}
				if wanted {
					finish = e
				}
			}
			return err
		})
		var f webhook.Facts
		if err := json.Unmarshal(finish.Facts, &f); err != nil {
			t.Fatal(err)
		}
		if f.Project.Name != "The shop" || f.Status != run.StatusFailed || f.CompletionState != run.Complete || f.FinishedAt == nil || len(f.Groups) != 2 ||
			f.Groups[0].Tests.Failures+f.Groups[1].Tests.Failures != 15 {
			t.Errorf("facts %s", finish.Facts)
		}
		var got []string
		for _, one := range f.Failures {
			text := "?"
			if one.Error != nil {
				text = *one.Error
			}
			got = append(got, fmt.Sprint(*one.GroupID, " ", one.Spec, " ", strings.Join(one.Title, " > "), ": ", text))
		}
		want := []string{
			"a crash.cy.js : Error: the browser crashed",
			"a large.cy.js : ?",
			"a red.cy.js A > fails: AssertionError: no",
		}
		for n := range 7 {
			want = append(want, fmt.Sprintf("b many.cy.js B > test %d: AssertionError: no", n))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("first failures (-want +got):\n%s", diff)
		}

		// The settings change; queued deliveries stay the same.
		endpoints := endpoint.New(db, "http://runbell.test", func(string) error { return nil }, func(...string) {})
		for id, form := range map[string]webhook.Form{plain.ID: webhook.ExtendedForm, extended.ID: webhook.DefaultForm} {
			if _, _, err := endpoints.Change(ctx, id, endpoint.Settings{Payload: &form}, "by a test"); err != nil {
				t.Fatal(err)
			}
		}
		due := func(id string) (claims []store.Claim) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				w, err := tx.Work(ctx, id, store.QueuePosition{}, 20, nil)
				claims = w.Claims
				return err
			})
			return claims
		}
		if claims := due(extended.ID); len(claims) != 1 || string(claims[0].Facts) != string(finish.Facts) || string(claims[0].Payload) != string(finish.Payload) {
			t.Errorf("due at the extended one: %+v", claims)
		}
		if claims := due(plain.ID); len(claims) == 0 || slices.ContainsFunc(claims, func(c store.Claim) bool { return c.Facts != nil || c.WithFacts }) {
			t.Errorf("due at the default one: %+v", claims)
		}
		// A test has the body that the endpoint asks for now.
		if _, err := endpoints.Test(ctx, plain.ID, webhook.RunFinish); err != nil {
			t.Fatal(err)
		}
		claims := due(plain.ID)
		if last := claims[len(claims)-1]; last.RunID != "" || json.Unmarshal(last.Facts, &f) != nil || f.Project.ProjectID != "shop" || len(f.Failures) != 1 {
			t.Errorf("a test has the facts %s", last.Facts)
		}
	})
}

// completeFacts does what a server does after a run has ended.
func completeFacts(t testing.TB, db *store.DB, runs *lifecycle.Service) {
	t.Helper()
	if err := runs.CompleteFacts(t.Context(), newWorker(db).CatchRun); err != nil {
		t.Fatal(err)
	}
}

func newWorker(db *store.DB) *history.Worker {
	return history.NewWorker(db, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// Facts that are added after a run has ended are complete before anything is sent, and made once, even if processes
// die or are late. Events of the run stay in order.
func TestFactsFollowTheEvent(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop", func(p *run.Project) { p.CompletionDelay = 0 })
		groups := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Payload = webhook.ExtendedForm })
		whole := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Payload, e.Scope = webhook.ExtendedForm, run.RunScope })
		plain := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Scope = run.RunScope })
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		due := func(e webhook.Endpoint) (list []string) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				w, err := tx.Work(ctx, e.ID, store.QueuePosition{}, 20, nil)
				for _, c := range w.Claims {
					var f webhook.Facts
					if c.WithFacts {
						if err := json.Unmarshal(c.Facts, &f); err != nil {
							return err
						}
					}
					list = append(list, fmt.Sprint(c.Sequence, " ", c.Kind, " ", len(f.Failures)))
				}
				return err
			})
			return list
		}
		want := func(when string, of webhook.Endpoint, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, due(of)); diff != "" {
				t.Errorf("%s, due (-want +got):\n%s", when, diff)
			}
		}
		// send delivers what is due.
		send := func(e webhook.Endpoint) {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				if _, err := tx.TakeLane(ctx, e.ID, "n", tx.Now.Add(time.Minute)); err != nil {
					return err
				}
				w, err := tx.Work(ctx, e.ID, store.QueuePosition{}, 20, nil)
				if err != nil {
					return err
				}
				var outcomes []*store.Outcome
				for _, c := range w.Claims {
					outcomes = append(outcomes, &store.Outcome{Delivery: c.Delivery, EndedAt: tx.Now, Decision: webhook.Decision{State: webhook.Delivered},
						Attempt: webhook.Attempt{Number: 1, StartedAt: tx.Now, Class: webhook.OK, Status: 200}})
				}
				_, err = tx.RecordAttempts(ctx, "n", outcomes)
				return err
			})
		}

		join := func(group string) lifecycle.Joined {
			j, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Group: group, Specs: []string{group + ".cy.js"}, Fingerprint: group})
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		fail := func(j lifecycle.Joined) run.Instance {
			c, err := runs.Claim(ctx, lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: 1})
			if err == nil {
				_, err = runs.Complete(ctx, c.Instances[0].ID, &run.Announcement{Tests: []run.Announced{{ID: "t", Title: []string{"t"}}}},
					run.Outcome{Results: []run.Result{{ID: "t", State: run.Failed}}})
			}
			if err != nil {
				t.Fatal(err)
			}
			return c.Instances[0]
		}
		a, b := join("a"), join("b")
		fail(a)
		join("c")
		want("after the end of a group", groups, "2 RUN_START 0")
		send(groups)
		want("one after the other", groups, "3 RUN_START 0")
		send(groups) // this does not release an event that waits for facts
		want("sent", groups)
		var parked string
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, _, err := tx.Deliveries(ctx, store.DeliveryFilter{EndpointID: groups.ID, Kinds: []webhook.Kind{webhook.RunFinish}}, store.Page{Limit: 10})
			if err == nil {
				parked = list[0].ID
			}
			return err
		})
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.RequeueDelivery(ctx, parked) })
		want("redelivered by hand too early", groups)
		completeFacts(t, db, runs)
		want("complete", groups, "4 RUN_FINISH 1")
		send(groups)
		want("sent, with the start behind it", groups, "5 RUN_START 0")

		// Both other groups end, and with them the run. Some processes die, and others work at the same time.
		fail(b)
		if _, err := runs.Cancel(ctx, a.RunID, "a test", ""); err != nil {
			t.Fatal(err)
		}
		send(whole)
		send(plain)
		want("canceled", whole)
		want("others do not wait for facts", plain, "8 RUN_CANCELED 0")
		for range 4 {
			dying, kill := context.WithCancel(ctx)
			after := time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, kill)
			_ = runs.CompleteFacts(dying, newWorker(db).CatchRun)
			after.Stop()
			kill()
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := runs.CompleteFacts(ctx, newWorker(db).CatchRun); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		want("complete", whole, "8 RUN_CANCELED 2")
		send(groups)
		want("in order", groups, "6 RUN_FINISH 1")
		send(groups)
		want("in order", groups, "7 RUN_CANCELED 0")
	})
}

// An event of a run that is removed before its facts are complete is sent without them.
func TestFactsOfARemovedRun(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		e := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) {
			e.Payload, e.Scope, e.Events = webhook.ExtendedForm, run.RunScope, []webhook.Kind{webhook.RunFinish}
		})
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		id := play(t, runs, "b", "main", map[string]run.TestState{"fails": run.Failed})
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { _, err := tx.RemoveRun(ctx, id); return err })
		completeFacts(t, db, runs)
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			w, err := tx.Work(ctx, e.ID, store.QueuePosition{}, 20, nil)
			var f webhook.Facts
			if len(w.Claims) != 1 || json.Unmarshal(w.Claims[0].Facts, &f) != nil || f.Status != run.StatusFailed || len(f.Failures) != 0 {
				t.Errorf("due: %+v", w.Claims)
			}
			return err
		})

		// Nor does a missing event stop the others.
		id = play(t, runs, "b2", "main", map[string]run.TestState{"fails": run.Failed})
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.DeleteDeliveries(ctx, e.ID, time.Time{}, tx.Now.Add(time.Hour), true, 100)
			if err == nil {
				_, err = tx.RemoveRun(ctx, id)
			}
			return err
		})
		completeFacts(t, db, runs)
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			due, err := tx.FactsDue(ctx, 10)
			if len(due) > 0 {
				t.Errorf("still due: %q", due)
			}
			return err
		})
	})
}

// A result that comes after the end is not in the facts of the end.
func TestFactsWithoutLateResults(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop")
		testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Payload, e.Scope = webhook.ExtendedForm, run.RunScope })
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		joined, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Specs: []string{"a.cy.js"}, Fingerprint: "f"})
		if err != nil {
			t.Fatal(err)
		}
		claimed, err := runs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := runs.Cancel(ctx, joined.RunID, "a test", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := runs.Complete(ctx, claimed.Instances[0].ID, nil, run.Outcome{Results: []run.Result{{ID: "t", State: run.Failed}}}); err != nil {
			t.Fatal(err)
		}
		completeFacts(t, db, runs)
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			events, err := tx.Events(ctx, joined.RunID)
			var f webhook.Facts
			if last := events[len(events)-1]; last.Kind != webhook.RunCanceled || json.Unmarshal(last.Facts, &f) != nil || len(f.Failures) != 0 || f.Groups[0].Tests.Failures != 0 {
				t.Errorf("%s has the facts %s", last.Kind, last.Facts)
			}
			return err
		})
	})
}

// Specs that fail at the same moment are all in the facts, whichever of their transactions began first.
func TestFactsOfSpecsThatFailTogether(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop", func(p *run.Project) { p.CompletionDelay = 0 })
		testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Payload, e.Scope = webhook.ExtendedForm, run.RunScope })
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		specs := []string{"a.cy.js", "b.cy.js", "c.cy.js", "d.cy.js", "e.cy.js", "f.cy.js"}
		for n := range 30 {
			joined, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: fmt.Sprint(n), Specs: specs, Fingerprint: "f"})
			if err != nil {
				t.Fatal(err)
			}
			claimed, err := runs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: len(specs)})
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for _, i := range claimed.Instances {
				all.Go(func() {
					if _, err := runs.Complete(ctx, i.ID, nil, run.Outcome{Results: []run.Result{{ID: "t", State: run.Failed}}}); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			completeFacts(t, db, runs)
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				events, err := tx.Events(ctx, joined.RunID)
				for _, e := range events {
					var f webhook.Facts
					if e.Facts != nil && e.Kind == webhook.RunFinish && (json.Unmarshal(e.Facts, &f) != nil || len(f.Failures) != len(specs)) {
						t.Errorf("run %d has %d failures in its facts, want %d", n, len(f.Failures), len(specs))
					}
				}
				return err
			})
		}
	})
}

// An event whose facts cannot be completed is tried again for a minute, and then sent with those that are known.
func TestFactsThatCannotBeCompleted(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		e := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) {
			e.Payload, e.Scope, e.Events = webhook.ExtendedForm, run.RunScope, []webhook.Kind{webhook.RunFinish}
		})
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		play(t, runs, "b", "main", map[string]run.TestState{"fails": run.Failed})
		broken := errors.New("the history cannot be read")
		due := func() (claims []webhook.Facts) {
			t.Helper()
			if err := runs.CompleteFacts(t.Context(), func(context.Context, string) error { return broken }); !errors.Is(err, broken) {
				t.Errorf("completed: %v", err)
			}
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				w, err := tx.Work(ctx, e.ID, store.QueuePosition{}, 20, nil)
				for _, c := range w.Claims {
					var f webhook.Facts
					if err := json.Unmarshal(c.Facts, &f); err != nil {
						return err
					}
					claims = append(claims, f)
				}
				return err
			})
			return claims
		}
		if got := due(); len(got) != 0 {
			t.Errorf("sent at once: %+v", got)
		}
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE event SET created_at = created_at - 61000000`)
			return err
		})
		if got := due(); len(got) != 1 || got[0].Status != run.StatusFailed || len(got[0].Failures) != 0 || got[0].Comparison != nil {
			t.Errorf("after a minute: %+v", got)
		}
	})
}

// BenchmarkEnd ends runs of 10,000 tests whose webhook has the extended payload. It measures how long a
// machine of the run waits for the responses to its heartbeats meanwhile: the longest, in the median of the runs.
func BenchmarkEnd(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkEnd(b, testkit.SQLite(b)) })
	b.Run("postgres", func(b *testing.B) { benchmarkEnd(b, testkit.Open(b, testkit.Migrated(b))) })
}

func benchmarkEnd(b *testing.B, db *store.DB) {
	const specs, tests = 100, 100
	testkit.Project(b, db, "shop", func(p *run.Project) { p.CompletionDelay = 0 })
	testkit.Endpoint(b, db, "shop", func(e *webhook.Endpoint) {
		e.Payload, e.Scope, e.Events = webhook.ExtendedForm, run.RunScope, []webhook.Kind{webhook.RunFinish}
	})
	runs, worker := lifecycle.New(db, "http://runbell.test", func(...string) {}), newWorker(db)
	names := make([]string, specs)
	for n := range names {
		names[n] = fmt.Sprintf("cypress/e2e/area/%d.cy.js", n)
	}
	var longest []time.Duration
	ended := 0
	for b.Loop() {
		b.StopTimer()
		ended++
		j, err := runs.Join(b.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: fmt.Sprint(ended), Specs: names, Fingerprint: fmt.Sprint(ended), Commit: run.Commit{Branch: "main"}})
		if err != nil {
			b.Fatal(err)
		}
		c, err := runs.Claim(b.Context(), lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: specs})
		if err != nil {
			b.Fatal(err)
		}
		complete := func(n int) {
			var a run.Announcement
			var o run.Outcome
			for t := range tests {
				state, r := run.Passed, run.Result{ID: fmt.Sprint("r", t), Attempts: []run.Attempt{{State: run.Passed, Duration: 700}}}
				if (n+t+ended)%50 == 0 {
					state = run.Failed
					r.Attempts[0] = run.Attempt{State: state, Duration: 900, Error: &run.Failure{Name: "AssertionError", Message: fmt.Sprint("expected ", t), Stack: strings.Repeat("    at x (a.cy.js:1:2)\n", 20)}}
				}
				r.State = state
				a.Tests = append(a.Tests, run.Announced{ID: r.ID, Title: []string{"Cart", fmt.Sprint("shows ", t, " of them")}, Body: strings.Repeat("b", 200)})
				o.Results = append(o.Results, r)
			}
			if _, err := runs.Complete(b.Context(), c.Instances[n].ID, &a, o); err != nil {
				b.Fatal(err)
			}
		}
		for n := range specs - 1 {
			complete(n)
		}
		if ended%2 == 0 { // every other time the history has all but the last spec
			if err := worker.Catch(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		stop, most := make(chan struct{}), make(chan time.Duration)
		go func() {
			var worst time.Duration
			for {
				began := time.Now()
				if _, err := runs.Heartbeat(b.Context(), j.RunID, j.MachineID); err != nil {
					b.Error(err)
				}
				worst = max(worst, time.Since(began))
				select {
				case <-stop:
					most <- worst
					return
				default:
				}
			}
		}()
		b.StartTimer()
		complete(specs - 1)
		if err := runs.CompleteFacts(b.Context(), worker.CatchRun); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		close(stop)
		longest = append(longest, <-most)
		b.StartTimer()
	}
	slices.Sort(longest)
	b.ReportMetric(float64(longest[len(longest)/2].Microseconds())/1000, "longest-wait-ms")
}

// playFailures plays a run of two groups, and returns its id. In the first group, one spec crashes, one
// fails with more results than facts look into, and one has a test that fails. In the second
// one, a spec has twelve of them.
func playFailures(t *testing.T, runs *lifecycle.Service) string {
	t.Helper()
	result := func(title string, state run.TestState, body string) (run.Announced, run.Result) {
		r := run.Result{ID: title, State: state, Attempts: []run.Attempt{{State: state}}}
		if state == run.Failed {
			r.Attempts[0].Error = &run.Failure{Name: "AssertionError", Message: "no", Stack: "AssertionError: no\n    at a.cy.js:1"}
		}
		return run.Announced{ID: title, Title: strings.Split(title, " > "), Body: body}, r
	}
	type spec struct {
		exception string
		body      string
		failed    []string
	}
	specs := map[string]spec{
		"crash.cy.js": {exception: "Error: the browser crashed\n    at x"},
		"large.cy.js": {failed: []string{"L > fails"}, body: strings.Repeat("x", 1<<20)},
		"red.cy.js":   {failed: []string{"A > fails"}},
		"many.cy.js":  {},
	}
	many := specs["many.cy.js"]
	for n := range 12 {
		many.failed = append(many.failed, fmt.Sprint("B > test ", n))
	}
	specs["many.cy.js"] = many
	var joined []lifecycle.Joined
	for _, j := range []lifecycle.Join{
		{Group: "a", Specs: []string{"crash.cy.js", "large.cy.js", "red.cy.js"}},
		{Group: "b", Specs: []string{"many.cy.js"}},
	} {
		j.ProjectID, j.CIBuildID, j.Fingerprint = "shop", "build-1", j.Group
		m, err := runs.Join(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		joined = append(joined, m)
	}
	for _, m := range joined {
		claimed, err := runs.Claim(t.Context(), lifecycle.Claim{RunID: m.RunID, MachineID: m.MachineID, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range claimed.Instances {
			s := specs[i.Spec]
			var a run.Announcement
			o := run.Outcome{Exception: s.exception}
			add := func(title string, state run.TestState) {
				announced, r := result(title, state, s.body)
				a.Tests, o.Results = append(a.Tests, announced), append(o.Results, r)
			}
			add("passes", run.Passed)
			for _, title := range s.failed {
				add(title, run.Failed)
			}
			if _, err := runs.Complete(t.Context(), i.ID, &a, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	return joined[0].RunID
}

// Facts lead to the last screenshot of each test that failed, unless it is known that there is none.
func TestFactsLeadToScreenshots(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop", func(p *run.Project) { p.CompletionDelay = 0 })
		testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) {
			e.Payload, e.Events, e.Scope = webhook.ExtendedForm, []webhook.Kind{webhook.RunFinish}, run.RunScope
		})
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		var at time.Time
		runs.LinkFiles(func(id string, event time.Time) string {
			at = event
			return "http://runbell.test/files/" + id
		})
		joined, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Specs: []string{"a.cy.js", "b.cy.js"}})
		if err != nil {
			t.Fatal(err)
		}
		claimed, err := runs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		failed := func(id string) run.Result {
			return run.Result{ID: id, State: run.Failed, Attempts: []run.Attempt{{State: run.Failed}, {State: run.Failed}}}
		}
		for n, o := range []run.Outcome{
			{Results: []run.Result{failed("refused")}, Screenshots: []run.Screenshot{{ID: "refused", TestID: "refused"}}},
			{Results: []run.Result{failed("two"), failed("none")}, Screenshots: []run.Screenshot{
				{ID: "second", TestID: "two", Attempt: 1}, {ID: "last", TestID: "two", Attempt: 1}, {ID: "first", TestID: "two"}, {ID: "nobody's"}}},
		} {
			i := claimed.Instances[n]
			if _, err := runs.Complete(ctx, i.ID, nil, o); err != nil {
				t.Fatal(err)
			}
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				return tx.RefuseArtifact(ctx, run.Artifact{ID: run.ArtifactID(i.ID, run.ScreenshotArtifact, "refused"), ProjectID: "shop", RunID: joined.RunID, InstanceID: i.ID,
					Kind: run.ScreenshotArtifact, ContentType: "image/png", Problem: "The file is too large.", StoredAt: tx.Now})
			})
		}
		completeFacts(t, db, runs)
		var f webhook.Facts
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			events, err := tx.Events(ctx, joined.RunID)
			for _, e := range events {
				if e.Facts != nil {
					err = errors.Join(err, json.Unmarshal(e.Facts, &f))
					if !at.Equal(e.CreatedAt) {
						t.Errorf("the links begin at %s, the event is of %s", at, e.CreatedAt)
					}
				}
			}
			return err
		})
		var got []string
		for _, one := range f.Failures {
			if one.ScreenshotURL == nil {
				got = append(got, one.Spec)
			} else {
				got = append(got, one.Spec+" "+*one.ScreenshotURL)
			}
		}
		want := []string{"a.cy.js", "b.cy.js http://runbell.test/files/" + run.ArtifactID(claimed.Instances[1].ID, run.ScreenshotArtifact, "last"), "b.cy.js"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("screenshots (-want +got):\n%s", diff)
		}
	})
}
