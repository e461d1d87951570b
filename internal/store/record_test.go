package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/dispatch"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

func health(t testing.TB, db *store.DB, id string) (e webhook.Endpoint, h webhook.Health) {
	t.Helper()
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		if e, err = tx.Endpoint(ctx, id); err == nil {
			h, err = tx.Health(ctx, e)
		}
		return err
	})
	return e, h
}

func TestWhatAnAttemptMeansForItsDelivery(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2", "r3")
		insertEndpoint(t, db, "e1")
		n := newNode(t, db, "a")
		for _, c := range []struct {
			run   string
			state webhook.DeliveryState
			wait  time.Duration
		}{{"r1", webhook.Delivered, 0}, {"r2", webhook.Failed, 0}, {"r3", webhook.Waiting, time.Hour}} {
			happen(t, db, c.run, 1, webhook.RunStart)
			mine := n.claim(10)
			if len(mine) != 1 {
				t.Fatalf("%s: claimed %q", c.state, names(mine))
			}
			n.conclude(mine[0], c.state, c.wait)
			d, attempts := delivery(t, db, mine[0].ID)
			waits := c.state == webhook.Waiting
			if d.State != c.state || d.Attempts != 1 || len(attempts) != 1 || d.DueAt.IsZero() == waits || d.FinishedAt.IsZero() != waits {
				t.Errorf("%s: %+v with %d attempts", c.state, d, len(attempts))
			}
			if waits && d.DueAt.Sub(db.Now()) < 50*time.Minute {
				t.Errorf("the retry is due at %v", d.DueAt)
			}
			if got := n.claim(10); len(got) != 0 {
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
		n := newNode(t, db, "a")
		var id string
		for i := range 3 {
			mine := n.claim(10)
			if len(mine) != 1 || mine[0].Attempts != i || mine[0].Earlier != 0 {
				t.Fatalf("attempt %d: %+v", i+1, mine)
			}
			n.conclude(mine[0], webhook.Waiting, 0)
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

// A batch is of any size and of many endpoints; what is a lost lane's is left
// out, and what was recorded already changes nothing.
func TestBatchesOfAttempts(t *testing.T) {
	const runs = 64 + 16 + 4 + 2 // a statement of each size
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db)
		for _, id := range []string{"e1", "e2", "e3"} {
			insertEndpoint(t, db, id)
		}
		for i := range runs {
			id := fmt.Sprintf("r%02d", i)
			insertRun(t, db, "shop", id)
			happen(t, db, id, 1, webhook.RunStart)
		}
		mine := newNode(t, db, "a")
		claims := mine.claim(1000)
		if len(claims) != 3*runs {
			t.Fatalf("%d claims", len(claims))
		}
		// Mixed up, as the lanes of a process are; and e2 is lost meanwhile.
		slices.SortStableFunc(claims, func(a, b store.Claim) int { return strings.Compare(a.EventID, b.EventID) })
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.LeaveLane(ctx, "e2", "a") })
		if !take(t, db, "e2", "b", time.Hour) {
			t.Fatal("the lane that was left could not be taken")
		}
		var outcomes []*store.Outcome
		for i, c := range claims {
			d := webhook.Decision{State: webhook.Delivered}
			if i%5 == 0 {
				d = webhook.Decision{State: webhook.Failed}
			}
			outcomes = append(outcomes, outcome(c, db.Now(), d))
		}
		mine.record(outcomes...)
		check := func() {
			t.Helper()
			for i, o := range outcomes {
				d, attempts := delivery(t, db, o.Delivery.ID)
				want, logged := o.Decision.State, 1
				if d.EndpointID == "e2" {
					want, logged = webhook.Waiting, 0
				}
				if d.State != want || len(attempts) != logged || d.Attempts != logged {
					t.Fatalf("outcome %d: %+v with %d attempts, want %s with %d", i, d, len(attempts), want, logged)
				}
			}
		}
		check()
		// Again: the answer of the commit was lost. Then with one that is new in the middle.
		mine.record(outcomes...)
		check()
		happen(t, db, "r00", 2, webhook.RunFinish)
		fresh := mine.claim(10)
		if names(fresh) != "e1:r00.2 e3:r00.2" {
			t.Fatalf("claimed %q", names(fresh))
		}
		mine.record(slices.Insert(slices.Clone(outcomes), 7, outcome(fresh[0], db.Now(), webhook.Decision{State: webhook.Delivered}))...)
		check()
		if d, attempts := delivery(t, db, fresh[0].ID); d.State != webhook.Delivered || len(attempts) != 1 {
			t.Errorf("the new one: %+v with %d attempts", d, len(attempts))
		}
		// The other node sends again what the first one could not record.
		theirs := newNode(t, db, "b").claim(1000)
		if len(theirs) != runs || theirs[0].Attempts != 0 {
			t.Errorf("the other node has %d to send", len(theirs))
		}
		mine.record() // nothing
	})
}

