// Command ingest measures how many life cycles of runs a server takes in over
// HTTP, with plain bodies and with gzip, beside a bare handler that only reads the same bodies and answers, which
// is what the machine, net/http and the load itself allow at most; beside one that
// also keeps the bodies durably, which is what the disk allows; and, if asked to,
// beside another server.
//
// A life cycle is what a machine with five specs sends: POST /runs, then for
// each spec a claim, its tests (with a resolved configuration of 8 KB and 10
// tests), its results and 2 KB of output, and the claim that finds nothing left:
// 22 requests. Server and load share the machine. The server is the built
// binary on SQLite with synchronous=FULL; every answer is durable.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	specs            = 5
	testsPerSpec     = 10
	requestsPerCycle = 1 + 4*specs + 1
	bareFlag         = "-bare-handler"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareFlag {
		serveBare(os.Args[3], os.Args[2])
		return
	}
	seconds := flag.Duration("for", 8*time.Second, "how long each measurement takes")
	keep := flag.Bool("keep", false, "keep the server's data directory and print where it is")
	url := flag.String("url", "", "load a server that runs already (with RUNBELL_RECORDING=open), with 16 clients, and nothing else")
	beside := flag.String("beside", "", "load this server too, which runs already, in turns, and print the ratio: sorry-cypress' director, or another version")
	flag.Parse()
	if *url != "" && *beside != "" {
		fmt.Fprintln(os.Stderr, "ingest: -url loads one server and compares nothing: leave one of -url and -beside out")
		os.Exit(2)
	}
	if *url != "" {
		for _, packed := range []bool{false, true} {
			r, err := load(*url, 16, *seconds, packed)
			if err != nil {
				fmt.Fprintln(os.Stderr, "ingest:", err)
				os.Exit(1)
			}
			r.print(map[bool]string{false: "plain", true: "gzip"}[packed])
		}
		return
	}
	if err := measure(*seconds, *keep, *beside); err != nil {
		fmt.Fprintln(os.Stderr, "ingest:", err)
		os.Exit(1)
	}
}

