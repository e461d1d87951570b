package artifact_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"runbell/internal/artifact"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

const maxSize = 100_000

// world is a run with one instance, and a service that keeps files in dir.
type world struct {
	testing.TB
	db       *store.DB
	dir      string
	runs     *lifecycle.Service
	service  *artifact.Service
	runID    string
	instance string
}

func newWorld(t testing.TB, db *store.DB) *world {
	t.Helper()
	w := &world{TB: t, db: db, dir: filepath.Join(t.TempDir(), "artifacts"), runs: lifecycle.New(db, "http://runbell.test", func(...string) {})}
	disk := artifact.NewDisk(w.dir)
	t.Cleanup(func() { _ = disk.Close() })
	w.service = w.with(disk)
	testkit.Project(t, db, "shop", func(p *run.Project) { p.InactivityTimeout = 90 * time.Second })
	joined, err := w.runs.Join(t.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Specs: []string{"a.cy.js"}})
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := w.runs.Claim(t.Context(), lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	w.runID, w.instance = joined.RunID, claimed.Instances[0].ID
	return w
}

// with is a service of the same server on a store.
func (w *world) with(s artifact.Store) *artifact.Service {
	return artifact.New(artifact.Options{DB: w.db, Store: s, Secret: bytes.Repeat([]byte{7}, 32), PublicURL: "http://runbell.test", Max: maxSize,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
}

// shot is an outcome with a screenshot.
func shot(id string) run.Outcome { return run.Outcome{Screenshots: []run.Screenshot{{ID: id}}} }

// upload is what a reporter sends to the address of a screenshot.
func (w *world) upload(id string, body io.Reader, size int64) artifact.Upload {
	w.Helper()
	expected, err := w.service.Expect(context.Background(), w.instance, shot(id))
	if err != nil {
		w.Fatal(err)
	}
	address, err := url.Parse(expected.Screenshots[0].UploadURL)
	if err != nil {
		w.Fatal(err)
	}
	return artifact.Upload{ID: strings.TrimPrefix(address.Path, "/files/"), Query: address.Query(), ContentType: "image/png", Size: size, Body: body}
}

// artifact is the stored row of a screenshot.
func (w *world) artifact(id string) (a run.Artifact) {
	w.Helper()
	testkit.Read(w, w.db, func(ctx context.Context, tx *store.Tx) (err error) {
		a, err = tx.Artifact(ctx, run.ArtifactID(w.instance, run.ScreenshotArtifact, id))
		if run.KindOf(err) == run.NotFound {
			err = nil
		}
		return err
	})
	return a
}

func (w *world) content(a run.Artifact) string {
	w.Helper()
	f, err := w.service.Open(context.Background(), a)
	if err != nil {
		w.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		w.Fatal(err)
	}
	return string(b)
}

// sweep deletes what is due.
func (w *world) sweep() {
	w.Helper()
	for more := true; more; {
		var err error
		if _, more, err = w.service.DeleteFiles(context.Background(), 2); err != nil {
			w.Fatal(err)
		}
	}
}

// The uploads that the server asks for depend on the reporter's settings and results.
func TestExpect(t *testing.T) {
	yes, no := new(true), new(false)
	failed := run.Outcome{Video: true, Results: []run.Result{{ID: "r1", State: run.Failed}}}
	passed := run.Outcome{Video: true, Results: []run.Result{{ID: "r1", State: run.Passed}}}
	for name, c := range map[string]struct {
		settings run.Settings
		outcome  run.Outcome
		video    bool
	}{
		"no video":                     {run.Settings{Video: yes}, shot("s"), false},
		"nothing is said":              {run.Settings{}, passed, true},
		"passed, videoUploadOnPasses":  {run.Settings{Video: yes, VideoUploadOnPasses: yes}, passed, true},
		"passed, without it":           {run.Settings{Video: yes, VideoUploadOnPasses: no}, passed, false},
		"failed, without it":           {run.Settings{Video: yes, VideoUploadOnPasses: no}, failed, true},
		"crashed, without it":          {run.Settings{VideoUploadOnPasses: no}, run.Outcome{Video: true, Exception: "crash"}, true},
		"video is off in the settings": {run.Settings{Video: no, VideoUploadOnPasses: yes}, failed, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testkit.SQLite(t))
			if _, err := w.runs.Announce(t.Context(), w.instance, run.Announcement{Settings: c.settings}); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the same again
				u, err := w.service.Expect(t.Context(), w.instance, c.outcome)
				if err != nil || (u.Video != "") != c.video || u.Coverage != "" || len(u.Screenshots) != len(c.outcome.Screenshots) {
					t.Errorf("%+v, %v", u, err)
				}
				if id := run.ArtifactID(w.instance, run.VideoArtifact, ""); c.video && !strings.HasPrefix(u.Video, "http://runbell.test/files/"+id+"?") {
					t.Errorf("the video goes to %s", u.Video)
				}
			}
		})
	}
	w := newWorld(t, testkit.SQLite(t))
	u, err := w.service.Expect(t.Context(), w.instance, run.Outcome{Coverage: true})
	if err != nil || !strings.Contains(u.Coverage, "type=application%2Fjson") {
		t.Errorf("coverage: %+v, %v", u, err)
	}
	var off *artifact.Service
	if u, err := off.Expect(t.Context(), w.instance, failed); err != nil || u.Video != "" || u.Screenshots != nil {
		t.Errorf("a server that keeps nothing: %+v, %v", u, err)
	}
}

