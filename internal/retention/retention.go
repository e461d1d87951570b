// Package retention removes old data. One [Sweeper] removes everything that grows. sweeps.go lists the kinds of data,
// and due.go finds the artifacts that are due.
package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	// every is the time between two sweeps.
	every = time.Hour
	// again is the time until the next try if another process is sweeping.
	again = time.Minute
	// pause is the least time between two transactions that remove something, so that
	// requests and deliveries come first. One that took long, because the disk or the
	// database is busy, is followed by a pause of pauses times as long.
	pause  = 10 * time.Millisecond
	pauses = 4
	// filesAtOnce limits how many files are deleted between two pauses.
	filesAtOnce = 100
)

// Files is where the files of artifacts are.
type Files interface {
	// DeleteFiles deletes up to limit of the files that are due, and reports how many
	// it deleted and whether there may be more.
	DeleteFiles(ctx context.Context, limit int) (deleted int, more bool, err error)
}

// Sweeper removes old data. Of all sweepers on one database, in any number of
// processes, one works at a time.
type Sweeper struct {
	db      *store.DB
	files   Files
	log     *slog.Logger
	removed *prometheus.CounterVec
	wake    chan struct{}
}

// New makes a sweeper, and registers its metrics. files is nil if artifacts are off.
func New(db *store.DB, files Files, log *slog.Logger, metrics prometheus.Registerer) *Sweeper {
	s := &Sweeper{db: db, files: files, log: log, wake: make(chan struct{}, 1),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "runbell_retention_removed_total",
			Help: "Data that was removed by retention or deleted by a person, by kind."}, []string{"what"})}
	for _, sweep := range s.sweeps() {
		s.removed.WithLabelValues(sweep.what) // 0 until something is removed
	}
	metrics.MustRegister(s.removed, usage{db})
	return s
}

// Run sweeps now, every hour and when something was deleted, until ctx ends.
func (s *Sweeper) Run(ctx context.Context) {
	for {
		wait := every
		if _, ran, err := s.Sweep(ctx); !ran && err == nil {
			wait = again // the other may end halfway
		}
		select {
		case <-time.After(wait):
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

// Report is what a sweep removed, or would remove.
type Report struct {
	Projects    map[string]store.Removed // by id, without projects that lose nothing
	Files       int                      // deleted from the store of artifacts
	Sessions    int
	Invitations int
	// More means that the sweep ended before everything was removed.
	More bool
}

func (r *Report) add(projectID string, n store.Removed) {
	if n == (store.Removed{}) {
		return
	}
	if r.Projects == nil {
		r.Projects = map[string]store.Removed{}
	}
	r.Projects[projectID] = r.Projects[projectID].Plus(n)
}

// Sweep removes everything past its retention, unless another sweeper is running:
// then ran is false. If something fails, it logs the error, continues with the rest,
// and leaves the others to the next sweep. If ctx ends first, the report says so.
func (s *Sweeper) Sweep(ctx context.Context) (report Report, ran bool, err error) {
	ran, err = s.db.Alone(ctx, "retention", func(ctx context.Context) error {
		var failed []error
		for _, sweep := range s.sweeps() {
			failed = append(failed, s.all(ctx, sweep, &report))
		}
		report.More = ctx.Err() != nil
		return errors.Join(append(failed, s.note(context.WithoutCancel(ctx), report))...)
	})
	if err != nil && !ran && ctx.Err() == nil {
		s.log.Error("cannot begin to remove old data, trying again later", "error", err)
	}
	return report, ran, err
}

// all takes the steps of one sweep until there is nothing left to remove.
func (s *Sweeper) all(ctx context.Context, sweep sweep, report *Report) (err error) {
	started, total, step := time.Now(), 0, sweep.begin()
	pace := newPace(s.db)
	for more := true; more && ctx.Err() == nil; {
		began, n := time.Now(), 0
		n, more, err = step(ctx, pace, report)
		total += n
		s.removed.WithLabelValues(sweep.what).Add(float64(n))
		if err != nil {
			break
		}
		if n > 0 && more && !sleep(ctx, max(pause, pauses*time.Since(began))) {
			break
		}
	}
	if total > 0 {
		s.log.Info("removed old "+sweep.what, "count", total, "duration", time.Since(started))
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		s.log.Error("cannot remove old "+sweep.what+", trying again later", "error", err)
		return fmt.Errorf("remove old %s: %w", sweep.what, err)
	}
	return nil
}

// note stores what was removed from each project, for its page.
func (s *Sweeper) note(ctx context.Context, report Report) error {
	var failed []error
	for _, id := range slices.Sorted(maps.Keys(report.Projects)) {
		n := report.Projects[id]
		s.log.Info("removed old data of a project", "project", id, "runs", n.Runs, "artifacts", n.Artifacts, "artifact_bytes",
			n.ArtifactBytes, "console_outputs", n.Outputs, "deliveries", n.Deliveries)
		failed = append(failed, s.db.Write(ctx, func(tx *store.Tx) error { return tx.NoteSweep(ctx, id, n) }))
	}
	return errors.Join(failed...)
}

// DeleteRun removes a run that has ended. It is gone at once; the rows of its specs
// and its files follow. Its deliveries stay in their log.
func (s *Sweeper) DeleteRun(ctx context.Context, id string) error {
	err := s.db.Write(ctx, func(tx *store.Tx) error {
		r, err := tx.LockRun(ctx, id)
		if err != nil {
			return err
		}
		if !r.State.Terminal() {
			return run.Errorf(run.Conflict, "The run is still running: cancel it first, then delete it.")
		}
		if r, err = tx.Run(ctx, id); err != nil {
			return err
		}
		if !r.PinnedAt.IsZero() {
			return run.Errorf(run.Conflict, "The run is pinned: unpin it first, then delete it.")
		}
		_, err = tx.RemoveRun(ctx, id)
		return err
	})
	if err == nil {
		s.Wake()
	}
	return err
}

// DeleteRuns removes all runs of a project, whatever their state. The rows of their
// specs and their files follow.
func (s *Sweeper) DeleteRuns(ctx context.Context, projectID string) error {
	defer s.Wake()
	pace := newPace(s.db)
	for {
		limit, deleted := pace.runs(), 0
		_, err := pace.remove(ctx, func(tx *store.Tx, _ int) (int, error) {
			ids, err := tx.RunsToDelete(ctx, projectID, limit)
			deleted = len(ids)
			for _, id := range ids {
				if _, err := tx.RemoveRun(ctx, id); err != nil {
					return 0, err
				}
			}
			return deleted * rowsOfRun, err
		})
		if err != nil || deleted < limit {
			return err
		}
	}
}

// Wake makes Run sweep soon.
func (s *Sweeper) Wake() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
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
