package artifact_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// presigned is a world whose reporters upload to the real S3 server themselves.
type presigned struct {
	*world
	server *testkit.S3
	bucket string
}

func newPresigned(t *testing.T, db *store.DB) presigned {
	t.Helper()
	server, settings := s3Settings(t)
	w := newWorld(t, db)
	w.service = w.with(openS3(t, settings))
	w.service.Presign = true
	return presigned{w, server, settings.Bucket}
}

// address is the URL to which the reporter uploads a screenshot.
func (p presigned) address(id string) string {
	p.Helper()
	u, err := p.service.Expect(context.Background(), p.instance, shot(id))
	if err != nil {
		p.Fatal(err)
	}
	return u.Screenshots[0].UploadURL
}

func (p presigned) put(address, content string, header ...string) {
	p.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPut, address, strings.NewReader(content))
	if err != nil {
		p.Fatal(err)
	}
	r.Header.Set("Content-Type", "image/png")
	for n := 0; n < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		p.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		p.Fatalf("PUT %s: %s", address, answer.Status)
	}
}

// look has the service look at what is awaited, as it does when a run is shown, until it knows whether an artifact is there.
func (p presigned) look(id string) run.Artifact {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go p.service.Look(ctx)
	for ctx.Err() == nil {
		p.service.Shown(p.runID)
		if a := p.artifact(id); a.Stored() || a.Problem != "" {
			return a
		}
	}
	p.Fatal("it is awaited still")
	return run.Artifact{}
}

// age lets the hour of the awaited files end.
func (p presigned) age() {
	p.Helper()
	testkit.Write(p, p.db, func(ctx context.Context, tx *store.Tx) error {
		list, err := tx.AwaitedArtifacts(ctx, p.runID)
		for _, a := range list {
			a.AwaitedUntil = tx.Now.Add(-time.Second)
			if err := tx.AwaitArtifact(ctx, a); err != nil {
				return err
			}
		}
		return err
	})
}

func TestPresignedUploads(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		p := newPresigned(t, db)
		address := p.address("s1")
		if u, err := url.Parse(address); err != nil || "http://"+u.Host != p.server.URL || u.Query().Get("X-Amz-Expires") != "3600" {
			t.Fatalf("the reporter uploads to %s, %v", address, err)
		}
		a := p.artifact("s1")
		if a.Stored() || time.Until(a.AwaitedUntil) < 59*time.Minute {
			t.Errorf("%+v", a)
		}
		if _, err := p.service.Open(t.Context(), a); run.KindOf(err) != run.NotFound {
			t.Errorf("a file that is not there yet: %v", err)
		}
		// The response was lost: the same results get the same place.
		again := p.address("s1")
		if before, _, _ := strings.Cut(address, "?"); !strings.HasPrefix(again, before+"?") {
			t.Errorf("%s is not %s", again, address)
		}
		p.put(again, "a picture")
		if got := p.content(p.artifact("s1")); got != "a picture" { // a reader sees it at once
			t.Errorf("%q", got)
		}
		if a := p.artifact("s1"); !a.Stored() || a.Size != 9 || a.SHA256 != "" {
			t.Errorf("%+v", a)
		}
		p.put(address, "another one")
		if got := p.content(p.artifact("s1")); got != "another one" || p.artifact("s1").Size != 11 {
			t.Errorf("%q", got)
		}

		p.put(p.address("s2"), "\x1f\x8b packed", "Content-Encoding", "gzip")
		if a := p.look("s2"); !a.Stored() || a.Encoding != "gzip" {
			t.Errorf("%+v", a)
		}
		p.address("s3") // and nobody uploads
		p.age()
		if a := p.look("s3"); a.Stored() || a.Problem != "It was not uploaded in time." {
			t.Errorf("%+v", a)
		}
		p.put(p.address("s4"), strings.Repeat("x", maxSize+1))
		if a := p.look("s4"); a.Stored() || !strings.Contains(a.Problem, "RUNBELL_ARTIFACT_MAX") {
			t.Errorf("%+v", a)
		}
		refused := p.address("s5")
		if err := p.service.Reported(t.Context(), p.instance, []run.UploadReport{{Address: refused, Why: "403"}}); err != nil {
			t.Error(err)
		}
		lost := p.address("lost") // was the response, and the file is there
		p.put(lost, "here")
		if err := p.service.Reported(t.Context(), p.instance, []run.UploadReport{{Address: lost, Why: "ECONNRESET"}}); err != nil || !p.artifact("lost").Stored() {
			t.Errorf("%v, %+v", err, p.artifact("lost"))
		}
		if a := p.artifact("s5"); a.Stored() || !strings.Contains(a.Problem, "403") {
			t.Errorf("%+v", a)
		}
		// A restart forgets nothing that is awaited.
		awaited := p.address("s6")
		if err := p.service.Recover(t.Context()); err != nil {
			t.Error(err)
		}
		p.put(awaited, "late")
		if got := p.content(p.artifact("s6")); got != "late" {
			t.Errorf("%q", got)
		}
		// s1, s2, lost and s6.
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			r, err := tx.Run(ctx, p.runID)
			if r.Artifacts != 4 || r.ArtifactBytes != 11+9+4+4 {
				t.Errorf("the run has %d artifacts of %d bytes", r.Artifacts, r.ArtifactBytes)
			}
			return err
		})
	})
}

