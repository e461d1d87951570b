// Package api is the REST API under /v1/, with which people and programs look at
// runs and manage projects, keys and webhooks. Calls that Currents also has return the
// same, so that its clients work with another base URL.
//
// The routes are in one table ([api.routes]), from which the OpenAPI document
// is made; there is one file per noun.
package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/endpoint"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/projects"
	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/web"
)

// Options are what the API works on.
type Options struct {
	DB   *store.DB
	Runs *lifecycle.Service
	Keys *auth.Keys
	// Reporters checks the ids that reporters work with.
	Reporters *auth.Reporters
	// People are the accounts of the dashboard.
	People *auth.People
	// PublicURL is where people reach the dashboard, without a trailing slash.
	PublicURL string
	// Endpoints changes webhooks and their deliveries.
	Endpoints *endpoint.Service
	// Explorer counts the history.
	Explorer *history.Explorer
	// Artifacts signs the addresses of files; nil if none are kept.
	Artifacts *artifact.Service
	// Sweeper removes runs and what is past its retention.
	Sweeper *retention.Sweeper
	Bodies  body.Pools
	Log     *slog.Logger
}

type api struct {
	Options
	projects *projects.Service
}

type route struct {
	method  string
	path    string
	right   auth.Right
	handler handler
	query   []param
	summary string
}

