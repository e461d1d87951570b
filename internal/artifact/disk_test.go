package artifact_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runbell/internal/artifact"
	"runbell/internal/artifact/storetest"
)

func openDisk(t *testing.T, dir string) *artifact.Disk {
	t.Helper()
	d, err := artifact.OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
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
	openDisk(t, dir) // again
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
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := artifact.OpenDisk(file); err == nil {
		t.Error("a file was opened as a directory")
	}
	d := openDisk(t, filepath.Join(dir, "gone"))
	if err := os.RemoveAll(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := d.Check(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the check says %v", err)
	}
}
