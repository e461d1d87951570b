package dispatch

import (
	"context"

	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	// perRecord is roughly how many outcomes share a transaction. More would delay
	// the other writers of a SQLite database.
	perRecord = 256
	// giveUpAfter limits how often a batch is tried. Deliveries that could not be
	// recorded are sent once more.
	giveUpAfter = 60
)

// batch is the outcomes that a lane has to record.
type batch struct {
	lane     *lane
	outcomes []*store.Outcome
}

// recorder stores the outcomes of many lanes in one transaction.
type recorder struct {
	engine *Engine
	in     chan batch // unbuffered: while it is busy, lanes collect
}

func newRecorder(e *Engine) *recorder { return &recorder{engine: e, in: make(chan batch)} }

// transactions is how many transactions run at once. On SQLite they would take turns.
// On PostgreSQL the second one works while the first waits for the server.
func (r *recorder) transactions() int {
	if r.engine.DB.Shared() {
		return 2
	}
	return 1
}

// stop ends run. No lane may send to it any more.
func (r *recorder) stop() { close(r.in) }

func (r *recorder) run(ctx context.Context) {
	for first := range r.in {
		batches, outcomes := []batch{first}, first.outcomes
	more:
		for len(outcomes) < perRecord {
			select {
			case b, ok := <-r.in:
				if !ok {
					break more
				}
				batches = append(batches, b)
				outcomes = append(outcomes, b.outcomes...)
			default:
				break more
			}
		}
		r.record(ctx, outcomes)
		for _, b := range batches {
			b.lane.hasRecorded(b.outcomes)
		}
	}
}

func (r *recorder) record(ctx context.Context, outcomes []*store.Outcome) {
	var notices []store.Notice
	for range giveUpAfter {
		err := r.engine.DB.Write(ctx, func(tx *store.Tx) (err error) {
			notices, err = tx.RecordAttempts(ctx, r.engine.node, outcomes)
			return err
		})
		if err == nil {
			break
		}
		r.engine.Log.Error("cannot record webhook attempts, trying again", "attempts", len(outcomes), "error", err)
		pause(ctx, errorPause)
	}
	for _, n := range notices {
		if n.Kind == webhook.WasDisabled {
			r.engine.metrics.disabled.Inc()
		}
		r.engine.Log.Warn("webhook "+string(n.Kind), "endpoint", n.EndpointID, "reason", n.Text)
	}
}
