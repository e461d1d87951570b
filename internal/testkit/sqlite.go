package testkit

import (
	"database/sql"
	"testing"

	_ "modernc.org/sqlite" // the driver that the store uses too
)

// sqliteFile gives f a SQLite database file as it is, without the store: to look at what a process has left behind, or
// to make of it what no version of the program would.
func sqliteFile(t testing.TB, path string, f func(*sql.DB)) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Errorf("close %s: %v", path, err)
		}
	}()
	f(db)
}

// SetSchema makes a database file say that it has another schema version than it has.
func SetSchema(t testing.TB, path string, version int64) {
	t.Helper()
	sqliteFile(t, path, func(db *sql.DB) {
		if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, 1)`, version); err != nil {
			t.Fatal(err)
		}
	})
}

// TouchSQLite makes a SQLite file as a process leaves it that is killed before it makes the first table.
func TouchSQLite(t testing.TB, path string) {
	t.Helper()
	sqliteFile(t, path, func(db *sql.DB) {
		if _, err := db.Exec(`PRAGMA journal_mode(WAL)`); err != nil {
			t.Fatal(err)
		}
	})
}

// CheckSQLite fails the test if a database file is damaged, or a row of it points to one that is not there.
func CheckSQLite(t testing.TB, path string) {
	t.Helper()
	sqliteFile(t, path, func(db *sql.DB) {
		var answer string
		if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&answer); err != nil || answer != "ok" {
			t.Errorf("integrity of %s: %s, %v", path, answer, err)
		}
		var orphans int
		if err := db.QueryRow(`SELECT COUNT(*) FROM pragma_foreign_key_check`).Scan(&orphans); err != nil || orphans != 0 {
			t.Errorf("%d rows of %s point to nothing (%v)", orphans, path, err)
		}
	})
}
