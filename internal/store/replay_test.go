package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// requeue queues deliveries again, in chunks of two, as a replay does, and says
// how many.
func requeue(t testing.TB, db *store.DB, f store.DeliveryFilter) (n int) {
	t.Helper()
	var after store.Position
	for {
		var list []webhook.Delivery
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
			list, _, err = tx.Deliveries(ctx, f, store.Page{Limit: 2, Before: &after})
			return err
		})
		if len(list) == 0 {
			return n
		}
		var ids []string
		for _, d := range list {
			ids = append(ids, d.ID)
		}
		after = store.Position{At: list[0].CreatedAt, ID: list[0].ID} // the newest is the first
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			if err := tx.LockLane(ctx, f.EndpointID); err != nil {
				return err
			}
			queued, err := tx.RequeueDeliveries(ctx, ids)
			n += queued
			return err
		})
	}
}

func TestRequeuedDeliveriesGoInTheOrderOfTheirRun(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		n := newNode(t, db, "a")
		for i := range int64(3) {
			happen(t, db, "r1", i+1, webhook.RunStart)
			happen(t, db, "r2", i+1, webhook.RunStart)
			for _, c := range n.claim(10) {
				state := webhook.Failed
				if c.EventID == "r1.2" {
					state = webhook.Delivered
				}
				n.conclude(c, state, 0)
			}
		}
		failed := store.DeliveryFilter{EndpointID: "e1", States: []webhook.DeliveryState{webhook.Failed}}
		if got := requeue(t, db, failed); got != 5 {
			t.Fatalf("%d queued, want the five that failed", got)
		}
		if got := requeue(t, db, failed); got != 0 {
			t.Errorf("%d queued again", got)
		}
		for i, want := range []string{"e1:r1.1 e1:r2.1", "e1:r1.3 e1:r2.2", "e1:r2.3", ""} {
			claims := n.claim(10)
			if sorted(claims) != want {
				t.Fatalf("step %d: claimed %q, want %q", i, names(claims), want)
			}
			for _, c := range claims {
				if c.Attempts != 1 || c.Earlier != 1 {
					t.Errorf("%s: %d attempts, %d of them earlier", c.EventID, c.Attempts, c.Earlier)
				}
				n.conclude(c, webhook.Delivered, 0)
			}
		}
		// Everything of a run, delivered or not, in a window of time.
		if got := requeue(t, db, store.DeliveryFilter{EndpointID: "e1", RunID: "r2", Since: db.Now().Add(-time.Hour), Until: db.Now()}); got != 3 {
			t.Errorf("%d queued, want the run's three", got)
		}
		if got := requeue(t, db, store.DeliveryFilter{EndpointID: "e1", Since: db.Now().Add(time.Hour)}); got != 0 {
			t.Errorf("%d of the future queued", got)
		}
		if got := names(n.claim(10)); got != "e1:r2.1" {
			t.Errorf("claimed %q", got)
		}
	})
}

func TestRequeueOne(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		n := newNode(t, db, "a")
		happen(t, db, "r1", 1, webhook.RunStart)
		c := n.claim(10)[0]
		for i, state := range []webhook.DeliveryState{webhook.Delivered, webhook.Failed, webhook.Waiting} {
			n.conclude(c, state, time.Hour)
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.RequeueDelivery(ctx, c.ID) })
			d, _ := delivery(t, db, c.ID)
			if d.State != webhook.Waiting || d.Attempts != i+1 || d.Earlier != i+1 || d.DueAt.IsZero() || d.DueAt.After(db.Now()) || !d.FinishedAt.IsZero() {
				t.Errorf("after %s: %+v", state, d)
			}
			again := n.claim(10)
			if len(again) != 1 || again[0].ID != c.ID {
				t.Fatalf("after %s claimed %q", state, names(again))
			}
			c = again[0]
		}
		// One that waits for an earlier event goes on waiting.
		happen(t, db, "r1", 2, webhook.RunFinish)
		var parked string
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, _, err := tx.Deliveries(ctx, store.DeliveryFilter{Kinds: []webhook.Kind{webhook.RunFinish}}, store.Page{Limit: 1})
			parked = list[0].ID
			return err
		})
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.RequeueDelivery(ctx, parked) })
		if got := n.claim(10); len(got) != 0 {
			t.Errorf("claimed %q", names(got))
		}
		n.conclude(c, webhook.Delivered, 0)
		if got := names(n.claim(10)); got != "e1:r1.2" {
			t.Errorf("claimed %q", got)
		}
	})
}

