package database

import (
	"context"
	"time"
)

// SQLite returns free space as follows. Removed rows leave free pages, which new rows
// fill. If there are more than sparePages, the file shrinks in small steps between other
// transactions.
const (
	vacuumEvery = time.Minute
	vacuumPause = 50 * time.Millisecond // between two steps, so that others go first
	vacuumStep  = "PRAGMA incremental_vacuum(250)"
	// sparePages stay in the file for the next rows: 8 MB.
	sparePages = 2000
)

// startVacuum starts to return free space. Close ends it with db.stopVacuum.
func (db *DB) startVacuum() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		db.vacuum(ctx)
	}()
	db.stopVacuum = func() {
		cancel()
		<-ended
	}
}

func (db *DB) vacuum(ctx context.Context) {
	for wait := vacuumEvery; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = vacuumEvery
		if more, err := db.shrink(ctx); err == nil && more {
			wait = vacuumPause
		}
	}
}

// shrink cuts a few free pages off the file and reports whether there are more.
func (db *DB) shrink(ctx context.Context) (more bool, err error) {
	free := 0
	count := func(tx *Tx) error {
		return tx.QueryRow(ctx, "PRAGMA freelist_count").Scan(&free)
	}
	if err := db.Read(ctx, count); err != nil || free <= sparePages {
		return false, err
	}
	err = db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, vacuumStep); err != nil {
			return err
		}
		return count(tx)
	})
	return free > sparePages, err
}
