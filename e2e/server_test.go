package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"runbell/internal/testkit"
)

const apiKey = "e2e-0123456789abcdef"

// server is a 'runbell serve' on a port and a data directory that outlast it.
type server struct {
	*process

	t    testing.TB
	dir  string
	port int
	log  *output
	env  map[string]string
}

// newServer starts a server. env adds to its environment.
func newServer(t testing.TB, env map[string]string) *server {
	t.Helper()
	s := prepareServer(t, env)
	s.start()
	return s
}

// prepareServer is a server that has not been started yet.
func prepareServer(t testing.TB, env map[string]string) *server {
	t.Helper()
	return &server{t: t, dir: filepath.Join(t.TempDir(), "data"), port: freePort(t), log: newOutput(t, "the server"), env: env}
}

func (s *server) url() string { return fmt.Sprintf("http://127.0.0.1:%d", s.port) }

func (s *server) database() string { return filepath.Join(s.dir, "runbell.db") }

// launch starts the process and does not wait for it.
func (s *server) launch() {
	s.t.Helper()
	env := []string{
		"HOME=" + s.dir,
		"RUNBELL_ADDR=" + fmt.Sprintf("127.0.0.1:%d", s.port),
		"RUNBELL_PUBLIC_URL=" + s.url(),
		"RUNBELL_DATA_DIR=" + s.dir,
		"RUNBELL_API_KEY=" + apiKey,
		"RUNBELL_WEBHOOK_ALLOW=127.0.0.0/8",
	}
	for name, value := range s.env {
		env = append(env, name+"="+value)
	}
	s.process = start(s.t, "the server", s.log, env, binary, "serve")
}

