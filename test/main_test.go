// Package test has the tests of the repository as a whole: the direction of
// imports, and whether the documentation says what is true.
package test

import (
	"fmt"
	"os"
	"testing"
)

// TestMain runs the tests at the top of the repository, so that paths in them
// are as people write them.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m.Run()
}
