package store_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// lanes are the endpoints that a node may serve, by name.
func lanes(t testing.TB, db *store.DB, node string) (ids []string) {
	t.Helper()
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		list, err := tx.Lanes(ctx, node)
		for _, l := range list {
			ids = append(ids, l.EndpointID)
		}
		return err
	})
	slices.Sort(ids)
	return ids
}

func take(t testing.TB, db *store.DB, id, node string, lease time.Duration) (ok bool) {
	t.Helper()
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		ok, err = tx.TakeLane(ctx, id, node, tx.Now.Add(lease))
		return err
	})
	return ok
}

func TestALaneIsOneNodesUntilItsLeaseEnds(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		insertEndpoint(t, db, "idle", func(e *webhook.Endpoint) { e.Events = nil })
		insertEndpoint(t, db, "off")
		happen(t, db, "r1", 1, webhook.RunStart)
		change(t, db, "off", disable)
		check := func(node string, want ...string) {
			t.Helper()
			if got := lanes(t, db, node); !slices.Equal(got, want) {
				t.Errorf("node %s may serve %q, want %q", node, got, want)
			}
		}
		check("a", "e1", "e2")
		for range 2 { // nobody's, and then its own
			if !take(t, db, "e1", "a", time.Hour) {
				t.Error("a lane that nobody else has could not be taken")
			}
		}
		if take(t, db, "e1", "b", time.Hour) {
			t.Error("a lane was taken from the node that has it")
		}
		if take(t, db, "none", "a", time.Hour) {
			t.Error("the lane of no endpoint was taken")
		}
		check("a", "e1", "e2")
		check("b", "e2")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.LeaveLane(ctx, "e1", "b") }) // not b's to leave
		check("b", "e2")

		// A lease that is not kept ends, and one that is kept does not.
		take(t, db, "e2", "a", time.Hour)
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.KeepLanes(ctx, "a", tx.Now) })
		check("b", "e1", "e2")
		if !take(t, db, "e1", "b", time.Hour) {
			t.Error("a lease that ended keeps others out")
		}
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.KeepLanes(ctx, "a", tx.Now.Add(time.Hour)) })
		check("a", "e2")
		check("b", "e1")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.LeaveLane(ctx, "e2", "a") })
		check("b", "e1", "e2")
		change(t, db, "off", enable)
		check("b", "e1", "e2", "off")
	})
}

func TestLanesTellWhenTheirFirstIsDue(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		first, _ := happen(t, db, "r1", 1, webhook.RunStart)
		happen(t, db, "r2", 1, webhook.RunStart)
		due := func() (at time.Time) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				list, err := tx.Lanes(ctx, "a")
				if err == nil && len(list) == 1 {
					at = list[0].DueAt
				}
				return err
			})
			return at
		}
		if got := due(); !got.Equal(first) {
			t.Errorf("due at %v, want %v", got, first)
		}
		n := newNode(t, db, "a")
		claims := n.claim(10)
		n.conclude(claims[0], webhook.Waiting, 2*time.Hour)
		n.conclude(claims[1], webhook.Waiting, time.Hour)
		if got := due().Sub(first); got < time.Hour || got > time.Hour+time.Minute {
			t.Errorf("due %v after the events, want about 1h", got)
		}
		// Retry-After holds the whole endpoint.
		change := n.record(outcome(store.Claim{Delivery: webhook.Delivery{ID: "none", EndpointID: "e1"}}, db.Now(), webhook.Decision{State: webhook.Waiting, Hold: 90 * time.Minute}))
		if got := due().Sub(first); len(change) != 0 || got < 90*time.Minute || got > 91*time.Minute {
			t.Errorf("due %v after the events, want about 1h30m; %v", got, change)
		}
	})
}

// However many nodes race, a lane is one's.
func TestNodesRaceForALane(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db)
		insertEndpoint(t, db, "e1")
		for range 20 {
			var winners atomic.Int32
			var owner atomic.Value
			var wg sync.WaitGroup
			for _, name := range []string{"a", "b", "c", "d"} {
				wg.Go(func() {
					if take(t, db, "e1", name, time.Hour) {
						winners.Add(1)
						owner.Store(name)
					}
				})
			}
			wg.Wait()
			if winners.Load() != 1 {
				t.Fatalf("%d nodes have the lane", winners.Load())
			}
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.LeaveLane(ctx, "e1", owner.Load().(string)) })
		}
	})
}

