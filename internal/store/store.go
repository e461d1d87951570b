// Package store holds every SQL statement of Runbell, one file per noun.
//
// A [DB] runs transactions, and a [Tx] has the statements. They are written once, in
// the SQL that SQLite and PostgreSQL share.
package store

import (
	"context"

	"runbell/internal/database"
	"runbell/internal/webhook"
)

// DB is an open database. Its methods may be called from any goroutine.
type DB struct {
	*database.DB
	sealer *webhook.Sealer
}

// Tx is a transaction with the statements of this package. Only one goroutine may use it,
// and not after its function has returned.
type Tx struct {
	*database.Tx
	sealer *webhook.Sealer
	// queued has the endpoints at which this transaction has queued an event of a run, which later
	// ones of the run wait for.
	queued map[string]string
}

// Open opens a database, see [database.Open]. sealer encrypts the secrets in it.
func Open(ctx context.Context, url string, sealer *webhook.Sealer) (*DB, error) {
	db, err := database.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	return &DB{db, sealer}, nil
}

// Read runs f in a transaction that reads, see [database.DB.Read].
func (db *DB) Read(ctx context.Context, f func(*Tx) error) error {
	return db.DB.Read(ctx, db.with(f))
}

// Write runs f in a transaction that writes, see [database.DB.Write].
func (db *DB) Write(ctx context.Context, f func(*Tx) error) error {
	return db.DB.Write(ctx, db.with(f))
}

func (db *DB) with(f func(*Tx) error) func(*database.Tx) error {
	return func(tx *database.Tx) error { return f(&Tx{Tx: tx, sealer: db.sealer}) }
}
