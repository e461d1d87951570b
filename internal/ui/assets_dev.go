//go:build dev

package ui

import "os"

// assets are read from the repository, in which development builds run.
var assets = os.DirFS("internal/ui")

// made makes a value that depends on the assets each time, so that a change shows at once.
func made[T any](make func() T) func() T { return make }
