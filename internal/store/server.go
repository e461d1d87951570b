package store

import (
	"context"

	"runbell/internal/database"
)

// keyCheck is what the check of the secret key seals.
const keyCheck = "runbell"

// CheckKey binds the database to the secret key that it was opened with, the first time.
// Later it returns webhook.ErrSealed for every other key.
func (tx *Tx) CheckKey(ctx context.Context) error {
	var sealed string
	if err := tx.QueryRow(ctx, `SELECT key_check FROM server WHERE id = 1`+tx.ForUpdate()).Scan(&sealed); err != nil {
		return err
	}
	if sealed != "" {
		_, err := tx.sealer.Open(sealed, keyCheck)
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE server SET key_check = $1 WHERE id = 1`, tx.sealer.Seal(keyCheck, keyCheck))
	return err
}

// Writable reports whether writes commit at the moment, see [database.DB.Writable].
func (db *DB) Writable(ctx context.Context) error {
	return db.DB.Writable(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE server SET probed_at = $1 WHERE id = 1`, micros(tx.Now))
		return err
	})
}
