package ui

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/endpoint"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// world is a server's database with its verbs and pages.
type world struct {
	t     testing.TB
	ctx   context.Context
	db    *store.DB
	runs  *lifecycle.Service
	ui    *ui
	pages http.Handler
	// artifacts are the files that the pages show; nil if none are kept.
	artifacts *artifact.Service
	token     string // of the session that requests belong to, "" if to none
	log       strings.Builder
}

// testDepth is how far one search goes in these tests.
const testDepth = 20

const publicURL = "https://runbell.example.test"

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background()}
	sealer, err := webhook.NewSealer(make([]byte, webhook.SealKeySize))
	w.check(err)
	w.db, err = store.Open(w.ctx, testkit.MigratedFile(t, t.TempDir()), sealer)
	w.check(err)
	testkit.Project(t, w.db, "shop", func(p *run.Project) { p.PublicRuns = true })
	w.artifacts = artifact.New(artifact.Options{DB: w.db, Store: artifact.NewDisk(t.TempDir()), Secret: make([]byte, 32), PublicURL: publicURL,
		Max: 1 << 20, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	w.runs = lifecycle.New(w.db, publicURL, func(...string) {})
	w.serve(publicURL)
	return w
}

// serve makes the pages, for a public URL.
func (w *world) serve(url string) {
	endpoints := endpoint.New(w.db, url, func(target string) error {
		if strings.Contains(target, "10.0.0.1") {
			return errors.New("10.0.0.1 is a private address")
		}
		return nil
	}, func(...string) {})
	w.ui = newUI(Options{DB: w.db, Runs: w.runs, Artifacts: w.artifacts, People: auth.NewPeople(w.db, make([]byte, 32)), Keys: auth.New(w.db, auth.KeysOnly), Endpoints: endpoints, Explorer: history.NewExplorer(), Sweeper: retention.New(w.db, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry()), Log: slog.New(slog.NewTextHandler(&w.log, nil)), PublicURL: url, depth: testDepth})
	w.pages = w.ui.handler()
}

// person makes an account and returns the token of a session.
func (w *world) person(name string, role store.Role) string {
	w.t.Helper()
	token := "token-of-" + name
	w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
		a := store.Account{ID: "id-of-" + name, Email: name + "@example.test", Name: name, Role: role, CreatedAt: tx.Now}
		if _, err := tx.InsertAccount(w.ctx, a); err != nil {
			return err
		}
		return tx.InsertSession(w.ctx, store.Session{Hash: auth.Hash(token), AccountID: a.ID, CreatedAt: tx.Now, SeenAt: tx.Now})
	}))
	return token
}

// close is called by the test, not by its cleanup: in a synctest bubble the
// database's goroutine must end before the bubble does.
func (w *world) close() { w.check(w.db.Close()) }

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(path string, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.send(http.MethodGet, path, nil, header...)
}

// send sends a request as the browser of the session does.
func (w *world) send(method, path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if w.token != "" {
		r.AddCookie(&http.Cookie{Name: "__Host-runbell", Value: w.token})
	}
	rec := httptest.NewRecorder()
	w.pages.ServeHTTP(rec, r)
	return rec
}

// post fills in a form, which must lead to another page.
func (w *world) post(path string, pairs ...string) string {
	w.t.Helper()
	rec := w.send(http.MethodPost, path, form(pairs...))
	if rec.Code != http.StatusSeeOther {
		w.t.Fatalf("POST %s = %d\n%s%s", path, rec.Code, text(rec.Body.String()), w.log.String())
	}
	return rec.Header().Get("Location")
}

// refused fills in a form, which must be refused with a page that says why.
func (w *world) refused(status int, why, path string, pairs ...string) {
	w.t.Helper()
	rec := w.send(http.MethodPost, path, form(pairs...))
	if rec.Code != status {
		w.t.Errorf("POST %s = %d, want %d", path, rec.Code, status)
	}
	wants(w.t, rec.Body.String(), why)
}

func form(pairs ...string) url.Values {
	f := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}

