package retention

import (
	"context"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
)

// holdingsAtOnce is how many runs with artifacts one read returns.
const holdingsAtOnce = 200

// dueArtifacts finds the runs of a project whose artifacts are removed: those past their retention, and then the
// oldest ones while the project is over its limit of bytes.
type dueArtifacts struct {
	project run.Project
	now     time.Time

	begun  bool
	excess bool  // this is the second pass
	over   int64 // bytes beyond the limit; without one not above 0
	after  store.Position
}

// next reads some runs and lists those that are due, oldest first. It reports false when it has read all.
func (d *dueArtifacts) next(ctx context.Context, tx *store.Tx) (due []run.Holding, more bool, err error) {
	if !d.begun {
		if err := d.begin(ctx, tx); err != nil {
			return nil, false, err
		}
	}
	list, err := tx.Holdings(ctx, d.project.ID, d.after, holdingsAtOnce)
	if err != nil {
		return nil, false, err
	}
	latest := d.project.Keep.LatestOver(d.now)
	ended := len(list) < holdingsAtOnce
	for _, h := range list {
		d.after = store.Position{At: h.FinishedAt, ID: h.RunID}
		if d.excess && d.over <= 0 || !d.excess && !h.FinishedAt.Before(latest) {
			ended = true
			break
		}
		if d.goes(h) {
			due = append(due, h)
		}
	}
	if ended && !d.excess && d.over > 0 {
		d.excess, d.after = true, store.Position{}
		return due, true, nil
	}
	return due, !ended, nil
}

func (d *dueArtifacts) begin(ctx context.Context, tx *store.Tx) error {
	d.begun = true
	if d.project.Keep.ArtifactBytes == 0 {
		return nil
	}
	u, err := tx.Usage(ctx, d.project.ID)
	d.over = u.ArtifactBytes - d.project.Keep.ArtifactBytes
	return err
}

// goes reports whether this pass removes the artifacts of a run.
func (d *dueArtifacts) goes(h run.Holding) bool {
	keep := d.project.Keep
	withRun, byDays := keep.RunOver(h, d.now), keep.ArtifactsOver(h, d.now)
	if d.excess {
		if withRun || byDays || !h.Excess(d.over) {
			return false // the first pass had it, or it stays
		}
		d.over -= h.ArtifactBytes
		return true
	}
	if withRun || byDays {
		d.over -= h.ArtifactBytes
	}
	return byDays && !withRun
}

// Plan reports what Sweep would remove now, without removing it.
func (s *Sweeper) Plan(ctx context.Context) (Report, error) {
	var report Report
	err := s.db.Read(ctx, func(tx *store.Tx) error {
		ids, err := tx.ProjectIDs(ctx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			p, err := tx.Project(ctx, id)
			if err != nil {
				return err
			}
			n, err := plan(ctx, tx, p)
			if err != nil {
				return err
			}
			report.add(id, n)
		}
		if report.Sessions, err = tx.CountSessionsBefore(ctx, tx.Now.Add(-auth.SessionLife)); err != nil {
			return err
		}
		if report.Invitations, err = tx.CountExpiredInvitations(ctx); err != nil {
			return err
		}
		report.Files, err = tx.CountDueFiles(ctx)
		return err
	})
	for _, n := range report.Projects { // files that the sweep makes due
		report.Files += n.Artifacts
	}
	return report, err
}

// plan reports what would be removed from one project.
func plan(ctx context.Context, tx *store.Tx, p run.Project) (n store.Removed, err error) {
	runsBefore := run.Before(p.Keep.Runs, tx.Now)
	if !runsBefore.IsZero() {
		if n, err = tx.CountEndedBefore(ctx, p.ID, runsBefore); err != nil {
			return n, err
		}
	}
	due := dueArtifacts{project: p, now: tx.Now}
	for more := true; more; {
		var list []run.Holding
		if list, more, err = due.next(ctx, tx); err != nil {
			return n, err
		}
		for _, h := range list {
			n.Artifacts, n.ArtifactBytes = n.Artifacts+h.Artifacts, n.ArtifactBytes+h.ArtifactBytes
		}
	}
	if before := run.Before(p.Keep.Output, tx.Now); !before.IsZero() {
		if n.Outputs, err = tx.CountWithOutput(ctx, p.ID, before, runsBefore); err != nil {
			return n, err
		}
	}
	n.Deliveries, err = tx.CountDueDeliveries(ctx, p.ID, run.Before(p.Keep.Deliveries, tx.Now))
	return n, err
}
