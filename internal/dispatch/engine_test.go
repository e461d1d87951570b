package dispatch_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/dispatch"
	"runbell/internal/endpoint"
	"runbell/internal/lifecycle"
	"runbell/internal/outbound"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// world is a store with a project, one endpoint, and an engine that reaches its
// receiver in memory: real HTTP and virtual time.
type world struct {
	t         *testing.T
	db        *store.DB
	network   *testkit.Network
	engine    *dispatch.Engine
	runs      *lifecycle.Service
	endpoints *endpoint.Service
	endpoint  webhook.Endpoint
	stop      func()

	mu    sync.Mutex
	calls []call
	reply func(n int, r *http.Request) reply // nil is 200
}

type call struct {
	at     time.Time
	header http.Header
	body   string
}

// ServeHTTP is the receiver.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.mu.Lock()
	n, decide := len(w.calls), w.reply
	w.calls = append(w.calls, call{time.Now(), r.Header, string(body)})
	w.mu.Unlock()
	answer := status(200)
	if decide != nil {
		answer = decide(n, r)
	}
	if answer.code == 0 {
		panic(http.ErrAbortHandler)
	}
	for i := 0; i+1 < len(answer.header); i += 2 {
		rw.Header().Set(answer.header[i], answer.header[i+1])
	}
	rw.WriteHeader(answer.code)
	if answer.code != 204 && answer.code != 304 {
		_, _ = io.WriteString(rw, "an answer")
	}
}

func (w *world) all() []call {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]call(nil), w.calls...)
}

// reply is the receiver's response; code 0 breaks the connection.
type reply struct {
	code   int
	header []string
}

func status(code int, header ...string) reply { return reply{code, header} }

func newWorld(t *testing.T, dir string, decide func(int, *http.Request) reply) *world {
	t.Helper()
	return worldOn(t, testkit.Open(t, testkit.MigratedFile(t, dir)), decide)
}

func worldOn(t *testing.T, db *store.DB, decide func(int, *http.Request) reply) *world {
	t.Helper()
	w := &world{t: t, db: db, reply: decide, network: testkit.NewNetwork()}
	w.network.Serve(t, "receiver.test:80", w)
	w.engine = w.newEngine()
	kick := func(ids ...string) { w.engine.Kick(ids...) } // the engine of now
	w.runs = lifecycle.New(w.db, "http://runbell.test", kick)
	w.endpoints = endpoint.New(w.db, "http://runbell.test", func(string) error { return nil }, func(ids ...string) { w.engine.Changed(ids...) })
	testkit.Project(t, db, "shop")
	w.endpoint = w.hook("hook", "http://receiver.test/x", func(e *webhook.Endpoint) { e.Headers = map[string]string{"x-token": "t0ps3cret"} })
	return w
}

// newEngine is one over the world's database and network.
func (w *world) newEngine(set ...func(*dispatch.Options)) *dispatch.Engine {
	o := dispatch.Options{DB: w.db, Poster: outbound.NewPoster(10*time.Second, w.network.Dial), Schedule: dispatch.DefaultSchedule(), Version: "test",
		Log: slog.New(slog.DiscardHandler)}
	for _, f := range set {
		f(&o)
	}
	return dispatch.New(o)
}

// start runs the engine until the test ends, or stop is called.
func (w *world) start() {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.engine.Run(ctx)
	}()
	w.stop = sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(w.stop)
}

func (w *world) write(f func(context.Context, *store.Tx) error) {
	w.t.Helper()
	testkit.Write(w.t, w.db, f)
}

// hook adds an endpoint of the project.
func (w *world) hook(id, url string, set func(*webhook.Endpoint)) webhook.Endpoint {
	w.t.Helper()
	return testkit.Endpoint(w.t, w.db, "shop", func(e *webhook.Endpoint) {
		e.ID, e.URL = id, url
		if set != nil {
			set(e)
		}
	})
}