// page is the body of a page that must be there.
func (w *world) page(path string) string {
	w.t.Helper()
	rec := w.get(path)
	if rec.Code != http.StatusOK {
		w.t.Fatalf("GET %s = %d\n%s%s", path, rec.Code, rec.Body, w.log.String())
	}
	return rec.Body.String()
}

func (w *world) join(j lifecycle.Join) lifecycle.Joined {
	w.t.Helper()
	joined, err := w.runs.Join(w.ctx, j)
	w.check(err)
	return joined
}

func (w *world) claim(j lifecycle.Joined, limit int) []run.Instance {
	w.t.Helper()
	c, err := w.runs.Claim(w.ctx, lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: limit})
	w.check(err)
	return c.Instances
}

func (w *world) complete(i run.Instance, s spec) {
	w.t.Helper()
	_, err := w.runs.Complete(w.ctx, i.ID, &s.announcement, s.outcome)
	w.check(err)
	if s.output != "" {
		w.check(w.runs.Output(w.ctx, i.ID, s.output))
	}
}

// spec is what a reporter says of a spec.
type spec struct {
	name         string
	announcement run.Announcement
	outcome      run.Outcome
	output       string
}

// test adds a test with the states of its attempts.
func (s *spec) test(title string, ms int64, failure *run.Failure, attempts ...run.TestState) {
	id := fmt.Sprintf("r%d", len(s.announcement.Tests))
	s.announcement.Tests = append(s.announcement.Tests, run.Announced{ID: id, Title: strings.Split(title, " > "), Body: "() => {}"})
	res := run.Result{ID: id, State: run.Pending}
	for _, state := range attempts {
		a := run.Attempt{State: state, Duration: ms}
		if state == run.Failed {
			a.Error = failure
		}
		res.State, res.Attempts = state, append(res.Attempts, a)
	}
	s.outcome.Results = append(s.outcome.Results, res)
	s.outcome.Duration += time.Duration(ms*int64(max(1, len(attempts)))) * time.Millisecond
}

// The errors below are what real clients sent, with the colors of a terminal
// where Cypress puts them.
const (
	stackText = "\n    at Object.eq (/builds/acme/cycache/12.17.4/Cypress/Cypress:126:72)\n    at Object.<anonymous> (/builds/acme/shop/cypress/e2e/b_fail.cy.js:1:85)\n    at call (/builds/acme/cycache/12.17.4/Cypress/Cypress:134:89)\n    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)"
	compile   = "Oops...we found an error preparing this test file:\n\n  > \x1b[34mcypress/e2e/e_compile_error.cy.js\x1b[39m\n\nThe error was:\n\nnode:internal/modules/cjs/loader:1210\n  throw err;\n  ^\n\nError: Cannot find module './does-not-exist'\nRequire stack:\n- /builds/acme/shop/cypress/e2e/e_compile_error.cy.js\n    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15)\n    at Module._load (node:internal/modules/cjs/loader:1038:27)"
	console   = "\n====================================================================================================\n\nRunning: cypress/e2e/b_fail.cy.js (2/5)\n\n====================================================================================================\n\n  (\x1b[4m\x1b[1mRun Starting\x1b[22m\x1b[24m)\n\n  \x1b[90mCypress:\x1b[39m 12.17.4  \x1b[90mSpecs:\x1b[39m 1 found\n\n    \x1b[32m✓\x1b[0m passes\n    \x1b[31m1) fails\x1b[0m\n"
)

func assertion() *run.Failure {
	message := "expected \x1b[32m\"blue\"\x1b[39m to equal \x1b[32m\"green\"\x1b[39m"
	return &run.Failure{Name: "AssertionError", Message: message, Stack: "AssertionError: " + message + stackText,
		Frame: &run.Frame{File: "cypress/e2e/b_fail.cy.js", Line: 14, Column: 38,
			Text: "  12 |   cy.visit('/checkout')\n  13 |   cy.get('[data-test=pay]').click()\n> 14 |   cy.get('.colour').should($c => expect($c.text()).to.equal('green'))\n     |                                      ^\n  15 | })"}}
}

