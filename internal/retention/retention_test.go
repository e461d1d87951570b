package retention_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

const day = 24 * time.Hour

// world is a database with a project that keeps deliveries for a week.
type world struct {
	*testing.T
	db      *store.DB
	log     bytes.Buffer
	metrics *prometheus.Registry
	sweeper *retention.Sweeper
	files   *artifact.Disk
	dir     string // of the files
}

func newWorld(t *testing.T, db *store.DB) *world {
	w := &world{T: t, db: db, metrics: prometheus.NewRegistry(), dir: t.TempDir()}
	w.files = artifact.NewDisk(w.dir)
	t.Cleanup(func() { _ = w.files.Close() })
	if err := w.files.Check(t.Context()); err != nil { // makes the directories
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&w.log, nil))
	artifacts := artifact.New(artifact.Options{DB: db, Store: w.files, Secret: make([]byte, 32), Log: log, Metrics: prometheus.NewRegistry()})
	w.sweeper = retention.New(db, artifacts, log, w.metrics)
	testkit.Project(t, db, "shop", func(p *run.Project) { p.Keep.Deliveries = 7 })
	return w
}

// before runs a transaction at a time in the past.
func (w *world) before(ago time.Duration, f func(context.Context, *store.Tx) error) {
	w.Helper()
	testkit.Write(w, w.db, func(ctx context.Context, tx *store.Tx) error {
		tx.Now = tx.Now.Add(-ago)
		return f(ctx, tx)
	})
}

// queue queues n deliveries some time ago.
func (w *world) queue(endpointID string, n int, ago time.Duration) {
	w.Helper()
	w.before(ago, func(ctx context.Context, tx *store.Tx) error {
		for range n {
			e := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: "shop", Scope: run.GroupScope, Kind: webhook.RunStart, Payload: []byte("{}"), CreatedAt: tx.Now}
			if _, err := tx.InsertTest(ctx, webhook.NewEndpoint(endpointID, "shop"), e); err != nil {
				return err
			}
		}
		return nil
	})
}

// deliver records a success for everything that was due some time ago.
func (w *world) deliver(endpointID string, ago time.Duration) {
	w.Helper()
	w.before(ago, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.TakeLane(ctx, endpointID, "n", tx.Now.Add(time.Hour)); err != nil {
			return err
		}
		work, err := tx.Work(ctx, endpointID, store.QueuePosition{}, 10_000, nil)
		if err != nil {
			return err
		}
		var outcomes []*store.Outcome
		for _, c := range work.Claims {
			outcomes = append(outcomes, &store.Outcome{Delivery: c.Delivery, EndedAt: tx.Now, Attempt: webhook.Attempt{Number: 1, StartedAt: tx.Now, Class: webhook.OK, Status: 200},
				Decision: webhook.Decision{State: webhook.Delivered}})
		}
		_, err = tx.RecordAttempts(ctx, "n", outcomes)
		return err
	})
}

func (w *world) deliveries(endpointID string) (n int64) {
	w.Helper()
	testkit.Read(w, w.db, func(ctx context.Context, tx *store.Tx) (err error) {
		n, err = tx.CountDeliveries(ctx, store.DeliveryFilter{EndpointID: endpointID})
		return err
	})
	return n
}

// removed checks what the metric says.
func (w *world) removed(deliveries, sessions, invitations float64) {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "runbell_retention_removed_total" {
				got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	for _, other := range []string{"runs", "run details", "artifacts", "console outputs", "idempotency keys", "files",
		"names in the history"} {
		if got[other] != 0 {
			w.Errorf("removed %v %s", got[other], other)
		}
		delete(got, other)
	}
	if want := map[string]float64{"deliveries": deliveries, "sessions": sessions, "invitations": invitations}; !maps.Equal(got, want) {
		w.Errorf("removed %v, want %v", got, want)
	}
}

// onEach runs a test on each database. The sweeper pauses after each transaction: on SQLite that takes no time.
func onEach(t *testing.T, f func(t *testing.T, db *store.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, testkit.SQLite(t)) })
	})
	t.Run("postgres", func(t *testing.T) { f(t, testkit.Open(t, testkit.Migrated(t))) })
}

// Deliveries that ended are removed after the retention of their project, in any number. Pending ones stay.
func TestDeliveries(t *testing.T) {
	const many = 1203 // more than two transactions remove
	onEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		testkit.Project(t, db, "museum", func(p *run.Project) { p.Keep.Deliveries = 30 })
		old := testkit.Endpoint(t, db, "shop").ID
		kept := testkit.Endpoint(t, db, "museum").ID
		w.queue(old, many, 8*day)
		w.queue(kept, 2, 8*day)
		for _, id := range []string{old, kept} {
			w.deliver(id, 8*day)
		}
		w.queue(old, 3, 8*day) // and nobody could be reached
		w.queue(old, 1, day)
		w.sweep()
		if a, b := w.deliveries(old), w.deliveries(kept); a != 4 || b != 2 {
			t.Errorf("%d and %d deliveries are left, want 4 and 2", a, b)
		}
		w.removed(many, 0, 0)
		w.sweep()
		w.removed(many, 0, 0)
		if log := w.log.String(); strings.Count(log, "\n") != 2 || !strings.Contains(log, `msg="removed old deliveries" count=1203`) ||
			!strings.Contains(log, `msg="removed old data of a project" project=shop runs=0 artifacts=0 artifact_bytes=0 console_outputs=0 deliveries=1203`) {
			t.Errorf("the log says\n%s", log)
		}
	})
}

