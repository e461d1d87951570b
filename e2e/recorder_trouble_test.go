package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// addPid adds a spec to a project that writes the process it runs in, and then
// waits forever.
func (p cypressProject) addPid(t *testing.T, name string) (pid func() int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pid")
	p.write(t, "cypress/e2e/"+name, fmt.Sprintf(`it('never ends', async () => {
  require('fs').writeFileSync(%q, String(process.pid))
  await new Promise((resolve) => setTimeout(resolve, 1e9))
})
`, file))
	return func() (n int) {
		eventually(t, 60*time.Second, "the spec runs", func() bool {
			b, err := os.ReadFile(file)
			n, _ = strconv.Atoi(string(b))
			return err == nil && n > 0
		})
		return n
	}
}

func gone(pid int) func() bool {
	return func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }
}

// TestRecorderInterrupted: a canceled CI job ends Cypress and cancels the run,
// within the time CI services leave before they kill; Ctrl-C twice, as npm
// sends it, is one.
func TestRecorderInterrupted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signals []syscall.Signal
		code    int
		leave   bool
	}{
		"SIGTERM":           {signals: []syscall.Signal{syscall.SIGTERM}, code: 143},
		"Ctrl-C":            {signals: []syscall.Signal{syscall.SIGINT, syscall.SIGINT}, code: 130},
		"SIGHUP":            {signals: []syscall.Signal{syscall.SIGHUP}, code: 129},
		"SIGTERM, leave it": {signals: []syscall.Signal{syscall.SIGTERM}, code: 143, leave: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, r := newServer(t), testkit.NewReceiver(t)
			key := s.project("shop", nil)
			s.endpoint(r, "shop", "/group", "group")
			p := newCypress(t, usual)
			p.only(t, "z.cy.js")
			pid := p.addPid(t, "b_never_ends.cy.js")
			p.write(t, "cypress/e2e/a.cy.js", "it('passes', () => {})\n")
			args := []string{"--ci-build-id", "b", "--parallel"}
			if c.leave {
				args = append(args, "--on-interrupt", "leave")
			}
			m := p.record(t, s.url, key, args...)
			running := pid()
			r.Wait(t, 30*time.Second, has("/group RUN_START 1"))
			for _, signal := range c.signals {
				if err := m.cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
			}
			if !c.leave {
				r.Wait(t, 5*time.Second, has("/group RUN_CANCELED 1"))
			}
			code, out := m.wait(t)
			if code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, out)
			}
			eventually(t, 30*time.Second, "Cypress has ended", gone(running))
			if c.leave {
				if run := s.theRun(); run.CompletionState != "IN_PROGRESS" {
					t.Errorf("the run is %s", run.CompletionState)
				}
				// Another machine takes over what is left.
				other := p.record(t, s.url, key, "--ci-build-id", "b", "--parallel")
				if code, out := other.wait(t); code != 0 || !strings.Contains(out, "Running:  z.cy.js") {
					t.Errorf("another machine: exit code %d\n%s", code, out)
				}
				return
			}
			exactly(t, r, "/group RUN_START 1", "/group RUN_CANCELED 1")
			run := s.theRun()
			if run.tests() != (counts{Overall: 1, Passes: 1}) {
				t.Errorf("what ran before is lost: %+v", run.tests())
			}
			if run.Cancellation == nil || !strings.Contains(run.Cancellation.Reason, "interrupted") {
				t.Errorf("the reason is not told: %+v", run.Cancellation)
			}
		})
	}
}

