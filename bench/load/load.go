// Package load plays the life cycles of runs into a server, as machines with
// Cypress do, and starts the servers that benchmarks load. Server and load share
// the machine.
//
// A life cycle is what a machine with five specs sends: POST /runs, then for
// each spec a claim, its tests (with a resolved configuration of 8 KB and 10
// tests), its results and 2 KB of output, and the claim that finds nothing left.
package load

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long a client waits for an answer.
const patience = 30 * time.Second

const (
	specs        = 5
	testsPerSpec = 10

	// RequestsPerCycle is how many requests a life cycle has.
	RequestsPerCycle = 1 + 4*specs + 1
	// Project is the id of the project that runs are recorded in.
	Project = "bench"
	// RecordKey is the record key that runs are recorded with.
	RecordKey = "key"
)

// Result is what a measurement saw.
type Result struct {
	Cycles    int             // life cycles that ended
	Took      time.Duration   // by all clients together
	Latencies []time.Duration // one for each request, in no order
}

// Rate is the number of life cycles in a second.
func (r Result) Rate() float64 { return float64(r.Cycles) / r.Took.Seconds() }

// Latency is a quantile of the time of a request: 0.5 is the median, 1 the longest.
func (r Result) Latency(quantile float64) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r.Latencies))
	return sorted[min(len(sorted)-1, int(quantile*float64(len(sorted))))].Round(10 * time.Microsecond)
}

// Plus is the result of two measurements, one after the other.
func (r Result) Plus(o Result) Result {
	return Result{r.Cycles + o.Cycles, r.Took + o.Took, slices.Concat(r.Latencies, o.Latencies)}
}

var build atomic.Int64

// Play plays life cycles with a number of clients until the time is over. packed
// clients send their bodies with gzip, as 'runbell cypress run' does. A client
// whose request is refused stops, and the error says what was refused.
func Play(url string, clients int, d time.Duration, packed bool) (Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return PlayUntil(ctx, url, clients, packed)
}

