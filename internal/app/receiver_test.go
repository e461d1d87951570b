package app

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"runbell/internal/webhook"
)

const anEvent = `{"event":"RUN_FINISH","runUrl":"http://r/run/1","buildId":"b-1","groupId":"chrome","tags":[],"commit":{},"overall":3,"passes":2,"failures":1,"pending":0,"skipped":0,"retries":1,"flaky":1}`

// signed is a webhook as the server sends it.
func signed(t *testing.T, secret webhook.Secret, id, body string, at time.Time) *http.Request {
	return signedBy(t, "", secret, id, body, at)
}

func signedBy(t *testing.T, private webhook.PrivateKey, secret webhook.Secret, id, body string, at time.Time) *http.Request {
	t.Helper()
	signer, err := webhook.NewSigner(private, secret)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set(webhook.HeaderID, id)
	r.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	r.Header.Set(webhook.HeaderSignature, string(signer.Sign(nil, id, at, []byte(body))))
	r.Header.Set("X-Runbell-Attempt", "2")
	r.Header.Set("X-Runbell-Sequence", "7")
	return r
}

func TestReceiver(t *testing.T) {
	secret, other, private := webhook.NewSecret(), webhook.NewSecret(), webhook.NewPrivateKey()
	public, err := private.Public()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	bySignerOf := func(private webhook.PrivateKey, secret webhook.Secret) *http.Request {
		return signedBy(t, private, secret, "evt_1", anEvent, now)
	}
	without := func(header string) *http.Request {
		r := signed(t, secret, "evt_1", anEvent, now)
		r.Header.Del(header)
		return r
	}
	for _, c := range []struct {
		name     string
		secret   webhook.Secret    // of the receiver
		public   webhook.PublicKey // too
		request  *http.Request
		answered int
		verdict  signature
		problem  string
	}{
		{"signed", secret, "", signed(t, secret, "evt_1", anEvent, now), 204, signatureOK, ""},
		{"not checked", "", "", without(webhook.HeaderSignature), 204, signatureNotChecked, ""},
		{"another secret", secret, "", signed(t, other, "evt_1", anEvent, now), 401, signatureBad, "does not match this secret"},
		{"signed twice", secret, public, bySignerOf(private, secret), 204, signatureOK, ""},
		{"by the private key alone", "", public, bySignerOf(private, other), 204, signatureOK, ""},
		{"another private key", secret, public, bySignerOf(webhook.NewPrivateKey(), secret), 401, signatureBad, "no v1a signature that belongs to this public key"},
		{"no private key", secret, public, bySignerOf("", secret), 401, signatureBad, "no v1a signature"},
		{"the right private key, another secret", secret, public, bySignerOf(private, other), 401, signatureBad, "does not match this secret"},
		{"no signature", secret, "", without(webhook.HeaderSignature), 401, signatureBad, "not signed"},
		{"no id", secret, "", without(webhook.HeaderID), 401, signatureBad, "not signed"},
		{"no timestamp", secret, "", without(webhook.HeaderTimestamp), 401, signatureBad, "not signed"},
		{"almost too old", secret, "", signed(t, secret, "evt_1", anEvent, now.Add(-tolerance+time.Minute)), 204, signatureOK, ""},
		{"too old", secret, "", signed(t, secret, "evt_1", anEvent, now.Add(-tolerance-time.Minute)), 401, signatureBad, "ago, more than 5m0s"},
		{"too new", secret, "", signed(t, secret, "evt_1", anEvent, now.Add(tolerance+time.Minute)), 401, signatureBad, "ahead of this clock"},
		{"not a webhook", secret, "", signed(t, secret, "evt_1", `{"hello":1}`, now), 400, signatureOK, "not a webhook"},
		{"not JSON", "", "", signed(t, secret, "evt_1", `hello`, now), 400, signatureNotChecked, "not a webhook"},
		{"too large", secret, "", signed(t, secret, "evt_1", strings.Repeat(" ", maxWebhook+1), now), 413, signatureNotChecked, "larger than 1 MiB"},
		{"not a POST", secret, "", httptest.NewRequest(http.MethodGet, "/x", nil), 405, signatureNotChecked, "GET /x is not a webhook"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rc, err := newReceiver(c.secret, c.public)
			if err != nil {
				t.Fatal(err)
			}
			var got received
			rc.seen = func(r received) { got = r }
			w := httptest.NewRecorder()
			rc.ServeHTTP(w, c.request)
			if w.Code != c.answered || got.Answered != c.answered {
				t.Errorf("answered %d and noted %d, want %d", w.Code, got.Answered, c.answered)
			}
			if got.Signature != c.verdict {
				t.Errorf("signature %q, want %q", got.Signature, c.verdict)
			}
			if !strings.Contains(got.Problem, c.problem) || (c.problem == "") != (got.Problem == "") {
				t.Errorf("problem %q, want %q", got.Problem, c.problem)
			}
			if c.answered == http.StatusMethodNotAllowed && w.Header().Get("Allow") != http.MethodPost {
				t.Error("405 without Allow: POST")
			}
		})
	}
}

