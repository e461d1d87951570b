package store

import (
	"context"

	"runbell/internal/database"
	"runbell/internal/run"
)

// Warn notes a warning about a run, which must be locked. One that is there
// already, and all after the first [run.MaxWarnings], are dropped.
func (tx *Tx) Warn(ctx context.Context, runID string, w run.Warning) error {
	warnings, err := tx.Warnings(ctx, runID)
	if err != nil || len(warnings) >= run.MaxWarnings {
		return err
	}
	message := cleanText(w.Message)
	for _, known := range warnings {
		if known.Code == w.Code && known.Message == message {
			return nil
		}
	}
	_, err = tx.Exec(ctx, `INSERT INTO run_warning (run_id, number, code, message, at) VALUES ($1, $2, $3, $4, $5)`,
		runID, len(warnings), w.Code, message, micros(tx.Now))
	return err
}

// Warnings lists the warnings about a run, the oldest first.
func (tx *Tx) Warnings(ctx context.Context, runID string) ([]run.Warning, error) {
	rows, err := tx.Query(ctx, `SELECT code, message, at FROM run_warning WHERE run_id = $1 ORDER BY number`, runID)
	return database.All(rows, err, func(r database.Row) (run.Warning, error) {
		var w run.Warning
		var at int64
		err := r.Scan(&w.Code, &w.Message, &at)
		w.At = timeOf(at)
		return w, err
	})
}
