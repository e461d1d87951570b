// Command runbell is a dashboard for Cypress tests that tells other systems
// about runs through webhooks that do not get lost.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"runbell/internal/app"
)

// version is set when a release is built; without it the build says what it is.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(app.Main(ctx, version, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
