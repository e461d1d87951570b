//go:build !dev

package app

import "github.com/alecthomas/kong"

// devCommands are those of builds for development: none in others.
func devCommands() kong.Plugins { return nil }
