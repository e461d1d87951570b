package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// DeliveryLog describes the deliveries of one endpoint.
type DeliveryLog struct {
	EndpointID string
	ProjectID  string    // "" if orphaned
	Oldest     time.Time // when the first that may be removed was queued; zero if all wait
	Orphaned   bool      // the endpoint is deleted: all may be removed
	Days       int       // how long its project keeps deliveries; 0 if orphaned
}

// NextDeliveryLog finds the deliveries of the first endpoint after the given one,
// in the order of ids. The EndpointID of its result is "" if there are none.
func (tx *Tx) NextDeliveryLog(ctx context.Context, after string) (DeliveryLog, error) {
	var endpoint, project database.NullString
	var oldest, days database.NullInt64
	err := tx.QueryRow(ctx, `SELECT d.endpoint_id, p.id,
		(SELECT MIN(created_at) FROM delivery
			WHERE endpoint_id = d.endpoint_id AND (finished_at IS NOT NULL OR e.id IS NULL)), p.retention_days
		FROM (SELECT MIN(endpoint_id) AS endpoint_id FROM delivery WHERE endpoint_id > $1) d
		LEFT JOIN endpoint e ON e.id = d.endpoint_id LEFT JOIN project p ON p.id = e.project_id`, after).Scan(&endpoint,
		&project, &oldest, &days)
	return DeliveryLog{endpoint.String, project.String, timeOrZero(oldest), !days.Valid, int(days.Int64)}, err
}

// DeleteDeliveries removes up to limit deliveries of an endpoint, with their log,
// and returns how many it removed. It takes those that were queued from an instant on,
// and ended before another; with waiting, also those that have not ended. They are
// locked first: one that is queued again meanwhile stays, and none gets another attempt.
func (tx *Tx) DeleteDeliveries(ctx context.Context, endpointID string, since, before time.Time, waiting bool,
	limit int) (int, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM delivery WHERE endpoint_id = $1 AND created_at >= $5 AND created_at < $2
		AND (finished_at < $2 OR $3 = 1)
		ORDER BY created_at, id LIMIT $4`+tx.ForUpdate(), endpointID, micros(before), flag(waiting), limit, micros(since))
	ids, err := database.All(rows, err, scanText)
	if err != nil {
		return 0, err
	}
	return len(ids), database.Chunks(tx.Tx, ids, func(chunk []string) error {
		among, args := tx.Among(chunk)
		// An event is removed with the last of its run and deliveries. Both removals lock
		// its row to find out whether they are the last.
		rows, err := tx.Query(ctx, `SELECT id FROM event WHERE id IN (SELECT event_id FROM delivery WHERE id`+among+`)
			ORDER BY id`+tx.ForUpdate(), args...)
		events, err := database.All(rows, err, scanText)
		if err != nil {
			return err
		}
		for _, from := range []string{`attempt WHERE delivery_id`, `delivery WHERE id`} {
			if _, err := tx.Exec(ctx, `DELETE FROM `+from+among, args...); err != nil {
				return err
			}
		}
		return tx.deleteLonelyEvents(ctx, events)
	})
}

// deleteLonelyEvents removes those of the events that have no deliveries and no run. They
// must be locked.
func (tx *Tx) deleteLonelyEvents(ctx context.Context, ids []string) error {
	return database.Chunks(tx.Tx, ids, func(chunk []string) error {
		among, args := tx.Among(chunk)
		// A test has one delivery and no run.
		_, err := tx.Exec(ctx, `DELETE FROM event WHERE id`+among+
			` AND (run_id IS NULL OR NOT EXISTS (SELECT 1 FROM run r WHERE r.id = event.run_id)
			AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.run_id = event.run_id AND d.event_id = event.id))`, args...)
		return err
	})
}

// DeleteSessions removes up to limit sessions that were last used before an instant,
// and returns how many it removed.
func (tx *Tx) DeleteSessions(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := tx.Exec(ctx, `DELETE FROM session WHERE seen_at < $1
		AND hash IN (SELECT hash FROM session WHERE seen_at < $1 LIMIT $2)`, micros(before), limit)
	return int(n), err
}

// CountSessionsBefore counts what DeleteSessions would remove without a limit.
func (tx *Tx) CountSessionsBefore(ctx context.Context, before time.Time) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM session WHERE seen_at < $1`, micros(before)).Scan(&n)
	return n, err
}