// An upload in progress counts as a report.
func TestUploadKeepsTheGroupAlive(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db := testkit.Open(t, testkit.MigratedFile(t, dir))
		w := newWorld(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		kept := make(chan struct{})
		go func() {
			defer close(kept)
			w.runs.Keep(ctx, slog.New(slog.DiscardHandler))
		}()
		slow := &dripping{pieces: 9, each: time.Minute}
		if err := w.service.Receive(t.Context(), w.upload("s", slow, -1)); err != nil {
			t.Fatal(err)
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			r, err := tx.Run(ctx, w.runID)
			if r.State != run.Running {
				t.Errorf("after an upload of 9 minutes the run is %s", r.State)
			}
			return err
		})
		if a := w.artifact("s"); !a.Stored() || a.Size != 9 {
			t.Errorf("%+v", a)
		}
		cancel()
		<-kept
	})
}

// dripping yields a byte after each wait.
type dripping struct {
	pieces int
	each   time.Duration
}

func (s *dripping) Read(p []byte) (int, error) {
	if s.pieces == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.each)
	s.pieces--
	p[0] = 'x'
	return 1, nil
}

var errCut = errors.New("the line was cut")

// Whatever happens to uploads, an artifact has the last complete file, or the reason why there is none. After a sweep
// nothing else is on the disk.
func TestUploads(t *testing.T) {
	w := newWorld(t, testkit.SQLite(t))
	rounds := 0
	rapid.Check(t, func(t *rapid.T) {
		rounds++
		id := func(name string) string { return fmt.Sprint(rounds, name) } // other screenshots in each round
		files := map[string]string{}
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"upload", "upload", "upload", "restart", "sweep"}).Draw(t, "step") {
			case "upload":
				w.uploadAndCheck(t, id(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "screenshot")), files)
			case "restart":
				if err := w.service.Recover(context.Background()); err != nil {
					t.Fatal(err)
				}
			case "sweep":
				w.sweep()
			}
		}
		w.sweep()
		for id, want := range files {
			if got := w.content(w.artifact(id)); got != want {
				t.Fatalf("%s has %d bytes, want %d", id, len(got), len(want))
			}
		}
		w.onDisk(t, []string{id("a"), id("b")}, files)
	})
}