func timeout() *run.Failure {
	message := "Timed out retrying after 4000ms: Expected to find element: `[data-test=\"order-number\"]`, but never found it."
	return &run.Failure{Name: "AssertionError", Message: message, Stack: "AssertionError: " + message + stackText,
		Frame: &run.Frame{File: "cypress/e2e/checkout/pay.cy.js", Line: 41, Column: 8,
			Text: "  39 |     cy.get('[data-test=pay]').click()\n  40 |     cy.location('pathname').should('eq', '/thanks')\n> 41 |     cy.get('[data-test=\"order-number\"]')\n     |        ^\n  42 |       .should('be.visible')"}}
}

func passing(name string, titles ...string) spec {
	s := spec{name: name}
	for n, title := range titles {
		s.test(title, int64(410+n*230), nil, run.Passed)
	}
	return s
}

func failing(name string) spec {
	s := spec{name: name, output: console}
	s.test("b > passes", 2, nil, run.Passed)
	s.test("b > fails", 700, assertion(), run.Failed, run.Failed, run.Failed)
	return s
}

func flaky(name string) spec {
	s := spec{name: name}
	s.test("c > fails once then passes", 35, &run.Failure{Name: "Error", Message: "flake", Stack: "Error: flake" + stackText}, run.Failed, run.Passed)
	return s
}

func skipping(name string) spec {
	s := spec{name: name, output: console}
	s.announcement.Hooks = []run.Hook{{ID: "h1", Name: "before all"}}
	s.test("d > is pending", 0, nil)
	s.test("d > shot", 120, nil, run.Passed)
	s.test("d > broken hook > fails because of hook", 1, &run.Failure{Name: "Error", Message: "before hook broke", Stack: "Error: before hook broke" + stackText}, run.Failed)
	s.outcome.Results[2].Attempts[0].Hook = "h1"
	s.test("d > broken hook > never runs", 0, nil, run.Skipped)
	return s
}

func broken(name string) spec {
	s := spec{name: name}
	s.test("Unknown", 0, &run.Failure{Name: "Error", Message: "Oops...we found an error preparing this test file:", Stack: compile}, run.Failed)
	s.outcome.Exception = compile
	return s
}

func shopJoin(build string, specs ...spec) lifecycle.Join {
	j := lifecycle.Join{ProjectID: "shop", CIBuildID: build, Tags: []string{"smoke", "nightly"},
		Commit: run.Commit{SHA: "1ea02a6664aaf4872b49b3bb8d99d556c07d2a54", Branch: "feat/button-colour", AuthorName: "Jane Roe", AuthorEmail: "jane@example.test",
			Message: "feat: change button colour\n\nThe old one was hard to read.\n", RemoteOrigin: "https://ci-token:s3cr3t@github.com/acme/shop.git"},
		CI:       run.CI{Provider: "githubActions", Params: map[string]string{"githubRepository": "acme/shop", "githubRunId": "4242", "githubRunAttempt": "2"}},
		Client:   run.Client{Name: "cypress-cloud", Version: "1.13.1", Framework: run.Framework{Name: "cypress", Version: "12.17.4"}},
		Platform: run.Platform{OSName: "linux", OSVersion: "Debian - 12", BrowserName: "Electron", BrowserVersion: "106.0.5249.51"},
	}
	for _, s := range specs {
		j.Specs = append(j.Specs, s.name)
	}
	return j
}

// play records a whole run with one machine and returns its id.
func (w *world) play(j lifecycle.Join, specs []spec) string {
	w.t.Helper()
	joined := w.join(j)
	for _, s := range specs {
		w.complete(w.claim(joined, 1)[0], s)
	}
	return joined.RunID
}

func fiveSpecs() []spec {
	return []spec{
		passing("cypress/e2e/a_pass.cy.js", "a > adds one", "a > adds two"),
		failing("cypress/e2e/b_fail.cy.js"),
		flaky("cypress/e2e/c_flaky.cy.js"),
		skipping("cypress/e2e/d_skips.cy.js"),
		broken("cypress/e2e/e_compile_error.cy.js"),
	}
}
