package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"runbell/internal/webhook"
)

type listenCmd struct {
	Addr      string `help:"Listen address." default:":9000" placeholder:"HOST:PORT"`
	Secret    string `help:"Signing secret of the webhook. Requests with an invalid signature get 401." var:"RUNBELL_WEBHOOK_SECRET" secret:"" placeholder:"whsec_…"`
	PublicKey string `help:"Public key of the webhook (ed25519). Requests with an invalid signature get 401." var:"RUNBELL_WEBHOOK_PUBLIC_KEY" placeholder:"whpk_…"`
	Forward   string `help:"Forward each webhook to this URL, and return its response." placeholder:"URL"`
	Fail      int    `help:"Respond with 500 to the first N webhooks, to see retries." placeholder:"N"`
	JSON      bool   `name:"json" help:"Print one JSON object per line."`
}

func (listenCmd) Help() string {
	return `Prints one line for each webhook: time, event, build and group, counts, attempt, sequence, and whether the
signature is valid. Ctrl-C stops it.

By default, the server refuses to call private addresses. To let it call this machine, start it with
RUNBELL_WEBHOOK_ALLOW=127.0.0.0/8.

Examples:

    runbell listen
    runbell listen --secret whsec_… --fail 2
    runbell listen --forward http://localhost:3000/hooks`
}

// Run listens until ctx ends.
func (c *listenCmd) Run(ctx context.Context, s *streams, env *environment) error {
	rc, err := newReceiver(webhook.Secret(c.Secret), webhook.PublicKey(c.PublicKey))
	if err != nil {
		return usagef("%w", err)
	}
	if c.Fail < 0 {
		return usagef("--fail must not be negative")
	}
	rc.failNext = c.Fail
	if c.Forward != "" {
		target, err := url.Parse(c.Forward)
		if err != nil || (target.Scheme != "http" && target.Scheme != "https") || target.Host == "" {
			return usagef("--forward must be a URL such as http://localhost:3000/hooks, not %q", c.Forward)
		}
		rc.answer = forwardTo(target.String())
	}
	if c.JSON {
		out := json.NewEncoder(s.Out)
		out.SetEscapeHTML(false)
		rc.seen = func(got received) { _ = out.Encode(got) }
	} else {
		look := styleFor(s.Out, env)
		rc.seen = func(got received) { fmt.Fprintln(s.Out, look.line(got)) }
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return busyPort(err, "--addr")
	}
	checked := "signatures are checked"
	if len(rc.checks) == 0 {
		checked = "signatures are not checked: give --secret"
	}
	// Not among the webhooks: with --json, those are for a machine.
	fmt.Fprintf(s.Err, "Waiting for webhooks at http://%s (%s)\n", local(listener.Addr()), checked)
	return receive(ctx, listener, rc)
}

// receive serves until ctx ends, then finishes what has begun.
func receive(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(deadline)
	})
	err := server.Serve(listener)
	if stop() {
		return err // it failed by itself
	}
	if err := <-stopped; !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return server.Close()
}

// local is an address as this machine would call it.
func local(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", tcp.Port)
	}
	return addr.String()
}

// forwardTo passes requests on, with their body and headers, and answers what
// is answered there.
func forwardTo(target string) func(http.ResponseWriter, *http.Request, []byte) int {
	client := &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(w http.ResponseWriter, r *http.Request, body []byte) int {
		bad := func(err error) int {
			if inner, ok := errors.AsType[*url.Error](err); ok {
				err = inner.Err
			}
			http.Error(w, "cannot forward: "+err.Error(), http.StatusBadGateway)
			return http.StatusBadGateway
		}
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, target, bytes.NewReader(body))
		if err != nil {
			return bad(err)
		}
		req.Header = r.Header.Clone()
		for _, hop := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding",
			"Upgrade"} {
			req.Header.Del(hop)
		}
		resp, err := client.Do(req)
		if err != nil {
			return bad(err)
		}
		defer func() { _ = resp.Body.Close() }()
		for _, name := range []string{"Content-Type", "Retry-After"} {
			if value := resp.Header.Get(name); value != "" {
				w.Header().Set(name, value)
			}
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, io.LimitReader(resp.Body, maxWebhook)) // a sender that left gets no answer
		return resp.StatusCode
	}
}
