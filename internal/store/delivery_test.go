package store_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

func insertEndpoint(t testing.TB, db *store.DB, id string, change ...func(*webhook.Endpoint)) webhook.Endpoint {
	t.Helper()
	e := webhook.Endpoint{ID: id, ProjectID: "shop", URL: "https://example.com/" + id, Events: webhook.Kinds(), Scope: run.GroupScope, Enabled: true, Secret: webhook.NewSecret()}
	for _, f := range change {
		f(&e)
	}
	write(t, db, func(ctx context.Context, tx *store.Tx) error {
		e.CreatedAt, e.UpdatedAt = tx.Now, tx.Now
		return tx.InsertEndpoint(ctx, e)
	})
	return e
}

// happen stores the event with the given number of a run, in a group of its own
// where it is a start, and says when that was and how many deliveries there are.
func happen(t testing.TB, db *store.DB, runID string, sequence int64, kind webhook.Kind) (at time.Time, deliveries int) {
	t.Helper()
	write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		id := fmt.Sprintf("%s.%d", runID, sequence)
		at = tx.Now
		deliveries, err = tx.InsertEvent(ctx, webhook.Event{ID: id, ProjectID: "shop", RunID: runID, Group: id, Scope: run.GroupScope, Kind: kind,
			Sequence: sequence, Payload: []byte(`{"of":"` + id + `"}`), CreatedAt: tx.Now})
		return err
	})
	return at, deliveries
}

// claim is what a node gets, in the order of the events.
func claim(t testing.TB, db *store.DB, node string, limit int, lease time.Duration) (list []store.Claim) {
	t.Helper()
	write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		list, err = tx.ClaimDeliveries(ctx, node, limit, tx.Now.Add(lease))
		return err
	})
	slices.SortFunc(list, func(a, b store.Claim) int {
		return cmp.Or(cmp.Compare(a.EndpointID, b.EndpointID), cmp.Compare(a.EventID, b.EventID))
	})
	return list
}

// names says which deliveries these are: the endpoint, if there are several, and the event.
func names(list []store.Claim) string {
	var out []string
	for _, c := range list {
		out = append(out, c.EndpointID+":"+c.EventID)
	}
	return strings.Join(out, " ")
}

// conclude records an attempt: delivered, failed, or a retry after a wait.
func conclude(t testing.TB, db *store.DB, node string, c store.Claim, state webhook.DeliveryState, wait time.Duration) (ok bool) {
	t.Helper()
	write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		v := store.Verdict{State: state}
		if state == webhook.Waiting {
			v.RetryAt = tx.Now.Add(wait)
		}
		ok, err = tx.RecordAttempt(ctx, node, c.Delivery, webhook.Attempt{Number: c.Attempts + 1, StartedAt: tx.Now, Class: webhook.OK, Status: 200}, v)
		return err
	})
	return ok
}

func delivery(t testing.TB, db *store.DB, id string) (d webhook.Delivery, attempts []webhook.Attempt) {
	t.Helper()
	read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		if d, err = tx.Delivery(ctx, id); err == nil {
			attempts, err = tx.Attempts(ctx, id)
		}
		return err
	})
	return d, attempts
}

func shop(t testing.TB, db *store.DB, runs ...string) {
	t.Helper()
	insertProject(t, db, "shop")
	for _, id := range runs {
		insertRun(t, db, "shop", id)
	}
}

