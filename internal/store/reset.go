package store

import (
	"context"

	"runbell/internal/database"
	"runbell/internal/run"
)

const notPassed = ` AND machine_id IS NOT NULL AND (completed_at IS NULL OR failures > 0 OR skipped > 0)
	ORDER BY position`

// NotPassed lists the specs of a run that a machine has and that have not passed.
func (tx *Tx) NotPassed(ctx context.Context, m run.Machine) ([]run.Instance, error) {
	rows, err := tx.Query(ctx, `SELECT `+instanceColumns+` FROM instance
		WHERE run_id = $1 AND group_name = $2 AND machine_id = $3`+notPassed,
		m.RunID, m.GroupName, m.ID)
	return database.All(rows, err, scanInstance)
}

// StillNotPassed lists those of some specs of a group that a machine has and that have not passed.
func (tx *Tx) StillNotPassed(ctx context.Context, ids []string) (list []run.Instance, err error) {
	err = database.Chunks(tx.Tx, ids, func(chunk []string) error {
		among, args := tx.Among(chunk)
		rows, err := tx.Query(ctx, `SELECT `+instanceColumns+` FROM instance WHERE id`+among+notPassed, args...)
		list, err = database.Append(list, rows, err, scanInstance)
		return err
	})
	return list, err
}

// ReplaceInstances puts a new, unclaimed instance in the place of each of some of one run,
// with the id that newID makes. The old ones go with their results, console output and
// artifacts, and the history is told. The run must be locked.
func (tx *Tx) ReplaceInstances(ctx context.Context, runID string, list []run.Instance, newID func() string) error {
	if len(list) == 0 {
		return nil
	}
	var old, made []string
	fresh := make([]run.Instance, len(list))
	for n, i := range list {
		old = append(old, i.ID)
		fresh[n] = run.Instance{ID: newID(), RunID: i.RunID, GroupName: i.GroupName, Spec: i.Spec, Position: i.Position}
		made = append(made, fresh[n].ID)
	}
	err := database.Chunks(tx.Tx, old, func(chunk []string) error {
		among, args := tx.Among(chunk, runID)
		rows, err := tx.Query(ctx, filesOf+`run_id = $1 AND instance_id`+among, args...)
		_, files, bytes, err := tx.removeFiles(ctx, rows, err)
		if err != nil || files == 0 {
			return err
		}
		return tx.countArtifacts(ctx, runID, -files, -bytes)
	})
	if err != nil {
		return err
	}
	if err := tx.deleteInstances(ctx, old); err != nil {
		return err
	}
	if err := tx.InsertInstances(ctx, fresh); err != nil {
		return err
	}
	// Also those without results: the history may still have those of an earlier instance.
	return database.Chunks(tx.Tx, made, func(chunk []string) error {
		among, args := tx.Among(chunk)
		_, err := tx.Exec(ctx, `UPDATE instance SET history_due = 1 WHERE id`+among, args...)
		return err
	})
}
