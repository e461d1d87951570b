// Package database opens a SQLite or PostgreSQL database, brings its schema up to
// date, and runs transactions in it. It hides the differences between the two:
// connections, the one writer of SQLite, locks, the clock, fragments of SQL. The
// statements are in package store.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// DB is an open database. Its methods may be called from any goroutine.
type DB struct {
	kind  kind
	alone sync.Map // names that Alone is running with, in this process

	// For SQLite.
	clock      *clock
	writer     *writer
	readers    readers
	lock       *fileLock
	stopVacuum func()

	// For PostgreSQL.
	pool   *sql.DB
	server *server
}

type kind int

const (
	sqlite kind = iota
	postgres
)

// Open opens the database a URL names, "sqlite:PATH" or "postgres://…",
// brings its schema up to date under a lock, and refuses a database that a
// newer version has written.
func Open(ctx context.Context, url string) (*DB, error) {
	switch {
	case strings.HasPrefix(url, "sqlite:"):
		return openSQLite(ctx, strings.TrimPrefix(url, "sqlite:"))
	case strings.HasPrefix(url, "postgres://"), strings.HasPrefix(url, "postgresql://"):
		return openPostgres(ctx, url)
	default:
		// Not quoted: an invalid URL may still contain a password.
		return nil, errors.New("the database URL must start with sqlite: or postgres://")
	}
}

// Close waits for transactions to end and closes the database.
func (db *DB) Close() error {
	if db.kind == postgres {
		db.server.close()
		return db.pool.Close()
	}
	db.stopVacuum()
	db.readers.close()
	db.writer.close()
	return db.lock.release()
}

// Shared reports whether other processes may use the database at the same time.
func (db *DB) Shared() bool { return db.kind == postgres }

// Ping checks that the database responds.
func (db *DB) Ping(ctx context.Context) error {
	_, err := db.Version(ctx)
	return err
}

// Tx is a transaction at one instant. Only one goroutine may use it, and not after its
// function has returned.
type Tx struct {
	// Now is the only clock of the transaction: UTC, whole microseconds.
	Now  time.Time
	kind kind
	conn conn
}

// Exec runs a statement and returns how many rows it changed.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (changed int64, err error) {
	return tx.conn.Exec(ctx, query, args...)
}

// Query runs a query for any number of rows. Parameters are $1, $2 and so on.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	return tx.conn.Query(ctx, query, args...)
}

// QueryRow runs a query for one row. If there is none, Scan returns [ErrNoRows].
func (tx *Tx) QueryRow(ctx context.Context, query string, args ...any) Row {
	return tx.conn.QueryRow(ctx, query, args...)
}

// ForUpdate ends a SELECT that locks its rows. SQLite has one writer and needs
// no locks.
func (tx *Tx) ForUpdate() string { return tx.OnPostgres(" FOR UPDATE") }

// OnPostgres returns a fragment of SQL for PostgreSQL only.
func (tx *Tx) OnPostgres(fragment string) string {
	if tx.kind == postgres {
		return fragment
	}
	return ""
}

// OnSQLite returns a fragment of SQL for SQLite only.
func (tx *Tx) OnSQLite(fragment string) string {
	if tx.kind == sqlite {
		return fragment
	}
	return ""
}

// Now is the instant that a transaction would have now. Several processes on one
// PostgreSQL agree on it, even if their own clocks differ.
func (db *DB) Now() time.Time {
	if db.server != nil {
		return db.server.now()
	}
	return db.clock.now()
}

// Read runs f in a transaction that sees one state of the database.
func (db *DB) Read(ctx context.Context, f func(*Tx) error) error {
	if db.kind == sqlite {
		return db.readers.do(ctx, db.clock.now, f)
	}
	ctx, cancel := context.WithTimeout(ctx, longestTransaction)
	defer cancel()
	tx, err := db.pool.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing to keep
	return f(&Tx{Now: db.Now(), kind: db.kind, conn: pooled{tx}})
}

// Write runs f in a transaction and commits it durably, unless f returns an error: then
// none of its changes remain. On PostgreSQL, f runs again after a deadlock, so a second
// run must set again whatever f changes outside the transaction. On SQLite, writers
// take turns and share commits, and f runs once; a canceled ctx has an effect only
// before f starts.
func (db *DB) Write(ctx context.Context, f func(*Tx) error) error {
	if db.kind == sqlite {
		return db.writer.do(ctx, f)
	}
	for attempt := 1; ; attempt++ {
		err := db.writePostgres(ctx, f)
		pgErr, ok := errors.AsType[*pgconn.PgError](err)
		// 40001 serialization_failure, 40P01 deadlock_detected: the server asks to try again.
		if !ok || (pgErr.Code != "40001" && pgErr.Code != "40P01") || attempt == 5 {
			return err
		}
	}
}

// longestTransaction limits the wait for a PostgreSQL that has vanished, as in a
// failover: the next attempt finds the new one.
const longestTransaction = 20 * time.Second

func (db *DB) writePostgres(ctx context.Context, f func(*Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, longestTransaction)
	defer cancel()
	tx, err := db.pool.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit this does nothing
	if err := f(&Tx{Now: db.Now(), kind: db.kind, conn: pooled{tx}}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
