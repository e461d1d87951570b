//go:build !dev

package ui

import "embed"

// assets are the templates, the stylesheet and the script.
//
//go:embed templates static
var assets embed.FS

// made caches a value that depends on the assets. Development builds make it again each time.
func made[T any](make func() T) func() T {
	v := make()
	return func() T { return v }
}
