package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

const groupColumns = `run_id, name, explicit, parallel, platform, spec_hash, specs, claimed, taken_back, completed,
	announced, passes, failures, pending, skipped, retries, flaky, state, inactivity_timeout, heard_at, created_at,
	finished_at`

func scanGroup(r database.Row) (run.Group, error) {
	var g groupRow
	if err := r.Scan(g.fields()...); err != nil {
		return run.Group{}, err
	}
	v := g.value()
	err := parse(g.platform, &v.Platform)
	return v, err
}

// groupRow is a row of groupColumns on its way to a run.Group.
type groupRow struct {
	run.Group
	explicit, parallel, timeout, heard, created int64
	platform                                    string
	finished                                    database.NullInt64
}

func (g *groupRow) fields() []any {
	c := &g.Counts
	return []any{&g.RunID, &g.Name, &g.explicit, &g.parallel, &g.platform, &g.SpecHash, &g.Specs, &g.Claimed,
		&g.TakenBack, &g.Completed, &c.Announced, &c.Passes, &c.Failures, &c.Pending, &c.Skipped, &c.Retries, &c.Flaky,
		&g.State, &g.timeout, &g.heard, &g.created, &g.finished}
}

func (g *groupRow) value() run.Group {
	g.Explicit, g.Parallel = g.explicit != 0, g.parallel != 0
	g.InactivityTimeout = time.Duration(g.timeout) * time.Microsecond
	g.HeardAt, g.CreatedAt, g.FinishedAt = timeOf(g.heard), timeOf(g.created), timeOrZero(g.finished)
	return g.Group
}

// InsertGroup stores a new group in state running.
func (tx *Tx) InsertGroup(ctx context.Context, g run.Group) error {
	_, err := tx.Exec(ctx, `INSERT INTO run_group (`+groupColumns+`, look_at, rev)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'running', $8, $9, $10, NULL, $11, 1)`,
		g.RunID, g.Name, flag(g.Explicit), flag(g.Parallel), document(g.Platform), g.SpecHash, g.Specs,
		g.InactivityTimeout.Microseconds(), micros(g.HeardAt), micros(g.CreatedAt), micros(g.Deadline()))
	return err
}

const (
	setCounts = `UPDATE run_group SET rev = rev + 1, heard_at = $3, claimed = $4, completed = $5, announced = $6,
		passes = $7, failures = $8, pending = $9, skipped = $10, retries = $11, flaky = $12, taken_back = $13`
	setEnd  = `, state = $14, finished_at = $15, look_at = NULL`
	ofGroup = ` WHERE run_id = $1 AND name = $2`
)

// UpdateGroup stores the columns that verbs change: the counters, the time of the last
// report, and the end. The run must be locked.
func (tx *Tx) UpdateGroup(ctx context.Context, g run.Group) error {
	c := g.Counts
	args := []any{g.RunID, g.Name, micros(g.HeardAt), g.Claimed, g.Completed, c.Announced, c.Passes, c.Failures, c.Pending,
		c.Skipped, c.Retries, c.Flaky, g.TakenBack}
	statement := setCounts + ofGroup
	if g.State.Terminal() { // otherwise look_at stays, and its index is not written
		statement, args = setCounts+setEnd+ofGroup, append(args, string(g.State), micros(g.FinishedAt))
	}
	_, err := tx.Exec(ctx, statement, args...)
	return err
}

// HearGroup stores only the time of a report.
func (tx *Tx) HearGroup(ctx context.Context, g run.Group) error {
	_, err := tx.Exec(ctx, `UPDATE run_group SET rev = rev + 1, heard_at = $3`+ofGroup, g.RunID, g.Name, micros(g.HeardAt))
	return err
}

// LookAgain sets when to check the inactivity timeout of a group again.
func (tx *Tx) LookAgain(ctx context.Context, g run.Group, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE run_group SET look_at = $3`+ofGroup, g.RunID, g.Name, micros(at))
	return err
}

// Group finds a group of a run.
func (tx *Tx) Group(ctx context.Context, runID, name string) (run.Group, error) {
	return one(tx.QueryRow(ctx, `SELECT `+groupColumns+` FROM run_group WHERE run_id = $1 AND name = $2`, runID, name),
		scanGroup, run.Missing("group", name))
}

// CountGroups counts the groups of a run.
func (tx *Tx) CountGroups(ctx context.Context, runID string) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM run_group WHERE run_id = $1`, runID).Scan(&n)
	return n, err
}

// Groups lists the groups of a run in the order they started.
func (tx *Tx) Groups(ctx context.Context, runID string) ([]run.Group, error) {
	rows, err := tx.Query(ctx, `SELECT `+groupColumns+` FROM run_group WHERE run_id = $1 ORDER BY created_at, name`, runID)
	return database.All(rows, err, scanGroup)
}

// GroupsOf lists the groups of several runs, each run's in the order they started.
func (tx *Tx) GroupsOf(ctx context.Context, runIDs []string) (map[string][]run.Group, error) {
	out := map[string][]run.Group{}
	if len(runIDs) == 0 {
		return out, nil
	}
	q := query{text: `SELECT ` + groupColumns + ` FROM run_group WHERE 1 = 1`}
	q.in("run_id", runIDs)
	rows, err := tx.Query(ctx, q.text+` ORDER BY created_at, name`, q.args...)
	list, err := database.All(rows, err, scanGroup)
	for _, g := range list {
		out[g.RunID] = append(out[g.RunID], g)
	}
	return out, err
}

// RunCounts sums the counts of a run's groups.
func (tx *Tx) RunCounts(ctx context.Context, runID string) (run.Counts, error) {
	var c run.Counts
	err := tx.QueryRow(ctx, `SELECT `+sumOfGroups+` FROM run_group g WHERE g.run_id = $1`, runID).
		Scan(&c.Announced, &c.Passes, &c.Failures, &c.Pending, &c.Skipped, &c.Retries, &c.Flaky)
	return c, err
}

// GroupRef names a group.
type GroupRef struct{ RunID, Name string }

// GroupsToLookAt lists groups whose inactivity timeout may have passed at the instant of
// the transaction.
func (tx *Tx) GroupsToLookAt(ctx context.Context, limit int) ([]GroupRef, error) {
	rows, err := tx.Query(ctx, `SELECT run_id, name FROM run_group WHERE look_at IS NOT NULL AND look_at <= $1
		ORDER BY look_at, run_id, name LIMIT $2`, micros(tx.Now), limit)
	return database.All(rows, err, func(r database.Row) (GroupRef, error) {
		var g GroupRef
		err := r.Scan(&g.RunID, &g.Name)
		return g, err
	})
}

// ExtendDeadlines gives every running group at least grace (or its own timeout, if that
// is shorter) from now: no machine could report while the server was down.
func (tx *Tx) ExtendDeadlines(ctx context.Context, grace time.Duration) error {
	_, err := tx.Exec(ctx, `UPDATE run_group
		SET rev = rev + 1, heard_at = $1 - inactivity_timeout + CASE WHEN inactivity_timeout < $2 THEN inactivity_timeout
		ELSE $2 END
		WHERE look_at IS NOT NULL
			AND heard_at + inactivity_timeout < $1 + CASE WHEN inactivity_timeout < $2 THEN inactivity_timeout ELSE $2 END`,
		micros(tx.Now), grace.Microseconds())
	return err
}
