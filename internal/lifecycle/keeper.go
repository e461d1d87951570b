package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	// longestSleep limits how late the keeper notices what no timer can: the clock was
	// set, the machine was suspended, or another process set a deadline and died.
	longestSleep = 5 * time.Second
	// startGrace is the least time that a running group has when the server starts: no
	// machine could report while it was down, and reporters retry for less.
	startGrace = time.Minute
	sweepLimit = 256
)

// Keep watches the deadlines of groups and runs until ctx ends. Any number of
// processes may do so on one database.
func (s *Service) Keep(ctx context.Context, log *slog.Logger) {
	if !s.db.Shared() { // on a shared database another process may have received reports
		if err := s.db.Write(ctx, func(tx *store.Tx) error { return tx.ExtendDeadlines(ctx, startGrace) }); err != nil &&
			ctx.Err() == nil {
			log.Error("cannot extend deadlines at start", "error", err)
		}
	}
	for {
		next, err := s.Sweep(ctx)
		if err != nil && ctx.Err() == nil {
			log.Error("cannot check deadlines, trying again", "error", err)
			next = s.db.Now().Add(time.Second)
		}
		if latest := s.db.Now().Add(longestSleep); next.IsZero() || next.After(latest) {
			next = latest
		}
		s.sleepUntil(next)
		timer := time.NewTimer(next.Sub(s.db.Now()))
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
		s.sleepUntil(time.Time{})
	}
}

// sleepUntil stores until when the keeper sleeps; zero means that it is awake.
func (s *Service) sleepUntil(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextLook = t
}

// expect wakes the keeper if a deadline is earlier than the end of its sleep.
func (s *Service) expect(deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nextLook.IsZero() || deadline.Before(s.nextLook) {
		select {
		case s.wake <- struct{}{}:
		default: // it is already being woken
		}
	}
}

// Sweep times out groups whose inactivity timeout has passed, and closes runs whose
// completion delay has passed. It returns the next deadline, zero if there is none.
func (s *Service) Sweep(ctx context.Context) (time.Time, error) {
	for {
		var groups []store.GroupRef
		var runs []string
		var next time.Time
		err := s.read(ctx, func(tx *store.Tx) (err error) {
			if groups, err = tx.GroupsToLookAt(ctx, sweepLimit); err != nil {
				return err
			}
			if runs, err = tx.ClosingRuns(ctx, sweepLimit); err != nil {
				return err
			}
			next, _, err = tx.NextDeadline(ctx)
			return err
		})
		if err != nil || len(groups)+len(runs) == 0 {
			return next, err
		}
		var failed []error // a failure does not delay the others
		for _, g := range groups {
			failed = append(failed, s.look(ctx, g))
		}
		for _, id := range runs {
			failed = append(failed, s.closeRun(ctx, id))
		}
		if err := errors.Join(failed...); err != nil {
			return time.Time{}, err
		}
	}
}

// look times a group out if its inactivity timeout has passed, or stores when to look again.
func (s *Service) look(ctx context.Context, ref store.GroupRef) error {
	return s.write(ctx, func(tx *store.Tx, e *effect) error {
		r, err := tx.LockRun(ctx, ref.RunID)
		if err != nil {
			return err
		}
		g, err := tx.Group(ctx, ref.RunID, ref.Name)
		if err != nil || g.State != run.Running {
			return err
		}
		if tx.Now.Before(g.Deadline()) {
			return tx.LookAgain(ctx, g, g.Deadline())
		}
		_, err = s.step(ctx, tx, e, r, []run.Group{g}, run.Silence)
		return err
	})
}

func (s *Service) closeRun(ctx context.Context, id string) error {
	return s.write(ctx, func(tx *store.Tx, e *effect) error {
		r, err := tx.LockRun(ctx, id)
		if err != nil || r.CloseAt.IsZero() || tx.Now.Before(r.CloseAt) {
			return err
		}
		_, err = s.step(ctx, tx, e, r, nil, run.Close)
		return err
	})
}