func TestWorkIsWhatIsDueAndNotKnown(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2", "r3", "r4", "r5")
		want := insertEndpoint(t, db, "e1", func(e *webhook.Endpoint) {
			e.Headers, e.Label, e.MaxInFlight, e.RatePerMinute = map[string]string{"A": "b"}, "chat", 3, 60
			e.Filters = webhook.Filters{Branches: []string{"*"}, Tags: []string{}, Result: webhook.AnyResult}
			e.Previous, e.PreviousUntil, e.Private = webhook.NewSecret(), db.Now().Add(time.Hour), webhook.NewPrivateKey()
		})
		for _, id := range []string{"r2", "r3", "r1", "r4", "r5"} {
			happen(t, db, id, 1, webhook.RunStart)
		}
		take(t, db, "e1", "a", time.Hour)
		work := func(limit int, known ...store.Claim) (w store.Work) {
			t.Helper()
			ids := map[string]bool{}
			for _, c := range known {
				ids[c.ID] = true
			}
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				w, err = tx.Work(ctx, "e1", store.QueuePosition{}, limit, ids)
				return err
			})
			return w
		}
		w := work(10)
		// By id within an instant, and an id starts with milliseconds only.
		if sorted(w.Claims) != "e1:r1.1 e1:r2.1 e1:r3.1 e1:r4.1 e1:r5.1" || !w.Next.IsZero() || w.Node != "a" || w.Trouble != nil || w.Hold.After(db.Now()) {
			t.Fatalf("work %+v", w)
		}
		if names(w.Claims) != "e1:r2.1 e1:r3.1 e1:r1.1 e1:r4.1 e1:r5.1" {
			t.Errorf("not the first due first: %s", names(w.Claims))
		}
		if diff := gocmp.Diff(want, w.Endpoint); diff != "" {
			t.Errorf("the endpoint to send to (-want +got):\n%s", diff)
		}
		for _, c := range w.Claims {
			if string(c.Payload) != `{"of":"`+c.EventID+`"}` || c.RunID+".1" != c.EventID || c.Kind != webhook.RunStart || c.State != webhook.Waiting || c.Sequence != 1 || c.CreatedAt.IsZero() {
				t.Errorf("claimed %+v", c)
			}
		}
		if again := work(10); names(again.Claims) != names(w.Claims) {
			t.Errorf("a look changed something: %s", names(again.Claims))
		}
		if some := work(2, w.Claims[0], w.Claims[3]); names(some.Claims) != "e1:r3.1 e1:r1.1" || some.Next.IsZero() || some.Next.After(db.Now()) {
			t.Errorf("two that are not known: %s, more at %v", names(some.Claims), some.Next)
		}
		behind := func(c store.Claim, limit int, known map[string]bool) (w store.Work) {
			t.Helper()
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				w, err = tx.Work(ctx, "e1", store.QueuePosition{Due: c.DueAt, ID: c.ID}, limit, known)
				return err
			})
			return w
		}
		if rest := behind(w.Claims[1], 10, nil); names(rest.Claims) != "e1:r1.1 e1:r4.1 e1:r5.1" || !rest.Next.IsZero() {
			t.Errorf("behind the second: %s, more at %v", names(rest.Claims), rest.Next)
		}
		// One that is known stands where one that is not could be read.
		if some := behind(w.Claims[0], 2, map[string]bool{w.Claims[1].ID: true}); names(some.Claims) != "e1:r1.1 e1:r4.1" || some.Next.IsZero() || some.Next.After(db.Now()) {
			t.Errorf("behind the first, without the second: %s, more at %v", names(some.Claims), some.Next)
		}
		if none := behind(w.Claims[4], 2, nil); len(none.Claims) != 0 || !none.Next.IsZero() {
			t.Errorf("behind the last: %s, more at %v", names(none.Claims), none.Next)
		}
		if none := work(2, w.Claims...); len(none.Claims) != 0 || !none.Next.IsZero() {
			t.Errorf("all known: %s, more at %v", names(none.Claims), none.Next)
		}
		n := newNode(t, db, "a")
		n.conclude(w.Claims[1], webhook.Waiting, time.Hour)
		d, _ := delivery(t, db, w.Claims[1].ID)
		if rest := work(10, w.Claims[0]); names(rest.Claims) != "e1:r1.1 e1:r4.1 e1:r5.1" || !rest.Next.Equal(d.DueAt) || d.DueAt.IsZero() {
			t.Errorf("with a retry at %v: %s, more at %v", d.DueAt, names(rest.Claims), rest.Next)
		}
		change(t, db, "e1", disable)
		if off := work(10); off.Endpoint.Enabled || len(off.Claims) != 0 {
			t.Errorf("a disabled endpoint has work: %+v", off)
		}
		err := db.Read(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Work(t.Context(), "none", store.QueuePosition{}, 10, nil)
			return err
		})
		if run.KindOf(err) != run.NotFound {
			t.Errorf("work of no endpoint: %v", err)
		}
	})
}

// However large events are, a read takes a bounded amount of memory, and says where
// the next one goes on.
func TestWorkOfLargeEvents(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2", "r3", "r4")
		insertEndpoint(t, db, "e1")
		large := []byte(`"` + strings.Repeat("x", 600<<10) + `"`)
		for _, id := range []string{"r1", "r2", "r3", "r4"} {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				_, _, err := lifecycle.FanOut(ctx, tx, webhook.Event{ID: id, ProjectID: "shop", RunID: id, Group: id, Scope: run.GroupScope,
					Kind: webhook.RunStart, Sequence: 1, Payload: large, CreatedAt: tx.Now}, webhook.Subject{}, &run.Group{Name: id})
				return err
			})
		}
		var after store.QueuePosition
		for _, want := range []struct {
			names string
			large bool
		}{{"e1:r1 e1:r2", true}, {"e1:r3 e1:r4", false}} {
			var w store.Work
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				w, err = tx.Work(ctx, "e1", after, 10, nil)
				return err
			})
			if names(w.Claims) != want.names || w.Large != want.large || w.Next.IsZero() == want.large || w.Next.After(db.Now()) {
				t.Fatalf("read %q, large %v, more at %v; want %+v", names(w.Claims), w.Large, w.Next, want)
			}
			last := w.Claims[len(w.Claims)-1]
			after = store.QueuePosition{Due: last.DueAt, ID: last.ID}
		}
	})
}

// An endpoint whose secrets were stored with another key is trouble of its own.
func TestWorkOfAnEndpointThatIsSealed(t *testing.T) {
	path := "sqlite:" + t.TempDir() + "/runbell.db"
	db, err := store.Open(t.Context(), path, testkit.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	shop(t, db, "r1")
	insertEndpoint(t, db, "e1")
	happen(t, db, "r1", 1, webhook.RunStart)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := webhook.NewSealer(make([]byte, webhook.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	if db, err = store.Open(t.Context(), path, other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		w, err := tx.Work(ctx, "e1", store.QueuePosition{}, 10, nil)
		if w.Trouble == nil || names(w.Claims) != "e1:r1.1" {
			t.Errorf("work %+v", w)
		}
		return err
	})
}
