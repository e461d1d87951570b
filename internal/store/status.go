package store

import (
	"context"
	"errors"

	"runbell/internal/database"
)

// A run can change the health of tests. That is checked after the run has ended, when its
// results are in the history. Until then, table status_due has a row for the run.

// DueStatus is a run that may have changed the health of tests.
type DueStatus struct{ ProjectID, RunID string }

// ExpectStatus notes that a run has ended. The run must be locked.
func (tx *Tx) ExpectStatus(ctx context.Context, d DueStatus) error {
	_, err := tx.Exec(ctx, `INSERT INTO status_due (run_id, project_id, at) VALUES ($1, $2, $3)`, d.RunID, d.ProjectID,
		micros(tx.Now))
	return err
}

// StatusesDue lists up to limit runs that have ended and whose results are all in the
// history, in the order in which they ended.
func (tx *Tx) StatusesDue(ctx context.Context, limit int) ([]DueStatus, error) {
	rows, err := tx.Query(ctx, `SELECT project_id, run_id FROM status_due s
		WHERE NOT EXISTS (SELECT 1 FROM instance i WHERE i.run_id = s.run_id AND i.history_due = 1)
		ORDER BY at, run_id LIMIT $1`, limit)
	return database.All(rows, err, func(r database.Row) (DueStatus, error) {
		var d DueStatus
		err := r.Scan(&d.ProjectID, &d.RunID)
		return d, err
	})
}

// TakeStatuses says that runs were looked at, and returns how many of them had not been.
func (tx *Tx) TakeStatuses(ctx context.Context, runIDs []string) (taken int, err error) {
	err = database.Chunks(tx.Tx, runIDs, func(chunk []string) error {
		among, args := tx.Among(chunk)
		n, err := tx.Exec(ctx, `DELETE FROM status_due WHERE run_id`+among, args...)
		taken += int(n)
		return err
	})
	return taken, err
}

// LockStatuses keeps other looks at the tests of a project waiting until the transaction
// ends. It returns the branch that the last one was about; known is false if there was none.
func (tx *Tx) LockStatuses(ctx context.Context, projectID string) (branch string, known bool, err error) {
	var of database.NullString
	err = tx.QueryRow(ctx, `SELECT status_branch FROM history WHERE project_id = $1`+tx.ForUpdate(), projectID).Scan(&of)
	if errors.Is(err, database.ErrNoRows) { // no test has run yet
		err = nil
	}
	return of.String, of.Valid, err
}

// TestStatuses lists the tests of a project that are not healthy, by number.
func (tx *Tx) TestStatuses(ctx context.Context, projectID string) (map[int]string, error) {
	statuses := map[int]string{}
	rows, err := tx.Query(ctx, `SELECT test, health FROM test_status WHERE project_id = $1`, projectID)
	_, err = database.All(rows, err, func(r database.Row) (number int, err error) {
		var health string
		err = r.Scan(&number, &health)
		statuses[number] = health
		return number, err
	})
	return statuses, err
}

// SetTestStatuses stores what a look at a branch found: tests whose health is another one
// now, "" for those that need not be remembered.
func (tx *Tx) SetTestStatuses(ctx context.Context, projectID, branch string, changed map[int]string) error {
	for number, health := range changed {
		if _, err := tx.Exec(ctx, `DELETE FROM test_status WHERE project_id = $1 AND test = $2`, projectID,
			number); err != nil {
			return err
		}
		if health == "" {
			continue
		}
		if _, err := tx.Exec(ctx, `INSERT INTO test_status (project_id, test, health) VALUES ($1, $2, $3)`, projectID, number,
			health); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `UPDATE history SET status_branch = $2 WHERE project_id = $1`, projectID, branch)
	return err
}
