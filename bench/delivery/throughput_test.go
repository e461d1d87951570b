package delivery

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"runbell/internal/testkit"
)

const (
	throughputDeliveries = 20_000 // in each round: enough for the start of the engine not to count
	throughputEndpoints  = 4
	throughputInFlight   = 16 // of each, which is the default
	throughputRounds     = 15 // many short ones: a machine's speed changes within seconds
)

// BenchmarkThroughput: deliveries a second, from rows committed in the database
// until their outcomes are committed, beside a bare loop of Go's client that
// posts the same bytes with the same concurrency, half of them before and half
// after. The processors' time of each, receiver included, depends less on who else
// uses the machine.
func BenchmarkThroughput(b *testing.B) {
	each(b, func(b *testing.B, fresh func() string) {
		db := testkit.Open(b, fresh())
		r := newReceiver(b, false)
		var bare, engine, ratio, bareCPU, engineCPU []float64
		for round := range throughputRounds {
			id := fmt.Sprintf("p%d", round)
			project(b, db, id, throughputEndpoints, throughputInFlight, func(int) string { return r.url })
			fill(b, db, id, throughputDeliveries)
			bareLoop := func() (time.Duration, time.Duration) {
				return taken(b, func() { postBare(b, r.url, throughputDeliveries/2, throughputEndpoints*throughputInFlight) })
			}
			before, usedBefore := bareLoop()
			r.n.Store(0)
			took, used := taken(b, func() {
				_, stop := start(b, db)
				for r.n.Load() < throughputDeliveries {
					time.Sleep(time.Millisecond)
				}
				stop() // when everything is recorded
			})
			after, usedAfter := bareLoop()
			bare = append(bare, throughputDeliveries/(before+after).Seconds())
			bareCPU = append(bareCPU, (usedBefore+usedAfter).Seconds()/throughputDeliveries*1e6)
			engine = append(engine, throughputDeliveries/took.Seconds())
			engineCPU = append(engineCPU, used.Seconds()/throughputDeliveries*1e6)
			ratio = append(ratio, engine[round]/bare[round])
			fmt.Printf("%s: bare loop %.0f/s, %.0f µs of CPU each; engine %.0f/s, %.0f µs; ratio %.2f\n", b.Name(),
				bare[round], bareCPU[round], engine[round], engineCPU[round], ratio[round])
		}
		b.ReportMetric(median(engine), "deliveries/s")
		b.ReportMetric(median(bare), "bare/s")
		b.ReportMetric(median(ratio), "of-bare")
		b.ReportMetric(median(engineCPU), "cpu-µs/delivery")
		b.ReportMetric(median(bareCPU), "bare-cpu-µs")
	})
}

func median(of []float64) float64 {
	return slices.Sorted(slices.Values(of))[len(of)/2]
}

// taken is how long f takes, and what this process uses of the processors
// meanwhile. PostgreSQL is another one.
func taken(b *testing.B, f func()) (took, used time.Duration) {
	b.Helper()
	processors := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began, before := time.Now(), processors()
	f()
	return time.Since(began), processors() - before
}

// postBare posts n times, as fast as this many at once go.
func postBare(b *testing.B, url string, n, concurrency int) {
	b.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConns: concurrency, MaxIdleConnsPerHost: concurrency}}
	body := samplePayload()
	var next, failed atomic.Int64
	var senders sync.WaitGroup
	for range concurrency {
		senders.Go(func() {
			for next.Add(1) <= int64(n) {
				resp, err := client.Do(bareRequest(url, body))
				if err != nil {
					failed.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	senders.Wait()
	client.CloseIdleConnections()
	if failed.Load() > 0 {
		b.Fatalf("%d requests of the bare loop failed", failed.Load())
	}
}
