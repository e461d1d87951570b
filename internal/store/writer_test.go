package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// newLedger opens a database with a table of numbers and texts, and a log that
// gets so long.
func newLedger(t *testing.T, long int64) (db *DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.db")
	db, err := Open(t.Context(), "sqlite:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.writer.long, db.writer.longAt = long, long
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

// change writes, in a transaction.
func change(db *DB, statement string, args ...any) error {
	return db.Write(context.Background(), func(tx *Tx) error {
		_, err := tx.conn.ExecContext(context.Background(), statement, args...)
		return err
	})
}

// between runs f on the writer's goroutine, which uses what f changes.
func between(db *DB, f func()) error {
	return db.Write(context.Background(), func(*Tx) error { f(); return nil })
}

// entries is what readers see.
func entries(db *DB) (n int, err error) {
	err = db.Read(context.Background(), func(tx *Tx) error {
		return tx.conn.QueryRowContext(context.Background(), `SELECT COUNT(*) FROM ledger`).Scan(&n)
	})
	return n, err
}

// copyDatabase copies a database and its log, as they are in the files.
func copyDatabase(from, to string) error {
	for _, end := range []string{"", "-wal"} {
		b, err := os.ReadFile(from + end)
		if err = errors.Join(err, os.WriteFile(to+end, b, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// kept is what a copy of the files has, as SQLite itself opens them.
func kept(t *testing.T, path string) map[int]string {
	t.Helper()
	db, err := sql.Open("sqlite", fileURI(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var sound string
	if err := db.QueryRowContext(t.Context(), `PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" {
		t.Fatalf("the copy is not sound: %s %v", sound, err)
	}
	rows, err := db.QueryContext(t.Context(), `SELECT n, text FROM ledger`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	out := map[int]string{}
	for rows.Next() {
		var n int
		var text string
		if err := rows.Scan(&n, &text); err != nil {
			t.Fatal(err)
		}
		out[n] = text
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// What Write has answered is on the disk, whatever else is going on: large
// transactions that do not fit into memory, some that fail beside others, a log that
// begins anew, and readers that keep it from that. A copy of the files is taken when
// the disk has a commit, and looked at when Write has answered.
func TestTheDiskHasWhatWasAnswered(t *testing.T) {
	db, path := newLedger(t, 200<<10)
	if err := change(db, `PRAGMA cache_size = 50`); err != nil {
		t.Fatal(err)
	}
	copies, logs := t.TempDir(), map[string]bool{}
	var mu sync.Mutex // held while a copy is taken or looked at
	db.writer.sync = func() error {
		err := db.writer.log.sync()
		mu.Lock()
		defer mu.Unlock()
		copied := filepath.Join(copies, "a.db")
		err = errors.Join(err, copyDatabase(path, copied))
		b, _ := os.ReadFile(copied + "-wal")
		logs[string(b[16:24])] = true // a new one has another salt
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	refused := errors.New("refused")
	if err := change(db, `INSERT INTO ledger VALUES (-1, 'first')`); err != nil {
		t.Fatal(err)
	}
	want := map[int]string{-1: "first"}
	for round := range 20 {
		type result struct {
			changes map[int]string
			err     error
		}
		results := make(chan result)
		writers := 1 + random.IntN(4)
		hold := make(chan struct{})
		if round%7 == 0 { // a reader that stays for the round
			seen := make(chan struct{})
			go func() {
				_ = db.Read(t.Context(), func(tx *Tx) error {
					var n int
					err := tx.conn.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM ledger`).Scan(&n)
					close(seen)
					<-hold
					return err
				})
			}()
			<-seen
		}
		for w := range writers {
			changes := map[int]string{}
			size := []int{10, 1_000, 20_000}[random.IntN(3)]
			for range 1 + random.IntN(60) {
				changes[w+10*random.IntN(200)] = strings.Repeat(string(rune('a'+random.IntN(26))), size/(1+random.IntN(9)))
			}
			fails := random.IntN(4) == 0
			go func() {
				err := db.Write(context.Background(), func(tx *Tx) error {
					for n, text := range changes {
						if _, err := tx.conn.ExecContext(t.Context(), `INSERT INTO ledger VALUES ($1, $2) ON CONFLICT (n) DO UPDATE SET text = excluded.text`, n, text); err != nil {
							return err
						}
					}
					if fails {
						return refused
					}
					return nil
				})
				results <- result{changes, err}
			}()
		}
		for range writers {
			r := <-results
			if r.err != nil && !errors.Is(r.err, refused) {
				t.Fatal(r.err)
			}
			if r.err == nil {
				maps.Copy(want, r.changes)
			}
		}
		close(hold)
		mu.Lock()
		look := filepath.Join(t.TempDir(), "a.db")
		err := copyDatabase(filepath.Join(copies, "a.db"), look)
		mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, kept(t, look)); diff != "" {
			t.Fatalf("round %d: the disk has something else (-want +got):\n%.2000s", round, diff)
		}
	}
	if len(logs) < 3 {
		t.Errorf("the log began anew %d times: the test is to see that more often", len(logs)-1)
	}
}

// As long as the disk does not have a commit, nobody is told of it: not who wrote,
// and not who read. Others write meanwhile, and share the next commit.
func TestNobodyHearsOfACommitBeforeTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := newLedger(t, longLog)
		syncs, disk := 0, make(chan error)
		db.writer.sync = func() error {
			syncs++
			return <-disk
		}
		var mu sync.Mutex
		heard := map[string]error{}
		tell := func(who string, f func() error) {
			go func() {
				err := f()
				mu.Lock()
				heard[who] = err
				mu.Unlock()
			}()
			synctest.Wait()
		}
		expect := func(when string, who ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for _, w := range who {
				if err, ok := heard[w]; !ok || err != nil {
					t.Errorf("%s: %s has not heard, or of %v", when, w, err)
				}
			}
			if len(heard) != len(who) {
				t.Errorf("%s: %v have heard, want %v", when, heard, who)
			}
			clear(heard)
		}
		tell("first", func() error { return change(db, `INSERT INTO ledger VALUES (1, '')`) })
		tell("reader", func() error {
			n, err := entries(db)
			if err == nil && n != 1 {
				err = errors.New("the reader does not see it")
			}
			return err
		})
		missing := errors.New("missing")
		tell("reader of what is missing", func() error {
			err := db.Read(context.Background(), func(*Tx) error { return missing })
			if errors.Is(err, missing) {
				return nil
			}
			return err
		})
		tell("second", func() error { return change(db, `INSERT INTO ledger VALUES (2, '')`) })
		tell("third", func() error { return change(db, `INSERT INTO ledger VALUES (3, '')`) })
		tell("who changes nothing", func() error { return change(db, `SELECT 1`) })
		expect("before the disk has it")
		disk <- nil
		expect("when the disk has the first", "first", "reader", "reader of what is missing")
		disk <- nil
		expect("when it has the others", "second", "third", "who changes nothing")
		if syncs != 2 {
			t.Errorf("the disk was waited for %d times, want 2", syncs)
		}

		// Errors wait, too: they may come of what the disk does not have.
		tell("fourth", func() error { return change(db, `INSERT INTO ledger VALUES (4, '')`) })
		var again error
		tell("the same again", func() error { again = change(db, `INSERT INTO ledger VALUES (4, '')`); return nil })
		expect("before the disk has the fourth")
		disk <- nil
		expect("when it has", "fourth", "the same again")
		if again == nil {
			t.Error("the same number twice was no error")
		}
	})
}

