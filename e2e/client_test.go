package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"runbell/internal/testkit"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const projectSecret = "s3cret-do-not-store"

type payload struct {
	Event, RunURL, BuildID, GroupID string
	counts
}

type counts struct {
	Overall, Passes, Failures, Pending, Skipped, Retries, Flaky int
}

func decode(t testing.TB, w testkit.Received) payload {
	t.Helper()
	var p payload
	if err := json.Unmarshal(w.Body, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// count says how many different webhooks of an event arrived at a path.
func count(list []testkit.Received, path, event string) int {
	ids := map[string]bool{}
	for _, w := range list {
		if w.Path == path && bytes.Contains(w.Body, []byte(`"event":"`+event+`"`)) {
			ids[w.ID] = true
		}
	}
	return len(ids)
}

// has waits for numbers of events, such as "/group RUN_START 1".
func has(wants ...string) func([]testkit.Received) bool {
	return func(list []testkit.Received) bool {
		for _, want := range wants {
			var path, event string
			var n int
			if _, err := fmt.Sscan(want, &path, &event, &n); err != nil {
				panic(err)
			}
			if count(list, path, event) < n {
				return false
			}
		}
		return true
	}
}

// exactly fails unless just these events arrived, and no others.
func exactly(t *testing.T, r *testkit.Receiver, wants ...string) {
	t.Helper()
	total := 0
	list := r.All()
	for _, want := range wants {
		var path, event string
		var n int
		if _, err := fmt.Sscan(want, &path, &event, &n); err != nil {
			t.Fatal(err)
		}
		if got := count(list, path, event); got != n {
			t.Errorf("%d of %s at %s, want %d", got, event, path, n)
		}
		total += n
	}
	ids := map[string]bool{}
	for _, w := range list {
		ids[w.Path+" "+w.ID] = true
	}
	if len(ids) != total {
		t.Errorf("%d different webhooks, want %d", len(ids), total)
	}
}

// TestRealClient records the whole project with one machine: what passes,
// fails, flakes, is skipped, has a broken hook, or does not compile.
func TestRealClient(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{"single": nil, "batched": {"RUNBELL_ENFORCE_BATCHED=1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, r := newServer(t), testkit.NewReceiver(t)
			key := s.project("shop", map[string]any{"completionDelaySeconds": 0, "publicRunLinks": true})
			s.endpoint(r, "shop", "/group", "group")
			s.endpoint(r, "shop", "/run", "run")
			m := record(t, s, checkout(t), "shop", key, env, "--ci-build-id", "build-1", "--parallel", "--tag", "smoke,nightly")
			code, out := m.wait(t)
			if code != 4 { // three failed tests and one skipped
				t.Errorf("exit code %d, want 4\n%s", code, out)
			}
			got := r.Wait(t, 10*time.Second, has("/group RUN_FINISH 1", "/run RUN_FINISH 1"))
			exactly(t, r, "/group RUN_START 1", "/group RUN_FINISH 1", "/run RUN_START 1", "/run RUN_FINISH 1")
			goldenPayloads(t, "testdata/real-client.golden", got)
			verifyWithNode(t, s, got)

			p := decode(t, got[len(got)-1])
			if !strings.Contains(out, p.RunURL) {
				t.Errorf("the client did not print the runUrl %s", p.RunURL)
			}
			page := get(t, p.RunURL)
			for _, want := range []string{"build-1", "b_fail.cy.js", "e_compile_error.cy.js", "fails because of the hook", "the hook broke"} {
				if !strings.Contains(page, want) {
					t.Errorf("the page of the run does not show %q", want)
				}
			}
			var api json.RawMessage
			s.call("GET", "/runs/"+filepath.Base(p.RunURL), nil, &api)
			var run struct {
				Status, CompletionState string
				Groups                  []struct{ Tests counts }
				Specs                   []struct{ Results json.RawMessage }
			}
			if err := json.Unmarshal(api, &run); err != nil {
				t.Fatal(err)
			}
			if run.Status != "FAILED" || run.CompletionState != "COMPLETE" || len(run.Specs) != 5 {
				t.Errorf("the REST API says %+v", run)
			}
			if len(run.Groups) != 1 || run.Groups[0].Tests != p.counts {
				t.Errorf("the REST API counts %+v, the webhook %+v", run.Groups, p.counts)
			}
			s.stop()
			for what, text := range map[string]string{"page": page, "API": string(api), "log": s.log.String(), "database": readAll(t, s.dir)} {
				if strings.Contains(text, projectSecret) {
					t.Errorf("the %s holds the project's secret", what)
				}
				if strings.Contains(text, key) {
					t.Errorf("the %s holds the record key", what)
				}
			}
		})
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v", url, resp.Status, err)
	}
	return string(b)
}

// readAll is every byte of every file below a directory.
func readAll(t *testing.T, dir string) string {
	t.Helper()
	var all bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil || all.Len() == 0 {
		t.Fatalf("read the files in %s: %d bytes, %v", dir, all.Len(), err)
	}
	return all.String()
}

// goldenPayloads holds payloads against a file, without what differs from one
// run to the next.
func goldenPayloads(t *testing.T, path string, list []testkit.Received) {
	t.Helper()
	var lines []string
	for _, w := range list {
		p := decode(t, w)
		var commit struct{ Commit struct{ SHA string } }
		if err := json.Unmarshal(w.Body, &commit); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, w.Path+" "+strings.NewReplacer(p.RunURL, "RUN-URL", commit.Commit.SHA, "SHA").Replace(string(w.Body)))
	}
	// Two endpoints: their webhooks may arrive in either order.
	slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0]) })
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("payloads differ; if the new ones are right, run with -update\ngot:\n%s\nwant:\n%s", got, want)
	}
}

