package ui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// A page that everybody may see is made once, however many ask, one at a time.
func TestPublicPagesAreMadeOnce(t *testing.T) {
	pages := newPublicPages()
	var made, atOnce atomic.Int64
	var asking sync.WaitGroup
	for n := range 200 {
		asking.Go(func() {
			key := fmt.Sprint(n % 4)
			packed, err := pages.get(t.Context(), key, func() ([]byte, error) {
				if made.Add(1); atOnce.Add(1) > 1 {
					t.Error("two pages are made at once")
				}
				defer atOnce.Add(-1)
				return []byte("page " + key), nil
			})
			if err != nil {
				t.Error(err)
			}
			if body, err := unpack(packed); err != nil || string(body) != "page "+key {
				t.Errorf("page %s is %q (%v)", key, body, err)
			}
		})
	}
	asking.Wait()
	if made.Load() != 4 {
		t.Errorf("4 pages were made %d times", made.Load())
	}

	// An error is not kept, and nobody waits for longer than they want.
	broken := errors.New("broken")
	if _, err := pages.get(t.Context(), "e", func() ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	pages.making <- struct{}{}
	if _, err := pages.get(gone, "e", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func TestPublicPagesAreBounded(t *testing.T) {
	pages := newPublicPages()
	random := rand.NewChaCha8([32]byte{1})
	for n := range 50 {
		body := make([]byte, 1<<20)
		_, _ = random.Read(body)
		if _, err := pages.get(t.Context(), fmt.Sprint(n), func() ([]byte, error) { return body, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if pages.size > maxPublic || pages.size < maxPublic/2 || len(pages.byKey) != pages.order.Len() {
		t.Errorf("%d bytes in %d pages", pages.size, pages.order.Len())
	}
	if pages.kept("49") == nil || pages.kept("0") != nil {
		t.Error("the page asked for last is not kept, or the first is")
	}
}

// What strangers put into the address does not make it another page.
func TestPublicKeysAreFew(t *testing.T) {
	keys := map[string]bool{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /run/{runId}/spec", func(_ http.ResponseWriter, r *http.Request) {
		keys[publicKey(&request{Request: r}, "tag")] = true
	})
	for n := range 1000 {
		for _, query := range []string{"file=a&page=%d", "file=a&x=%d", "file=a&page=-%d", "file=a&refresh=%d", "file=a&page=x%d"} {
			mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/run/r/spec?"+fmt.Sprintf(query, n), nil))
		}
	}
	if len(keys) != mostPages {
		t.Errorf("%d keys for %d pages", len(keys), mostPages)
	}
}

// With and without gzip a public page is the same, and it changes with the run.
func TestPublicPagesFollowTheRun(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = ""
	j := w.join(shopJoin("build-001", fiveSpecs()...))
	w.complete(w.claim(j, 1)[0], fiveSpecs()[0])
	path := "/run/" + j.RunID + "/specs"
	plain, zipped := w.get(path), w.get(path, "Accept-Encoding", "gzip")
	if zipped.Header().Get("Content-Encoding") != "gzip" || plain.Header().Get("Content-Encoding") != "" {
		t.Fatalf("%v and %v", plain.Header(), zipped.Header())
	}
	if body, err := unpack(zipped.Body.Bytes()); err != nil || plain.Code != 200 || !bytes.Equal(body, plain.Body.Bytes()) {
		t.Errorf("%d, %v: the pages differ", plain.Code, err)
	}
	w.complete(w.claim(j, 1)[0], fiveSpecs()[1])
	if after := w.get(path); bytes.Equal(after.Body.Bytes(), plain.Body.Bytes()) || after.Header().Get("ETag") == plain.Header().Get("ETag") {
		t.Error("the page is that of an earlier state")
	}
}
