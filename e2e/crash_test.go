package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// crashRounds is how often the server is killed; RUNBELL_CRASH_ROUNDS sets more.
func crashRounds(t *testing.T) int {
	text, set := os.LookupEnv("RUNBELL_CRASH_ROUNDS")
	if !set {
		return 50
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("RUNBELL_CRASH_ROUNDS: %v", err)
	}
	return n
}

// TestKilledAtAnyMoment kills the server with SIGKILL at random moments while
// machines report runs and a receiver, which sometimes fails, takes webhooks.
// What has been committed is told, exactly once but for repetitions with the
// same Webhook-Id and body; what has not been committed is not.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := newServer(t, "RUNBELL_WEBHOOK_RETRIES=50ms,100ms,200ms,500ms,1s,1s,1s,1s,1s,1s,1s,1s", "RUNBELL_LOG_LEVEL=error")
	r := testkit.NewReceiver(t)
	r.Refuse(func(n int) int {
		if n%9 == 4 {
			return http.StatusInternalServerError
		}
		return 0
	})
	key := s.project("shop", map[string]any{"completionDelaySeconds": 0})
	hooks := map[string]string{"/group": s.endpoint(r, "shop", "/group", "group"), "/run": s.endpoint(r, "shop", "/run", "run")}

	var builds atomic.Int64
	var stop atomic.Bool
	var machines sync.WaitGroup
	for range 4 {
		machines.Go(func() {
			for !stop.Load() {
				p := player{t: t, url: s.url, key: key}
				p.play(fmt.Sprint("build-", builds.Add(1)))
			}
		})
	}
	for range crashRounds(t) {
		time.Sleep(time.Duration(rand.IntN(int(300 * time.Millisecond)))) // the moment is the input
		s.kill()
		s.start()
	}
	stop.Store(true)
	machines.Wait()

	runs := int(builds.Load())
	r.Wait(t, 60*time.Second, func(list []testkit.Received) bool {
		done := map[string]bool{}
		for _, w := range list {
			if !w.Refused {
				done[w.Path+w.ID] = true
			}
		}
		return len(done) >= 4*runs
	})

	// What the database says was to be told.
	committed := map[string]string{} // path and event id -> event
	for path, hook := range hooks {
		eventually(t, 30*time.Second, "nothing waits at "+path, func() bool {
			var waiting []any
			s.call("GET", "/webhooks/"+hook+"/deliveries?status=pending&limit=1", nil, &waiting)
			return len(waiting) == 0
		})
		cursor := ""
		for {
			var page []struct{ EventID, Event, Status, Cursor string }
			s.call("GET", "/webhooks/"+hook+"/deliveries?limit=100"+cursor, nil, &page)
			if len(page) == 0 {
				break
			}
			for _, d := range page {
				if d.Status != "delivered" {
					t.Errorf("%s %s is %s", path, d.EventID, d.Status)
				}
				committed[path+" "+d.EventID] = d.Event
			}
			cursor = "&starting_after=" + page[len(page)-1].Cursor
		}
	}
	if len(committed) != 4*runs {
		t.Errorf("%d events for %d runs, want %d", len(committed), runs, 4*runs)
	}

	bodies := map[string][]byte{}
	type life struct{ start, end int }
	lives := map[string]*life{}
	repeated := 0
	for i, w := range r.All() {
		id := w.Path + " " + w.ID
		if committed[id] == "" {
			t.Errorf("a webhook that was never committed: %s %s", id, w.Body)
		}
		if before, ok := bodies[id]; ok {
			repeated++
			if !bytes.Equal(before, w.Body) {
				t.Errorf("%s has two bodies:\n%s\n%s", id, before, w.Body)
			}
			continue
		}
		bodies[id] = w.Body
		p := decode(t, w)
		l := lives[w.Path+p.RunURL]
		if l == nil {
			l = &life{-1, -1}
			lives[w.Path+p.RunURL] = l
		}
		switch {
		case p.Event == "RUN_START" && l.start < 0 && l.end < 0:
			l.start = i
		case p.Event == "RUN_FINISH" && l.start >= 0 && l.end < 0:
			l.end = i
			if p.Overall != 6 || p.Passes != 3 || p.Failures != 3 {
				t.Errorf("results were lost or counted twice: %s", w.Body)
			}
		default:
			t.Errorf("%s of %s out of order or twice", p.Event, p.RunURL)
		}
	}
	for id := range committed {
		if bodies[id] == nil {
			t.Errorf("an event that was committed was never told: %s", id)
		}
	}
	if len(lives) != 2*runs {
		t.Errorf("%d runs and groups were told of, want %d", len(lives), 2*runs)
	}
	t.Logf("%d runs, %d events, %d repetitions", runs, len(committed), repeated)
}

// player is a machine that tries again, as a reporter does, until it gets
// through.
type player struct {
	t        *testing.T
	url, key string
}

func (p player) play(build string) {
	var run struct{ RunID, MachineID string }
	p.send("POST", "/runs", map[string]any{"projectId": "shop", "recordKey": p.key, "ciBuildId": build, "specs": []string{"a.js", "b.js", "c.js"}}, &run)
	for {
		var spec struct{ InstanceID *string }
		p.send("POST", "/runs/"+run.RunID+"/instances", map[string]any{"machineId": run.MachineID}, &spec)
		if spec.InstanceID == nil {
			return
		}
		path := "/instances/" + *spec.InstanceID
		p.send("POST", path+"/tests", map[string]any{"tests": []any{map[string]any{"clientId": "r0", "title": []string{"a"}}, map[string]any{"clientId": "r1", "title": []string{"b"}}}}, nil)
		p.send("POST", path+"/results", map[string]any{"tests": []any{map[string]any{"clientId": "r0", "state": "passed"}, map[string]any{"clientId": "r1", "state": "failed"}}}, nil)
	}
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
	req, err := http.NewRequest(method, p.url+path, bytes.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return true
	}
	req.Header.Set("X-Cypress-Request-Attempt", strconv.Itoa(attempt))
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
