package server

import (
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/config"
	"runbell/internal/endpoint"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// callers are the columns of the matrix. A caller sends all that it holds: its
// session, its key as an API key and as a record key, its ids.
var callers = []string{"nobody", "viewer", "member", "admin", "read", "write", "record", "other", "reporter"}

const legend = `# What each caller gets of each route: the status, and which secrets the answer shows.
#
# nobody: no credential. viewer, member, admin: a session. read, write: an API key, sent as a record key too.
# record, other: the record key of this or of another project, sent as an API key too.
# reporter: the ids that the server gave to a reporter. The others use the ids that readers see.
# "public" is the run of a project whose run links are public. in: to the sign-in page.
#
# u URL of a webhook   h value of its header   s signing secret   g signature   a answer of a receiver
# r record key         k API key               c id of a reporter               i link of an invitation

`

// shownSecrets lists the secrets, each with its letter in the golden file.
var shownSecrets = []struct {
	letter string
	is     *regexp.Regexp
}{
	{"u", regexp.MustCompile(`url-secret`)},
	{"h", regexp.MustCompile(`header-secret`)},
	{"s", regexp.MustCompile(`whsec_[A-Za-z0-9+/]{20}`)},
	{"g", regexp.MustCompile(`v1,[A-Za-z0-9+/]{20}`)},
	{"a", regexp.MustCompile(`answer-secret`)},
	{"r", regexp.MustCompile(`rk_[a-z0-9]{26}`)},
	{"k", regexp.MustCompile(`ak_[a-z0-9]{26}`)},
	{"c", regexp.MustCompile(`\.[0-9a-f]{32}\b`)},
	{"i", regexp.MustCompile(`/invite/[A-Z2-7]{26}`)},
}

// things are what routes act on, and what callers hold.
type things struct {
	*testing.T
	s        *Server
	receiver string
	n        int // grows, so that names are new
	ids      map[string]string
	tokens   map[string]string // of sessions, by role
	keys     map[string]string // by caller
	style    string            // address of the styles
}

func (w *things) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// renew makes everything again, after a request that may have changed it.
func (w *things) renew() {
	w.Helper()
	w.n++
	ctx := w.Context()
	w.ids, w.tokens, w.keys = map[string]string{}, map[string]string{}, map[string]string{}
	project, other, public := fmt.Sprint("shop-", w.n), fmt.Sprint("other-", w.n), fmt.Sprint("public-", w.n)
	for _, id := range []string{project, other, public} {
		testkit.Project(w, w.s.db, id, func(p *run.Project) { p.PublicRuns = id == public })
	}
	w.check(w.s.db.Write(ctx, func(tx *store.Tx) error {
		for _, role := range []store.Role{store.Viewer, store.Member, store.Admin, "target"} {
			a := store.Account{ID: fmt.Sprint(role, "-", w.n), Email: fmt.Sprint(role, w.n, "@example.test"), Name: string(role), Role: role, CreatedAt: tx.Now}
			if role == "target" {
				a.Role = store.Viewer
			}
			if _, err := tx.InsertAccount(ctx, a); err != nil {
				return err
			}
			token := fmt.Sprint("session-", a.ID)
			if err := tx.InsertSession(ctx, store.Session{Hash: auth.Hash(token), AccountID: a.ID, CreatedAt: tx.Now, SeenAt: tx.Now}); err != nil {
				return err
			}
			w.tokens[string(role)], w.ids[string(role)] = token, a.ID
		}
		return nil
	}))
	record, key, err := w.s.keys.CreateRecordKey(ctx, project, "ci")
	w.check(err)
	w.keys["record"], w.ids["record key"] = key, record.ID
	_, w.keys["other"], err = w.s.keys.CreateRecordKey(ctx, other, "ci")
	w.check(err)
	_, w.keys["read"], err = w.s.keys.CreateAPIKey(ctx, "reads", auth.Read, "")
	w.check(err)
	_, w.keys["write"], err = w.s.keys.CreateAPIKey(ctx, "writes", auth.Write, "")
	w.check(err)
	api, _, err := w.s.keys.CreateAPIKey(ctx, "to be revoked", auth.Read, "")
	w.check(err)
	headers := map[string]string{"Authorization": "Bearer header-secret"}
	hook, err := w.s.endpoints.Create(ctx, project, endpoint.Settings{URL: &w.receiver, Headers: &headers}, "by a test")
	w.check(err)
	delivery, err := w.s.endpoints.Test(ctx, hook.ID, webhook.RunStart)
	w.check(err)
	invitation, token, err := w.s.people.Invite(ctx, fmt.Sprint("new", w.n, "@example.test"), store.Viewer, "a test")
	w.check(err)
	w.ids["project"], w.ids["hook"], w.ids["delivery"], w.ids["api key"] = project, hook.ID, delivery, api.ID
	w.ids["token"], w.ids["invitation"] = token, invitation.ID
	w.record(project, "")
	w.record(public, "public ")
}

// record records a run. One of its specs has results, one runs, the others wait.
func (w *things) record(project, prefix string) {
	ctx := w.Context()
	joined, err := w.s.runs.Join(ctx, lifecycle.Join{ProjectID: project, CIBuildID: "build", Specs: []string{"a.cy.js", "b.cy.js", "c.cy.js", "d.cy.js"}})
	w.check(err)
	claim := func() run.Instance {
		c, err := w.s.runs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
		w.check(err)
		return c.Instances[0]
	}
	outcome := run.Outcome{Results: []run.Result{{ID: "r1", State: run.Failed}}, Video: true}
	done := claim().ID
	_, err = w.s.runs.Complete(ctx, done, nil, outcome)
	w.check(err)
	uploads, err := w.s.artifacts.Expect(ctx, done, outcome)
	w.check(err)
	address, err := url.Parse(uploads.Video)
	w.check(err)
	id := run.ArtifactID(done, run.VideoArtifact, "")
	w.check(w.s.artifacts.Receive(ctx, artifact.Upload{ID: id, Query: address.Query(), Size: 5, Body: strings.NewReader("video")}))
	w.ids[prefix+"file"], w.ids[prefix+"upload"] = id, address.RawQuery
	w.ids[prefix+"run"], w.ids[prefix+"machine"], w.ids[prefix+"instance"] = joined.RunID, joined.MachineID, claim().ID
}

// seen waits until the log has an attempt, for the rows that read it.
func (w *things) seen() {
	for n := 0; ; n++ {
		var attempts []webhook.Attempt
		w.check(w.s.db.Read(w.Context(), func(tx *store.Tx) (err error) {
			attempts, err = tx.Attempts(w.Context(), w.ids["delivery"])
			return err
		}))
		if len(attempts) > 0 {
			return
		}
		if n > 2000 {
			w.Fatal("the test webhook was not sent")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// id is what a caller puts in the place of a name in a path.
func (w *things) id(caller, route, prefix string) string {
	switch {
	case strings.Contains(route, "/files/{id}"):
		return w.ids[prefix+"file"]
	case strings.Contains(route, "/instances/{id}"):
		if caller == "reporter" {
			return w.s.reporters.InstanceCredential(w.ids["instance"])
		}
		return w.ids["instance"]
	case strings.Contains(route, "/runs/{id}"):
		return w.ids[prefix+"run"]
	case strings.Contains(route, "/projects/{id}"):
		return w.ids["project"]
	case strings.Contains(route, "/record-keys/{id}"):
		return w.ids["record key"]
	case strings.Contains(route, "/api-keys/{id}"):
		return w.ids["api key"]
	case strings.Contains(route, "/users/{id}"):
		return w.ids["target"]
	case strings.Contains(route, "/deliveries/{id}"):
		return w.ids["delivery"]
	default:
		return w.ids["hook"]
	}
}

// path is that of a route, with the ids of what there is.
func (w *things) path(caller, route, prefix string) string {
	_, pattern, _ := strings.Cut(route, " ")
	if pattern == "/static/{name}" {
		return w.style
	}
	return strings.NewReplacer("{$}", "", "{id}", w.id(caller, route, prefix), "{projectId}", w.ids["project"], "{hookId}", w.ids["hook"],
		"{deliveryId}", w.ids["delivery"], "{runId}", w.ids[prefix+"run"], "{token}", w.ids["token"], "{name}", "style.css").Replace(pattern)
}

// query is what a route needs in its query.
func (w *things) query(caller, path, prefix string) string {
	switch path {
	case "/v1/webhooks":
		return "?projectId=" + w.ids["project"]
	case "/v1/runs/find":
		return "?ciBuildId=build&projectId=" + w.ids["project"]
	case "/files/{id}":
		if caller == "reporter" {
			return "?" + w.ids[prefix+"upload"] // which allows to upload and not to read
		}
	case "/run/{runId}/spec":
		return "?file=a.cy.js"
	}
	return ""
}

// json is the body of a request to a reporter's or a REST route.
func (w *things) json(caller, route string) any {
	machine := w.ids["machine"]
	if caller == "reporter" {
		machine = w.s.reporters.MachineCredential(w.ids["run"], machine)
	}
	recordKey := w.keys[caller]
	name := fmt.Sprint("made-", w.n, "-", caller)
	switch _, path, _ := strings.Cut(route, " "); path {
	case "/runs":
		return object{"projectId": w.ids["project"], "recordKey": recordKey, "ciBuildId": name, "specs": []string{"a.cy.js"}}
	case "/runs/{id}/instances", "/runs/{id}/cy/instances", "/v1/runs/{id}/heartbeat":
		return object{"machineId": machine}
	case "/instances/{id}/tests", "/instances/{id}/results":
		return object{"tests": []any{}}
	case "/instances/{id}/cy/results":
		return object{"results": object{"tests": []any{}}}
	case "/instances/{id}/stdout":
		return object{"stdout": "x"}
	case "/v1/runs/cancel":
		return object{"projectId": w.ids["project"], "recordKey": recordKey, "ciBuildId": "build"}
	case "/v1/runs/cancel-ci/github":
		return object{"githubRunId": "1", "githubRunAttempt": 1}
	case "/v1/projects":
		return object{"name": name}
	case "/v1/api-keys":
		return object{"access": "read"}
	case "/v1/users":
		return object{"email": name + "@example.test", "role": "viewer"}
	case "/v1/webhooks":
		return object{"url": w.receiver}
	case "/v1/webhooks/{id}/test":
		return object{"event": "RUN_START"}
	case "/v1/webhooks/{id}/replay":
		return object{"since": "2026-01-01T00:00:00Z", "dryRun": true}
	}
	return object{}
}

// form is the body of a request of a page.
func (w *things) form(path string) url.Values {
	f := url.Values{"name": {fmt.Sprint("made ", w.n)}, "label": {"made"}, "role": {"member"}, "email": {fmt.Sprint("made", w.n, "@example.test")},
		"password": {"correct horse battery"}, "old": {"wrong"}, "access": {"read"}, "url": {w.receiver}, "event": {"RUN_START"}, "hours": {"1"},
		"inactivity": {"30"}, "completion": {"60"}, "failfast": {"0"}, "retention": {"30"}, "rundays": {"180"}, "failedartifacts": {"30"}, "passedartifacts": {"7"}, "artifactbytes": {"0"}, "output": {"30"}, "since": {"2026-01-01T00:00"}, "theme": {"dark"},
		"scope": {"group"}, "result": {"any"}, "payload": {"default"}, "inflight": {"16"}, "id": {w.ids["target"]}}
	switch {
	case strings.HasSuffix(path, "/people/uninvite"):
		f.Set("id", w.ids["invitation"])
	case path == "/keys/revoke":
		f.Set("id", w.ids["api key"])
	case strings.HasSuffix(path, "/keys/revoke"):
		f.Set("id", w.ids["record key"])
	case path == "/projects/{projectId}/delete":
		f.Set("confirm", w.ids["project"])
	case strings.HasSuffix(path, "/delete"):
		f.Set("confirm", "delete")
	case path == "/new-project":
		f.Set("id", fmt.Sprint("made-", w.n))
	}
	return f
}

type object map[string]any

// sign adds what a caller holds to a request.
func (w *things) sign(req *http.Request, caller string) {
	if token := w.tokens[caller]; token != "" {
		req.AddCookie(&http.Cookie{Name: "runbell", Value: token})
	}
	if key := w.keys[caller]; key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
}

func takesJSON(pattern string) bool {
	return strings.HasPrefix(pattern, "/runs") || strings.HasPrefix(pattern, "/instances") || pattern == "/preflight" || strings.HasPrefix(pattern, "/v1/")
}

// ask makes the request of a cell, and returns the outcome.
func (w *things) ask(caller, route, prefix string) (cell string, done bool) {
	w.Helper()
	method, pattern, _ := strings.Cut(route, " ")
	path := w.path(caller, route, prefix)
	body, kind := "", "application/json"
	switch {
	case method == http.MethodGet:
	case pattern == "/files/{id}":
		body, kind = "video", "video/mp4"
	case takesJSON(pattern):
		encoded, err := json.Marshal(w.json(caller, route))
		w.check(err)
		body = string(encoded)
	default:
		form := w.form(pattern)
		if pattern == "/signin" {
			form.Set("email", caller+"@example.test") // each may try a few times
		}
		body, kind = form.Encode(), "application/x-www-form-urlencoded"
	}
	req := httptest.NewRequestWithContext(w.Context(), method, path+w.query(caller, pattern, prefix), strings.NewReader(body))
	req.Header.Set("Content-Type", kind)
	w.sign(req, caller)
	rec := httptest.NewRecorder()
	w.s.http.Handler.ServeHTTP(rec, req)
	cell = fmt.Sprint(rec.Code)
	signIn := strings.HasPrefix(rec.Header().Get("Location"), "/signin?next=")
	if signIn {
		cell = "in"
	}
	shown, text := "", html.UnescapeString(rec.Body.String())
	for _, secret := range shownSecrets {
		if secret.is.MatchString(text) {
			shown += secret.letter
		}
	}
	if shown != "" {
		cell += " " + shown
	}
	return cell, rec.Code < 400 && !signIn && method != http.MethodGet
}

// TestAccess holds what every kind of caller gets of every route against a golden
// file. A route that is not in it fails the test.
func TestAccess(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write([]byte("answer-secret"))
	}))
	t.Cleanup(receiver.Close)
	s, _ := start(t, testkit.MigratedFile(t, t.TempDir()), func(c *config.Serve) { c.WebhookAllow = "127.0.0.0/8" })
	w := &things{T: t, s: s, receiver: receiver.URL + "/url-secret"}
	w.renew()
	w.seen()
	signIn := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(signIn, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/signin", nil))
	w.style = regexp.MustCompile(`/static/[^"]*\.css`).FindString(signIn.Body.String())
	var b strings.Builder
	b.WriteString(legend)
	row := func(name string, cells []string) {
		fmt.Fprintf(&b, "%-66s", name)
		for _, c := range cells {
			fmt.Fprintf(&b, " %-8s", c)
		}
		s := strings.TrimRight(b.String(), " ")
		b.Reset()
		b.WriteString(s + "\n")
	}
	row("", callers)
	// Reads come first, while everything is as it was made.
	for _, reads := range []bool{true, false} {
		for _, route := range routesOf(t) {
			if strings.HasPrefix(route, "GET ") != reads {
				continue
			}
			prefixes := []string{""}
			if strings.Contains(route, " /run/{runId}") || route == "GET /files/{id}" {
				prefixes = append(prefixes, "public ")
			}
			for _, prefix := range prefixes {
				var cells []string
				for _, caller := range callers {
					cell, done := w.ask(caller, route, prefix)
					cells = append(cells, cell)
					if done {
						w.renew()
					}
				}
				row(strings.TrimSpace(route+" "+prefix), cells)
			}
		}
	}
	const golden = "testdata/access.txt"
	if *update {
		w.check(os.MkdirAll("testdata", 0o755))
		w.check(os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		wantRows := map[string]bool{}
		for line := range strings.Lines(string(want)) {
			wantRows[line] = true
		}
		for line := range strings.Lines(b.String()) {
			if !wantRows[line] {
				t.Errorf("not in %s: %s", golden, line)
			}
			delete(wantRows, line)
		}
		for line := range wantRows {
			t.Errorf("only in %s: %s", golden, line)
		}
	}
}
