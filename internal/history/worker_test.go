package history_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// The first results of a project name thousands of tests. No transaction gives numbers to many of them, because all
// other writers wait for it.
func TestNumbersAreGivenInSmallTransactions(t *testing.T) {
	db := testkit.SQLite(t)
	w := newWorld(t, db, "shop")
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		for _, statement := range []string{
			`CREATE TABLE given (tests BIGINT NOT NULL)`,
			`CREATE TRIGGER give AFTER UPDATE ON history BEGIN INSERT INTO given VALUES (NEW.tests - OLD.tests); END`,
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	const specs, tests = 10, 100
	var names []string
	for n := range specs {
		names = append(names, fmt.Sprint(n, ".cy.js"))
	}
	r := w.start(t, &modelRun{at: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)}, []string{"all"}, names)
	for _, e := range r.specs {
		for n := range tests {
			id := fmt.Sprint(n)
			e.tests = append(e.tests, run.Announced{ID: id, Title: []string{"test " + id}})
			e.results = append(e.results, run.Result{ID: id, State: run.Passed, Attempts: []run.Attempt{{State: run.Passed}}})
		}
		w.complete(t, e)
	}
	w.catch(t)
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		rows, err := tx.Query(ctx, `SELECT tests FROM given`)
		given, err := database.All(rows, err, func(r database.Row) (n int, err error) { return n, r.Scan(&n) })
		sum := 0
		for _, n := range given {
			if sum += n; n > 128 {
				t.Errorf("%d numbers in one transaction", n)
			}
		}
		if sum != specs*tests {
			t.Errorf("%d numbers, want %d", sum, specs*tests)
		}
		return err
	})
}
