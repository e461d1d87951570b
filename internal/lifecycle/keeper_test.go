package lifecycle_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// A timer does not notice that the clock was set forward, or that the machine was
// suspended. For the keeper this is the same as a deadline that comes nearer while
// it sleeps.
func TestKeeperNoticesThatTheClockMoved(t *testing.T) {
	dir := tmpDir(t)
	synctest.Test(t, func(t *testing.T) {
		db := testkit.Open(t, testkit.MigratedFile(t, dir))
		testkit.Project(t, db, "shop", func(p *run.Project) { p.InactivityTimeout = 2 * time.Hour })
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		ctx, cancel := context.WithCancel(t.Context())
		go runs.Keep(ctx, slog.New(slog.DiscardHandler))
		joined, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: "b1", Specs: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		err = db.Write(ctx, func(tx *store.Tx) error {
			groups, err := tx.Groups(ctx, joined.RunID)
			if err != nil {
				return err
			}
			groups[0].HeardAt = groups[0].HeardAt.Add(-3 * time.Hour)
			if err := tx.HearGroup(ctx, groups[0]); err != nil {
				return err
			}
			return tx.LookAgain(ctx, groups[0], groups[0].Deadline())
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		err = db.Read(ctx, func(tx *store.Tx) error {
			r, err := tx.Run(ctx, joined.RunID)
			if err == nil && r.State != run.TimedOut {
				t.Errorf("after 6 seconds the run is %s", r.State)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
	})
}
