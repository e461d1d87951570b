// Package artifact keeps what reporters upload: screenshots, videos, coverage. A
// [Store] has the bytes; the database has everything else, and is the only truth
// about which files there are.
package artifact

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"time"
)

// Store keeps files by key. Keys are made by [NewKey] and never used twice. Its
// methods may be called from any goroutine.
type Store interface {
	// Put stores what r yields, under a new key. size is how much that is, or -1 if
	// nobody knows; if r yields another number of bytes, Put fails. When it returns
	// nil, the file is whole and durable. After an error nothing is promised: the
	// caller deletes the key. An error of r is returned as it is or wrapped.
	Put(ctx context.Context, key string, r io.Reader, size int64, contentType string) error
	// Open opens a file. One that is not there is an error that is fs.ErrNotExist.
	Open(ctx context.Context, key string) (io.ReadSeekCloser, error)
	// Delete removes a file, or what an upload left of it. One that is not there is
	// no error.
	Delete(ctx context.Context, key string) error
	// Linger is how long after a Put that failed, or whose process died, its file may
	// still appear.
	Linger() time.Duration
	// Check says why the store takes no files.
	Check(ctx context.Context) error
	// String says where the files are, for people. It has no secrets.
	String() string
}

// Presigner is a Store that reporters can upload to themselves.
type Presigner interface {
	Store
	// PresignPut is an address that takes one PUT of a file with this content type,
	// until it expires.
	PresignPut(ctx context.Context, key, contentType string, expires time.Duration) (address string, err error)
}

// ErrFull is in the errors of a Store that has no room.
var ErrFull = errors.New("there is no room left")

// errSize is what Put returns for another number of bytes than it was told.
var errSize = errors.New("the number of bytes is not the one that was announced")

// NewKey makes a key for a file of an artifact: two characters, a slash, and some
// that no other key has. It is safe in paths and addresses.
func NewKey(artifactID string) string {
	return artifactID[:2] + "/" + artifactID + "-" + rand.Text()
}

// ArtifactID is the id in a key, "" if it is none.
func ArtifactID(key string) string {
	_, rest, ok := strings.Cut(key, "/")
	at := strings.LastIndexByte(rest, '-')
	if !ok || at < 0 {
		return ""
	}
	return rest[:at]
}