func TestHealth(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		if _, h := health(t, db, "e1"); h != (webhook.Health{State: webhook.Unused}) {
			t.Errorf("at first %+v", h)
		}
		happen(t, db, "r1", 1, webhook.RunStart)
		n := newNode(t, db, "a")
		at := db.Now().Add(-time.Hour)
		attempt := func(state webhook.DeliveryState) *store.Outcome {
			t.Helper()
			mine := n.claim(10)
			if len(mine) != 1 {
				t.Fatalf("claimed %q", names(mine))
			}
			at = at.Add(time.Minute)
			// It counts when it ended, by the clock of the database: that of this machine is wrong.
			o := outcome(mine[0], at.Add(-3*time.Hour), webhook.Decision{State: state})
			o.EndedAt = at
			return o
		}
		n.record(attempt(webhook.Waiting))
		first := at
		if _, h := health(t, db, "e1"); h != (webhook.Health{State: webhook.Failing, LastFailureAt: first, FailingSince: first, Pending: 1}) {
			t.Errorf("after a failure %+v", h)
		}
		n.record(attempt(webhook.Waiting))
		if _, h := health(t, db, "e1"); h != (webhook.Health{State: webhook.Failing, LastFailureAt: at, FailingSince: first, Pending: 1}) {
			t.Errorf("after another failure %+v", h)
		}
		n.record(attempt(webhook.Delivered))
		good, bad := at, at.Add(-time.Minute)
		if _, h := health(t, db, "e1"); h != (webhook.Health{State: webhook.Healthy, LastSuccessAt: good, LastFailureAt: bad}) {
			t.Errorf("after a success %+v", h)
		}
		happen(t, db, "r1", 2, webhook.RunFinish)
		n.record(attempt(webhook.Failed))
		if _, h := health(t, db, "e1"); h != (webhook.Health{State: webhook.Failing, LastSuccessAt: good, LastFailureAt: at, FailingSince: at, Failed24h: 1}) {
			t.Errorf("after one failed for good %+v", h)
		}
		change(t, db, "e1", disable)
		if _, h := health(t, db, "e1"); h.State != webhook.IsOff {
			t.Errorf("disabled: %+v", h)
		}
	})
}

// In one batch, a success ends the failures before it and not those after it.
func TestHealthOfABatch(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2", "r3", "r4")
		insertEndpoint(t, db, "e1")
		for _, id := range []string{"r1", "r2", "r3", "r4"} {
			happen(t, db, id, 1, webhook.RunStart)
		}
		n := newNode(t, db, "a")
		start := db.Now().Add(-time.Hour)
		var outcomes []*store.Outcome
		for i, c := range n.claim(10) {
			state := webhook.Failed
			if i == 1 {
				state = webhook.Delivered
			}
			outcomes = append(outcomes, outcome(c, start.Add(time.Duration(i)*time.Minute), webhook.Decision{State: state}))
		}
		n.record(outcomes...)
		want := webhook.Health{State: webhook.Failing, LastSuccessAt: start.Add(time.Minute), LastFailureAt: start.Add(3 * time.Minute), FailingSince: start.Add(2 * time.Minute), Failed24h: 3}
		if _, h := health(t, db, "e1"); h != want {
			t.Errorf("%+v, want %+v", h, want)
		}
	})
}