func (a *api) routes() []route {
	return []route{
		{"GET", "/v1/projects", auth.Look, list(a.listProjects), cursors(), "List projects, newest first"},
		{"POST", "/v1/projects", auth.ManageProjects, creates(a.createProject), nil,
			"Create a project; returns its first record key, which is shown only once"},
		{"GET", "/v1/projects/{id}", auth.Look, get(a.project), nil, "Get a project"},
		{"PUT", "/v1/projects/{id}", auth.ManageProjects, takes(a.updateProject), nil,
			"Update a project; settings that you do not send stay"},
		{"DELETE", "/v1/projects/{id}", auth.ManageProjects, get(a.deleteProject), nil,
			"Delete a project with its runs, keys and webhooks"},
		{"GET", "/v1/projects/{id}/usage", auth.Look, get(a.projectUsage), nil,
			"Get the storage that a project uses, and what was last removed"},
		{"GET", "/v1/projects/{id}/runs", auth.Look, list(a.runs), runFilters(), "List the runs of a project, newest first"},
		{"GET", "/v1/projects/{id}/insights", auth.Look, get(a.insights),
			period(tagOperator, param{name: "resolution", doc: "Length of a step of the timeline. Default: 1d.",
				enum: texts(history.Resolutions())}),
			"Count the runs and tests of a project, over a period and per step"},
		{"GET", "/v1/projects/{id}/pull-requests", auth.Look, list(a.pullRequests), pullFilters(),
			"List the pull requests of a project with their latest runs, newest first"},
		{"GET", "/v1/projects/{id}/terms/{term}", auth.Look, list(a.terms), termFilters(),
			"List the values of a filter in the runs of a project"},
		{"GET", "/v1/spec-files/{id}", auth.Look, get(a.specFiles), specFilters(),
			"List the specs of a project over a period, with their numbers"},
		{"GET", "/v1/tests/{id}", auth.Look, get(a.tests), testFilters(),
			"List the tests of a project over a period, with their numbers"},
		{"GET", "/v1/test-results/{id}", auth.Look, list(a.testResults), resultFilters(),
			"List the results of a test by its signature, newest first"},
		{"GET", "/v1/errors/{id}", auth.Look, get(a.errors), errorFilters(),
			"List the errors of a project over a period, grouped by message"},
		{"POST", "/v1/signature/test", auth.Look, takes(a.signature), nil, "Get the signature of a test"},
		{"GET", "/v1/context", auth.Look, get(a.context), contextFilters(),
			"Get the failures of a run, a spec or a test; without parameters, the projects that the key can see"},
		{"GET", "/v1/projects/{id}/record-keys", auth.Look, list(a.recordKeys), nil,
			"List the record keys of a project, without the keys"},
		{"POST", "/v1/projects/{id}/record-keys", auth.ManageProjects, mayTake(created, a.createRecordKey), nil,
			"Create a record key; it is shown only once"},
		{"DELETE", "/v1/record-keys/{id}", auth.ManageProjects, get(a.deleteRecordKey), nil, "Revoke a record key"},
		{"GET", "/v1/api-keys", auth.Look, list(a.apiKeys), nil, "List the API keys, without the keys"},
		{"POST", "/v1/api-keys", auth.ManageServer, creates(a.createAPIKey), nil, "Create an API key; it is shown only once"},
		{"DELETE", "/v1/api-keys/{id}", auth.ManageServer, get(a.deleteAPIKey), nil, "Revoke an API key"},
		{"GET", "/v1/users", auth.Look, list(a.users), nil, "List the people who may sign in"},
		{"POST", "/v1/users", auth.ManageServer, creates(a.inviteUser), nil,
			"Invite a person, or reset a password; returns the link, which is shown only once"},
		{"PUT", "/v1/users/{id}", auth.ManageServer, takes(a.updateUser), nil, "Update the name or role of a person"},
		{"DELETE", "/v1/users/{id}", auth.ManageServer, get(a.deleteUser), nil, "Remove a person and end their sessions"},
		{"GET", "/v1/webhooks", auth.Look, list(a.webhooks), []param{inProject}, "List the webhooks of a project"},
		{"POST", "/v1/webhooks", auth.ManageWebhooks, creates(a.createWebhook), []param{inProject}, "Create a webhook"},
		{"GET", "/v1/webhooks/{id}", auth.Look, get(a.webhook), nil, "Get a webhook"},
		{"PUT", "/v1/webhooks/{id}", auth.ManageWebhooks, takes(a.updateWebhook), nil,
			"Update a webhook; settings that you do not send stay"},
		{"DELETE", "/v1/webhooks/{id}", auth.ManageWebhooks, get(a.deleteWebhook), nil,
			"Delete a webhook with its deliveries"},
		{"GET", "/v1/webhooks/{id}/secret", auth.ManageWebhooks, get(a.webhookSecret), nil,
			"Get the signing secret of a webhook"},
		{"POST", "/v1/webhooks/{id}/enable", auth.ManageWebhooks, get(a.enableWebhook), nil,
			"Enable a webhook and send its held deliveries; returns the number"},
		{"POST", "/v1/webhooks/{id}/disable", auth.ManageWebhooks, get(a.disableWebhook), nil,
			"Disable a webhook; pending deliveries are held"},
		{"POST", "/v1/webhooks/{id}/rotate-secret", auth.ManageWebhooks, mayTake(ok, a.rotateSecret), nil,
			"Rotate the signing secret; the old one stays valid for a while"},
		{"POST", "/v1/webhooks/{id}/test", auth.ManageWebhooks, takes(a.testWebhook), nil, "Send a webhook with sample data"},
		{"POST", "/v1/webhooks/{id}/replay", auth.ManageWebhooks, takes(a.replayWebhook), nil,
			"Redeliver deliveries of a webhook; returns the number"},
		{"GET", "/v1/webhooks/{id}/history", auth.Look, list(a.webhookHistory), nil,
			"List the changes of a webhook, newest first"},
		{"GET", "/v1/webhooks/{id}/deliveries", auth.Look, list(a.deliveries), deliveryFilters(),
			"List the deliveries of a webhook, newest first"},
		{"GET", "/v1/deliveries/{id}", auth.Look, get(a.delivery), nil, "Get a delivery with every attempt"},
		{"POST", "/v1/deliveries/{id}/retry", auth.ManageWebhooks, get(a.retryDelivery), nil,
			"Redeliver a delivery now"},
		{"GET", "/v1/runs/find", auth.Look, get(a.findRun), findFilters(),
			"Find the run of a ciBuildId, or the latest finished run of a branch and tags"},
		{"GET", "/v1/runs/{id}", auth.Look, get(a.run), nil, "Get a run with its groups and specs"},
		{"DELETE", "/v1/runs/{id}", auth.ManageProjects, get(a.deleteRun), nil,
			"Delete a run with its artifacts, unless it is running or pinned"},
		{"PUT", "/v1/runs/{id}/pin", auth.ManageRuns, get(a.pinRun), nil,
			"Pin a run, so that it is kept past its retention; repeating this changes nothing"},
		{"PUT", "/v1/runs/{id}/unpin", auth.ManageRuns, get(a.unpinRun), nil, "Unpin a run; repeating this changes nothing"},
		{"PUT", "/v1/runs/{id}/cancel", auth.ManageRuns, mayTake(ok, a.cancelRun), nil,
			"Cancel a run; repeating this changes nothing"},
		{"PUT", "/v1/runs/{id}/reset", auth.ManageRuns, takes(a.resetRun), nil,
			"Reset the specs of machines that did not pass, so that they can be claimed again"},
		{"PUT", "/v1/runs/cancel-ci/github", auth.ManageRuns, takes(a.cancelGitHub), nil,
			"Cancel the runs of one attempt of a GitHub Actions workflow run"},
		{"POST", "/v1/runs/cancel", auth.Anyone, takes(a.cancelBuild), nil, "Cancel a run with its project's record key"},
		{"POST", "/v1/runs/{id}/heartbeat", auth.Anyone, takes(a.heartbeat), nil,
			"Keep a group from timing out; the machineId is the credential"},
		{"POST", "/v1/gc", auth.ManageServer, mayTake(ok, a.gc), nil,
			"Remove data past its retention now, or count it; returns the amounts"},
		{"GET", "/v1/instances/{id}", auth.Look, get(a.instance), nil, "Get an execution of a spec, with its tests"},
	}
}

