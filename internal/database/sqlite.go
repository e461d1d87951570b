package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	driver "modernc.org/sqlite"
	lite "zombiezen.com/go/sqlite"
)

// readerPragmas are set on every connection. LIKE is case-sensitive, as in PostgreSQL.
var readerPragmas = []string{"busy_timeout(10000)", "foreign_keys(1)", "temp_store(MEMORY)", "cache_size(-8000)",
	"case_sensitive_like(1)"}

// writerPragmas are set on a connection that also writes. A new file returns free space
// in small steps (vacuum.go). That setting locks the file, so readers must not set it.
// FULL makes a commit survive a loss of power. A log of 4,000 pages, 16 MB, is moved
// into the database less often than SQLite's default of 1,000.
var writerPragmas = slices.Concat(readerPragmas, []string{"auto_vacuum(INCREMENTAL)", "journal_mode(WAL)",
	"synchronous(FULL)", "wal_autocheckpoint(4000)"})

func openSQLite(ctx context.Context, path string) (_ *DB, err error) {
	if path == "" || path == ":memory:" { // each connection would have its own
		return nil, errors.New("the database URL names no file: sqlite:PATH")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the database: %w", err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	db := &DB{kind: sqlite, lock: lock, clock: newClock()}
	defer func() {
		if err != nil {
			_ = lock.release()
		}
	}()
	// fdatasync, if the system has it: as durable as fsync, but a commit does not wait
	// for timestamps.
	if _, err := driver.Fdatasync(true); err != nil && !errors.Is(err, driver.ErrFdatasyncUnavailable) {
		return nil, err
	}
	if err := closeToOthers(path); err != nil {
		return nil, err
	}
	writes, err := openSQLiteConn(path, writerPragmas...)
	if err != nil {
		return nil, unusable(path, err)
	}
	if err := migrateSQLite(ctx, path, writes); err != nil {
		writes.close()
		return nil, err
	}
	db.writer = newWriter(writes, db.clock.now)
	db.readers = newReaders(path)
	db.startVacuum()
	return db, nil
}

// closeToOthers creates the file if there is none, readable only by its owner. SQLite
// gives its other files the same mode.
func closeToOthers(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// unusable says why a file cannot be the database, and what to do.
func unusable(path string, err error) error {
	switch lite.ErrCode(err).ToPrimary() {
	case lite.ResultNotADB:
		return fmt.Errorf("%s is not an SQLite database: name another file, or restore the backup if it was one", path)
	case lite.ResultCorrupt:
		return fmt.Errorf("the database %s is damaged: restore the backup (%w)", path, err)
	default:
		return fmt.Errorf("open the database %s: %w", path, err)
	}
}

// migrateSQLite brings the schema up to date. goose uses database/sql,
// whose connection is opened only if there is something to migrate.
func migrateSQLite(ctx context.Context, path string, c *sqliteConn) error {
	var tables int
	if err := c.QueryRow(ctx, `SELECT COUNT(*) FROM sqlite_master`).Scan(&tables); err != nil {
		return unusable(path, err)
	}
	dsn := fileURI(path) + "?" + url.Values{"_pragma": writerPragmas}.Encode()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // its changes are committed
	db.SetMaxOpenConns(1)
	provider, err := newProvider(db, sqlite)
	if err != nil {
		return err
	}
	if tables > 0 {
		if v, err := version(ctx, c); err == nil && v == newest(provider) {
			return nil
		}
	}
	return migrate(ctx, provider)
}

// readers are the connections that read. Another one is opened when all are in use.
type readers struct {
	path     string
	free     chan *sqliteConn
	unopened chan struct{}
}

func newReaders(path string) readers {
	n := max(4, runtime.NumCPU())
	r := readers{path, make(chan *sqliteConn, n), make(chan struct{}, n)}
	for range n {
		r.unopened <- struct{}{}
	}
	return r
}

// take waits for a free connection.
func (r readers) take(ctx context.Context) (c *sqliteConn, err error) {
	select {
	case c = <-r.free:
	default:
		select {
		case c = <-r.free:
		case <-r.unopened:
			c, err = openReader(r.path)
			if err != nil {
				r.unopened <- struct{}{}
			}
			return c, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if c == nil {
		return nil, errClosed
	}
	return c, nil
}

func openReader(path string) (*sqliteConn, error) {
	return openSQLiteConn(path, append(slices.Clone(readerPragmas), "query_only(1)")...)
}

// do runs f in a transaction that reads. It ends with ctx.
func (r readers) do(ctx context.Context, now func() time.Time, f func(*Tx) error) (err error) {
	c, err := r.take(ctx)
	if err != nil {
		return err
	}
	c.conn.SetInterrupt(ctx.Done())
	defer func() {
		c.conn.SetInterrupt(nil)
		c.reset()
		_, end := c.Exec(ctx, "ROLLBACK") // nothing to keep
		r.free <- c
		switch {
		case err != nil && ctx.Err() != nil:
			err = ctx.Err() // clearer than that it was interrupted
		case err == nil:
			err = end
		}
	}()
	if _, err := c.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	return f(&Tx{Now: now(), kind: sqlite, conn: c})
}

func (r readers) close() {
	for range cap(r.free) {
		select {
		case c := <-r.free:
			c.close()
		case <-r.unopened:
		}
	}
	close(r.free)
}
