package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// build is a run that was played and what must be told of it.
type build struct {
	runID  string
	groups []string // "" is the implicit one
	end    string
}

// player is a machine that tries again, as a reporter does, until it gets
// through. Each request goes to any of the servers, as with a load balancer
// before them.
type player struct {
	t       *testing.T
	key     string
	servers []*server
}

func newPlayer(t *testing.T, key string, servers ...*server) player {
	return player{t: t, key: key, servers: servers}
}

// playAny records a run, of one of several kinds.
func (p player) playAny(n int64) build {
	name := fmt.Sprint("build-", n)
	switch n % 4 {
	case 0: // two machines share a group
		one, two := p.join(name, "", "one"), p.join(name, "", "two")
		var other sync.WaitGroup
		other.Go(func() { p.work(two) })
		p.work(one)
		other.Wait()
		return build{one.RunID, []string{""}, "RUN_FINISH"}
	case 1: // two groups
		one, two := p.join(name, "chrome", "one"), p.join(name, "firefox", "two")
		p.work(one)
		p.work(two)
		return build{one.RunID, []string{"chrome", "firefox"}, "RUN_FINISH"}
	case 2: // canceled after its first spec
		m := p.join(name, "", "one")
		if spec := p.claim(m); spec != "" {
			p.report(spec)
		}
		p.send("PUT", "/v1/runs/"+m.RunID+"/cancel", map[string]any{}, nil)
		return build{m.RunID, []string{""}, "RUN_CANCELED"}
	default:
		m := p.join(name, "", "one")
		p.work(m)
		return build{m.RunID, []string{""}, "RUN_FINISH"}
	}
}

// joined is the answer to a machine that joined a run.
type joined struct{ RunID, MachineID string }

func (p player) play(build string) { p.work(p.join(build, "", "one")) }

// join takes a machine into a group of a build. Requests of two machines are
// never the same, as in life; else a repetition could not be told from another
// machine.
func (p player) join(build, group, machine string) (m joined) {
	body := map[string]any{"projectId": "shop", "recordKey": p.key, "ciBuildId": build, "specs": []string{"a.js", "b.js", "c.js"},
		"parallel": true, "ci": map[string]any{"params": map[string]any{"machine": machine}}}
	if group != "" {
		body["group"] = group
	}
	p.send("POST", "/runs", body, &m)
	return m
}

// claim asks for a spec to run; "" means that none is left.
func (p player) claim(m joined) string {
	var spec struct{ InstanceID string }
	p.send("POST", "/runs/"+m.RunID+"/instances", map[string]any{"machineId": m.MachineID}, &spec)
	return spec.InstanceID
}

// work runs specs until none is left.
func (p player) work(m joined) {
	for {
		spec := p.claim(m)
		if spec == "" {
			return
		}
		p.report(spec)
	}
}

// report says of a spec that one test passed and one failed.
func (p player) report(instance string) {
	path := "/instances/" + instance
	p.send("POST", path+"/tests", map[string]any{"tests": []any{map[string]any{"clientId": "r0", "title": []string{"a"}}, map[string]any{"clientId": "r1", "title": []string{"b"}}}}, nil)
	p.send("POST", path+"/results", map[string]any{"tests": []any{map[string]any{"clientId": "r0", "state": "passed"}, map[string]any{"clientId": "r1", "state": "failed"}}}, nil)
}

func (p player) send(method, path string, body, into any) {
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Error(err)
		return
	}
	for attempt := 0; attempt < 10_000; attempt++ {
		if p.once(method, path, attempt, b, into) {
			return
		}
		time.Sleep(5 * time.Millisecond) // as a client waits before it tries again
	}
	p.t.Errorf("%s %s never got through", method, path)
}

func (p player) once(method, path string, attempt int, body []byte, into any) bool {
	req, err := http.NewRequest(method, p.servers[rand.IntN(len(p.servers))].url+path, bytes.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return true
	}
	req.Header.Set("X-Cypress-Request-Attempt", strconv.Itoa(attempt))
	req.Header.Set("Authorization", "Bearer "+apiKey) // only the REST API looks at it
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 500 {
		return false
	}
	if resp.StatusCode != http.StatusOK {
		p.t.Errorf("%s %s: %s %s", method, path, resp.Status, answer)
		return true
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			p.t.Error(err)
		}
	}
	return true
}
