package e2e

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// TestRecorderOfEachCypress: whatever the version and the shape of its results,
// the run, its webhooks and its counts are the same, and what Cypress prints
// and its exit code are those of 'cypress run'.
func TestRecorderOfEachCypress(t *testing.T) {
	t.Parallel()
	for _, major := range majors {
		t.Run(major, func(t *testing.T) {
			t.Parallel()
			s, r := newServer(t), testkit.NewReceiver(t)
			key := s.project("shop", map[string]any{"completionDelaySeconds": 0, "publicRunLinks": true})
			s.endpoint(r, "shop", "/group", "group")
			s.endpoint(r, "shop", "/run", "run")
			p := newCypress(t, major)
			before := p.status(t)
			plainCode, plainOut := p.plain(t)
			p.remove(t, "cypress/screenshots")

			m := p.record(t, s.url, key, "--ci-build-id", "build-1", "--tag", "smoke,nightly")
			code, _ := m.wait(t)
			if code != plainCode || code != 3 {
				t.Errorf("exit code %d; 'cypress run' has %d", code, plainCode)
			}
			if out := m.stdout.String(); out != plainOut {
				t.Errorf("stdout is\n%s\nand of 'cypress run'\n%s", out, plainOut)
			}
			got := r.Wait(t, 30*time.Second, has("/group RUN_FINISH 1", "/run RUN_FINISH 1"))
			exactly(t, r, "/group RUN_START 1", "/group RUN_FINISH 1", "/run RUN_START 1", "/run RUN_FINISH 1")
			goldenPayloads(t, "testdata/recorder.golden", got)

			run := s.theRun()
			if want := decode(t, got[len(got)-1]).counts; run.tests() != want || run.Status != "FAILED" || run.CompletionState != "COMPLETE" {
				t.Errorf("the REST API says %+v, the webhook counts %+v", run, want)
			}
			for _, want := range []string{decode(t, got[0]).RunURL, "Spec 5 of 5", "11", "3 tests failed. Exit code 3, like Cypress. Run: http",
				"  cypress/e2e/b_fail.cy.js: b › fails\n"} {
				if !strings.Contains(m.stderr.String(), want) {
					t.Errorf("it does not print %q", want)
				}
			}
			p.checkErrors(t, s, run)
			p.remove(t, "cypress/screenshots") // Cypress' own
			if after := p.status(t); after != before {
				t.Errorf("something was written into the project:\n%s", after)
			}
			if files, _ := filepath.Glob(filepath.Join(p.temp(), "*")); len(files) > 0 {
				t.Errorf("temporary files remain: %q", files)
			}
			s.stop()
			for what, text := range map[string]string{"log": s.log.String(), "database": readAll(t, s.dir)} {
				for _, secret := range []string{projectSecret, key} {
					if strings.Contains(text, secret) {
						t.Errorf("the %s holds the secret %s", what, secret)
					}
				}
			}
		})
	}
}

