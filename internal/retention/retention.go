// Package retention removes what has outlived its use. One [Sweeper] does it for
// everything that grows; sweeps.go says what that is, and how long each is kept.
package retention

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/store"
)

const (
	// every is the time between two rounds.
	every = time.Hour
	// pause is the time between two transactions that remove something, so that
	// requests and deliveries come first.
	pause = 50 * time.Millisecond
	// batch limits how many rows, each with what belongs to it, one transaction removes.
	batch = 500
)

// Sweeper removes old rows. Any number of processes may run one on the same
// database: what one has removed, the others do not find.
type Sweeper struct {
	db      *store.DB
	log     *slog.Logger
	removed *prometheus.CounterVec
}

// New makes a sweeper, which registers the metric runbell_retention_removed_total.
func New(db *store.DB, log *slog.Logger, metrics prometheus.Registerer) *Sweeper {
	s := &Sweeper{db, log, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "runbell_retention_removed_total",
		Help: "Rows that were removed because their time was over, by what they were."}, []string{"what"})}
	for _, sweep := range sweeps() {
		s.removed.WithLabelValues(sweep.what) // 0 until something is removed
	}
	metrics.MustRegister(s.removed)
	return s
}

// Run removes what is old now, and again every hour, until ctx ends.
func (s *Sweeper) Run(ctx context.Context) {
	for {
		s.Sweep(ctx)
		if !sleep(ctx, every) {
			return
		}
	}
}

// Sweep is one round: it removes everything whose time is over. Where that fails,
// it logs the error, goes on with the next kind, and leaves the rest to the next round.
func (s *Sweeper) Sweep(ctx context.Context) {
	for _, sweep := range sweeps() {
		started := time.Now()
		removed, err := s.all(ctx, sweep)
		if err != nil && ctx.Err() == nil {
			s.log.Error("cannot remove old "+sweep.what+", trying again later", "error", err)
		}
		if removed > 0 {
			s.log.Info("removed old "+sweep.what, "count", removed, "duration", time.Since(started))
		}
	}
}

// all takes the steps of one sweep until there is nothing left to remove.
func (s *Sweeper) all(ctx context.Context, sweep sweep) (total int, err error) {
	step := sweep.begin(s.db)
	for {
		removed, more, err := step(ctx)
		total += removed
		s.removed.WithLabelValues(sweep.what).Add(float64(removed))
		if err != nil || !more || ctx.Err() != nil {
			return total, err
		}
		if removed > 0 && !sleep(ctx, pause) {
			return total, nil
		}
	}
}

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
