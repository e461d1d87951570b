package database

import (
	"context"
	"time"
)

// SetClock gives this process another clock, and lets it compare that with
// PostgreSQL's as it does from time to time.
func (db *DB) SetClock(ctx context.Context, local func() time.Time) error {
	db.server.local = local
	return db.server.compare(ctx)
}
