package store_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"runbell/internal/dispatch"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

func insertEndpoint(t testing.TB, db *store.DB, id string, changes ...func(*webhook.Endpoint)) webhook.Endpoint {
	t.Helper()
	return testkit.Endpoint(t, db, "shop", append([]func(*webhook.Endpoint){func(e *webhook.Endpoint) { e.ID, e.URL = id, "https://example.com/"+id }}, changes...)...)
}

// happen stores the event with the given number of a run, in a group of its own
// where it is a start, and says when that was and which endpoints it goes to.
func happen(t testing.TB, db *store.DB, runID string, sequence int64, kind webhook.Kind) (at time.Time, endpoints []string) {
	t.Helper()
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		id := fmt.Sprintf("%s.%d", runID, sequence)
		at = tx.Now
		endpoints, _, err = lifecycle.FanOut(ctx, tx, webhook.Event{ID: id, ProjectID: "shop", RunID: runID, Group: id, Scope: run.GroupScope, Kind: kind,
			Sequence: sequence, Payload: []byte(`{"of":"` + id + `"}`), CreatedAt: tx.Now}, webhook.Subject{}, &run.Group{Name: id})
		return err
	})
	return at, endpoints
}

// node plays a process: it takes every lane that it can get, and knows what it
// has in work.
type node struct {
	testing.TB
	db    *store.DB
	name  string
	known map[string]bool
}

func newNode(t testing.TB, db *store.DB, name string) *node {
	return &node{t, db, name, map[string]bool{}}
}

// claim is what the node may send now, up to a limit for each endpoint, in the
// order of endpoints and of events.
func (n *node) claim(limit int) (list []store.Claim) {
	n.Helper()
	testkit.Write(n, n.db, func(ctx context.Context, tx *store.Tx) error {
		list = nil
		lanes, err := tx.Lanes(ctx, n.name)
		for _, l := range lanes {
			ok, err := tx.TakeLane(ctx, l.EndpointID, n.name, tx.Now.Add(time.Hour))
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			w, err := tx.Work(ctx, l.EndpointID, store.QueuePosition{}, limit, n.known)
			if err != nil {
				return err
			}
			list = append(list, w.Claims...)
		}
		return err
	})
	for _, c := range list {
		n.known[c.ID] = true
	}
	slices.SortStableFunc(list, func(a, b store.Claim) int { return cmp.Compare(a.EndpointID, b.EndpointID) })
	return list
}

// record records the outcomes of attempts.
func (n *node) record(outcomes ...*store.Outcome) (notices []store.Notice) {
	n.Helper()
	testkit.Write(n, n.db, func(ctx context.Context, tx *store.Tx) (err error) {
		notices, err = tx.RecordAttempts(ctx, n.name, outcomes)
		return err
	})
	for _, o := range outcomes {
		delete(n.known, o.Delivery.ID)
	}
	return notices
}

// conclude records one: delivered, failed, or a retry after a wait.
func (n *node) conclude(c store.Claim, state webhook.DeliveryState, wait time.Duration) []store.Notice {
	n.Helper()
	return n.record(outcome(c, n.db.Now(), webhook.Decision{State: state, Wait: wait, Quick: state == webhook.Waiting && wait <= dispatch.QuickRetry}))
}

// outcome is an attempt that began at an instant and took no time.
func outcome(c store.Claim, at time.Time, d webhook.Decision) *store.Outcome {
	a := webhook.Attempt{DeliveryID: c.ID, Number: c.Attempts + 1, StartedAt: at, Class: webhook.OK, Status: 200}
	if d.State != webhook.Delivered {
		a.Class, a.Status = webhook.BadStatus, 500
	}
	return &store.Outcome{Delivery: c.Delivery, Attempt: a, EndedAt: a.StartedAt, Decision: d}
}

// names says which deliveries these are: the endpoint and the event.
func names(list []store.Claim) string {
	var out []string
	for _, c := range list {
		out = append(out, c.EndpointID+":"+c.EventID)
	}
	return strings.Join(out, " ")
}

// sorted says which deliveries these are, of one instant each, where chance
// decides about their order.
func sorted(list []store.Claim) string {
	out := strings.Fields(names(list))
	slices.Sort(out)
	return strings.Join(out, " ")
}

// change changes an endpoint.
func change(t testing.TB, db *store.DB, id string, f func(*webhook.Endpoint)) {
	t.Helper()
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		e, err := tx.LockEndpoint(ctx, id)
		if err != nil {
			return err
		}
		f(&e)
		return tx.UpdateEndpoint(ctx, e)
	})
}

func disable(e *webhook.Endpoint) { e.Enabled = false }
func enable(e *webhook.Endpoint)  { e.Enabled = true }

