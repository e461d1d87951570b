package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// exchange is a request of a real client and what a stub answered. Only the
// requests say something.
type exchange struct {
	Request struct {
		Method string          `json:"method"`
		Path   string          `json:"path"`
		Body   json.RawMessage `json:"body"`
		Size   int             `json:"body_bytes_on_wire"`
	} `json:"request"`
}

func recorded(t *testing.T, file string) []exchange {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var out []exchange
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// replay sends a recorded request with the stub's ids replaced by real ones.
func (s *server) replay(t *testing.T, e exchange, key string, ids map[string]string) response {
	t.Helper()
	path, body := e.Request.Path, string(e.Request.Body)
	for stub, real := range ids {
		path = strings.ReplaceAll(path, stub, real)
		body = strings.ReplaceAll(body, `"`+stub+`"`, `"`+real+`"`)
	}
	if e.Request.Size == 0 {
		return s.fetch(t, e.Request.Method, path, key, nil)
	}
	return s.fetch(t, e.Request.Method, path, key, body)
}

// @currents/mcp, with everything it asked that is served.
func TestReplayOfCurrentsMCP(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		joined := s.finish(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-1"}, run.Passed)
		canceled := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-2", Tags: []string{"smoke"}, Commit: run.Commit{Branch: "main"}})
		s.data(t, "PUT", "/v1/runs/"+canceled.RunID+"/cancel", nil)
		running := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-3", CI: run.CI{Provider: "githubActions",
			Params: map[string]string{"githubRunId": "1", "githubRunAttempt": "1"}}})
		ids := map[string]string{"r-1": joined.RunID, "i-1": s.data(t, "GET", "/v1/runs/"+joined.RunID, nil)["specs"].([]any)[0].(object)["instanceId"].(string)}

		check := map[string]func(any){
			"POST /v1/webhooks": func(data any) {
				ids["h-1"] = data.(object)["hookId"].(string)
				if got := data.(object); got["headers"] != `{"x-secret":"s3"}` || got["label"] != "ci" || got["url"] != "http://127.0.0.1:9/hook" {
					t.Errorf("created %v", got)
				}
			},
			"GET /v1/webhooks":              func(data any) { same(t, data.([]any)[0].(object)["hookId"], ids["h-1"]) },
			"GET /v1/webhooks/h-1":          func(data any) { same(t, data.(object)["hookId"], ids["h-1"]) },
			"PUT /v1/webhooks/h-1":          func(data any) { same(t, data.(object)["hookEvents"], []any{"RUN_FINISH"}) },
			"DELETE /v1/webhooks/h-1":       func(data any) { same(t, data, object{"hookId": ids["h-1"], "projectId": "demo"}) },
			"GET /v1/projects/demo/runs":    func(data any) { same(t, data.([]any)[0].(object)["runId"], canceled.RunID) },
			"GET /v1/runs/r-1":              func(data any) { same(t, data.(object)["status"], "PASSED") },
			"GET /v1/runs/find":             func(data any) { same(t, data.(object)["runId"], joined.RunID) },
			"PUT /v1/runs/r-1/cancel":       func(data any) { same(t, data.(object)["cancelled"], false) },
			"PUT /v1/runs/cancel-ci/github": func(data any) { same(t, data.(object)["runs"].([]any)[0].(object)["runId"], running.RunID) },
			"GET /v1/projects":              func(data any) { same(t, data.([]any)[0].(object)["projectId"], "demo") },
			"GET /v1/instances/i-1":         func(data any) { same(t, data.(object)["instanceId"], ids["i-1"]) },
		}
		for _, e := range recorded(t, "currents-mcp.json") {
			path, _, _ := strings.Cut(e.Request.Path, "?")
			verify, served := check[e.Request.Method+" "+path]
			if !served {
				continue
			}
			delete(check, e.Request.Method+" "+path)
			resp := s.replay(t, e, s.writeKey, ids)
			if resp.status/100 != 2 {
				t.Fatalf("%s %s: %d %s", e.Request.Method, e.Request.Path, resp.status, resp.text)
			}
			answer := parseAnswer(t, resp.text)
			for stub, real := range ids {
				path = strings.ReplaceAll(path, stub, real)
			}
			s.checkForm(t, e.Request.Method, path, resp.status, answer)
			verify(answer["data"])
		}
		if len(check) > 0 {
			t.Errorf("the recording lacks %d requests", len(check))
		}
	})
}

// @currents/mcp resets a run while it runs.
func TestReplayOfReset(t *testing.T) {
	s := sqliteServer(t)
	s.project(t, "demo")
	joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-1"})
	s.claim(t, joined)
	list := recorded(t, "currents-mcp.json")
	n := slices.IndexFunc(list, func(e exchange) bool { return e.Request.Path == "/v1/runs/r-1/reset" })
	resp := s.replay(t, list[n], s.writeKey, map[string]string{"r-1": joined.RunID, "m-1": joined.MachineID})
	if resp.status != http.StatusOK || !strings.Contains(resp.text, `"spec":"a.cy.js"`) {
		t.Errorf("%d %s", resp.status, resp.text)
	}
}

// @currents/cmd: cancel, and api get-run.
func TestReplayOfCurrentsCmd(t *testing.T) {
	s := sqliteServer(t)
	ids := map[string]string{"rk-cmd": s.project(t, "demo")}
	byBuild := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "cmd-001"}).RunID
	ids["r-1"] = s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "cmd-002"}).RunID
	want := []string{byBuild, ids["r-1"], byBuild}
	list := recorded(t, "currents-cmd.json")
	if len(list) != len(want) {
		t.Fatalf("%d requests are recorded", len(list))
	}
	for i, e := range list {
		key := "" // cancel knows only the record key
		if e.Request.Method == http.MethodGet {
			key = s.readKey
		}
		resp := s.replay(t, e, key, ids)
		if resp.status != http.StatusOK {
			t.Fatalf("%s %s: %d %s", e.Request.Method, e.Request.Path, resp.status, resp.text)
		}
		same(t, parseAnswer(t, resp.text)["data"].(object)["runId"], want[i])
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