// If the process is killed while it deletes a webhook, deliveries of it may be left. The next sweep removes them,
// whatever their state.
func TestDeliveriesOfDeletedWebhooks(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		gone := []string{testkit.Endpoint(t, db, "shop").ID, testkit.Endpoint(t, db, "shop").ID}
		kept := testkit.Endpoint(t, db, "shop").ID
		for _, id := range append(gone, kept) {
			w.queue(id, 501, 0)
		}
		w.before(0, func(ctx context.Context, tx *store.Tx) error {
			for _, id := range gone {
				if err := tx.DeleteEndpoint(ctx, id); err != nil {
					return err
				}
			}
			return nil
		})
		w.sweep()
		if a, b, c := w.deliveries(gone[0]), w.deliveries(gone[1]), w.deliveries(kept); a != 0 || b != 0 || c != 501 {
			t.Errorf("%d, %d and %d are left", a, b, c)
		}
		w.removed(1002, 0, 0)
	})
}

// A request with an Idempotency-Key is remembered for a day.
func TestIdempotencyKeys(t *testing.T) {
	onEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		for key, age := range map[string]time.Duration{"old": day + time.Minute, "older": 2 * day, "new": day - time.Minute} {
			w.before(age, func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.BeginOnce(ctx, store.Once{KeyID: "k", Key: key, Request: "r"})
				return err
			})
		}
		w.sweep()
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			for key, known := range map[string]bool{"old": false, "older": false, "new": true} {
				if before, err := tx.BeginOnce(ctx, store.Once{KeyID: "k", Key: key, Request: "r"}); err != nil || (before.Key != "") != known {
					t.Errorf("%s: %+v, %v", key, before, err)
				}
			}
			return nil
		})
	})
}

func TestSessionsAndInvitations(t *testing.T) {
	const many = 501
	onEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.before(0, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.InsertAccount(ctx, store.Account{ID: "ada", Email: "ada@example.test", Name: "Ada", Role: store.Admin, CreatedAt: tx.Now})
			return err
		})
		session := func(name string, used time.Duration) {
			w.before(used, func(ctx context.Context, tx *store.Tx) error {
				return tx.InsertSession(ctx, store.Session{Hash: name, AccountID: "ada", CreatedAt: tx.Now.Add(-day), SeenAt: tx.Now})
			})
		}
		invitation := func(name string, expired time.Duration) {
			w.before(expired, func(ctx context.Context, tx *store.Tx) error {
				return tx.InsertInvitation(ctx, store.Invitation{ID: name, Hash: name, Email: name + "@example.test", Role: store.Viewer, CreatedBy: "Ada", CreatedAt: tx.Now.Add(-day), ExpiresAt: tx.Now})
			})
		}
		for n := range many {
			session(fmt.Sprint("old-", n), auth.SessionLife+time.Minute)
		}
		session("used", auth.SessionLife-time.Minute)
		for n := range 3 {
			invitation(fmt.Sprint("old-", n), time.Minute)
		}
		invitation("open", -time.Minute)
		w.sweep()
		w.removed(0, many, 3)
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			if n, err := tx.CountSessions(ctx, "ada"); n != 1 || err != nil {
				t.Errorf("%d sessions are left, %v", n, err)
			}
			if list, err := tx.Invitations(ctx); len(list) != 1 || list[0].ID != "open" || err != nil {
				t.Errorf("invitations %+v, %v", list, err)
			}
			return nil
		})
	})
}

// Several processes may sweep at once: each row is removed, and counted, by one.
func TestSweepersAtOnce(t *testing.T) {
	const many = 2005
	onEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		id := testkit.Endpoint(t, db, "shop").ID
		w.queue(id, many, 8*day)
		w.deliver(id, 8*day)
		var done sync.WaitGroup
		for range 3 {
			done.Go(func() {
				if _, _, err := w.sweeper.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		if n := w.deliveries(id); n != 0 {
			t.Errorf("%d are left", n)
		}
		w.removed(many, 0, 0)
	})
}

// On virtual time: the sweeper sweeps at its start and every hour, and ends with its context.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testkit.SQLite(t))
		id := testkit.Endpoint(t, w.db, "shop").ID
		w.queue(id, 1, 8*day)
		w.deliver(id, 8*day)
		w.queue(id, 2, 0)
		w.deliver(id, 0)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.sweeper.Run(ctx)
		}()
		left := func(when string, want int64) {
			t.Helper()
			synctest.Wait()
			if got := w.deliveries(id); got != want {
				t.Errorf("%s %d are left, want %d", when, got, want)
			}
		}
		left("at first", 2)
		time.Sleep(7*day - time.Minute)
		left("before the time", 2)
		time.Sleep(time.Hour + time.Minute)
		left("after it", 0)
		cancel()
		<-ended
	})
}

// If the database fails, each kind of data logs an error, and the sweeper continues.
func TestErrorsAreLogged(t *testing.T) {
	db, err := store.Open(t.Context(), testkit.MigratedFile(t, t.TempDir()), testkit.Sealer(t))
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	sweeper := retention.New(db, nil, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	if _, _, err := sweeper.Sweep(t.Context()); err == nil {
		t.Error("a sweep of a database that does not answer is no error")
	}
	for _, what := range []string{"runs", "run details", "artifacts", "console outputs", "deliveries", "sessions", "invitations"} {
		if !strings.Contains(log.String(), "cannot remove old "+what+", trying again later") {
			t.Errorf("the log does not tell of %s:\n%s", what, log.String())
		}
	}
}
