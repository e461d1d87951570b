//go:build dev

package ui

import "os"

// assets are read from the repository, in which a build for development runs.
var assets = os.DirFS("internal/ui")

// made makes what depends on assets each time, so that a change shows at once.
func made[T any](make func() T) func() T { return make }