// uploadAndCheck makes one upload that may go wrong.
func (w *world) uploadAndCheck(t *rapid.T, id string, files map[string]string) {
	size := rapid.SampledFrom([]int{0, 1, 1000, maxSize, maxSize + 1}).Draw(t, "size")
	body := strings.Repeat(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "byte"), size)
	u := w.upload(id, strings.NewReader(body), int64(size))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	want := run.Internal // of an error; Internal is none
	switch {
	case size > maxSize:
		want = run.TooLarge
	case size == 0:
		want = run.Invalid
	}
	switch rapid.SampledFrom([]string{"fine", "unknown size", "cut", "gone", "short", "type", "packed", "another artifact", "another limit", "no signature"}).Draw(t, "kind") {
	case "unknown size":
		u.Size = -1
	case "cut":
		at := rapid.IntRange(0, size).Draw(t, "at")
		u.Body = io.MultiReader(strings.NewReader(body[:at]), failing{})
		if want == run.Internal {
			want = run.Invalid
		}
	case "gone":
		u.Body = io.MultiReader(strings.NewReader(body[:size/2]), leaving{cancel})
		if want == run.Internal {
			want = run.Invalid
		}
	case "short":
		u.Size = int64(size) + 7
		if want = run.TooLarge; u.Size <= maxSize {
			want = run.Invalid
		}
	case "type":
		u.ContentType, want = "text/html", run.Invalid
	case "packed":
		u.Encoding, want = "br", run.Invalid
	case "another artifact":
		u.ID, want = run.ArtifactID(w.instance, run.ScreenshotArtifact, "other"), run.Forbidden
	case "another limit":
		u.Query.Set("max", "1000000000")
		want = run.Forbidden
	case "no signature":
		u.Query.Del("signature")
		want = run.Forbidden
	}
	err := w.service.Receive(ctx, u)
	if (err == nil) != (want == run.Internal) || run.KindOf(err) != want {
		t.Fatalf("the upload of %d bytes: %v, want kind %d", size, err, want)
	}
	a := w.artifact(id)
	if err == nil {
		files[id] = body
	}
	switch _, has := files[id]; {
	case has && (!a.Stored() || a.Problem != "" || a.Size != int64(len(files[id]))):
		t.Fatalf("%+v, want a file of %d bytes", a, len(files[id]))
	case !has && (a.Stored() || a.ID == "" != (want == run.Forbidden && a.Problem == "")):
		t.Fatalf("%+v after %v", a, err)
	}
}

// onDisk compares the files of screenshots with those in the directory.
func (w *world) onDisk(t *rapid.T, ids []string, files map[string]string) {
	t.Helper()
	for _, name := range ids {
		id := run.ArtifactID(w.instance, run.ScreenshotArtifact, name)
		found, err := filepath.Glob(filepath.Join(w.dir, id[:2], id+"-*"))
		if _, has := files[name]; err != nil || len(found) > 1 || (len(found) == 1) != has {
			t.Fatalf("%s has the files %q, %v", name, found, err)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

// leaving is a sender that disconnects.
type leaving struct{ leave func() }

func (l leaving) Read([]byte) (int, error) {
	l.leave()
	return 0, context.Canceled
}

// faulty is a disk that fails.
type faulty struct {
	*artifact.Disk
	put, open, remove error
	short             int64 // bytes that Open leaves out
}

func (f *faulty) Put(ctx context.Context, key string, r io.Reader, size int64, contentType string) error {
	if f.put == nil {
		return f.Disk.Put(ctx, key, r, size, contentType)
	}
	_, _ = io.CopyN(io.Discard, r, 10)
	return f.put
}

func (f *faulty) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	if f.open != nil {
		return nil, f.open
	}
	file, err := f.Disk.Open(ctx, key)
	if err != nil || f.short == 0 {
		return file, err
	}
	b, err := io.ReadAll(file)
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(b[:len(b)-int(f.short)]), file}, err
}

func (f *faulty) Delete(ctx context.Context, key string) error {
	if f.remove != nil {
		return f.remove
	}
	return f.Disk.Delete(ctx, key)
}

// A store that fails leaves a reason for people, and never half a file.
func TestStoreThatFails(t *testing.T) {
	w := newWorld(t, testkit.SQLite(t))
	disk := &faulty{Disk: artifact.NewDisk(w.dir)}
	t.Cleanup(func() { _ = disk.Close() })
	w.service = w.with(disk)
	send := func() error {
		return w.service.Receive(t.Context(), w.upload("s", strings.NewReader("0123456789"), 10))
	}
	for _, c := range []struct {
		err     error
		problem string
	}{{errors.New("broken"), "The server could not store it."}, {artifact.ErrFull, "The server had no free space for it."}} {
		disk.put = c.err
		if err := send(); run.KindOf(err) != run.Unavailable {
			t.Errorf("%v: %v", c.err, err)
		}
		if a := w.artifact("s"); a.Problem != c.problem || a.Stored() || a.RunID != w.runID {
			t.Errorf("%v: %+v", c.err, a)
		}
		if _, err := w.service.Open(t.Context(), w.artifact("s")); run.KindOf(err) != run.NotFound || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("open: %v", err)
		}
	}
	disk.put = nil
	if err := send(); err != nil {
		t.Fatal(err)
	}
	disk.short = 1
	if _, err := w.service.Open(t.Context(), w.artifact("s")); run.KindOf(err) != run.Unavailable {
		t.Errorf("a file that is too short: %v", err)
	}
	disk.short, disk.open = 0, errors.New("broken")
	if _, err := w.service.Open(t.Context(), w.artifact("s")); run.KindOf(err) != run.Unavailable {
		t.Errorf("a file that cannot be read: %v", err)
	}
	disk.open = nil
	first := w.artifact("s").FileKey
	if err := send(); err != nil {
		t.Fatal(err)
	}
	// What cannot be deleted is tried again in an hour.
	disk.remove = errors.New("broken")
	if n, more, err := w.service.DeleteFiles(t.Context(), 10); n != 2 && err == nil || more {
		t.Errorf("deleted %d, %v, %v", n, more, err)
	}
	disk.remove = nil
	if n, _, err := w.service.DeleteFiles(t.Context(), 10); n != 0 || err != nil {
		t.Errorf("deleted %d too early, %v", n, err)
	}
	if err := w.service.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _, err := w.service.DeleteFiles(t.Context(), 10); n != 3 || err != nil {
		t.Errorf("deleted %d, %v; want what two uploads left, and the file that was replaced", n, err)
	}
	if _, err := disk.Disk.Open(t.Context(), first); err == nil {
		t.Error("the file that was replaced is still there")
	}
	if got := w.content(w.artifact("s")); got != "0123456789" {
		t.Errorf("it has %q", got)
	}
}

