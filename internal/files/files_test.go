package files_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/files"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

const maxSize = 1 << 20

// world is a server with an instance of a project.
type world struct {
	*testing.T
	db        *store.DB
	dir       string
	artifacts *artifact.Service
	url       string
	key       string // of the API
	session   string
	instance  string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db := testkit.SQLite(t)
	w := &world{T: t, db: db, dir: t.TempDir(), session: "session"}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL
	disk := artifact.NewDisk(w.dir)
	t.Cleanup(func() { _ = disk.Close() })
	log := slog.New(slog.DiscardHandler)
	w.artifacts = artifact.New(artifact.Options{DB: db, Store: disk, Secret: make([]byte, 32), PublicURL: w.url, Max: maxSize, Log: log, Metrics: prometheus.NewRegistry()})
	keys := auth.New(db, auth.KeysOnly)
	files.Routes(mux, files.Options{DB: db, Artifacts: w.artifacts, People: auth.NewPeople(db, make([]byte, 32)), Keys: keys, PublicURL: w.url + "/base", Log: log,
		Problem: func(w http.ResponseWriter, _ *http.Request, err error) { http.Error(w, err.Error(), http.StatusTeapot) }})
	testkit.Project(t, db, "shop")
	runs := lifecycle.New(db, w.url, func(...string) {})
	joined, err := runs.Join(t.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Specs: []string{"a.cy.js"}})
	w.check(err)
	claimed, err := runs.Claim(t.Context(), lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
	w.check(err)
	w.instance = claimed.Instances[0].ID
	_, w.key, err = keys.CreateAPIKey(t.Context(), "reads", auth.Read, "")
	w.check(err)
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.InsertAccount(ctx, store.Account{ID: "ada", Email: "ada@example.test", Name: "Ada", Role: store.Viewer, CreatedAt: tx.Now})
		return errors.Join(err, tx.InsertSession(ctx, store.Session{Hash: auth.Hash(w.session), AccountID: "ada", CreatedAt: tx.Now, SeenAt: tx.Now}))
	})
	return w
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// addresses are where the reporter uploads: a screenshot, the video, coverage.
func (w *world) addresses() artifact.Uploads {
	w.Helper()
	u, err := w.artifacts.Expect(w.Context(), w.instance, run.Outcome{Video: true, Coverage: true, Screenshots: []run.Screenshot{{ID: "s1"}}})
	w.check(err)
	return u
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (w *world) do(method, address string, body io.Reader, header ...string) answer {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, address, body)
	w.check(err)
	for n := 0; n < len(header); n += 2 {
		req.Header.Set(header[n], header[n+1])
		if header[n] == "Content-Length" { // less or more than there is
			_, err := fmt.Sscan(header[n+1], &req.ContentLength)
			w.check(err)
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return answer{body: err.Error()}
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	w.check(err)
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (w *world) put(address, contentType, body string, header ...string) answer {
	w.Helper()
	return w.do("PUT", address, strings.NewReader(body), append([]string{"Content-Type", contentType}, header...)...)
}

// get reads a file with the API key.
func (w *world) get(address string, header ...string) answer {
	w.Helper()
	return w.do("GET", address, nil, append([]string{"Authorization", "Bearer " + w.key}, header...)...)
}

// readURL is where the file of an upload is read.
func readURL(upload string) string {
	address, _, _ := strings.Cut(upload, "?")
	return address
}

// filesOnDisk counts them.
func (w *world) filesOnDisk() (n int) {
	w.Helper()
	w.check(filepath.WalkDir(w.dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	}))
	return n
}

func TestUploadAndRead(t *testing.T) {
	w := newWorld(t)
	u := w.addresses()
	for _, c := range []struct{ address, contentType, content, name string }{
		{u.Screenshots[0].UploadURL, "image/png", "\x89PNG\r\n\x1a\n" + strings.Repeat("p", 5000), "screenshot-"},
		{u.Video, "video/mp4", strings.Repeat("0123456789", 50_000), "video-"},
		{u.Coverage, "application/json; charset=utf-8", `{"a.js":{}}`, "coverage-"},
		{u.Screenshots[0].UploadURL, "", "once more, and nobody says what it is", "screenshot-"},
	} {
		if a := w.put(c.address, c.contentType, c.content); a.status != 200 {
			t.Fatalf("PUT %s: %d %s", c.contentType, a.status, a.body)
		}
		a := w.get(readURL(c.address))
		if a.status != 200 || a.body != c.content {
			t.Errorf("GET: %d, %d bytes", a.status, len(a.body))
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Content-Length": fmt.Sprint(len(c.content)), "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if d := a.header.Get("Content-Disposition"); !strings.HasPrefix(d, `inline; filename="`+c.name) || !strings.Contains(a.header.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%v", a.header)
		}
		etag := a.header.Get("ETag")
		if a := w.get(readURL(c.address), "If-None-Match", etag); a.status != 304 || a.body != "" {
			t.Errorf("again: %d", a.status)
		}
		if a := w.get(readURL(c.address), "Range", "bytes=3-6"); a.status != 206 || a.body != c.content[3:7] || a.header.Get("Content-Range") != fmt.Sprintf("bytes 3-6/%d", len(c.content)) {
			t.Errorf("range: %d %q %v", a.status, a.body, a.header)
		}
		if a := w.get(readURL(c.address), "Range", "bytes=3-6", "If-Range", `"another"`); a.status != 200 {
			t.Errorf("range of another file: %d", a.status)
		}
		if a := w.get(readURL(c.address), "Range", "bytes=0-0"+strings.Repeat(",2-2", 5000)); a.status != 200 || a.body != c.content {
			t.Errorf("many ranges: %d, %d bytes", a.status, len(a.body))
		}
		if a := w.get(readURL(c.address), "Range", "bytes=9999999-"); a.status != 416 {
			t.Errorf("range after the end: %d", a.status)
		}
		if a := w.do("HEAD", readURL(c.address), nil, "Authorization", "Bearer "+w.key); a.status != 200 || a.body != "" || a.header.Get("Content-Length") != fmt.Sprint(len(c.content)) {
			t.Errorf("HEAD: %d %v", a.status, a.header)
		}
	}
	if got := w.get(u.Screenshots[0].ReadURL).body; got != "once more, and nobody says what it is" {
		t.Errorf("the address that the reporter got reads %q", got)
	}
}

// What was uploaded as gzip is sent so, and unpacked for those who do not take it.
func TestGzip(t *testing.T) {
	w := newWorld(t)
	address := w.addresses().Coverage
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := io.WriteString(z, strings.Repeat(`{"a":1}`, 1000))
	w.check(errors.Join(err, z.Close()))
	if a := w.put(address, "application/json", packed.String(), "Content-Encoding", "gzip"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := w.get(readURL(address), "Accept-Encoding", "gzip"); a.header.Get("Content-Encoding") != "gzip" || a.body != packed.String() {
		t.Errorf("packed: %v, %d bytes", a.header, len(a.body))
	}
	if a := w.get(readURL(address), "Accept-Encoding", "identity"); a.header.Get("Content-Encoding") != "" || a.body != strings.Repeat(`{"a":1}`, 1000) {
		t.Errorf("unpacked: %v, %d bytes", a.header, len(a.body))
	}
	// A range and another representation are answered with the whole file.
	for _, coding := range []string{"gzip", "identity"} {
		a := w.get(readURL(address), "Accept-Encoding", coding)
		if part := w.get(readURL(address), "Accept-Encoding", coding, "Range", "bytes=3-6"); part.status != 200 || part.body != a.body {
			t.Errorf("%s: a range is answered with %d, %d bytes", coding, part.status, len(part.body))
		}
		if again := w.get(readURL(address), "Accept-Encoding", coding, "If-None-Match", a.header.Get("ETag")); again.status != 304 || again.body != "" || again.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: again: %d %v", coding, again.status, again.header)
		}
		other := map[string]string{"gzip": "identity", "identity": "gzip"}[coding]
		if changed := w.get(readURL(address), "Accept-Encoding", other, "If-None-Match", a.header.Get("ETag")); changed.status != 200 {
			t.Errorf("%s has the ETag of %s", other, coding)
		}
		if head := w.do("HEAD", readURL(address), nil, "Authorization", "Bearer "+w.key, "Accept-Encoding", coding); head.status != 200 || head.body != "" || head.header.Get("Content-Length") != a.header.Get("Content-Length") {
			t.Errorf("%s: HEAD %d %v", coding, head.status, head.header)
		}
	}
	if a := w.put(address, "application/json", "plain", "Content-Encoding", "gzip"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := w.get(readURL(address), "Accept-Encoding", "identity"); a.status != 422 || !strings.Contains(a.body, "is not") {
		t.Errorf("no gzip: %d %s", a.status, a.body)
	}
}

// TestGzipBomb: what unpacks to more than a file may have is cut, for those who cannot unpack it themselves.
func TestGzipBomb(t *testing.T) {
	w := newWorld(t)
	address := w.addresses().Coverage
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, err := io.CopyN(z, zeros{}, 64<<20)
	w.check(errors.Join(err, z.Close()))
	if a := w.put(address, "application/json", bomb.String(), "Content-Encoding", "gzip"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, readURL(address), nil)
	w.check(err)
	req.Header.Set("Authorization", "Bearer "+w.key)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := http.DefaultTransport.RoundTrip(req)
	w.check(err)
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n > 2*maxSize {
		t.Errorf("%d bytes of %d came, %v", n, 64<<20, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Of what is refused, only the reason is left.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	u := w.addresses()
	shot, big := u.Screenshots[0].UploadURL, strings.Repeat("x", maxSize+1)
	other := strings.Replace(shot, readURL(shot), readURL(u.Video), 1)
	for name, c := range map[string]struct {
		answer answer
		status int
		says   string
	}{
		"no signature":        {w.put(readURL(shot), "image/png", "x"), 403, "use the whole link"},
		"another artifact":    {w.put(other, "image/png", "x"), 403, "signature"},
		"another type":        {w.put(shot, "text/html", "<script>"), 400, "Content-Type: image/png"},
		"another encoding":    {w.put(shot, "image/png", "x", "Content-Encoding", "br"), 400, "gzip"},
		"too large":           {w.put(shot, "image/png", big), 413, "1 MiB"},
		"too large, in parts": {w.do("PUT", shot, io.MultiReader(strings.NewReader(big)), "Content-Type", "image/png"), 413, "1 MiB"},
	} {
		if c.answer.status != c.status || !strings.Contains(c.answer.body, c.says) || !strings.Contains(c.answer.body, `"errors":[]`) {
			t.Errorf("%s: %d %s", name, c.answer.status, c.answer.body)
		}
	}
	// The line is cut.
	w.do("PUT", u.Video, io.MultiReader(strings.NewReader("x"), failing{}), "Content-Length", "500000")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		a := w.get(readURL(u.Video))
		if a.status == 404 && strings.Contains(a.body, "The upload ended after") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after a cut: %d %s", a.status, a.body)
		}
	}
	if n := w.filesOnDisk(); n != 0 {
		t.Errorf("%d files are left", n)
	}
	if a := w.get(readURL(shot)); a.status != 404 || !strings.Contains(a.body, "There is no file: ") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.put(shot, "image/png", "fine"); a.status != 200 {
		t.Errorf("after all that: %d %s", a.status, a.body)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut") }

func TestWhoMayRead(t *testing.T) {
	w := newWorld(t)
	upload := w.addresses().Screenshots[0].UploadURL
	if a := w.put(upload, "image/png", "picture"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	address := readURL(upload)
	id := address[strings.LastIndexByte(address, '/')+1:]
	missing := strings.Replace(address, id, run.ArtifactID("x", run.VideoArtifact, ""), 1)
	link := w.artifacts.Link(id, time.Now().Add(time.Hour))
	for name, c := range map[string]struct {
		answer answer
		status int
	}{
		"nobody":                    {w.do("GET", address, nil), 401},
		"nobody, what is not there": {w.do("GET", missing, nil), 401},
		"a key":                     {w.get(address), 200},
		"a key, what is not there":  {w.get(missing), 404},
		"another key":               {w.do("GET", address, nil, "Authorization", "Bearer ak_wrong"), 401},
		"a session":                 {w.do("GET", address, nil, "Cookie", "runbell="+w.session), 200},
		"another session":           {w.do("GET", address, nil, "Cookie", "runbell=wrong"), 401},
		"a link":                    {w.do("GET", link, nil), 200},
		"another link":              {w.do("GET", strings.Replace(link, address, missing, 1), nil), 403},
		"the address of the upload": {w.do("GET", upload, nil), 403},
		"a link, to upload":         {w.put(link, "image/png", "x"), 403},
	} {
		if c.answer.status != c.status {
			t.Errorf("%s: %d %s, want %d", name, c.answer.status, c.answer.body, c.status)
		}
	}
	// An expired link is no hindrance for those who need none.
	expired := w.artifacts.Link(id, time.Now().Add(-time.Hour))
	if a := w.do("GET", expired, nil, "Cookie", "runbell="+w.session); a.status != 200 {
		t.Errorf("an expired link with a session: %d %s", a.status, a.body)
	}
	if a := w.do("GET", expired, nil); a.status != 403 || !strings.Contains(a.body, "expired at") {
		t.Errorf("an expired link: %d %s", a.status, a.body)
	}
	if a := w.do("GET", expired, nil, "Accept", "text/html"); a.status != 418 || !strings.Contains(a.body, "expired at") {
		t.Errorf("an expired link, in a browser: %d %s", a.status, a.body)
	}
	in := w.do("GET", address+"?a=b", nil, "Accept", "text/html,image/png")
	if want := "/base/signin?next=" + url.QueryEscape(strings.TrimPrefix(address, w.url)+"?a=b"); in.status != 303 || in.header.Get("Location") != want {
		t.Errorf("a browser is sent to %d %s, want %s", in.status, in.header.Get("Location"), want)
	}
	testkit.Write(t, w.db, func(ctx context.Context, tx *store.Tx) error {
		p, err := tx.Project(ctx, "shop")
		p.PublicRuns = true
		return errors.Join(err, tx.UpdateProject(ctx, p))
	})
	if a := w.do("GET", address, nil); a.status != 200 || a.body != "picture" {
		t.Errorf("a public project: %d %s", a.status, a.body)
	}
}

// TestLinkForOthers: who may see a file gets a link for those who may not, and nobody else does.
func TestLinkForOthers(t *testing.T) {
	w := newWorld(t)
	upload := w.addresses().Screenshots[0].UploadURL
	if a := w.put(upload, "image/png", "picture"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	address := readURL(upload)
	var got struct {
		URL       string
		ExpiresAt time.Time
	}
	a := w.do("GET", address+"/link", nil, "Cookie", "runbell="+w.session)
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	if life := time.Until(got.ExpiresAt); life > artifact.LinkLife || life < artifact.LinkLife-time.Minute {
		t.Errorf("it expires in %s", life)
	}
	if a := w.do("GET", got.URL, nil); a.status != 200 || a.body != "picture" {
		t.Errorf("the link: %d %s", a.status, a.body)
	}
	testkit.Write(t, w.db, func(ctx context.Context, tx *store.Tx) error { // anyone sees the file, and not longer than the project says
		p, err := tx.Project(ctx, "shop")
		p.PublicRuns = true
		return errors.Join(err, tx.UpdateProject(ctx, p))
	})
	_, query, _ := strings.Cut(got.URL, "?")
	missing := address[:strings.LastIndexByte(address, '/')+1] + run.ArtifactID("x", run.VideoArtifact, "")
	for name, c := range map[string]struct {
		answer answer
		status int
	}{
		"a key":                           {w.get(address + "/link"), 200},
		"nobody":                          {w.do("GET", address+"/link", nil), 401},
		"a link, for one that is longer":  {w.do("GET", address+"/link?"+query, nil), 401},
		"nobody, of what is not there":    {w.do("GET", missing+"/link", nil), 401},
		"a session, of what is not there": {w.do("GET", missing+"/link", nil, "Cookie", "runbell="+w.session), 404},
	} {
		if c.answer.status != c.status {
			t.Errorf("%s: %d %s, want %d", name, c.answer.status, c.answer.body, c.status)
		}
	}
}

func TestOff(t *testing.T) {
	mux := http.NewServeMux()
	files.Routes(mux, files.Options{Log: slog.New(slog.DiscardHandler)})
	for _, method := range []string{"GET", "PUT"} {
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, httptest.NewRequest(method, "/files/x", nil))
		if rec.Code != 404 || !strings.Contains(rec.Body.String(), "RUNBELL_ARTIFACTS=off") {
			t.Errorf("%s: %d %s", method, rec.Code, rec.Body)
		}
	}
}

// Only pictures, videos and JSON are shown. Whatever else a file is, a browser downloads it.
func TestOtherTypesAreDownloads(t *testing.T) {
	w := newWorld(t)
	address := w.addresses().Screenshots[0].UploadURL
	if a := w.put(address, "image/png", "<script>"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for contentType, want := range map[string]string{"image/png": "inline", "image/jpeg": "inline", "video/mp4": "inline", "video/webm": "inline", "application/json": "inline",
		"text/html": "attachment", "image/svg+xml": "attachment", "application/pdf": "attachment", "IMAGE/PNG": "attachment", "image/png; a=b": "attachment", "": "attachment"} {
		testkit.Write(t, w.db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE artifact SET content_type = $1`, contentType)
			return err
		})
		a := w.get(readURL(address))
		if got, _, _ := strings.Cut(a.header.Get("Content-Disposition"), ";"); a.status != 200 || got != want || a.header.Get("X-Content-Type-Options") != "nosniff" ||
			a.header.Get("Content-Type") != contentType || !strings.HasSuffix(a.header.Get("Content-Security-Policy"), "; sandbox") {
			t.Errorf("%q: %d %v, want %s", contentType, a.status, a.header, want)
		}
	}
}

// cutting is storage whose files end early when they are read.
type cutting struct{ artifact.Store }

func (c cutting) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	f, err := c.Store.Open(ctx, key)
	return &cut{ReadSeekCloser: f}, err
}

type cut struct {
	io.ReadSeekCloser
	read int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.read > 1000 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadSeekCloser.Read(p[:min(len(p), 600)])
	c.read += n
	return n, err
}

// Where storage sends less than it has, nobody takes the part for the whole.
func TestStorageThatSendsLess(t *testing.T) {
	w := newWorld(t)
	address := w.addresses().Video
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := io.CopyN(z, rand.NewChaCha8([32]byte{}), 50_000)
	w.check(errors.Join(err, z.Close()))
	for _, encoding := range []string{"", "gzip"} {
		if a := w.put(address, "video/mp4", packed.String(), "Content-Encoding", encoding); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		whole := w.artifacts.Store
		w.artifacts.Store = cutting{whole}
		for _, header := range [][2]string{{"Accept-Encoding", "gzip"}, {"Accept-Encoding", "identity"}, {"Range", "bytes=100-40000"}} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, readURL(address), nil)
			w.check(err)
			req.Header.Set("Authorization", "Bearer "+w.key)
			req.Header.Set(header[0], header[1])
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				continue
			}
			if n, err := io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode < 300 {
				t.Errorf("%q, %v: %d, %d bytes of %d, as if they were all", encoding, header, resp.StatusCode, n, packed.Len())
			}
			_ = resp.Body.Close()
		}
		w.artifacts.Store = whole
	}
}
