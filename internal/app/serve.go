package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"runbell/internal/config"
	"runbell/internal/server"
)

type serveCmd struct {
	config.Serve
}

// Help is shown below the usage.
func (serveCmd) Help() string {
	return "Serves the dashboard, the REST API and the reporter API, and delivers webhooks. " +
		"Stops cleanly on SIGTERM or Ctrl-C."
}

// Run serves until ctx ends.
func (c *serveCmd) Run(ctx context.Context, s *streams, version versionText) error {
	log := c.Logger(s.Err)
	srv, err := server.Start(ctx, c.Serve, string(version), log)
	if err != nil {
		return busyPort(err, "--addr or RUNBELL_ADDR")
	}
	// The heap is small and requests make much garbage, so it is collected less
	// often, see docs/performance.md. Not during the start: what that leaves
	// would be kept for long. GOGC of the operator takes precedence.
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(400)
	}
	// Close to this, garbage is collected at once: large bodies do not leave five
	// times their size. It does not limit memory in use.
	if _, set := os.LookupEnv("GOMEMLIMIT"); !set {
		debug.SetMemoryLimit(160 << 20)
	}
	if err := welcome(s.Out, srv, c.APIKey != ""); err != nil {
		return errors.Join(err, srv.Stop())
	}
	return srv.Wait()
}

// reporterURL is where a reporter on this machine finds the server. Node before
// 20 tries IPv6 for localhost and stops there; the server listens on IPv4.
func reporterURL(publicURL string) string {
	return strings.Replace(publicURL, "//localhost:", "//127.0.0.1:", 1)
}

// welcome says what to do next while there is nothing to see. withKey says that
// the server was started with an API key.
func welcome(out io.Writer, srv *server.Server, withKey bool) error {
	if !srv.Empty {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nRunbell is running at %s and has no projects yet.\n\n", srv.PublicURL)
	if srv.SetupURL != "" {
		fmt.Fprintf(&b, "  1. Open this link and choose a password. It creates the first account, and works once:"+
			"\n\n    %s\n\n"+
			"     'runbell user invite you@example.com --role admin' prints another one.\n\n"+
			"  2. Create projects, keys and webhooks in the dashboard, or with the commands below.\n\n", srv.SetupURL)
	}
	if !withKey {
		b.WriteString("  Restart it with an API key of your choice, which the commands below need too:\n\n" +
			"    export RUNBELL_API_KEY=$(openssl rand -hex 24)\n    runbell serve\n\n  Then, in a terminal with the same " +
			"RUNBELL_API_KEY:\n\n")
	} else {
		b.WriteString("  In another terminal, with the same RUNBELL_API_KEY:\n\n")
	}
	url := ""
	if srv.PublicURL != config.DefaultPublicURL {
		url = "    export RUNBELL_URL=" + srv.PublicURL + "\n"
	}
	b.WriteString(url + `    runbell project create "My shop" --id my-shop      prints the record key
    runbell webhook create --project my-shop https://example.com/hooks/cypress
                                                       prints the signing secret

  To try webhooks on this machine: start with RUNBELL_WEBHOOK_ALLOW=127.0.0.0/8,
  create a webhook for http://127.0.0.1:9000/, and run the 'runbell listen' line that this prints.

  Record, in the directory of a project with Cypress 10 or newer:

    RUNBELL_RECORD_KEY=rk_… runbell cypress run --url ` + reporterURL(srv.PublicURL) + ` --project my-shop

`)
	_, err := io.WriteString(out, b.String())
	return err
}
