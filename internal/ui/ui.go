// Package ui is the dashboard: pages for people, made on the server, that need
// no JavaScript.
//
// A page is a struct, a function that loads it, and a template in templates/
// that shows it and nothing else. Whoever has the link of a run may read its
// page, so a page's struct holds only what anybody may see: ids of machines and
// instances are credentials of reporters and stay out of it, and so do the
// endpoints of webhooks.
package ui

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/web"
)

// Options is what the pages need.
type Options struct {
	DB  *store.DB
	Log *slog.Logger
	// PublicURL is where people reach this server. A path in it is put in front
	// of every link, for a proxy that strips it.
	PublicURL string
}

type ui struct {
	db    *store.DB
	log   *slog.Logger
	views views
	// public is PublicURL without a trailing slash, base the path in it.
	public, base string
	build        string
}

// New makes the handler of every page: /, /run/{runId} and the pages below it,
// /static/, and a 404 page for the rest. It answers GET and HEAD only.
func New(o Options) http.Handler {
	u := &ui{db: o.DB, log: o.Log, views: parseViews(), public: strings.TrimRight(o.PublicURL, "/"), build: build()}
	if parsed, err := url.Parse(u.public); err == nil {
		u.base = parsed.EscapedPath()
	}
	mux := http.NewServeMux()
	mux.Handle("/{$}", u.page(u.home))
	mux.Handle("/run/{runId}", u.page(u.run))
	mux.Handle("/run/{runId}/specs", u.page(u.specs))
	mux.Handle("/run/{runId}/spec", u.page(u.spec))
	mux.Handle("/static/{name}", u.page(u.static))
	mux.Handle("/", u.page(func(http.ResponseWriter, *http.Request) error {
		return run.Errorf(run.NotFound, "There is no page at this address.")
	}))
	return secured(mux)
}

// secured sets what browsers must know of every answer. The link of a run is
// all one needs to read it: it must not leak to other sites or search engines.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Robots-Tag", "noindex, nofollow")
		next.ServeHTTP(w, r)
	})
}

// page turns a function that may fail into a handler.
func (u *ui) page(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			u.problem(w, r, web.Problem{Status: http.StatusMethodNotAllowed, Message: "This address can only be read (GET)."})
			return
		}
		if err := f(w, r); err != nil {
			web.LogInternal(u.log, r, err)
			u.problem(w, r, web.ProblemOf(err))
		}
	})
}

// problem answers with a page that says what is wrong.
func (u *ui) problem(w http.ResponseWriter, r *http.Request, p web.Problem) {
	body, err := u.views.problem.render(problemPage{
		layout:  u.layout(http.StatusText(p.Status), toneIdle),
		Heading: http.StatusText(p.Status),
		Status:  p.Status,
		Message: p.Message,
		Details: p.Details,
		Missing: p.Status == http.StatusNotFound,
	})
	if err != nil {
		web.LogInternal(u.log, r, err)
		http.Error(w, p.Message, p.Status)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	write(w, p.Status, body)
}

func write(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a reader that went away gets no page
}

// ofRun answers with a page about a run: 304 where the reader has it already,
// which costs one row, else what load makes of the run.
func (u *ui) ofRun(w http.ResponseWriter, r *http.Request, load func(*store.Tx, run.Run) ([]byte, error)) error {
	ctx := r.Context()
	var etag string
	var body []byte
	err := u.db.Read(ctx, func(tx *store.Tx) error {
		found, err := tx.Run(ctx, r.PathValue("runId"))
		if err != nil {
			return err
		}
		// Weak: a proxy may compress the page. Nothing on it depends on the time
		// of day, so the run's revision says all, but for this program's own.
		etag = fmt.Sprintf(`W/"%d-%s"`, found.Rev, u.build)
		if matches(r.Header.Get("If-None-Match"), etag) {
			return nil
		}
		body, err = load(tx, found)
		return err
	})
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "private, no-cache")
	if body == nil {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	write(w, http.StatusOK, body)
	return nil
}

// matches says whether an If-None-Match header names the ETag.
func matches(header, etag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}

// build identifies the code that makes the pages: the commit, or, where that
// does not say it all, the moment this process started.
func build() string {
	var revision, modified string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value
			case "vcs.modified":
				modified = s.Value
			}
		}
	}
	if len(revision) >= 12 && modified == "false" {
		return revision[:12]
	}
	return strconv.FormatInt(time.Now().UnixNano(), 36)
}