func TestDeliveryFilters(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2", func(e *webhook.Endpoint) { e.Events = []webhook.Kind{webhook.RunFinish} })
		first, _ := happen(t, db, "r1", 1, webhook.RunStart)
		second, n := happen(t, db, "r1", 2, webhook.RunFinish)
		if n != 2 {
			t.Fatalf("%d deliveries of an event that both want", n)
		}
		happen(t, db, "r2", 1, webhook.RunTimeout)
		for _, c := range claim(t, db, "n", 10, time.Hour) {
			switch names([]store.Claim{c}) {
			case "e1:r1.1":
				conclude(t, db, "n", c, webhook.Delivered, 0)
			case "e1:r2.1":
				conclude(t, db, "n", c, webhook.Failed, 0)
			}
		}
		write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.HoldDeliveries(ctx, "e2")
			return err
		})
		states := func(s ...webhook.DeliveryState) []webhook.DeliveryState { return s }
		for name, c := range map[string]struct {
			filter store.DeliveryFilter
			want   string // newest first; the order of e1 and e2 is by id, which is by chance
		}{
			"none":               {store.DeliveryFilter{}, "e1:r1.1 e1:r1.2 e1:r2.1 e2:r1.2"},
			"endpoint":           {store.DeliveryFilter{EndpointID: "e1"}, "e1:r1.1 e1:r1.2 e1:r2.1"},
			"another endpoint":   {store.DeliveryFilter{EndpointID: "e2"}, "e2:r1.2"},
			"unknown endpoint":   {store.DeliveryFilter{EndpointID: "e3"}, ""},
			"run":                {store.DeliveryFilter{RunID: "r2"}, "e1:r2.1"},
			"delivered":          {store.DeliveryFilter{States: states(webhook.Delivered)}, "e1:r1.1"},
			"failed":             {store.DeliveryFilter{States: states(webhook.Failed)}, "e1:r2.1"},
			"waiting":            {store.DeliveryFilter{States: states(webhook.Waiting)}, "e1:r1.2"},
			"held":               {store.DeliveryFilter{States: states(webhook.Held)}, "e2:r1.2"},
			"one of two states":  {store.DeliveryFilter{States: states(webhook.Held, webhook.Failed)}, "e1:r2.1 e2:r1.2"},
			"kind":               {store.DeliveryFilter{Kinds: []webhook.Kind{webhook.RunFinish}}, "e1:r1.2 e2:r1.2"},
			"one of two kinds":   {store.DeliveryFilter{Kinds: []webhook.Kind{webhook.RunStart, webhook.RunTimeout}}, "e1:r1.1 e1:r2.1"},
			"a kind nobody has":  {store.DeliveryFilter{Kinds: []webhook.Kind{webhook.RunCanceled}}, ""},
			"since, inclusive":   {store.DeliveryFilter{Since: second}, "e1:r1.2 e1:r2.1 e2:r1.2"},
			"until, exclusive":   {store.DeliveryFilter{Until: second}, "e1:r1.1"},
			"between":            {store.DeliveryFilter{Since: first, Until: second.Add(time.Microsecond)}, "e1:r1.1 e1:r1.2 e2:r1.2"},
			"everything at once": {store.DeliveryFilter{EndpointID: "e1", RunID: "r1", States: states(webhook.Waiting, webhook.Held), Kinds: []webhook.Kind{webhook.RunFinish}, Since: second}, "e1:r1.2"},
		} {
			read(t, db, func(ctx context.Context, tx *store.Tx) error {
				list, more, err := tx.Deliveries(ctx, c.filter, store.Page{Limit: 10})
				newestFirst := slices.IsSortedFunc(list, func(a, b webhook.Delivery) int {
					return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
				})
				var got []string
				for _, d := range list {
					got = append(got, d.EndpointID+":"+d.EventID)
				}
				slices.Sort(got)
				if diff := gocmp.Diff(c.want, strings.Join(got, " ")); diff != "" || more || !newestFirst {
					t.Errorf("%s: more %v, newest first %v %s", name, more, newestFirst, diff)
				}
				return err
			})
		}
	})
}

func TestPagesOfDeliveriesMissNone(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		// Three endpoints: three deliveries of one instant, told apart by their ids.
		for _, id := range []string{"e1", "e2", "e3"} {
			insertEndpoint(t, db, id)
		}
		for i := range int64(3) {
			happen(t, db, "r1", i+1, webhook.RunStart)
		}
		read(t, db, func(ctx context.Context, tx *store.Tx) error {
			all, _, err := tx.Deliveries(ctx, store.DeliveryFilter{}, store.Page{Limit: 100})
			if len(all) != 9 || err != nil {
				t.Errorf("%d deliveries, %v", len(all), err)
			}
			var forth []webhook.Delivery
			page := store.Page{Limit: 2}
			for more := true; more; {
				var list []webhook.Delivery
				if list, more, err = tx.Deliveries(ctx, store.DeliveryFilter{}, page); err != nil {
					return err
				}
				forth = append(forth, list...)
				last := list[len(list)-1]
				page.After = &store.Position{At: last.CreatedAt, ID: last.ID}
			}
			if diff := gocmp.Diff(all, forth); diff != "" {
				t.Errorf("page by page (-want +got):\n%s", diff)
			}
			back, more, err := tx.Deliveries(ctx, store.DeliveryFilter{}, store.Page{Limit: 4, Before: &store.Position{At: all[5].CreatedAt, ID: all[5].ID}})
			if diff := gocmp.Diff(all[1:5], back); diff != "" || !more {
				t.Errorf("back: more %v (-want +got):\n%s", more, diff)
			}
			return err
		})
	})
}

