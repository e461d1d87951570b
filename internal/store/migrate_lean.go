package store

import (
	"context"
	"database/sql"
)

// leanLog is migration 7: recording an attempt costs PostgreSQL a third less. It
// is not a text because SQLite has neither of these costs, nor the words.
func leanLog(k kind) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		if k == sqlite {
			return nil
		}
		for _, statement := range []string{
			// As who records takes them, so that neither waits for the other.
			`LOCK TABLE delivery, attempt IN ACCESS EXCLUSIVE MODE`,
			// For each attempt its delivery was looked up and locked, which the same
			// transaction had just updated. It cannot go away before the end of
			// that: what removes deliveries locks them first.
			`ALTER TABLE attempt DROP CONSTRAINT attempt_delivery_id_fkey1`,
			// No two deliveries have equal entries here, only versions of the same
			// one: to pack them whenever a page is full saves nothing.
			`ALTER INDEX delivery_log SET (deduplicate_items = off)`,
			`ALTER INDEX delivery_run SET (deduplicate_items = off)`,
		} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	}
}