// A reporter says what it could not upload, and what it thinks arrived.
func TestReported(t *testing.T) {
	w := newWorld(t, testkit.SQLite(t))
	address := func(id string) string {
		u := w.upload(id, nil, 0)
		return "http://runbell.test/files/" + u.ID + "?" + u.Query.Encode()
	}
	tell := func(instance, address string, uploaded bool) {
		t.Helper()
		if err := w.service.Reported(t.Context(), instance, []run.UploadReport{{Address: address, Uploaded: uploaded, Why: "PUT " + address + ": ECONNRESET"}}); err != nil {
			t.Error(err)
		}
	}
	tell(w.instance, address("s")+"x", false)
	tell(w.instance, "://", false)
	if err := w.service.Reported(t.Context(), "another", []run.UploadReport{{Address: address("s")}}); run.KindOf(err) != run.NotFound {
		t.Errorf("told by somebody else: %v", err)
	}
	if a := w.artifact("s"); a.ID != "" {
		t.Errorf("told by somebody else: %+v", a)
	}
	tell(w.instance, address("s"), false)
	if a := w.artifact("s"); !strings.HasPrefix(a.Problem, "The reporter could not upload it: PUT http") || !strings.HasSuffix(a.Problem, ": ECONNRESET") || strings.Contains(a.Problem, "signature") {
		t.Errorf("%+v", a)
	}
	tell(w.instance, address("proxy"), true)
	if a := w.artifact("proxy"); !strings.Contains(a.Problem, "it did not arrive") {
		t.Errorf("a proxy has taken it: %+v", a)
	}
	// If the server has the file or refused it, its own state takes precedence over the reporter's.
	if err := w.service.Receive(t.Context(), w.upload("here", strings.NewReader("x"), 1)); err != nil {
		t.Error(err)
	}
	if err := w.service.Receive(t.Context(), w.upload("large", strings.NewReader("x"), maxSize+1)); run.KindOf(err) != run.TooLarge {
		t.Error(err)
	}
	for _, uploaded := range []bool{true, false} {
		tell(w.instance, address("here"), uploaded)
		tell(w.instance, address("large"), uploaded)
	}
	if here, large := w.artifact("here"), w.artifact("large"); !here.Stored() || !strings.Contains(large.Problem, "RUNBELL_ARTIFACT_MAX") {
		t.Errorf("%+v, %+v", here, large)
	}
	// It may still arrive.
	if err := w.service.Receive(t.Context(), w.upload("proxy", strings.NewReader("x"), 1)); err != nil || !w.artifact("proxy").Stored() {
		t.Errorf("%v, %+v", err, w.artifact("proxy"))
	}
}

// Neither a picture nor a video is empty: a reporter sends an empty file when Cypress died
// before it wrote one.
func TestEmptyFiles(t *testing.T) {
	w := newWorld(t, testkit.SQLite(t))
	for _, size := range []int64{0, -1} {
		err := w.service.Receive(t.Context(), w.upload("s", strings.NewReader(""), size))
		if a := w.artifact("s"); run.KindOf(err) != run.Invalid || a.Stored() || a.Problem != "The file that the reporter sent is empty." {
			t.Errorf("%d: %v, %+v", size, err, a)
		}
	}
	w.sweep()
	if left := testkit.Files(t, w.dir); len(left) != 0 {
		t.Errorf("these files are left: %v", left)
	}
}

