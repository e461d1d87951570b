package webhook_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"

	"runbell/internal/webhook"
)

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

func TestKeysOfEd25519(t *testing.T) {
	private := webhook.NewPrivateKey()
	k, err := private.Key()
	if err != nil || private == webhook.NewPrivateKey() || !publicKey(t, private).Equal(k.Public()) {
		t.Fatalf("%v; or two new keys are equal, or the public key is another's", err)
	}
	encode := base64.StdEncoding.EncodeToString
	mixed := slices.Concat([]byte(k[:32]), publicKey(t, webhook.NewPrivateKey()))
	for name, s := range map[string]string{"nothing": "", "the prefix alone": "whsk_", "no prefix": encode(k), "of a public key": "whpk_" + encode(k), "the seed alone": "whsk_" + encode(k[:32]),
		"too long": "whsk_" + encode(append(slices.Clone(k), 0)), "not base64": "whsk_***", "halves of two keys": "whsk_" + encode(mixed)} {
		private := webhook.PrivateKey(s)
		_, err := private.Key()
		_, err2 := private.Public()
		if err == nil || err2 == nil {
			t.Errorf("%s is a private key", name)
		} else if len(s) > 10 && strings.Contains(err.Error(), s[5:]) {
			t.Errorf("the error repeats the key: %v", err)
		}
	}
	for _, s := range []string{"", "whpk_", "whpk_***", encode(k[:32]), "whsk_" + encode(k[:32]), "whpk_" + encode(k[:31]), "whpk_" + encode(k[:33])} {
		if _, err := webhook.PublicKey(s).Key(); err == nil {
			t.Errorf("%q is a public key", s)
		}
	}
}

// Only code that asks for the text of a secret can print it.
func TestSecretsAreNeverPrinted(t *testing.T) {
	secret := webhook.Secret("whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret that must never show up")))
	private := webhook.PrivateKey("whsk_" + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed([]byte("a seed that must never show up..")))) // 32 bytes
	k, err := private.Key()
	if err != nil {
		t.Fatal(err)
	}
	s := signer(t, private, secret)
	hidden := []string{strings.TrimPrefix(secret.Reveal(), "whsec_"), strings.TrimPrefix(private.Reveal(), "whsk_"),
		strings.ReplaceAll(strings.Trim(fmt.Sprintf("%d", []byte(k)), "[]"), " ", ""), fmt.Sprintf("%x", []byte(k)), fmt.Sprintf("%X", []byte(k))}
	for _, plain := range []string{secret.Reveal(), private.Reveal()} {
		hidden = append(hidden, fmt.Sprintf("%x", plain), fmt.Sprintf("%X", plain))
	}
	endpoint := webhook.Endpoint{ID: "e1", Secret: secret}
	var out bytes.Buffer
	values := []any{secret, &secret, endpoint, &endpoint, []webhook.Secret{secret}, map[string]webhook.Secret{"s": secret},
		private, &private, []webhook.PrivateKey{private}, struct{ K webhook.PrivateKey }{private}}
	for _, v := range values {
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, func(v any) ([]byte, error) { return jsonv2.Marshal(v) }} {
			b, err := marshal(v)
			if err != nil {
				t.Errorf("%T does not encode: %v", v, err)
			}
			out.Write(append(b, '\n'))
		}
	}
	for _, v := range append(values, s, struct{ S *webhook.Signer }{s}) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%10.200s"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("with a secret", "value", v, slog.Group("g", "value", v))
		}
	}
	fmt.Fprintln(&out, fmt.Errorf("with %v of %+v and %s", secret, endpoint, private))
	for _, h := range hidden {
		for line := range strings.Lines(out.String()) {
			if strings.Contains(strings.ReplaceAll(line, " ", ""), h) {
				t.Errorf("the secret was printed: %s", line)
			}
		}
	}
	if !strings.Contains(out.String(), "whsec_…") || !strings.Contains(out.String(), "whsk_…") {
		t.Error("nothing says that there was a secret")
	}
	if secret.Reveal() != string(secret) || private.Reveal() != string(private) {
		t.Error("Reveal does not reveal")
	}
}