func TestAClaimIsItsNodesUntilTheLeaseEnds(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		endpoint := insertEndpoint(t, db, "e1", func(e *webhook.Endpoint) { e.Headers = map[string]string{"A": "b"} })
		happen(t, db, "r1", 1, webhook.RunStart)
		mine := claim(t, db, "a", 10, time.Hour)
		if names(mine) != "e1:r1.1" || string(mine[0].Event.Payload) != `{"of":"r1.1"}` || mine[0].State != webhook.Waiting {
			t.Fatalf("claimed %+v", mine)
		}
		if diff := gocmp.Diff(endpoint, mine[0].Endpoint); diff != "" || mine[0].Endpoint.Secret.Reveal() != endpoint.Secret.Reveal() {
			t.Errorf("the endpoint to send to (-want +got):\n%s", diff)
		}
		for _, node := range []string{"a", "b"} {
			if got := claim(t, db, node, 10, time.Hour); len(got) != 0 {
				t.Errorf("node %s claimed it again: %s", node, names(got))
			}
		}
		read(t, db, func(ctx context.Context, tx *store.Tx) error {
			at, ok, err := tx.NextDue(ctx)
			if !ok || !at.Equal(mine[0].DueAt) {
				t.Errorf("next due at %v, %v; want the end of the lease, %v", at, ok, mine[0].DueAt)
			}
			return err
		})
		if conclude(t, db, "b", mine[0], webhook.Delivered, 0) {
			t.Error("a node recorded what another one holds")
		}
		if !conclude(t, db, "a", mine[0], webhook.Delivered, 0) {
			t.Error("the node that holds it could not record it")
		}
		if conclude(t, db, "a", mine[0], webhook.Delivered, 0) {
			t.Error("it was recorded twice")
		}
		if _, attempts := delivery(t, db, mine[0].ID); len(attempts) != 1 {
			t.Errorf("%d attempts in the log, want 1", len(attempts))
		}
		read(t, db, func(ctx context.Context, tx *store.Tx) error {
			if at, ok, err := tx.NextDue(ctx); ok || err != nil {
				t.Errorf("something is due at %v, %v", at, err)
			}
			return nil
		})
	})
}

func TestALeaseThatEndedIsSomebodyElses(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		happen(t, db, "r1", 1, webhook.RunStart)
		late := claim(t, db, "a", 10, 0) // a lease that ends at once
		mine := claim(t, db, "b", 10, time.Hour)
		if names(mine) != "e1:r1.1" {
			t.Fatalf("claimed %q", names(mine))
		}
		// The first node comes back from its pause: the log has no attempt of it, the second one's counts.
		if conclude(t, db, "a", late[0], webhook.Failed, 0) {
			t.Error("the late node recorded its attempt")
		}
		if !conclude(t, db, "b", mine[0], webhook.Delivered, 0) {
			t.Error("the node that holds it could not record it")
		}
		if d, attempts := delivery(t, db, mine[0].ID); d.State != webhook.Delivered || len(attempts) != 1 {
			t.Errorf("%+v, %d attempts", d, len(attempts))
		}
	})
}

