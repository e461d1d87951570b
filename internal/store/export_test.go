package store

import (
	"context"

	"runbell/internal/database"
)

// Watched returns a transaction that passes each statement to see before it runs.
func Watched(tx *Tx, see func(ctx context.Context, query string, args []any)) *Tx {
	return &Tx{Tx: tx.Watched(see), sealer: tx.sealer}
}

// SQLitePlan returns the lines of SQLite's plan for a statement.
func SQLitePlan(ctx context.Context, tx *Tx, query string, args []any) ([]string, error) {
	rows, err := tx.Query(ctx, "EXPLAIN QUERY PLAN "+query, args...)
	return database.All(rows, err, func(r database.Row) (string, error) {
		var id, parent, unused int
		var detail string
		err := r.Scan(&id, &parent, &unused, &detail)
		return detail, err
	})
}