// TestRecorderKilled: a run does not time out while the recorder lives, however long a spec takes. Afterwards it
// times out, and not early. Cypress ends, too.
func TestRecorderKilled(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second
	s, r := newServer(t), testkit.NewReceiver(t)
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	// Between the two, to know when the recorder was heard last.
	proxy := httputil.NewSingleHostReverseProxy(target)
	var heard atomic.Int64
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard.Store(time.Now().UnixNano())
		proxy.ServeHTTP(w, r)
	}))
	defer between.Close()
	key := s.project("shop", map[string]any{"inactivityTimeoutSeconds": timeout.Seconds()})
	s.endpoint(r, "shop", "/group", "group")
	p := newCypress(t, usual)
	p.only(t)
	pid := p.addPid(t, "a.cy.js")
	m := p.record(t, between.URL, key, "--ci-build-id", "b")
	running := pid()
	began := time.Now()
	eventually(t, time.Minute, "more than the timeout has passed", func() bool { return time.Since(began) > timeout*3/2 })
	if run := s.theRun(); run.CompletionState != "IN_PROGRESS" {
		t.Fatalf("while the spec runs, the run is %s", run.CompletionState)
	}
	if err := m.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Wait(t, 30*time.Second, has("/group RUN_TIMEOUT 1"))
	if after := time.Since(time.Unix(0, heard.Load())); after < timeout {
		t.Errorf("timed out %s after it was heard, with a timeout of %s", after, timeout)
	}
	eventually(t, 30*time.Second, "Cypress has ended", gone(running))
	exactly(t, r, "/group RUN_START 1", "/group RUN_TIMEOUT 1")
}

// TestRecorderAsleep: a machine that sent no reports, because it was suspended or disconnected, still runs its other
// specs, and their results are shown.
func TestRecorderAsleep(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", map[string]any{"inactivityTimeoutSeconds": 3})
	s.endpoint(r, "shop", "/group", "group")
	p := newCypress(t, usual)
	p.only(t, "b.cy.js", "c.cy.js")
	g := addGate(t, p.dir, "a_gate.cy.js")
	m := p.record(t, s.url, key, "--ci-build-id", "b")
	g.waitReached(t)
	if err := m.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.Wait(t, 30*time.Second, has("/group RUN_TIMEOUT 1"))
	if err := m.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	g.letThrough(t)
	code, out := m.wait(t)
	if code != 0 || strings.Count(out, "Running:") != 3 || !strings.Contains(out, "Run timed out") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if run := s.theRun(); run.CompletionState != "TIMEOUT" || run.tests() != (counts{Overall: 3, Passes: 3}) {
		t.Errorf("the REST API says %+v", run)
	}
	exactly(t, r, "/group RUN_START 1", "/group RUN_TIMEOUT 1")
}

// TestRecorderServerAwayForAWhile: nothing is lost, and nothing runs twice.
func TestRecorderServerAwayForAWhile(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", map[string]any{"completionDelaySeconds": 0})
	s.endpoint(r, "shop", "/group", "group")
	p := newCypress(t, usual)
	p.only(t, "b.cy.js", "c.cy.js")
	g := addGate(t, p.dir, "a_gate.cy.js")
	m := p.record(t, s.url, key, "--ci-build-id", "b")
	g.waitReached(t)
	s.kill() // without a last report
	g.letThrough(t)
	eventually(t, 60*time.Second, "the recorder notices", func() bool { return strings.Contains(m.stderr.String(), "Trying again") })
	s.start()
	code, out := m.wait(t)
	if code != 0 || !strings.Contains(out, "responds again") || strings.Contains(out, "NOT RECORDED") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	for _, spec := range []string{"a_gate", "b", "c"} {
		if n := strings.Count(out, "Running:  "+spec+".cy.js"); n != 1 {
			t.Errorf("%s ran %d times", spec, n)
		}
	}
	got := r.Wait(t, 30*time.Second, has("/group RUN_FINISH 1"))
	exactly(t, r, "/group RUN_START 1", "/group RUN_FINISH 1")
	if q := decode(t, got[len(got)-1]); q.counts != (counts{Overall: 3, Passes: 3}) {
		t.Errorf("payload %+v", q)
	}
}