func TestHoldAndResume(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		happen(t, db, "r1", 1, webhook.RunStart)
		happen(t, db, "r2", 1, webhook.RunStart)
		happen(t, db, "r2", 2, webhook.RunFinish)
		n := newNode(t, db, "a")
		inFlight := n.claim(10)
		if got := sorted(inFlight); got != "e1:r1.1 e1:r2.1 e2:r1.1 e2:r2.1" {
			t.Fatalf("claimed %q", got)
		}
		change(t, db, "e1", disable)
		// What was in flight is recorded, and is held if there is another attempt.
		n.conclude(inFlight[0], webhook.Waiting, time.Hour)
		if d, _ := delivery(t, db, inFlight[0].ID); d.State != webhook.Held || !d.DueAt.IsZero() || !d.FinishedAt.IsZero() || d.Attempts != 1 {
			t.Errorf("held: %+v", d)
		}
		clear(n.known)
		if got := sorted(n.claim(10)); got != "e2:r1.1 e2:r2.1" {
			t.Errorf("of a disabled endpoint claimed %q", got)
		}
		if _, to := happen(t, db, "r2", 3, webhook.RunTimeout); !slices.Equal(to, []string{"e2"}) {
			t.Errorf("an event goes to %q", to)
		}
		change(t, db, "e1", enable)
		resume := func() (n int64) {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				n, err = tx.ResumeDeliveries(ctx, "e1", 10)
				return err
			})
			return n
		}
		if n := resume(); n != 1 { // the other two are due, or behind one that is
			t.Errorf("%d resumed, want the retry", n)
		}
		if n := resume(); n != 0 {
			t.Errorf("%d resumed again", n)
		}
		clear(n.known)
		again := n.claim(10)
		if got := sorted(again); got != "e1:r1.1 e1:r2.1 e2:r1.1 e2:r2.1" {
			t.Fatalf("after the resumption claimed %q", got)
		}
		for _, c := range again {
			if c.EndpointID == "e1" && c.Attempts != c.Earlier {
				t.Errorf("%s has not the whole schedule ahead: %+v", c.EventID, c.Delivery)
			}
		}
	})
}

func TestDeleteDeliveriesKeepsWhatWaits(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2", "r3")
		insertEndpoint(t, db, "b")
		insertEndpoint(t, db, "d")
		n := newNode(t, db, "n")
		happen(t, db, "r1", 1, webhook.RunStart)
		happen(t, db, "r2", 1, webhook.RunStart)
		for _, c := range n.claim(10) {
			if c.RunID == "r1" {
				n.conclude(c, webhook.Delivered, 0)
			}
		}
		cut := db.Now()
		happen(t, db, "r3", 1, webhook.RunStart)
		for _, c := range n.claim(10) {
			n.conclude(c, webhook.Failed, 0)
		}
		del := func(id string, before time.Time, waiting bool) (n int) {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				n, err = tx.DeleteDeliveries(ctx, id, time.Time{}, before, waiting, 10)
				return err
			})
			return n
		}
		if got := del("b", cut, false); got != 1 {
			t.Errorf("deleted %d, want what ended before", got)
		}
		if got := del("b", db.Now().Add(time.Hour), false); got != 1 {
			t.Errorf("deleted %d, want what ended", got)
		}
		next := func(after string) string {
			var log store.DeliveryLog
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				log, err = tx.NextDeliveryLog(ctx, after)
				return err
			})
			// Of b, only one that waits is left.
			if log.EndpointID != "" && (log.Orphaned || log.Days != run.DefaultRetention().Deliveries || log.Oldest.IsZero() != (log.EndpointID == "b")) {
				t.Errorf("deliveries of %+v", log)
			}
			return log.EndpointID
		}
		if next("") != "b" || next("b") != "d" || next("c") != "d" || next("d") != "" {
			t.Errorf("logs: %q %q %q %q", next(""), next("b"), next("c"), next("d"))
		}
		if got := del("b", db.Now().Add(time.Hour), true); got != 1 || next("") != "d" {
			t.Errorf("deleted %d, want the pending ones; the next log is %q", got, next(""))
		}
	})
}

