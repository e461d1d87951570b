// Package ui is the dashboard: pages for people, made on the server. A small
// module (static/runbell.js) keeps them up to date; they work without it.
//
// A page is a struct, a function that loads it, and a template in templates/ that shows it and nothing else. The
// pages of a run may be open to anyone with its link, so their structs hold only what anyone may see: ids of machines
// and instances are credentials of reporters and stay out of them; the endpoints of webhooks are only for readers who
// have signed in.
//
// The routes are in one table ([ui.routes]); there is one file per kind of page.
package ui

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/endpoint"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/projects"
	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/web"
)

// Options is what the pages need.
type Options struct {
	DB     *store.DB
	Runs   *lifecycle.Service
	People *auth.People
	Keys   *auth.Keys
	// Endpoints changes webhooks and their deliveries.
	Endpoints *endpoint.Service
	// Explorer counts the history.
	Explorer *history.Explorer
	// Sweeper removes runs.
	Sweeper *retention.Sweeper
	Log     *slog.Logger
	// PublicURL is where people reach this server. A path in it is put in front
	// of every link, for a proxy that strips it.
	PublicURL string
	// Artifacts has the screenshots and videos; nil if none are kept.
	Artifacts *artifact.Service
	// Version is that of this build, for people.
	Version string
	// depth is how far one search goes that no index helps; 0 is searchDepth.
	depth int
}

// searchDepth is how many runs of a project one search looks at.
const searchDepth = 2000

type ui struct {
	db        *store.DB
	runs      *lifecycle.Service
	people    *auth.People
	keys      *auth.Keys
	projects  *projects.Service
	sweeper   *retention.Sweeper
	endpoints *endpoint.Service
	explorer  *history.Explorer
	log       *slog.Logger
	views     views
	pages     *publicPages
	documents sync.Map // template.HTML of those that were asked for, by name
	depth     int
	version   string
	// public is PublicURL without a trailing slash, base the path in it.
	public, base string
	secure       bool // people come with https
	artifacts    *artifact.Service
}

type route struct {
	method string
	path   string
	right  auth.Right
	serve  func(*request) error
}

