package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// healthWithin is how long a server may take to answer a probe.
const healthWithin = 4 * time.Second

type healthCmd struct {
	Addr string `help:"Listen address of the server." var:"RUNBELL_ADDR" default:"127.0.0.1:8484" placeholder:"HOST:PORT"`
}

func (healthCmd) Help() string {
	return `Checks whether the server on this machine is ready, like GET /readyz. Exits with 0 if it is; otherwise
prints the reason and exits with 1. Use it as the health check of a container: like the server, it reads RUNBELL_ADDR.

Example:

    HEALTHCHECK CMD ["runbell", "health"]`
}

// Run asks once.
func (c *healthCmd) Run(ctx context.Context, s *streams) error {
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return usagef("--addr must be HOST:PORT, such as 127.0.0.1:8484")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // a server that listens everywhere listens there
	}
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the server does not respond: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("the server does not respond: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server is not ready: %s (%s)", strings.TrimSpace(string(text)), resp.Status)
	}
	_, err = s.Out.Write(text)
	return err
}
