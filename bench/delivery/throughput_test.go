package delivery

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runbell/internal/testkit"
)

const (
	throughputDeliveries = 60_000
	throughputEndpoints  = 4
	throughputInFlight   = 16 // of each, which is the default
	throughputRounds     = 3
)

// BenchmarkThroughput: deliveries a second, from rows committed in the database
// until their outcomes are committed, beside a bare loop of Go's client that
// posts the same bytes with the same concurrency. In turns.
func BenchmarkThroughput(b *testing.B) {
	each(b, func(b *testing.B, url string) {
		db := testkit.Open(b, url)
		r := newReceiver(b, false)
		var bare, engine []float64
		for round := range throughputRounds {
			id := fmt.Sprintf("p%d", round)
			project(b, db, id, throughputEndpoints, throughputInFlight, func(int) string { return r.url })
			fill(b, db, id, throughputDeliveries)
			bare = append(bare, bareRate(b, r.url, throughputDeliveries, throughputEndpoints*throughputInFlight))

			r.n.Store(0)
			began := time.Now()
			_, stop := start(b, db)
			for r.n.Load() < throughputDeliveries {
				time.Sleep(time.Millisecond)
			}
			stop() // when everything is recorded
			engine = append(engine, throughputDeliveries/time.Since(began).Seconds())
			fmt.Printf("%s: bare loop %.0f/s, engine %.0f/s, ratio %.2f\n", b.Name(), bare[round], engine[round], engine[round]/bare[round])
		}
		slices.Sort(bare)
		slices.Sort(engine)
		b.ReportMetric(engine[len(engine)/2], "deliveries/s")
		b.ReportMetric(bare[len(bare)/2], "bare/s")
		b.ReportMetric(engine[len(engine)/2]/bare[len(bare)/2], "of-bare")
	})
}

// bareRate posts n times, as fast as so many at once go.
func bareRate(b *testing.B, url string, n, concurrency int) float64 {
	b.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConns: concurrency, MaxIdleConnsPerHost: concurrency}}
	body := samplePayload()
	var next, failed atomic.Int64
	var senders sync.WaitGroup
	began := time.Now()
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
	took := time.Since(began)
	client.CloseIdleConnections()
	if failed.Load() > 0 {
		b.Fatalf("%d requests of the bare loop failed", failed.Load())
	}
	return float64(n) / took.Seconds()
}
