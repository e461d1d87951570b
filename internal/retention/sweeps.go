package retention

import (
	"context"
	"time"

	"runbell/internal/auth"
	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
)

// sweep removes one kind of data.
type sweep struct {
	what  string // in the plural: for the log, and the label of the metric
	begin func() step
}

// step removes at most as much as the pace allows, in one transaction, and adds to the report. It reports how many
// items it removed, and whether there may be more.
type step func(context.Context, *pace, *Report) (removed int, more bool, err error)

// sweeps lists everything that is removed. Files come last: the others
// make them due.
func (s *Sweeper) sweeps() []sweep {
	return []sweep{
		{"runs", func() step { return s.eachProject(s.runs) }},
		{"run details", func() step { return s.rest }},
		{"names in the history", func() step { return s.eachProject(s.names) }},
		{"artifacts", func() step { return s.eachProject(s.artifacts) }},
		{"console outputs", func() step { return s.eachProject(s.outputs) }},
		{"deliveries", s.deliveries},
		{"sessions", func() step { return s.sessions }},
		{"invitations", func() step { return s.invitations }},
		{"idempotency keys", func() step { return s.once }},
		{"files", func() step { return s.dueFiles }},
	}
}

// eachProject takes the steps of one project after the other.
func (s *Sweeper) eachProject(begin func(run.Project) step) step {
	var ids []string
	var current step
	listed := false
	return func(ctx context.Context, pace *pace, report *Report) (removed int, more bool, err error) {
		if !listed {
			listed = true
			err := s.db.Read(ctx, func(tx *store.Tx) (err error) {
				ids, err = tx.ProjectIDs(ctx)
				return err
			})
			return 0, err == nil, err
		}
		if current == nil {
			if len(ids) == 0 {
				return 0, false, nil
			}
			var p run.Project
			err := s.db.Read(ctx, func(tx *store.Tx) (err error) {
				p, err = tx.Project(ctx, ids[0])
				return err
			})
			ids = ids[1:]
			if run.KindOf(err) == run.NotFound {
				return 0, true, nil // it has been deleted
			}
			if err != nil {
				return 0, false, err
			}
			current = begin(p)
		}
		removed, more, err = current(ctx, pace, report)
		if !more {
			current = nil
		}
		return removed, true, err
	}
}

// runs removes runs that ended longer ago than their project keeps them.
func (s *Sweeper) runs(p run.Project) step {
	return func(ctx context.Context, pace *pace, report *Report) (int, bool, error) {
		before := run.Before(p.Keep.Runs, s.db.Now())
		if before.IsZero() {
			return 0, false, nil
		}
		var gone store.Removed
		limit := pace.runs()
		_, err := pace.remove(ctx, func(tx *store.Tx, _ int) (int, error) {
			gone = store.Removed{}
			ids, err := tx.RunsEndedBefore(ctx, p.ID, before, limit)
			for _, id := range ids {
				n, err := tx.RemoveRun(ctx, id)
				if err != nil {
					return 0, err
				}
				gone = gone.Plus(n)
			}
			return gone.Runs * rowsOfRun, err
		})
		if err != nil {
			return 0, false, err
		}
		report.add(p.ID, gone)
		return gone.Runs, gone.Runs == limit, nil
	}
}

// rest removes the remaining rows of removed runs.
func (s *Sweeper) rest(ctx context.Context, pace *pace, _ *Report) (removed int, more bool, err error) {
	removed, err = pace.remove(ctx, func(tx *store.Tx, rows int) (int, error) { return tx.RemoveRest(ctx, rows) })
	return removed, removed > 0, err
}

// names removes names of specs, tests and errors that no results have any more.
func (s *Sweeper) names(p run.Project) step {
	sweep := history.SweepNames(p.ID)
	return func(ctx context.Context, pace *pace, _ *Report) (deleted int, more bool, err error) {
		if sweep.Looking() {
			err := s.db.Read(ctx, func(tx *store.Tx) error { return sweep.Look(ctx, tx) })
			return 0, err == nil && !sweep.Done(), err
		}
		changed, err := pace.remove(ctx, func(tx *store.Tx, rows int) (changed int, err error) {
			changed, deleted, err = sweep.Change(ctx, tx, rows)
			return changed, err
		})
		if err != nil {
			return 0, false, err
		}
		sweep.Changed(changed)
		return deleted, !sweep.Done(), nil
	}
}

