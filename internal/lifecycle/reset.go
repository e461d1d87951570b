package lifecycle

import (
	"context"
	"maps"
	"slices"

	"runbell/internal/run"
	"runbell/internal/store"
)

// resetAtOnce is how many specs one transaction resets: all other writers wait for it.
const resetAtOnce = 100

// Reset takes from machines the specs that did not pass, or have no results yet, so that they can be claimed again,
// and returns them as they were. Each gets a new instance: later reports for the old one are refused. A group that
// has ended does not change. An interrupted reset has reset some specs; repeating it resets the others.
func (s *Service) Reset(ctx context.Context, runID string, machineIDs []string) ([]run.Instance, error) {
	var byGroup map[string][]string
	err := s.read(ctx, func(tx *store.Tx) (err error) {
		byGroup, err = toReset(ctx, tx, runID, machineIDs)
		return err
	})
	if err != nil {
		return nil, err
	}
	var taken []run.Instance
	for _, name := range slices.Sorted(maps.Keys(byGroup)) {
		for ids, more := byGroup[name], true; more; more = len(ids) > 0 {
			some := ids[:min(resetAtOnce, len(ids))]
			var list []run.Instance
			err := s.write(ctx, func(tx *store.Tx, _ *effect) (err error) {
				list, err = takeBack(ctx, tx, runID, name, some)
				return err
			})
			if len(taken) > 0 && run.KindOf(err) == run.Refused {
				break // the group has ended meanwhile
			}
			if err != nil {
				return nil, err
			}
			taken, ids = append(taken, list...), ids[len(some):]
		}
	}
	return taken, nil
}

// toReset finds the specs to reset, by group, and refuses a reset of nothing.
func toReset(ctx context.Context, tx *store.Tx, runID string, machineIDs []string) (map[string][]string, error) {
	if err := tx.CheckRun(ctx, runID); err != nil {
		return nil, err
	}
	byGroup := map[string][]string{}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(machineIDs))) {
		m, err := tx.Machine(ctx, runID, id)
		if run.KindOf(err) == run.NotFound {
			err = run.Missing("machine of this run", id)
		}
		if err != nil {
			return nil, err
		}
		if _, err := running(ctx, tx, runID, m.GroupName); err != nil {
			return nil, err
		}
		list, err := tx.NotPassed(ctx, m)
		if err != nil {
			return nil, err
		}
		ids := byGroup[m.GroupName]
		for _, i := range list {
			ids = append(ids, i.ID)
		}
		byGroup[m.GroupName] = ids // also if it has none
	}
	return byGroup, nil
}

// takeBack resets the instances of a group that have not passed meanwhile.
func takeBack(ctx context.Context, tx *store.Tx, runID, group string, ids []string) ([]run.Instance, error) {
	if _, err := tx.LockRun(ctx, runID); err != nil {
		return nil, err
	}
	g, err := running(ctx, tx, runID, group)
	if err != nil {
		return nil, err
	}
	list, err := tx.StillNotPassed(ctx, ids)
	if err != nil {
		return nil, err
	}
	if err := tx.ReplaceInstances(ctx, runID, list, newInstanceID); err != nil {
		return nil, err
	}
	g = g.TakeBack(list)
	g.HeardAt = tx.Now // the machines that claim them get the whole timeout
	return list, tx.UpdateGroup(ctx, g)
}

// running is a group that has not ended.
func running(ctx context.Context, tx *store.Tx, runID, group string) (run.Group, error) {
	g, err := tx.Group(ctx, runID, group)
	if err == nil && g.State != run.Running {
		err = run.Errorf(run.Refused, "Group %q has ended, and cannot be reset: start a new run.",
			run.Clip(group, 60))
	}
	return g, err
}
