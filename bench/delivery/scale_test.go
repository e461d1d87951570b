package delivery

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// BenchmarkScale: what a new delivery costs, to queue and to claim and record,
// with 1,000,000 finished and 100,000 waiting deliveries in the database, beside
// an empty one. In turns.
func BenchmarkScale(b *testing.B) {
	const finished, waiting = 1_000_000, 100_000
	each(b, func(b *testing.B, fresh func() string) {
		full, empty := testkit.Open(b, fresh()), testkit.Open(b, fresh())
		ids := project(b, full, "p", 3, 16, func(int) string { return "http://127.0.0.1:9/" })
		backlog(b, full, ids[0], finished)
		for n := finished; n > 0; {
			n -= len(conclude(b, full, ids[0], 256))
		}
		backlog(b, full, ids[1], waiting)
		project(b, empty, "p", 3, 16, func(int) string { return "http://127.0.0.1:9/" })
		var ratios [2][]float64
		for range 9 {
			a, c := cost(b, empty, ids[2]), cost(b, full, ids[2])
			for i := range a {
				ratios[i] = append(ratios[i], float64(c[i])/float64(a[i]))
			}
			fmt.Printf("%s: queue %s empty, %s full; claim and record %s empty, %s full, of each delivery\n", b.Name(), a[0], c[0], a[1], c[1])
		}
		for i, name := range []string{"queue-of-empty", "claim-of-empty"} {
			slices.Sort(ratios[i])
			b.ReportMetric(ratios[i][len(ratios[i])/2], name)
		}
	})
}

// cost is the time to queue, and to claim and record, of each of 1,024
// deliveries.
func cost(b *testing.B, db *store.DB, endpointID string) (out [2]time.Duration) {
	b.Helper()
	const n = 1024
	began := time.Now()
	backlog(b, db, endpointID, n)
	out[0] = time.Since(began) / n
	began = time.Now()
	for left := n; left > 0; {
		left -= len(conclude(b, db, endpointID, 256))
	}
	out[1] = time.Since(began) / n
	return out
}

// backlog queues deliveries at one endpoint.
func backlog(b *testing.B, db *store.DB, endpointID string, n int) {
	b.Helper()
	payload := samplePayload()
	for n > 0 {
		chunk := min(n, 256)
		write(b, db, func(ctx context.Context, tx *store.Tx) error {
			for range chunk {
				e := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: "p", Scope: run.GroupScope, Kind: webhook.RunStart, Payload: payload, CreatedAt: tx.Now}
				if _, err := tx.InsertTest(ctx, webhook.NewEndpoint(endpointID, "p"), e); err != nil {
					return err
				}
			}
			return nil
		})
		n -= chunk
	}
}

// conclude claims deliveries and records that they were delivered.
func conclude(b *testing.B, db *store.DB, endpointID string, limit int) []*store.Outcome {
	b.Helper()
	var work store.Work
	if err := db.Read(b.Context(), func(tx *store.Tx) (err error) {
		work, err = tx.Work(b.Context(), endpointID, store.QueuePosition{}, limit, nil)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	outcomes := make([]*store.Outcome, len(work.Claims))
	for i, c := range work.Claims {
		outcomes[i] = &store.Outcome{Delivery: c.Delivery, EndedAt: db.Now(), Decision: webhook.Decision{State: webhook.Delivered},
			Attempt: webhook.Attempt{Number: 1, StartedAt: db.Now(), Duration: time.Millisecond, Class: webhook.OK, Status: 200}}
	}
	write(b, db, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.RecordAttempts(ctx, "", outcomes)
		return err
	})
	return outcomes
}