// settings are those of an endpoint, as they are stored.
func (w *world) settings(id string) (e webhook.Endpoint) {
	w.t.Helper()
	if err := w.db.Read(w.t.Context(), func(tx *store.Tx) (err error) {
		e, err = tx.Endpoint(w.t.Context(), id)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// join starts a run of one spec: RUN_START.
func (w *world) join(build string) lifecycle.Joined {
	w.t.Helper()
	j, err := w.runs.Join(w.t.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: build, Specs: []string{"a"}})
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// finish plays a run of one spec: RUN_START and RUN_FINISH.
func (w *world) finish(build string) {
	w.t.Helper()
	ctx := w.t.Context()
	j := w.join(build)
	c, err := w.runs.Claim(ctx, lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.runs.Complete(ctx, c.Instances[0].ID, nil, run.Outcome{Results: []run.Result{{State: run.Passed}}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) deliveries() (list []webhook.Delivery, attempts [][]webhook.Attempt) {
	w.t.Helper()
	return w.log("hook")
}

// log lists the deliveries of an endpoint, and their attempts.
func (w *world) log(endpointID string) (list []webhook.Delivery, attempts [][]webhook.Attempt) {
	w.t.Helper()
	if err := w.db.Read(w.t.Context(), func(tx *store.Tx) (err error) {
		list, _, err = tx.Deliveries(w.t.Context(), store.DeliveryFilter{EndpointID: endpointID}, store.Page{Limit: 10_000})
		slices.SortFunc(list, func(a, b webhook.Delivery) int { return cmp.Compare(a.Sequence, b.Sequence) })
		for _, d := range list {
			a, err := tx.Attempts(w.t.Context(), d.ID)
			if err != nil {
				return err
			}
			attempts = append(attempts, a)
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return list, attempts
}

// bubble runs a test on virtual time, with a directory made outside of it.
func bubble(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "runbell-dispatch-") // in memory where the system offers that: time is all that counts
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	synctest.Test(t, func(t *testing.T) { f(t, dir) })
}

// TestARequest: everything the contract says of it, and a log without secrets.
func TestARequest(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		w.start()
		w.finish("b1")
		synctest.Wait()
		calls := w.all()
		if len(calls) != 2 {
			t.Fatalf("%d requests, want 2", len(calls))
		}
		key, err := w.endpoint.Secret.Key()
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range calls {
			h := c.header
			for name, want := range map[string]string{"Content-Type": "application/json", "User-Agent": "Runbell/test", "X-Runbell-Attempt": "1",
				"X-Token": "t0ps3cret", "X-Timestamp": fmt.Sprint(c.at.UnixMilli()), "Webhook-Timestamp": fmt.Sprint(c.at.Unix()),
				"X-Runbell-Sequence": []string{"2", "3"}[i]} {
				if h.Get(name) != want {
					t.Errorf("%s is %q, want %q", name, h.Get(name), want)
				}
			}
			if !strings.HasPrefix(h.Get("Webhook-Id"), "evt_") || !webhook.Verify(h.Get("Webhook-Id"), c.at, []byte(c.body), key, h.Get("Webhook-Signature")) {
				t.Errorf("request %d is not signed: %v", i, h)
			}
			if err := testkit.CheckPayload([]byte(c.body)); err != nil {
				t.Error(err)
			}
		}
		list, attempts := w.deliveries()
		for i, d := range list {
			if d.State != webhook.Delivered || len(attempts[i]) != 1 || attempts[i][0].Class != webhook.OK || attempts[i][0].Status != 200 {
				t.Errorf("delivery %+v with attempts %+v", d, attempts[i])
			}
			if log, _ := json.Marshal(attempts[i]); strings.Contains(string(log), "t0ps3cret") {
				t.Errorf("the log holds the value of a custom header: %s", log)
			}
		}
	})
}

// TestRetries: by the schedule, jittered, with the same id and body each time,
// until the last wait is over; then the delivery has failed.
func TestRetries(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, func(int, *http.Request) reply { return status(500) })
		w.start()
		if _, err := w.runs.Join(t.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: "b1", Specs: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * 24 * time.Hour)
		synctest.Wait()
		schedule := dispatch.DefaultSchedule()
		calls := w.all()
		if len(calls) != len(schedule)+1 {
			t.Fatalf("%d attempts, want %d", len(calls), len(schedule)+1)
		}
		for i, c := range calls {
			if c.header.Get("Webhook-Id") != calls[0].header.Get("Webhook-Id") || c.body != calls[0].body {
				t.Errorf("attempt %d has another id or body", i+1)
			}
			if c.header.Get("X-Runbell-Attempt") != fmt.Sprint(i+1) {
				t.Errorf("attempt %d says it is %s", i+1, c.header.Get("X-Runbell-Attempt"))
			}
			if i == 0 {
				continue
			}
			wait, planned := c.at.Sub(calls[i-1].at), schedule[i-1]
			if wait < planned*8/10 || wait > planned*12/10+time.Second {
				t.Errorf("attempt %d came after %s, want %s within 20 %%", i+1, wait, planned)
			}
		}
		list, attempts := w.deliveries()
		if list[0].State != webhook.Failed || len(attempts[0]) != len(calls) || attempts[0][3].Class != webhook.BadStatus || string(attempts[0][3].ResponseBody) != "an answer" {
			t.Errorf("delivery %+v, attempts %+v", list[0], attempts[0])
		}
	})
}

// TestOrder: the end of a run waits for the quick retries of its start; other runs do
// not wait at all.
func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		failures int // of the first event's attempts
		want     string
	}{
		"a quick retry is waited for": {1, "b1 START, b2 START, b2 FINISH, b1 START, b1 FINISH"},
		"a slow one is overtaken":     {100, "b1 START, b2 START, b2 FINISH, b1 START, b1 START, b1 FINISH"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				var first string
				failed := 0
				w := newWorld(t, dir, nil)
				w.reply = func(_ int, r *http.Request) reply {
					id := r.Header.Get("Webhook-Id")
					if first == "" {
						first = id
					}
					if id == first && failed < c.failures {
						failed++
						return status(500)
					}
					return status(200)
				}
				w.start()
				w.finish("b1")
				synctest.Wait()
				w.finish("b2")
				time.Sleep(50 * time.Second)
				synctest.Wait()
				var got []string
				for _, call := range w.all() {
					var p struct{ Event, BuildID string }
					if err := json.Unmarshal([]byte(call.body), &p); err != nil {
						t.Fatal(err)
					}
					got = append(got, p.BuildID+" "+strings.TrimPrefix(p.Event, "RUN_"))
				}
				if line := strings.Join(got, ", "); line != c.want {
					t.Errorf("order: %s\nwant:  %s", line, c.want)
				}
			})
		})
	}
}

