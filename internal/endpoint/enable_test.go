package endpoint_test

import (
	"context"
	"testing"
	"time"

	"runbell/internal/endpoint"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// fail records a failed attempt of the next delivery that is due, which ended
// some time ago.
func (w *world) fail(id string, ago time.Duration) (notices []store.Notice) {
	w.Helper()
	w.write(func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.TakeLane(ctx, id, "n", tx.Now.Add(time.Hour)); err != nil {
			return err
		}
		work, err := tx.Work(ctx, id, store.QueuePosition{}, 1, nil)
		if err != nil {
			return err
		}
		c := work.Claims[0]
		notices, err = tx.RecordAttempts(ctx, "n", []*store.Outcome{{Delivery: c.Delivery, EndedAt: tx.Now.Add(-ago), Decision: webhook.Decision{State: webhook.Waiting, Wait: time.Hour},
			Attempt: webhook.Attempt{Number: c.Attempts + 1, StartedAt: tx.Now.Add(-ago), Class: webhook.BadStatus, Status: 500}}})
		return err
	})
	return notices
}

// TestEnablingStartsAnew: the receiver has been fixed. Its failures before do not count, and a delivery that was to
// be retried has all retries ahead.
func TestEnablingStartsAnew(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		e := w.create()
		w.queue(e.ID, 1)
		if n := w.fail(e.ID, 6*24*time.Hour); len(n) != 1 || n[0].Kind != webhook.WasDisabled {
			t.Fatalf("after six days: %+v", n)
		}
		if _, resumed, err := w.endpoints.Change(w.Context(), e.ID, endpoint.Settings{Enabled: new(true)}, "by a test"); err != nil || resumed != 1 {
			t.Fatalf("resumed %d: %v", resumed, err)
		}
		w.write(func(ctx context.Context, tx *store.Tx) error {
			work, err := tx.Work(ctx, e.ID, store.QueuePosition{}, 1, nil)
			if err == nil && (len(work.Claims) != 1 || work.Claims[0].Earlier != 1) {
				t.Errorf("resumed: %+v", work.Claims)
			}
			return err
		})
		if n := w.fail(e.ID, 0); len(n) != 0 {
			t.Errorf("the first failure after that: %+v", n)
		}
	})
}

// TestEnabledWhenAllIsResumed: the engine may send as soon as an endpoint is
// enabled. A retry that it plans then is not to be taken for one that was held.
func TestEnabledWhenAllIsResumed(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		const many = 1100 // more than one transaction takes
		e := w.create()
		w.queue(e.ID, many)
		w.write(func(ctx context.Context, tx *store.Tx) error {
			if _, err := tx.TakeLane(ctx, e.ID, "n", tx.Now.Add(time.Hour)); err != nil {
				return err
			}
			work, err := tx.Work(ctx, e.ID, store.QueuePosition{}, many, nil)
			if err != nil {
				return err
			}
			var outcomes []*store.Outcome
			for _, c := range work.Claims {
				outcomes = append(outcomes, &store.Outcome{Delivery: c.Delivery, EndedAt: tx.Now, Decision: webhook.Decision{State: webhook.Waiting, Wait: time.Hour},
					Attempt: webhook.Attempt{Number: 1, StartedAt: tx.Now, Class: webhook.BadStatus, Status: 500}})
			}
			_, err = tx.RecordAttempts(ctx, "n", outcomes)
			return err
		})
		if _, _, err := w.endpoints.Change(w.Context(), e.ID, endpoint.Settings{Enabled: new(false)}, "by a test"); err != nil {
			t.Fatal(err)
		}
		enabled := 0
		w.onChange = func() {
			w.write(func(ctx context.Context, tx *store.Tx) error {
				work, err := tx.Work(ctx, e.ID, store.QueuePosition{}, many, nil)
				if err != nil || !work.Endpoint.Enabled {
					return err
				}
				enabled++
				if len(work.Claims) != many || !work.Next.IsZero() {
					t.Errorf("enabled when %d of %d are due, the next at %s", len(work.Claims), many, work.Next)
				}
				return nil
			})
		}
		if _, _, err := w.endpoints.Change(w.Context(), e.ID, endpoint.Settings{Enabled: new(true), URL: new("http://refused.test/")}, "by a test"); err == nil {
			t.Error("a URL that may not be called was taken")
		}
		if _, resumed, err := w.endpoints.Change(w.Context(), e.ID, endpoint.Settings{Enabled: new(true)}, "by a test"); err != nil || resumed != many {
			t.Errorf("resumed %d: %v", resumed, err)
		}
		if enabled != 1 {
			t.Errorf("told %d times that it is enabled", enabled)
		}
	})
}
