package database

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newSQLiteFile(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.db")
	db, err := Open(t.Context(), "sqlite:"+path)
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func newSQLiteConn(t *testing.T) *sqliteConn {
	t.Helper()
	c, err := openSQLiteConn(newSQLiteFile(t), writerPragmas...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// What database/sql does around a statement, the connection does itself.
func TestSQLiteConn(t *testing.T) {
	ctx := context.Background()
	c := newSQLiteConn(t)
	type name string
	large := strings.Repeat("ü", 100_000)

	for range 2 { // the second time they are prepared
		var a name
		var b, d string
		var n int
		var yes bool
		var null sql.NullInt64
		var e, f []byte
		row := c.QueryRow(ctx, `SELECT $3, $1, $2, $1, $4, $5, $3, ''`, name("one"), 7, large, true, nil)
		if err := row.Scan(&d, &a, &n, &b, &yes, &null, &e, &f); err != nil {
			t.Fatal(err)
		}
		if a != "one" || b != "one" || n != 7 || d != large || !yes || null.Valid || string(e) != large || len(f) != 0 {
			t.Errorf("got %q, %q, %d, %d bytes, %v, %v, %d bytes, %q", a, b, n, len(d), yes, null, len(e), f)
		}
	}

	var s string
	for what, err := range map[string]error{
		"an argument is missing": c.QueryRow(ctx, `SELECT $1, $2`, "a").Scan(&s, &s),
		"a column too many":      c.QueryRow(ctx, `SELECT 1, 2`).Scan(&s),
		"NULL in a string":       c.QueryRow(ctx, `SELECT NULL`).Scan(&s),
		"a fraction":             c.QueryRow(ctx, `SELECT $1`, 1.5).Scan(&s),
		"another placeholder":    c.QueryRow(ctx, `SELECT ?`, "a").Scan(&s),
		"two statements":         c.QueryRow(ctx, `SELECT 1; SELECT 2`).Scan(&s),
		"no SQL":                 c.QueryRow(ctx, `SELEKT 1`).Scan(&s),
	} {
		if err == nil || errors.Is(err, sql.ErrNoRows) {
			t.Errorf("%s: %v, want an error", what, err)
		}
	}
	if err := c.QueryRow(ctx, `SELECT id FROM project WHERE id = $1`, "none").Scan(&s); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("no row: %v", err)
	}
}

// A reader that panics leaves its rows open; the next transaction does not
// notice.
func TestSQLiteConnForgetsOpenRows(t *testing.T) {
	ctx := context.Background()
	c := newSQLiteConn(t)
	const list = `SELECT name FROM sqlite_master ORDER BY name`
	first := func() string {
		rows, err := c.Query(ctx, list)
		if err != nil || !rows.Next() {
			t.Fatal(err)
		}
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	want := first()
	c.reset()
	if got := first(); got != want {
		t.Errorf("the rows went on with %q instead of %q", got, want)
	}
	c.reset()
	// A reader would keep the log from being emptied.
	var busy, log, done int
	if err := c.QueryRow(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &log, &done); err != nil || busy != 0 {
		t.Errorf("checkpoint: busy %d, %v", busy, err)
	}
}

// The caller is gone: the query ends, and its connection serves others.
func TestSQLiteReadersEndWithTheirContext(t *testing.T) {
	readers := newReaders(newSQLiteFile(t))
	count := func(ctx context.Context, to int64) error {
		return readers.do(ctx, time.Now, func(tx *Tx) error {
			var n int64
			return tx.QueryRow(ctx, `WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < $1) SELECT MAX(n) FROM c`, to).Scan(&n)
		})
	}
	for range cap(readers.free) + 1 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if err := count(ctx, 1e12); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an endless query ended with %v", err)
		}
		cancel()
		if err := count(t.Context(), 10); err != nil {
			t.Error(err)
		}
	}
	readers.close()
	if err := count(t.Context(), 10); !errors.Is(err, errClosed) {
		t.Errorf("after close: %v", err)
	}
}

// A connection that could not be opened is tried again by the next read.
func TestSQLiteReadersThatCannotOpen(t *testing.T) {
	file := newSQLiteFile(t)
	readers := newReaders(file)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	read := func() error {
		return readers.do(ctx, time.Now, func(tx *Tx) error {
			_, err := version(ctx, tx.conn)
			return err
		})
	}
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	for range 2 * cap(readers.unopened) {
		if err := read(); err == nil {
			t.Fatal("it reads a file that is not there")
		}
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	if err := read(); err != nil {
		t.Fatal(err) // and not close, which waits for all
	}
	readers.close()
}

// Reads that come one after another need one connection.
func TestSQLiteReadersOpenWhatTheyNeed(t *testing.T) {
	readers := newReaders(newSQLiteFile(t))
	defer readers.close()
	var nested func(deep int) error
	nested = func(deep int) error {
		return readers.do(t.Context(), time.Now, func(tx *Tx) error {
			if _, err := version(t.Context(), tx.conn); err != nil || deep == 1 {
				return err
			}
			return nested(deep - 1)
		})
	}
	for _, inUse := range []int{1, 1, 3, 2, 1, cap(readers.free)} {
		open := cap(readers.unopened) - len(readers.unopened)
		if err := nested(inUse); err != nil {
			t.Fatal(err)
		}
		if now := cap(readers.unopened) - len(readers.unopened); now != max(open, inUse) {
			t.Errorf("%d connections are open after %d reads at once and %d before", now, inUse, open)
		}
	}
}

// TestReadersOpenWhileTheWriterWrites: a connection that reads is opened without
// the lock that only one may have, so a long transaction does not delay it.
func TestReadersOpenWhileTheWriterWrites(t *testing.T) {
	db, _ := newLedger(t)
	if err := db.Write(t.Context(), func(tx *Tx) error {
		if _, err := tx.Exec(t.Context(), `INSERT INTO ledger (n, text) VALUES (1, '')`); err != nil {
			return err
		}
		for range cap(db.readers.unopened) {
			c, err := openReader(db.readers.path)
			if err != nil {
				return err
			}
			c.close()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
