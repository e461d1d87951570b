package webhook

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
)

// Sealer encrypts what the database keeps but must not show: signing secrets
// and header values. AES-256-GCM with a random nonce in front.
type Sealer struct{ aead cipher.AEAD }

// SealKeySize is the length of a sealer's key in bytes.
const SealKeySize = 32

// NewSealer takes a key of SealKeySize bytes.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) != SealKeySize {
		return nil, fmt.Errorf("the secret key must be %d bytes, not %d", SealKeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead}, nil
}

// Seal encrypts s. context is authenticated with it, so that a sealed value
// cannot be moved to another row.
func (s *Sealer) Seal(plain, context string) string {
	return base64.StdEncoding.EncodeToString(s.aead.Seal(nil, nil, []byte(plain), []byte(context)))
}

// ErrSealed is returned for values that this key did not seal.
var ErrSealed = errors.New("cannot decrypt a stored secret: RUNBELL_SECRET_KEY (or the file secret.key in the data " +
	"directory) is not the one it was stored with")

// Open decrypts what Seal made with the same context.
func (s *Sealer) Open(sealed, context string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return "", ErrSealed
	}
	plain, err := s.aead.Open(nil, nil, b, []byte(context))
	if err != nil {
		return "", ErrSealed
	}
	return string(plain), nil
}
