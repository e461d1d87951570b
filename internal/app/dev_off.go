//go:build !dev

package app

// devCommands are those of builds for development: none in others.
type devCommands struct{}