func delivery(t testing.TB, db *store.DB, id string) (d webhook.Delivery, attempts []webhook.Attempt) {
	t.Helper()
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
		if d, err = tx.Delivery(ctx, id); err == nil {
			attempts, err = tx.Attempts(ctx, id)
		}
		return err
	})
	return d, attempts
}

func shop(t testing.TB, db *store.DB, runs ...string) {
	t.Helper()
	testkit.Project(t, db, "shop")
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
		second, to := happen(t, db, "r1", 2, webhook.RunFinish)
		slices.Sort(to)
		if !slices.Equal(to, []string{"e1", "e2"}) {
			t.Fatalf("an event that both want goes to %q", to)
		}
		happen(t, db, "r2", 1, webhook.RunTimeout)
		n := newNode(t, db, "n")
		for _, c := range n.claim(10) {
			switch names([]store.Claim{c}) {
			case "e1:r1.1":
				n.conclude(c, webhook.Delivered, 0)
			case "e1:r2.1":
				n.conclude(c, webhook.Failed, 0)
			}
		}
		change(t, db, "e2", disable)
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
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
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
				if n, errCount := tx.CountDeliveries(ctx, c.filter); n != int64(len(list)) || errCount != nil {
					t.Errorf("%s: %d listed, %d counted, %v", name, len(list), n, errCount)
				}
				for _, d := range list {
					if d.State == webhook.Held && !d.DueAt.IsZero() {
						t.Errorf("%s: a held delivery is due at %v", name, d.DueAt)
					}
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
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
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

// What a receiver answers may be anything; it comes back byte for byte.
func TestTheLogKeepsAnyAnswer(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		insertEndpoint(t, db, "e1")
		happen(t, db, "r1", 1, webhook.RunStart)
		n := newNode(t, db, "a")
		at := db.Now().Add(-time.Minute)
		var want []webhook.Attempt
		for _, body := range []string{"", "ok", "grün 😀", "nul \x00", "\xff\xfe", "\x1bbase64:", "\x1bbase64:***", strings.Repeat("x", 8<<10)} {
			c := n.claim(1)[0]
			a := webhook.Attempt{DeliveryID: c.ID, Number: len(want) + 1, StartedAt: at, Duration: 1500 * time.Microsecond, Class: webhook.BadStatus, Status: 500,
				RequestHeaders:  webhook.Headers{{Name: "X-B", Value: "1"}, {Name: "Authorization", Value: "hunter2", Secret: true}, {Name: "X-A", Value: `"\`}},
				ResponseHeaders: webhook.Headers{{Name: "Y", Value: "nul \x00"}, {Name: "Set-Cookie", Value: "a"}, {Name: "Set-Cookie", Value: "b"}},
				ResponseBody:    []byte(body), Error: "no: \x00 \xff"}
			n.record(&store.Outcome{Delivery: c.Delivery, Attempt: a, EndedAt: a.StartedAt, Decision: webhook.Decision{State: webhook.Waiting}})
			a.Error = "no: \uFFFD \uFFFD" // text for people
			a.RequestHeaders[1] = webhook.Header{Name: "Authorization", Value: webhook.Masked}
			want = append(want, a)
		}
		_, got := delivery(t, db, want[0].DeliveryID)
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestOnlyWhoWantsAnEventGetsIt(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		shop(t, db, "r1")
		testkit.Project(t, db, "other")
		insertEndpoint(t, db, "yes")
		insertEndpoint(t, db, "other event", func(e *webhook.Endpoint) { e.Events = []webhook.Kind{webhook.RunFinish} })
		insertEndpoint(t, db, "no events", func(e *webhook.Endpoint) { e.Events = nil })
		insertEndpoint(t, db, "disabled", func(e *webhook.Endpoint) { e.Enabled = false })
		insertEndpoint(t, db, "other scope", func(e *webhook.Endpoint) { e.Scope = run.RunScope })
		insertEndpoint(t, db, "other project", func(e *webhook.Endpoint) { e.ProjectID = "other" })
		if _, to := happen(t, db, "r1", 1, webhook.RunStart); !slices.Equal(to, []string{"yes"}) {
			t.Errorf("it goes to %q", to)
		}
		if got := names(newNode(t, db, "a").claim(10)); got != "yes:r1.1" {
			t.Errorf("claimed %q", got)
		}
	})
}

// A person who reads the database, or a backup of it, sees no secret.
func TestSecretsOfEndpointsAreSealed(t *testing.T) {
	path := t.TempDir() + "/runbell.db"
	db, err := store.Open(t.Context(), "sqlite:"+path, testkit.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Project(t, db, "shop")
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
