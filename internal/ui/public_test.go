package ui

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// unpacked is the text of a page.
func unpacked(t *testing.T, packed []byte) string {
	t.Helper()
	var b strings.Builder
	if err := unpack(&b, packed); err != nil {
		t.Error(err)
	}
	return b.String()
}

// A page that everybody may see is made once, however many ask, one at a time.
func TestPublicPagesAreMadeOnce(t *testing.T) {
	pages := newPublicPages()
	var made, atOnce atomic.Int64
	var asking sync.WaitGroup
	for n := range 200 {
		asking.Go(func() {
			key := fmt.Sprint(n % 4)
			packed, err := pages.get(t.Context(), fmt.Sprint(n%10), key, func() ([]byte, error) {
				if made.Add(1); atOnce.Add(1) > 1 {
					t.Error("two pages are made at once")
				}
				defer atOnce.Add(-1)
				return []byte("page " + key), nil
			})
			if err != nil {
				t.Error(err)
			} else if body := unpacked(t, packed); body != "page "+key {
				t.Errorf("page %s is %q", key, body)
			}
		})
	}
	asking.Wait()
	if made.Load() != 4 {
		t.Errorf("4 pages were made %d times", made.Load())
	}

	// An error is not kept.
	broken := errors.New("broken")
	for range 2 {
		if _, err := pages.get(t.Context(), "", "e", func() ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestPublicPagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // pages for strangers wait
		pages := newPublicPages()
		random := rand.NewChaCha8([32]byte{1})
		for n := range 50 {
			body := make([]byte, 1<<20)
			_, _ = random.Read(body)
			if _, err := pages.get(t.Context(), "", fmt.Sprint(n), func() ([]byte, error) { return body, nil }); err != nil {
				t.Fatal(err)
			}
		}
		if pages.size > maxPublic || pages.size < maxPublic/2 || len(pages.byKey) != pages.order.Len() {
			t.Errorf("%d bytes in %d pages", pages.size, pages.order.Len())
		}
		if pages.kept("49") == nil || pages.kept("0") != nil {
			t.Error("the page asked for last is not kept, or the first is")
		}
	})
}

// What strangers put into the address does not make it another page, unless the
// page reads it.
func TestPublicPagesReadFewParameters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // pages for strangers wait
		w := newWorld(t)
		defer w.close()
		w.token = ""
		j := w.join(shopJoin("build-001", fiveSpecs()...))
		w.complete(w.claim(j, 1)[0], fiveSpecs()[0])
		if _, err := w.runs.Cancel(w.ctx, j.RunID, "a test", ""); err != nil {
			t.Fatal(err) // of a run that runs, the page is another one each second
		}
		kept := w.ui.pages.byKey
		for path, want := range map[string]int{
			"/run/" + j.RunID + "?":       1,
			"/run/" + j.RunID + "/specs?": mostPages,
			"/run/" + j.RunID + "/spec?file=" + url.QueryEscape(fiveSpecs()[0].name) + "&": mostPages,
		} {
			clear(kept)
			for n := range 2 * mostPages {
				queries := []string{"page=%d", "x=%d", "page=-%d", "page=x%d", "instance=%d",
					"show=%d", "sort=x%d", "refresh=%d", "q=%%20&show=%d"}
				if n > 20 {
					queries = queries[:1] // only numbers are read
				}
				for _, query := range queries {
					if rec := w.get(path + fmt.Sprintf(query, n)); rec.Code != http.StatusOK {
						t.Fatalf("%s: %d", path, rec.Code)
					}
				}
			}
			if len(kept) != want {
				t.Errorf("%s: %d pages, want %d", path, len(kept), want)
			}
		}
		clear(kept)
		for n := range 10 {
			w.get("/run/" + j.RunID + "/spec?file=" + url.QueryEscape(fiveSpecs()[0].name) + fmt.Sprintf("&q=%d&show=%d&sort=%d&refresh=%d", n, n, n, n))
		}
		if len(kept) != 1 {
			t.Errorf("the filter of lists makes %d pages of a spec", len(kept))
		}
	})
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
	if body := unpacked(t, zipped.Body.Bytes()); plain.Code != 200 || body != plain.Body.String() {
		t.Errorf("%d: the pages differ", plain.Code)
	}
	w.complete(w.claim(j, 1)[0], fiveSpecs()[1])
	if after := w.get(path); bytes.Equal(after.Body.Bytes(), plain.Body.Bytes()) || after.Header().Get("ETag") == plain.Header().Get("ETag") {
		t.Error("the page is that of an earlier state")
	}
}