// status is what git says has changed in the project.
func (p cypressProject) status(t *testing.T) string {
	t.Helper()
	c := exec.Command("git", "status", "--porcelain", "--untracked-files=all")
	c.Dir = p.dir
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// temp is the directory for temporary files.
func (p cypressProject) temp() string {
	i := slices.IndexFunc(p.env, func(v string) bool { return strings.HasPrefix(v, "TMPDIR=") })
	return strings.TrimPrefix(p.env[i], "TMPDIR=")
}

// checkErrors looks for what a person would want to read of failures.
func (p cypressProject) checkErrors(t *testing.T, s *server, r runInfo) {
	t.Helper()
	want := map[string]string{"b_fail": "expected 'blue' to equal 'green'", "d_skips": "the hook broke", "e_compile_error": "Webpack Compilation Error"}
	for _, spec := range r.Specs {
		if spec.InstanceID == nil {
			continue
		}
		var instance any
		s.call("GET", "/instances/"+*spec.InstanceID, nil, &instance)
		name, _, _ := strings.Cut(filepath.Base(spec.Spec), ".")
		text := fmt.Sprint(instance)
		if !strings.Contains(text, want[name]) {
			t.Errorf("%s does not show %q: %s", name, want[name], text)
		}
		page := get(t, s.url+"/run/"+r.RunID)
		if !strings.Contains(html.UnescapeString(page), want[name]) && name != "e_compile_error" {
			t.Errorf("the page does not show %q", want[name])
		}
	}
}

// TestRecorderMachinesShareAGroup: every spec runs once; and a machine that was
// not told to share does not.
func TestRecorderMachinesShareAGroup(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", map[string]any{"completionDelaySeconds": 0})
	s.endpoint(r, "shop", "/group", "group")
	p := newCypress(t, usual)
	// Each waits for the other to run, so two machines are at work at once.
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	addSpec(t, p.dir, "a_meet_1.cy.js", one, two)
	addSpec(t, p.dir, "a_meet_2.cy.js", two, one)
	args := []string{"--ci-build-id", "b", "--group", "chrome"}
	a := p.record(t, s.url, key, append(args, "--parallel")...)
	eventually(t, 60*time.Second, "the first machine runs a spec", func() bool { _, err := os.Stat(one); return err == nil })
	if code, out := p.record(t, s.url, key, args...).wait(t); code != 1 || !strings.Contains(out, "--parallel") {
		t.Errorf("a machine that wants the group for itself: exit code %d\n%s", code, out)
	}
	b := p.record(t, s.url, key, append(args, "--parallel")...)
	codeA, outA := a.wait(t)
	codeB, outB := b.wait(t)
	got := r.Wait(t, 30*time.Second, has("/group RUN_FINISH 1"))
	exactly(t, r, "/group RUN_START 1", "/group RUN_FINISH 1")
	if codeA+codeB != 3 {
		t.Errorf("exit codes %d and %d, want 3 in sum", codeA, codeB)
	}
	if q := decode(t, got[len(got)-1]); q.counts != (counts{Overall: 13, Passes: 8, Failures: 3, Pending: 1, Skipped: 1, Retries: 3, Flaky: 1}) || q.GroupID != "chrome" {
		t.Errorf("payload %+v", q)
	}
	for _, spec := range []string{"a_meet_1", "a_meet_2", "a_pass", "b_fail", "c_flaky", "d_skips", "e_compile_error"} {
		if n := strings.Count(outA+outB, "Running:  "+spec+".cy.js"); n != 1 {
			t.Errorf("%s ran %d times", spec, n)
		}
	}

	// The same build again must not turn green.
	if code, out := p.record(t, s.url, key, append(args, "--parallel")...).wait(t); code != 1 || !strings.Contains(out, "is over") {
		t.Errorf("again: exit code %d\n%s", code, out)
	}
}

// TestRecorderCanceledMeanwhile: the spec that runs may end, and is shown; no
// other one starts, and the job is not green.
func TestRecorderCanceledMeanwhile(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", map[string]any{"inactivityTimeoutSeconds": 8}) // so heartbeats come every two seconds
	s.endpoint(r, "shop", "/group", "group")
	p := newCypress(t, usual)
	p.only(t, "b.cy.js")
	g := addGate(t, p.dir, "a_gate.cy.js")
	m := p.record(t, s.url, key, "--ci-build-id", "b")
	g.waitReached(t)
	s.cancel(s.theRun().RunID, "a newer commit")
	r.Wait(t, 30*time.Second, has("/group RUN_CANCELED 1"))
	eventually(t, 60*time.Second, "the recorder says so while the spec runs", func() bool { return strings.Contains(m.stderr.String(), "a newer commit") })
	g.letThrough(t)
	if code, out := m.wait(t); code != 1 || !strings.Contains(out, "The run was canceled. Exit code 1.") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if run := s.theRun(); run.CompletionState != "CANCELED" || run.tests() != (counts{Overall: 1, Passes: 1}) {
		t.Errorf("the REST API says %+v", run)
	}
	exactly(t, r, "/group RUN_START 1", "/group RUN_CANCELED 1")
}

// TestRecorderUploads: screenshots and videos go where the server says, here to
// a proxy that adds addresses to its answers, and refuses the first time.
func TestRecorderUploads(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	key := s.project("shop", nil)
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	var mu sync.Mutex
	got := map[string]string{} // content type and first bytes, by path
	tries := map[string]int{}
	var own string
	stub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/upload/"):
			if tries[r.URL.Path]++; tries[r.URL.Path] == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			got[r.URL.Path] = fmt.Sprintf("%s %d %q", r.Header.Get("Content-Type"), r.ContentLength, body[:min(8, len(body))])
		case strings.HasSuffix(r.URL.Path, "/cy/results"):
			var ids []string
			for _, id := range screenshotIDs(t, body) {
				ids = append(ids, fmt.Sprintf(`{"screenshotId":%q,"uploadUrl":"%s/upload/%s","readUrl":"x"}`, id, own, id))
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			fmt.Fprintf(w, `{"screenshotUploadUrls":[%s],"videoUploadUrl":"%s/upload/video","cloud":{"shouldCancel":false}}`, strings.Join(ids, ","), own)
		default:
			r.Body = io.NopCloser(bytes.NewReader(body))
			proxy.ServeHTTP(w, r)
		}
	}))
	defer stub.Close()
	own = stub.URL
	p := newCypress(t, usual)
	if code, _ := p.record(t, stub.URL, key, "--ci-build-id", "b", "--spec", "cypress/e2e/b_fail.cy.js", "--config", "video=true").wait(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	mu.Lock()
	defer mu.Unlock()
	var kinds []string
	for path, what := range got {
		kinds = append(kinds, what)
		if path == "/upload/video" && !strings.HasPrefix(what, "video/mp4 24 ") {
			t.Errorf("the video: %s", what)
		}
	}
	slices.Sort(kinds)
	if len(kinds) != 4 || !strings.HasPrefix(kinds[0], "image/png ") || !strings.HasPrefix(kinds[2], "image/png ") || !strings.Contains(kinds[0], "PNG") {
		t.Errorf("uploaded: %q", kinds)
	}
}