func TestBacklogAndStates(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		backlog := func() (d store.Backlog) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				d, err = tx.Backlog(ctx)
				return err
			})
			return d
		}
		states := func() (s map[webhook.HealthState]int64) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				s, err = tx.EndpointStates(ctx)
				return err
			})
			return s
		}
		none := map[webhook.HealthState]int64{webhook.Unused: 0, webhook.Healthy: 0, webhook.Failing: 0, webhook.IsOff: 0}
		if d, s := backlog(), states(); d != (store.Backlog{}) || fmt.Sprint(s) != fmt.Sprint(none) {
			t.Errorf("of nothing: %+v, %v", d, s)
		}
		shop(t, db, "r1", "r2")
		for _, id := range []string{"e1", "e2", "e3", "off"} {
			insertEndpoint(t, db, id)
		}
		first, _ := happen(t, db, "r1", 1, webhook.RunStart)
		happen(t, db, "r1", 2, webhook.RunFinish)
		happen(t, db, "r2", 1, webhook.RunStart)
		change(t, db, "off", disable)
		if d := backlog(); d != (store.Backlog{Due: 6, Parked: 3, Held: 3, OldestDue: first}) {
			t.Errorf("backlog %+v", d)
		}
		n := newNode(t, db, "a")
		for _, c := range n.claim(10) {
			switch names([]store.Claim{c}) {
			case "e1:r1.1":
				n.conclude(c, webhook.Delivered, 0)
			case "e2:r1.1":
				n.conclude(c, webhook.Waiting, time.Hour)
			}
		}
		if d := backlog(); d != (store.Backlog{Due: 6, Scheduled: 1, Parked: 1, Held: 3, OldestDue: first}) {
			t.Errorf("backlog %+v", d)
		}
		want := map[webhook.HealthState]int64{webhook.Unused: 1, webhook.Healthy: 1, webhook.Failing: 1, webhook.IsOff: 1}
		if s := states(); fmt.Sprint(s) != fmt.Sprint(want) {
			t.Errorf("states %v", s)
		}
	})
}

func TestTestSends(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db)
		insertEndpoint(t, db, "e1", func(e *webhook.Endpoint) { e.Events = nil })
		var ids []string
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			ids = nil
			for i, kind := range webhook.Kinds() { // none waits for another, and each may come twice
				for range 2 {
					id, err := tx.InsertTest(ctx, webhook.NewEndpoint("e1", "shop"), webhook.Event{ID: fmt.Sprint("t", i, len(ids)), ProjectID: "shop", Scope: run.GroupScope, Kind: kind, Payload: []byte("{}"), CreatedAt: tx.Now})
					if err != nil {
						return err
					}
					ids = append(ids, id)
				}
			}
			return nil
		})
		n := newNode(t, db, "a")
		claims := n.claim(100)
		if len(claims) != 8 || claims[0].RunID != "" {
			t.Fatalf("claimed %+v", claims)
		}
		for _, c := range claims {
			n.conclude(c, webhook.Failed, 0)
		}
		if got := requeue(t, db, store.DeliveryFilter{EndpointID: "e1"}); got != 8 {
			t.Errorf("%d queued again", got)
		}
		if got := n.claim(100); len(got) != 8 {
			t.Errorf("claimed again %q", names(got))
		}
	})
}