// What was answered with an error is no duplicate when it comes again; what was
// accepted is.
func TestReceiverNoticesDuplicates(t *testing.T) {
	secret := webhook.NewSecret()
	rc, err := newReceiver(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	rc.failNext = 1
	var got []received
	rc.seen = func(r received) { got = append(got, r) }
	for range 3 {
		rc.ServeHTTP(httptest.NewRecorder(), signed(t, secret, "evt_1", anEvent, time.Now()))
	}
	for i, want := range []struct {
		answered  int
		duplicate bool
	}{{500, false}, {204, false}, {204, true}} {
		if got[i].Answered != want.answered || got[i].Duplicate != want.duplicate {
			t.Errorf("request %d: answered %d, duplicate %v; want %v", i+1, got[i].Answered, got[i].Duplicate, want)
		}
	}
}

func TestForwardKeepsBodyHeadersAndAnswer(t *testing.T) {
	var body []byte
	var header http.Header
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		header = r.Header
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, "slow down")
	}))
	defer behind.Close()
	secret := webhook.NewSecret()
	rc, err := newReceiver(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	rc.answer, rc.seen = forwardTo(behind.URL), func(received) {}
	request := signed(t, secret, "evt_1", anEvent, time.Now())
	w := httptest.NewRecorder()
	rc.ServeHTTP(w, request)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "7" || w.Body.String() != "slow down" {
		t.Errorf("answered %d, Retry-After %q, %q", w.Code, w.Header().Get("Retry-After"), w.Body)
	}
	if !bytes.Equal(body, []byte(anEvent)) {
		t.Errorf("forwarded %q", body)
	}
	for _, name := range []string{webhook.HeaderID, webhook.HeaderTimestamp, webhook.HeaderSignature, "X-Runbell-Attempt"} {
		if header.Get(name) != request.Header.Get(name) {
			t.Errorf("%s was forwarded as %q", name, header.Get(name))
		}
	}

	behind.Close()
	w = httptest.NewRecorder()
	rc.ServeHTTP(w, signed(t, secret, "evt_2", anEvent, time.Now()))
	if w.Code != http.StatusBadGateway {
		t.Errorf("with nothing behind: answered %d, want 502", w.Code)
	}
}

func TestLine(t *testing.T) {
	got := received{Attempt: 2, Sequence: 3, Signature: signatureOK, Answered: 204, Duplicate: true,
		Payload: webhook.Payload{Event: webhook.RunFinish, BuildID: "b\x1b[2J-1", GroupID: "chrome", Overall: 1, Passes: 1, Retries: 1, Flaky: 1}}
	line := style(false).line(got)
	_, line, _ = strings.Cut(line, "  ")
	want := "RUN_FINISH    b\uFFFD[2J-1 / chrome  1 test, 1 passed, 1 flaky, 1 retry · attempt 2, sequence 3 · signature ok · duplicate of an earlier one"
	if line != want {
		t.Errorf("got  %q\nwant %q", line, want)
	}
}
