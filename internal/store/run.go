package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// A run's rev is the sum of its own and its groups': so a verb on one group writes only
// that group's row.
const runColumns = `id, project_id, ci_build_id,
	rev + (SELECT COALESCE(CAST(SUM(g.rev) AS BIGINT), 0) FROM run_group g WHERE g.run_id = run.id), sequence, commit_info,
	tags, ci, client, fail_fast, completion_delay, state, running_groups, timed_out_groups, explicit, close_at, created_at,
	finished_at, canceled_by, cancel_reason, pinned_at, pinned_by, artifacts, artifact_bytes, artifacts_removed_at,
	output_removed_at`

func scanRun(r database.Row) (run.Run, error) {
	var v run.Run
	var commit, tags, ci, client, state string
	var delay, explicit, created int64
	var closeAt, finished, pinned, artifactsRemoved, outputRemoved database.NullInt64
	var actor, reason database.NullString
	err := r.Scan(&v.ID, &v.ProjectID, &v.CIBuildID, &v.Rev, &v.Sequence, &commit, &tags, &ci, &client, &v.FailFast,
		&delay, &state, &v.RunningGroups, &v.TimedOutGroups, &explicit, &closeAt, &created, &finished, &actor, &reason,
		&pinned, &v.PinnedBy, &v.Artifacts, &v.ArtifactBytes, &artifactsRemoved, &outputRemoved)
	if err != nil {
		return v, err
	}
	for _, d := range []struct {
		doc  string
		into any
	}{{commit, &v.Commit}, {tags, &v.Tags}, {ci, &v.CI}, {client, &v.Client}} {
		if err := parse(d.doc, d.into); err != nil {
			return v, err
		}
	}
	v.State = run.State(state)
	v.CompletionDelay = time.Duration(delay) * time.Microsecond
	v.Explicit = explicit != 0
	v.CloseAt, v.CreatedAt, v.FinishedAt = timeOrZero(closeAt), timeOf(created), timeOrZero(finished)
	v.PinnedAt, v.ArtifactsRemovedAt, v.OutputRemovedAt = timeOrZero(pinned), timeOrZero(artifactsRemoved),
		timeOrZero(outputRemoved)
	if actor.Valid {
		v.Cancellation = &run.Cancellation{Actor: actor.String, Reason: reason.String, At: v.FinishedAt}
	}
	return v, nil
}

// InsertRun stores a new run in state running. It reports false if the project already
// has a run with that ciBuildId.
func (tx *Tx) InsertRun(ctx context.Context, r run.Run) (bool, error) {
	tags := r.Tags
	if tags == nil {
		tags = []string{}
	}
	pull := 0
	if r.Commit.PullRequest != nil {
		pull = r.Commit.PullRequest.Number
	}
	n, err := tx.Exec(ctx, `INSERT INTO run (id, project_id, ci_build_id, rev, sequence, commit_info, tags, ci, client,
			fail_fast, completion_delay, state, running_groups, timed_out_groups, explicit, created_at, branch, author,
			pull_request)
		VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $9, $10, 'running', $11, 0, $12, $13, $14, $15, $16)
		ON CONFLICT (project_id, ci_build_id) DO NOTHING`,
		r.ID, r.ProjectID, r.CIBuildID, r.Sequence, document(r.Commit), document(tags), document(r.CI), document(r.Client),
		r.FailFast, r.CompletionDelay.Microseconds(), r.RunningGroups, flag(r.Explicit), micros(r.CreatedAt), r.Commit.Branch,
		r.Commit.AuthorName, pull)
	return n == 1, err
}

// lockedColumns are the columns that decisions of verbs depend on. Columns that are only
// for people (commit, tags, CI, client) are left out, because every request takes the
// lock, and reading a column costs time.
const lockedColumns = `id, project_id, ci_build_id, sequence, fail_fast, completion_delay, state, running_groups,
	timed_out_groups, explicit, close_at, finished_at, canceled_by, cancel_reason`

func scanLocked(r database.Row) (run.Run, error) {
	var v lockedRow
	err := r.Scan(v.fields()...)
	return v.value(), err
}

// lockedRow is a row of lockedColumns on its way to a run.Run.
type lockedRow struct {
	run.Run
	delay, explicit   int64
	closeAt, finished database.NullInt64
	actor, reason     database.NullString
}

func (v *lockedRow) fields() []any {
	return []any{&v.ID, &v.ProjectID, &v.CIBuildID, &v.Sequence, &v.FailFast, &v.delay, &v.State, &v.RunningGroups,
		&v.TimedOutGroups, &v.explicit, &v.closeAt, &v.finished, &v.actor, &v.reason}
}

func (v *lockedRow) value() run.Run {
	v.CompletionDelay = time.Duration(v.delay) * time.Microsecond
	v.Explicit = v.explicit != 0
	v.CloseAt, v.FinishedAt = timeOrZero(v.closeAt), timeOrZero(v.finished)
	if v.actor.Valid {
		v.Cancellation = &run.Cancellation{Actor: v.actor.String, Reason: v.reason.String, At: v.FinishedAt}
	}
	return v.Run
}

