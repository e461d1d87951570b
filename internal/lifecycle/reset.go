package lifecycle

import (
	"context"
	"maps"
	"slices"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Reset takes from machines the specs that did not pass, or have no results yet, so that
// they can be claimed again, and returns them as they were. Each gets a new instance: what
// a machine still reports of the old one is refused. A group that has ended stays as it is.
func (s *Service) Reset(ctx context.Context, runID string, machineIDs []string) ([]run.Instance, error) {
	var taken []run.Instance
	err := s.write(ctx, func(tx *store.Tx, _ *effect) error {
		taken = nil
		if _, err := tx.LockRun(ctx, runID); err != nil {
			return err
		}
		byGroup := map[string][]run.Instance{}
		for _, id := range slices.Compact(slices.Sorted(slices.Values(machineIDs))) {
			m, err := tx.Machine(ctx, runID, id)
			if run.KindOf(err) == run.NotFound {
				err = run.Missing("machine of this run", id)
			}
			if err != nil {
				return err
			}
			list, err := tx.NotPassed(ctx, m)
			if err != nil {
				return err
			}
			byGroup[m.GroupName] = append(byGroup[m.GroupName], list...)
		}
		for _, name := range slices.Sorted(maps.Keys(byGroup)) {
			if err := takeBack(ctx, tx, runID, name, byGroup[name]); err != nil {
				return err
			}
			taken = append(taken, byGroup[name]...)
		}
		return nil
	})
	return taken, err
}

func takeBack(ctx context.Context, tx *store.Tx, runID, group string, list []run.Instance) error {
	g, err := tx.Group(ctx, runID, group)
	if err != nil {
		return err
	}
	if g.State != run.Running {
		return run.Errorf(run.Refused, "Group %q has ended, and cannot be reset: start a new run.",
			run.Clip(group, 60))
	}
	if err := tx.ReplaceInstances(ctx, runID, list, newInstanceID); err != nil {
		return err
	}
	g = g.TakeBack(list)
	g.HeardAt = tx.Now // the machines that are to claim them get the whole timeout
	return tx.UpdateGroup(ctx, g)
}