// Files that are not kept are deleted once nobody can upload them any more.
func TestPresignedFilesAreDeleted(t *testing.T) {
	p := newPresigned(t, testkit.SQLite(t))
	p.put(p.address("s1"), strings.Repeat("x", maxSize+1))
	_ = p.look("s1")
	p.sweep()
	if got := p.server.Objects(t, p.bucket); len(got) != 1 {
		t.Errorf("it was deleted while it may be uploaded: %q", got)
	}
	p.over(t)
	p.sweep()
	if got := p.server.Objects(t, p.bucket); len(got) != 0 {
		t.Errorf("these are left: %q", got)
	}
}

// A presigned URL accepts any number of uploads for an hour. So after that hour, the server looks once more for a
// file that was deleted, with its run or because it was too large.
func TestPresignedAddressesAreUsedAgain(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		p := newPresigned(t, db)
		grows, gone := p.address("grows"), p.address("gone")
		p.put(grows, "small")
		p.put(gone, "small")
		if !p.look("grows").Stored() || !p.look("gone").Stored() {
			t.Fatal("they were not seen")
		}
		p.put(grows, strings.Repeat("x", maxSize+1))
		if _, err := p.service.Open(t.Context(), p.artifact("grows")); run.KindOf(err) != run.NotFound || !strings.Contains(err.Error(), "RUNBELL_ARTIFACT_MAX") {
			t.Errorf("a file that grew beyond the limit: %v", err)
		}
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			n, bytes, err := tx.RemoveArtifacts(ctx, p.runID, 100)
			if n != 1 || bytes != 5 {
				t.Errorf("%d artifacts of %d bytes were removed", n, bytes)
			}
			return err
		})
		p.sweep()
		p.put(gone, "again")
		p.over(t)
		p.sweep()
		if got := p.server.Objects(t, p.bucket); len(got) != 0 {
			t.Errorf("these stay forever: %q", got)
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			r, err := tx.Run(ctx, p.runID)
			if r.Artifacts != 0 || r.ArtifactBytes != 0 {
				t.Errorf("the run has %d artifacts of %d bytes", r.Artifacts, r.ArtifactBytes)
			}
			return err
		})
	})
}

// over lets the hour of the stored files end.
func (p presigned) over(t *testing.T) {
	t.Helper()
	testkit.Write(t, p.db, func(ctx context.Context, tx *store.Tx) error {
		return tx.PostponeFiles(ctx, p.server.Objects(t, p.bucket), tx.Now)
	})
}

// Storage that cannot sign is no reason to upload nothing.
func TestPresignWithoutCredentials(t *testing.T) {
	noCredentials(t)
	_, settings := s3Settings(t)
	settings.AccessKeyID, settings.SecretAccessKey = "", ""
	w := newWorld(t, testkit.SQLite(t))
	w.service = w.with(openS3(t, settings))
	w.service.Presign = true
	u, err := w.service.Expect(t.Context(), w.instance, shot("s1"))
	if err != nil || !strings.HasPrefix(u.Screenshots[0].UploadURL, "http://runbell.test/files/") {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestUploadsToS3ThatFails: the reporter gets a response that it understands, the page gives the reason, and nothing
// is shown.
func TestUploadsToS3ThatFails(t *testing.T) {
	server, settings := s3Settings(t)
	pass := testkit.PassTo(t, server.URL)
	w := newWorld(t, testkit.SQLite(t))
	var lie atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	settings.Endpoint = serve(t, func(rw http.ResponseWriter, r *http.Request) {
		if f := lie.Load(); f == nil || !(*f)(rw, r) {
			pass.ServeHTTP(rw, r)
		}
	})
	w.service = w.with(openS3(t, settings))
	for name, f := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"500 after it took the file": func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				pass.ServeHTTP(discard{http.Header{}}, r)
				rw.WriteHeader(http.StatusInternalServerError)
				return true
			}
			return false
		},
		"another length": func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				object(rw, 3)
				return true
			}
			return false
		},
		"a line that is cut": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			lie.Store(&f)
			err := w.service.Receive(t.Context(), w.upload(name, strings.NewReader("0123456789"), 10))
			if run.KindOf(err) != run.Unavailable {
				t.Errorf("the reporter gets %v", err)
			}
			a := w.artifact(name)
			if a.Stored() || a.Problem == "" {
				t.Errorf("%+v", a)
			}
			lie.Store(nil)
			if _, err := w.service.Open(t.Context(), a); run.KindOf(err) != run.NotFound {
				t.Errorf("it is shown: %v", err)
			}
			// The reporter tries again.
			if err := w.service.Receive(t.Context(), w.upload(name, strings.NewReader("0123456789"), 10)); err != nil {
				t.Error(err)
			}
			if got := w.content(w.artifact(name)); got != "0123456789" {
				t.Errorf("%q", got)
			}
		})
	}
}

// discard is a response that no client gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (discard) WriteHeader(int)             {}
