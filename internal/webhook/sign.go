package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Secret is a signing key as people see it: whsec_ and base64 of 24 to 64
// bytes (Standard Webhooks).
type Secret string

const secretPrefix = "whsec_"

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
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(s), secretPrefix))
	if err != nil || len(b) < 24 || len(b) > 64 || !strings.HasPrefix(string(s), secretPrefix) {
		return nil, fmt.Errorf("a signing secret is whsec_ followed by the base64 of 24 to 64 bytes")
	}
	return b, nil
}

// Headers of a webhook request that are part of its signature.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// Sign makes the value of Webhook-Signature: one HMAC-SHA256 of
// "id.timestamp.body" for each key, so that a receiver may know either while a
// secret is being rotated.
func Sign(id string, at time.Time, body []byte, keys ...[]byte) string {
	var out strings.Builder
	for i, key := range keys {
		if i > 0 {
			out.WriteByte(' ')
		}
		out.WriteString("v1,")
		out.WriteString(base64.StdEncoding.EncodeToString(mac(id, at, body, key)))
	}
	return out.String()
}

// Verify says whether one of the signatures of a Webhook-Signature header was
// made with key.
func Verify(id string, at time.Time, body, key []byte, signatures string) bool {
	want := mac(id, at, body, key)
	for sig := range strings.FieldsSeq(signatures) {
		encoded, ok := strings.CutPrefix(sig, "v1,")
		if !ok {
			continue
		}
		if got, err := base64.StdEncoding.DecodeString(encoded); err == nil && hmac.Equal(got, want) {
			return true
		}
	}
	return false
}

func mac(id string, at time.Time, body, key []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(id))
	h.Write([]byte{'.'})
	h.Write(strconv.AppendInt(nil, at.Unix(), 10))
	h.Write([]byte{'.'})
	h.Write(body)
	return h.Sum(nil)
}
