// Package files serves artifacts over HTTP: reporters PUT them to signed addresses,
// and those who may see the run of one GET it, as do those who have a link that
// was signed.
package files

import (
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/web"
)

// Options are what the handlers work with.
type Options struct {
	DB *store.DB
	// Artifacts is nil if nothing is kept.
	Artifacts *artifact.Service
	People    *auth.People
	Keys      *auth.Keys
	// PublicURL is where people reach the server, without a trailing slash.
	PublicURL string
	// Problem answers a browser with a page that says what is wrong.
	Problem func(http.ResponseWriter, *http.Request, error)
	Log     *slog.Logger
}

type handler struct {
	Options
	base   string // the path of PublicURL
	secure bool   // people come with https
}

// Routes adds the routes of artifacts to a mux.
func Routes(mux *http.ServeMux, o Options) {
	h := &handler{Options: o}
	if u, err := url.Parse(o.PublicURL); err == nil {
		h.base, h.secure = u.EscapedPath(), u.Scheme == "https"
	}
	mux.HandleFunc("PUT /files/{id}", h.answer(h.put))
	mux.HandleFunc("GET /files/{id}", h.answer(h.get))
	mux.HandleFunc("GET /files/{id}/link", h.answer(h.link))
}

// failure is the form of errors that reporters print.
type failure struct {
	Message string   `json:"message"`
	Errors  []string `json:"errors"`
}

func (h *handler) answer(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		if r.Method != http.MethodPut && strings.Contains(r.Header.Get("Accept"), "text/html") {
			h.Problem(w, r, err)
			return
		}
		web.LogInternal(h.Log, r, err)
		p := web.ProblemOf(err)
		if p.Details == nil {
			p.Details = []string{}
		}
		w.Header().Set("Cache-Control", "no-store")
		web.WriteJSON(w, p.Status, failure{p.Message, p.Details})
	}
}

func (h *handler) check() error {
	if h.Artifacts == nil {
		return run.Errorf(run.NotFound, "This server does not store artifacts: its operator has set RUNBELL_ARTIFACTS=off.")
	}
	return nil
}

// put receives a file. What is wrong with the address is found before the file is
// read.
func (h *handler) put(w http.ResponseWriter, r *http.Request) error {
	err := h.check()
	if err == nil {
		encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding")))
		if encoding == "identity" {
			encoding = ""
		}
		err = h.Artifacts.Receive(r.Context(),
			artifact.Upload{ID: r.PathValue("id"), Query: r.URL.Query(), ContentType: r.Header.Get("Content-Type"),
				Encoding: encoding, Size: r.ContentLength, Body: body.Stream(w, r)})
	}
	body.Answer(w)
	if err != nil {
		body.Refuse(w)
		w.Header().Set("Connection", "close") // the rest is not read
		return err
	}
	web.WriteJSON(w, http.StatusOK, struct{}{})
	return nil
}