// PlayUntil plays life cycles, as Play does, until ctx ends.
func PlayUntil(ctx context.Context, url string, clients int, packed bool) (Result, error) {
	var mu sync.Mutex
	var all Result
	var failed error
	var wg sync.WaitGroup
	began := time.Now()
	for range clients {
		wg.Go(func() {
			c, err := dial(url, packed)
			n := 0
			for ctx.Err() == nil && err == nil {
				if err = c.cycle(fmt.Sprintf("bench-%d-%d", os.Getpid(), build.Add(1))); err == nil {
					n++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			}
			if c == nil {
				return
			}
			_ = c.conn.Close()
			all.Cycles += n
			all.Latencies = append(all.Latencies, c.latencies...)
		})
	}
	wg.Wait()
	all.Took = time.Since(began)
	return all, failed
}

// client is one machine: one connection, one request at a time. It writes its
// requests by hand, because http.Client would take a good part of the machine
// that it shares with the server.
type client struct {
	host      string
	packed    bool
	conn      net.Conn
	r         *bufio.Reader
	w         *bufio.Writer
	latencies []time.Duration
}

func dial(url string, packed bool) (*client, error) {
	host := strings.TrimPrefix(url, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return nil, err
	}
	return &client{host: host, packed: packed, conn: conn, r: bufio.NewReader(conn), w: bufio.NewWriterSize(conn, 32<<10)},
		nil
}

func (c *client) send(method, path string, body []byte, into any) error {
	began := time.Now()
	if err := c.conn.SetDeadline(began.Add(patience)); err != nil {
		return err
	}
	encoding := ""
	if c.packed {
		encoding = "Content-Encoding: gzip\r\n"
	}
	fmt.Fprintf(c.w, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n",
		method, path, c.host, encoding, len(body))
	if _, err := c.w.Write(body); err != nil {
		return err
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	c.latencies = append(c.latencies, time.Since(began))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

func (c *client) cycle(buildID string) error {
	var run struct{ RunID, GroupID, MachineID string }
	if err := c.send("POST", "/runs", c.body([]byte(fmt.Sprintf(runBody, buildID))), &run); err != nil {
		return err
	}
	claim := c.body([]byte(fmt.Sprintf(`{"runId":%q,"groupId":%q,"machineId":%q,"platform":`+platform+`}`, run.RunID,
		run.GroupID, run.MachineID)))
	for i := range specs + 1 {
		var claimed struct{ InstanceID string }
		if err := c.send("POST", "/runs/"+run.RunID+"/instances", claim, &claimed); err != nil {
			return err
		}
		if i == specs {
			break
		}
		for _, r := range []struct {
			method, what string
			body         twice
		}{{"POST", "tests", testsBody}, {"POST", "results", resultsBody}, {"PUT", "stdout", stdoutBody}} {
			body := r.body.plain
			if c.packed {
				body = r.body.packed
			}
			if err := c.send(r.method, "/instances/"+claimed.InstanceID+"/"+r.what, body, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

const platform = `{"osName":"linux","osVersion":"Debian - 12","osCpus":[],"osMemory":{"free":1,"total":2},"browserName":"Electron","browserVersion":"106.0.5249.51"}`

const runBody = `{"ci":{"params":{},"provider":null},"specs":["cypress/e2e/a.cy.js","cypress/e2e/b.cy.js","cypress/e2e/c.cy.js","cypress/e2e/d.cy.js","cypress/e2e/e.cy.js"],` +
	`"commit":{"branch":"main","remoteOrigin":"git@example.test:acme/shop.git","authorEmail":"jane@example.test","authorName":"Jane Roe","message":"feat: a change\n","sha":"1ea02a6664aaf4872b49b3bb8d99d556c07d2a54"},` +
	`"platform":` + platform + `,"parallel":true,"ciBuildId":%q,"projectId":"` + Project + `","recordKey":"` + RecordKey +
	`","specPattern":["**/*.cy.js"],"tags":["smoke"],"testingType":"e2e"}`

var testsBody, resultsBody, stdoutBody = bodies()

// twice is a body without and with gzip. It is packed once: the load shares the
// machine with the server.
type twice struct{ plain, packed []byte }

// body is what the client sends of a text.
func (c *client) body(text []byte) []byte {
	if c.packed {
		return Pack(text)
	}
	return text
}

// Pack compresses a body with gzip.
func Pack(text []byte) []byte {
	var b bytes.Buffer
	z := packers.Get().(*gzip.Writer)
	defer packers.Put(z)
	z.Reset(&b)
	_, _ = z.Write(text) // a buffer takes everything
	_ = z.Close()
	return b.Bytes()
}

var packers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func bodies() (tests, results, stdout twice) {
	both := func(text []byte) twice { return twice{text, Pack(text)} }
	object := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return b
	}
	config := map[string]any{"video": true, "videoUploadOnPasses": true, "retries": map[string]int{"runMode": 2}}
	for i := 0; len(object(config)) < 8<<10; i++ {
		config[fmt.Sprintf("setting%d", i)] = map[string]any{"value": "some value of a setting", "from": "default"}
	}
	var announced, done []any
	for i := range testsPerSpec {
		id := "r" + strconv.Itoa(i)
		announced = append(announced, map[string]any{"clientId": id, "title": []string{"a page", "shows thing " + id},
			"body": "() => { cy.visit('/'); cy.get('h1').should('exist'); }", "config": nil, "hookIds": []string{}})
		attempt := map[string]any{"state": "passed", "error": nil,
			"timings":          map[string]any{"lifecycle": 1, "test": map[string]int{"fnDuration": 30, "afterFnDuration": 0}},
			"failedFromHookId": nil, "wallClockStartedAt": "2026-11-23T09:01:28.152Z", "wallClockDuration": 32,
			"videoTimestamp": 2, "screenshots": []any{}}
		done = append(done, map[string]any{"clientId": id, "state": "passed", "displayError": nil, "hooks": []any{},
			"attempts": []any{attempt}})
	}
	tests = both(object(map[string]any{"config": config, "tests": announced, "hooks": []any{}}))
	results = both(object(map[string]any{"stats": map[string]any{"tests": testsPerSpec, "passes": testsPerSpec,
		"duration": 320, "wallClockDuration": 320}, "tests": done, "exception": nil, "video": false, "screenshots": []any{},
		"reporterStats": map[string]any{}}))
	stdout = both(object(map[string]any{"stdout": strings.Repeat("    ✓ shows a thing on a page (32ms)\n", 52)}))
	return tests, results, stdout
}