func TestAnEndpointThatOnlyFails(t *testing.T) {
	const day = 24 * time.Hour
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		n := newNode(t, db, "a")
		history := func(id string) (kinds []webhook.HistoryKind) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				list, err := tx.History(ctx, id, 10)
				for _, h := range list {
					if h.Text == "" || h.At.IsZero() || h.ID == "" {
						t.Errorf("history %+v", h)
					}
					kinds = append(kinds, h.Kind)
				}
				return err
			})
			return kinds
		}
		attempt := func(id string, ago time.Duration, d webhook.Decision) []store.Notice {
			t.Helper()
			claims := n.claim(10)
			clear(n.known)
			for _, c := range claims {
				if c.EndpointID == id {
					return n.record(outcome(c, db.Now().Add(-ago), d))
				}
			}
			t.Fatalf("%s has nothing to send", id)
			return nil
		}
		retry := webhook.Decision{State: webhook.Waiting}
		is := func(what string, notices []store.Notice, id string, kind webhook.HistoryKind, says string) {
			t.Helper()
			if kind == "" && len(notices) == 0 {
				return
			}
			if len(notices) != 1 || notices[0].EndpointID != id || notices[0].Kind != kind || !strings.Contains(notices[0].Text, says) {
				t.Errorf("%s: %+v, want %q that says %q", what, notices, kind, says)
			}
		}
		for _, id := range []string{"warned", "recovers", "dead", "gone", "gone at last"} {
			insertEndpoint(t, db, id)
		}
		happen(t, db, "r1", 1, webhook.RunStart)

		is("just before a day", attempt("warned", day-time.Minute, retry), "", "", "")
		is("within the same minute", attempt("warned", day-2*time.Minute, retry), "", "", "")
		is("a day", attempt("recovers", day, retry), "recovers", webhook.WasFailing, "All attempts failed since")
		is("a day, again", attempt("recovers", 0, retry), "", "", "")
		if e, _ := health(t, db, "recovers"); !e.Enabled || !slices.Equal(history("recovers"), []webhook.HistoryKind{webhook.WasFailing}) {
			t.Errorf("after the warning: enabled %v, history %v", e.Enabled, history("recovers"))
		}
		// A success ends it, and the next day of failures is worth another warning.
		is("a success", attempt("recovers", 0, webhook.Decision{State: webhook.Delivered}), "", "", "")
		happen(t, db, "r1", 2, webhook.RunFinish)
		is("another day", attempt("recovers", day, retry), "recovers", webhook.WasFailing, "")

		is("almost five days", attempt("dead", 5*day-time.Minute, retry), "dead", webhook.WasFailing, "will be disabled at")
		change(t, db, "dead", disable) // by a person meanwhile: nothing to say
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.LeaveLane(ctx, "dead", "a") })
		change(t, db, "dead", enable)
		is("five days", attempt("dead", 0, retry), "", "", "")

		insertEndpoint(t, db, "dead for long")
		happen(t, db, "r1", 3, webhook.RunTimeout)
		is("five days", attempt("dead for long", 5*day, retry), "dead for long", webhook.WasDisabled, "for 5 days")
		e, h := health(t, db, "dead for long")
		if e.Enabled || !strings.Contains(e.DisabledReason, "All attempts failed since") || h.State != webhook.IsOff || h.Pending != 1 ||
			!slices.Equal(history("dead for long"), []webhook.HistoryKind{webhook.WasDisabled}) {
			t.Errorf("after five days: %+v, %+v, history %v", e, h, history("dead for long"))
		}

		is("410", attempt("gone", 0, webhook.Decision{State: webhook.Waiting, Wait: time.Hour, Gone: true}), "gone", webhook.WasDisabled, "410 Gone")
		if e, h := health(t, db, "gone"); e.Enabled || !strings.Contains(e.DisabledReason, "410 Gone") || h.State != webhook.IsOff || h.Pending != 3 {
			t.Errorf("after 410: %+v, %+v", e, h)
		}
		is("410 at the last attempt", attempt("gone at last", 0, webhook.Decision{State: webhook.Failed, Gone: true}), "gone at last", webhook.WasDisabled, "410 Gone")
		if _, to := happen(t, db, "r1", 4, webhook.RunStart); slices.Contains(to, "gone") || slices.Contains(to, "gone at last") || slices.Contains(to, "dead for long") {
			t.Errorf("a disabled endpoint got an event: %q", to)
		}
	})
}