// TestRecorderServerAwayForGood: the specs still run, the exit code is right, and uploading the file later makes the
// same run and webhooks.
func TestRecorderServerAwayForGood(t *testing.T) {
	t.Parallel()
	upload := func(t *testing.T, p cypressProject, url, key, file string) (int, string) {
		m := p.command(t, []string{"RUNBELL_RECORD_KEY=" + key}, "cypress", "upload", "--server-wait", "1s", "--url", url, file)
		return m.wait(t)
	}
	t.Run("from the beginning", func(t *testing.T) {
		t.Parallel()
		s, r := newServer(t), testkit.NewReceiver(t)
		key := s.project("shop", map[string]any{"completionDelaySeconds": 0, "publicRunLinks": true})
		s.endpoint(r, "shop", "/group", "group")
		s.endpoint(r, "shop", "/run", "run")
		s.stop()
		p := newCypress(t, usual)
		file := filepath.Join(t.TempDir(), "left.jsonl")
		args := []string{"--ci-build-id", "build-1", "--tag", "smoke,nightly", "--batch", "10", "--server-wait", "100ms", "--results-file", file}
		if code, out := p.record(t, s.url, key, append(args, "--require-server")...).wait(t); code != 1 || strings.Contains(out, "Running") {
			t.Errorf("--require-server: exit code %d\n%s", code, out)
		}
		code, out := p.record(t, s.url, key, args...).wait(t)
		if code != 3 || !strings.Contains(out, "NOT RECORDED") || !strings.Contains(out, "runbell cypress upload "+file) {
			t.Errorf("exit code %d\n%s", code, out)
		}
		if code, out := upload(t, p, s.url, key, file); code != 1 || !strings.Contains(out, "cannot be reached") {
			t.Errorf("upload to nobody: exit code %d\n%s", code, out)
		}
		s.start()
		left, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{key, projectSecret} {
			if bytes.Contains(left, []byte(secret)) {
				t.Errorf("the file holds the secret %s", secret)
			}
		}
		if code, out := upload(t, p, s.url, "wrong", file); code != 1 || !strings.Contains(out, "key") {
			t.Errorf("upload with a wrong key: exit code %d\n%s", code, out)
		}
		if code, out := upload(t, p, s.url, key, file); code != 0 || !strings.Contains(out, "5 specs") {
			t.Errorf("upload: exit code %d\n%s", code, out)
		}
		got := r.Wait(t, 30*time.Second, has("/group RUN_FINISH 1", "/run RUN_FINISH 1"))
		exactly(t, r, "/group RUN_START 1", "/group RUN_FINISH 1", "/run RUN_START 1", "/run RUN_FINISH 1")
		goldenPayloads(t, "testdata/recorder.golden", got) // as if the server had been there
		p.checkErrors(t, s, s.theRun())
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("the file is still there: %v", err)
		}
	})

	// What was claimed and what was not arrive, even after the group timed out.
	t.Run("in the middle", func(t *testing.T) {
		t.Parallel()
		s, r := newServer(t), testkit.NewReceiver(t)
		key := s.project("shop", map[string]any{"inactivityTimeoutSeconds": 3})
		s.endpoint(r, "shop", "/group", "group")
		p := newCypress(t, usual)
		p.only(t, "b.cy.js", "c.cy.js")
		g := addGate(t, p.dir, "a_gate.cy.js")
		m := p.record(t, s.url, key, "--ci-build-id", "b", "--server-wait", "100ms")
		g.waitReached(t)
		s.kill()
		g.letThrough(t)
		code, out := m.wait(t)
		if code != 0 || strings.Count(out, "Running:") != 3 {
			t.Errorf("exit code %d\n%s", code, out)
		}
		files, err := filepath.Glob(filepath.Join(p.temp(), "runbell-results-*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("files left: %q, %v", files, err)
		}
		s.start()
		r.Wait(t, 30*time.Second, has("/group RUN_TIMEOUT 1"))
		if code, out := upload(t, p, s.url, key, files[0]); code != 0 {
			t.Errorf("upload: exit code %d\n%s", code, out)
		}
		if run := s.theRun(); run.CompletionState != "TIMEOUT" || run.tests() != (counts{Overall: 3, Passes: 3}) {
			t.Errorf("the REST API says %+v", run)
		}
		exactly(t, r, "/group RUN_START 1", "/group RUN_TIMEOUT 1")
	})
}

