package e2e

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"runbell/internal/testkit"
)

// TestForeignReceivers has receivers that know nothing of Runbell verify all
// that the server sends, before, during and after the rotation of a secret:
// the library of Standard Webhooks in Go, npm standardwebhooks, npm svix, and
// crypto/ed25519.
func TestForeignReceivers(t *testing.T) {
	t.Parallel()
	r := testkit.NewReceiver(t) // which has the first of these verify with the secret it expects
	s := newServer(t)
	p := newPlayer(t, s.project("shop", nil), s)
	var hook struct{ HookID string }
	s.call("POST", "/webhooks?projectId=shop", map[string]any{"url": r.URL + "/hook", "ed25519": true}, &hook)
	var keys struct{ Secret, PublicKey, PreviousSecretExpiresAt string }
	read := func(method, path string, body any) string {
		t.Helper()
		keys.PreviousSecretExpiresAt = ""
		s.call(method, "/webhooks/"+hook.HookID+path, body, &keys)
		return keys.Secret
	}
	// sent is everything that arrives while something is done that sends n webhooks.
	sent := func(n int, do func()) []testkit.Received {
		t.Helper()
		before := len(r.All())
		do()
		return r.Wait(t, 20*time.Second, func(list []testkit.Received) bool { return len(list) >= before+n })[before:]
	}
	// all four events, of a run as it happens and as tests, and what was sent before, again.
	send := func(build string) []testkit.Received {
		t.Helper()
		return sent(8, func() {
			p.play(build)
			for _, event := range []string{"RUN_START", "RUN_FINISH", "RUN_TIMEOUT", "RUN_CANCELED"} {
				s.call("POST", "/webhooks/"+hook.HookID+"/test", map[string]any{"event": event}, nil)
			}
			m := p.join(build+"-canceled", "chrome", "one")
			s.call("PUT", "/runs/"+m.RunID+"/cancel", nil, nil)
		})
	}

	first := read("GET", "/secret", nil)
	public := keys.PublicKey
	r.Expect("/hook", first)
	list := send("before")
	verify(t, "before", list, public, []string{first}, nil)

	second := read("POST", "/rotate-secret", map[string]any{"graceSeconds": 3600})
	if keys.PreviousSecretExpiresAt == "" {
		t.Error("the overlap has no end")
	}
	verify(t, "during", send("during"), public, []string{first, second}, nil)

	// This overlap is over soon; the first secret is out at once.
	third := read("POST", "/rotate-secret", map[string]any{"graceSeconds": 1})
	r.Expect("/hook", third)
	eventually(t, 10*time.Second, "the overlap is over", func() bool { return read("GET", "/secret", nil) == third && keys.PreviousSecretExpiresAt == "" })
	verify(t, "after", send("after"), public, []string{third}, []string{first, second})

	// A redelivery has a new signature, and is otherwise the same.
	var run string
	once := map[string]string{}
	for _, w := range list {
		var body struct{ BuildID, RunURL string }
		if err := json.Unmarshal(w.Body, &body); err != nil {
			t.Fatal(err)
		}
		if body.BuildID == "before" {
			run = body.RunURL[strings.LastIndex(body.RunURL, "/")+1:]
			once[w.ID] = string(w.Body)
		}
	}
	again := sent(2, func() {
		s.call("POST", "/webhooks/"+hook.HookID+"/replay", map[string]any{"since": "2020-01-01T00:00:00Z", "status": "all", "runId": run}, nil)
	})
	for _, w := range again {
		if once[w.ID] != string(w.Body) {
			t.Errorf("sent again: %s %s", w.ID, w.Body)
		}
		delete(once, w.ID)
	}
	verify(t, "again", again, public, []string{third}, []string{first, second})
}

// verify has everybody accept webhooks with each of the good secrets and with
// the public key, and refuse them with the bad ones, or changed.
func verify(t *testing.T, when string, list []testkit.Received, public string, good, bad []string) {
	t.Helper()
	var letters []letter
	for _, secret := range slices.Concat(good, bad) {
		for _, w := range list {
			letters = append(letters, newLetter(w, secret))
		}
	}
	askNode(t, letters, len(list)*len(good))
	accepted := 0
	for i, l := range letters {
		w := list[i%len(list)]
		wh, err := standardwebhooks.NewWebhook(l.Secret)
		if err != nil {
			t.Fatal(err)
		}
		if wh.Verify(w.Body, w.Header) == nil {
			accepted++
		}
		if wh.Verify(l.changed(), w.Header) == nil {
			t.Errorf("%s: the library in Go accepts %s changed", when, w.Body)
		}
	}
	if accepted != len(list)*len(good) {
		t.Errorf("%s: the library in Go accepts %d of %d", when, accepted, len(letters))
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(public, "whpk_"))
	if err != nil || len(key) != ed25519.PublicKeySize || !strings.HasPrefix(public, "whpk_") {
		t.Fatalf("%s: the public key is %q: %v", when, public, err)
	}
	for i, w := range list {
		if !signedBy(key, w, w.Body) || signedBy(key, w, letters[i].changed()) {
			t.Errorf("%s: ed25519 refuses %s or accepts it changed: %s", when, w.ID, w.Header.Get("Webhook-Signature"))
		}
	}
}

// signedBy verifies by the words of the specification, with crypto/ed25519.
func signedBy(key ed25519.PublicKey, w testkit.Received, body []byte) bool {
	content := w.Header.Get("Webhook-Id") + "." + w.Header.Get("Webhook-Timestamp") + "." + string(body)
	for s := range strings.SplitSeq(w.Header.Get("Webhook-Signature"), " ") {
		if encoded, ok := strings.CutPrefix(s, "v1a,"); ok {
			signature, err := base64.StdEncoding.DecodeString(encoded)
			if err == nil && ed25519.Verify(key, []byte(content), signature) {
				return true
			}
		}
	}
	return false
}

// letter is a webhook as verify.js takes it.
type letter struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func newLetter(w testkit.Received, secret string) letter {
	headers := map[string]string{}
	for name := range w.Header {
		headers[strings.ToLower(name)] = w.Header.Get(name)
	}
	return letter{secret, headers, string(w.Body)}
}

func (l letter) changed() []byte {
	return bytes.Replace([]byte(l.Body), []byte(`"overall":`), []byte(`"overall":1`), 1)
}

// askNode has the npm packages standardwebhooks and svix accept this many of the
// letters, and none with a changed body.
func askNode(t *testing.T, letters []letter, accepted int) {
	t.Helper()
	in, err := json.Marshal(letters)
	if err != nil {
		t.Fatal(err)
	}
	node := exec.Command("node", "client/verify.js")
	node.Stdin = bytes.NewReader(in)
	out, err := node.CombinedOutput()
	want := fmt.Sprintf("standardwebhooks: %[1]d accepted, 0 when changed\nsvix: %[1]d accepted, 0 when changed\n", accepted)
	if err != nil || string(out) != want {
		t.Errorf("npm: %v %s, want %s", err, out, want)
	}
}
