package database

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCopyWhileOthersWrite copies a database while it grows: the copy has a
// prefix of what was committed, with all that was there when it began.
func TestCopyWhileOthersWrite(t *testing.T) {
	db, path := newLedger(t)
	const before = 100
	for n := range before {
		if err := change(db, `INSERT INTO ledger (n, text) VALUES ($1, $2)`, n, strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := before; ; n++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := change(db, `INSERT INTO ledger (n, text) VALUES ($1, 'later')`, n); err != nil {
				stopped <- err
				return
			}
		}
	}()
	to := filepath.Join(t.TempDir(), "copy.db")
	err := CopySQLite(t.Context(), path, to)
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal("a write failed beside the copy:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v; want it readable by its owner only", info.Mode(), err)
	}
	c, err := Open(t.Context(), "sqlite:"+to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	copied := entries(t, c)
	if len(copied) < before {
		t.Fatalf("the copy has %d rows, want all %d that were there before", len(copied), before)
	}
	if !slices.IsSorted(copied) || copied[len(copied)-1] != len(copied)-1 {
		t.Error("the copy has holes")
	}
}

func TestCopyRefusals(t *testing.T) {
	_, path := newLedger(t)
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	text := filepath.Join(dir, "text")
	for _, name := range []string{taken, text} {
		if err := os.WriteFile(name, []byte(strings.Repeat("a text, not a database. ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"a file that exists is not written over": {path, taken, "exists"},
		"no database":                            {text, filepath.Join(dir, "a"), "not an SQLite database"},
		"no file":                                {filepath.Join(dir, "none"), filepath.Join(dir, "b"), "open the database"},
	} {
		if err := CopySQLite(t.Context(), c.from, c.to); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if c.to != taken {
			if _, err := os.Stat(c.to); err == nil {
				t.Errorf("%s: a file is left", name)
			}
		}
	}
}
