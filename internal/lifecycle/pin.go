package lifecycle

import (
	"context"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Pin keeps a run from retention until it is unpinned. Pinning it again changes
// nothing.
func (s *Service) Pin(ctx context.Context, runID, by string) (run.Run, error) {
	return s.pin(ctx, runID, func(tx *store.Tx, r run.Run) error {
		if !r.PinnedAt.IsZero() {
			return nil
		}
		return tx.PinRun(ctx, runID, by)
	})
}

// Unpin makes a pinned run subject to retention again. Unpinning it again changes nothing.
func (s *Service) Unpin(ctx context.Context, runID string) (run.Run, error) {
	return s.pin(ctx, runID, func(tx *store.Tx, r run.Run) error {
		if r.PinnedAt.IsZero() {
			return nil
		}
		return tx.UnpinRun(ctx, runID)
	})
}

func (s *Service) pin(ctx context.Context, runID string, change func(*store.Tx, run.Run) error) (run.Run, error) {
	var out run.Run
	err := s.write(ctx, func(tx *store.Tx, _ *effect) error {
		if _, err := tx.LockRun(ctx, runID); err != nil {
			return err
		}
		r, err := tx.Run(ctx, runID)
		if err != nil {
			return err
		}
		if err := change(tx, r); err != nil {
			return err
		}
		out, err = tx.Run(ctx, runID)
		return err
	})
	return out, err
}
