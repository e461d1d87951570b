package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// TestRecentRuns is about what lists of runs and projects read, on both databases.
func TestRecentRuns(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			for n := range 6 {
				r := run.Run{ID: fmt.Sprint("r", n), ProjectID: "shop", CIBuildID: fmt.Sprint("b", n), CreatedAt: at.Add(time.Duration(n) * time.Minute),
					Commit: run.Commit{Branch: fmt.Sprint("branch-", n%2), AuthorName: fmt.Sprint("author-", n%3)}, Tags: []string{fmt.Sprint("t", n%2), "all"}}
				if _, err := tx.InsertRun(ctx, r); err != nil {
					return err
				}
			}
			return nil
		})
		var heard time.Time
		for _, name := range []string{"chrome", "firefox"} {
			g, _ := insertGroup(t, db, "r4", name, 2)
			heard = g.HeardAt
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				g.State, g.Counts = run.Running, run.Counts{Passes: 2, Failures: 1, Flaky: 1, Retries: 3}
				return tx.UpdateGroup(ctx, g)
			})
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			recent, err := tx.RecentRuns(ctx, "shop", "branch-0", 2)
			if err != nil {
				return err
			}
			of := func(n int) run.Run {
				return run.Run{ID: fmt.Sprint("r", n), CIBuildID: fmt.Sprint("b", n), State: run.Running, CreatedAt: at.Add(time.Duration(n) * time.Minute),
					Commit: run.Commit{Branch: "branch-0", AuthorName: fmt.Sprint("author-", n%3)}}
			}
			want := []store.RecentRun{
				{Run: of(4), LastReport: heard, Counts: run.Counts{Passes: 4, Failures: 2, Flaky: 2, Retries: 6}},
				{Run: of(2), LastReport: at.Add(2 * time.Minute)},
			}
			if diff := cmp.Diff(want, recent); diff != "" {
				t.Errorf("recent runs of a branch (-want +got):\n%s", diff)
			}
			if recent, err = tx.RecentRuns(ctx, "shop", "", 10); err != nil || len(recent) != 6 {
				t.Errorf("recent runs: %d, %v", len(recent), err)
			}
			choices, err := tx.RunChoices(ctx, "shop")
			if diff := cmp.Diff(store.Choices{Branches: []string{"branch-1", "branch-0"}, Authors: []string{"author-2", "author-1", "author-0"}, Tags: []string{"t1", "all", "t0"}}, choices); diff != "" || err != nil {
				t.Errorf("choices, %v (-want +got):\n%s", err, diff)
			}
			groups, err := tx.GroupsOf(ctx, []string{"r4", "r2"})
			if err != nil || len(groups) != 1 || len(groups["r4"]) != 2 || groups["r4"][0].Name != "chrome" {
				t.Errorf("groups: %v, %v", groups, err)
			}
			if _, more, err := tx.SearchLimit(ctx, "shop", store.RunFilter{Branches: []string{"branch-0"}, Until: at.Add(time.Hour)}, store.Page{After: &store.Position{At: at.Add(5 * time.Minute), ID: "r5"}}, 10); more || err != nil {
				t.Errorf("a search of few runs has a limit: %v", err)
			}
			list, _, err := tx.Runs(ctx, "shop", store.RunFilter{Authors: []string{"author-0"}, Limit: &store.Position{At: at.Add(time.Minute), ID: ""}}, store.Page{Limit: 10})
			if err != nil || len(list) != 1 || list[0].ID != "r3" {
				t.Errorf("limited: %v, %v", list, err)
			}
			list, _, err = tx.Runs(ctx, "shop", store.RunFilter{Authors: []string{"author-0"}, Limit: &store.Position{At: at.Add(2 * time.Minute), ID: "z"}}, store.Page{Limit: 10, Before: &store.Position{}})
			if err != nil || len(list) != 1 || list[0].ID != "r0" {
				t.Errorf("limited on the way to newer ones: %v, %v", list, err)
			}
			return nil
		})
	})
}
