package delivery

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"runbell/internal/dispatch"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// BenchmarkLatency: from an event's commit to its receipt, at 50 events a
// second; beside a bare client at the same pace. On PostgreSQL the event commits
// at one process and the endpoint's lane is another's.
func BenchmarkLatency(b *testing.B) {
	const perSecond, seconds = 50, 12
	b.Run("bare", func(b *testing.B) {
		r := newReceiver(b, false)
		client := &http.Client{Timeout: 10 * time.Second}
		var took []time.Duration
		paced(perSecond, seconds, func(int) {
			began := time.Now()
			resp, err := client.Do(bareRequest(r.url, samplePayload()))
			if err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		})
		report(b, "round trip", took)
	})
	each(b, func(b *testing.B, fresh func() string) {
		r, url := newReceiver(b, true), fresh()
		db := testkit.Open(b, url)
		project(b, db, "p", 1, 16, func(int) string { return r.url })
		engine, _ := start(b, db)
		if !db.Shared() {
			report(b, "one process", paceEvents(b, db, engine, "p", r, perSecond, seconds))
			return
		}
		// The first event makes the lane the first process's. The others commit at
		// the second.
		paceEvents(b, db, engine, "p", r, 1, 1)
		other := testkit.Open(b, url)
		second, _ := start(b, other)
		report(b, "committed at another process", paceEvents(b, other, second, "p", r, perSecond, seconds))
	})
}

// paced calls f this many times a second.
func paced(perSecond, seconds int, f func(n int)) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for n := range perSecond * seconds {
		<-tick.C
		f(n)
	}
}

// paceEvents commits events at a pace and answers how long each took to the
// receiver.
func paceEvents(b *testing.B, db *store.DB, engine *dispatch.Engine, projectID string, r *receiver, perSecond, seconds int) []time.Duration {
	b.Helper()
	committed := map[string]time.Time{}
	paced(perSecond, seconds, func(int) {
		var id string
		var told []string
		write(b, db, func(ctx context.Context, tx *store.Tx) (err error) {
			id, told, err = happen(ctx, tx, projectID)
			return err
		})
		committed[id] = time.Now()
		engine.Kick(told...)
	})
	var took []time.Duration
	deadline := time.Now().Add(20 * time.Second)
	for id, at := range committed {
		for {
			if seen, ok := r.seen.Load(id); ok {
				took = append(took, max(0, seen.(time.Time).Sub(at)))
				break
			}
			if time.Now().After(deadline) {
				b.Fatalf("%s did not arrive", id)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return took
}

// BenchmarkIsolation: what a healthy endpoint notices of dead ones that never
// answer, at 20 events a second to all of them.
func BenchmarkIsolation(b *testing.B) {
	const perSecond, seconds = 20, 12
	for _, c := range []struct {
		name          string
		dead, backlog int
	}{
		{"alone", 0, 0},
		{"one dead", 1, 0},
		{"one dead with a backlog of 100,000", 1, 100_000},
		{"200 dead", 200, 0},
	} {
		b.Run(strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			each(b, func(b *testing.B, fresh func() string) {
				db := testkit.Open(b, fresh())
				r, dead := newReceiver(b, true), deadEnd(b)
				ids := project(b, db, "p", c.dead+1, 16, func(n int) string {
					if n > 0 {
						return dead
					}
					return r.url
				})
				if c.backlog > 0 {
					backlog(b, db, ids[1], c.backlog)
				}
				engine, _ := start(b, db)
				report(b, fmt.Sprint(c.dead, " dead"), paceEvents(b, db, engine, "p", r, perSecond, seconds))
			})
		})
	}
}