// CountExpiredInvitations counts what DeleteInvitations would remove by now.
func (tx *Tx) CountExpiredInvitations(ctx context.Context) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM invitation WHERE expires_at < $1`, micros(tx.Now)).Scan(&n)
	return n, err
}

// DeleteInvitations removes up to limit invitations that expired before an instant,
// and returns how many it removed.
func (tx *Tx) DeleteInvitations(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := tx.Exec(ctx, `DELETE FROM invitation WHERE id IN (SELECT id FROM invitation WHERE expires_at < $1 LIMIT $2)`,
		micros(before), limit)
	return int(n), err
}

// RunsEndedBefore lists up to limit runs of a project that ended before an instant and
// are not pinned, oldest first. They are locked.
func (tx *Tx) RunsEndedBefore(ctx context.Context, projectID string, before time.Time, limit int) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM run WHERE project_id = $1 AND created_at < $2 AND finished_at < $2
		AND pinned_at IS NULL
		ORDER BY created_at, id LIMIT $3`+tx.ForUpdate(), projectID, micros(before), limit)
	return database.All(rows, err, scanText)
}

// CountEndedBefore counts the rows that removing the runs of RunsEndedBefore would remove.
func (tx *Tx) CountEndedBefore(ctx context.Context, projectID string, before time.Time) (Removed, error) {
	var n Removed
	err := tx.QueryRow(ctx, `SELECT COUNT(*), CAST(COALESCE(SUM(artifacts), 0) AS BIGINT),
		CAST(COALESCE(SUM(artifact_bytes), 0) AS BIGINT)
		FROM run WHERE project_id = $1 AND created_at < $2 AND finished_at < $2 AND pinned_at IS NULL`, projectID,
		micros(before)).
		Scan(&n.Runs, &n.Artifacts, &n.ArtifactBytes)
	return n, err
}

// Holdings lists up to limit ended runs of a project that have artifacts, after a
// position, in the order in which they ended.
func (tx *Tx) Holdings(ctx context.Context, projectID string, after Position, limit int) ([]run.Holding, error) {
	const columns = `id, state, finished_at, pinned_at, artifacts, artifact_bytes`
	rows, err := tx.Query(ctx, `SELECT `+prefixed("r", columns)+`, `+sumOfGroups+` FROM (SELECT `+columns+` FROM run
			WHERE project_id = $1 AND artifacts > 0 AND (finished_at, id) > ($2, $3) ORDER BY finished_at, id LIMIT $4) AS r
		LEFT JOIN run_group g ON g.run_id = r.id GROUP BY `+prefixed("r", columns)+` ORDER BY r.finished_at, r.id`,
		projectID, micros(after.At), after.ID, limit)
	return database.All(rows, err, func(r database.Row) (run.Holding, error) {
		var h run.Holding
		var finished int64
		var pinned database.NullInt64
		c := &h.Counts
		err := r.Scan(&h.RunID, &h.State, &finished, &pinned, &h.Artifacts, &h.ArtifactBytes,
			&c.Announced, &c.Passes, &c.Failures, &c.Pending, &c.Skipped, &c.Retries, &c.Flaky)
		h.FinishedAt, h.Pinned = timeOf(finished), pinned.Valid
		return h, err
	})
}

