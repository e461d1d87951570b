package testkit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"runbell/internal/store"
	"runbell/internal/webhook"
)

// secretKey is what Sealer encrypts with.
var secretKey = bytes.Repeat([]byte{7}, webhook.SealKeySize)

// SecretKey is the secret key of servers whose database a test opens with OpenData.
func SecretKey() string { return base64.StdEncoding.EncodeToString(secretKey) }

// OpenData opens the SQLite database in the data directory of a server that has
// stopped. The caller closes it before the server starts again.
func OpenData(t testing.TB, dir string) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), "sqlite:"+filepath.Join(dir, "runbell.db"), Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// Sealer encrypts with a fixed key.
func Sealer(t testing.TB) *webhook.Sealer {
	t.Helper()
	s, err := webhook.NewSealer(secretKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Open opens a database by its URL and closes it when the test ends.
func Open(t testing.TB, url string) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), url, Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

// SQLite is a store on a new SQLite file.
func SQLite(t testing.TB) *store.DB {
	t.Helper()
	return Open(t, MigratedFile(t, t.TempDir()))
}

// MigratedFile is the URL of a new SQLite file with the schema of today in a directory: a copy, because to make the
// schema takes longer than most tests do.
func MigratedFile(t testing.TB, dir string) string {
	t.Helper()
	template, err := migratedFile()
	if err != nil {
		t.Fatalf("prepare SQLite: %v", err)
	}
	path := filepath.Join(dir, "runbell.db")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // new: nobody means to lose what is there
	if err == nil {
		_, err = f.Write(template)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + path
}

// migratedFile is the content of the file that MigratedFile copies.
var migratedFile = sync.OnceValues(func() (_ []byte, err error) {
	dir, err := os.MkdirTemp("", "runbell-sqlite-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "runbell.db")
	db, err := store.Open(context.Background(), "sqlite:"+path, nil)
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil { // the last connection writes the log into the file
		return nil, err
	}
	return os.ReadFile(path)
})

// OnEach runs a test on a new store of each kind: the one suite both must pass.
func OnEach(t *testing.T, f func(t *testing.T, db *store.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, Open(t, Migrated(t))) })
}