// artifacts removes the artifacts that are due.
func (s *Sweeper) artifacts(p run.Project) step {
	due := dueArtifacts{project: p, now: s.db.Now()}
	var list []run.Holding
	more := true
	return func(ctx context.Context, pace *pace, report *Report) (int, bool, error) {
		for len(list) == 0 && more {
			err := s.db.Read(ctx, func(tx *store.Tx) (err error) {
				list, more, err = due.next(ctx, tx)
				return err
			})
			if err != nil {
				return 0, false, err
			}
		}
		if len(list) == 0 {
			return 0, false, nil
		}
		var gone store.Removed
		done := 0 // runs in the list of which everything is removed
		_, err := pace.remove(ctx, func(tx *store.Tx, rows int) (int, error) {
			gone, done = store.Removed{}, 0
			for _, h := range list {
				left := rows - gone.Artifacts
				n, bytes, err := tx.RemoveArtifacts(ctx, h.RunID, left)
				if err != nil && run.KindOf(err) != run.NotFound { // else it has been deleted
					return 0, err
				}
				gone.Artifacts, gone.ArtifactBytes = gone.Artifacts+n, gone.ArtifactBytes+bytes
				if n == left {
					break
				}
				done++
			}
			return gone.Artifacts, nil
		})
		if err != nil {
			return 0, false, err
		}
		list = list[done:]
		report.add(p.ID, gone)
		return gone.Artifacts, more || len(list) > 0, nil
	}
}

// outputs removes the console output of runs that ended longer ago than their project
// keeps it.
func (s *Sweeper) outputs(p run.Project) step {
	return func(ctx context.Context, pace *pace, report *Report) (removed int, more bool, err error) {
		before := run.Before(p.Keep.Output, s.db.Now())
		if before.IsZero() {
			return 0, false, nil
		}
		var gone store.Removed
		limit := pace.runs()
		removed, err = pace.remove(ctx, func(tx *store.Tx, rows int) (int, error) {
			gone = store.Removed{}
			ids, err := tx.RunsWithOutput(ctx, p.ID, before, limit)
			more = len(ids) == limit
			sum := 0
			for _, id := range ids {
				left := rows - sum
				n, err := tx.RemoveOutput(ctx, id, left)
				if err != nil {
					return 0, err
				}
				sum += n
				if n == left {
					more = true // the run may have more
					break
				}
				gone.Outputs++
			}
			return sum, err
		})
		if err != nil {
			return 0, false, err
		}
		report.add(p.ID, gone)
		return removed, more, nil
	}
}

// deliveries removes deliveries that ended longer ago than their project keeps them, with their attempts. Those that
// a deleted webhook left are removed at once.
func (s *Sweeper) deliveries() step {
	var of store.DeliveryLog // the webhook whose deliveries are being removed
	found := false
	next := func(ctx context.Context) error {
		return s.db.Read(ctx, func(tx *store.Tx) (err error) {
			of, err = tx.NextDeliveryLog(ctx, of.EndpointID)
			found = err == nil && of.EndpointID != ""
			return err
		})
	}
	return func(ctx context.Context, pace *pace, report *Report) (removed int, more bool, err error) {
		if !found {
			if err := next(ctx); err != nil || !found {
				return 0, false, err
			}
		}
		before := run.Before(of.Days, s.db.Now())
		if of.Orphaned {
			before = s.db.Now().Add(time.Hour) // all of them, even if another node queued one just now
		}
		limit := pace.rows
		if !of.Oldest.IsZero() && of.Oldest.Before(before) {
			removed, err = pace.remove(ctx, func(tx *store.Tx, rows int) (int, error) {
				// From the oldest on, because pending ones, which stay, may be many.
				return tx.DeleteDeliveries(ctx, of.EndpointID, of.Oldest, before, of.Orphaned, rows)
			})
		}
		if !of.Orphaned && err == nil {
			report.add(of.ProjectID, store.Removed{Deliveries: removed})
		}
		found = removed == limit // otherwise the next step continues with another webhook
		return removed, true, err
	}
}

// sessions removes expired sessions.
func (s *Sweeper) sessions(ctx context.Context, pace *pace, report *Report) (removed int, more bool, err error) {
	limit := pace.rows
	removed, err = pace.remove(ctx, func(tx *store.Tx, rows int) (int, error) {
		return tx.DeleteSessions(ctx, tx.Now.Add(-auth.SessionLife), rows)
	})
	report.Sessions += removed
	return removed, removed == limit, err
}

// invitations removes expired invitations.
func (s *Sweeper) invitations(ctx context.Context, pace *pace, report *Report) (removed int, more bool, err error) {
	limit := pace.rows
	removed, err = pace.remove(ctx, func(tx *store.Tx, rows int) (int, error) {
		return tx.DeleteInvitations(ctx, tx.Now, rows)
	})
	report.Invitations += removed
	return removed, removed == limit, err
}

// once removes idempotency keys that are too old.
func (s *Sweeper) once(ctx context.Context, pace *pace, _ *Report) (removed int, more bool, err error) {
	limit := pace.rows
	removed, err = pace.remove(ctx, func(tx *store.Tx, rows int) (int, error) {
		return tx.DeleteOnce(ctx, tx.Now.Add(-store.OnceFor), rows)
	})
	return removed, removed == limit, err
}

// dueFiles deletes the files of removed artifacts and of failed uploads.
func (s *Sweeper) dueFiles(ctx context.Context, _ *pace, report *Report) (removed int, more bool, err error) {
	if s.files == nil {
		return 0, false, nil
	}
	removed, more, err = s.files.DeleteFiles(ctx, filesAtOnce)
	report.Files += removed
	return removed, more, err
}