// Whatever inserts and records meet, nothing stays parked forever, and the
// order holds.
func TestInsertsAndRecordsAtOnce(t *testing.T) {
	const runs, events = 4, 12
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db)
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		var wg sync.WaitGroup
		for i := range runs {
			id := fmt.Sprint("r", i)
			insertRun(t, db, "shop", id)
			wg.Go(func() {
				for n := range int64(events) {
					happen(t, db, id, n+1, webhook.RunStart)
				}
			})
		}
		for _, endpoint := range []string{"e1", "e2"} {
			wg.Go(func() {
				if !take(t, db, endpoint, endpoint, time.Hour) {
					t.Error("no lane")
				}
				n := newNode(t, db, endpoint)
				ended := map[string]int64{} // the last event of each run that is over, or overtaken
				tries := 0
				for left, deadline := runs*events, time.Now().Add(time.Minute); left > 0; {
					if time.Now().After(deadline) {
						t.Errorf("%s: %d deliveries wait forever", endpoint, left)
						return
					}
					var w store.Work
					testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
						w, err = tx.Work(ctx, endpoint, store.QueuePosition{}, 10, nil)
						return err
					})
					var outcomes []*store.Outcome
					for _, c := range w.Claims {
						tries++
						if c.Attempts == 0 && c.Sequence != ended[c.RunID]+1 {
							t.Errorf("%s: %s is sent after %d", endpoint, c.EventID, ended[c.RunID])
						}
						d := webhook.Decision{State: webhook.Delivered}
						switch {
						case c.Attempts < 2 && tries%4 == 0:
							d = webhook.Decision{State: webhook.Waiting, Quick: true}
						case c.Attempts < 2 && tries%4 == 1:
							d = webhook.Decision{State: webhook.Waiting}
						case tries%4 == 2:
							d = webhook.Decision{State: webhook.Failed}
						}
						if d.State != webhook.Waiting {
							left--
						}
						if !d.Quick {
							ended[c.RunID] = max(ended[c.RunID], c.Sequence)
						}
						outcomes = append(outcomes, outcome(c, db.Now(), d))
					}
					n.record(outcomes...)
				}
			})
		}
		wg.Wait()
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			d, err := tx.Backlog(ctx)
			if d != (store.Backlog{}) {
				t.Errorf("at the end %+v", d)
			}
			return err
		})
	})
}

