package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"sync"
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

// Signer signs the webhooks of one endpoint. Make one and keep it: it holds the
// keys decoded and the hashes prepared. Many may use it at once.
type Signer struct {
	private ed25519.PrivateKey // nil unless the endpoint asks for it
	work    sync.Pool          // of *signing
}

// signing is what one signature needs.
type signing struct {
	content []byte
	macs    []hash.Hash
	sum     [sha256.Size]byte
}

// NewSigner makes a signer with the endpoint's secrets, of which there are two
// while one is being rotated, so that a receiver may know either. With a private
// key, it also signs with that.
func NewSigner(private PrivateKey, secrets ...Secret) (*Signer, error) {
	s := &Signer{}
	if private != "" {
		key, err := private.Key()
		if err != nil {
			return nil, err
		}
		s.private = key
	}
	keys := make([][]byte, len(secrets))
	for i, secret := range secrets {
		key, err := secret.Key()
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	s.work.New = func() any {
		w := &signing{macs: make([]hash.Hash, len(keys))}
		for i, key := range keys {
			w.macs[i] = hmac.New(sha256.New, key)
		}
		return w
	}
	return s, nil
}

// Sign appends the value of Webhook-Signature to dst: one signature of
// "id.timestamp.body" for each key, with spaces between.
func (s *Signer) Sign(dst []byte, id string, at time.Time, body []byte) []byte {
	w := s.work.Get().(*signing)
	defer s.work.Put(w)
	w.content = appendContent(w.content[:0], id, at, body)
	start := len(dst)
	for _, mac := range w.macs {
		mac.Reset()
		mac.Write(w.content)
		dst = appendSignature(dst, start, schemeHMAC, mac.Sum(w.sum[:0]))
	}
	if s.private != nil {
		dst = appendSignature(dst, start, schemeEd25519, ed25519.Sign(s.private, w.content))
	}
	return dst
}

// Format keeps the keys out of what prints a signer.
func (*Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "webhook.Signer(…)") }

func appendContent(dst []byte, id string, at time.Time, body []byte) []byte {
	dst = append(append(dst, id...), '.')
	dst = append(strconv.AppendInt(dst, at.Unix(), 10), '.')
	return append(dst, body...)
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
	mac := hmac.New(sha256.New, key)
	mac.Write(appendContent(nil, id, at, body))
	want := mac.Sum(nil)
	return anySignature(signatures, schemeHMAC, func(got []byte) bool { return hmac.Equal(got, want) })
}

// VerifyEd25519 says the same of a PrivateKey, of which it takes the public one.
func VerifyEd25519(id string, at time.Time, body []byte, key ed25519.PublicKey, signatures string) bool {
	content := appendContent(nil, id, at, body)
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
