package database

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// newProvider loads the migrations of a database. It does not connect yet.
func newProvider(db *sql.DB, k kind) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	dialect, opts := goose.DialectSQLite3, []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	if k == postgres {
		dialect = goose.DialectPostgres
		opts = append(opts, goose.WithSessionLocker(sessionLock{}))
	}
	provider, err := goose.NewProvider(dialect, db, files, opts...)
	if err != nil {
		return nil, fmt.Errorf("prepare migrations: %w", err)
	}
	return provider, nil
}

// newest is the version after all migrations.
func newest(provider *goose.Provider) int64 {
	sources := provider.ListSources()
	return sources[len(sources)-1].Version
}

// migrate brings the schema up to date. Only one process does so at a time: on
// PostgreSQL under a session lock, on SQLite under the lock of the file.
func migrate(ctx context.Context, provider *goose.Provider) error {
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the database: %w", err)
	}
	if current > target {
		return fmt.Errorf("the database was written by a newer Runbell (schema %d; this one knows %d): use that version or "+
			"a newer one, or restore the backup made before the upgrade", current, target)
	}
	if current == target {
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database from schema %d to %d: %w", current, target, err)
	}
	return nil
}

// sessionLock lets one process migrate a PostgreSQL database at a time. It is goose's
// lock, tried every 100 ms instead of every 5 s. It must not wait inside PostgreSQL: a
// waiting statement would block CREATE INDEX CONCURRENTLY forever.
type sessionLock struct{}

func (sessionLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	for {
		var locked bool
		err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", lock.DefaultLockID).Scan(&locked)
		if err != nil || locked {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (sessionLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", lock.DefaultLockID)
	return err
}

// Version is the schema version of an open database.
func (db *DB) Version(ctx context.Context) (v int64, err error) {
	err = db.Read(ctx, func(tx *Tx) error {
		v, err = version(ctx, tx.conn)
		return err
	})
	return v, err
}

func version(ctx context.Context, c conn) (v int64, err error) {
	err = c.QueryRow(ctx, "SELECT MAX(version_id) FROM goose_db_version").Scan(&v)
	return v, err
}