// routes are all pages and what can be done on them.
func (u *ui) routes() []route {
	return []route{
		{"GET", "/{$}", auth.Look, u.home},
		{"GET", "/static/{name}", auth.Anyone, u.static},
		{"POST", "/theme", auth.Anyone, u.setTheme},
		{"GET", "/docs/{$}", auth.Anyone, u.docsIndex},
		{"GET", "/docs/{name}", auth.Anyone, u.document},

		{"GET", "/signin", auth.Anyone, u.signInForm},
		{"POST", "/signin", auth.Anyone, u.signIn},
		{"POST", "/signout", auth.Anyone, u.signOut},
		{"GET", "/invite/{token}", auth.Anyone, u.inviteForm},
		{"POST", "/invite/{token}", auth.Anyone, u.acceptInvite},
		{"GET", "/account", auth.OwnAccount, u.account},
		{"POST", "/account/name", auth.OwnAccount, u.rename},
		{"POST", "/account/password", auth.OwnAccount, u.changePassword},
		{"POST", "/account/signout-others", auth.OwnAccount, u.signOutOthers},
		{"GET", "/people", auth.ManageServer, u.peoplePage},
		{"POST", "/people/invite", auth.ManageServer, u.invite},
		{"POST", "/people/uninvite", auth.ManageServer, u.uninvite},
		{"POST", "/people/role", auth.ManageServer, u.setRole},
		{"POST", "/people/remove", auth.ManageServer, u.removePerson},
		{"GET", "/keys", auth.ManageServer, u.apiKeys},
		{"POST", "/keys", auth.ManageServer, u.createAPIKey},
		{"POST", "/keys/revoke", auth.ManageServer, u.revokeAPIKey},

		{"GET", "/new-project", auth.ManageProjects, u.newProject},
		{"POST", "/new-project", auth.ManageProjects, u.createProject},
		{"GET", "/projects/{projectId}", auth.Look, u.feed},
		{"GET", "/projects/{projectId}/insights", auth.Look, u.insights},
		{"GET", "/projects/{projectId}/tests", auth.Look, u.tests},
		{"GET", "/projects/{projectId}/tests/{signature}", auth.Look, u.test},
		{"GET", "/projects/{projectId}/specs", auth.Look, u.specFiles},
		{"GET", "/projects/{projectId}/errors", auth.Look, u.errors},
		{"GET", "/projects/{projectId}/errors/{fingerprint}", auth.Look, u.error},
		{"GET", "/projects/{projectId}/settings", auth.ManageProjects, u.settings},
		{"POST", "/projects/{projectId}/settings", auth.ManageProjects, u.saveSettings},
		{"POST", "/projects/{projectId}/keys", auth.ManageProjects, u.createRecordKey},
		{"POST", "/projects/{projectId}/keys/revoke", auth.ManageProjects, u.revokeRecordKey},
		{"POST", "/projects/{projectId}/delete", auth.ManageProjects, u.deleteProject},

		{"GET", "/projects/{projectId}/webhooks", auth.Look, u.hooks},
		{"GET", "/projects/{projectId}/webhooks/events", auth.Look, u.eventCatalog},
		{"GET", "/projects/{projectId}/webhooks/new", auth.ManageWebhooks, u.newHook},
		{"POST", "/projects/{projectId}/webhooks/new", auth.ManageWebhooks, u.createHook},
		{"POST", "/projects/{projectId}/webhooks/preview", auth.ManageWebhooks, u.previewHook},
		{"GET", "/projects/{projectId}/webhooks/{hookId}", auth.Look, u.hook},
		{"GET", "/projects/{projectId}/webhooks/{hookId}/edit", auth.ManageWebhooks, u.editHook},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/edit", auth.ManageWebhooks, u.saveHook},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/preview", auth.ManageWebhooks, u.previewHook},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/enable", auth.ManageWebhooks, u.enableHook},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/disable", auth.ManageWebhooks, u.disableHook},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/delete", auth.ManageWebhooks, u.deleteHook},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/secret", auth.ManageWebhooks, u.revealSecret},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/rotate", auth.ManageWebhooks, u.rotateSecret},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/test", auth.ManageWebhooks, u.testHook},
		{"GET", "/projects/{projectId}/webhooks/{hookId}/replay", auth.ManageWebhooks, u.replayForm},
		{"POST", "/projects/{projectId}/webhooks/{hookId}/replay", auth.ManageWebhooks, u.replay},
		{"GET", "/projects/{projectId}/deliveries/{deliveryId}", auth.Look, u.delivery},
		{"POST", "/projects/{projectId}/deliveries/{deliveryId}/retry", auth.ManageWebhooks, u.retryDelivery},
		{"GET", "/deliveries", auth.ManageServer, u.overview},

		{"GET", "/run/{runId}", auth.Anyone, u.run},
		{"POST", "/run/{runId}/cancel", auth.ManageRuns, u.cancelRun},
		{"POST", "/run/{runId}/pin", auth.ManageRuns, u.pinRun},
		{"POST", "/run/{runId}/unpin", auth.ManageRuns, u.unpinRun},
		{"POST", "/run/{runId}/delete", auth.ManageProjects, u.deleteRun},
		{"GET", "/run/{runId}/specs", auth.Anyone, u.specs},
		{"GET", "/run/{runId}/spec", auth.Anyone, u.spec},
		{"GET", "/run/{runId}/output", auth.Anyone, u.output},
	}
}

// Pages is the handler of every page, and of a 404 page for the rest.
type Pages struct {
	http.Handler
	ui *ui
}

// New makes the handler of all pages.
func New(o Options) Pages {
	u := newUI(o)
	return Pages{u.handler(), u}
}

// Problem responds with an error page to a browser that asked for something other than a page, such as a file.
func (p Pages) Problem(w http.ResponseWriter, r *http.Request, err error) {
	get := route{"GET", "", auth.Anyone, func(*request) error { return err }}
	secured(p.ui.handle(map[string]route{"GET": get})).ServeHTTP(w, r)
}

func newUI(o Options) *ui {
	return &ui{db: o.DB, runs: o.Runs, people: o.People, keys: o.Keys,
		projects: projects.New(o.DB, o.Endpoints, o.Sweeper), sweeper: o.Sweeper, endpoints: o.Endpoints,
		explorer: o.Explorer, log: o.Log, views: newViews(), pages: newPublicPages(), depth: cmp.Or(o.depth, searchDepth),
		version: o.Version, artifacts: o.Artifacts, public: strings.TrimRight(o.PublicURL, "/")}
}

