package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Headers of a webhook request that are part of its signature.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// The schemes of Standard Webhooks: what stands before a signature.
const (
	schemeHMAC    = "v1,"
	schemeEd25519 = "v1a,"
)

// Signer signs the webhooks of one endpoint. It holds the keys decoded. Many may
// use it at once.
type Signer struct {
	private ed25519.PrivateKey // nil unless the endpoint asks for it
	keys    [][]byte
}

// NewSigner makes a signer with the endpoint's secrets, of which there are two
// while one is being rotated, so that a receiver may know either. With a private
// key, it also signs with that.
func NewSigner(private PrivateKey, secrets ...Secret) (*Signer, error) {
	s := &Signer{keys: make([][]byte, len(secrets))}
	if private != "" {
		key, err := private.Key()
		if err != nil {
			return nil, err
		}
		s.private = key
	}
	for i, secret := range secrets {
		key, err := secret.Key()
		if err != nil {
			return nil, err
		}
		s.keys[i] = key
	}
	return s, nil
}

// Sign appends the value of Webhook-Signature to dst: one signature of
// "id.timestamp.body" for each key, with spaces between.
func (s *Signer) Sign(dst []byte, id string, at time.Time, body []byte) []byte {
	content := contentOf(id, at, body)
	start := len(dst)
	for _, key := range s.keys {
		dst = appendSignature(dst, start, schemeHMAC, authenticate(content, key))
	}
	if s.private != nil {
		dst = appendSignature(dst, start, schemeEd25519, ed25519.Sign(s.private, content))
	}
	return dst
}

// Format keeps the keys out of what prints a signer.
func (*Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "webhook.Signer(…)") }

// authenticate is the HMAC of a content.
func authenticate(content, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(content)
	return mac.Sum(nil)
}

// contentOf is what is signed.
func contentOf(id string, at time.Time, body []byte) []byte {
	b := append(make([]byte, 0, len(id)+len(body)+32), id...)
	b = append(strconv.AppendInt(append(b, '.'), at.Unix(), 10), '.')
	return append(b, body...)
}

func appendSignature(dst []byte, start int, scheme string, signature []byte) []byte {
	if len(dst) > start {
		dst = append(dst, ' ')
	}
	return base64.StdEncoding.AppendEncode(append(dst, scheme...), signature)
}

// Verify says whether one of the signatures of a Webhook-Signature header was
// made with the key of a Secret.
func Verify(id string, at time.Time, body, key []byte, signatures string) bool {
	want := authenticate(contentOf(id, at, body), key)
	return anySignature(signatures, schemeHMAC, func(got []byte) bool { return hmac.Equal(got, want) })
}

// VerifyEd25519 says the same of a PrivateKey, of which it takes the public one.
func VerifyEd25519(id string, at time.Time, body []byte, key ed25519.PublicKey, signatures string) bool {
	content := contentOf(id, at, body)
	return anySignature(signatures, schemeEd25519, func(got []byte) bool { return ed25519.Verify(key, content, got) })
}

func anySignature(signatures, scheme string, genuine func([]byte) bool) bool {
	for s := range strings.FieldsSeq(signatures) {
		encoded, ok := strings.CutPrefix(s, scheme)
		if !ok {
			continue
		}
		if got, err := base64.StdEncoding.DecodeString(encoded); err == nil && genuine(got) {
			return true
		}
	}
	return false
}
