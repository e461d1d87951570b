package run

import (
	"errors"
	"fmt"
	"time"
)

// Kind sorts errors by what their receiver can do about them. The adapters
// map a kind to a status in one table (package web).
type Kind int

const (
	// Internal is everything that is our fault; its text never leaves the process.
	Internal Kind = iota
	// Invalid is input that does not have the promised form.
	Invalid
	// Unauthorized is a missing, unknown or revoked key.
	Unauthorized
	// Forbidden is a known key that may not do this.
	Forbidden
	// NotFound is a thing that does not exist, or not for this key.
	NotFound
	// Conflict is a clash with something that exists already.
	Conflict
	// TooLarge is input over a limit.
	TooLarge
	// Refused is well-formed input that the state of things does not allow.
	Refused
	// TooMany is a request that comes too soon after others.
	TooMany
	// Unavailable is a passing condition: the same request may succeed later.
	Unavailable
)

// Error is an error whose text is meant for the person who caused it: Message
// says what is wrong and what to do, Details go with it line by line. Code is
// a word programs can match, where the protocol has one.
type Error struct {
	Kind    Kind
	Code    string
	Message string
	Details []string
	// Wait is how long to wait before the next try; zero if unknown.
	Wait time.Duration
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an *Error of the given kind.
func Errorf(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// KindOf says what kind of error err is; Internal for errors that are not ours.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Missing is the NotFound error for a thing and its id.
func Missing(thing, id string) error {
	return Errorf(NotFound, "There is no %s %q.", thing, Clip(id, 80))
}

// Clip shortens s to at most n bytes at a rune boundary, for quoting input in
// messages.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}