// begun is an upload in progress that waits.
type begun struct {
	t    *testing.T
	pipe *io.PipeWriter
	done chan error
}

func (w *world) begin(t *testing.T, id, half string) begun {
	t.Helper()
	from, to := io.Pipe()
	b, upload := begun{t, to, make(chan error, 1)}, w.upload(id, from, -1)
	go func() {
		err := w.service.Receive(context.Background(), upload)
		_ = from.CloseWithError(err) // it reads no more
		b.done <- err
	}()
	if _, err := io.WriteString(to, half); err != nil { // returns when it was read
		t.Fatal(err)
	}
	return b
}

// end sends the rest, and returns the outcome of the upload.
func (b begun) end(rest string) error {
	b.t.Helper()
	_, _ = io.WriteString(b.pipe, rest)
	_ = b.pipe.Close()
	return <-b.done
}

// Whatever happens during an upload, no unneeded file stays, and the counts of the run are right.
func TestChangesDuringAnUpload(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		has := func(artifacts int, bytes int64, files int) {
			t.Helper()
			w.sweep()
			if got := testkit.Files(t, w.dir); len(got) != files {
				t.Errorf("%d files, want %d", len(got), files)
			}
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				r, err := tx.Run(ctx, w.runID)
				if r.Artifacts != artifacts || r.ArtifactBytes != bytes {
					t.Errorf("the run has %d artifacts of %d bytes, want %d of %d", r.Artifacts, r.ArtifactBytes, artifacts, bytes)
				}
				return err
			})
		}
		slow := w.begin(t, "s", "the slow")
		if err := w.service.Receive(t.Context(), w.upload("s", strings.NewReader("the quick one"), 13)); err != nil {
			t.Fatal(err)
		}
		if got := w.content(w.artifact("s")); got != "the quick one" {
			t.Errorf("while another one comes it has %q", got)
		}
		has(1, 13, 2)
		if err := slow.end(" one"); err != nil {
			t.Error(err)
		}
		if got := w.content(w.artifact("s")); got != "the slow one" {
			t.Errorf("it has %q", got)
		}
		has(1, 12, 1)

		again := w.begin(t, "s", "half")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, _, err := tx.RemoveArtifacts(ctx, w.runID, 100)
			return err
		})
		has(0, 0, 1)
		if err := again.end("!"); err != nil {
			t.Error(err)
		}
		has(1, 5, 1)

		last := w.begin(t, "s", "half")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.RemoveRun(ctx, w.runID)
			_, errRest := tx.RemoveRest(ctx, 100)
			return errors.Join(err, errRest)
		})
		if err := last.end("!"); run.KindOf(err) != run.NotFound {
			t.Errorf("an upload to a run that was removed: %v", err)
		}
		w.sweep()
		if left := testkit.Files(t, w.dir); len(left) != 0 || w.artifact("s").ID != "" {
			t.Errorf("these are left: %v, %+v", left, w.artifact("s"))
		}
	})
}

func TestLinksAndAddressesExpire(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testkit.Open(t, testkit.MigratedFile(t, dir)))
		u := w.upload("s", strings.NewReader("x"), 1)
		link, err := url.Parse(w.service.Link(u.ID, time.Now().Add(time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.service.CheckLink(u.ID, link.Query()); err != nil {
			t.Error(err)
		}
		if err := w.service.CheckLink(u.ID, u.Query); run.KindOf(err) != run.Forbidden {
			t.Errorf("the address of an upload reads: %v", err)
		}
		upload := u
		upload.Query = link.Query()
		if err := w.service.Receive(t.Context(), upload); run.KindOf(err) != run.Forbidden {
			t.Errorf("a link uploads: %v", err)
		}
		time.Sleep(time.Hour)
		if err := w.service.CheckLink(u.ID, link.Query()); run.KindOf(err) != run.Forbidden || !strings.Contains(err.Error(), "expired at 2000-01-01 01:00") {
			t.Errorf("after an hour: %v", err)
		}
		time.Sleep(5 * time.Hour)
		err = w.service.Receive(t.Context(), u)
		if a := w.artifact("s"); run.KindOf(err) != run.Forbidden || a.Problem != "It was uploaded after its address had expired." {
			t.Errorf("after six hours: %v, %+v", err, a)
		}
	})
}