// TestRestart: what was in flight when a process died is sent by the next one.
func TestRestart(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		w.finish("b1")
		w.start()
		synctest.Wait()
		if n := len(w.all()); n != 2 {
			t.Errorf("%d requests after the restart, want 2", n)
		}
	})
}

// TestStop: no new claims, but what is in flight is finished and recorded.
func TestStop(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		release := make(chan struct{})
		w := newWorld(t, dir, func(int, *http.Request) reply { <-release; return status(200) })
		w.start()
		w.finish("b1")
		synctest.Wait()
		go func() {
			time.Sleep(3 * time.Second)
			close(release)
		}()
		w.stop()
		list, _ := w.deliveries()
		if len(w.all()) != 1 || list[0].State != webhook.Delivered || list[1].State != webhook.Waiting {
			t.Errorf("after the stop: %d requests, deliveries %+v", len(w.all()), list)
		}
	})
}

// TestStopWhileALaneReads: that the read ends then is no error.
func TestStopWhileALaneReads(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		var lines bytes.Buffer
		w.engine = w.newEngine(func(o *dispatch.Options) { o.Log = slog.New(slog.NewTextHandler(&lines, nil)) })
		w.start()
		synctest.Wait()
		release := make(chan struct{})
		var others sync.WaitGroup
		for range 100 { // more than may read at once
			others.Go(func() { _ = w.db.Read(t.Context(), func(*store.Tx) error { <-release; return nil }) })
		}
		synctest.Wait()
		w.engine.Kick(w.endpoint.ID)
		synctest.Wait()
		w.stop()
		close(release)
		others.Wait()
		if lines.Len() > 0 {
			t.Errorf("it complains:\n%s", lines.String())
		}
	})
}