func (u *ui) handler() http.Handler {
	// Forms of other sites are refused. The browser says where a form is from; behind
	// a proxy that changes Host, only PublicURL tells what our own site is.
	origins := http.NewCrossOriginProtection()
	if parsed, err := url.Parse(u.public); err == nil {
		u.base, u.secure = parsed.EscapedPath(), parsed.Scheme == "https"
		_ = origins.AddTrustedOrigin(parsed.Scheme + "://" + parsed.Host) // was checked at start
	}
	origins.SetDenyHandler(u.handle(map[string]route{"POST": {"POST", "", auth.Anyone, func(*request) error {
		return run.Errorf(run.Forbidden, "This form was sent by another site, so it was refused.")
	}}}))
	byPath := map[string]map[string]route{"/": {"GET": {"GET", "/", auth.Anyone, func(*request) error {
		return run.Errorf(run.NotFound, "There is no page at this address.")
	}}}}
	for _, rt := range u.routes() {
		if byPath[rt.path] == nil {
			byPath[rt.path] = map[string]route{}
		}
		byPath[rt.path][rt.method] = rt
	}
	mux := http.NewServeMux()
	for path, methods := range byPath {
		mux.Handle(path, u.handle(methods))
	}
	return secured(origins.Handler(mux))
}

// secured sets the security headers of every response. The link of a run may be all that is needed to read it, so it
// must not leak to other sites or search engines. The browser must say where our own forms come from.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "+
				"media-src 'self'; "+
				"base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Robots-Tag", "noindex, nofollow")
		next.ServeHTTP(w, r)
	})
}

// request is a request with its sender.
type request struct {
	*http.Request
	w   http.ResponseWriter
	who store.Account // without an id if nobody has signed in
	// file is the name of the text file to send; "" for a page.
	file string
}

// setType sets the type of the response: a page or a file.
func (r *request) setType() {
	h := r.w.Header()
	if r.file == "" {
		h.Set("Content-Type", "text/html; charset=utf-8")
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": r.file}))
}

func (r *request) signedIn() bool { return r.who.ID != "" }

func (r *request) may(right auth.Right) bool { return auth.RoleMay(r.who.Role, right) }

// rolesWith names the roles that have a right.
func rolesWith(right auth.Right) string {
	var names []string
	for _, role := range auth.RolesWith(right) {
		names = append(names, string(role)+"s")
	}
	return strings.Join(names, " and ")
}

// The largest bodies of forms, in bytes: more than any form of the pages needs. Strangers get
// less, because many of them may send a form at the same time.
const (
	maxForm         = 64 << 10
	maxStrangerForm = 8 << 10
)

// handle serves the methods of one path.
func (u *ui) handle(methods map[string]route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		r := &request{Request: hr, w: w}
		if err := u.serve(r, methods); err != nil {
			web.LogInternal(u.log, hr, err)
			u.problem(r, web.ProblemOf(err))
		}
	})
}

func (u *ui) serve(r *request, methods map[string]route) error {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // net/http leaves the body out
	}
	rt, found := methods[method]
	if !found {
		allowed := []string{}
		for m := range methods {
			allowed = append(allowed, m)
		}
		if methods["GET"].serve != nil {
			allowed = append(allowed, "HEAD")
		}
		slices.Sort(allowed)
		r.w.Header().Set("Allow", strings.Join(allowed, ", "))
		u.problem(r, web.Problem{Status: http.StatusMethodNotAllowed,
			Message: "This address does not accept " + run.Clip(r.Method, 20) + " requests."})
		return nil
	}
	if token := u.token(r); token != "" {
		account, err := u.people.Session(r.Context(), token)
		if err != nil && run.KindOf(err) != run.Unauthorized {
			return err
		}
		r.who = account
	}
	switch {
	case r.may(rt.right):
	case !r.signedIn() && method == http.MethodGet:
		u.toSignIn(r)
		return nil
	case !r.signedIn():
		return run.Errorf(run.Unauthorized, "You are signed out. Sign in and try again.")
	default:
		return run.Errorf(run.Forbidden, "This page is for %s. You are signed in as %s (%s).", rolesWith(rt.right),
			r.who.Name, r.who.Role)
	}
	if method == http.MethodPost {
		most := int64(maxForm)
		if rt.right == auth.Anyone {
			most = maxStrangerForm
		}
		r.Body = http.MaxBytesReader(r.w, r.Body, most)
		if err := r.ParseForm(); err != nil {
			return run.Errorf(run.Invalid, "The form is too large or malformed.")
		}
		if err := storable(r.PostForm); err != nil {
			return err
		}
	}
	return rt.serve(r)
}