// start starts the server and waits until it is ready.
func (s *server) start() {
	s.t.Helper()
	s.launch()
	// A connection of its own each time: one that was open when the server died is of no use.
	probe := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	eventually(s.t, "the server is ready", 15*time.Second, func() bool {
		if s.ended() {
			s.t.Fatalf("the server ended with %d instead of serving", s.cmd.ProcessState.ExitCode())
		}
		resp, err := probe.Get(s.url() + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// stop ends the server as an init system does, and expects that it ends well.
func (s *server) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if code := s.wait(20 * time.Second); code != 0 {
		s.t.Fatalf("the server ended with %d", code)
	}
}

// kill ends the server as a crash does.
func (s *server) kill() {
	s.t.Helper()
	s.signal(syscall.SIGKILL)
	s.wait(10 * time.Second)
}

// get is an answer to a GET without credentials.
func (s *server) get(path string) (int, string) {
	s.t.Helper()
	resp, err := http.Get(s.url() + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// try calls the REST API and reads the data of the answer into out.
func (s *server) try(method, path string, in, out any) (more bool, err error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return false, err
		}
	}
	req, err := http.NewRequest(method, s.url()+path, &body)
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	if resp.StatusCode/100 != 2 {
		return false, fmt.Errorf("%s %s was answered with %d: %s", method, path, resp.StatusCode, text)
	}
	answer := struct {
		Data any  `json:"data"`
		More bool `json:"has_more"`
	}{Data: out}
	return answer.More, json.Unmarshal(text, &answer)
}

// call is try for calls that must succeed.
func (s *server) call(method, path string, in, out any) {
	s.t.Helper()
	if _, err := s.try(method, path, in, out); err != nil {
		s.t.Fatal(err)
	}
}

// list reads all pages of a list.
func list[T any](s *server, path string, cursor func(T) string) []T {
	s.t.Helper()
	var all []T
	query := "?limit=100"
	for {
		var page []T
		more, err := s.try("GET", path+query, nil, &page)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, page...)
		if !more || len(page) == 0 {
			return all
		}
		query = "?limit=100&starting_after=" + url.QueryEscape(cursor(page[len(page)-1]))
	}
}

// project is a project of a server and what is known of it.
type project struct {
	*server

	ID        string `json:"projectId"`
	RecordKey string `json:"recordKey"`
}

// newProject makes a project; settings are those of the REST API.
func (s *server) newProject(id string, settings map[string]any) project {
	s.t.Helper()
	in := map[string]any{"projectId": id}
	for name, value := range settings {
		in[name] = value
	}
	p := project{server: s}
	s.call("POST", "/v1/projects", in, &p)
	return p
}

// hook is a webhook of a project.
type hook struct {
	*testkit.Receiver

	ID     string
	Secret string
}

// newHook makes a webhook of a scope with a receiver of its own.
func (p project) newHook(scope string) hook {
	p.t.Helper()
	r := testkit.NewReceiver(p.t)
	h := p.hookTo(scope, r.URL())
	h.Receiver = r
	r.Expect(h.Secret)
	return h
}

// hookTo makes a webhook that calls a URL.
func (p project) hookTo(scope, target string) hook {
	p.t.Helper()
	var made struct {
		HookID string `json:"hookId"`
	}
	p.call("POST", "/v1/webhooks?projectId="+p.ID, map[string]any{"url": target, "scope": scope}, &made)
	var secret struct {
		Secret string `json:"secret"`
	}
	p.call("GET", "/v1/webhooks/"+made.HookID+"/secret", nil, &secret)
	return hook{ID: made.HookID, Secret: secret.Secret}
}

// delivery is a delivery as the REST API shows it.
type delivery struct {
	DeliveryID string  `json:"deliveryId"`
	EventID    string  `json:"eventId"`
	Event      string  `json:"event"`
	RunID      string  `json:"runId"`
	GroupID    *string `json:"groupId"`
	Sequence   int64   `json:"sequence"`
	Status     string  `json:"status"`
	Attempts   int     `json:"attemptCount"`
	Cursor     string  `json:"cursor"`
}

// deliveries lists all deliveries of a webhook. An event and its deliveries are stored with what they tell of, so what is
// not in this list once that has been answered does not exist.
func (s *server) deliveries(h hook) []delivery {
	s.t.Helper()
	return list(s, "/v1/webhooks/"+h.ID+"/deliveries", func(d delivery) string { return d.Cursor })
}

// testRun is a run as the REST API shows it.
type testRun struct {
	RunID           string `json:"runId"`
	CompletionState string `json:"completionState"`
	Status          string `json:"status"`
	Cancellation    *struct {
		Actor  string `json:"actor"`
		Reason string `json:"reason"`
	} `json:"cancellation"`
	Groups []struct {
		GroupID   string `json:"groupId"`
		Instances struct {
			Overall  int `json:"overall"`
			Claimed  int `json:"claimed"`
			Complete int `json:"complete"`
		} `json:"instances"`
		Tests testkit.Counts `json:"tests"`
	} `json:"groups"`
	Meta struct {
		CIBuildID string `json:"ciBuildId"`
	} `json:"meta"`
	Specs []struct {
		Spec       string  `json:"spec"`
		GroupID    string  `json:"groupId"`
		InstanceID *string `json:"instanceId"`
		MachineID  *string `json:"machineId"`
		Completed  *string `json:"completedAt"`
	} `json:"specs"`
	Cursor string `json:"cursor"`
}

// build is the run of a ciBuildId.
func (p project) build(ciBuildID string) testRun {
	p.t.Helper()
	var r testRun
	p.call("GET", "/v1/runs/find?projectId="+p.ID+"&ciBuildId="+url.QueryEscape(ciBuildID), nil, &r)
	return r
}

// holdsNothing fails the test if a secret is in a file of the data directory.
func (s *server) holdsNothing(secrets ...string) {
	s.t.Helper()
	files, err := os.ReadDir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	looked := 0
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(s.dir, f.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		looked += len(content)
		for _, secret := range secrets {
			if bytes.Contains(content, []byte(secret)) {
				s.t.Errorf("%s has %q in it", f.Name(), secret)
			}
		}
	}
	if looked == 0 {
		s.t.Errorf("there is nothing in %s to look at", s.dir)
	}
}
