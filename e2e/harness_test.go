// Package e2e drives the built binary from outside: with the real reporter, a
// real receiver, and signals.
package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"runbell/internal/client"
	"runbell/internal/testkit"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "runbell-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		binary = filepath.Join(dir, "runbell")
		build := exec.Command("go", "build", "-o", binary, "../cmd/runbell")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// looked is done once per run of the tests.
var looked sync.Once

// lookAtSources opens what the tests run in other processes. The go command sees
// only what this one opens: without this it would answer from its cache although
// the program under test has changed. It looks while tests run, so not in
// TestMain.
func lookAtSources(t *testing.T) {
	looked.Do(func() {
		for _, root := range []string{"../go.mod", "../go.sum", "../documents.go", "../CHANGELOG.md", "../docs", "../cmd", "../internal", "client", "recorder", "currents"} {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Name() == "node_modules" {
					return filepath.SkipDir // package-lock.json stands for it
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

const apiKey = "an-api-key-for-the-tests"

// transcript is what a process prints, readable while it still does.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// server is 'runbell serve' in a process of its own.
type server struct {
	t    *testing.T
	url  string
	dir  string
	env  []string
	via  []string // a command that runs the server, if any
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of the process, once done
	log  transcript
}

// newServer starts a server on a free port with a data directory of its own.
func newServer(t *testing.T, env ...string) *server {
	t.Helper()
	s := launchServer(t, env...)
	s.awaitReady()
	return s
}

func launchServer(t *testing.T, env ...string) *server {
	t.Helper()
	lookAtSources(t)
	addr := freeAddr(t)
	dir := t.TempDir()
	s := &server{t: t, url: "http://" + addr, dir: filepath.Join(dir, "data"), env: append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "RUNBELL_ADDR=" + addr, "RUNBELL_PUBLIC_URL=http://" + addr, "RUNBELL_DATA_DIR=" + filepath.Join(dir, "data"),
		"RUNBELL_API_KEY=" + apiKey, "RUNBELL_WEBHOOK_ALLOW=127.0.0.0/8", "RUNBELL_LOG_LEVEL=debug"}, env...)}
	s.launch()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log.String())
		}
	})
	return s
}

// newNodes starts servers that share a PostgreSQL database, all at once.
func newNodes(t *testing.T, databaseURL string, n int, env ...string) (nodes []*server) {
	t.Helper()
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for range n {
		nodes = append(nodes, launchServer(t, append([]string{"RUNBELL_DATABASE_URL=" + databaseURL, "RUNBELL_SECRET_KEY=" + key}, env...)...))
	}
	for _, s := range nodes {
		s.awaitReady()
	}
	return nodes
}

// dieWithTest ends a process with the test that started it, even where the test
// has no time for that: when it is killed.
func dieWithTest() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// launch starts the process.
func (s *server) launch() {
	s.t.Helper()
	args := append(slices.Clone(s.via), binary, "serve")
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = s.env, &s.log, &s.log
	s.cmd.SysProcAttr = dieWithTest()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	go func() {
		s.err = s.cmd.Wait()
		close(done)
	}()
}

// start starts the process and waits until it is ready.
func (s *server) start() {
	s.t.Helper()
	s.launch()
	s.awaitReady()
}