func TestWhatAnAttemptMeansForItsDelivery(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2", "r3")
		insertEndpoint(t, db, "e1")
		for _, c := range []struct {
			run   string
			state webhook.DeliveryState
			wait  time.Duration
		}{{"r1", webhook.Delivered, 0}, {"r2", webhook.Failed, 0}, {"r3", webhook.Waiting, time.Hour}} {
			happen(t, db, c.run, 1, webhook.RunStart)
			mine := claim(t, db, "a", 10, time.Hour)
			if len(mine) != 1 || !conclude(t, db, "a", mine[0], c.state, c.wait) {
				t.Fatalf("%s: claimed %q", c.state, names(mine))
			}
			d, attempts := delivery(t, db, mine[0].ID)
			waits := c.state == webhook.Waiting
			if d.State != c.state || d.Attempts != 1 || len(attempts) != 1 || d.DueAt.IsZero() == waits || d.FinishedAt.IsZero() != waits {
				t.Errorf("%s: %+v with %d attempts", c.state, d, len(attempts))
			}
			if waits && time.Until(d.DueAt) < 50*time.Minute {
				t.Errorf("the retry is due at %v", d.DueAt)
			}
			if got := claim(t, db, "b", 10, time.Hour); len(got) != 0 {
				t.Errorf("%s: claimed again: %s", c.state, names(got))
			}
		}
	})
}

func TestRetriesAreNumbered(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		happen(t, db, "r1", 1, webhook.RunStart)
		var id string
		for n := range 3 {
			mine := claim(t, db, "a", 10, time.Hour)
			if len(mine) != 1 || mine[0].Attempts != n || !conclude(t, db, "a", mine[0], webhook.Waiting, 0) {
				t.Fatalf("attempt %d: %+v", n+1, mine)
			}
			id = mine[0].ID
		}
		_, attempts := delivery(t, db, id)
		for i, a := range attempts {
			if a.Number != i+1 {
				t.Errorf("attempt %d has number %d", i+1, a.Number)
			}
		}
		if len(attempts) != 3 {
			t.Errorf("%d attempts", len(attempts))
		}
	})
}

// A later event of a run is not sent while an earlier one is on its way to the
// same endpoint, or has a quick retry ahead.
func TestEventsOfARunAreSentInOrder(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		for i := range int64(5) {
			happen(t, db, "r1", i+1, webhook.RunStart)
		}
		happen(t, db, "r2", 1, webhook.RunStart)
		next := func(want string) store.Claim {
			t.Helper()
			mine := claim(t, db, "a", 100, time.Hour)
			if names(mine) != want {
				t.Fatalf("claimed %q, want %q", names(mine), want)
			}
			if len(mine) == 0 {
				return store.Claim{}
			}
			return mine[0]
		}
		// The first of each run at each endpoint: neither runs nor endpoints wait for each other.
		c := next("e1:r1.1 e1:r2.1 e2:r1.1 e2:r2.1")
		next("")
		conclude(t, db, "a", c, webhook.Delivered, 0)
		c = next("e1:r1.2") // and no other endpoint's
		conclude(t, db, "a", c, webhook.Failed, 0)
		c = next("e1:r1.3")
		conclude(t, db, "a", c, webhook.Waiting, webhook.OrderWait-time.Second) // a quick retry
		next("")
		write(t, db, func(ctx context.Context, tx *store.Tx) error { // the retry comes
			_, err := tx.HoldDeliveries(ctx, "e1")
			if err == nil {
				_, err = tx.ResumeDeliveries(ctx, "e1")
			}
			return err
		})
		mine := claim(t, db, "a", 100, time.Hour)
		if names(mine) != "e1:r1.3 e1:r2.1" || mine[0].Attempts != 1 {
			t.Fatalf("after the endpoint was disabled and enabled: %q", names(mine))
		}
		conclude(t, db, "a", mine[0], webhook.Waiting, time.Hour) // a slow retry is overtaken
		c = next("e1:r1.4")
		conclude(t, db, "a", c, webhook.Delivered, 0)
		c = next("e1:r1.5")
		conclude(t, db, "a", c, webhook.Delivered, 0)
		next("")
	})
}

func TestAnEventOvertakesOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := testkit.SQLite(t)
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		happen(t, db, "r1", 1, webhook.RunStart)
		happen(t, db, "r1", 2, webhook.RunFinish)
		if got := names(claim(t, db, "a", 10, time.Hour)); got != "e1:r1.1" {
			t.Fatalf("claimed %q", got)
		}
		time.Sleep(webhook.OrderWait - time.Microsecond)
		if got := names(claim(t, db, "a", 10, time.Hour)); got != "" {
			t.Errorf("claimed %q too early", got)
		}
		time.Sleep(time.Microsecond)
		if got := names(claim(t, db, "a", 10, time.Hour)); got != "e1:r1.2" {
			t.Errorf("after %v claimed %q", webhook.OrderWait, got)
		}
	})
}

func TestALaterEventDoesNotWaitForWhatIsOver(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		for i, state := range []webhook.DeliveryState{webhook.Delivered, webhook.Failed} {
			happen(t, db, "r1", int64(i+1), webhook.RunStart)
			conclude(t, db, "a", claim(t, db, "a", 10, time.Hour)[0], state, 0)
		}
		happen(t, db, "r1", 3, webhook.RunFinish)
		if got := names(claim(t, db, "a", 10, time.Hour)); got != "e1:r1.3" {
			t.Errorf("claimed %q", got)
		}
	})
}

// However many nodes claim at once, each row is one node's.
func TestNodesNeverClaimTheSameRow(t *testing.T) {
	const rows, nodes = 400, 8
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		write(t, db, func(ctx context.Context, tx *store.Tx) error {
			for i := range rows {
				e := webhook.Endpoint{ID: fmt.Sprintf("e%03d", i), ProjectID: "shop", URL: "https://example.com", Events: webhook.Kinds(), Scope: run.GroupScope,
					Enabled: true, Secret: "whsec_", CreatedAt: tx.Now, UpdatedAt: tx.Now}
				if err := tx.InsertEndpoint(ctx, e); err != nil {
					return err
				}
			}
			return nil
		})
		if _, n := happen(t, db, "r1", 1, webhook.RunStart); n != rows {
			t.Fatalf("%d deliveries", n)
		}
		var mu sync.Mutex
		owner := map[string]string{}
		var wg sync.WaitGroup
		for i := range nodes {
			wg.Go(func() {
				node := fmt.Sprint("node ", i)
				for {
					var got []store.Claim
					err := db.Write(t.Context(), func(tx *store.Tx) (err error) {
						got, err = tx.ClaimDeliveries(t.Context(), node, 16, tx.Now.Add(time.Hour))
						return err
					})
					if err != nil {
						t.Error(err)
					}
					if len(got) == 0 { // what others have not committed yet is theirs
						return
					}
					mu.Lock()
					for _, c := range got {
						if other, taken := owner[c.ID]; taken {
							t.Errorf("%s was claimed by %s and by %s", c.ID, other, node)
						}
						owner[c.ID] = node
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(owner) != rows {
			t.Errorf("%d of %d rows were claimed", len(owner), rows)
		}
	})
}

func TestHoldAndResume(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		e1 := insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		happen(t, db, "r1", 1, webhook.RunStart)
		for _, c := range claim(t, db, "a", 10, time.Hour) {
			conclude(t, db, "a", c, webhook.Delivered, 0)
		}
		happen(t, db, "r1", 2, webhook.RunFinish)
		happen(t, db, "r2", 1, webhook.RunStart)
		happen(t, db, "r2", 2, webhook.RunFinish)
		inFlight := claim(t, db, "a", 10, time.Hour)
		if got := names(inFlight); got != "e1:r1.2 e1:r2.1 e2:r1.2 e2:r2.1" {
			t.Fatalf("claimed %q", got)
		}

		count := func(what func(*store.Tx, context.Context, string) (int64, error)) (n int64) {
			write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				n, err = what(tx, ctx, "e1")
				return err
			})
			return n
		}
		hold := func(tx *store.Tx, ctx context.Context, id string) (int64, error) { return tx.HoldDeliveries(ctx, id) }
		resume := func(tx *store.Tx, ctx context.Context, id string) (int64, error) { return tx.ResumeDeliveries(ctx, id) }
		// Those in flight, and the one parked behind them; not what was delivered.
		if n := count(hold); n != 3 {
			t.Errorf("%d held, want 3", n)
		}
		if n := count(hold); n != 0 {
			t.Errorf("%d held again", n)
		}
		// An attempt that was in flight is logged, and leaves the delivery held.
		if !conclude(t, db, "a", inFlight[0], webhook.Waiting, time.Hour) {
			t.Error("an attempt of a held delivery was not recorded")
		}
		if d, _ := delivery(t, db, inFlight[0].ID); d.State != webhook.Held || !d.DueAt.IsZero() || !d.FinishedAt.IsZero() || d.Attempts != 1 {
			t.Errorf("held: %+v", d)
		}
		if !conclude(t, db, "a", inFlight[2], webhook.Delivered, 0) {
			t.Error("another endpoint is held too")
		}

		// A disabled endpoint gets nothing new.
		e1.Enabled = false
		write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.UpdateEndpoint(ctx, e1) })
		if _, n := happen(t, db, "r2", 3, webhook.RunTimeout); n != 1 {
			t.Errorf("%d deliveries, want the other endpoint's only", n)
		}

		if n := count(resume); n != 3 {
			t.Errorf("%d resumed, want 3", n)
		}
		if n := count(resume); n != 0 {
			t.Errorf("%d resumed again", n)
		}
		again := claim(t, db, "b", 10, time.Hour)
		if got := names(again); got != "e1:r1.2 e1:r2.1" {
			t.Errorf("after the resumption claimed %q: in the order of each run", got)
		}
		conclude(t, db, "b", again[1], webhook.Delivered, 0)
		if got := names(claim(t, db, "b", 10, time.Hour)); got != "e1:r2.2" {
			t.Errorf("behind it claimed %q", got)
		}
	})
}

