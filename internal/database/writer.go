package database

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
)

// writer is the only goroutine that writes to a SQLite database. While a commit waits
// for the disk, more jobs arrive, and they share the next commit. So a commit waits for
// the disk once, however many transactions it has.
type writer struct {
	conn  *sqliteConn
	now   func() time.Time
	jobs  chan *job
	stop  chan struct{}
	ended chan struct{}
}

// job is one caller's transaction.
type job struct {
	ctx  context.Context
	f    func(*Tx) error
	done chan error
	err  error
}

// maxShared limits how many jobs share a commit, and so how long the first one waits for
// the others.
const maxShared = 64

var errClosed = errors.New("the database is closed")

func newWriter(conn *sqliteConn, now func() time.Time) *writer {
	w := &writer{conn: conn, now: now, jobs: make(chan *job, maxShared), stop: make(chan struct{}),
		ended: make(chan struct{})}
	go w.loop()
	return w
}

// do runs f in a transaction and returns when the disk has its commit.
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
		select { // it may have been the last job that ran
		case err := <-j.done:
			return err
		default:
			return errClosed
		}
	}
}

func (w *writer) close() {
	close(w.stop)
	<-w.ended
	w.conn.close()
}

func (w *writer) loop() {
	defer close(w.ended)
	for {
		select {
		case j := <-w.jobs:
			w.commit(j)
		case <-w.stop:
			return
		}
	}
}

// commit runs a job and those behind it in one transaction, commits it, and returns its
// result to each caller.
func (w *writer) commit(first *job) {
	shared, err := w.transact(first)
	if err != nil {
		w.conn.reset()
		_ = w.exec("ROLLBACK") // SQLite may have ended the transaction itself
	}
	w.conn.reset()
	for _, j := range shared {
		if err != nil {
			j.err = err // not its own error, which may depend on changes that are undone
		}
		j.done <- j.err
	}
}

// transact returns the jobs that shared the transaction. An error means that
// nothing was committed.
func (w *writer) transact(first *job) (shared []*job, err error) {
	shared = []*job{first}
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return shared, err
	}
	for j := first; j != nil; {
		if err := w.run(j); err != nil {
			return shared, err
		}
		if j = w.next(len(shared)); j != nil {
			shared = append(shared, j)
		}
	}
	return shared, w.exec("COMMIT")
}

// next returns a waiting job, or nil if there is none or the commit has enough.
func (w *writer) next(shared int) *job {
	if shared == maxShared {
		return nil
	}
	select {
	case j := <-w.jobs:
		return j
	default:
		return nil
	}
}

// run runs one job in a savepoint of its own. If the job fails, its changes are
// undone and the others keep theirs. run returns only errors that end the whole
// transaction.
func (w *writer) run(j *job) error {
	if j.err = j.ctx.Err(); j.err != nil {
		return nil
	}
	if err := w.exec("SAVEPOINT job"); err != nil {
		return err
	}
	j.err = protect(j.f, &Tx{Now: w.now(), kind: sqlite, conn: w.conn})
	if j.err != nil {
		w.conn.reset() // an open query would keep the savepoint from being undone
		if err := w.exec("ROLLBACK TO job"); err != nil {
			return j.err // SQLite has undone the whole transaction: the disk is full or broken
		}
	}
	return w.exec("RELEASE job")
}

// exec runs a statement that begins or ends the transaction. It ignores the contexts of
// callers: an interruption would undo the work of all of them.
func (w *writer) exec(statement string) error {
	if _, err := w.conn.Exec(context.Background(), statement); err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(statement), err)
	}
	return nil
}

// protect turns a panic of a caller's function into that caller's error, because all
// callers share the goroutine.
func protect(f func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			buf := make([]byte, 8<<10)
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, buf[:runtime.Stack(buf, false)])
		}
	}()
	return f(tx)
}
