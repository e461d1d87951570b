package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

const machineColumns = `run_id, id, group_name, fingerprint, platform, joined_at, unanswered`

func scanMachine(r database.Row) (run.Machine, error) {
	var m machineRow
	if err := r.Scan(m.fields()...); err != nil {
		return run.Machine{}, err
	}
	v := m.value()
	err := parse(m.platform, &v.Platform)
	return v, err
}

// machineRow is a row of machineColumns on its way to a run.Machine.
type machineRow struct {
	run.Machine
	platform           string
	joined, unanswered int64
}

func (m *machineRow) fields() []any {
	return []any{&m.RunID, &m.ID, &m.GroupName, &m.Fingerprint, &m.platform, &m.joined, &m.unanswered}
}

func (m *machineRow) value() run.Machine {
	m.JoinedAt = timeOf(m.joined)
	m.Unanswered = m.unanswered != 0
	return m.Machine
}

// InsertMachine stores a machine that joined.
func (tx *Tx) InsertMachine(ctx context.Context, m run.Machine) error {
	_, err := tx.Exec(ctx, `INSERT INTO machine (`+machineColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		m.RunID, m.ID, m.GroupName, m.Fingerprint, document(m.Platform), micros(m.JoinedAt), flag(m.Unanswered))
	return err
}

// UpdateMachine stores whether a machine got the response to its last claim. The run
// must be locked.
func (tx *Tx) UpdateMachine(ctx context.Context, m run.Machine) error {
	_, err := tx.Exec(ctx, `UPDATE machine SET unanswered = $3 WHERE run_id = $1 AND id = $2`, m.RunID, m.ID,
		flag(m.Unanswered))
	return err
}

// Machine finds a machine that joined a run.
func (tx *Tx) Machine(ctx context.Context, runID, id string) (run.Machine, error) {
	return one(tx.QueryRow(ctx, `SELECT `+machineColumns+` FROM machine WHERE run_id = $1 AND id = $2`, runID, id),
		scanMachine, missingMachine(runID))
}

// MachineNumbers numbers the machines of a run from 1, in the order in which they
// joined.
func (tx *Tx) MachineNumbers(ctx context.Context, runID string) (map[string]int, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM machine WHERE run_id = $1 ORDER BY joined_at, id`, runID)
	ids, err := database.All(rows, err, scanText)
	numbers := make(map[string]int, len(ids))
	for n, id := range ids {
		numbers[id] = n + 1
	}
	return numbers, err
}

// RecentMachines returns the largest number of machines of any group in the project's
// latest runs, except those of one build; 0 if there are no such runs.
func (tx *Tx) RecentMachines(ctx context.Context, projectID, exceptBuild string) (int, error) {
	const runs = 5
	var n int
	err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(n), 0) FROM (
			SELECT COUNT(*) AS n FROM (SELECT id FROM run WHERE project_id = $1 AND ci_build_id <> $2
			ORDER BY created_at DESC, id DESC LIMIT $3) r
			JOIN machine m ON m.run_id = r.id GROUP BY m.run_id, m.group_name) counted`, projectID, exceptBuild, runs).Scan(&n)
	return n, err
}

func missingMachine(runID string) error {
	return run.Errorf(run.NotFound,
		"No machine with this machineId has joined run %s: send POST /runs first, and use the machineId of its response.",
		run.Clip(runID, 40))
}

// MachineByFingerprint finds the machine of a group that joined with the same
// request.
func (tx *Tx) MachineByFingerprint(ctx context.Context, runID, group, fingerprint string) (run.Machine, error) {
	return one(tx.QueryRow(ctx, `SELECT `+machineColumns+
		` FROM machine WHERE run_id = $1 AND group_name = $2 AND fingerprint = $3
		ORDER BY joined_at DESC, id DESC LIMIT 1`, runID, group, fingerprint),
		scanMachine, run.Errorf(run.NotFound, "No machine has joined with this request."))
}

// BuildJoinedWith finds the ciBuildId of the run that started since an instant and that
// the same request joined: a reporter that repeats a request without a build id means the
// run that it started.
func (tx *Tx) BuildJoinedWith(ctx context.Context, projectID, fingerprint string, since time.Time) (string, error) {
	return one(tx.QueryRow(ctx, `SELECT run.ci_build_id FROM run JOIN machine ON machine.run_id = run.id
		WHERE run.project_id = $2 AND run.created_at >= $3 AND machine.fingerprint = $1
		ORDER BY run.created_at DESC, run.id DESC LIMIT 1`,
		fingerprint, projectID, micros(since)), scanText, run.Errorf(run.NotFound, "No run was started with this request."))
}
