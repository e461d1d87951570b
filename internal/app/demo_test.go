package app

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
	"runbell/internal/server"
	"runbell/internal/store"
)

// TestHistory: the month has runs of every outcome, flaky tests and several
// groups, and is the same each time.
func TestHistory(t *testing.T) {
	now := time.Now()
	months := make([][]string, 2)
	seen := map[string]int{}
	for n := range months {
		cfg, err := demoConfig(t.TempDir(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeHistory(t.Context(), cfg, now); err != nil {
			t.Fatal(err)
		}
		db, err := server.OpenDatabase(t.Context(), cfg.Database)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Read(t.Context(), func(tx *store.Tx) error {
			for _, p := range pastProjects {
				runs, _, err := tx.Runs(t.Context(), p.id, store.RunFilter{}, store.Page{Limit: 500})
				if err != nil {
					return err
				}
				for _, r := range runs {
					c, err := tx.RunCounts(t.Context(), r.ID)
					if err != nil {
						return err
					}
					months[n] = append(months[n], fmt.Sprint(r.CIBuildID, " ", r.State, " ", c))
					seen[string(r.State)]++
					seen["flaky"] += c.Flaky
					seen["failed"] += c.Failures
					seen["files"] += r.Artifacts
					if r.CreatedAt.After(now) || r.CreatedAt.Before(now.AddDate(0, 0, -historyDays-1)) || r.State == run.Running {
						t.Errorf("run %s of %s is %s", r.CIBuildID, r.CreatedAt, r.State)
					}
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(months[n])
	}
	if diff := cmp.Diff(strings.Join(months[0], "\n"), strings.Join(months[1], "\n")); diff != "" {
		t.Error(diff)
	}
	for _, what := range []string{string(run.Finished), string(run.Canceled), string(run.TimedOut), "flaky", "failed", "files"} {
		if seen[what] < 2 {
			t.Errorf("%d %s in %v", seen[what], what, seen)
		}
	}
}