// After a disk has failed nobody knows what it has, and nothing goes on as if all
// were well.
func TestADiskThatFails(t *testing.T) {
	db, _ := newLedger(t, longLog)
	broken := errors.New("input/output error")
	sync := db.writer.sync
	db.writer.sync = func() error { return broken }
	if err := change(db, `INSERT INTO ledger VALUES (1, '')`); !errors.Is(err, broken) {
		t.Errorf("write: %v", err)
	}
	db.writer.sync = sync
	if err := change(db, `INSERT INTO ledger VALUES (2, '')`); !errors.Is(err, broken) {
		t.Errorf("write afterwards: %v", err)
	}
	if _, err := entries(db); !errors.Is(err, broken) {
		t.Errorf("read afterwards: %v", err)
	}
	// Nor is anybody told an error that comes of what the disk does not have.
	if err := change(db, `INSERT INTO ledger VALUES (1, '')`); !errors.Is(err, broken) {
		t.Errorf("the same number again: %v", err)
	}
	if err := db.Read(t.Context(), func(*Tx) error { return errors.New("missing") }); !errors.Is(err, broken) {
		t.Errorf("read what is missing: %v", err)
	}
	if err := db.Ping(t.Context()); !errors.Is(err, broken) {
		t.Errorf("ping afterwards: %v", err)
	}
}