// TestRecorderSaysWhatItCouldNotUpload: whatever a proxy does to uploads, the page of the run says which files are missing, and why.
func TestRecorderSaysWhatItCouldNotUpload(t *testing.T) {
	t.Parallel()
	var proxy atomic.Pointer[httputil.ReverseProxy]
	var pictures atomic.Int32
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		picture := int32(0)
		if r.Method == http.MethodPut && r.Header.Get("Content-Type") == "image/png" {
			picture = pictures.Add(1)
		}
		switch {
		case r.Header.Get("Content-Type") == "video/mp4":
			panic(http.ErrAbortHandler) // each time
		case picture == 1:
			http.Error(w, "the limit of a proxy", http.StatusRequestEntityTooLarge)
		case picture == 2:
			_, _ = io.Copy(io.Discard, r.Body) // a portal that says yes to everything
		default:
			proxy.Load().ServeHTTP(w, r)
		}
	}))
	defer front.Close()
	s := newServer(t, "RUNBELL_PUBLIC_URL="+front.URL)
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy.Store(httputil.NewSingleHostReverseProxy(target))
	p := newCypress(t, usual)
	code, out := p.record(t, front.URL, s.project("shop", map[string]any{"publicRunLinks": true}), "--ci-build-id", "b", "--spec", "cypress/e2e/b_fail.cy.js", "--config", "video=true").wait(t)
	if code != 1 || strings.Count(out, "was not uploaded") != 2 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	resp, err := http.Get(s.url + "/run/" + s.theRun().RunID + "/spec?file=cypress%2Fe2e%2Fb_fail.cy.js")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for want, times := range map[string]int{
		"The reporter could not upload it: the response was 413 Request Entity Too Large": 1,
		"The reporter says that it uploaded it, but it did not arrive":                    1,
		"The reporter could not upload it: EOF":                                           2, // the video: for the test, and of the spec
		"<img ":                                                                           1,
	} {
		if n := strings.Count(string(page), want); n < times {
			t.Errorf("the page says %q %d times, want %d:\n%s", want, n, times, page)
		}
	}
	if strings.Contains(string(page), "signature=") {
		t.Error("the page shows the address of an upload")
	}
}

