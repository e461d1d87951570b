package store

import (
	"context"
	"time"

	"runbell/internal/run"
)

const machineColumns = `run_id, id, group_name, fingerprint, platform, joined_at, claims, unanswered`

func scanMachine(r row) (run.Machine, error) {
	var m run.Machine
	var platform string
	var joined, unanswered int64
	if err := r.Scan(&m.RunID, &m.ID, &m.GroupName, &m.Fingerprint, &platform, &joined, &m.Claims, &unanswered); err != nil {
		return m, err
	}
	m.JoinedAt = timeOf(joined)
	m.Unanswered = unanswered != 0
	return m, parse(platform, &m.Platform)
}

// InsertMachine stores a machine that joined.
func (tx *Tx) InsertMachine(ctx context.Context, m run.Machine) error {
	_, err := tx.conn.ExecContext(ctx, `INSERT INTO machine (`+machineColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		m.RunID, m.ID, m.GroupName, m.Fingerprint, document(m.Platform), micros(m.JoinedAt), m.Claims, flag(m.Unanswered))
	return err
}

// UpdateMachine stores the claims of a machine. The run must be locked.
func (tx *Tx) UpdateMachine(ctx context.Context, m run.Machine) error {
	_, err := tx.conn.ExecContext(ctx, `UPDATE machine SET claims = $3, unanswered = $4 WHERE run_id = $1 AND id = $2`,
		m.RunID, m.ID, m.Claims, flag(m.Unanswered))
	return err
}

// Machine finds a machine that joined a run.
func (tx *Tx) Machine(ctx context.Context, runID, id string) (run.Machine, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT `+machineColumns+` FROM machine WHERE run_id = $1 AND id = $2`, runID, id),
		scanMachine, missingMachine(runID))
}

var machineAndGroup = `SELECT ` + prefixed("m", machineColumns) + `, ` + prefixed("g", groupColumns) + `
	FROM machine m JOIN run_group g ON g.run_id = m.run_id AND g.name = m.group_name WHERE m.run_id = $1 AND m.id = $2`

// MachineAndGroup finds a machine that joined a run, with its group.
func (tx *Tx) MachineAndGroup(ctx context.Context, runID, id string) (run.Machine, run.Group, error) {
	rows, err := tx.conn.QueryContext(ctx, machineAndGroup, runID, id)
	return joined(rows, err, scanMachine, machineColumns, scanGroup, groupColumns, missingMachine(runID))
}

func missingMachine(runID string) error {
	return run.Errorf(run.NotFound, "No machine with this machineId has joined run %s: POST /runs first and use the machineId it answers.", run.Clip(runID, 40))
}

// MachineByFingerprint finds the machine of a group that joined with the same
// request.
func (tx *Tx) MachineByFingerprint(ctx context.Context, runID, group, fingerprint string) (run.Machine, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT `+machineColumns+` FROM machine WHERE run_id = $1 AND group_name = $2 AND fingerprint = $3
		ORDER BY joined_at DESC LIMIT 1`, runID, group, fingerprint),
		scanMachine, run.Errorf(run.NotFound, "No machine has joined with this request."))
}

// BuildJoinedWith finds the ciBuildId of the run that was joined with the same
// request since an instant: a client that names no build and tries again means
// the run it started.
func (tx *Tx) BuildJoinedWith(ctx context.Context, projectID, fingerprint string, since time.Time) (string, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT run.ci_build_id FROM machine JOIN run ON run.id = machine.run_id
		WHERE machine.fingerprint = $1 AND run.project_id = $2 AND machine.joined_at >= $3 ORDER BY machine.joined_at DESC LIMIT 1`,
		fingerprint, projectID, micros(since)), scanText, run.Errorf(run.NotFound, "No run was started with this request."))
}
