package webhook_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"runbell/internal/webhook"
)

func key(t *testing.T, s webhook.Secret) []byte {
	t.Helper()
	k, err := s.Key()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What Sign makes, the library that receivers use accepts: with either secret
// while one is being replaced, and with no other.
func TestTheStandardLibraryVerifiesSignatures(t *testing.T) {
	old, replacement, other := webhook.NewSecret(), webhook.NewSecret(), webhook.NewSecret()
	body, at := []byte(`{"event":"RUN_START"}`), time.Now()
	for name, c := range map[string]struct {
		keys    [][]byte
		accepts map[webhook.Secret]bool
	}{
		"one secret":      {[][]byte{key(t, old)}, map[webhook.Secret]bool{old: true, replacement: false, other: false}},
		"during rotation": {[][]byte{key(t, replacement), key(t, old)}, map[webhook.Secret]bool{old: true, replacement: true, other: false}},
	} {
		headers := http.Header{}
		headers.Set(webhook.HeaderID, "evt_1")
		headers.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
		headers.Set(webhook.HeaderSignature, webhook.Sign("evt_1", at, body, c.keys...))
		for secret, want := range c.accepts {
			wh, err := standardwebhooks.NewWebhook(secret.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			if err := wh.Verify(body, headers); (err == nil) != want {
				t.Errorf("%s: the library says %v, want it accepted: %v", name, err, want)
			}
			if got := webhook.Verify("evt_1", at, body, key(t, secret), headers.Get(webhook.HeaderSignature)); got != want {
				t.Errorf("%s: Verify says %v, want %v", name, got, want)
			}
		}
		if err := mustWebhook(t, old).Verify([]byte(`{"event":"RUN_FINISH"}`), headers); err == nil {
			t.Errorf("%s: the library accepts another body", name)
		}
	}
}

func mustWebhook(t *testing.T, s webhook.Secret) *standardwebhooks.Webhook {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(s.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return wh
}

// And the other way round: the library signs, Verify accepts.
func TestVerifyAcceptsTheStandardLibrary(t *testing.T) {
	secret, at, body := webhook.NewSecret(), time.Unix(1732350000, 0), []byte("{}")
	signature, err := mustWebhook(t, secret).Sign("evt_1", at, body)
	if err != nil || !webhook.Verify("evt_1", at, body, key(t, secret), signature) {
		t.Errorf("%s, %v", signature, err)
	}
}

// The example of the specification's own documentation.
func TestSignIsTheKnownAnswer(t *testing.T) {
	secret := webhook.Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	got := webhook.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`), key(t, secret))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerifyRejectsWhatWasTamperedWith(t *testing.T) {
	secret, at, body := key(t, webhook.NewSecret()), time.Unix(1732350000, 0), []byte(`{"passes":1}`)
	good := webhook.Sign("evt_1", at, body, secret)
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		id, body, signature string
		at                  time.Time
		want                bool
	}{
		"untouched":                    {"evt_1", string(body), good, at, true},
		"within the same second":       {"evt_1", string(body), good, at.Add(999 * time.Millisecond), true},
		"among others":                 {"evt_1", string(body), "v1a,xyz v1,AAAA  " + good + " v2,x", at, true},
		"another id":                   {"evt_2", string(body), good, at, false},
		"another body":                 {"evt_1", `{"passes":2}`, good, at, false},
		"a longer body":                {"evt_1", string(body) + " ", good, at, false},
		"another time":                 {"evt_1", string(body), good, at.Add(time.Second), false},
		"a changed signature":          {"evt_1", string(body), string(flipped), at, false},
		"half a signature":             {"evt_1", string(body), good[:len(good)/2], at, false},
		"no signature":                 {"evt_1", string(body), "", at, false},
		"no version":                   {"evt_1", string(body), strings.TrimPrefix(good, "v1,"), at, false},
		"another version":              {"evt_1", string(body), "v1a" + strings.TrimPrefix(good, "v1"), at, false},
		"an empty one":                 {"evt_1", string(body), "v1,", at, false},
		"not base64":                   {"evt_1", string(body), "v1,***", at, false},
		"the dot moved between fields": {"evt_1.1732350000", string(body), good, at, false},
	} {
		if got := webhook.Verify(c.id, c.at, []byte(c.body), secret, c.signature); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if webhook.Verify("evt_1", at, body, key(t, webhook.NewSecret()), good) {
		t.Error("another key was accepted")
	}
}

func TestSecretsHave24To64Bytes(t *testing.T) {
	for n, want := range map[int]bool{0: false, 16: false, 23: false, 24: true, 32: true, 64: true, 65: false, 100: false} {
		k, err := webhook.Secret("whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n))).Key()
		if (err == nil) != want || want && len(k) != n {
			t.Errorf("%d bytes: %d, %v; want them accepted: %v", n, len(k), err, want)
		}
	}
	encoded := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, s := range []string{"", "whsec_", encoded, "WHSEC_" + encoded, "whsec_whsec_" + encoded, "whsec_" + encoded[1:], "whsec_***", "whpk_" + encoded} {
		_, err := webhook.Secret(s).Key()
		if err == nil {
			t.Errorf("%q is a secret", s)
			continue
		}
		if len(s) > 10 && strings.Contains(err.Error(), s[6:]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
	if a, b := webhook.NewSecret(), webhook.NewSecret(); a == b || len(key(t, a)) != 32 {
		t.Errorf("new secrets have %d bytes, and two are equal: %v", len(key(t, a)), a == b)
	}
}

// A secret shows itself only to who asks for it by name.
func TestSecretsAreNeverPrinted(t *testing.T) {
	secret := webhook.Secret("whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret that must never show up")))
	hidden := []string{strings.TrimPrefix(secret.Reveal(), "whsec_"), fmt.Sprintf("%x", []byte(secret.Reveal())), fmt.Sprintf("%X", []byte(secret.Reveal()))}
	endpoint := webhook.Endpoint{ID: "e1", Secret: secret}
	var out bytes.Buffer
	for _, v := range []any{secret, &secret, endpoint, &endpoint, []webhook.Secret{secret}, map[string]webhook.Secret{"s": secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%10.200s"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, func(v any) ([]byte, error) { return jsonv2.Marshal(v) }} {
			b, err := marshal(v)
			if err != nil {
				t.Errorf("%T does not encode: %v", v, err)
			}
			out.Write(append(b, '\n'))
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("with a secret", "value", v, slog.Group("g", "value", v))
		}
	}
	fmt.Fprintln(&out, fmt.Errorf("with %v of %+v", secret, endpoint))
	for _, h := range hidden {
		for line := range strings.Lines(out.String()) {
			if strings.Contains(strings.ReplaceAll(line, " ", ""), h) {
				t.Errorf("the secret was printed: %s", line)
			}
		}
	}
	if !strings.Contains(out.String(), "whsec_…") {
		t.Error("nothing says that there was a secret")
	}
	if secret.Reveal() != string(secret) {
		t.Error("Reveal does not reveal")
	}
}