// TestRecorderNothingToRun: specs without tests, and those that are gone when their
// turn comes, are recorded so. They are no failures, and the exit code is Cypress'.
func TestRecorderNothingToRun(t *testing.T) {
	t.Parallel()
	const empty = "describe('later', () => {})\n"
	const removes = "it('removes c', () => { require('fs').unlinkSync(require('path').join(process.cwd(), 'cypress/e2e/c.cy.js')) })\n"
	for name, c := range map[string]struct {
		a, b string // the texts of two specs; the others pass
		args []string
		want counts
		says string
	}{
		"a spec without tests":                   {a: empty, want: counts{Overall: 3, Passes: 3}, says: "No test failed: 3 passed."},
		"a spec that is gone":                    {b: removes, args: []string{"--batch", "2"}, want: counts{Overall: 3, Passes: 3}, says: "Cypress finds nothing to run in cypress/e2e/c.cy.js."},
		"a spec that is gone, alone in its turn": {b: removes, args: []string{"--batch", "1", "--parallel"}, want: counts{Overall: 3, Passes: 3}, says: "Cypress finds nothing to run in cypress/e2e/c.cy.js."},
		"no tests at all":                        {a: empty, b: empty, args: []string{"--spec", "cypress/e2e/a.cy.js,cypress/e2e/b.cy.js"}, says: "No tests ran."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			p := newCypress(t, usual)
			p.only(t, "a.cy.js", "b.cy.js", "c.cy.js", "d.cy.js")
			for name, text := range map[string]string{"a": c.a, "b": c.b} {
				if text != "" {
					p.write(t, "cypress/e2e/"+name+".cy.js", text)
				}
			}
			code, out := p.record(t, s.url, s.project("shop", nil), append(c.args, "--ci-build-id", "b")...).wait(t)
			plain, _ := p.plain(t, "--spec", "cypress/e2e/a.cy.js,cypress/e2e/d.cy.js")
			if code != plain || code != 0 || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d; 'cypress run' has %d\n%s", code, plain, out)
			}
			run := s.theRun()
			if run.tests() != c.want || run.Status != "PASSED" || run.CompletionState != "COMPLETE" || run.NoTests != (c.want == counts{}) {
				t.Errorf("%s, %s, no tests: %v, %+v; want %+v", run.Status, run.CompletionState, run.NoTests, run.tests(), c.want)
			}
			for _, spec := range run.Specs {
				if spec.Results == nil || spec.Results.Exception != nil {
					t.Errorf("%s: %+v", spec.Spec, spec.Results)
				}
			}
		})
	}
}

// TestRecorderOfOddProjects: names that are patterns, configurations in every
// form, component tests, a project elsewhere, and what is missing.
func TestRecorderOfOddProjects(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	key := s.project("shop", nil)
	typescript, err := filepath.Abs("recorder/node_modules/typescript")
	if err != nil {
		t.Fatal(err)
	}
	configured := func(t *testing.T, name, text string) cypressProject {
		p := newCypress(t, usual)
		p.remove(t, "cypress.config.js")
		p.only(t, "a.cy.js", "b.skip.cy.js")
		p.write(t, name, text)
		return p
	}
	for name, c := range map[string]struct {
		make  func(t *testing.T) cypressProject
		args  []string
		code  int
		specs []string // in the run; nil is no run
		says  string
	}{
		"odd names": {make: func(t *testing.T) cypressProject {
			p := newCypress(t, usual)
			p.only(t, "[id].cy.js", "a,b.cy.js", "with space.cy.js", "{x}(y)!.cy.js", "ünï¢ode.cy.js", "sub dir/x.cy.js")
			return p
		}, args: []string{"--batch", "4"}, specs: []string{"[id].cy.js", "a,b.cy.js", "sub dir/x.cy.js", "with space.cy.js", "{x}(y)!.cy.js", "ünï¢ode.cy.js"}},
		"one odd name": {make: func(t *testing.T) cypressProject {
			p := newCypress(t, usual)
			p.only(t, "[id].cy.js", "a,b.cy.js", "i.cy.js")
			return p
		}, args: []string{"--spec", "cypress/e2e/[id].cy.js", "--spec", "cypress/e2e/a,b.cy.js"}, specs: []string{"[id].cy.js", "a,b.cy.js"}},
		"ES module": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.mjs", "import { defineConfig } from 'cypress'\nexport default defineConfig({ e2e: { supportFile: false, excludeSpecPattern: '**/*.skip.cy.js' } })\n")
		}, specs: []string{"a.cy.js"}},
		"CommonJS": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.cjs", "module.exports = { e2e: { supportFile: false, specPattern: ['cypress/e2e/**/*.cy.js', '!**/*.skip.cy.js'] } }\n")
		}, specs: []string{"a.cy.js"}},
		"TypeScript": {make: func(t *testing.T) cypressProject {
			p := configured(t, "cypress.config.ts", "import { defineConfig } from 'cypress'\nimport { only } from './patterns'\nconst pattern: string = only\nexport default defineConfig({ e2e: { supportFile: false, specPattern: pattern } })\n")
			p.write(t, "patterns.ts", "export const only: string = 'cypress/e2e/a.cy.{js,ts}'\n")
			p.link(t, typescript, "node_modules/typescript")
			return p
		}, specs: []string{"a.cy.js"}},
		"TypeScript, not installed": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.ts", "const x: string = 1\nexport default {}\n")
		}, code: 1, says: "cypress.config.ts:1"},
		"a configuration that cannot be read, and --spec": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = {\n")
		}, args: []string{"--spec", "cypress/e2e/a.cy.js"}, code: 1, says: "Cypress did not start"},
		"patterns of the command line": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { supportFile: false } }\n")
		}, args: []string{"--config", "specPattern=cypress/**/b.*.js,video=false"}, specs: []string{"b.skip.cy.js"}},
		"component tests": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { supportFile: false, specPattern: 'cypress/e2e/b*' }, component: { specPattern: 'cypress/e2e/*.cy.js' } }\n")
		}, args: []string{"--component"}, specs: []string{"a.cy.js"}},
		"patterns that setupNodeEvents changes": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { supportFile: false, specPattern: 'nothing', async setupNodeEvents (on, config) { config.specPattern = 'cypress/e2e/**'; return config } } }\n")
		}, args: []string{"--spec", "cypress/e2e/b.*"}, specs: []string{"b.skip.cy.js"}},
		"patterns that setupNodeEvents changes, and no --spec": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { specPattern: 'nothing', setupNodeEvents (on, config) { config.specPattern = 'cypress/e2e/b*'; return config } } }\n")
		}, specs: []string{"b.skip.cy.js"}},
		"patterns that setupNodeEvents changes, and --parallel": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { specPattern: 'nothing', setupNodeEvents: async () => ({ specPattern: ['cypress/e2e/b*'] }) } }\n")
		}, args: []string{"--parallel"}, specs: []string{"b.skip.cy.js"}},
		"patterns that setupNodeEvents changes, and does not return": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { specPattern: 'cypress/e2e/a*', setupNodeEvents (on, config) { config.specPattern = 'cypress/e2e/b*' } } }\n")
		}, args: []string{"--parallel"}, specs: []string{"a.cy.js"}},
		"patterns that only Cypress knows": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { specPattern: 'cypress/e2e/!(b)*.js' } }\n")
		}, args: []string{"--parallel", "--batch", "1"}, specs: []string{"a.cy.js"}},
		"a --spec that only Cypress knows": {make: func(t *testing.T) cypressProject {
			p := newCypress(t, usual)
			p.only(t, "a.cy.js", "b.cy.js", "c.cy.js")
			return p
		}, args: []string{"--spec", "cypress/e2e/!(b).cy.js"}, specs: []string{"a.cy.js", "c.cy.js"}},
		"handlers of the project": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", `