// CheckRun returns an error of kind NotFound unless the run exists.
func (tx *Tx) CheckRun(ctx context.Context, id string) error {
	_, err := one(tx.QueryRow(ctx, `SELECT id FROM run WHERE id = $1`, id), scanText, run.Missing("run", id))
	return err
}

// LockRun finds a run and blocks every other verb on it until the transaction ends. Rev,
// CreatedAt, Commit, Tags, CI and Client are left empty.
func (tx *Tx) LockRun(ctx context.Context, id string) (run.Run, error) {
	return one(tx.QueryRow(ctx, `SELECT `+lockedColumns+` FROM run WHERE id = $1`+tx.ForUpdate(), id),
		scanLocked, run.Missing("run", id))
}

// LockBuild is LockRun by project and ciBuildId.
func (tx *Tx) LockBuild(ctx context.Context, projectID, ciBuildID string) (run.Run, error) {
	return one(tx.QueryRow(ctx, `SELECT `+lockedColumns+` FROM run WHERE project_id = $1 AND ci_build_id = $2`+
		tx.ForUpdate(), projectID, ciBuildID), scanLocked, run.Missing("build", ciBuildID))
}

// lockedGroupColumns are the columns that verbs read for decisions and counts.
const lockedGroupColumns = `name, explicit, specs, claimed, taken_back, completed, announced, passes, failures, pending,
	skipped, retries, flaky, state, inactivity_timeout, heard_at, finished_at`

func (g *groupRow) lockedFields() []any {
	c := &g.Counts
	return []any{&g.Name, &g.explicit, &g.Specs, &g.Claimed, &g.TakenBack, &g.Completed, &c.Announced, &c.Passes,
		&c.Failures,
		&c.Pending, &c.Skipped, &c.Retries, &c.Flaky, &g.State, &g.timeout, &g.heard, &g.finished}
}

// The run comes first in these joins, because PostgreSQL locks the rows of a
// join in the order of its tables, and every verb locks the run first.
var (
	lockInstance = `SELECT ` + prefixed("r", lockedColumns) + `, ` + prefixed("g", lockedGroupColumns) + `,
			i.machine_id, i.announced, i.announced_at, i.completed_at
		FROM run r JOIN run_group g ON g.run_id = r.id JOIN instance i ON i.run_id = g.run_id AND i.group_name = g.name
		WHERE i.id = $1`
	lockMachine = `SELECT ` + prefixed("r", lockedColumns) + `, ` + prefixed("g", lockedGroupColumns) + `, m.unanswered
		FROM run r JOIN run_group g ON g.run_id = r.id JOIN machine m ON m.run_id = g.run_id AND m.group_name = g.name
		WHERE m.run_id = $1 AND m.id = $2`
)

// LockInstance is LockRun by an instance of the run, with the instance and its
// group. Fields that no decision depends on are left empty in all three.
func (tx *Tx) LockInstance(ctx context.Context, id string) (run.Run, run.Group, run.Instance, error) {
	var r lockedRow
	var g groupRow
	i := instanceRow{Instance: run.Instance{ID: id}}
	fields := slices.Concat(r.fields(), g.lockedFields(), []any{&i.machine, &i.Announced, &i.announced, &i.completed})
	err := tx.QueryRow(ctx, lockInstance+tx.ForUpdate(), id).Scan(fields...)
	if errors.Is(err, database.ErrNoRows) {
		err = run.Missing("instance", id)
	}
	if err != nil {
		return run.Run{}, run.Group{}, run.Instance{}, err
	}
	g.RunID, i.RunID, i.GroupName = r.ID, r.ID, g.Name
	return r.value(), g.value(), i.value(), nil
}

// LockMachine is LockRun with a machine that joined the run, and its group. Fields that
// no decision depends on are left empty in all three.
func (tx *Tx) LockMachine(ctx context.Context, runID, id string) (run.Run, run.Group, run.Machine, error) {
	var r lockedRow
	var g groupRow
	m := machineRow{Machine: run.Machine{ID: id, RunID: runID}}
	fields := slices.Concat(r.fields(), g.lockedFields(), []any{&m.unanswered})
	err := tx.QueryRow(ctx, lockMachine+tx.ForUpdate(), runID, id).Scan(fields...)
	if errors.Is(err, database.ErrNoRows) {
		if _, err = tx.LockRun(ctx, runID); err == nil {
			err = missingMachine(runID)
		}
	}
	if err != nil {
		return run.Run{}, run.Group{}, run.Machine{}, err
	}
	g.RunID, m.GroupName = r.ID, g.Name
	return r.value(), g.value(), m.value(), nil
}