// awaitReady waits until the process, which was launched, is ready.
func (s *server) awaitReady() {
	s.t.Helper()
	done := s.done
	eventually(s.t, 20*time.Second, "the server answers", func() bool {
		select {
		case <-done:
			s.t.Fatalf("the server ended: %v\n%s", s.err, s.log.String())
		default:
		}
		resp, err := http.Get(s.url + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// kill is the end that cannot be handled.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// stop asks the server to end; it must do so in order.
func (s *server) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.done:
		if s.err != nil {
			s.t.Errorf("the server ended with %v", s.err)
		}
	case <-time.After(35 * time.Second):
		s.t.Fatal("the server did not end within 35 s of SIGTERM")
	}
}

// eventually asks until the answer is yes.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// call uses the REST API and decodes the data of its answer.
func (s *server) call(method, path string, body, into any) {
	s.t.Helper()
	if err := s.try(method, path, body, into); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) try(method, path string, body, into any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, s.url+"/v1"+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode == http.StatusTooManyRequests && err == nil {
		time.Sleep(time.Duration(seconds) * time.Second) // a long list has many pages
		return s.try(method, path, body, into)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, answer)
	}
	if into == nil {
		return nil
	}
	var envelope struct{ Data json.RawMessage }
	if err := json.Unmarshal(answer, &envelope); err != nil {
		return err
	}
	return json.Unmarshal(envelope.Data, into)
}

// freeAddr is an address that a server can take, leave and take again.
func freeAddr(t testing.TB) string {
	t.Helper()
	port, err := testkit.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", port)
}

// project makes a project and returns its record key.
func (s *server) project(id string, settings map[string]any) string {
	s.t.Helper()
	body := map[string]any{"name": id, "projectId": id}
	for k, v := range settings {
		body[k] = v
	}
	var made struct{ RecordKey string }
	s.call("POST", "/projects", body, &made)
	return made.RecordKey
}

// endpoint makes a webhook that calls a path of the receiver.
func (s *server) endpoint(r *testkit.Receiver, project, path, scope string) (hookID string) {
	s.t.Helper()
	id, secret := s.webhook(project, client.WebhookSettings{URL: new(r.URL + path), Scope: scope})
	r.Expect(path, secret)
	return id
}

// webhook makes a webhook and returns its secret, too.
func (s *server) webhook(project string, settings client.WebhookSettings) (hookID, secret string) {
	s.t.Helper()
	ctx, api := context.Background(), s.api()
	made, err := api.CreateWebhook(ctx, project, settings)
	if err != nil {
		s.t.Fatal(err)
	}
	signing, err := api.WebhookSecret(ctx, made.Value.HookID)
	if err != nil {
		s.t.Fatal(err)
	}
	return made.Value.HookID, signing.Value.Secret
}

// api is the REST API, as a program in Go uses it.
func (s *server) api() *client.Client {
	s.t.Helper()
	api, err := client.New(s.url, apiKey)
	if err != nil {
		s.t.Fatal(err)
	}
	return api
}

// cancel cancels a run.
func (s *server) cancel(runID, reason string) {
	s.t.Helper()
	if _, err := s.api().CancelRun(context.Background(), runID, reason); err != nil {
		s.t.Fatal(err)
	}
}

// machine is one process of a client.
type machine struct {
	cmd  *exec.Cmd
	said func() string // what it has printed
	done chan struct{}
}

// checkout makes a copy of the Cypress project that is a git repository with a
// known commit.
func checkout(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("client/node_modules/cypress-cloud"); err != nil {
		t.Fatal("the real client is not installed: run scripts/setup, which 'make test' does")
	}
	dir := filepath.Join(t.TempDir(), "project")
	if err := os.CopyFS(dir, os.DirFS("client/project")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"remote", "add", "origin", "https://x-access-token:s3cret-do-not-store@github.com/acme/shop.git"},
		{"add", "."}, {"commit", "-q", "-m", "feat: change button colour"},
	} {
		git := exec.Command("git", args...)
		git.Dir = dir
		git.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=Jane Roe", "GIT_AUTHOR_EMAIL=jane@example.test", "GIT_AUTHOR_DATE=2026-11-23T09:00:00Z",
			"GIT_COMMITTER_NAME=Jane Roe", "GIT_COMMITTER_EMAIL=jane@example.test", "GIT_COMMITTER_DATE=2026-11-23T09:00:00Z"}
		if out, err := git.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return dir
}

// record starts the real client.
func record(t *testing.T, s *server, dir, project, key string, env []string, args ...string) *machine {
	t.Helper()
	c := exec.Command("client/record", args...)
	out := &transcript{}
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "NO_COLOR=1",
		"RUNBELL_URL=" + s.url, "RUNBELL_PROJECT=" + project, "RUNBELL_KEY=" + key, "RUNBELL_PROJECT_DIR=" + dir}, env...)
	c.Stdout, c.Stderr = out, out
	return launch(t, c, out.String)
}

// launch starts a process that records; said is what it has printed.
func launch(t *testing.T, c *exec.Cmd, said func() string) *machine {
	t.Helper()
	m := &machine{cmd: c, said: said, done: make(chan struct{})}
	c.SysProcAttr = dieWithTest()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.Wait()
		close(m.done)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-m.done
		if t.Failed() {
			t.Logf("output of %s:\n%s", c.Args[0], m.said())
		}
	})
	return m
}

// wait returns the exit code of the client and what it printed.
func (m *machine) wait(t *testing.T) (int, string) {
	t.Helper()
	return m.waitFor(t, 90*time.Second)
}

// waitFor is wait, with a limit of its own.
func (m *machine) waitFor(t *testing.T, limit time.Duration) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	select {
	case <-m.done:
		return m.cmd.ProcessState.ExitCode(), m.said()
	case <-ctx.Done():
		t.Fatal("the client did not end")
		return 0, ""
	}
}