func (h *handler) get(w http.ResponseWriter, r *http.Request) error {
	if err := h.check(); err != nil {
		return err
	}
	a, public, found := h.find(r)
	if found != nil && run.KindOf(found) != run.NotFound {
		return found
	}
	// Strangers are not told which files there are.
	if denied := h.admit(r, a, public); denied != nil {
		if run.KindOf(denied) == run.Unauthorized && strings.Contains(r.Header.Get("Accept"), "text/html") {
			w.Header().Set("Cache-Control", "no-store")
			http.Redirect(w, r, h.base+"/signin?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return nil
		}
		return denied
	}
	if found != nil {
		return found
	}
	f, err := h.Artifacts.Open(r.Context(), a)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return serve(w, r, a, f, h.Artifacts.Max)
}

// link answers with a link that shows a file to anyone who has it, for people who may
// see the file themselves and want to show it to others.
func (h *handler) link(w http.ResponseWriter, r *http.Request) error {
	if err := h.check(); err != nil {
		return err
	}
	a, _, found := h.find(r)
	if found != nil && run.KindOf(found) != run.NotFound {
		return found
	}
	if err := h.identify(r, a); err != nil {
		return err
	}
	if found != nil {
		return found
	}
	expires := h.DB.Now().Add(artifact.LinkLife).Truncate(time.Second)
	w.Header().Set("Cache-Control", "no-store")
	web.WriteJSON(w, http.StatusOK, struct {
		URL       string    `json:"url"`
		ExpiresAt time.Time `json:"expiresAt"`
	}{h.Artifacts.Link(a.ID, expires), expires.UTC()})
	return nil
}

// find finds the artifact that a request is for, and whether anyone may see it.
func (h *handler) find(r *http.Request) (a run.Artifact, public bool, err error) {
	err = h.DB.Read(r.Context(), func(tx *store.Tx) (err error) {
		if a, err = tx.Artifact(r.Context(), r.PathValue("id")); err != nil {
			return err
		}
		project, err := tx.Project(r.Context(), a.ProjectID)
		public = project.PublicRuns
		return err
	})
	return a, public, err
}

// admit returns an error unless the sender of a request may see a file. A link that has
// expired is no hindrance for those who may see it without.
func (h *handler) admit(r *http.Request, a run.Artifact, public bool) error {
	query := r.URL.Query()
	signed := query.Has("signature")
	var refused error
	if signed {
		refused = h.Artifacts.CheckLink(r.PathValue("id"), query)
	}
	if signed && refused == nil || public {
		return nil
	}
	if err := h.identify(r, a); run.KindOf(err) != run.Unauthorized || !signed {
		return err
	}
	return refused
}

// identify returns an error unless a request comes with a session or a key that may see
// a file.
func (h *handler) identify(r *http.Request, a run.Artifact) error {
	if c, err := r.Cookie(web.CookieName(web.SessionCookie, h.secure)); err == nil {
		account, err := h.People.Session(r.Context(), c.Value)
		if err == nil && auth.RoleMay(account.Role, auth.Look) {
			return nil
		}
		if err != nil && run.KindOf(err) != run.Unauthorized {
			return err
		}
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return run.Errorf(run.Unauthorized, "Sign in to see this file, or send an API key as 'Authorization: Bearer KEY'.")
	}
	by, err := h.Keys.API(r.Context(), strings.TrimSpace(key))
	if err == nil && (!by.May(auth.Look) || !by.Sees(a.ProjectID)) {
		err = run.Errorf(run.Forbidden, "This API key may not see files.")
	}
	return err
}

// shown are the types that browsers show; they download all others.
var shown = map[string]string{"image/png": ".png", "image/jpeg": ".jpg", "video/mp4": ".mp4", "video/webm": ".webm",
	"application/json": ".json"}

// slowest is the pace, in bytes a second, at which a file must be read.
const slowest = 32 << 10

// serve sends a file, or a range of it. Whatever is in it, no script of it runs. What is
// packed may have up to limit bytes when it is unpacked here.
func serve(w http.ResponseWriter, r *http.Request, a run.Artifact, f io.ReadSeeker, limit int64) error {
	header := w.Header()
	header.Set("Content-Type", a.ContentType)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy",
		"default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox")
	header.Set("Referrer-Policy", "same-origin")
	header.Set("X-Robots-Tag", "noindex, nofollow")
	header.Set("Cache-Control", "private, no-cache")
	disposition := "attachment"
	if shown[a.ContentType] != "" {
		disposition = "inline"
	}
	header.Set("Content-Disposition", disposition+`; filename="`+string(a.Kind)+"-"+a.ID[:8]+shown[a.ContentType]+`"`)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute +
		time.Duration(a.Size/slowest)*time.Second))
	if a.Encoding != "" {
		return servePacked(w, r, a, f, limit)
	}
	if a.SHA256 != "" {
		header.Set("ETag", `"`+a.SHA256+`"`)
	}
	// Players and pictures ask for one range. Of many, each would be a request of its own to
	// object storage.
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range")
	}
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// servePacked sends a file that was uploaded packed, as it is to those who take that. It
// sends the whole file, whatever range is asked for: nobody knows where that begins.
func servePacked(w http.ResponseWriter, r *http.Request, a run.Artifact, f io.Reader, limit int64) error {
	header := w.Header()
	header.Set("Vary", "Accept-Encoding")
	packed := web.TakesGzip(r.Header.Get("Accept-Encoding"))
	if a.SHA256 != "" {
		etag := `"` + a.SHA256 + `"` // of the file when it is unpacked
		if packed {
			etag = `"` + a.SHA256 + `-gzip"`
		}
		header.Set("ETag", etag)
		if web.Matches(r.Header.Get("If-None-Match"), etag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	from := f
	if packed {
		header.Set("Content-Encoding", a.Encoding)
		header.Set("Content-Length", strconv.FormatInt(a.Size, 10))
	} else {
		z, err := gzip.NewReader(f)
		if err != nil {
			header.Del("ETag")
			return run.Errorf(run.Refused,
				"The file was uploaded as gzip and is not: ask for it with 'Accept-Encoding: gzip' to get it as it is.")
		}
		from = io.LimitReader(z, limit+1)
	}
	if r.Method == http.MethodHead {
		return nil
	}
	// Nothing may unpack to any size: a few bytes can become many.
	if n, err := io.Copy(w, from); err != nil || n > max(limit, a.Size) {
		panic(http.ErrAbortHandler) // it is too late for a status, so the connection ends
	}
	return nil
}