func TestRetryAfterHoldsTheEndpoint(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		happen(t, db, "r1", 1, webhook.RunStart)
		happen(t, db, "r2", 1, webhook.RunStart)
		n := newNode(t, db, "a")
		claims := n.claim(10)
		if sorted(claims) != "e1:r1.1 e1:r2.1 e2:r1.1 e2:r2.1" {
			t.Fatalf("claimed %q", names(claims))
		}
		hold := func() time.Duration {
			_, h := health(t, db, "e1")
			if h.HoldUntil.IsZero() {
				return 0
			}
			return h.HoldUntil.Sub(db.Now()).Round(time.Minute)
		}
		n.record(outcome(claims[0], db.Now(), webhook.Decision{State: webhook.Waiting, Wait: time.Hour, Hold: time.Hour}))
		if hold() != time.Hour {
			t.Errorf("held for %v", hold())
		}
		// A shorter one does not end it.
		n.record(outcome(claims[1], db.Now(), webhook.Decision{State: webhook.Waiting, Wait: time.Minute, Hold: time.Minute}))
		if hold() != time.Hour {
			t.Errorf("after a shorter one held for %v", hold())
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			w, err := tx.Work(ctx, "e1", store.QueuePosition{}, 10, nil)
			if w.Hold.Sub(tx.Now).Round(time.Minute) != time.Hour {
				t.Errorf("a lane is told to wait until %v", w.Hold)
			}
			return err
		})
		if _, h := health(t, db, "e2"); !h.HoldUntil.IsZero() {
			t.Error("another endpoint is held")
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
		n := newNode(t, db, "a")
		next := func(want string) store.Claim {
			t.Helper()
			mine := n.claim(100)
			if sorted(mine) != want {
				t.Fatalf("claimed %q, want %q", names(mine), want)
			}
			for _, c := range mine {
				if c.EndpointID == "e1" && c.RunID == "r1" {
					return c
				}
			}
			return store.Claim{}
		}
		// The first of each run at each endpoint: neither runs nor endpoints wait for each other.
		c := next("e1:r1.1 e1:r2.1 e2:r1.1 e2:r2.1")
		next("")
		n.conclude(c, webhook.Delivered, 0)
		c = next("e1:r1.2") // and no other endpoint's
		n.conclude(c, webhook.Failed, 0)
		c = next("e1:r1.3")
		n.conclude(c, webhook.Waiting, dispatch.QuickRetry)
		next("")
		if d, _ := delivery(t, db, c.ID); d.DueAt.IsZero() {
			t.Error("the retry is not due")
		}
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { // the retry comes
			resumed, err := tx.ResumeDeliveries(ctx, "e1", 100)
			if resumed != 1 {
				t.Errorf("%d resumed", resumed)
			}
			return err
		})
		if c = next("e1:r1.3"); c.Attempts != 1 || c.Earlier != 1 {
			t.Fatalf("after the resumption %+v", c)
		}
		n.conclude(c, webhook.Waiting, time.Hour) // a slow retry is overtaken
		slow := c
		c = next("e1:r1.4")
		n.conclude(c, webhook.Delivered, 0)
		// What happens now waits for those on their way, and not for the slow one.
		happen(t, db, "r1", 6, webhook.RunFinish)
		c = next("e1:r1.5")
		n.conclude(c, webhook.Delivered, 0)
		c = next("e1:r1.6")
		n.conclude(c, webhook.Delivered, 0)
		happen(t, db, "r1", 7, webhook.RunFinish)
		next("e1:r1.7")
		if d, _ := delivery(t, db, slow.ID); d.State != webhook.Waiting || d.DueAt.IsZero() {
			t.Errorf("the one that was overtaken: %+v", d)
		}
	})
}

// Several of a run that are recorded together release what is behind all of them.
func TestABatchReleasesOnlyWhatIsBehindAllOfIt(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		happen(t, db, "r1", 1, webhook.RunStart)
		n := newNode(t, db, "a")
		first := n.claim(10)[0]
		n.conclude(first, webhook.Waiting, time.Hour) // overtaken
		happen(t, db, "r1", 2, webhook.RunFinish)
		happen(t, db, "r1", 3, webhook.RunTimeout)
		second := n.claim(10)
		if names(second) != "e1:r1.2" {
			t.Fatalf("claimed %q", names(second))
		}
		// The slow retry of the first comes while the second is on its way.
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.ResumeDeliveries(ctx, "e1", 10)
			return err
		})
		again := n.claim(10)
		if names(again) != "e1:r1.1" {
			t.Fatalf("claimed %q", names(again))
		}
		n.record(outcome(again[0], db.Now(), webhook.Decision{State: webhook.Delivered}))
		if got := n.claim(10); len(got) != 0 {
			t.Errorf("before the second ended, claimed %q", names(got))
		}
		n.record(outcome(second[0], db.Now(), webhook.Decision{State: webhook.Failed}))
		if got := names(n.claim(10)); got != "e1:r1.3" {
			t.Errorf("claimed %q", got)
		}
	})
}