// storable refuses text that a database would refuse and that none of our forms sends.
func storable(form url.Values) error {
	for name, values := range form {
		for _, v := range values {
			if strings.ToValidUTF8(v, "") != v || strings.ContainsRune(v, 0) {
				return run.Errorf(run.Invalid, "%s must be text.", run.Clip(strings.ToValidUTF8(name, "?"), 40))
			}
		}
	}
	return nil
}

// query is a value of the address, if a database accepts it.
func (r *request) query(name string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(r.URL.Query().Get(name), ""), "\x00", "")
}

// problem responds with an error page.
func (u *ui) problem(r *request, p web.Problem) {
	body, err := u.views.problem.render(problemPage{
		layout:  u.layout(r, http.StatusText(p.Status), toneIdle),
		Heading: http.StatusText(p.Status),
		Status:  p.Status,
		Message: p.Message,
		Details: p.Details,
		Missing: p.Status == http.StatusNotFound,
	})
	if err != nil {
		web.LogInternal(u.log, r.Request, err)
		http.Error(r.w, p.Message, p.Status)
		return
	}
	r.w.Header().Set("Cache-Control", "no-store")
	r.write(p.Status, body)
}

// write sends a page, compressed if the browser accepts that. A page that must not be stored is not compressed: its
// length could reveal secrets in it.
func (r *request) write(status int, body []byte) {
	h := r.w.Header()
	r.setType()
	h.Set("Vary", "Accept-Encoding, Cookie")
	if len(body) > 2<<10 && h.Get("Cache-Control") != "no-store" && web.TakesGzip(r.Header.Get("Accept-Encoding")) {
		body = web.Pack(body)
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	r.w.WriteHeader(status)
	_, _ = r.w.Write(body) // the reader may have disconnected
}

// writePacked sends a page that is already compressed.
func (r *request) writePacked(packed []byte) error {
	h := r.w.Header()
	r.setType()
	h.Set("Vary", "Accept-Encoding, Cookie")
	if !web.TakesGzip(r.Header.Get("Accept-Encoding")) {
		return unpack(r.w, packed)
	}
	h.Set("Content-Encoding", "gzip")
	h.Set("Content-Length", strconv.Itoa(len(packed)))
	_, _ = r.w.Write(packed) // the reader may have disconnected
	return nil
}

// show sends a rendered page, or 304 if the browser has it already.
func (r *request) show(body []byte, err error) error {
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if r.unchanged(hex.EncodeToString(sum[:12])) {
		return nil
	}
	r.write(http.StatusOK, body)
	return nil
}

// unchanged sets the ETag of a page, and responds with 304 if the browser has it. The tag is weak, because a page may
// be compressed or not.
func (r *request) unchanged(tag string) bool {
	etag := `W/"` + tag + `"`
	r.w.Header().Set("ETag", etag)
	r.w.Header().Set("Cache-Control", "private, no-cache")
	if !web.Matches(r.Header.Get("If-None-Match"), etag) {
		return false
	}
	r.w.Header().Set("Vary", "Accept-Encoding, Cookie")
	r.w.WriteHeader(http.StatusNotModified)
	return true
}

// showOnce sends a page that must not be stored, because it contains a secret or an error.
func (r *request) showOnce(status int, body []byte, err error) error {
	if err != nil {
		return err
	}
	r.w.Header().Set("Cache-Control", "no-store")
	r.write(status, body)
	return nil
}

// to redirects the browser to another page.
func (r *request) to(address string) error {
	http.Redirect(r.w, r.Request, address, http.StatusSeeOther)
	return nil
}
