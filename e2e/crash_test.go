package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// build is a run of the crash test and what must be told of it.
type build struct {
	runID  string
	groups []string // "" is the implicit one
	end    string
}

// TestKilledAtAnyMoment kills the server with SIGKILL at random moments while
// machines report runs and a receiver, which sometimes fails or hangs, takes
// webhooks. What has been committed is told, exactly once but for repetitions
// with the same Webhook-Id and body; what has not been committed is not.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed) // of the moments; what the machines do meanwhile is up to the system
	chance := rand.New(rand.NewPCG(seed, 0))

	s := newServer(t, "RUNBELL_WEBHOOK_RETRIES=50ms,100ms,200ms,500ms,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s",
		"RUNBELL_WEBHOOK_TIMEOUT=400ms", "RUNBELL_LOG_LEVEL=error")
	r := testkit.NewReceiver(t)
	r.Refuse(func(n int) int {
		if n%9 == 4 {
			return http.StatusInternalServerError
		}
		return 0
	})
	r.Hang(func(n int) time.Duration {
		switch {
		case n%31 == 7:
			return time.Second // it took the webhook, but the sender does not get to know
		case n%5 == 2:
			return 100 * time.Millisecond
		}
		return 0
	})
	key := s.project("shop", map[string]any{"completionDelaySeconds": 0})
	hooks := map[string]string{"/group": s.endpoint(r, "shop", "/group", "group"), "/run": s.endpoint(r, "shop", "/run", "run")}

	var mu sync.Mutex
	var builds []build
	var number atomic.Int64
	var stop atomic.Bool
	var machines sync.WaitGroup
	for range 4 {
		machines.Go(func() {
			for !stop.Load() && !t.Failed() {
				b := play(t, s, key, number.Add(1))
				mu.Lock()
				builds = append(builds, b)
				mu.Unlock()
			}
		})
	}
	for range crashRounds(t) {
		// The moment is the input.
		time.Sleep(time.Duration(chance.IntN(int(300 * time.Millisecond))))
		s.kill()
		if chance.IntN(4) == 0 { // again, while it starts
			s.launch()
			time.Sleep(time.Duration(chance.IntN(int(100 * time.Millisecond))))
			s.kill()
		}
		s.start()
	}
	stop.Store(true)
	machines.Wait()
	if t.Failed() {
		t.FailNow()
	}

	// What the database says was to be told.
	committed := map[string]delivery{} // path and event id -> delivery
	told := map[string][]delivery{}    // path and run -> its deliveries
	for path, hook := range hooks {
		eventually(t, 60*time.Second, "nothing waits at "+path, func() bool {
			var waiting []any
			s.call("GET", "/webhooks/"+hook+"/deliveries?status=pending&limit=1", nil, &waiting)
			return len(waiting) == 0
		})
		for d := range pages[delivery](s, "/webhooks/"+hook+"/deliveries") {
			if d.Status != "delivered" {
				t.Errorf("%s %s is %s", path, d.EventID, d.Status)
			}
			committed[path+" "+d.EventID] = d
			told[path+" "+d.RunID] = append(told[path+" "+d.RunID], d)
		}
	}
	// Each run and each group has one start and one end, and no run is missing or
	// was never asked for.
	for _, b := range builds {
		checkEvents(t, b, "/run", []string{""}, told["/run "+b.runID])
		checkEvents(t, b, "/group", b.groups, told["/group "+b.runID])
	}
	if len(told) != 2*len(builds) {
		t.Errorf("%d runs were told of at two webhooks, want %d", len(told), 2*len(builds))
	}
	runs := map[string]string{}
	for v := range pages[struct{ RunID, CompletionState, Cursor string }](s, "/projects/shop/runs") {
		runs[v.RunID] = v.CompletionState
	}
	if len(runs) != len(builds) {
		t.Errorf("there are %d runs, want %d", len(runs), len(builds))
	}
	for _, b := range builds {
		if want := map[string]string{"RUN_FINISH": "COMPLETE", "RUN_CANCELED": "CANCELED"}[b.end]; runs[b.runID] != want {
			t.Errorf("run %s is %q, want %s", b.runID, runs[b.runID], want)
		}
	}

	repeated := checkReceived(t, r.All(), committed, told)
	t.Logf("%d runs, %d events, %d repetitions", len(builds), len(committed), repeated)

	s.stop()
	testkit.CheckSQLite(t, filepath.Join(s.dir, "runbell.db"))
}

