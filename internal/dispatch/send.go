package dispatch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"runbell/internal/notify"
	"runbell/internal/outbound"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// keepHeaders limits the response headers in the log, and keepValue each of
// their values.
const (
	keepHeaders = 50
	keepValue   = 1024
	keepLine    = 300 // of a status line, or an error
)

// setup is the common part of the requests to an endpoint.
type setup struct {
	endpoint webhook.Endpoint
	target   outbound.Target
	sender   notify.Sender
	log      *slog.Logger // with the endpoint
	err      error        // why no request can be made
}

func newSetup(w store.Work, userAgent string, log *slog.Logger) *setup {
	s := &setup{endpoint: w.Endpoint, log: log.With("endpoint", w.Endpoint.ID)}
	if s.err = w.Trouble; s.err != nil {
		return s
	}
	if s.target, s.err = outbound.NewTarget(w.Endpoint.URL); s.err != nil {
		return s
	}
	s.sender, s.err = notify.New(w.Endpoint, userAgent)
	return s
}

// job is a delivery to send.
type job struct {
	setup      *setup
	claim      store.Claim
	struggling bool
}

// sent is the outcome of a job.
type sent struct {
	outcome    *store.Outcome
	struggling bool
}

// worker sends one delivery after another over its own connection.
func (l *lane) worker() {
	var line *outbound.Line
	var of *setup
	hangUp := func() {
		if line != nil {
			line.Close()
		}
	}
	defer hangUp()
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for {
		select {
		case j, ok := <-l.work:
			if !ok {
				return
			}
			if j.setup != of && j.setup.err == nil {
				if of == nil || j.setup.target != of.target {
					hangUp()
					line = l.engine.Poster.Line(j.setup.target)
				}
				of = j.setup
			}
			o := l.engine.attempt(line, j)
			l.sent <- sent{o, j.struggling}
			timer.Reset(linger)
		case <-timer.C:
			hangUp() // before the receiver does
		}
	}
}

// attempt sends one delivery once.
func (e *Engine) attempt(line *outbound.Line, j job) *store.Outcome {
	c := j.claim
	o := &store.Outcome{Delivery: c.Delivery,
		Attempt: webhook.Attempt{DeliveryID: c.ID, Number: c.Attempts + 1, StartedAt: time.Now().UTC()}}
	a := &o.Attempt
	retryAfter := send(line, j, a)
	a.Duration = time.Since(a.StartedAt)
	o.EndedAt = e.DB.Now()
	e.metrics.observe(c.Delivery, *a)
	j.report(a)
	o.Decision = e.Schedule.Judge(a.Number-c.Earlier, a.Class, a.Status, retryAfter, rand.Float64())
	return o
}

// report writes the log line of an attempt.
func (j job) report(a *webhook.Attempt) {
	attrs := []slog.Attr{slog.String("delivery", j.claim.ID), slog.String("webhook_id", j.claim.EventID),
		slog.String("event", string(j.claim.Kind)), slog.String("run", j.claim.RunID), slog.Int("attempt", a.Number),
		slog.String("class", string(a.Class)), slog.Int("status", a.Status),
		slog.Duration("duration", a.Duration.Round(time.Microsecond))}
	if a.Error != "" {
		attrs = append(attrs, slog.String("error", a.Error))
	}
	j.setup.log.LogAttrs(context.Background(), slog.LevelInfo, "webhook attempt", attrs...)
}

// send makes the request and reads the response into a. It returns how long the
// receiver asked us to wait.
func send(line *outbound.Line, j job, a *webhook.Attempt) time.Duration {
	if j.setup.err != nil {
		a.Class, a.Error = webhook.BadRequest, j.setup.err.Error()
		return 0
	}
	c := j.claim
	request := j.setup.sender.Request(notify.Message{EventID: c.EventID, RunID: c.RunID, Sequence: c.Sequence,
		Attempt: a.Number, At: a.StartedAt, Payload: c.Payload, Facts: c.Facts})
	a.RequestHeaders = request.Headers
	line.Reset()
	for _, h := range request.Headers {
		line.Header(h.Name, h.Value)
	}
	answer, err := line.Post(request.Body)
	a.Status, a.ResponseHeaders, a.ResponseBody = answer.Status, loggedHeaders(answer.Header), answer.Body
	accepted := j.setup.sender.Accepted(a.Status)
	if err != nil && (a.Status == 0 || accepted) {
		// A success counts only once the whole response has arrived. For a failure, the status is enough.
		class, text := classify(err)
		a.Class, a.Error = class, run.Clip(text, keepLine)
		return 0
	}
	if accepted {
		a.Class = webhook.OK
		return 0
	}
	a.Class, a.Error = webhook.BadStatus, "responded with "+run.Clip(answer.Text, keepLine)
	if a.Status/100 == 3 {
		a.Error += ": redirects are not followed, change the URL of the webhook"
	}
	return parseRetryAfter(answer.Get("Retry-After"), time.Now())
}

// loggedHeaders returns the response headers that the log keeps, in order. Headers with the
// same name are joined.
func loggedHeaders(fields []outbound.Field) webhook.Headers {
	out := make(webhook.Headers, 0, min(len(fields), keepHeaders))
	for i, f := range fields {
		if i > 0 && f.Name == fields[i-1].Name {
			last := &out[len(out)-1]
			last.Value = keptValue(last.Value + ", " + f.Value)
			continue
		}
		if len(out) == keepHeaders {
			break
		}
		out = append(out, webhook.Header{Name: run.Clip(f.Name, keepLine), Value: keptValue(f.Value),
			Secret: f.Name == "Set-Cookie"})
	}
	return out
}

func keptValue(s string) string { return s[:min(len(s), keepValue)] }

func userAgent(version string) string { return "Runbell/" + strings.ReplaceAll(version, " ", "-") }

// classify returns the class of an error and a text that tells people what to do.
func classify(err error) (webhook.Class, string) {
	text := err.Error()
	var dns *net.DNSError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var op *net.OpError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, outbound.ErrBlocked):
		return webhook.Blocked, text
	case errors.Is(err, outbound.ErrProxy):
		return webhook.Proxy, text // first, because the proxy refused, not the receiver
	case errors.As(err, &dns) && dns.IsNotFound:
		return webhook.DNS, fmt.Sprintf("could not resolve %s", dns.Name)
	case errors.As(err, &dns):
		return webhook.DNS, fmt.Sprintf("the lookup of %s failed: %s", dns.Name, dns.Err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return webhook.Timeout, "no complete response within the timeout"
	case errors.As(err, &unknown):
		return webhook.TLS, text + "; RUNBELL_WEBHOOK_CA_FILE of the server can add a private one"
	case errors.As(err, &alert), errors.As(err, &record), errors.As(err, &verification), errors.As(err, &hostname),
		// crypto/tls has no type for other errors, nor for those of the receiver.
		strings.HasPrefix(text, "tls: "), errors.As(err, &op) && op.Op == "remote error":
		return webhook.TLS, text
	case errors.Is(err, syscall.ECONNREFUSED):
		return webhook.RefusedTCP, "nothing listens at the address: connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return webhook.RefusedTCP, "no route to the address: " + text
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF):
		return webhook.Reset, "the connection broke before the response was complete"
	default:
		return webhook.OtherError, text
	}
}

// parseRetryAfter reads seconds or an HTTP date. It returns 0 for anything else.
func parseRetryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if s, err := strconv.Atoi(strings.TrimSpace(value)); err == nil ||
		errors.Is(err, strconv.ErrRange) { // then s is the largest there is
		wait = time.Duration(min(s, int(MaxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), MaxRetryAfter)
}
