package artifact_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runbell/internal/artifact"
	"runbell/internal/artifact/storetest"
)

func openDisk(t *testing.T, dir string) *artifact.Disk {
	d := artifact.NewDisk(dir)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// filesIn lists what is in a directory of a Disk.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "artifacts")
	d := openDisk(t, dir)
	t.Run("suite", func(t *testing.T) { storetest.Run(t, d) })
	if left := filesIn(t, dir); len(left) > 0 {
		t.Errorf("these files are left: %q", left)
	}
	if err := openDisk(t, dir).Check(t.Context()); err != nil {
		t.Errorf("opened again: %v", err)
	}
	// A key cannot lead out of the directory.
	for _, key := range []string{"../outside", "/etc/passwd", "00/../../outside"} {
		if err := d.Put(t.Context(), key, strings.NewReader("x"), 1, ""); err == nil {
			t.Errorf("%s was written", key)
		}
		if _, err := d.Open(t.Context(), key); err == nil {
			t.Errorf("%s was read", key)
		}
	}
}

func TestDiskThatCannotBeUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "artifacts")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := openDisk(t, dir)
	const key = "00/0000-key"
	_, errOpen := d.Open(t.Context(), key)
	for what, err := range map[string]error{"check": d.Check(t.Context()), "open": errOpen, "delete": d.Delete(t.Context(), key),
		"put": d.Put(t.Context(), key, strings.NewReader("x"), 1, "")} {
		if err == nil {
			t.Errorf("%s: a file was taken for a directory", what)
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := d.Check(t.Context()); err != nil {
		t.Errorf("once it can be made: %v", err)
	}
	if err := d.Put(t.Context(), key, strings.NewReader("x"), 1, ""); err != nil {
		t.Errorf("once it can be made: %v", err)
	}
}
