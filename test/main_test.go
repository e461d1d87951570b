// Package test has the tests of the repository as a whole: the direction of
// imports, and whether the documentation says what is true.
package test

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// repository has the files of the repository, by the paths that people write. The go command notes which of them a test
// opens, and runs the tests again when one has changed. It would not if TestMain went to the top of the repository:
// it does not see that, and looks for the files here.
var repository = os.DirFS("..")

// read is the content of a file of the repository.
func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := fs.ReadFile(repository, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// walk calls f with the path of each file of the repository, but for those in folders that are hidden or have one of
// the names.
func walk(t *testing.T, f func(file string), without ...string) {
	t.Helper()
	without = append(without, "node_modules")
	err := fs.WalkDir(repository, ".", func(file string, entry fs.DirEntry, err error) error {
		switch name := path.Base(file); {
		case err != nil:
			return err
		case !entry.IsDir():
			f(file)
		case file != "." && (strings.HasPrefix(name, ".") || slices.Contains(without, name)):
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