// recovered: passed after the last finished run of the branch failed; for a
// group, after that group failed.
func TestRecovered(t *testing.T) {
	type past struct {
		branch string
		state  run.State
		groups string // "unit:1 e2e:0": each with its failures; a name with ! is implicit
	}
	cases := map[string]struct {
		before    []past
		now       string // the groups of the run that passes
		run, unit bool
	}{
		"the first run":               {nil, "unit:0", false, false},
		"after a failure":             {[]past{{"main", run.Finished, "unit:1"}}, "unit:0", true, true},
		"after a success":             {[]past{{"main", run.Finished, "unit:1"}, {"main", run.Finished, "unit:0"}}, "unit:0", false, false},
		"two failures":                {[]past{{"main", run.Finished, "unit:0"}, {"main", run.Finished, "unit:1"}, {"main", run.Finished, "unit:2"}}, "unit:0", true, true},
		"on another branch":           {[]past{{"dev", run.Finished, "unit:1"}}, "unit:0", false, false},
		"success on another branch":   {[]past{{"main", run.Finished, "unit:1"}, {"dev", run.Finished, "unit:0"}}, "unit:0", true, true},
		"a timeout is not finished":   {[]past{{"main", run.Finished, "unit:1"}, {"main", run.TimedOut, "unit:0"}}, "unit:0", true, true},
		"only a timeout":              {[]past{{"main", run.TimedOut, "unit:1"}}, "unit:0", false, false},
		"another group failed":        {[]past{{"main", run.Finished, "unit:0 e2e:3"}}, "unit:0 e2e:0", true, false},
		"the group failed":            {[]past{{"main", run.Finished, "unit:3 e2e:0"}}, "unit:0 e2e:0", true, true},
		"the group was not in it":     {[]past{{"main", run.Finished, "unit:1"}, {"main", run.Finished, "e2e:0"}}, "unit:0", false, true},
		"implicit groups are one":     {[]past{{"main", run.Finished, "build-7!:1"}}, "unit!:0", true, true},
		"implicit is not explicit":    {[]past{{"main", run.Finished, "unit:1"}}, "unit!:0", true, false},
		"explicit is not implicit":    {[]past{{"main", run.Finished, "unit!:1"}}, "unit:0", true, false},
		"an implicit one that passed": {[]past{{"main", run.Finished, "x!:1"}, {"main", run.Finished, "y!:0"}}, "unit!:0", false, false},
	}
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				testkit.Project(t, db, name)
				wants := func(e *webhook.Endpoint) { e.ProjectID, e.Filters.Result = name, webhook.Recovered }
				insertEndpoint(t, db, name+" group", wants)
				insertEndpoint(t, db, name+" run", wants, func(e *webhook.Endpoint) { e.Scope = run.RunScope })
				play := func(id string, p past) {
					testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
						groups := strings.Fields(p.groups)
						r := run.Run{ID: name + id, ProjectID: name, CIBuildID: id, Commit: run.Commit{Branch: p.branch}, CreatedAt: tx.Now, RunningGroups: len(groups)}
						if _, err := tx.InsertRun(ctx, r); err != nil {
							return err
						}
						for _, text := range groups {
							group, failures, _ := strings.Cut(text, ":")
							plain, implicit := strings.CutSuffix(group, "!")
							g := run.Group{RunID: r.ID, Name: plain, Explicit: !implicit, State: run.Running, CreatedAt: tx.Now, HeardAt: tx.Now, InactivityTimeout: time.Minute}
							if err := tx.InsertGroup(ctx, g); err != nil {
								return err
							}
							g.State, g.FinishedAt, g.Counts = p.state, tx.Now, run.Counts{Passes: 1, Failures: int(failures[0] - '0')}
							if err := tx.UpdateGroup(ctx, g); err != nil {
								return err
							}
						}
						r.State, r.RunningGroups, r.FinishedAt = p.state, 0, tx.Now
						return tx.UpdateRun(ctx, r)
					})
				}
				for i, p := range c.before {
					play(fmt.Sprint("old", i), p)
				}
				play("new", past{"main", run.Finished, c.now})
				told := func(scope run.Scope, group string, subject webhook.Subject) (to []string) {
					testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
						var g run.Group
						if scope == run.GroupScope {
							var err error
							if g, err = tx.Group(ctx, name+"new", group); err != nil {
								return err
							}
						}
						var err error
						to, _, err = lifecycle.FanOut(ctx, tx, webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: name, RunID: name + "new", Group: group, Scope: scope, Kind: webhook.RunFinish,
							Sequence: 1, Payload: []byte("{}"), CreatedAt: tx.Now}, subject, &g)
						return err
					})
					return to
				}
				passed := webhook.Subject{Branch: "main", Results: []webhook.Result{webhook.Passed}}
				if got := len(told(run.RunScope, "", passed)) == 1; got != c.run {
					t.Errorf("at run scope it recovered: %v, want %v", got, c.run)
				}
				if got := len(told(run.GroupScope, "unit", passed)) == 1; got != c.unit {
					t.Errorf("at group scope it recovered: %v, want %v", got, c.unit)
				}
				if strings.Contains(c.now, "e2e") { // what failed has not recovered, nor has what has no branch
					for _, facts := range []webhook.Subject{{Branch: "main", Results: []webhook.Result{webhook.FailedResult}}} {
						if to := told(run.GroupScope, "e2e", facts); len(to) != 0 {
							t.Errorf("%+v recovered", facts)
						}
					}
				}
			})
		}
	})
}

// A group that no late run of the branch had is compared with none: to look through
// all of a large history would keep every other transaction waiting.
func TestRecoveredLooksBackSoFar(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		n := 0
		play := func(groups ...string) {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				for _, name := range groups {
					n++
					r := run.Run{ID: fmt.Sprint("r", n), ProjectID: "shop", CIBuildID: fmt.Sprint(n), Commit: run.Commit{Branch: "main"}, CreatedAt: tx.Now}
					_, err := tx.InsertRun(ctx, r)
					g := run.Group{RunID: r.ID, Name: name, Explicit: true, CreatedAt: tx.Now, HeardAt: tx.Now, InactivityTimeout: time.Minute}
					err = errors.Join(err, tx.InsertGroup(ctx, g))
					g.State, g.FinishedAt, g.Counts = run.Finished, tx.Now, run.Counts{Failures: 1}
					r.State, r.FinishedAt = run.Finished, tx.Now.Add(time.Duration(n)*time.Microsecond)
					if err = errors.Join(err, tx.UpdateGroup(ctx, g), tx.UpdateRun(ctx, r)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		found := func() (groups []run.Group) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				groups, err = tx.LastFinished(ctx, "shop", "main", "new", tx.Now.Add(time.Hour), new("unit"))
				return err
			})
			return groups
		}
		play("unit")
		play(slices.Repeat([]string{"e2e"}, 499)...)
		if list := found(); len(list) != 1 || list[0].RunID != "r1" {
			t.Errorf("499 runs later: %+v", list)
		}
		play("e2e")
		if list := found(); len(list) != 0 {
			t.Errorf("500 runs later: %+v", list)
		}
	})
}

