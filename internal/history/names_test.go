package history_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"runbell/internal/database"
	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// sweepNames sweeps the names of the project, a day after the last time.
func (w *world) sweepNames(t testing.TB) (deleted int) {
	w.swept++
	now := day.AddDate(1, 0, w.swept)
	sweep := history.SweepNames(w.project)
	for sweep.Looking() {
		testkit.Read(t, w.db, func(ctx context.Context, tx *store.Tx) error {
			tx.Now = now
			return sweep.Look(ctx, tx)
		})
	}
	for !sweep.Done() {
		changed := 0
		testkit.Write(t, w.db, func(ctx context.Context, tx *store.Tx) error {
			tx.Now = now
			n, gone, err := sweep.Change(ctx, tx, 2)
			changed, deleted = n, deleted+gone
			return err
		})
		sweep.Changed(changed)
	}
	return deleted
}

// names are the keys and texts of all names of the project, but for the keys of tests.
func (w *world) names(t testing.TB) (list []string) {
	testkit.Read(t, w.db, func(ctx context.Context, tx *store.Tx) error {
		rows, err := tx.Query(ctx, `SELECT CASE WHEN kind = 'spec' THEN key ELSE text END FROM history_name WHERE project_id = $1`, w.project)
		list, err = database.All(rows, err, func(r database.Row) (name string, err error) { err = r.Scan(&name); return name, err })
		return err
	})
	slices.Sort(list)
	return list
}

// A name is removed a day after it was noticed that no results have it, unless new results have it.
func TestUnusedNamesGo(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, "shop")
		record := func(spec string, titles ...string) *modelRun {
			r := w.start(t, &modelRun{at: day, branch: "main"}, groups[:1], []string{spec})
			for _, title := range titles {
				r.specs[0].ended(title, title+" failed", run.Failed)
			}
			w.complete(t, r.specs[0])
			w.catch(t)
			return r
		}
		remove := func(r *modelRun) {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.RemoveRun(ctx, r.id)
				return err
			})
		}
		is := func(deleted, want int, names ...string) {
			t.Helper()
			slices.Sort(names)
			if got := w.names(t); deleted != want || !slices.Equal(got, names) {
				t.Fatalf("%d are deleted, want %d; there are %v, want %v", deleted, want, got, names)
			}
		}
		first := record("one.cy.js", "a", "b")
		second := record("two.cy.js", "b", "c")
		all := []string{"one.cy.js", "two.cy.js", `["a"]`, `["b"]`, `["b"]`, `["c"]`, "Error: a failed", "Error: b failed", "Error: c failed"}
		is(w.sweepNames(t), 0, all...)
		remove(first)
		is(w.sweepNames(t), 0, all...) // they are marked now
		record("one.cy.js", "b")       // with marked names, whose numbers the worker knows
		is(w.sweepNames(t), 2, "one.cy.js", "two.cy.js", `["b"]`, `["b"]`, `["c"]`, "Error: b failed", "Error: c failed")
		record("one.cy.js", "a") // it is back, with another number
		is(w.sweepNames(t), 0, all...)
		remove(second)
		is(w.sweepNames(t), 0, all...)
		is(w.sweepNames(t), 3, "one.cy.js", "two.cy.js", `["a"]`, `["b"]`, "Error: a failed", "Error: b failed")
		is(w.sweepNames(t), 0, "one.cy.js", "two.cy.js", `["a"]`, `["b"]`, "Error: a failed", "Error: b failed") // specs go after their tests
		is(w.sweepNames(t), 1, "one.cy.js", `["a"]`, `["b"]`, "Error: a failed", "Error: b failed")
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, _, err := history.NewExplorer().Tests(ctx, tx, "shop", history.TestQuery{Filter: store.HistoryFilter{Since: day, Until: day.Add(time.Hour)}, Order: history.ByTitle, Ascending: true, Limit: 10})
			if got := fmt.Sprint(len(list)); err == nil && (got != "2" || list[0].Name() != "a" || list[1].Name() != "b" || list[0].Spec != "one.cy.js") {
				t.Errorf("%+v", list)
			}
			return err
		})
	})
}
