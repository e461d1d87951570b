package lifecycle_test

import (
	"context"
	"testing"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// TestImportedHistory: a history is written with its own times, and no webhook gets an event of it.
func TestImportedHistory(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop", func(p *run.Project) { p.CompletionDelay = 0 })
		kicked := 0
		runs := lifecycle.New(db, "http://runbell.test", func(...string) { kicked++ })
		began := time.Now().UTC().Add(-40 * 24 * time.Hour).Truncate(time.Second)
		join := func(at time.Time, build string) lifecycle.Joined {
			t.Helper()
			j, err := runs.At(at).Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: build, Fingerprint: build, Specs: []string{"a.cy.ts"}, SpecHash: "h"})
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		finished, silent := join(began, "finished"), join(began.Add(time.Hour), "silent")
		claimed, err := runs.At(began.Add(time.Minute)).Claim(ctx, lifecycle.Claim{RunID: finished.RunID, MachineID: finished.MachineID, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		outcome := run.Outcome{Results: []run.Result{{ID: "r1", State: run.Passed}}, Duration: time.Minute}
		if _, err := runs.At(began.Add(2*time.Minute)).Complete(ctx, claimed.Instances[0].ID, &run.Announcement{Tests: []run.Announced{{ID: "r1", Title: []string{"t"}}}}, outcome); err != nil {
			t.Fatal(err)
		}
		// Not silent for long enough yet at that time, and then it is.
		for _, at := range []time.Duration{time.Hour + run.DefaultInactivity - time.Minute, time.Hour + run.DefaultInactivity} {
			if _, err := runs.At(began.Add(at)).Sweep(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Read(ctx, func(tx *store.Tx) error {
			for _, want := range []struct {
				id         string
				state      run.State
				began, end time.Time
			}{{finished.RunID, run.Finished, began, began.Add(2 * time.Minute)},
				{silent.RunID, run.TimedOut, began.Add(time.Hour), began.Add(time.Hour + run.DefaultInactivity)}} {
				r, err := tx.Run(ctx, want.id)
				if err != nil {
					return err
				}
				if r.State != want.state || !r.CreatedAt.Equal(want.began) || !r.FinishedAt.Equal(want.end) {
					t.Errorf("run %s is %s, from %s to %s; want %s, %s, %s", r.CIBuildID, r.State, r.CreatedAt, r.FinishedAt, want.state, want.began, want.end)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if kicked != 0 {
			t.Errorf("the engine was kicked %d times", kicked)
		}

		// No webhook gets events of the past.
		testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.Scope = run.RunScope })
		told := join(began, "told")
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			deliveries, _, err := tx.Deliveries(ctx, store.DeliveryFilter{RunID: told.RunID}, store.Page{Limit: 10})
			if len(deliveries) != 0 {
				t.Errorf("%d deliveries are queued about the past", len(deliveries))
			}
			return err
		})
	})
}
