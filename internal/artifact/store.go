// Package artifact keeps what reporters upload: screenshots, videos, coverage. A [Store] has the bytes. The database
// has everything else, and it alone knows which files exist.
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
	// Put stores the bytes of r under a new key. size is their number, or -1 if unknown; if r yields another number,
	// Put fails. When it returns nil, the file is complete and durable. After an error, the state of the file is
	// undefined, and the caller deletes the key. An error of r is returned as it is or wrapped.
	Put(ctx context.Context, key string, r io.Reader, size int64, contentType string) error
	// Open opens a file. For a missing file, the error is fs.ErrNotExist.
	Open(ctx context.Context, key string) (io.ReadSeekCloser, error)
	// Delete removes a file, or what an upload left of it. A missing file is not an error.
	Delete(ctx context.Context, key string) error
	// Linger is how long after a Put that failed, or whose process died, its file may
	// still appear.
	Linger() time.Duration
	// Check returns why the store accepts no files.
	Check(ctx context.Context) error
	// String says where the files are, for people. It contains no secrets.
	String() string
}

// Presigner is a Store that reporters can upload to themselves.
type Presigner interface {
	Store
	// PresignPut returns an address that accepts PUTs of a file with this content type, until it expires.
	PresignPut(ctx context.Context, key, contentType string, expires time.Duration) (address string, err error)
}

// ErrFull is in the errors of a Store without free space.
var ErrFull = errors.New("there is no room left")

// errSize is what Put returns if the number of bytes is not the announced one.
var errSize = errors.New("the number of bytes is not the one that was announced")

// NewKey makes a key for a file of an artifact: two characters, a slash, and a random part. It is safe in paths and
// addresses.
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
