package store_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// What is queued again while its removal looks for what is old, stays.
func TestWhatIsQueuedAgainIsNotRemoved(t *testing.T) {
	url := testkit.Migrated(t)
	db := testkit.Open(t, url)
	shop(t, db, "r1")
	insertEndpoint(t, db, "e1")
	happen(t, db, "r1", 1, webhook.RunStart)
	n := newNode(t, db, "n")
	claim := n.claim(10)[0]
	n.conclude(claim, webhook.Failed, 0)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	removed := make(chan int)
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.RequeueDelivery(ctx, claim.ID); err != nil {
			return err
		}
		go func() {
			var gone int
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) (err error) {
				gone, err = tx.DeleteDeliveries(ctx, "e1", time.Time{}, tx.Now.Add(time.Hour), false, 10)
				return err
			})
			removed <- gone
		}()
		for waits := 0; waits == 0; {
			if err := conn.QueryRow(ctx, `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waits); err != nil {
				return err
			}
		}
		return nil
	})
	if gone := <-removed; gone != 0 {
		t.Errorf("%d removed", gone)
	}
	if d, attempts := delivery(t, db, claim.ID); d.State != webhook.Waiting || len(attempts) != 1 {
		t.Errorf("%+v with %d attempts", d, len(attempts))
	}
}

func TestWordsCrossProcesses(t *testing.T) {
	url := testkit.Migrated(t)
	here, there := testkit.Open(t, url), testkit.Open(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	words, ended := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(ended)
		there.Listen(ctx, func(word string) { words <- word })
	}()
	hear := func(want string) {
		t.Helper()
		select {
		case got := <-words:
			if got != want {
				t.Fatalf("heard %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("heard nothing, want %q", want)
		}
	}
	tell := func(word string, result error) {
		t.Helper()
		err := here.Write(t.Context(), func(tx *store.Tx) error { return errors.Join(tx.Tell(t.Context(), word), result) })
		if !errors.Is(err, result) {
			t.Fatal(err)
		}
	}
	hear("") // something may have been missed
	tell("e1", nil)
	hear("e1")
	tell("rolled back", errors.New("no"))
	tell("e2", nil)
	hear("e2")
	// A connection that breaks is opened again, and the log says so.
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	err = conn.QueryRow(t.Context(), `SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&n)
	if err = errors.Join(err, conn.Close(t.Context())); err != nil || n != 1 {
		t.Fatalf("%d connections ended, %v", n, err)
	}
	hear("")
	tell("e3", nil)
	hear("e3")
	cancel()
	<-ended
}

// Transactions that lock several lanes do so in one order. Were it another, a process that
// keeps its leases and records at the same moment would wait for itself.
func TestLanesAreLockedInOneOrder(t *testing.T) {
	url := testkit.Migrated(t)
	db := testkit.Open(t, url)
	testkit.Project(t, db, "p")
	for _, id := range []string{"a", "b"} {
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			e := webhook.NewEndpoint(id, "p")
			e.URL, e.MaxInFlight, e.Secret, e.CreatedAt, e.UpdatedAt = "https://example.com/", 1, webhook.NewSecret(), tx.Now, tx.Now
			return tx.InsertEndpoint(ctx, e)
		})
	}
	// The rows lie as they were written last: b before a.
	for _, id := range []string{"b", "a"} {
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.TakeLane(ctx, id, "node", tx.Now.Add(time.Minute))
			return err
		})
	}
	watch, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = watch.Close(context.Background()) })
	kept := make(chan error, 1)
	var attempts atomic.Int64
	err = db.Write(t.Context(), func(tx *store.Tx) error {
		first := attempts.Add(1) == 1
		if _, err := tx.TakeLane(t.Context(), "a", "node", tx.Now.Add(time.Minute)); err != nil {
			return err
		}
		if first {
			go func() {
				kept <- db.Write(t.Context(), func(tx *store.Tx) error {
					attempts.Add(1)
					return tx.KeepLanes(t.Context(), "node", tx.Now.Add(time.Minute))
				})
			}()
		}
		for waits := !first; !waits; {
			if err := watch.QueryRow(t.Context(), `SELECT COUNT(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waits); err != nil {
				return err
			}
		}
		_, err := tx.TakeLane(t.Context(), "b", "node", tx.Now.Add(time.Minute))
		return err
	})
	if err := errors.Join(err, <-kept); err != nil {
		t.Fatal(err)
	}
	if n := attempts.Load(); n != 2 {
		t.Errorf("the two waited for each other: they took %d attempts", n)
	}
}
