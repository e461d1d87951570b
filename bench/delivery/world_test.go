// Package delivery measures the delivery engine beside a bare client that does
// only sends: throughput, latency, isolation, scale. All of it runs in one
// process with its receivers, on a real database and real sockets, and every
// outcome is durable. See docs/performance.md.
package delivery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"runbell/internal/dispatch"
	"runbell/internal/lifecycle"
	"runbell/internal/outbound"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// As 'runbell serve' sets it.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// each runs a benchmark on each database; fresh makes one and answers its URL.
func each(b *testing.B, f func(b *testing.B, fresh func() string)) {
	b.Run("sqlite", func(b *testing.B) {
		// As 'runbell serve' does, unless GOMAXPROCS is set.
		if _, set := os.LookupEnv("GOMAXPROCS"); !set {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1))
		}
		f(b, func() string { return "sqlite:" + b.TempDir() + "/runbell.db" })
	})
	b.Run("postgres", func(b *testing.B) {
		cluster := testkit.PostgresCluster(b, "fsync=on", "full_page_writes=on") // as it comes
		f(b, func() string { return cluster.Database(b) })
	})
}

// project stores a project with endpoints at url, and answers their ids.
func project(b *testing.B, db *store.DB, id string, endpoints, inFlight int, url func(n int) string) []string {
	b.Helper()
	var ids []string
	write(b, db, func(ctx context.Context, tx *store.Tx) error {
		p := run.NewProject(id)
		p.CreatedAt = tx.Now
		if _, err := tx.InsertProject(ctx, p); err != nil {
			return err
		}
		ids = nil
		for n := range endpoints {
			ids = append(ids, fmt.Sprintf("%s-%d", id, n))
			e := webhook.NewEndpoint(ids[n], id)
			e.URL, e.MaxInFlight, e.Secret, e.CreatedAt, e.UpdatedAt = url(n), inFlight, webhook.NewSecret(), tx.Now, tx.Now
			if err := tx.InsertEndpoint(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return ids
}

func write(b *testing.B, db *store.DB, f func(context.Context, *store.Tx) error) {
	b.Helper()
	if err := db.Write(b.Context(), func(tx *store.Tx) error { return f(b.Context(), tx) }); err != nil {
		b.Fatal(err)
	}
}

// happen stores the start of a run, as the life cycle does, and answers the
// event's id and the endpoints that were told.
func happen(ctx context.Context, tx *store.Tx, projectID string) (string, []string, error) {
	id := webhook.NewID("", tx.Now)
	r := run.Run{ID: id, ProjectID: projectID, CIBuildID: "build-" + id, CreatedAt: tx.Now, Commit: run.Commit{SHA: "5a7edc9a156e417068060d67109021351fc7d9b8",
		Branch: "feature-A", AuthorName: "John Doe", AuthorEmail: "john@doe.com", Message: "feat: change button color", RemoteOrigin: "https://github.com/org/repo.git"}}
	if _, err := tx.InsertRun(ctx, r); err != nil {
		return "", nil, err
	}
	e := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: projectID, RunID: id, Group: "g", Scope: run.GroupScope, Kind: webhook.RunStart, Sequence: 2, CreatedAt: tx.Now,
		Payload: webhook.NewPayload(webhook.RunStart, r, nil, run.Counts{}, "https://runbell.example.com/run/"+id, "main").Bytes()}
	told, _, err := lifecycle.FanOut(ctx, tx, e, webhook.Subject{}, &run.Group{Name: "g"})
	return e.ID, told, err
}

// fill stores events until n deliveries wait.
func fill(b *testing.B, db *store.DB, projectID string, n int) {
	b.Helper()
	var group errgroup.Group
	const writers = 4
	for range writers {
		group.Go(func() error {
			for left := n / writers; left > 0; {
				stored := 0
				err := db.Write(b.Context(), func(tx *store.Tx) error {
					for stored = 0; stored < min(left, 400); {
						_, told, err := happen(b.Context(), tx, projectID)
						if err != nil {
							return err
						}
						stored += len(told)
					}
					return nil
				})
				if err != nil {
					return err
				}
				left -= stored
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

// start runs an engine until the benchmark ends, or stop is called: then all it
// sent is recorded.
func start(b *testing.B, db *store.DB) (engine *dispatch.Engine, stop func()) {
	b.Helper()
	// The log is written, to nowhere, as it would be.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	poster := outbound.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}).Poster(outbound.Options{Timeout: 10 * time.Second})
	engine = dispatch.New(dispatch.Options{DB: db, Poster: poster, Schedule: dispatch.DefaultSchedule(), Version: "bench", Log: slog.New(slog.NewTextHandler(null, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		engine.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
		_ = null.Close()
	})
	b.Cleanup(stop)
	return engine, stop
}

// receiver answers 200 to everything and notes when it came.
type receiver struct {
	url  string
	n    atomic.Int64
	seen sync.Map // Webhook-Id -> time.Time, if noted
	note bool
}

func newReceiver(b *testing.B, note bool) *receiver {
	b.Helper()
	r := &receiver{note: note}
	r.url = "http://" + serve(b, http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if r.note {
			r.seen.LoadOrStore(req.Header.Get("Webhook-Id"), time.Now())
		}
		_, _ = io.Copy(io.Discard, req.Body)
		r.n.Add(1)
	})) + "/hook"
	return r
}

func serve(b *testing.B, h http.Handler) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(l) }()
	b.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// deadEnd accepts connections and never answers.
func deadEnd(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
		}
	}()
	b.Cleanup(func() {
		_ = l.Close()
		<-done
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return "http://" + l.Addr().String() + "/hook"
}

// bareRequest is the same bytes as the engine sends, but made once.
func bareRequest(url string, body []byte) *http.Request {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "User-Agent": "Runbell/bench", "X-Timestamp": "1732350000123",
		"Webhook-Id": "evt_0123456789abcdefghijklmnop", "Webhook-Timestamp": "1732350000", "Webhook-Signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
		"X-Runbell-Attempt": "1", "X-Runbell-Sequence": "2"} {
		req.Header.Set(name, value)
	}
	return req
}

// samplePayload is a body of the usual size.
func samplePayload() []byte {
	return webhook.NewPayload(webhook.RunStart, run.Run{CIBuildID: "build-0123456789abcdefghijklmnop", Commit: run.Commit{SHA: "5a7edc9a156e417068060d67109021351fc7d9b8",
		Branch: "feature-A", AuthorName: "John Doe", AuthorEmail: "john@doe.com", Message: "feat: change button color", RemoteOrigin: "https://github.com/org/repo.git"}},
		nil, run.Counts{}, "https://runbell.example.com/run/0123456789abcdefghijklmnop", "main").Bytes()
}

// quantile is of a sorted list.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// report prints what latencies came to.
func report(b *testing.B, name string, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Printf("%-60s n=%d p50 %.2f ms, p99 %.2f ms, longest %.2f ms\n", b.Name()+" "+name, len(took), ms(quantile(took, .5)), ms(quantile(took, .99)), ms(quantile(took, 1)))
}
