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
	// sharedSleep bounds how late a deadline is noticed that another process has
	// set and not lived to keep; a process that has the database to itself is woken.
	sharedSleep = 5 * time.Second
	aloneSleep  = time.Hour
	// startGrace is what a running group gets at least when the server starts:
	// nobody could be heard while it was down, and clients retry for less.
	startGrace = time.Minute
	sweepLimit = 256
)

// Keep watches the deadlines of groups and runs until ctx ends. Any number of
// processes may do so on one database.
func (v *Verbs) Keep(ctx context.Context, log *slog.Logger) {
	longestSleep := sharedSleep
	if !v.db.Shared() { // on a shared database another process may have been there to hear
		longestSleep = aloneSleep
		if err := v.db.Write(ctx, func(tx *store.Tx) error { return tx.ForgiveSilence(ctx, startGrace) }); err != nil && ctx.Err() == nil {
			log.Error("cannot extend deadlines at start", "error", err)
		}
	}
	for {
		next, err := v.Sweep(ctx)
		if err != nil && ctx.Err() == nil {
			log.Error("cannot check deadlines, trying again", "error", err)
			next = v.db.Now().Add(time.Second)
		}
		if latest := v.db.Now().Add(longestSleep); next.IsZero() || next.After(latest) {
			next = latest
		}
		v.sleepUntil(next)
		timer := time.NewTimer(next.Sub(v.db.Now()))
		select {
		case <-timer.C:
		case <-v.wake:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
		v.sleepUntil(time.Time{})
	}
}

// sleepUntil notes what the keeper sleeps until; zero means that it is awake.
func (v *Verbs) sleepUntil(t time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.nextLook = t
}

// expect wakes the keeper if a deadline is earlier than what it sleeps until.
func (v *Verbs) expect(deadline time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.nextLook.IsZero() || deadline.Before(v.nextLook) {
		select {
		case v.wake <- struct{}{}:
		default: // it is being woken already
		}
	}
}

// Sweep times out groups that are silent and closes runs whose completion delay
// has passed. It returns the next deadline, zero if there is none.
func (v *Verbs) Sweep(ctx context.Context) (time.Time, error) {
	for {
		var groups []store.GroupRef
		var runs []string
		var next time.Time
		err := v.db.Read(ctx, func(tx *store.Tx) (err error) {
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
		var failed []error // one that fails does not keep the others waiting
		for _, g := range groups {
			failed = append(failed, v.look(ctx, g))
		}
		for _, id := range runs {
			failed = append(failed, v.closeRun(ctx, id))
		}
		if err := errors.Join(failed...); err != nil {
			return time.Time{}, err
		}
	}
}

// look times a group out if it is silent, or notes when to look again.
func (v *Verbs) look(ctx context.Context, ref store.GroupRef) error {
	return v.write(ctx, func(tx *store.Tx, e *effect) error {
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
		_, err = v.step(ctx, tx, e, r, []run.Group{g}, run.Silence)
		return err
	})
}

func (v *Verbs) closeRun(ctx context.Context, id string) error {
	return v.write(ctx, func(tx *store.Tx, e *effect) error {
		r, err := tx.LockRun(ctx, id)
		if err != nil || r.CloseAt.IsZero() || tx.Now.Before(r.CloseAt) {
			return err
		}
		_, err = v.step(ctx, tx, e, r, nil, run.Close)
		return err
	})
}