module.exports = { e2e: { setupNodeEvents (on) {
  for (const event of ['before:run', 'before:spec', 'after:spec', 'after:run']) on(event, () => console.log('theirs', event))
} } }
`)
		}, args: []string{"--spec", "cypress/e2e/a*"}, specs: []string{"a.cy.js"}, says: "theirs after:run"},
		"patterns above the project": {make: func(t *testing.T) cypressProject {
			p := configured(t, "cypress.config.js", "module.exports = { e2e: { specPattern: '../elsewhere/*.cy.js' } }\n")
			p.write(t, "../elsewhere/x.cy.js", "it('passes', () => {})\n")
			return p
		}, args: []string{"--parallel"}, specs: []string{"../elsewhere/x.cy.js"}},
		"patterns of a variable": {make: func(t *testing.T) cypressProject {
			p := configured(t, "cypress.config.js", "module.exports = { e2e: {} }\n")
			p.env = append(p.env, `CYPRESS_specPattern=["cypress/e2e/b*","cypress/none/*"]`)
			return p
		}, args: []string{"--parallel"}, specs: []string{"b.skip.cy.js"}},
		"no specs": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { specPattern: 'tests/**/*.js' } }\n")
		}, code: 1, says: "tests/**/*.js"},
		"no specs to share": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "module.exports = { e2e: { specPattern: 'tests/**/*.js' } }\n")
		}, args: []string{"--parallel"}, code: 1, says: `specPattern is "tests/**/*.js"`},
		"nothing for --spec": {make: func(t *testing.T) cypressProject { return newCypress(t, usual) },
			args: []string{"--spec", "cypress/extra/slow.cy.js"}, code: 1, says: "it chooses among those that specPattern finds"},
		"no configuration": {make: func(t *testing.T) cypressProject {
			p := newCypress(t, usual)
			p.remove(t, "cypress.config.js")
			return p
		}, code: 1, says: "there is no cypress.config"},
		"no Cypress": {make: func(t *testing.T) cypressProject {
			p := newCypress(t, usual)
			p.remove(t, "node_modules")
			return p
		}, code: 1, says: "npm install --save-dev cypress"},
		"no binary": {make: func(t *testing.T) cypressProject {
			p := newCypress(t, usual)
			p.only(t, "a.cy.js")
			p.env = append(p.env, "CYPRESS_CACHE_FOLDER="+t.TempDir())
			return p
		}, code: 1, says: "No version of Cypress is installed"},
		// Each is a start of its own: the others run.
		"a Cypress that crashes": {make: func(t *testing.T) cypressProject {
			p := newCypress(t, usual)
			p.only(t, "d.cy.js")
			p.write(t, "cypress/e2e/a.cy.js", "process.kill(process.pid, 'SIGSEGV'); while (true) {}\n")
			p.write(t, "cypress/e2e/b.cy.js", "process.kill(process.pid, 'SIGKILL'); while (true) {}\n") // as for its memory
			p.write(t, "cypress/e2e/c.cy.js", "process.kill(process.ppid, 'SIGKILL'); while (true) {}\n")
			return p
		}, code: 3, specs: []string{"a.cy.js", "b.cy.js", "c.cy.js", "d.cy.js"}, says: "Running:  d.cy.js"},
		"an option that Cypress does not know": {make: func(t *testing.T) cypressProject { return newCypress(t, usual) },
			args: []string{"--", "--no-such-option"}, code: 1, says: "no-such-option"},
		"a configuration that ends Node": {make: func(t *testing.T) cypressProject { return configured(t, "cypress.config.js", "process.exit(3)\n") },
			code: 3, says: "Cypress did not start"},
		"a configuration that throws": {make: func(t *testing.T) cypressProject {
			return configured(t, "cypress.config.js", "throw new Error('no such variable')\n")
		}, code: 1, says: "Error: no such variable\n"},
		"an option that is ours": {make: func(t *testing.T) cypressProject { return newCypress(t, usual) },
			args: []string{"--", "--record"}, code: 1, says: "--record cannot be passed on"},
		"no git": {make: func(t *testing.T) cypressProject {
			p := newCypress(t, usual)
			p.remove(t, ".git")
			p.only(t, "a.cy.js")
			return p
		}, specs: []string{"a.cy.js"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			build := strings.ReplaceAll(name, " ", "-")
			p := c.make(t)
			m := p.record(t, s.url, key, append([]string{"--ci-build-id", build}, c.args...)...)
			code, out := m.wait(t)
			if code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, out)
			}
			if left := processes(t, p.dir); len(left) > 0 {
				t.Errorf("still running: %q", left)
			}
			if !strings.Contains(out, c.says) {
				t.Errorf("it does not say %q:\n%s", c.says, out)
			}
			var list []runInfo
			s.call("GET", "/projects/shop/runs?limit=100&search="+url.QueryEscape(build), nil, &list)
			list = slices.DeleteFunc(list, func(r runInfo) bool { return r.Meta.CIBuildID != build })
			var specs []string
			if len(list) > 0 {
				var run runInfo
				s.call("GET", "/runs/"+list[0].RunID, nil, &run)
				for _, spec := range run.Specs {
					specs = append(specs, strings.TrimPrefix(spec.Spec, "cypress/e2e/"))
					if spec.Results == nil {
						t.Errorf("%s has no results", spec.Spec)
					} else if e := spec.Results.Exception; e != nil && c.code == 0 {
						t.Errorf("%s: %s", spec.Spec, *e)
					}
				}
				slices.Sort(specs)
			}
			if !slices.Equal(specs, c.specs) {
				t.Errorf("recorded %q, want %q", specs, c.specs)
			}
		})
	}

	t.Run("a project elsewhere", func(t *testing.T) {
		t.Parallel()
		p := newCypress(t, usual)
		odd := filepath.Join(t.TempDir(), "my, [odd] project") // its name is part of what --spec gets
		if err := os.Rename(p.dir, odd); err != nil {
			t.Fatal(err)
		}
		p.dir = odd
		p.only(t, "a.cy.js", "b.cy.js")
		m := p.recordFrom(t, t.TempDir(), []string{"RUNBELL_URL=" + s.url, "RUNBELL_RECORD_KEY=" + key}, "--project", "shop",
			"--spec", "cypress/e2e/a.cy.js", "--", "--project", p.dir)
		if code, out := m.wait(t); code != 0 || !strings.Contains(out, "Spec 1 of 1: cypress/e2e/a.cy.js") {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
}