// delivery is one as the REST API lists it.
type delivery struct {
	EventID, Event, RunID, Status, Cursor string
	GroupID                               *string
	Sequence                              int64
}

// pages walks through a list of the REST API.
func pages[T any](s *server, path string) func(yield func(T) bool) {
	return func(yield func(T) bool) {
		for after := ""; ; {
			var page []T
			var cursors []struct{ Cursor string }
			var raw json.RawMessage
			s.call("GET", path+"?limit=100"+after, nil, &raw)
			if err := errors.Join(json.Unmarshal(raw, &page), json.Unmarshal(raw, &cursors)); err != nil {
				s.t.Fatal(err)
			}
			for _, v := range page {
				if !yield(v) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
			after = "&starting_after=" + cursors[len(cursors)-1].Cursor
		}
	}
}

// checkEvents holds the events of a run at one webhook against what was played.
func checkEvents(t *testing.T, b build, path string, groups []string, told []delivery) {
	t.Helper()
	var got, want []string
	for _, d := range told {
		group := ""
		if d.GroupID != nil && len(groups) > 1 {
			group = *d.GroupID
		}
		got = append(got, group+" "+d.Event)
	}
	for _, g := range groups {
		want = append(want, g+" RUN_START", g+" "+b.end)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("run %s has %q at %s, want %q", b.runID, got, path, want)
	}
}

// checkReceived holds what arrived against what was committed, and says how
// much of it were repetitions.
func checkReceived(t *testing.T, list []testkit.Received, committed map[string]delivery, told map[string][]delivery) (repeated int) {
	t.Helper()
	first, accepted := map[string]int{}, map[string]int{} // place in the list
	for i, w := range list {
		id := w.Path + " " + w.ID
		d, known := committed[id]
		if !known {
			t.Errorf("a webhook that was never committed: %s %s", id, w.Body)
			continue
		}
		if _, before := accepted[id]; !before && !w.Refused {
			accepted[id] = i
		}
		if at, before := first[id]; before {
			repeated++
			if !bytes.Equal(list[at].Body, w.Body) {
				t.Errorf("%s has two bodies:\n%s\n%s", id, list[at].Body, w.Body)
			}
			continue
		}
		first[id] = i
		p := decode(t, w)
		specs := 3
		if w.Path == "/run" && len(told["/group "+d.RunID]) > 2 {
			specs = 6 // two groups
		}
		if p.Event == "RUN_FINISH" && p.counts != (counts{Overall: 2 * specs, Passes: specs, Failures: specs}) {
			t.Errorf("results were lost or counted twice: %s", w.Body)
		}
		if p.Event != d.Event || filepath.Base(p.RunURL) != d.RunID {
			t.Errorf("%s %s was committed as %+v", id, w.Body, d)
		}
	}
	for id := range committed {
		if _, arrived := accepted[id]; !arrived {
			t.Errorf("an event that was committed was never told: %s", id)
		}
	}
	// An event is first sent after the one before it has been taken. All retries
	// here are quick, so nothing overtakes.
	for key, events := range told {
		path, _, _ := strings.Cut(key, " ")
		slices.SortFunc(events, func(a, b delivery) int { return cmp.Compare(a.Sequence, b.Sequence) })
		for i := range events[1:] {
			if before, next := path+" "+events[i].EventID, path+" "+events[i+1].EventID; accepted[before] > first[next] {
				t.Errorf("%s: %s (%d) was sent before %s (%d) had been taken", key, events[i+1].Event, events[i+1].Sequence, events[i].Event, events[i].Sequence)
			}
		}
	}
	return repeated
}

// play records a run, of one of several kinds.
func play(t *testing.T, s *server, key string, n int64) build {
	p := player{t: t, url: s.url, key: key}
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

// player is a machine that tries again, as a reporter does, until it gets
// through.
type player struct {
	t        *testing.T
	url, key string
}

// joined is the answer to a machine that joined a run.
type joined struct{ RunID, MachineID string }

func (p player) play(build string) { p.work(p.join(build, "", "one")) }

// join takes a machine into a group of a build. Requests of two machines are
// never the same, as in life; else a repetition could not be told from another
// machine.
func (p player) join(build, group, machine string) (m joined) {
	body := map[string]any{"projectId": "shop", "recordKey": p.key, "ciBuildId": build, "specs": []string{"a.js", "b.js", "c.js"},
		"platform": map[string]any{"osName": "linux", "osVersion": machine}}
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
	req, err := http.NewRequest(method, p.url+path, bytes.NewReader(body))
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
