package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"runbell/internal/client"
)

// demoHooks are receivers that behave as receivers do, for webhooks beside the one
// whose requests are printed.
var demoHooks = []struct {
	path, label string
	scope       string
	status      int
	disabled    bool // by a person, in the end
}{
	{"/chat", "Team chat", "run", http.StatusNoContent, false},
	{"/deploy", "Deploy gate (broken)", "run", http.StatusInternalServerError, false},
	{"/tickets", "Ticket system (rate limited)", "group", http.StatusServiceUnavailable, false},
	{"/old", "Old dashboard (disabled)", "group", http.StatusServiceUnavailable, true},
}

// moreHooks creates the webhooks of demoHooks, and serves their receivers until
// stop is called.
func (d *demo) moreHooks(ctx context.Context) (stop func(), err error) {
	addr, stop, err := d.serveHooks()
	if err != nil {
		return nil, err
	}
	for _, h := range demoHooks {
		target := "http://" + addr + h.path
		created, err := d.api.CreateWebhook(ctx, demoProject,
			client.WebhookSettings{URL: &target, Label: client.Set(h.label), Scope: h.scope})
		if err != nil {
			stop()
			return nil, err
		}
		if h.disabled {
			d.toDisable = append(d.toDisable, created.Value.HookID)
		}
	}
	return stop, nil
}

// serveHooks serves the receivers of demoHooks until stop is called.
func (d *demo) serveHooks() (addr string, stop func(), err error) {
	mux := http.NewServeMux()
	for _, h := range demoHooks {
		mux.HandleFunc(h.path, func(w http.ResponseWriter, _ *http.Request) {
			switch h.status {
			case http.StatusServiceUnavailable:
				w.Header().Set("Retry-After", "3600")
			case http.StatusInternalServerError:
				w.Header().Set("Content-Type", "text/plain")
			}
			w.WriteHeader(h.status)
			if h.status/100 != 2 {
				_, _ = fmt.Fprintln(w, http.StatusText(h.status)) // a sender that left gets no answer
			}
		})
	}
	listener, err := net.Listen("tcp", d.hooks)
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(listener) }() // until Close
	return listener.Addr().String(), func() { _ = srv.Close() }, nil
}

// disableHooks disables those that a person is to have disabled.
func (d *demo) disableHooks(ctx context.Context) error {
	for _, id := range d.toDisable {
		if _, err := d.api.DisableWebhook(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
