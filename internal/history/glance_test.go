package history

import (
	"context"
	"fmt"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// TestAGlanceIsBounded: it reads whole runs, the newest first, and says where it stopped.
func TestAGlanceIsBounded(t *testing.T) {
	ctx := context.Background()
	db := testkit.SQLite(t)
	testkit.Project(t, db, "p")
	at := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	e := Execution{Summary: Summary{Spec: 1}, Results: make([]Result, maxGlance/8)}
	for n := range e.Results {
		e.Results[n] = Result{Test: n + 1, Attempts: 1, Duration: 1}
	}
	packed := pack(nil, e)
	var ids []string
	for n := range 4 {
		id := fmt.Sprint("r", n)
		ids = append(ids, id)
		if err := db.Write(ctx, func(tx *store.Tx) error {
			if _, err := tx.InsertRun(ctx, run.Run{ID: id, ProjectID: "p", CIBuildID: id, State: run.Running, RunningGroups: 1, CreatedAt: at.AddDate(0, 0, n)}); err != nil {
				return err
			}
			for part := range 2 {
				if err := setResults(ctx, tx, store.HistoryPart{RunID: id, Group: "g", Part: part}, packed); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for since, want := range map[int]int{3: 1, 0: (maxGlance + 2*len(packed) - 1) / (2 * len(packed))} {
		seen := map[string]int{}
		var stopped time.Time
		err := db.Read(ctx, func(tx *store.Tx) (err error) {
			stopped, err = glance(ctx, tx, "p", store.HistoryFilter{Since: at.AddDate(0, 0, since)}, everything,
				func(r store.HistoryRun, _ store.HistoryPart, _ *Execution) { seen[r.ID]++ })
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		whole := want == 4-since
		if len(seen) != want || seen[ids[3]] != 2 || stopped.IsZero() != whole || !whole && !stopped.Equal(at.AddDate(0, 0, 4-want)) {
			t.Errorf("a glance goes through %d of %d runs until %s, want %d", len(seen), 4-since, stopped, want)
		}
	}
}
