package webhook

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The forms of keys are those of Standard Webhooks.
const (
	secretPrefix  = "whsec_"
	privatePrefix = "whsk_"
	publicPrefix  = "whpk_"
)

// Secret is a signing key that sender and receiver share, as people see it:
// whsec_ and base64 of 24 to 64 bytes.
type Secret string

// NewSecret makes a secret of 32 random bytes.
func NewSecret() Secret {
	b := make([]byte, 32)
	rand.Read(b)
	return Secret(secretPrefix + base64.StdEncoding.EncodeToString(b))
}

// String keeps secrets out of logs that print values they should not, and so do
// Format, for every verb, and MarshalText, for JSON and slog.
func (s Secret) String() string { return secretPrefix + "…" }

// Format prints String, also for %#v and for verbs that do not fit.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal is the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Key is the secret's bytes.
func (s Secret) Key() ([]byte, error) {
	b, ok := decode(string(s), secretPrefix)
	if !ok || len(b) < 24 || len(b) > 64 {
		return nil, errors.New("a signing secret is whsec_ followed by the base64 of 24 to 64 bytes")
	}
	return b, nil
}

// PrivateKey signs with ed25519: whsk_ and base64 of the 32 bytes of the seed
// and the 32 of the public key. It never leaves the server.
type PrivateKey string

// NewPrivateKey makes a random private key.
func NewPrivateKey() PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	return PrivateKey(privatePrefix + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed)))
}

// String keeps the key out of logs, as a Secret's does.
func (k PrivateKey) String() string { return privatePrefix + "…" }

// Format prints String, for every verb.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText is String.
func (k PrivateKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Reveal is the key itself.
func (k PrivateKey) Reveal() string { return string(k) }

// Key is what signs.
func (k PrivateKey) Key() (ed25519.PrivateKey, error) {
	b, ok := decode(string(k), privatePrefix)
	// Its second half must be the public key of the first: signing with another
	// one would give the seed away.
	if !ok || len(b) != ed25519.PrivateKeySize ||
		!ed25519.NewKeyFromSeed(b[:ed25519.SeedSize]).Equal(ed25519.PrivateKey(b)) {
		return nil, errors.New("a private signing key is whsk_ followed by the base64 of the 64 bytes of an ed25519 key")
	}
	return b, nil
}

// Public is the key that receivers verify with.
func (k PrivateKey) Public() (PublicKey, error) {
	key, err := k.Key()
	if err != nil {
		return "", err
	}
	return PublicKey(publicPrefix + base64.StdEncoding.EncodeToString(key[ed25519.SeedSize:])), nil
}

// PublicKey verifies what a PrivateKey signed: whpk_ and base64 of 32 bytes.
// Everybody may know it.
type PublicKey string

// Key is what verifies.
func (k PublicKey) Key() (ed25519.PublicKey, error) {
	b, ok := decode(string(k), publicPrefix)
	if !ok || len(b) != ed25519.PublicKeySize {
		return nil, errors.New("a public signing key is whpk_ followed by the base64 of 32 bytes")
	}
	return b, nil
}

func decode(s, prefix string) ([]byte, bool) {
	encoded, ok := strings.CutPrefix(s, prefix)
	b, err := base64.StdEncoding.DecodeString(encoded)
	return b, ok && err == nil
}
