package lifecycle

import (
	"context"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Cancel ends a run for good. Canceling it again succeeds and changes nothing. A run
// that ended in another way does not change; the returned run shows that.
func (s *Service) Cancel(ctx context.Context, runID, actor, reason string) (run.Run, error) {
	var out run.Run
	err := s.write(ctx, func(tx *store.Tx, e *effect) error {
		r, err := tx.LockRun(ctx, runID)
		if err != nil {
			return err
		}
		out, err = s.cancel(ctx, tx, e, r, actor, reason)
		return err
	})
	return out, err
}

func (s *Service) cancel(ctx context.Context, tx *store.Tx, e *effect, r run.Run,
	actor, reason string) (run.Run, error) {
	if r.State.Terminal() {
		return r, nil
	}
	groups, err := tx.Groups(ctx, r.ID)
	if err != nil {
		return r, err
	}
	running := groups[:0]
	for _, g := range groups {
		if g.State == run.Running {
			running = append(running, g)
		}
	}
	r.Cancellation = &run.Cancellation{Actor: actor, Reason: reason, At: tx.Now}
	r, err = s.step(ctx, tx, e, r, running, run.Cancel)
	return r, err
}