// New makes the handler of everything under /v1/.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &api{o, projects.New(o.DB, o.Endpoints, o.Sweeper)}
	routes := a.routes()
	mux := http.NewServeMux()
	// Made at the first request, so that the start does not wait for them.
	static := func(path, contentType string, write func() []byte) {
		text := sync.OnceValue(write)
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				a.fail(w, r, notAllowed(w, r, []string{http.MethodGet}))
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(text()) // a client that went away gets no answer
		})
	}
	static("/v1/openapi.json", "application/json; charset=utf-8",
		func() []byte { return encodeDocument(describe(routes)) })
	static("/v1/docs", "text/html; charset=utf-8", func() []byte { return docsPage(routes) })

	// Methods are told apart here and not by the mux: it would refuse
	// "/v1/runs/find" beside "GET /v1/runs/{id}", and answer in plain text.
	byPath := map[string]map[string]route{}
	for _, rt := range routes {
		if byPath[rt.path] == nil {
			byPath[rt.path] = map[string]route{}
		}
		byPath[rt.path][rt.method] = rt
	}
	for path, methods := range byPath {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { a.dispatch(w, r, methods) })
	}
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, run.Errorf(run.NotFound, "There is no call at %s: see /v1/docs.",
			run.Clip(r.URL.Path, 100)))
	})
	return web.Recover(o.Log, mux)
}

// dispatch calls the route of a path that has the method.
func (a *api) dispatch(w http.ResponseWriter, r *http.Request, methods map[string]route) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // net/http leaves the body out
	}
	rt, found := methods[method]
	if !found {
		allowed := make([]string, 0, len(methods))
		for m := range methods {
			allowed = append(allowed, m)
		}
		a.fail(w, r, notAllowed(w, r, allowed))
		return
	}
	answer, err := a.serve(w, r, rt)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	send(w, r, rt, answer)
}

// success is the form of every answer that is not an error.
type success struct {
	Status  string `json:"status"`
	HasMore *bool  `json:"has_more,omitempty"`
	Data    any    `json:"data"`
}

// serve makes the answer of a route, encoded.
func (a *api) serve(w http.ResponseWriter, r *http.Request, rt route) ([]byte, error) {
	req, err := a.admit(r, rt)
	if err != nil {
		body.Refuse(w)
		return nil, err
	}
	var b *body.Body
	if rt.handler.body != nil {
		pool, limits := a.Bodies.Known, bodyLimits
		if rt.right == auth.Anyone {
			pool, limits = a.Bodies.Strangers, strangerLimits
		}
		if b, err = pool.Receive(w, r, limits); err != nil {
			return nil, err
		}
		defer b.Release()
	}
	if key := r.Header.Get(idempotencyKey); key != "" && rt.takesOnce() {
		return a.once(w, req, rt, b, key)
	}
	return rt.answer(req, b)
}