func measure(d time.Duration, keep bool, beside string) error {
	dir, err := os.MkdirTemp(".", ".bench-")
	if err != nil {
		return err
	}
	if keep {
		fmt.Println("data:", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	binary := filepath.Join(dir, "runbell")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/runbell")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}

	fmt.Printf("%-22s %12s %12s %9s %9s %9s\n", "", "cycles/s", "requests/s", "p50", "p99", "max")
	for _, clients := range []int{1, 16} {
		ceiling, err := loadBare(self, "", clients, d/2)
		if err != nil {
			return fmt.Errorf("bare handler: %w", err)
		}
		ceiling.print(fmt.Sprintf("bare handler, %d", clients))
		durable, err := loadBare(self, filepath.Join(dir, "bodies"), clients, d/2)
		if err != nil {
			return fmt.Errorf("bare handler that is durable: %w", err)
		}
		durable.print(fmt.Sprintf("and durable, %d", clients))

		var other result
		if beside != "" {
			// The first round warms it up, as below.
			for range 2 {
				if other, err = load(beside, clients, d/2, false); err != nil {
					return fmt.Errorf("%s: %w", beside, err)
				}
			}
			other.print(fmt.Sprintf("the other, %d", clients))
		}

		began := time.Now()
		srv, err := startRunbell(binary, filepath.Join(dir, "data"+strconv.Itoa(clients)))
		if err != nil {
			return err
		}
		ready := time.Since(began)
		before := srv.rss()
		first, err := load(srv.url, clients, d/2, false)
		if err != nil {
			return fmt.Errorf("runbell: %w", err)
		}
		middle := srv.rss()
		second, err := load(srv.url, clients, d/2, false)
		if err != nil {
			return fmt.Errorf("runbell: %w", err)
		}
		after := srv.rss()
		packed, err := load(srv.url, clients, d/2, true)
		if err != nil {
			return fmt.Errorf("runbell, gzip: %w", err)
		}
		srv.stop()
		second.print(fmt.Sprintf("runbell, %d", clients))
		packed.print(fmt.Sprintf("runbell, gzip, %d", clients))
		fmt.Printf("  ratio to the bare handler %.2f, to the durable one %.2f", second.rate()/ceiling.rate(), second.rate()/durable.rate())
		fmt.Printf("; with gzip %.2f of without", packed.rate()/second.rate())
		if beside != "" {
			fmt.Printf("; to the other %.1f", second.rate()/other.rate())
		}
		fmt.Println()
		fmt.Printf("  RSS %d MB at start, %d MB after %d runs, %d MB after %d runs; ready %d ms after exec\n",
			before, middle, first.cycles, after, first.cycles+second.cycles, ready.Milliseconds())
	}
	return nil
}

// process is a server under load.
type process struct {
	cmd *exec.Cmd
	url string
}

func start(name string, args ...string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(name, append(args, addr)...), url: "http://" + addr}
	return p, p.run()
}

func startRunbell(binary, data string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(binary, "serve"), url: "http://" + addr}
	p.cmd.Env = []string{"RUNBELL_ADDR=" + addr, "RUNBELL_DATA_DIR=" + data, "RUNBELL_RECORDING=open", "RUNBELL_LOG_LEVEL=error"}
	return p, p.run()
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (p *process) run() error {
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for range 10_000 {
		resp, err := http.Get(p.url + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("%s did not start", p.cmd.Path)
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// rss is the resident memory in MB.
func (p *process) rss() int {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 2 && fields[0] == "VmRSS:" {
			kb, _ := strconv.Atoi(fields[1])
			return kb >> 10
		}
	}
	return 0
}

// loadBare measures the bare handler, in a process of its own. It keeps the
// bodies in a file, unless its name is empty.
func loadBare(self, file string, clients int, d time.Duration) (result, error) {
	p, err := start(self, bareFlag, file)
	if err != nil {
		return result{}, err
	}
	defer p.stop()
	return load(p.url, clients, d, false)
}

// serveBare reads every body and answers what a client needs to go on.
func serveBare(addr, file string) {
	var n atomic.Int64
	keep := func([]byte) error { return nil }
	if file != "" {
		j, err := newJournal(file)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		keep = j.keep
	}
	mux := http.NewServeMux()
	answer := func(body func() string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			sent, err := io.ReadAll(r.Body)
			if err == nil {
				err = keep(sent)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body())
		}
	}
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /runs", answer(func() string { return `{"runId":"r","groupId":"g","machineId":"m","runUrl":"u"}` }))
	mux.HandleFunc("POST /runs/{id}/instances", answer(func() string {
		return `{"spec":"s","instanceId":"` + strconv.FormatInt(n.Add(1), 10) + `","claimedInstances":1,"totalInstances":5}`
	}))
	mux.HandleFunc("/instances/", answer(func() string { return `{"screenshotUploadUrls":[]}` }))
	fmt.Fprintln(os.Stderr, http.ListenAndServe(addr, mux))
	os.Exit(1)
}

// journal keeps what it gets in a file, durably, and nothing else: the least
// that can be done. Who comes while it waits for the disk shares the next wait.
// Like the log of SQLite it writes over what is there, which is faster than a
// file that grows.
type journal struct {
	file *os.File
	in   chan entry
}

const journalSize = 16 << 20

type entry struct {
	text []byte
	done chan error
}

func newJournal(name string) (*journal, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(make([]byte, journalSize)); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	j := &journal{f, make(chan entry, 64)}
	go func() {
		at := int64(0)
		for first := range j.in {
			batch := []entry{first}
			for range len(j.in) {
				batch = append(batch, <-j.in)
			}
			var text []byte
			for _, e := range batch {
				text = append(text, e.text...)
			}
			if at+int64(len(text)) > journalSize {
				at = 0
			}
			_, err := f.WriteAt(text, at)
			at += int64(len(text))
			if err == nil {
				err = syscall.Fdatasync(int(f.Fd()))
			}
			for _, e := range batch {
				e.done <- err
			}
		}
	}()
	return j, nil
}

func (j *journal) keep(text []byte) error {
	e := entry{text, make(chan error, 1)}
	j.in <- e
	return <-e.done
}

// result is what a measurement saw.
type result struct {
	cycles    int
	took      time.Duration
	latencies []time.Duration
}

func (r result) rate() float64 { return float64(r.cycles) / r.took.Seconds() }

func (r result) print(name string) {
	slices.Sort(r.latencies)
	at := func(q float64) time.Duration {
		return r.latencies[min(len(r.latencies)-1, int(q*float64(len(r.latencies))))].Round(10 * time.Microsecond)
	}
	fmt.Printf("%-22s %12.0f %12.0f %9s %9s %9s\n", name, r.rate(), r.rate()*requestsPerCycle, at(0.5), at(0.99), at(1))
}

var build atomic.Int64

// load plays life cycles with a number of clients until the time is over. packed
// clients send their bodies with gzip, as 'runbell cypress run' does.
func load(url string, clients int, d time.Duration, packed bool) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var mu sync.Mutex
	var all result
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
			all.cycles += n
			all.latencies = append(all.latencies, c.latencies...)
		})
	}
	wg.Wait()
	all.took = time.Since(began)
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
	return &client{host: host, packed: packed, conn: conn, r: bufio.NewReader(conn), w: bufio.NewWriterSize(conn, 32<<10)}, nil
}

