package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// currents is a program of the npm packages of Currents. It has only an address and the keys of Runbell.
func currents(t *testing.T, url, module string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := filepath.Abs(filepath.Join("currents/node_modules/@currents", module))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: run scripts/setup", err)
	}
	cmd := exec.Command("node", append([]string{program}, args...)...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "CURRENTS_API_URL=" + url, "CURRENTS_REST_API_URL=" + url, "CURRENTS_API_KEY=" + apiKey}
	cmd.SysProcAttr = dieWithTest()
	return cmd
}

// TestCurrentsMCP has the MCP server of Currents, as its release on npm is, call each of its
// tools, as a coding agent would.
func TestCurrentsMCP(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	p := newPlayer(t, s.project("shop", map[string]any{"completionDelaySeconds": 0}), s)
	p.play("b-1")
	var runs []struct{ RunID string }
	s.call("GET", "/projects/shop/runs", nil, &runs)
	var whole struct {
		Specs []struct{ InstanceID, Spec string }
	}
	s.call("GET", "/runs/"+runs[0].RunID, nil, &whole)
	var tests struct{ List []struct{ Signature string } }
	eventually(t, 20*time.Second, "the run is in the history", func() bool {
		day := time.Now().UTC().Format(time.DateOnly)
		s.call("GET", "/tests/shop?date_start="+day+"&date_end="+day, nil, &tests)
		return len(tests.List) == 6
	})

	cmd := currents(t, s.url+"/v1", "mcp/build/index.js")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	lines := bufio.NewReader(out)
	calls := 0
	ask := func(method string, params any) json.RawMessage {
		t.Helper()
		calls++
		b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": calls, "method": method, "params": params})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(in, string(b)+"\n"); err != nil {
			t.Fatal(err)
		}
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			var answer struct {
				ID     int
				Result json.RawMessage
				Error  json.RawMessage
			}
			if json.Unmarshal(line, &answer) != nil || answer.ID != calls { // a log line, a notification
				continue
			}
			if answer.Error != nil {
				t.Fatalf("%s: %s", method, answer.Error)
			}
			return answer.Result
		}
	}
	ask("initialize", map[string]any{"protocolVersion": "2025-03-26", "capabilities": map[string]any{}, "clientInfo": map[string]any{"name": "test", "version": "1"}})
	if _, err := io.WriteString(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	var offered struct {
		Tools []struct {
			Name        string
			InputSchema struct {
				Required []string
			}
		}
	}
	if err := json.Unmarshal(ask("tools/list", map[string]any{}), &offered); err != nil {
		t.Fatal(err)
	}
	known := map[string]any{"projectId": "shop", "runId": runs[0].RunID, "instanceId": whole.Specs[0].InstanceID, "specInstanceId": whole.Specs[0].InstanceID,
		"spec": whole.Specs[0].Spec, "specFilePath": whole.Specs[0].Spec, "specName": whole.Specs[0].Spec, "limit": 5, "order": "failures", "title": "b", "signature": tests.List[0].Signature}
	for _, tool := range offered.Tools {
		arguments := map[string]any{}
		for _, name := range tool.InputSchema.Required {
			value, ok := known[name]
			if !ok {
				t.Fatalf("%s wants %s", tool.Name, name)
			}
			arguments[name] = value
		}
		var got struct {
			IsError bool
			Content []struct{ Text string }
		}
		if err := json.Unmarshal(ask("tools/call", map[string]any{"name": tool.Name, "arguments": arguments}), &got); err != nil {
			t.Fatal(err)
		}
		if got.IsError || len(got.Content) == 0 || strings.HasPrefix(got.Content[0].Text, "Failed") || len(got.Content[0].Text) < 20 {
			t.Errorf("%s %v answered %+v", tool.Name, arguments, got)
		}
		if strings.Contains(tool.Name, "performance") && !strings.Contains(got.Content[0].Text, "a.js") {
			t.Errorf("%s knows nothing of the spec: %s", tool.Name, got.Content[0].Text)
		}
	}
	if len(offered.Tools) < 6 {
		t.Errorf("only the tools %+v", offered.Tools)
	}
}

// TestCurrentsCmd has the command of Currents find and cancel runs.
func TestCurrentsCmd(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	key := s.project("shop", map[string]any{"completionDelaySeconds": 0})
	p := newPlayer(t, key, s)
	p.play("b-1")
	running := p.join("b-2", "chrome", "one")
	output := func(args ...string) string {
		t.Helper()
		out, err := currents(t, s.url, "cmd/dist/bin/index.js", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("currents %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if got := output("api", "get-run", "--api-key", apiKey, "--project-id", "shop", "--ci-build-id", "b-1"); !strings.Contains(got, `"ciBuildId": "b-1"`) && !strings.Contains(got, `"ciBuildId":"b-1"`) {
		t.Errorf("get-run printed %s", got)
	}
	output("cancel", "--key", key, "--project-id", "shop", "--ci-build-id", "b-2")
	var run struct{ CompletionState string }
	if s.call("GET", "/runs/"+running.RunID, nil, &run); run.CompletionState != "CANCELED" {
		t.Errorf("after currents cancel the run is %s", run.CompletionState)
	}
	output("cancel", "--key", key, "--project-id", "shop", "--ci-build-id", "nothing-has-it") // must not fail a CI job
}
