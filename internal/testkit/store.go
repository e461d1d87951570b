package testkit

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"runbell/internal/store"
	"runbell/internal/webhook"
)

// Sealer encrypts with a fixed key.
func Sealer(t testing.TB) *webhook.Sealer {
	t.Helper()
	s, err := webhook.NewSealer(bytes.Repeat([]byte{7}, webhook.SealKeySize))
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
	return Open(t, "sqlite:"+filepath.Join(t.TempDir(), "runbell.db"))
}

// OnEach runs a test on a new store of each kind: the one suite both must pass.
func OnEach(t *testing.T, f func(t *testing.T, db *store.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, Open(t, Postgres(t))) })
}
