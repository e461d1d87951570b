package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"runbell/internal/run"
)

// What one hash costs, as OWASP recommends for argon2id. They are stored with
// each hash, so that they can be raised.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	saltSize     = 16
	hashSize     = 32
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
		return run.Errorf(run.Invalid,
			"The password must have %d to %d characters: use a few words that do not belong together.", minPassword, maxPassword)
	}
	return nil
}

// hasher computes hashes, few at a time: each takes argonMemory. People who have
// proved something (a session, a link, a device that signed in before) have a
// lane of their own, so that strangers do not keep them waiting.
type hasher struct {
	known, strangers chan struct{}
}

// hashWait is how long a password waits for others to be checked.
const hashWait = 5 * time.Second

func newHasher() hasher {
	return hasher{known: make(chan struct{}, 1), strangers: make(chan struct{}, 1)}
}

func work(ctx context.Context, lane chan struct{}, password string, salt []byte, time, memory uint32,
	threads uint8) ([]byte, error) {
	if err := enter(ctx, lane); err != nil {
		return nil, err
	}
	defer func() { <-lane }()
	return argon2.IDKey([]byte(password), salt, time, memory, threads, hashSize), nil
}

// enter waits for a place in a lane. It returns Unavailable if there is none
// within hashWait.
func enter(ctx context.Context, lane chan struct{}) error {
	wait := time.NewTimer(hashWait)
	defer wait.Stop()
	select {
	case lane <- struct{}{}:
		return nil
	case <-wait.C:
		return run.Errorf(run.Unavailable, "The server is busy with other sign-ins. Try again in a minute.")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hash returns what is stored of a password.
func (h hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	sum, err := work(ctx, h.known, password, salt, argonTime, argonMemory, argonThreads)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		b64.EncodeToString(salt), b64.EncodeToString(sum)), nil
}

// nobody is the hash of a password that no one has: checking it takes as long
// as checking a real one.
var nobody = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
	strings.Repeat("A", 22), strings.Repeat("A", 43))

// matches says whether a password is the stored one. lane is where it waits.
func matches(ctx context.Context, lane chan struct{}, password, stored string) (bool, error) {
	if len(password) > 4*maxPassword {
		return false, nil
	}
	known := stored != ""
	if !known {
		stored = nobody
	}
	var version int
	var time, memory uint32
	var threads uint8
	parts := strings.Split(stored, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("a stored password is not argon2id")
	}
	_, errVersion := fmt.Sscanf(parts[2], "v=%d", &version)
	_, errCost := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads)
	salt, errSalt := base64.RawStdEncoding.DecodeString(parts[4])
	want, errHash := base64.RawStdEncoding.DecodeString(parts[5])
	for _, err := range []error{errVersion, errCost, errSalt, errHash} {
		if err != nil || version != argon2.Version {
			return false, errors.New("a stored password cannot be read")
		}
	}
	sum, err := work(ctx, lane, password, salt, time, memory, threads)
	return err == nil && known && subtle.ConstantTimeCompare(sum, want) == 1, err
}
