package store

import (
	"context"

	"runbell/internal/database"
)

// A run is removed in two parts. [Tx.RemoveRun] removes the rows by which it is found,
// in one transaction: then it is gone for everybody. [Tx.RemoveRest] removes the rows
// of its specs, in any number of transactions. A run between the two is in the table
// removal, so the rest is removed even if the process ends.

// Removed counts what was removed of a project, or would be.
type Removed struct {
	Runs          int
	Artifacts     int
	ArtifactBytes int64
	Outputs       int // runs whose console output was removed
	Deliveries    int
}

// Plus adds two counts.
func (r Removed) Plus(o Removed) Removed {
	return Removed{r.Runs + o.Runs, r.Artifacts + o.Artifacts, r.ArtifactBytes + o.ArtifactBytes, r.Outputs + o.Outputs,
		r.Deliveries + o.Deliveries}
}

// RunsToDelete lists up to limit runs of a project.
func (tx *Tx) RunsToDelete(ctx context.Context, projectID string, limit int) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM run WHERE project_id = $1 ORDER BY created_at, id LIMIT $2`+tx.ForUpdate(),
		projectID, limit)
	return database.All(rows, err, scanText)
}

// RemoveRun removes a run with its groups, warnings, history, and the events that have no
// deliveries. Its deliveries stay: their log has its own retention, and pending ones are
// still sent. [Tx.RemoveRest] removes the rest.
func (tx *Tx) RemoveRun(ctx context.Context, id string) (Removed, error) {
	r, err := tx.LockRun(ctx, id)
	if err != nil {
		return Removed{}, err
	}
	gone := Removed{Runs: 1}
	if err := tx.QueryRow(ctx, `SELECT artifacts, artifact_bytes FROM run WHERE id = $1`, id).Scan(&gone.Artifacts,
		&gone.ArtifactBytes); err != nil {
		return Removed{}, err
	}
	rows, err := tx.Query(ctx, `SELECT id FROM event WHERE run_id = $1 ORDER BY id`+tx.ForUpdate(), id)
	if _, err := database.All(rows, err, scanText); err != nil {
		return Removed{}, err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO removal (run_id, project_id, at) VALUES ($1, $2, $3)`, id, r.ProjectID,
		micros(tx.Now)); err != nil {
		return Removed{}, err
	}
	for _, from := range []string{
		`event WHERE run_id = $1 AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.run_id = $1 AND d.event_id = event.id)`,
		`run_warning WHERE run_id = $1`,
		`history_part WHERE run_id = $1`,
		`status_due WHERE run_id = $1`,
		`run_group WHERE run_id = $1`,
		`run WHERE id = $1`,
	} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+from, id); err != nil {
			return Removed{}, err
		}
	}
	return gone, nil
}

// RemoveRest removes about limit rows that removed runs left, and returns roughly how
// many it removed: 0 if nothing is left.
func (tx *Tx) RemoveRest(ctx context.Context, limit int) (removed int, err error) {
	for removed < limit {
		id, err := one(tx.QueryRow(ctx, `SELECT run_id FROM removal ORDER BY at, run_id LIMIT 1`+tx.ForUpdate()), scanText,
			nil)
		if err != nil || id == "" {
			return removed, err
		}
		for _, part := range []func(context.Context, string, int) (int, error){tx.removeArtifacts, tx.removeInstances,
			tx.removeMachines, tx.removeMark} {
			n, err := part(ctx, id, limit-removed)
			if err != nil {
				return 0, err
			}
			if removed += n; removed >= limit {
				break // there may be more of it
			}
		}
	}
	return removed, nil
}

func (tx *Tx) removeArtifacts(ctx context.Context, runID string, limit int) (int, error) {
	rows, err := tx.Query(ctx, filesOf+`run_id = $1 LIMIT $2`, runID, limit)
	n, _, _, err := tx.removeFiles(ctx, rows, err)
	return n, err
}

// ofInstance are the tables whose rows are removed with an instance.
var ofInstance = []string{"console_output", "outcome", "announcement"}

// removeInstances removes instances of a run with their rows in other tables. It returns
// how many rows it removed, at most about limit.
func (tx *Tx) removeInstances(ctx context.Context, runID string, limit int) (removed int, err error) {
	most := max(1, limit/(1+len(ofInstance)))
	rows, err := tx.Query(ctx, `SELECT id FROM instance WHERE run_id = $1 ORDER BY group_name, position LIMIT $2`+
		tx.ForUpdate(), runID, most)
	ids, err := database.All(rows, err, scanText)
	if err != nil {
		return 0, err
	}
	if err = tx.deleteInstances(ctx, ids); len(ids) == most {
		return limit, err // there may be more
	}
	return len(ids) * (1 + len(ofInstance)), err
}

// deleteInstances deletes instances with what belongs to them, but for their artifacts.
func (tx *Tx) deleteInstances(ctx context.Context, ids []string) error {
	return database.Chunks(tx.Tx, ids, func(chunk []string) error {
		among, args := tx.Among(chunk)
		for _, table := range ofInstance {
			if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE instance_id`+among, args...); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `DELETE FROM instance WHERE id`+among, args...)
		return err
	})
}

func (tx *Tx) removeMachines(ctx context.Context, runID string, limit int) (int, error) {
	n, err := tx.Exec(ctx, `DELETE FROM machine WHERE run_id = $1
		AND id IN (SELECT id FROM machine WHERE run_id = $1 LIMIT $2)`, runID, limit)
	return int(n), err
}

// removeMark ends the removal of a run once nothing is left of it.
func (tx *Tx) removeMark(ctx context.Context, runID string, _ int) (int, error) {
	n, err := tx.Exec(ctx, `DELETE FROM removal WHERE run_id = $1`, runID)
	return int(n), err
}