// answer is what the handler answers, encoded.
func (rt route) answer(r *request, b *body.Body) ([]byte, error) {
	data, more, err := rt.handler.serve(r, b)
	if err != nil {
		return nil, err
	}
	answer := success{Status: "OK", Data: data}
	if rt.handler.list {
		answer.HasMore = &more
	}
	return web.Encode(answer)
}

// maybeKept says that the client may cache the response of a route: it has no secret.
func (rt route) maybeKept() bool { return rt.method == http.MethodGet && rt.right == auth.Look }

// packFrom is the size in bytes from which compression pays.
const packFrom = 2 << 10

// send sends a response. A client may cache it, and gets 304 while it is the same. One
// with secrets is neither cached nor compressed,
// because its length would reveal something.
func send(w http.ResponseWriter, r *http.Request, rt route, answer []byte) {
	h := w.Header()
	if !rt.maybeKept() {
		h.Set("Cache-Control", "no-store")
		web.WriteEncoded(w, rt.handler.status, answer)
		return
	}
	sum := sha256.Sum256(answer)
	etag := `W/"` + hex.EncodeToString(sum[:12]) + `"` // weak, because it is packed or not
	h.Set("ETag", etag)
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Vary", "Accept-Encoding, Authorization")
	if web.Matches(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if len(answer) >= packFrom && web.TakesGzip(r.Header.Get("Accept-Encoding")) {
		answer = web.Pack(answer)
		h.Set("Content-Encoding", "gzip")
	}
	web.WriteEncoded(w, rt.handler.status, answer)
}

// Limits on bodies, above what any request needs. What a stranger sends has a key
// in it, or an id that is a secret, and a few other strings.
var (
	bodyLimits     = body.Limits{Bytes: 1 << 20, Values: 10_000, Groups: 1_000, Depth: 16, Text: 128 << 10, Ratio: 100}
	strangerLimits = body.Limits{Bytes: 64 << 10, Values: 100, Groups: 20, Depth: 8, Text: 16 << 10}
)

// admit checks the key, and that what stands in the URL is text: what a database
// would refuse cannot be the name of anything.
func (a *api) admit(r *http.Request, rt route) (*request, error) {
	req := &request{Request: r}
	var err error
	if rt.right != auth.Anyone {
		if req.by, err = a.Keys.API(r.Context(), bearer(r)); err != nil {
			return nil, err
		}
		if !req.by.May(rt.right) {
			return nil, run.Errorf(run.Forbidden, "This API key is read-only: use a read-write key.")
		}
	}
	if !storable(r.PathValue("id")) {
		return nil, run.Errorf(run.NotFound, "No object has this id.")
	}
	if req.query, err = parseQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	return req, a.within(req, rt)
}

func bearer(r *http.Request) string {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(key)
}

// methodNotAllowed is the one error that is about HTTP and nothing else.
type methodNotAllowed struct{ message string }

func (e methodNotAllowed) Error() string { return e.message }

func notAllowed(w http.ResponseWriter, r *http.Request, methods []string) error {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	w.Header().Set("Allow", allow)
	return methodNotAllowed{run.Clip(r.Method, 20) + " is not possible here: use " + allow + "."}
}

// failure is the form of every error.
type failure struct {
	Status string `json:"status"`
	Error  string `json:"error"`
}

func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Cache-Control", "no-store")
	if e, is := errors.AsType[methodNotAllowed](err); is {
		web.WriteJSON(w, http.StatusMethodNotAllowed, failure{"FAILED", e.message})
		return
	}
	web.LogInternal(a.Log, r, err)
	p := web.ProblemOf(err)
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if p.Wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(p.Wait.Seconds()))))
	}
	web.WriteJSON(w, p.Status, failure{"FAILED", strings.Join(append([]string{p.Message}, p.Details...), " ")})
}
