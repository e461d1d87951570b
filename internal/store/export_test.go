package store

import (
	"context"
	"errors"
	"time"
)

// MigrateSQLite runs the migrations on a SQLite file, and nothing else.
func MigrateSQLite(ctx context.Context, path string) error {
	db, provider, err := openMigrating(path)
	if err != nil {
		return err
	}
	return errors.Join(migrate(ctx, provider), db.Close())
}

// SetClock gives this process another clock, and lets it compare that with
// PostgreSQL's as it does from time to time.
func (db *DB) SetClock(ctx context.Context, local func() time.Time) error {
	db.server.local = local
	return db.server.compare(ctx)
}