// TestByHandDuringAnAttempt: what is queued again while an attempt is under way
// is as it was asked to be, whatever comes of the attempt, unless it gets through.
func TestByHandDuringAnAttempt(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		n := newNode(t, db, "a")
		happen(t, db, "r1", 1, webhook.RunStart)
		first := n.claim(10)[0]
		n.conclude(first, webhook.Waiting, 0)
		first = n.claim(10)[0]
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.RequeueDelivery(ctx, first.ID) })
		n.conclude(first, webhook.Failed, 0) // its last
		d, _ := delivery(t, db, first.ID)
		if d.State != webhook.Waiting || d.Attempts != 2 || d.Earlier != 2 {
			t.Errorf("after the attempt: %+v, want it to wait with the whole schedule ahead", d)
		}
		first = n.claim(10)[0]
		n.conclude(first, webhook.Failed, 0)
		happen(t, db, "r1", 2, webhook.RunFinish)
		second := n.claim(10)[0]
		for _, id := range []string{first.ID, second.ID} { // the second now waits for the first
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.RequeueDelivery(ctx, id) })
		}
		n.conclude(second, webhook.Delivered, 0)
		if d, _ := delivery(t, db, second.ID); d.State != webhook.Delivered {
			t.Errorf("delivered while it was queued again: %+v", d)
		}
	})
}

// The answer of a commit was lost, and the delivery is queued again before its
// attempt is recorded for the second time: it has another attempt ahead.
func TestAnAttemptThatIsStoredIsRecordedAgainAfterItsDeliveryWasQueuedAgain(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		happen(t, db, "r1", 1, webhook.RunStart)
		happen(t, db, "r2", 1, webhook.RunStart)
		n := newNode(t, db, "a")
		var outcomes []*store.Outcome
		for _, c := range n.claim(2) {
			outcomes = append(outcomes, outcome(c, db.Now(), webhook.Decision{State: webhook.Delivered}))
		}
		n.record(outcomes...)
		again := outcomes[0].Delivery.ID
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.RequeueDelivery(ctx, again) })
		n.record(outcomes...)
		for _, o := range outcomes {
			want := webhook.Delivered
			if o.Delivery.ID == again {
				want = webhook.Waiting
			}
			if d, attempts := delivery(t, db, o.Delivery.ID); d.State != want || d.Attempts != 1 || len(attempts) != 1 {
				t.Errorf("%s: %+v with %d attempts, want it %s", d.EventID, d, len(attempts), want)
			}
		}
	})
}

// A delivery that is queued again while its first attempt is under way may be
// put behind an earlier one of its run. When it has got through, it has.
func TestAnAttemptUnderWayIsPutBehindAnotherAndGetsThrough(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		happen(t, db, "r1", 1, webhook.RunStart)
		n := newNode(t, db, "a")
		first := n.claim(1)[0]
		n.conclude(first, webhook.Delivered, 0)
		happen(t, db, "r1", 2, webhook.RunFinish)
		happen(t, db, "r2", 1, webhook.RunStart)
		underWay := n.claim(2)
		for _, id := range []string{first.ID, underWay[0].ID} {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.RequeueDelivery(ctx, id) })
		}
		if d, _ := delivery(t, db, underWay[0].ID); names(underWay) != "e1:r1.2 e1:r2.1" || !d.DueAt.IsZero() {
			t.Fatalf("%q are under way, of which the first is %+v, and should be behind another", names(underWay), d)
		}
		var outcomes []*store.Outcome
		for _, c := range underWay {
			outcomes = append(outcomes, outcome(c, db.Now(), webhook.Decision{State: webhook.Delivered}))
		}
		n.record(outcomes...)
		for _, c := range underWay {
			if d, attempts := delivery(t, db, c.ID); d.State != webhook.Delivered || d.Attempts != 1 || len(attempts) != 1 {
				t.Errorf("%s: %+v with %d attempts", c.EventID, d, len(attempts))
			}
		}
	})
}