// RunsWithOutput lists up to limit runs of a project that ended before an instant, have
// console output and are not pinned. They are locked.
func (tx *Tx) RunsWithOutput(ctx context.Context, projectID string, before time.Time, limit int) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM run WHERE project_id = $1 AND has_output = 1 AND finished_at < $2
		AND pinned_at IS NULL
		ORDER BY finished_at, id LIMIT $3`+tx.ForUpdate(), projectID, micros(before), limit)
	return database.All(rows, err, scanText)
}

// CountWithOutput counts the runs that RunsWithOutput would list without a limit, except
// those that ended before another instant.
func (tx *Tx) CountWithOutput(ctx context.Context, projectID string, before, since time.Time) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM run WHERE project_id = $1 AND has_output = 1 AND finished_at < $2
		AND finished_at >= $3 AND pinned_at IS NULL`,
		projectID, micros(before), micros(since)).Scan(&n)
	return n, err
}

// RemoveOutput removes up to limit rows of console output of a run, and returns how many
// it removed. The run must be locked.
func (tx *Tx) RemoveOutput(ctx context.Context, runID string, limit int) (int, error) {
	rows, err := tx.Query(ctx, `SELECT o.instance_id FROM instance i JOIN console_output o ON o.instance_id = i.id
		WHERE i.run_id = $1 LIMIT $2`, runID, limit)
	ids, err := database.All(rows, err, scanText)
	if err != nil {
		return 0, err
	}
	err = database.Chunks(tx.Tx, ids, func(chunk []string) error {
		among, args := tx.Among(chunk)
		_, err := tx.Exec(ctx, `DELETE FROM console_output WHERE instance_id`+among, args...)
		return err
	})
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `UPDATE run SET rev = rev + 1, has_output = $2, output_removed_at = $3 WHERE id = $1`, runID,
		flag(len(ids) == limit), micros(tx.Now))
	return len(ids), err
}

// CountDueDeliveries counts the deliveries of a project that were queued and ended
// before an instant.
func (tx *Tx) CountDueDeliveries(ctx context.Context, projectID string, before time.Time) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM endpoint e JOIN delivery d ON d.endpoint_id = e.id
		WHERE e.project_id = $1 AND d.created_at < $2 AND d.finished_at < $2`, projectID, micros(before)).Scan(&n)
	return n, err
}

// ProjectIDs lists the ids of all projects.
func (tx *Tx) ProjectIDs(ctx context.Context) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM project ORDER BY id`)
	return database.All(rows, err, scanText)
}

// Sweep is what retention last removed from a project.
type Sweep struct {
	At time.Time // zero if it has removed nothing yet
	Removed
}

// NoteSweep stores what retention removed from a project. It does nothing if the project
// was deleted meanwhile.
func (tx *Tx) NoteSweep(ctx context.Context, projectID string, r Removed) error {
	_, err := tx.Exec(ctx, `INSERT INTO sweep (project_id, at, runs, artifacts, artifact_bytes, outputs, deliveries)
		SELECT id, $2, $3, $4, $5, $6, $7 FROM project WHERE id = $1
		ON CONFLICT (project_id) DO UPDATE SET at = excluded.at, runs = excluded.runs, artifacts = excluded.artifacts,
		artifact_bytes = excluded.artifact_bytes, outputs = excluded.outputs, deliveries = excluded.deliveries`,
		projectID, micros(tx.Now), r.Runs, r.Artifacts, r.ArtifactBytes, r.Outputs, r.Deliveries)
	return err
}

// LastSweep returns what NoteSweep stored last.
func (tx *Tx) LastSweep(ctx context.Context, projectID string) (Sweep, error) {
	return one(tx.QueryRow(ctx, `SELECT at, runs, artifacts, artifact_bytes, outputs, deliveries FROM sweep
		WHERE project_id = $1`, projectID), func(r database.Row) (Sweep, error) {
		var s Sweep
		var at int64
		if err := r.Scan(&at, &s.Runs, &s.Artifacts, &s.ArtifactBytes, &s.Outputs, &s.Deliveries); err != nil {
			return Sweep{}, err
		}
		s.At = timeOf(at)
		return s, nil
	}, nil)
}