func TestADeletedEndpointTakesItsDeliveriesAlong(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1", "r2")
		insertEndpoint(t, db, "e1")
		insertEndpoint(t, db, "e2")
		happen(t, db, "r1", 1, webhook.RunStart)
		n := newNode(t, db, "a")
		first := n.claim(10)
		n.conclude(first[0], webhook.Delivered, 0)
		happen(t, db, "r2", 1, webhook.RunStart)
		inFlight := n.claim(10)
		var test string
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
			if err = tx.Note(ctx, "e1", webhook.WasCreated, "Created."); err != nil {
				return err
			}
			test, err = tx.InsertTest(ctx, webhook.NewEndpoint("e1", "shop"), webhook.Event{ID: "t1", ProjectID: "shop", Scope: run.GroupScope, Kind: webhook.RunFinish, Payload: []byte("{}"), CreatedAt: tx.Now})
			return err
		})
		remove := func() error {
			return db.Write(t.Context(), func(tx *store.Tx) error { return tx.DeleteEndpoint(t.Context(), "e1") })
		}
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if err := remove(); run.KindOf(err) != run.NotFound {
			t.Errorf("deleted twice: %v", err)
		}
		n.conclude(inFlight[0], webhook.Delivered, 0)
		if d, attempts := delivery(t, db, inFlight[0].ID); d.State != webhook.Waiting || len(attempts) != 0 {
			t.Errorf("an attempt of a deleted endpoint was recorded: %+v", d)
		}
		if got := lanes(t, db, "a"); !slices.Equal(got, []string{"e2"}) {
			t.Errorf("lanes %q", got)
		}
		deleted := func(limit int) (n int) {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				n, err = tx.DeleteDeliveries(ctx, "e1", time.Time{}, tx.Now.Add(time.Hour), true, limit)
				return err
			})
			return n
		}
		if a, b, c := deleted(2), deleted(2), deleted(2); a != 2 || b != 1 || c != 0 {
			t.Errorf("deleted %d, %d and %d deliveries", a, b, c)
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			for _, id := range []string{first[0].ID, inFlight[0].ID, test} {
				if _, err := tx.Delivery(ctx, id); run.KindOf(err) != run.NotFound {
					t.Errorf("delivery %s: %v", id, err)
				}
				if list, err := tx.Attempts(ctx, id); len(list) != 0 || err != nil {
					t.Errorf("delivery %s has %d attempts, %v", id, len(list), err)
				}
			}
			if _, err := tx.Event(ctx, "t1"); run.KindOf(err) != run.NotFound {
				t.Errorf("the event of a test that was deleted: %v", err)
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

// TestFailuresInARow: the next lane of an endpoint learns how many the last one
// had counted, and forgets them with a success, or when somebody enables it.
func TestFailuresInARow(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		n := newNode(t, db, "a")
		want := func(failures int) {
			t.Helper()
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				work, err := tx.Work(ctx, "e1", store.QueuePosition{}, 1, nil)
				if work.Failures != failures {
					t.Errorf("%d failures, want %d", work.Failures, failures)
				}
				return err
			})
		}
		attempt := func(sequence int64, state webhook.DeliveryState, failures int) {
			t.Helper()
			happen(t, db, "r1", sequence, webhook.RunFinish)
			o := outcome(n.claim(1)[0], db.Now(), webhook.Decision{State: state})
			o.Failures = failures
			n.record(o)
			want(failures)
		}
		want(0)
		attempt(1, webhook.Failed, 1)
		attempt(2, webhook.Failed, 3)
		attempt(3, webhook.Delivered, 0)
		attempt(4, webhook.Failed, 2)
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.ResetHealth(ctx, "e1") })
		want(0)
	})
}
