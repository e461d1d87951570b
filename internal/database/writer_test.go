package database

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// newLedger opens a database with a table of numbers.
func newLedger(t testing.TB) (db *DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.db")
	db, err := Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := change(db, `CREATE TABLE ledger (n INTEGER PRIMARY KEY, text TEXT NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	return db, path
}

// change runs one statement in a transaction of its own.
func change(db *DB, statement string, args ...any) error {
	return db.Write(context.Background(), func(tx *Tx) error {
		_, err := tx.Exec(context.Background(), statement, args...)
		return err
	})
}

// entries are the numbers that readers see.
func entries(t *testing.T, db *DB) []int {
	t.Helper()
	var out []int
	err := db.Read(t.Context(), func(tx *Tx) error {
		rows, err := tx.Query(t.Context(), `SELECT n FROM ledger ORDER BY n`)
		out, err = All(rows, err, func(r Row) (n int, err error) { return n, r.Scan(&n) })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// inOneCommit runs jobs that share a transaction: they wait while another one,
// which changes nothing, holds the writer. It returns what each was told.
func inOneCommit(t *testing.T, db *DB, jobs ...func(*Tx) error) []error {
	t.Helper()
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = db.Write(t.Context(), func(*Tx) error { close(started); <-release; return nil })
	})
	<-started
	told := make([]error, len(jobs))
	for i, f := range jobs {
		queued := len(db.writer.jobs)
		wg.Go(func() { told[i] = db.Write(t.Context(), f) })
		for len(db.writer.jobs) == queued { // in this order
			select {
			case <-t.Context().Done():
				t.Fatal("a job was not queued")
			default:
			}
		}
	}
	close(release)
	wg.Wait()
	return told
}

// A job that fails costs nobody else anything, whether it fails before or after
// it has written, and each job runs once.
func TestAJobThatFailsLeavesTheOthersAlone(t *testing.T) {
	db, _ := newLedger(t)
	failed := errors.New("failed")
	runs := make([]int, 6)
	insert := func(i int, then func() error) func(*Tx) error {
		return func(tx *Tx) error {
			runs[i]++
			if _, err := tx.Exec(t.Context(), `INSERT INTO ledger VALUES ($1, '')`, i); err != nil {
				return err
			}
			return then()
		}
	}
	fine := func() error { return nil }
	told := inOneCommit(t, db,
		insert(0, fine),
		func(*Tx) error { runs[1]++; return failed },
		insert(2, func() error { return failed }),
		insert(3, func() error { panic("a bug") }),
		func(tx *Tx) error { // leaves a query open
			runs[4]++
			if _, err := tx.Query(t.Context(), `SELECT n FROM ledger`); err != nil {
				return err
			}
			return insert(0, fine)(tx) // a number that is there
		},
		insert(5, fine),
	)
	if told[0] != nil || told[5] != nil || !errors.Is(told[1], failed) || !errors.Is(told[2], failed) ||
		told[3] == nil || !strings.Contains(told[3].Error(), "a bug") || told[4] == nil || !strings.Contains(told[4].Error(), "UNIQUE") {
		t.Errorf("the jobs were told %q", told)
	}
	runs[0]-- // run by the fifth job too
	for i, n := range runs {
		if n != 1 {
			t.Errorf("job %d ran %d times", i, n)
		}
	}
	if got := entries(t, db); !slices.Equal(got, []int{0, 5}) {
		t.Errorf("the ledger has %v, want [0 5]", got)
	}
}

// When the database is full, the jobs of that commit fail and nothing of them
// stays. With room again, the next ones succeed.
func TestAFullDatabase(t *testing.T) {
	db, _ := newLedger(t)
	limit := func(pages int) error { return change(db, fmt.Sprintf(`PRAGMA max_page_count(%d)`, pages)) }
	if err := limit(1); err != nil { // SQLite takes the size of today instead
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1<<20)
	add := func(n int, text string) func(*Tx) error {
		return func(tx *Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO ledger VALUES ($1, $2)`, n, text)
			return err
		}
	}
	told := inOneCommit(t, db, add(1, ""), add(2, long), add(3, ""))
	if told[1] == nil || !strings.Contains(told[1].Error(), "full") {
		t.Errorf("too long: %v", told[1])
	}
	var want []int
	for i, n := range []int{1, 2, 3} { // nobody is told a success that is none
		if told[i] == nil {
			want = append(want, n)
		}
	}
	if got := entries(t, db); !slices.Equal(got, want) {
		t.Errorf("the ledger has %v, the jobs were told %q", got, told)
	}
	if err := limit(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), add(4, long)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// The file gets shorter in steps after much was removed.
func TestAFileShrinks(t *testing.T) {
	path := newSQLiteFile(t)
	db, err := Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if err := change(db, `CREATE TABLE ledger (n INTEGER PRIMARY KEY, text TEXT NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if err := change(db, `INSERT INTO ledger VALUES ($1, $2)`, n, strings.Repeat("x", 2<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := change(db, `DELETE FROM ledger WHERE n > 0`); err != nil {
		t.Fatal(err)
	}
	steps := 0
	for more := true; more; steps++ {
		if more, err = db.shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := entries(t, db); !slices.Equal(got, []int{0}) {
		t.Errorf("the ledger has %v, want [0]", got)
	}
	if err := db.Close(); err != nil { // moves the log into the file
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if most := int64((sparePages + 1000) * 4096); info.Size() > most || steps < 10 {
		t.Errorf("the file has %d bytes after %d steps, want at most %d", info.Size(), steps, most)
	}
}