// verifyWithNode has the npm packages accept every webhook.
func verifyWithNode(t *testing.T, s *server, list []testkit.Received) {
	t.Helper()
	var hooks []struct{ HookID, URL string }
	s.call("GET", "/webhooks?projectId=shop", nil, &hooks)
	secrets := map[string]string{}
	for _, h := range hooks {
		var secret struct{ Secret string }
		s.call("GET", "/webhooks/"+h.HookID+"/secret", nil, &secret)
		secrets[h.URL[strings.LastIndex(h.URL, "/"):]] = secret.Secret
	}
	var letters []letter
	for _, w := range list {
		letters = append(letters, newLetter(w, secrets[w.Path]))
	}
	askNode(t, letters, len(letters))
}

// gate is a spec that waits until the others have arrived.
type gate struct{ reached, open string }

// addGate adds a spec to a checkout that says when it runs, and then runs until
// the gate opens. Specs run in the order of their names.
func addGate(t *testing.T, dir, name string) gate {
	t.Helper()
	place := t.TempDir()
	g := gate{reached: filepath.Join(place, "reached"), open: filepath.Join(place, "open")}
	addSpec(t, dir, name, g.reached, g.open)
	return g
}

// addSpec adds a spec that makes one file and then waits for another.
func addSpec(t *testing.T, dir, name, makes, waitsFor string) {
	t.Helper()
	text := fmt.Sprintf(`const { existsSync, writeFileSync } = require('fs')

it('goes through the gate', async () => {
  writeFileSync(%q, '')
  while (!existsSync(%q)) await new Promise((resolve) => setTimeout(resolve, 10))
})
`, makes, waitsFor)
	if err := os.WriteFile(filepath.Join(dir, "cypress/e2e", name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (g gate) waitReached(t *testing.T) {
	t.Helper()
	eventually(t, 60*time.Second, "the spec with the gate runs", func() bool {
		_, err := os.Stat(g.reached)
		return err == nil
	})
}

func (g gate) letThrough(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(g.open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTwoMachinesShareAGroup: every spec runs once, the group starts and ends
// once.
func TestTwoMachinesShareAGroup(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", nil)
	s.endpoint(r, "shop", "/group", "group")
	dir := checkout(t)
	// Each waits for the other to run, so two machines are at work at once.
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	addSpec(t, dir, "a_meet_1.cy.js", one, two)
	addSpec(t, dir, "a_meet_2.cy.js", two, one)
	a := record(t, s, dir, "shop", key, nil, "--ci-build-id", "b", "--parallel")
	b := record(t, s, dir, "shop", key, nil, "--ci-build-id", "b", "--parallel")
	codeA, outA := a.wait(t)
	codeB, outB := b.wait(t)
	got := r.Wait(t, 10*time.Second, has("/group RUN_FINISH 1"))
	exactly(t, r, "/group RUN_START 1", "/group RUN_FINISH 1")
	if codeA+codeB != 4 {
		t.Errorf("exit codes %d and %d, want 4 in sum", codeA, codeB)
	}
	p := decode(t, got[len(got)-1])
	if want := (counts{Overall: 13, Passes: 8, Failures: 3, Pending: 1, Skipped: 1, Retries: 3, Flaky: 1}); p.counts != want || p.GroupID != "" {
		t.Errorf("payload %+v, want %+v", p, want)
	}
	for _, spec := range []string{"a_meet_1", "a_meet_2", "a_pass", "b_fail", "c_flaky", "d_skips", "e_compile_error"} {
		if n := strings.Count(outA+outB, "Running: cypress/e2e/"+spec+".cy.js"); n != 1 {
			t.Errorf("%s ran %d times", spec, n)
		}
	}
}

// TestTwoGroups: each has its own events with its groupId, the run has one pair.
func TestTwoGroups(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", map[string]any{"completionDelaySeconds": 1})
	s.endpoint(r, "shop", "/group", "group")
	s.endpoint(r, "shop", "/run", "run")
	dir := checkout(t)
	a := record(t, s, dir, "shop", key, nil, "--ci-build-id", "b", "--group", "one", "--parallel", "--spec", "cypress/e2e/a_pass.cy.js")
	b := record(t, s, dir, "shop", key, nil, "--ci-build-id", "b", "--group", "two", "--parallel", "--spec", "cypress/e2e/c_flaky.cy.js")
	for _, m := range []*machine{a, b} {
		if code, out := m.wait(t); code != 0 {
			t.Errorf("exit code %d\n%s", code, out)
		}
	}
	got := r.Wait(t, 20*time.Second, has("/group RUN_FINISH 2", "/run RUN_FINISH 1"))
	exactly(t, r, "/group RUN_START 2", "/group RUN_FINISH 2", "/run RUN_START 1", "/run RUN_FINISH 1")
	for _, w := range got {
		p := decode(t, w)
		if w.Path == "/run" && p.GroupID != "" || w.Path == "/group" && p.GroupID != "one" && p.GroupID != "two" {
			t.Errorf("%s has groupId %q", w.Path, p.GroupID)
		}
		if w.Path == "/run" && p.Event == "RUN_FINISH" && (p.Overall != 4 || p.Flaky != 1) {
			t.Errorf("the run's counts are not the sum of its groups': %+v", p)
		}
	}
}

// TestTheSameBuildAgain: the client is refused, so that a failed pipeline that
// is run again does not turn green.
func TestTheSameBuildAgain(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", nil)
	s.endpoint(r, "shop", "/group", "group")
	dir := checkout(t)
	args := []string{"--ci-build-id", "b", "--parallel", "--spec", "cypress/e2e/b_fail.cy.js"}
	if code, out := record(t, s, dir, "shop", key, nil, args...).wait(t); code != 1 {
		t.Errorf("first: exit code %d\n%s", code, out)
	}
	r.Wait(t, 10*time.Second, has("/group RUN_FINISH 1"))
	code, out := record(t, s, dir, "shop", key, nil, args...).wait(t)
	if code == 0 || !strings.Contains(out, "is over") || !strings.Contains(out, "--ci-build-id") {
		t.Errorf("again: exit code %d\n%s", code, out)
	}
	exactly(t, r, "/group RUN_START 1", "/group RUN_FINISH 1")
}

// TestARestartInTheMiddle: the server is down when a spec ends, or stops just then; the client finishes and nothing
// is lost.
func TestARestartInTheMiddle(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]func(*testing.T, *server, *machine, gate){
		"while a spec runs": func(t *testing.T, s *server, m *machine, g gate) {
			s.stop()
			g.letThrough(t)
			eventually(t, 30*time.Second, "the client is refused", func() bool { return strings.Contains(m.said(), "ECONNREFUSED") })
			s.start()
		},
		// What the client asks for next meets a server that drains its connections,
		// or none.
		"when a spec ends": func(t *testing.T, s *server, _ *machine, g gate) {
			g.letThrough(t)
			s.stop()
			s.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, r := newServer(t), testkit.NewReceiver(t)
			key := s.project("shop", map[string]any{"completionDelaySeconds": 0})
			s.endpoint(r, "shop", "/group", "group")
			s.endpoint(r, "shop", "/run", "run")
			dir := checkout(t)
			g := addGate(t, dir, "a_gate.cy.js")
			m := record(t, s, dir, "shop", key, nil, "--ci-build-id", "b", "--parallel", "--spec", "cypress/e2e/a_*.cy.js")
			g.waitReached(t)
			restart(t, s, m, g)
			code, out := m.wait(t)
			if code != 0 {
				t.Errorf("exit code %d\n%s", code, out)
			}
			for _, spec := range []string{"a_gate", "a_pass"} {
				if n := strings.Count(out, "Running: cypress/e2e/"+spec+".cy.js"); n != 1 {
					t.Errorf("%s ran %d times", spec, n)
				}
			}
			got := r.Wait(t, 20*time.Second, has("/group RUN_FINISH 1", "/run RUN_FINISH 1"))
			exactly(t, r, "/group RUN_START 1", "/group RUN_FINISH 1", "/run RUN_START 1", "/run RUN_FINISH 1")
			if p := decode(t, got[len(got)-1]); p.counts != (counts{Overall: 3, Passes: 3}) {
				t.Errorf("payload %+v", p)
			}
		})
	}
}

// TestAClientThatDies: no more reports arrive, and the run times out, once. Late results are counted, and change
// nothing else.
func TestAClientThatDies(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", map[string]any{"inactivityTimeoutSeconds": 2})
	hook := s.endpoint(r, "shop", "/group", "group")
	dir := checkout(t)
	g := addGate(t, dir, "a_gate.cy.js")
	address, claimed := tapClaims(t, s)
	m := record(t, s, dir, "shop", key, []string{"RUNBELL_URL=" + address}, "--ci-build-id", "b", "--parallel", "--spec", "cypress/e2e/a_*.cy.js")
	g.waitReached(t)
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.wait(t)
	got := r.Wait(t, 20*time.Second, has("/group RUN_TIMEOUT 1"))

	id := filepath.Base(decode(t, got[0]).RunURL)
	var run struct {
		CompletionState string
		Groups          []struct{ Tests counts }
	}
	p := newPlayer(t, key, s)
	for _, instance := range claimed() {
		p.report(instance)
	}
	s.call("GET", "/runs/"+id, nil, &run)
	if run.CompletionState != "TIMEOUT" || run.Groups[0].Tests != (counts{Overall: 2, Passes: 1, Failures: 1}) {
		t.Errorf("after late results: %+v", run)
	}
	// An event is committed with what it tells of: there is none to wait for.
	var deliveries []struct{ Event string }
	s.call("GET", "/webhooks/"+hook+"/deliveries", nil, &deliveries)
	if len(deliveries) != 2 {
		t.Errorf("late results made events: %v", deliveries)
	}
	exactly(t, r, "/group RUN_START 1", "/group RUN_TIMEOUT 1")
}

// TestCanceledMeanwhile: the event leaves at once; the client stops after its
// spec and says why.
func TestCanceledMeanwhile(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	key := s.project("shop", nil)
	s.endpoint(r, "shop", "/group", "group")
	dir := checkout(t)
	g := addGate(t, dir, "a_gate.cy.js")
	m := record(t, s, dir, "shop", key, nil, "--ci-build-id", "b", "--parallel")
	g.waitReached(t)
	got := r.Wait(t, 10*time.Second, has("/group RUN_START 1"))
	id := filepath.Base(decode(t, got[0]).RunURL)
	for range 2 { // the second changes nothing
		s.cancel(id, "a newer commit")
	}
	r.Wait(t, 20*time.Second, has("/group RUN_CANCELED 1")) // while the spec still runs
	g.letThrough(t)
	if _, out := m.wait(t); !strings.Contains(out, "ancelled") || !strings.Contains(out, "a newer commit") || strings.Contains(out, "Running: cypress/e2e/b_fail.cy.js") {
		t.Errorf("the client does not say that the run was canceled, or goes on:\n%s", out)
	}
	// The spec that ran when the run was canceled is still shown. The client may
	// have left before it sent the results.
	var run struct {
		CompletionState string
		Groups          []struct{ Tests counts }
	}
	s.call("GET", "/runs/"+id, nil, &run)
	if run.CompletionState != "CANCELED" || run.Groups[0].Tests.Overall != 1 || run.Groups[0].Tests.Failures != 0 {
		t.Errorf("the REST API says %+v", run)
	}
	exactly(t, r, "/group RUN_START 1", "/group RUN_CANCELED 1")
}

// TestFailFast: the limit of the project, or of the client, ends the run.
func TestFailFast(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings map[string]any
		args     []string
	}{
		"project": {settings: map[string]any{"failFast": 1}},
		"client":  {args: []string{"--auto-cancel-after-failures", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, r := newServer(t), testkit.NewReceiver(t)
			key := s.project("shop", c.settings)
			s.endpoint(r, "shop", "/group", "group")
			_, out := record(t, s, checkout(t), "shop", key, nil, append(c.args, "--ci-build-id", "b", "--parallel")...).wait(t)
			r.Wait(t, 10*time.Second, has("/group RUN_CANCELED 1"))
			exactly(t, r, "/group RUN_START 1", "/group RUN_CANCELED 1")
			if !strings.Contains(out, "fail fast") {
				t.Errorf("the client does not say why:\n%s", out)
			}
			// The second spec fails; the third may have begun before that was known.
			if strings.Contains(out, "Running: cypress/e2e/e_compile_error.cy.js") {
				t.Errorf("the client went on to the end:\n%s", out)
			}
		})
	}
}

// tapClaims is a proxy that notes the instances that a client got: those ids cannot be read elsewhere.
func tapClaims(t *testing.T, s *server) (address string, claimed func() []string) {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var ids []string
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		if !strings.HasSuffix(r.Request.URL.Path, "/instances") {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var answer struct{ InstanceID *string }
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		if answer.InstanceID != nil {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, *answer.InstanceID)
		}
		return nil
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	return front.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(ids)
	}
}
