package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"runbell/internal/webhook"
)

// writer is the one goroutine that writes to a SQLite database. While the disk
// takes a commit it runs what comes, and all of that shares the next commit: one
// wait for the disk, however many transactions it is for. Each is answered when
// the disk has it.
type writer struct {
	conn   *sqliteConn
	log    *wal
	sync   func() error // of the log
	disk   *disk
	sealer *webhook.Sealer
	jobs   chan *job
	stop   chan struct{}
	ended  chan struct{}

	long   int64 // how long the log gets
	longAt int64 // the length from which it is moved into the database
}

type job struct {
	ctx  context.Context
	f    func(*Tx) error
	done chan error
	err  error
}

const (
	// maxShared bounds how many transactions share a commit, and so how long the
	// first of them waits for the others.
	maxShared = 64
	// longLog is how long the log gets: the longer, the less often a page that
	// changes all the time is moved.
	longLog = 64 << 20
)

var errClosed = errors.New("the database is closed")

func newWriter(conn *sqliteConn, log *wal, sealer *webhook.Sealer) *writer {
	w := &writer{conn: conn, log: log, sync: log.sync, disk: newDisk(), sealer: sealer, jobs: make(chan *job, maxShared),
		stop: make(chan struct{}), ended: make(chan struct{}), long: longLog, longAt: longLog}
	// What a process that was killed had written, the disk may lack.
	w.disk.got(log.sync())
	go w.loop()
	return w
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

func (w *writer) close() {
	close(w.stop)
	<-w.ended
	w.conn.close()
	w.log.close()
}

func (w *writer) loop() {
	defer close(w.ended)
	for {
		select {
		case j := <-w.jobs:
			w.commit(j)
			w.shorten()
		case <-w.stop:
			_ = w.disk.has(context.Background())
			return
		}
	}
}

// commit runs a job and those that come in one transaction, and has them
// answered. Errors are rare, so the jobs run without savepoints first. If one
// fails, nothing of that remains, and all run again, each in a savepoint of its own.
func (w *writer) commit(first *job) {
	batch, err := w.transact([]*job{first}, false)
	if errors.Is(err, errJobFailed) && len(batch) > 1 {
		batch, err = w.transact(batch, true)
	}
	w.conn.reset()
	if err != nil || !w.log.behind {
		// An error may come of what the disk does not have yet, or never gets.
		if failed := w.disk.has(context.Background()); failed != nil {
			err = failed
		}
		answer(batch, err)
		return
	}
	w.log.behind = false
	go func() {
		err := w.sync()
		answer(batch, err)
		w.disk.got(err)
	}()
}

// answer tells each what became of it. What ended the transaction is everybody's
// error: one of its own may come of what others did in it.
func answer(batch []*job, err error) {
	for _, j := range batch {
		if err != nil && !errors.Is(err, errJobFailed) {
			j.err = err
		}
		j.done <- j.err
	}
}

// errJobFailed says that a batch was rolled back because of one of its jobs.
var errJobFailed = errors.New("a transaction of the batch failed")

// transact commits a batch and, without savepoints, those that come until the disk
// has the commit before. It returns all of them.
func (w *writer) transact(batch []*job, savepoints bool) (_ []*job, err error) {
	defer func() {
		if err != nil {
			w.conn.reset()
			// What is left of the transaction, if SQLite has not ended it itself.
			_ = w.exec("ROLLBACK")
		}
	}()
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return batch, err
	}
	for n := 0; ; n++ {
		if n == len(batch) {
			if savepoints || n == maxShared {
				break
			}
			j := w.next()
			if j == nil {
				break
			}
			batch = append(batch, j)
		}
		if err := w.run(batch[n], savepoints); err != nil {
			return batch, err
		}
	}
	if err := w.disk.owes(); err != nil {
		return batch, err
	}
	w.log.later, w.log.behind = true, false
	err = w.exec("COMMIT")
	w.log.later = false
	if err != nil || !w.log.behind {
		w.disk.got(w.log.failed()) // nothing new
	}
	return batch, err
}

// next is a job that waits, or comes before the disk has the last commit.
func (w *writer) next() *job {
	select {
	case j := <-w.jobs:
		return j
	default:
	}
	select {
	case j := <-w.jobs:
		return j
	case <-w.disk.behind:
		return nil
	}
}

// run runs one job. Only what ends the transaction is an error.
func (w *writer) run(j *job, savepoint bool) error {
	if j.err = j.ctx.Err(); j.err != nil {
		return nil
	}
	if savepoint {
		if err := w.exec("SAVEPOINT job"); err != nil {
			return err
		}
	}
	j.err = protect(j.f, &Tx{Now: instant(), kind: sqlite, sealer: w.sealer, conn: w.conn})
	switch {
	case j.err != nil && !savepoint:
		return errJobFailed
	case j.err != nil:
		if err := w.exec("ROLLBACK TO job"); err != nil {
			return fmt.Errorf("%w (after: %w)", err, j.err)
		}
		fallthrough
	case savepoint:
		return w.exec("RELEASE job")
	}
	return nil
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

// shorten moves a long log into the database, so that it can begin anew. Should
// that fail, or somebody still read the log, it grows and is moved later.
func (w *writer) shorten() {
	switch size := w.log.end; {
	case size < w.long:
		w.longAt = w.long
	case size >= w.longAt:
		_ = w.exec("PRAGMA wal_checkpoint(PASSIVE)")
		w.longAt = size + w.long/4
	}
}

// disk is whether the disk has what is committed. It may lack the last commit.
type disk struct {
	mu     sync.Mutex
	behind chan struct{} // closed when it has it. The writer replaces it
	failed error
}

func newDisk() *disk { return &disk{behind: make(chan struct{})} }

// has waits until the disk has what is committed now.
func (d *disk) has(ctx context.Context) error {
	d.mu.Lock()
	behind := d.behind
	d.mu.Unlock()
	select {
	case <-behind:
	case <-ctx.Done():
		return ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// owes is called before a commit. It waits until the disk has the one before.
func (d *disk) owes() error {
	if err := d.has(context.Background()); err != nil {
		return err
	}
	d.mu.Lock()
	d.behind = make(chan struct{})
	d.mu.Unlock()
	return nil
}

// got is called when the disk has the commit. An error is for good: nobody knows
// then what the disk has, and a second try may succeed without writing it.
func (d *disk) got(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.failed = fmt.Errorf("%w: nothing is written or read any more, look at the disk and start again", err)
	}
	close(d.behind)
}
