package dispatch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"runbell/internal/outbound"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	// keepBody is how much of a response is kept in the log.
	keepBody = 8 << 10
	// readBody is how much of a response is read at all, so that its connection
	// can be used again; after that it is closed.
	readBody = 64 << 10
	// keepHeaders bounds the response headers in the log.
	keepHeaders = 50
	masked      = "…"
)

// attempt sends one delivery once.
func (e *Engine) attempt(ctx context.Context, c store.Claim) outcome {
	a := webhook.Attempt{DeliveryID: c.ID, Number: c.Attempts + 1, StartedAt: time.Now().UTC()}
	retryAfter := e.send(ctx, c, &a)
	a.Duration = time.Since(a.StartedAt)
	o := outcome{claim: c, attempt: a, verdict: delivered}
	if a.Class != webhook.OK {
		o.verdict = e.retry(a.Number, retryAfter)
	}
	e.Log.Info("webhook attempt", "delivery", c.ID, "webhook_id", c.EventID, "event", string(c.Event.Kind), "run", c.RunID,
		"endpoint", c.EndpointID, "attempt", a.Number, "class", string(a.Class), "status", a.Status,
		"duration", a.Duration.Round(time.Microsecond), "error", a.Error)
	return o
}

// send makes the request and reads the answer into a. It returns how long the
// receiver asked us to wait.
func (e *Engine) send(ctx context.Context, c store.Claim, a *webhook.Attempt) time.Duration {
	req, err := e.request(ctx, c, a)
	if err != nil {
		a.Class, a.Error = webhook.BadRequest, err.Error()
		return 0
	}
	resp, err := e.Client.Do(req)
	if err != nil {
		a.Class, a.Error = classify(err)
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	a.Status = resp.StatusCode
	a.ResponseHeaders = loggedHeaders(resp.Header)
	body, err := io.ReadAll(io.LimitReader(resp.Body, readBody))
	a.ResponseBody = body[:min(len(body), keepBody)]
	if err != nil {
		// The status alone is not an answer: a success counts when it has arrived.
		a.Class, a.Error = classify(err)
		return 0
	}
	if resp.StatusCode/100 == 2 {
		a.Class = webhook.OK
		return 0
	}
	a.Class, a.Error = webhook.BadStatus, "answered "+resp.Status
	if resp.StatusCode/100 == 3 {
		a.Error += ": redirects are not followed, change the URL of the webhook"
	}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		return parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return 0
}

// request makes the signed request of an attempt and notes its headers for the
// log, the custom ones masked.
func (e *Engine) request(ctx context.Context, c store.Claim, a *webhook.Attempt) (*http.Request, error) {
	if c.Trouble != nil {
		return nil, c.Trouble
	}
	signer, err := webhook.NewSigner("", c.Endpoint.Secret)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Endpoint.URL, bytes.NewReader(c.Event.Payload))
	if err != nil {
		return nil, errors.New("the URL of the webhook is not valid")
	}
	a.RequestHeaders = map[string]string{}
	for name, value := range c.Endpoint.Headers {
		req.Header.Set(name, value)
		a.RequestHeaders[http.CanonicalHeaderKey(name)] = masked
	}
	for name, value := range map[string]string{
		"Content-Type":          "application/json",
		"User-Agent":            userAgent(e.Version),
		"X-Timestamp":           strconv.FormatInt(a.StartedAt.UnixMilli(), 10),
		webhook.HeaderID:        c.EventID,
		webhook.HeaderTimestamp: strconv.FormatInt(a.StartedAt.Unix(), 10),
		webhook.HeaderSignature: string(signer.Sign(nil, c.EventID, a.StartedAt, c.Event.Payload)),
		"X-Runbell-Attempt":     strconv.Itoa(a.Number),
		"X-Runbell-Sequence":    strconv.FormatInt(c.Event.Sequence, 10),
	} {
		req.Header.Set(name, value)
		a.RequestHeaders[name] = value
	}
	return req, nil
}

func loggedHeaders(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		if len(out) == keepHeaders {
			break
		}
		value := strings.Join(values, ", ")
		if name == "Set-Cookie" {
			value = masked
		}
		out[name] = value[:min(len(value), 1024)]
	}
	return out
}

// classify puts an error into words that a person can act on.
func classify(err error) (webhook.Class, string) {
	text := err.Error()
	if i := strings.Index(text, `": `); i >= 0 && strings.HasPrefix(text, `Post "`) {
		text = text[i+3:] // the URL may carry a token; whoever reads the log sees the endpoint anyway
	}
	var dns *net.DNSError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, outbound.ErrBlocked):
		return webhook.Blocked, text
	case errors.Is(err, outbound.ErrProxy):
		return webhook.Proxy, text // before the rest: it is not the receiver that refused
	case errors.As(err, &dns) && dns.IsNotFound:
		return webhook.DNS, fmt.Sprintf("the name %s has no address", dns.Name)
	case errors.As(err, &dns):
		return webhook.DNS, fmt.Sprintf("the name %s cannot be looked up: %s", dns.Name, dns.Err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return webhook.Timeout, "no complete answer within the timeout"
	case errors.As(err, &unknown):
		return webhook.TLS, text + "; RUNBELL_WEBHOOK_CA_FILE of the server can add a private one"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &alert), errors.As(err, &record), errors.As(err, &verification), errors.As(err, &hostname):
		return webhook.TLS, text
	case errors.Is(err, syscall.ECONNREFUSED):
		return webhook.RefusedTCP, "nothing listens at the address: connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return webhook.RefusedTCP, "no way leads to the address: " + text
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return webhook.Reset, "the connection broke before the answer was complete"
	default:
		return webhook.OtherError, text
	}
}

// parseRetryAfter reads seconds or an HTTP date; what cannot be read is 0.
func parseRetryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if s, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
		wait = time.Duration(min(s, int(webhook.MaxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), webhook.MaxRetryAfter)
}
