package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"runbell/internal/store"
	"runbell/internal/testkit"
)

// A process may have been killed when it had made the file and nothing in it.
func TestAFileWithNothingInItGetsTheSchema(t *testing.T) {
	for name, prepare := range map[string]func(path string){
		"empty": func(path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"no table": func(path string) { testkit.TouchSQLite(t, path) },
	} {
		path := filepath.Join(t.TempDir(), "runbell.db")
		prepare(path)
		db := testkit.Open(t, "sqlite:"+path)
		fill(t, db, stored())
		if e := readEverything(t, db); e.Project.ID != "shop" {
			t.Errorf("%s: %+v", name, e.Project)
		}
	}
}

func TestAURLThatNamesNoFile(t *testing.T) {
	for _, url := range []string{"sqlite:", "sqlite::memory:"} {
		if _, err := store.Open(t.Context(), url, testkit.Sealer(t)); err == nil || !strings.Contains(err.Error(), "names no file: sqlite:PATH") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A file that cannot be the database stays as it is, and the message names it.
func TestAFileThatIsNoDatabase(t *testing.T) {
	half := filepath.Join(t.TempDir(), "half.db")
	closeNow(t, "sqlite:"+half)
	if err := os.Truncate(half, 100_000); err != nil {
		t.Fatal(err)
	}
	damaged, err := os.ReadFile(half)
	if err != nil {
		t.Fatal(err)
	}
	for want, content := range map[string]string{
		"is not an SQLite database: name another file": strings.Repeat("a list of shops\n", 1000),
		"is damaged: restore the backup":               string(damaged),
	} {
		path := filepath.Join(t.TempDir(), "shops.txt")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the refusal leaves nothing locked
			db, err := store.Open(t.Context(), "sqlite:"+path, testkit.Sealer(t))
			if err == nil {
				db.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), path+" "+want) {
				t.Errorf("the message is not %q: %v", want, err)
			}
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != content {
			t.Errorf("the file has %d bytes now, %v", len(now), err)
		}
	}
}

// Of several that start on a new file at once, one makes it and has it.
func TestANewFileIsMadeByOneOfMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runbell.db")
	opened := make([]*store.DB, 8)
	var wg sync.WaitGroup
	for i := range opened {
		wg.Go(func() {
			var err error
			opened[i], err = store.Open(t.Context(), "sqlite:"+path, testkit.Sealer(t))
			if err != nil && !strings.Contains(err.Error(), "another runbell uses this database") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	owners := slices.DeleteFunc(opened, func(db *store.DB) bool { return db == nil })
	if len(owners) != 1 {
		t.Fatalf("%d have it", len(owners))
	}
	testkit.Project(t, owners[0], "shop")
	if err := owners[0].Close(); err != nil {
		t.Fatal(err)
	}
	testkit.CheckSQLite(t, path)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err = errors.Join(err, os.WriteFile(to, b, 0o600)); err != nil {
		t.Fatal(err)
	}
}
