package store_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// BenchmarkRecordAttempts records first attempts that were delivered, 256 in a
// transaction. Its number is what each costs in the median of the transactions.
func BenchmarkRecordAttempts(b *testing.B) {
	const batch = 256
	for name, url := range map[string]func() string{
		"sqlite":   func() string { return "sqlite:" + b.TempDir() + "/runbell.db" },
		"postgres": func() string { return testkit.PostgresCluster(b, "fsync=on", "full_page_writes=on").Database(b) },
	} {
		b.Run(name, func(b *testing.B) {
			db := testkit.Open(b, url())
			p := testkit.Project(b, db, "shop")
			var ids []string
			for range 4 {
				ids = append(ids, testkit.Endpoint(b, db, p.ID).ID)
			}
			payload := endpoint.Sample(webhook.RunFinish, run.NewProject("shop"), "https://runbell.example", time.Now()).Payload.Bytes()
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				testkit.Write(b, db, func(ctx context.Context, tx *store.Tx) error {
					for i := range batch {
						e := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: p.ID, Scope: run.GroupScope, Kind: webhook.RunFinish, Payload: payload, CreatedAt: tx.Now}
						if _, err := tx.InsertTest(ctx, webhook.NewEndpoint(ids[i%len(ids)], p.ID), e); err != nil {
							return err
						}
					}
					return nil
				})
				var outcomes []*store.Outcome
				testkit.Read(b, db, func(ctx context.Context, tx *store.Tx) error {
					for _, id := range ids {
						work, err := tx.Work(ctx, id, store.QueuePosition{}, batch, nil)
						if err != nil {
							return err
						}
						for _, c := range work.Claims {
							outcomes = append(outcomes, &store.Outcome{Delivery: c.Delivery, EndedAt: tx.Now, Decision: webhook.Decision{State: webhook.Delivered},
								Attempt: webhook.Attempt{Number: 1, StartedAt: tx.Now, Duration: time.Millisecond, Class: webhook.OK, Status: 200}})
						}
					}
					return nil
				})
				if len(outcomes) != batch {
					b.Fatalf("%d to record, want %d", len(outcomes), batch)
				}
				b.StartTimer()
				began := time.Now()
				testkit.Write(b, db, func(ctx context.Context, tx *store.Tx) error {
					_, err := tx.RecordAttempts(ctx, "", outcomes)
					return err
				})
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/batch, "µs/delivery")
		})
	}
}
