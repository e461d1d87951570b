package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"runbell/internal/webhook"
)

// receiver is the other end of webhooks: it reads, checks and remembers them as
// a careful receiver does.
type receiver struct {
	checks []check // all must hold; none: signatures are not checked
	// answer decides the response to an acceptable webhook; nil is 204.
	answer func(w http.ResponseWriter, r *http.Request, body []byte) int
	// seen gets every request, one at a time.
	seen func(received)

	mu       sync.Mutex
	accepted map[string]bool // Webhook-Ids that were answered with 2xx
	failNext int             // how many requests are still answered with 500
}

// check says whether a request is signed with one key.
type check struct {
	genuine func(id string, at time.Time, body []byte, signatures string) bool
	problem string // if not
}

// maxWebhook is how large a body may be; webhooks are a few KB.
const maxWebhook = 1 << 20

// maxRemembered bounds the ids that are remembered to notice duplicates.
const maxRemembered = 100_000

// tolerance is how old or how far ahead a signed timestamp may be, so that a
// request that was overheard cannot be sent again later (Standard Webhooks).
const tolerance = 5 * time.Minute

// signature is the result of verifying a request.
type signature string

const (
	signatureOK         signature = "ok"
	signatureBad        signature = "bad"
	signatureNotChecked signature = "not checked"
)

// received is one request as the receiver saw it.
type received struct {
	Time      time.Time `json:"time"`
	WebhookID string    `json:"webhookId"`
	Attempt   int       `json:"attempt"`
	Sequence  int64     `json:"sequence"`
	Signature signature `json:"signature"`
	// Problem says why the signature is bad or the request was refused.
	Problem string `json:"problem,omitempty"`
	// Duplicate says that the same Webhook-Id was accepted before.
	Duplicate bool            `json:"duplicate"`
	Test      bool            `json:"test"`
	Answered  int             `json:"answered"`
	Body      json.RawMessage `json:"body,omitempty"`
	// Payload is the body, where it is a webhook's.
	Payload webhook.Payload `json:"-"`
}

// newReceiver checks what it gets with a secret and a public key, "" for none.
func newReceiver(secret webhook.Secret, public webhook.PublicKey) (*receiver, error) {
	r := &receiver{accepted: map[string]bool{}}
	if secret != "" {
		key, err := secret.Key()
		if err != nil {
			return nil, fmt.Errorf("--secret: %w", err)
		}
		r.checks = append(r.checks, check{func(id string, at time.Time, body []byte, signatures string) bool {
			return webhook.Verify(id, at, body, key, signatures)
		}, "the signature does not match this secret"})
	}
	if public != "" {
		key, err := public.Key()
		if err != nil {
			return nil, fmt.Errorf("--public-key: %w", err)
		}
		r.checks = append(r.checks, check{func(id string, at time.Time, body []byte, signatures string) bool {
			return webhook.VerifyEd25519(id, at, body, key, signatures)
		}, "there is no v1a signature that belongs to this public key"})
	}
	return r, nil
}

// ServeHTTP takes one request.
func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	got := received{Time: now, WebhookID: r.Header.Get(webhook.HeaderID), Signature: signatureNotChecked,
		Test: r.Header.Get("X-Runbell-Test") != ""}
	got.Attempt, _ = strconv.Atoi(r.Header.Get("X-Runbell-Attempt"))
	got.Sequence, _ = strconv.ParseInt(r.Header.Get("X-Runbell-Sequence"), 10, 64)

	refuse := func(status int, problem string) {
		got.Answered, got.Problem = status, problem
		http.Error(w, problem, status)
		rc.note(got)
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuse(http.StatusMethodNotAllowed,
			fmt.Sprintf("%s %s is not a webhook: webhooks are sent with POST", r.Method, r.URL.Path))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhook))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		refuse(http.StatusRequestEntityTooLarge, "the body is larger than 1 MiB")
		return
	}
	if err != nil {
		refuse(http.StatusBadRequest, "the body was cut short")
		return
	}
	understood := json.Unmarshal(body, &got.Payload) == nil && got.Payload.Event != ""
	if len(rc.checks) > 0 {
		if problem := verify(r.Header, body, rc.checks, now); problem != "" {
			got.Signature = signatureBad
			refuse(http.StatusUnauthorized, problem)
			return
		}
		got.Signature = signatureOK
	}
	if !understood {
		refuse(http.StatusBadRequest, "the body is not a webhook of a run")
		return
	}
	got.Body = bytes.TrimSpace(body)
	if rc.fails() {
		refuse(http.StatusInternalServerError, "failing on request")
		return
	}
	got.Duplicate = rc.known(got.WebhookID)
	if rc.answer != nil {
		got.Answered = rc.answer(w, r, body)
	} else {
		got.Answered = http.StatusNoContent
		w.WriteHeader(http.StatusNoContent)
	}
	rc.note(got)
}

// fails says whether to fail this request.
func (rc *receiver) fails() bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if rc.failNext == 0 {
		return false
	}
	rc.failNext--
	return true
}

// known says whether a webhook was accepted before.
func (rc *receiver) known(id string) bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return rc.accepted[id]
}

// note remembers what was accepted, and tells of the request.
func (rc *receiver) note(got received) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if got.Answered/100 == 2 && got.WebhookID != "" {
		if len(rc.accepted) >= maxRemembered {
			clear(rc.accepted) // a retry of one of them comes soon or not at all
		}
		rc.accepted[got.WebhookID] = true
	}
	rc.seen(got)
}

// verify says what is wrong with the signature of a request, "" if nothing is.
func verify(h http.Header, body []byte, checks []check, now time.Time) string {
	id, stamp, signatures := h.Get(webhook.HeaderID), h.Get(webhook.HeaderTimestamp), h.Get(webhook.HeaderSignature)
	if id == "" || stamp == "" || signatures == "" {
		return "not signed: Webhook-Id, Webhook-Timestamp or Webhook-Signature is missing"
	}
	epoch, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return "Webhook-Timestamp is not a number of seconds"
	}
	at := time.Unix(epoch, 0)
	// The signature first: only a genuine timestamp is worth a comparison.
	for _, c := range checks {
		if !c.genuine(id, at, body, signatures) {
			return c.problem
		}
	}
	switch age := now.Sub(at); {
	case age > tolerance:
		return fmt.Sprintf("signed %s ago, more than %s", age.Round(time.Second), tolerance)
	case age < -tolerance:
		return fmt.Sprintf("signed %s ahead of this clock, more than %s", (-age).Round(time.Second), tolerance)
	}
	return ""
}