// A disk says once that it has lost what was written. If that is to a checkpoint
// beside a commit, who wrote hears of it all the same; and the log stays as it is,
// for nobody knows what of it could be moved into the database.
func TestADiskThatFailsACheckpoint(t *testing.T) {
	path := newSQLiteFile(t)
	db, err := Open(t.Context(), "sqlite:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := change(db, `CREATE TABLE ledger (n INTEGER)`); err != nil { // begins a log
		t.Fatal(err)
	}
	if _, err := entries(db); err != nil { // there is a reader to close
		t.Fatal(err)
	}
	log, told := db.writer.log, make(chan struct{})
	err = between(db, func() {
		db.writer.long, db.writer.longAt = 1, 1 // the log is moved after each commit
		db.writer.sync = func() error { <-told; return log.sync() }
		disk, once := log.theirs.FxSync, sync.Once{}
		log.theirs.FxSync = pointer(log, syncMethod(func(tls *libc.TLS, file uintptr, flags int32) (rc int32) {
			once.Do(func() { rc = lib.SQLITE_IOERR_FSYNC; close(told) })
			if rc == lib.SQLITE_OK {
				rc = method[syncMethod](disk)(tls, file, flags)
			}
			return rc
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := change(db, `INSERT INTO ledger VALUES (1)`); err == nil {
		t.Error("write: the disk does not have it")
	}
	if err := db.Ping(t.Context()); err == nil {
		t.Error("ping: nobody knows what the disk has")
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() == 0 {
		t.Errorf("the log is gone: %v %v", info, err)
	}
}

// A process that is killed may have written what the disk does not have yet. The next
// waits for that before anybody reads it.
func TestWhatAKilledProcessWroteIsOnTheDiskFirst(t *testing.T) {
	log, err := newWAL()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := openSQLiteConn(newSQLiteFile(t), log, sqlitePragmas...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), `SELECT COUNT(*) FROM sqlite_master`); err != nil { // reads the log
		t.Fatal(err)
	}
	syncs, disk := 0, log.theirs.FxSync
	log.theirs.FxSync = pointer(log, syncMethod(func(tls *libc.TLS, file uintptr, flags int32) int32 {
		syncs++
		return method[syncMethod](disk)(tls, file, flags)
	}))
	w := newWriter(conn, log, nil)
	if err := w.disk.has(t.Context()); err != nil || syncs != 1 {
		t.Errorf("the disk was waited for %d times: %v", syncs, err)
	}
	w.close()
}

// A log that cannot be written, because the disk is full, fails the transactions of
// a commit, and no others.
func TestAFullDisk(t *testing.T) {
	db, path := newLedger(t, longLog)
	if err := change(db, `INSERT INTO ledger VALUES (1, '')`); err != nil {
		t.Fatal(err)
	}
	log := db.writer.log
	room := log.theirs.FxWrite
	log.theirs.FxWrite = pointer(log, transferMethod(func(*libc.TLS, uintptr, uintptr, int32, int64) int32 { return lib.SQLITE_FULL }))
	if err := change(db, `INSERT INTO ledger VALUES (2, '')`); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("full: %v", err)
	}
	if n, err := entries(db); n != 1 || err != nil {
		t.Errorf("full: %d entries, %v", n, err)
	}
	log.theirs.FxWrite = room
	if err := change(db, `INSERT INTO ledger VALUES (3, '')`); err != nil {
		t.Errorf("with room again: %v", err)
	}
	look := filepath.Join(t.TempDir(), "a.db")
	if err := copyDatabase(path, look); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[int]string{1: "", 3: ""}, kept(t, look)); diff != "" {
		t.Errorf("the disk has something else (-want +got):\n%s", diff)
	}
}

// When a log begins anew, its header is on the disk before anything is written
// over what it had: SQLite counts on that after a loss of power.
func TestTheHeaderOfALogIsOnTheDiskFirst(t *testing.T) {
	db, _ := newLedger(t, 1) // the log is moved after each commit
	log := db.writer.log
	var write, sync uintptr
	if err := between(db, func() { write, sync = log.theirs.FxWrite, log.theirs.FxSync }); err != nil {
		t.Fatal(err)
	}
	var done, first []string
	err := errors.Join(
		between(db, func() {
			log.theirs.FxWrite = pointer(log, transferMethod(func(tls *libc.TLS, file, memory uintptr, n int32, offset int64) int32 {
				done = append(done, fmt.Sprintf("%d bytes at %d", n, offset))
				return method[transferMethod](write)(tls, file, memory, n, offset)
			}))
			log.theirs.FxSync = pointer(log, syncMethod(func(tls *libc.TLS, file uintptr, flags int32) int32 {
				done = append(done, "sync")
				return method[syncMethod](sync)(tls, file, flags)
			}))
		}),
		between(db, func() { done = nil }),
		change(db, `INSERT INTO ledger VALUES (1, '')`),
		between(db, func() { first = done[:min(4, len(done))] }))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"32 bytes at 0", "sync", "4120 bytes at 32", "sync"}; !cmp.Equal(want, first) {
		t.Errorf("the log is written by %q, want %q", first, want)
	}
}
