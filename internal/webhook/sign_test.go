package webhook_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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

func signer(t testing.TB, private webhook.PrivateKey, secrets ...webhook.Secret) *webhook.Signer {
	t.Helper()
	s, err := webhook.NewSigner(private, secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What Sign makes, the library that receivers use accepts: with either secret
// while one is being replaced, and with no other.
func TestTheStandardLibraryVerifiesSignatures(t *testing.T) {
	old, replacement, other := webhook.NewSecret(), webhook.NewSecret(), webhook.NewSecret()
	body, at := []byte(`{"event":"RUN_START"}`), time.Now()
	for name, c := range map[string]struct {
		signer  *webhook.Signer
		accepts map[webhook.Secret]bool
	}{
		"one secret":      {signer(t, "", old), map[webhook.Secret]bool{old: true, replacement: false, other: false}},
		"during rotation": {signer(t, "", replacement, old), map[webhook.Secret]bool{old: true, replacement: true, other: false}},
		"with ed25519":    {signer(t, webhook.NewPrivateKey(), replacement, old), map[webhook.Secret]bool{old: true, replacement: true, other: false}},
	} {
		headers := http.Header{}
		headers.Set(webhook.HeaderID, "evt_1")
		headers.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
		headers.Set(webhook.HeaderSignature, string(c.signer.Sign(nil, "evt_1", at, body)))
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

// The examples of the specification's documentation, and of Svix' own tests for
// ed25519, in one header.
func TestSignIsTheKnownAnswer(t *testing.T) {
	secret := webhook.Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	private := webhook.PrivateKey("whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==")
	got := string(signer(t, private, secret).Sign([]byte("before:"), "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)))
	if want := "before:v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= " +
		"v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if public, err := private.Public(); public != "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=" || err != nil {
		t.Errorf("the public key is %s, %v", public, err)
	}
}

// One signer is used by many at once, and none sees the other's content.
func TestASignerIsForAll(t *testing.T) {
	secret, private := webhook.NewSecret(), webhook.NewPrivateKey()
	s, k, public := signer(t, private, secret), key(t, secret), publicKey(t, private)
	at := time.Unix(1732350000, 0)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var header []byte
			for j := range 50 {
				id, body := fmt.Sprintf("evt_%d_%d", i, j), bytes.Repeat([]byte{byte('a' + i)}, 1+97*j)
				header = s.Sign(header[:0], id, at, body)
				if !webhook.Verify(id, at, body, k, string(header)) || !webhook.VerifyEd25519(id, at, body, public, string(header)) {
					t.Errorf("%s: %s", id, header)
				}
			}
		})
	}
	wg.Wait()
}

func publicKey(t *testing.T, private webhook.PrivateKey) ed25519.PublicKey {
	t.Helper()
	public, err := private.Public()
	if err != nil {
		t.Fatal(err)
	}
	k, err := public.Key()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVerifyRejectsWhatWasTamperedWith(t *testing.T) {
	secret, private := webhook.NewSecret(), webhook.NewPrivateKey()
	at, body := time.Unix(1732350000, 0), []byte(`{"passes":1}`)
	for name, scheme := range map[string]struct {
		version, foreign string
		good, others     string
		verify           func(id string, at time.Time, body []byte, signatures string) bool
	}{
		"hmac": {"v1", "v1a", string(signer(t, "", secret).Sign(nil, "evt_1", at, body)), string(signer(t, private, webhook.NewSecret()).Sign(nil, "evt_1", at, body)),
			func(id string, at time.Time, body []byte, signatures string) bool {
				return webhook.Verify(id, at, body, key(t, secret), signatures)
			}},
		"ed25519": {"v1a", "v1", string(signer(t, private).Sign(nil, "evt_1", at, body)), string(signer(t, webhook.NewPrivateKey(), secret).Sign(nil, "evt_1", at, body)),
			func(id string, at time.Time, body []byte, signatures string) bool {
				return webhook.VerifyEd25519(id, at, body, publicKey(t, private), signatures)
			}},
	} {
		good := scheme.good
		flipped := []byte(good)
		flipped[len(flipped)/2] ^= 1
		for of, c := range map[string]struct {
			id, body, signature string
			at                  time.Time
			want                bool
		}{
			"untouched":                    {"evt_1", string(body), good, at, true},
			"within the same second":       {"evt_1", string(body), good, at.Add(999 * time.Millisecond), true},
			"among others":                 {"evt_1", string(body), "v1a,xyz v1,AAAA  " + scheme.others + " " + good + " v2,x", at, true},
			"another id":                   {"evt_2", string(body), good, at, false},
			"another body":                 {"evt_1", `{"passes":2}`, good, at, false},
			"a longer body":                {"evt_1", string(body) + " ", good, at, false},
			"another time":                 {"evt_1", string(body), good, at.Add(time.Second), false},
			"a changed signature":          {"evt_1", string(body), string(flipped), at, false},
			"half a signature":             {"evt_1", string(body), good[:len(good)/2], at, false},
			"of other keys":                {"evt_1", string(body), scheme.others, at, false},
			"no signature":                 {"evt_1", string(body), "", at, false},
			"no version":                   {"evt_1", string(body), strings.TrimPrefix(good, scheme.version+","), at, false},
			"the other version":            {"evt_1", string(body), scheme.foreign + strings.TrimPrefix(good, scheme.version), at, false},
			"an empty one":                 {"evt_1", string(body), scheme.version + ",", at, false},
			"not base64":                   {"evt_1", string(body), scheme.version + ",***", at, false},
			"the dot moved between fields": {"evt_1.1732350000", string(body), good, at, false},
		} {
			if got := scheme.verify(c.id, c.at, []byte(c.body), c.signature); got != c.want {
				t.Errorf("%s, %s: %v, want %v", name, of, got, c.want)
			}
		}
	}
}

func TestABadKeySignsNothing(t *testing.T) {
	if _, err := webhook.NewSigner("", webhook.NewSecret(), "whsec_short"); err == nil {
		t.Error("a bad secret")
	}
	if _, err := webhook.NewSigner("whsk_short", webhook.NewSecret()); err == nil {
		t.Error("a bad private key")
	}
}

// The engine signs 20,000 times a second.
func BenchmarkSign(b *testing.B) {
	body := make([]byte, 600)
	for name, s := range map[string]*webhook.Signer{
		"one secret":      signer(b, "", webhook.NewSecret()),
		"during rotation": signer(b, "", webhook.NewSecret(), webhook.NewSecret()),
		"ed25519 too":     signer(b, webhook.NewPrivateKey(), webhook.NewSecret()),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			at, dst := time.Now(), make([]byte, 0, 256)
			for b.Loop() {
				dst = s.Sign(dst[:0], "evt_qzqcvuz2ukzxlhubtz2rikxx3y", at, body)
			}
		})
	}
}