// TestRecorderAtOtherServers: refusals end the job and say what to do. All other responses are like a server that is
// down.
func TestRecorderAtOtherServers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		code   int
		says   string
		runs   bool
	}{
		"401":           {401, `{"message":"The record key is wrong.","errors":["Look for it."]}`, 1, "Look for it", false},
		"422":           {422, `{"message":"The run of build b is over.","errors":["Use a new --ci-build-id."]}`, 1, "Use a new --ci-build-id", false},
		"redirected":    {301, ``, 1, "https://elsewhere.test", false},
		"500":           {500, `{"message":"x"}`, 0, "NOT RECORDED", true},
		"a login page":  {200, `<html>Sign in</html>`, 0, "NOT RECORDED", true},
		"half a answer": {0, ``, 0, "NOT RECORDED", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "https://elsewhere.test")
				if c.status == 0 {
					w.Header().Set("Content-Length", "100")
					_, _ = w.Write([]byte(`{"runId":`))
					return
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer stub.Close()
			p := newCypress(t, usual)
			p.only(t, "a.cy.js")
			code, out := p.record(t, stub.URL, "rk_secret", "--ci-build-id", "b", "--server-wait", "50ms").wait(t)
			if code != c.code || !strings.Contains(out, c.says) || strings.Contains(out, "Running:") != c.runs {
				t.Errorf("exit code %d, want %d and %q\n%s", code, c.code, c.says, out)
			}
		})
	}
}

// TestRecorderFailFast: the recorder's limit wins over the project's; what is
// canceled so starts no other spec, and is not green.
func TestRecorderFailFast(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for name, c := range map[string]struct {
		args  []string
		code  int
		says  string
		state string
	}{
		"one":         {[]string{"--auto-cancel-after-failures", "1"}, 1, "fail fast", "CANCELED"},
		"never":       {[]string{"--auto-cancel-after-failures", "false"}, 3, "Spec 5 of 5", "COMPLETE"},
		"the project": {nil, 2, "fail fast", "CANCELED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A project of its own: what one has recorded decides about the order of another's specs.
			project := "shop-" + strconv.Itoa(c.code)
			key := s.project(project, map[string]any{"failFast": 2})
			p := newCypress(t, usual)
			code, out := p.record(t, s.url, key, append(c.args, "--ci-build-id", name, "--project", project)...).wait(t)
			if code < c.code || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, out)
			}
			var list []runInfo
			s.call("GET", "/projects/"+project+"/runs", nil, &list)
			if len(list) != 1 || list[0].CompletionState != c.state {
				t.Errorf("the runs are %+v, want one that is %s", list, c.state)
			}
		})
	}
}

// TestRecorderNobodyReads: closed output does not end the recorder.
func TestRecorderNobodyReads(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	key := s.project("shop", nil)
	p := newCypress(t, usual)
	p.only(t, "a.cy.js", "b.cy.js")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(binary, "cypress", "run", "--ci-build-id", "b")
	c.Dir, c.Env = p.dir, slices.Concat(p.env, []string{"RUNBELL_URL=" + s.url, "RUNBELL_RECORD_KEY=" + key, "RUNBELL_PROJECT=shop"})
	c.Stdout, c.Stderr = w, w
	m := launch(t, c, func() string { return "(nobody reads it)" })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if code, _ := m.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if run := s.theRun(); run.CompletionState != "COMPLETE" || run.tests() != (counts{Overall: 2, Passes: 2}) {
		t.Errorf("the REST API says %+v", run)
	}
}
