package store

import (
	"context"

	"runbell/internal/run"
)

// CheckRun returns an error of kind NotFound unless the run exists.
func (tx *Tx) CheckRun(ctx context.Context, id string) error {
	_, err := one(tx.QueryRow(ctx, `SELECT id FROM run WHERE id = $1`, id), scanText, run.Missing("run", id))
	return err
}