func TestReleaseNode(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2", "r3")
		insertEndpoint(t, db, "e1")
		release := func(node string) {
			write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.ReleaseNode(ctx, node) })
		}
		happen(t, db, "r1", 1, webhook.RunStart)
		gone := claim(t, db, "gone", 10, time.Hour)
		happen(t, db, "r2", 1, webhook.RunStart)
		claim(t, db, "alive", 10, time.Hour)
		happen(t, db, "r3", 1, webhook.RunStart)
		conclude(t, db, "alive", claim(t, db, "alive", 10, time.Hour)[0], webhook.Waiting, time.Hour) // nobody's, and not due

		release("nobody")
		if got := names(claim(t, db, "c", 10, time.Hour)); got != "" {
			t.Errorf("claimed %q", got)
		}
		release("gone")
		if got := names(claim(t, db, "c", 10, time.Hour)); got != "e1:r1.1" {
			t.Errorf("claimed %q", got)
		}
		if conclude(t, db, "gone", gone[0], webhook.Delivered, 0) {
			t.Error("the node that was gone recorded an attempt")
		}
		release("") // every node's, but no retry before its time
		if got := names(claim(t, db, "c", 10, time.Hour)); got != "e1:r1.1 e1:r2.1" {
			t.Errorf("claimed %q", got)
		}
	})
}

func TestClaimsAreOldestFirstUpToTheirLimit(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2", "r3")
		insertEndpoint(t, db, "e1")
		for _, id := range []string{"r2", "r3", "r1"} {
			happen(t, db, id, 1, webhook.RunStart)
		}
		for _, want := range []string{"e1:r2.1 e1:r3.1", "e1:r1.1", ""} {
			if got := names(claim(t, db, "a", 2, time.Hour)); got != want {
				t.Errorf("claimed %q, want %q", got, want)
			}
		}
	})
}