// TestAnUnreadableSecret: an endpoint whose secret was stored with another key
// cannot be called, and holds up no other.
func TestAnUnreadableSecret(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		sealer, err := webhook.NewSealer([]byte(strings.Repeat("k", webhook.SealKeySize)))
		if err != nil {
			t.Fatal(err)
		}
		url := testkit.MigratedFile(t, dir)
		other, err := store.Open(t.Context(), url, sealer)
		if err != nil {
			t.Fatal(err)
		}
		testkit.Project(t, other, "before")
		testkit.Endpoint(t, other, "before", func(e *webhook.Endpoint) { e.ID, e.URL = "unreadable", "http://receiver.test/y" })
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		w := worldOn(t, testkit.Open(t, url), nil)
		w.start()
		if _, err := w.runs.Join(t.Context(), lifecycle.Join{ProjectID: "before", CIBuildID: "b1", Specs: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		w.finish("b1")
		synctest.Wait()
		if n := len(w.all()); n != 2 {
			t.Errorf("%d requests, want the 2 to the other endpoint", n)
		}
		if err := w.db.Read(t.Context(), func(tx *store.Tx) error {
			list, _, err := tx.Deliveries(t.Context(), store.DeliveryFilter{EndpointID: "unreadable"}, store.Page{Limit: 1})
			if err != nil {
				return err
			}
			attempts, err := tx.Attempts(t.Context(), list[0].ID)
			if len(attempts) != 1 || attempts[0].Class != webhook.BadRequest || !strings.Contains(attempts[0].Error, "RUNBELL_SECRET_KEY") {
				t.Errorf("attempts: %+v", attempts)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestManyNodes: engines that share a PostgreSQL database share the work, and
// send nothing twice.
func TestManyNodes(t *testing.T) {
	url := testkit.Migrated(t)
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{})
	const builds = 40
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Header.Get("Webhook-Id")]++
		if len(seen) == 2*builds {
			close(all)
		}
	}))
	t.Cleanup(receiver.Close)
	var runs *lifecycle.Service
	for node := range 3 {
		db := testkit.Open(t, url)
		if node == 0 {
			testkit.Project(t, db, "shop")
			testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) { e.URL = receiver.URL })
			runs = lifecycle.New(db, "http://runbell.test", func(...string) {})
		}
		engine := dispatch.New(dispatch.Options{DB: db, Poster: outbound.NewGuard(loopback()).Poster(outbound.Options{Timeout: 10 * time.Second}), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); engine.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
	}
	w := &world{t: t, runs: runs}
	for i := range builds {
		w.finish(fmt.Sprint("b", i))
	}
	select {
	case <-all:
	case <-time.After(60 * time.Second):
		t.Fatalf("%d of %d events arrived", len(seen), 2*builds)
	}
	mu.Lock()
	defer mu.Unlock()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
}

func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// A timer does not notice that the clock was set forward, or that the machine was
// suspended. For the engine this is the same as a retry that is due earlier than
// it was when the engine went to sleep.
func TestEngineNoticesThatTheClockMoved(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, func(n int, _ *http.Request) reply { return status(map[bool]int{true: 503, false: 200}[n == 0]) })
		w.engine = w.newEngine(func(o *dispatch.Options) { o.Schedule = dispatch.Schedule{24 * time.Hour} })
		w.start()
		w.join("b1")
		time.Sleep(time.Hour)
		synctest.Wait()
		list, _ := w.deliveries()
		if n := len(w.all()); n != 1 || len(list) != 1 {
			t.Fatalf("%d requests, %d deliveries, want one of each", n, len(list))
		}
		w.write(func(ctx context.Context, tx *store.Tx) error { return tx.RequeueDelivery(ctx, list[0].ID) }) // nobody is told
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if n := len(w.all()); n != 2 {
			t.Errorf("%d requests after 6 seconds, want 2", n)
		}
	})
}