// UpdateRun stores what run.Step changes, the cancellation, and the event
// sequence.
func (tx *Tx) UpdateRun(ctx context.Context, r run.Run) error {
	var actor, reason any
	if r.Cancellation != nil {
		actor, reason = r.Cancellation.Actor, r.Cancellation.Reason
	}
	_, err := tx.Exec(ctx, `UPDATE run SET rev = rev + 1, state = $2, running_groups = $3, timed_out_groups = $4,
		explicit = $5, close_at = $6, finished_at = $7, canceled_by = $8, cancel_reason = $9, sequence = $10
		WHERE id = $1`,
		r.ID, string(r.State), r.RunningGroups, r.TimedOutGroups, flag(r.Explicit), microsOrNull(r.CloseAt),
		microsOrNull(r.FinishedAt), actor, reason, r.Sequence)
	return err
}

// Run finds a run by its id.
func (tx *Tx) Run(ctx context.Context, id string) (run.Run, error) {
	return one(tx.QueryRow(ctx, `SELECT `+runColumns+` FROM run WHERE id = $1`, id), scanRun, run.Missing("run", id))
}

// RunDetails finds what only payloads need of a run: its commit, its tags and the default
// branch of its project.
func (tx *Tx) RunDetails(ctx context.Context,
	id string) (commit run.Commit, tags []string, defaultBranch string, err error) {
	var commitDoc, tagsDoc string
	err = tx.QueryRow(ctx, `SELECT r.commit_info, r.tags, p.default_branch FROM run r JOIN project p ON p.id = r.project_id
		WHERE r.id = $1`, id).Scan(&commitDoc, &tagsDoc, &defaultBranch)
	if err == nil {
		err = errors.Join(parse(commitDoc, &commit), parse(tagsDoc, &tags))
	}
	return commit, tags, defaultBranch, err
}

// Build finds a run by project and ciBuildId.
func (tx *Tx) Build(ctx context.Context, projectID, ciBuildID string) (run.Run, error) {
	return one(tx.QueryRow(ctx, `SELECT `+runColumns+` FROM run WHERE project_id = $1 AND ci_build_id = $2`, projectID,
		ciBuildID), scanRun, run.Missing("build", ciBuildID))
}

// running is the condition that a run is running. Such a run has a running group, or
// waits to be closed. Both are few, and an index finds them, however many runs there
// are. UNION would make SQLite read whole tables.
const running = `state = 'running' AND id IN (
	SELECT run_id FROM run_group WHERE look_at IS NOT NULL UNION ALL SELECT id FROM run WHERE close_at IS NOT NULL)`

// RunningOf lists the running runs whose CI parameters include all of ci.
func (tx *Tx) RunningOf(ctx context.Context, ci run.CI) ([]run.Run, error) {
	q := query{text: `SELECT ` + runColumns + ` FROM run WHERE ` + running}
	q.anyLike("ci", `"provider":`, []string{ci.Provider})
	for name, value := range ci.Params {
		q.anyLike("ci", document(name)+":", []string{value})
	}
	rows, err := tx.Query(ctx, q.text+` ORDER BY created_at, id`, q.args...)
	list, err := database.All(rows, err, scanRun)
	// The text does not tell the provider from a parameter of that name.
	return slices.DeleteFunc(list, func(r run.Run) bool {
		differs := r.CI.Provider != ci.Provider
		for name, value := range ci.Params {
			differs = differs || r.CI.Params[name] != value
		}
		return differs
	}), err
}

// ClosingRuns lists runs whose completion delay has passed at the instant of
// the transaction.
func (tx *Tx) ClosingRuns(ctx context.Context, limit int) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM run WHERE close_at IS NOT NULL AND close_at <= $1
		ORDER BY close_at, id LIMIT $2`, micros(tx.Now), limit)
	return database.All(rows, err, scanText)
}

func scanText(r database.Row) (string, error) {
	var s string
	err := r.Scan(&s)
	return s, err
}

// NextDeadline is the earliest instant at which a group may time out or a run may
// close; false if nothing is open.
func (tx *Tx) NextDeadline(ctx context.Context) (time.Time, bool, error) {
	var at database.NullInt64
	err := tx.QueryRow(ctx, `SELECT MIN(at) FROM (
		SELECT MIN(look_at) AS at FROM run_group WHERE look_at IS NOT NULL
		UNION ALL SELECT MIN(close_at) AS at FROM run WHERE close_at IS NOT NULL) AS deadlines`).Scan(&at)
	return timeOrZero(at), at.Valid, err
}

// PinRun stores who pinned a run and when. The run must be locked.
func (tx *Tx) PinRun(ctx context.Context, id, by string) error {
	_, err := tx.Exec(ctx, `UPDATE run SET rev = rev + 1, pinned_at = $2, pinned_by = $3 WHERE id = $1`, id,
		micros(tx.Now), by)
	return err
}

// UnpinRun is the inverse of PinRun.
func (tx *Tx) UnpinRun(ctx context.Context, id string) error {
	_, err := tx.Exec(ctx, `UPDATE run SET rev = rev + 1, pinned_at = NULL, pinned_by = '' WHERE id = $1`, id)
	return err
}
