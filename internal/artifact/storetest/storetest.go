// Package storetest has the suite that every [artifact.Store] must pass.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"

	"runbell/internal/artifact"
	"runbell/internal/run"
)

// Run runs the suite on a store, which may have files already.
func Run(t *testing.T, s artifact.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, artifact.Store)
	}{
		{"what is put is read", putAndOpen}, {"a file of unknown size", unknownSize},
		{"another size than announced", wrongSize},
		{"a reader that fails", failingReader}, {"seeking", seeking}, {"what is not there", missing}, {"deleting", deleting},
		{"many at once", many}, {"check", check},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

var errCut = errors.New("the line was cut")

// newKey is a key of an artifact of this test.
func newKey(t *testing.T) string {
	return artifact.NewKey(run.ArtifactID(t.Name(), run.ScreenshotArtifact, ""))
}

func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed))).Read(b)
	return b
}

func read(t *testing.T, s artifact.Store, key string) []byte {
	t.Helper()
	f, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatalf("read: %v", err)
	}
	return b
}

func absent(t *testing.T, s artifact.Store, key string) {
	t.Helper()
	f, err := s.Open(t.Context(), key)
	if err == nil {
		// Object storage may find out at the first byte.
		_, err = f.Read(make([]byte, 1))
		_ = f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open %s: %v, want an error that is fs.ErrNotExist", key, err)
	}
}

func put(t *testing.T, s artifact.Store, key string, b []byte, size int64) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(b), size, "image/png"); err != nil {
		t.Fatalf("put %d bytes: %v", len(b), err)
	}
	t.Cleanup(func() { _ = s.Delete(context.WithoutCancel(t.Context()), key) }) // it is canceled by then
}

func putAndOpen(t *testing.T, s artifact.Store) {
	for _, size := range []int{0, 1, 70, 300_000, 6 << 20} {
		key, b := newKey(t), content(uint64(size), size)
		put(t, s, key, b, int64(size))
		if got := read(t, s, key); !bytes.Equal(got, b) {
			t.Errorf("%d bytes came back as %d others", size, len(got))
		}
	}
}

func unknownSize(t *testing.T, s artifact.Store) {
	key, b := newKey(t), content(2, 1<<20+1)
	put(t, s, key, b, -1)
	if got := read(t, s, key); !bytes.Equal(got, b) {
		t.Errorf("%d bytes came back", len(got))
	}
}

// A file that failed is gone once it was deleted, whatever was left of it.
func fails(t *testing.T, s artifact.Store, r io.Reader, size int64) error {
	t.Helper()
	key := newKey(t)
	err := s.Put(t.Context(), key, r, size, "image/png")
	if err == nil {
		t.Fatal("it was stored")
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Errorf("delete: %v", err)
	}
	absent(t, s, key)
	return err
}

func wrongSize(t *testing.T, s artifact.Store) {
	for _, announced := range []int64{99, 1 << 20} {
		_ = fails(t, s, bytes.NewReader(content(3, 100)), announced)
	}
}

func failingReader(t *testing.T, s artifact.Store) {
	for _, before := range []int{0, 100, 6 << 20} {
		for _, size := range []int64{-1, int64(before) + 100} {
			r := io.MultiReader(bytes.NewReader(content(4, before)), failing{})
			if err := fails(t, s, r, size); !errors.Is(err, errCut) {
				t.Errorf("after %d bytes: %v, want the error of the reader", before, err)
			}
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

func seeking(t *testing.T, s artifact.Store) {
	key, b := newKey(t), content(5, 1<<20)
	put(t, s, key, b, int64(len(b)))
	f, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if n, err := f.Seek(0, io.SeekEnd); n != int64(len(b)) || err != nil {
		t.Errorf("the end is at %d, %v", n, err)
	}
	for _, from := range []int64{0, 1 << 19, 12, int64(len(b)) - 5} {
		part := make([]byte, 5)
		_, err := f.Seek(from, io.SeekStart)
		if err == nil {
			_, err = io.ReadFull(f, part)
		}
		if err != nil || !bytes.Equal(part, b[from:from+5]) {
			t.Errorf("from %d: %x, %v", from, part, err)
		}
	}
}

func missing(t *testing.T, s artifact.Store) { absent(t, s, newKey(t)) }

func deleting(t *testing.T, s artifact.Store) {
	key, b := newKey(t), content(6, 100)
	put(t, s, key, b, 100)
	for range 2 { // one that is not there is no error
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete: %v", err)
		}
		absent(t, s, key)
	}
}

func many(t *testing.T, s artifact.Store) {
	var done sync.WaitGroup
	for n := range 50 {
		key, b := newKey(t), content(uint64(n), 10_000+n)
		done.Go(func() {
			if err := s.Put(t.Context(), key, bytes.NewReader(b), int64(len(b)), "image/png"); err != nil {
				t.Errorf("put: %v", err)
				return
			}
			if got := read(t, s, key); !bytes.Equal(got, b) {
				t.Errorf("%d bytes came back", len(got))
			}
			if err := s.Delete(t.Context(), key); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
	}
	done.Wait()
}

func check(t *testing.T, s artifact.Store) {
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if s.String() == "" {
		t.Error("it does not say where the files are")
	}
}