func (c *client) send(method, path string, body []byte, into any) error {
	began := time.Now()
	encoding := ""
	if c.packed {
		encoding = "Content-Encoding: gzip\r\n"
	}
	fmt.Fprintf(c.w, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n", method, path, c.host, encoding, len(body))
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
	claim := c.body([]byte(fmt.Sprintf(`{"runId":%q,"groupId":%q,"machineId":%q,"platform":`+platform+`}`, run.RunID, run.GroupID, run.MachineID)))
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
	`"platform":` + platform + `,"parallel":true,"ciBuildId":%q,"projectId":"bench","recordKey":"key","specPattern":["**/*.cy.js"],"tags":["smoke"],"testingType":"e2e"}`

var testsBody, resultsBody, stdoutBody = bodies()

// twice is a body without and with gzip. It is packed once: the load shares the
// machine with the server.
type twice struct{ plain, packed []byte }

// body is what the client sends of a text.
func (c *client) body(text []byte) []byte {
	if c.packed {
		return pack(text)
	}
	return text
}

func pack(text []byte) []byte {
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
	both := func(text []byte) twice { return twice{text, pack(text)} }
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
		announced = append(announced, map[string]any{"clientId": id, "title": []string{"a page", "shows thing " + id}, "body": "() => { cy.visit('/'); cy.get('h1').should('exist'); }", "config": nil, "hookIds": []string{}})
		attempt := map[string]any{"state": "passed", "error": nil, "timings": map[string]any{"lifecycle": 1, "test": map[string]int{"fnDuration": 30, "afterFnDuration": 0}},
			"failedFromHookId": nil, "wallClockStartedAt": "2026-11-23T09:01:28.152Z", "wallClockDuration": 32, "videoTimestamp": 2, "screenshots": []any{}}
		done = append(done, map[string]any{"clientId": id, "state": "passed", "displayError": nil, "hooks": []any{}, "attempts": []any{attempt}})
	}
	tests = both(object(map[string]any{"config": config, "tests": announced, "hooks": []any{}}))
	results = both(object(map[string]any{"stats": map[string]any{"tests": testsPerSpec, "passes": testsPerSpec, "duration": 320, "wallClockDuration": 320},
		"tests": done, "exception": nil, "video": false, "screenshots": []any{}, "reporterStats": map[string]any{}}))
	stdout = both(object(map[string]any{"stdout": strings.Repeat("    ✓ shows a thing on a page (32ms)\n", 52)}))
	return tests, results, stdout
}