// What a receiver answers may be anything; it comes back byte for byte.
func TestTheLogKeepsAnyAnswer(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		happen(t, db, "r1", 1, webhook.RunStart)
		d := claim(t, db, "a", 1, time.Hour)[0]
		at := time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC)
		var want []webhook.Attempt
		for _, body := range []string{"", "ok", "grün 😀", "nul \x00", "\xff\xfe", "\x1bbase64:", "\x1bbase64:***", strings.Repeat("x", 8<<10)} {
			a := webhook.Attempt{DeliveryID: d.ID, Number: len(want) + 1, StartedAt: at, Duration: 1500 * time.Microsecond, Class: webhook.BadStatus, Status: 500,
				RequestHeaders: map[string]string{"X": "1"}, ResponseHeaders: map[string]string{"Y": "nul \x00"}, ResponseBody: []byte(body), Error: "no: \x00 \xff"}
			write(t, db, func(ctx context.Context, tx *store.Tx) error {
				ok, err := tx.RecordAttempt(ctx, "a", d.Delivery, a, store.Verdict{State: webhook.Waiting, RetryAt: tx.Now})
				if !ok {
					t.Errorf("%q was not recorded", body)
				}
				return err
			})
			claim(t, db, "a", 1, time.Hour)
			a.Error = "no: \uFFFD \uFFFD" // text for people
			want = append(want, a)
		}
		_, got := delivery(t, db, d.ID)
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestADeletedEndpointTakesItsDeliveriesAlong(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		happen(t, db, "r1", 1, webhook.RunStart)
		first := claim(t, db, "a", 10, time.Hour)
		conclude(t, db, "a", first[0], webhook.Delivered, 0)
		happen(t, db, "r2", 1, webhook.RunStart)
		inFlight := claim(t, db, "a", 10, time.Hour)
		remove := func() error {
			return db.Write(t.Context(), func(tx *store.Tx) error { return tx.DeleteEndpoint(t.Context(), "e1") })
		}
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if err := remove(); run.KindOf(err) != run.NotFound {
			t.Errorf("deleted twice: %v", err)
		}
		if conclude(t, db, "a", inFlight[0], webhook.Delivered, 0) {
			t.Error("an attempt of a deleted endpoint was recorded")
		}
		read(t, db, func(ctx context.Context, tx *store.Tx) error {
			for _, id := range []string{first[0].ID, inFlight[0].ID} {
				if _, err := tx.Delivery(ctx, id); run.KindOf(err) != run.NotFound {
					t.Errorf("delivery %s: %v", id, err)
				}
				if list, err := tx.Attempts(ctx, id); len(list) != 0 || err != nil {
					t.Errorf("delivery %s has %d attempts, %v", id, len(list), err)
				}
			}
			list, _, err := tx.Deliveries(ctx, store.DeliveryFilter{}, store.Page{Limit: 10})
			if len(list) != 2 {
				t.Errorf("%d deliveries are left, want those of the other endpoint", len(list))
			}
			events, errEvents := tx.Events(ctx, "r1")
			if len(events) != 1 || errEvents != nil {
				t.Errorf("%d events are left, %v: they are the run's", len(events), errEvents)
			}
			return err
		})
	})
}

func TestOnlyWhoWantsAnEventGetsIt(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertProject(t, db, "other")
		insertEndpoint(t, db, "yes")
		insertEndpoint(t, db, "other event", func(e *webhook.Endpoint) { e.Events = []webhook.Kind{webhook.RunFinish} })
		insertEndpoint(t, db, "no events", func(e *webhook.Endpoint) { e.Events = nil })
		insertEndpoint(t, db, "disabled", func(e *webhook.Endpoint) { e.Enabled = false })
		insertEndpoint(t, db, "other scope", func(e *webhook.Endpoint) { e.Scope = run.RunScope })
		insertEndpoint(t, db, "other project", func(e *webhook.Endpoint) { e.ProjectID = "other" })
		if _, n := happen(t, db, "r1", 1, webhook.RunStart); n != 1 {
			t.Errorf("%d deliveries", n)
		}
		if got := names(claim(t, db, "a", 10, time.Hour)); got != "yes:r1.1" {
			t.Errorf("claimed %q", got)
		}
	})
}

// Whoever reads the database, or a backup of it, sees no secret.
func TestSecretsOfEndpointsAreSealed(t *testing.T) {
	path := t.TempDir() + "/runbell.db"
	db, err := store.Open(t.Context(), "sqlite:"+path, testkit.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	insertProject(t, db, "shop")
	e := insertEndpoint(t, db, "e1", func(e *webhook.Endpoint) { e.Headers = map[string]string{"Authorization": "Bearer hunter2"} })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", strings.TrimPrefix(e.Secret.Reveal(), "whsec_")} {
		if contains(t, path, secret) {
			t.Errorf("%q stands in the file", secret)
		}
	}
	if !contains(t, path, e.URL) {
		t.Error("not even the URL stands in the file: the search is wrong")
	}
}
