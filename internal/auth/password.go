package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"runbell/internal/run"
)

// What one hash costs, as OWASP recommends for argon2id. They are stored with
// each hash, so that they can be raised.
const (
	argonMemory = 19 << 10 // KiB
	argonTime   = 2
	argonLanes  = 1
	saltSize    = 16
	hashSize    = 32
)

// What a password must be. A sentence is welcome; more than that is not worth
// hashing.
const (
	minPassword = 10
	maxPassword = 256
)

// CheckPassword says what is wrong with a password that somebody chose.
func CheckPassword(password string) error {
	if n := utf8.RuneCountInString(password); n < minPassword || n > maxPassword || !utf8.ValidString(password) {
		return run.Errorf(run.Invalid, "A password has %d to %d characters: take a few words that only you would put together.", minPassword, maxPassword)
	}
	return nil
}

// hasher bounds how much memory passwords that are checked at once may take.
type hasher chan struct{}

const hashesAtOnce = 4

func (h hasher) work(ctx context.Context, password string, salt []byte, time, memory uint32, lanes uint8) ([]byte, error) {
	select {
	case h <- struct{}{}:
		defer func() { <-h }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return argon2.IDKey([]byte(password), salt, time, memory, lanes, hashSize), nil
}

// hash makes of a password what is stored of it.
func (h hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	sum, err := h.work(ctx, password, salt, argonTime, argonMemory, argonLanes)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes,
		b64.EncodeToString(salt), b64.EncodeToString(sum)), nil
}

// nobody is the hash of a password that nobody has: checking it takes as long
// as checking that of somebody.
var nobody = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes,
	strings.Repeat("A", 22), strings.Repeat("A", 43))

// matches says whether a password is the stored one.
func (h hasher) matches(ctx context.Context, password, stored string) (bool, error) {
	if len(password) > 4*maxPassword {
		return false, nil
	}
	known := stored != ""
	if !known {
		stored = nobody
	}
	var version int
	var time, memory uint32
	var lanes uint8
	parts := strings.Split(stored, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("a stored password is not argon2id")
	}
	_, errVersion := fmt.Sscanf(parts[2], "v=%d", &version)
	_, errCost := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &lanes)
	salt, errSalt := base64.RawStdEncoding.DecodeString(parts[4])
	want, errHash := base64.RawStdEncoding.DecodeString(parts[5])
	for _, err := range []error{errVersion, errCost, errSalt, errHash} {
		if err != nil || version != argon2.Version {
			return false, fmt.Errorf("a stored password cannot be read")
		}
	}
	sum, err := h.work(ctx, password, salt, time, memory, lanes)
	return err == nil && known && subtle.ConstantTimeCompare(sum, want) == 1, err
}
