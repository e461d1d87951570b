package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	driver "modernc.org/sqlite"

	"runbell/internal/webhook"
)

// Pragmas stand in the DSN because an Exec would reach one pooled connection
// only. FULL makes a commit survive loss of power. PostgreSQL's LIKE tells upper
// from lower case, so SQLite's has to.
const sqlitePragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
	"&_pragma=foreign_keys(1)&_pragma=wal_autocheckpoint(4000)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-8000)&_pragma=case_sensitive_like(1)"

func openSQLite(ctx context.Context, path string, sealer *webhook.Sealer) (_ *DB, err error) {
	if path == "" {
		return nil, errors.New("the database URL names no file: sqlite:PATH")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the database: %w", err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	db := &DB{kind: sqlite, sealer: sealer, lock: lock}
	defer func() {
		if err != nil {
			_ = lock.release()
		}
	}()
	// Where the system has it: the same durability as fsync, without the
	// timestamps a commit would otherwise wait for.
	if _, err := driver.Fdatasync(true); err != nil && !errors.Is(err, driver.ErrFdatasyncUnavailable) {
		return nil, err
	}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + sqlitePragmas
	writes, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	writes.SetMaxOpenConns(1)
	if err := migrate(ctx, writes, sqlite); err != nil {
		_ = writes.Close()
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = writes.Close()
		return nil, err
	}
	if db.writer, err = newWriter(ctx, writes, sealer); err != nil {
		_ = writes.Close()
		return nil, err
	}
	if db.reads, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		_ = db.writer.close()
		return nil, err
	}
	readers := max(4, runtime.NumCPU())
	db.reads.SetMaxOpenConns(readers)
	db.reads.SetMaxIdleConns(readers)
	return db, nil
}

// writer is the one goroutine that writes to a SQLite database. Transactions
// that wait while another commits share the next commit, each in a savepoint of
// its own: a commit costs one fsync however many it carries.
type writer struct {
	db    *sql.DB
	conn  *preparedConn
	jobs  chan *job
	stop  chan struct{}
	ended chan struct{}
}

type job struct {
	ctx  context.Context
	f    func(*Tx) error
	done chan error
	err  error
}

// maxShared bounds how many transactions share a commit, and so how long the
// first of them waits for the others.
const maxShared = 64

var errClosed = errors.New("the database is closed")

func newWriter(ctx context.Context, db *sql.DB, sealer *webhook.Sealer) (*writer, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{
		db:    db,
		conn:  &preparedConn{conn: c, stmts: map[string]*sql.Stmt{}},
		jobs:  make(chan *job, maxShared),
		stop:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	go w.loop(sealer)
	return w, nil
}

func (w *writer) do(ctx context.Context, f func(*Tx) error) error {
	j := &job{ctx: ctx, f: f, done: make(chan error, 1)}
	select {
	case w.jobs <- j:
	case <-w.stop:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-j.done:
		return err
	case <-w.ended:
		select { // it may have been the last one served
		case err := <-j.done:
			return err
		default:
			return errClosed
		}
	}
}

func (w *writer) close() error {
	close(w.stop)
	<-w.ended
	w.conn.close()
	return w.db.Close()
}

func (w *writer) loop(sealer *webhook.Sealer) {
	defer close(w.ended)
	batch := make([]*job, 0, maxShared)
	for {
		batch = batch[:0]
		select {
		case j := <-w.jobs:
			batch = append(batch, j)
		case <-w.stop:
			return
		}
	more:
		for len(batch) < maxShared {
			select {
			case j := <-w.jobs:
				batch = append(batch, j)
			default:
				break more
			}
		}
		w.commit(batch, sealer)
	}
}

// commit runs the jobs of a batch in one transaction and answers them. Errors
// are rare, so the jobs run without savepoints first. If one fails, nothing of
// that remains, and all run again, each in a savepoint of its own.
func (w *writer) commit(batch []*job, sealer *webhook.Sealer) {
	err := w.transact(batch, sealer, false)
	if errors.Is(err, errJobFailed) && len(batch) > 1 {
		err = w.transact(batch, sealer, true)
	}
	for _, j := range batch {
		if j.err == nil {
			j.err = err
		}
		j.done <- j.err
	}
}

// errJobFailed says that a batch was rolled back because of one of its jobs.
var errJobFailed = errors.New("a transaction of the batch failed")

func (w *writer) transact(batch []*job, sealer *webhook.Sealer, savepoints bool) (err error) {
	defer func() {
		if err != nil {
			// What is left of the transaction, if SQLite has not ended it itself.
			_ = w.exec("ROLLBACK")
		}
	}()
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, j := range batch {
		if j.err = j.ctx.Err(); j.err != nil {
			continue
		}
		if savepoints {
			if err := w.exec("SAVEPOINT job"); err != nil {
				return err
			}
		}
		j.err = protect(j.f, &Tx{Now: instant(), kind: sqlite, sealer: sealer, conn: w.conn})
		switch {
		case j.err != nil && !savepoints:
			return errJobFailed
		case j.err != nil:
			if err := w.exec("ROLLBACK TO job"); err != nil {
				return fmt.Errorf("%w (after: %w)", err, j.err)
			}
			fallthrough
		case savepoints:
			if err := w.exec("RELEASE job"); err != nil {
				return err
			}
		}
	}
	return w.exec("COMMIT")
}

// exec runs a statement about the transaction itself, under no caller's
// context: an interrupted one would roll back everybody's work.
func (w *writer) exec(statement string) error {
	if _, err := w.conn.ExecContext(context.Background(), statement); err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(statement), err)
	}
	return nil
}

// protect turns a panic of one caller's function into that caller's error: the
// goroutine belongs to all of them.
func protect(f func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			buf := make([]byte, 8<<10)
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, buf[:runtime.Stack(buf, false)])
		}
	}()
	return f(tx)
}

// preparedConn is a connection that prepares each statement once. It ignores
// the context of its callers, see [DB.Write].
type preparedConn struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

func (c *preparedConn) prepare(query string) (*sql.Stmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = s
	return s, nil
}

func (c *preparedConn) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	s, err := c.prepare(query) //nolint:sqlclosecheck // stays prepared
	if err != nil {
		return nil, err
	}
	return s.ExecContext(context.Background(), args...)
}

func (c *preparedConn) QueryContext(_ context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := c.prepare(query) //nolint:sqlclosecheck // stays prepared
	if err != nil {
		return nil, err
	}
	return s.QueryContext(context.Background(), args...)
}

func (c *preparedConn) QueryRowContext(_ context.Context, query string, args ...any) *sql.Row {
	s, err := c.prepare(query) //nolint:sqlclosecheck // stays prepared
	if err != nil {
		return c.conn.QueryRowContext(context.Background(), query, args...) // fails the same way, in a Row
	}
	return s.QueryRowContext(context.Background(), args...)
}

func (c *preparedConn) close() {
	for _, s := range c.stmts {
		_ = s.Close()
	}
	_ = c.conn.Close()
}
