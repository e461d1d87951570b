package testkit

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Received is a webhook as it arrived.
type Received struct {
	ID      string // Webhook-Id
	Path    string
	Header  http.Header
	Body    []byte
	At      time.Time
	Refused bool // the receiver did not take it
}

// Receiver is a real HTTP server that takes webhooks. It checks each, that it
// accepts or refuses, against the published schema and, with the library of
// Standard Webhooks, against the secret of its path.
type Receiver struct {
	URL string

	mu       sync.Mutex
	secrets  map[string]string // path -> whsec_…
	received []Received
	faults   []string
	changed  chan struct{} // closed and replaced when something arrives
	answer   func(w Received, n int) Answer
	closed   chan struct{} // the test has ended: nobody hangs any longer
}

// NewReceiver starts a receiver; it ends with the test, and fails it if a
// webhook was not as it should be.
func NewReceiver(t testing.TB) *Receiver {
	t.Helper()
	r := &Receiver{secrets: map[string]string{}, changed: make(chan struct{}), closed: make(chan struct{})}
	server := httptest.NewServer(r)
	r.URL = server.URL
	t.Cleanup(func() {
		close(r.closed)
		server.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, f := range r.faults {
			t.Error("webhook:", f)
		}
	})
	return r
}

// Expect sets the secret that webhooks to a path are signed with.
func (r *Receiver) Expect(path, secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets[path] = secret
}

// Answer is how a request is answered; the zero value is 200, at once.
type Answer struct {
	Status int
	Header map[string]string
	Wait   time.Duration // before it is sent
	Reset  bool          // nothing is sent, and the connection breaks
}

func (a Answer) refuses() bool { return a.Reset || a.Status/100 > 2 }

// Answer decides how the n-th request, counted from 0, is answered. It is asked
// for one request after the other.
func (r *Receiver) Answer(f func(w Received, n int) Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender was killed in the middle
	}
	a := r.keep(req, body)
	if a.Wait > 0 {
		timer := time.NewTimer(a.Wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
		case <-r.closed:
		}
	}
	if a.Reset {
		reset(w)
		return
	}
	for name, value := range a.Header {
		w.Header().Set(name, value)
	}
	if a.Status != 0 {
		w.WriteHeader(a.Status)
	}
}

// reset ends a connection as a machine does that knows nothing of it.
func reset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // RST instead of FIN
		}
		_ = conn.Close()
	}
}

// keep notes a request, before its sender can know that it arrived, and says
// how it is answered.
func (r *Receiver) keep(req *http.Request, body []byte) (a Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := Received{ID: req.Header.Get("Webhook-Id"), Path: req.URL.Path, Header: req.Header, Body: body, At: time.Now()}
	if r.answer != nil {
		a = r.answer(got, len(r.received))
		got.Refused = a.refuses()
	}
	if err := r.check(got); err != nil {
		r.faults = append(r.faults, fmt.Sprintf("%v in %s %s", err, got.ID, body))
	}
	r.received = append(r.received, got)
	close(r.changed)
	r.changed = make(chan struct{})
	return a
}

func (r *Receiver) check(got Received) error {
	if err := CheckPayload(got.Body); err != nil {
		return err
	}
	secret, ok := r.secrets[got.Path]
	if !ok {
		return fmt.Errorf("nobody expects webhooks at %s", got.Path)
	}
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	return wh.Verify(got.Body, got.Header)
}

// All is what has arrived so far, in order.
func (r *Receiver) All() []Received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.received)
}

// Wait returns what has arrived as soon as enough says so, and fails the test
// if that does not happen in time.
func (r *Receiver) Wait(t testing.TB, within time.Duration, enough func([]Received) bool) []Received {
	t.Helper()
	deadline := time.After(within)
	for {
		r.mu.Lock()
		list, changed := slices.Clone(r.received), r.changed
		r.mu.Unlock()
		if enough(list) {
			return list
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not enough webhooks within %s; got %d:\n%s", within, len(list), describe(list))
		}
	}
}

func describe(list []Received) (s string) {
	for _, w := range list {
		s += fmt.Sprintf("%s %s refused=%v %s\n", w.Path, w.ID, w.Refused, w.Body)
	}
	return s
}
