package store

import (
	"context"
	"errors"
	"strconv"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

const instanceColumns = `id, run_id, group_name, spec, position, machine_id, claim, claimed_at, announced, announced_at,
	completed_at, passes, failures, pending, skipped, retries, flaky, duration, exception`

func scanInstance(r database.Row) (run.Instance, error) {
	var i instanceRow
	err := r.Scan(i.fields()...)
	return i.value(), err
}

// instanceRow is a row of instanceColumns on its way to a run.Instance.
type instanceRow struct {
	run.Instance
	machine                       database.NullString
	claimed, announced, completed database.NullInt64
	duration                      int64
}

func (i *instanceRow) fields() []any {
	c := &i.Counts
	return []any{&i.ID, &i.RunID, &i.GroupName, &i.Spec, &i.Position, &i.machine, &i.Claim, &i.claimed, &i.Announced,
		&i.announced, &i.completed, &c.Passes, &c.Failures, &c.Pending, &c.Skipped, &c.Retries, &c.Flaky, &i.duration,
		&i.Exception}
}

// instances scans rows of instanceColumns for a list, all into the same variable, because
// a run may have thousands.
func instances() func(database.Row) (run.Instance, error) {
	var i instanceRow
	fields := i.fields()
	return func(r database.Row) (run.Instance, error) {
		err := r.Scan(fields...)
		return i.value(), err
	}
}

func (i *instanceRow) value() run.Instance {
	i.MachineID = i.machine.String
	i.ClaimedAt, i.AnnouncedAt, i.CompletedAt = timeOrZero(i.claimed), timeOrZero(i.announced), timeOrZero(i.completed)
	i.Duration = time.Duration(i.duration) * time.Microsecond
	return i.Instance
}

// InsertInstances stores the specs of a new group, unclaimed.
func (tx *Tx) InsertInstances(ctx context.Context, list []run.Instance) error {
	rows := make([][]any, len(list))
	for n, i := range list {
		rows[n] = []any{i.ID, i.RunID, i.GroupName, i.Spec, i.Position, 0, 0, 0, 0, 0, 0, 0, 0, 0, ""}
	}
	return tx.InsertMany(ctx, `instance (id, run_id, group_name, spec, position, claim, announced,
		passes, failures, pending, skipped, retries, flaky, duration, exception)`, rows)
}

// RecentDurations averages how long each spec of a project took in its most
// recent runs. It reads a limited number of rows, however large the runs were.
func (tx *Tx) RecentDurations(ctx context.Context, projectID string) (map[string]time.Duration, error) {
	const runs, results = 10, 10_000
	average := map[string]time.Duration{}
	rows, err := tx.Query(ctx, `SELECT spec, CAST(AVG(duration) AS BIGINT) FROM (
			SELECT i.spec, i.duration FROM (SELECT id, created_at FROM run WHERE project_id = $1
			ORDER BY created_at DESC, id DESC LIMIT $2) r
			JOIN instance i ON i.run_id = r.id
			WHERE i.completed_at IS NOT NULL AND i.duration > 0
			ORDER BY r.created_at DESC, r.id DESC, i.group_name, i.position LIMIT $3) recent
		GROUP BY spec`, projectID, runs, results)
	_, err = database.All(rows, err, func(r database.Row) (string, error) {
		var spec string
		var us int64
		err := r.Scan(&spec, &us)
		average[spec] = time.Duration(us) * time.Microsecond
		return spec, err
	})
	return average, err
}

// ClaimNext gives a machine the next unclaimed specs of its group, as a claim with a
// number. The run must be locked.
func (tx *Tx) ClaimNext(ctx context.Context, m run.Machine, number, limit int) ([]run.Instance, error) {
	// Two statements, because SQLite makes two temporary tables for an UPDATE that finds
	// its rows itself and returns them.
	rows, err := tx.Query(ctx, `SELECT `+instanceColumns+` FROM instance
		WHERE run_id = $1 AND group_name = $2 AND machine_id IS NULL ORDER BY position LIMIT $3`, m.RunID, m.GroupName, limit)
	list, err := database.All(rows, err, scanInstance)
	if err != nil {
		return nil, err
	}
	for n := range list {
		if err := tx.ClaimInstance(ctx, m, number, list[n]); err != nil {
			return nil, err
		}
		list[n].MachineID, list[n].Claim, list[n].ClaimedAt = m.ID, number, tx.Now
	}
	return list, nil
}

// ClaimInstance gives a machine a certain spec, as a claim with a number. The run must be
// locked.
func (tx *Tx) ClaimInstance(ctx context.Context, m run.Machine, number int, i run.Instance) error {
	_, err := tx.Exec(ctx, `UPDATE instance SET machine_id = $2, claim = $3, claimed_at = $4 WHERE id = $1`,
		i.ID, m.ID, number, micros(tx.Now))
	return err
}

// LastClaim lists the specs of a machine's last claim that was not empty.
func (tx *Tx) LastClaim(ctx context.Context, m run.Machine) ([]run.Instance, error) {
	rows, err := tx.Query(ctx, `SELECT `+instanceColumns+` FROM instance
		WHERE run_id = $1 AND group_name = $2 AND machine_id = $3 AND claim =
			(SELECT MAX(claim) FROM instance WHERE run_id = $1 AND group_name = $2 AND machine_id = $3)
		ORDER BY position`, m.RunID, m.GroupName, m.ID)
	return database.All(rows, err, scanInstance)
}

// SpecInstance finds the instance of a spec in a group.
func (tx *Tx) SpecInstance(ctx context.Context, runID, group, spec string) (run.Instance, error) {
	return one(tx.QueryRow(ctx, `SELECT `+instanceColumns+
		` FROM instance WHERE run_id = $1 AND group_name = $2 AND spec = $3`, runID, group, spec), scanInstance,
		run.Missing("spec", spec))
}

// FailedBeside finds the specs with failures of a run that are before and after one, in
// the order of groups and positions. An instance is zero if there is none.
func (tx *Tx) FailedBeside(ctx context.Context, i run.Instance) (before, after run.Instance, err error) {
	find := func(into *run.Instance, beside string) error {
		found, err := scanInstance(tx.QueryRow(ctx, `SELECT `+instanceColumns+
			` FROM instance WHERE run_id = $1 AND failures > 0 AND `+beside+` LIMIT 1`, i.RunID, i.GroupName, i.Position))
		if errors.Is(err, database.ErrNoRows) {
			return nil
		}
		*into = found
		return err
	}
	err = errors.Join(
		find(&before, `(group_name, position) < ($2, $3) ORDER BY group_name DESC, position DESC`),
		find(&after, `(group_name, position) > ($2, $3) ORDER BY group_name, position`))
	return before, after, err
}

// InstanceAt finds the instance of a group by its position.
func (tx *Tx) InstanceAt(ctx context.Context, runID, group string, position int) (run.Instance, error) {
	return one(tx.QueryRow(ctx, `SELECT `+instanceColumns+
		` FROM instance WHERE run_id = $1 AND group_name = $2 AND position = $3`, runID, group, position), scanInstance,
		run.Missing("spec", strconv.Itoa(position)))
}

// Specs lists the specs of a group.
func (tx *Tx) Specs(ctx context.Context, runID, group string) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT spec FROM instance WHERE run_id = $1 AND group_name = $2 ORDER BY position`, runID,
		group)
	return database.All(rows, err, scanText)
}

// Instance finds an instance by its id.
func (tx *Tx) Instance(ctx context.Context, id string) (run.Instance, error) {
	return one(tx.QueryRow(ctx, `SELECT `+instanceColumns+` FROM instance WHERE id = $1`, id), scanInstance,
		run.Missing("instance", id))
}

// Instances lists the specs of a run, group by group.
func (tx *Tx) Instances(ctx context.Context, runID string) ([]run.Instance, error) {
	var specs int
	err := tx.QueryRow(ctx, `SELECT CAST(COALESCE(SUM(specs), 0) AS BIGINT) FROM run_group WHERE run_id = $1`,
		runID).Scan(&specs)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT `+instanceColumns+` FROM instance WHERE run_id = $1 ORDER BY group_name, position`,
		runID)
	return database.Append(make([]run.Instance, 0, specs), rows, err, instances())
}

// SpecCounts counts the completed specs of a group by result.
type SpecCounts struct{ Passes, Failures int }

// SpecCounts counts the completed specs of a run, by group.
func (tx *Tx) SpecCounts(ctx context.Context, runID string) (map[string]SpecCounts, error) {
	counts := map[string]SpecCounts{}
	rows, err := tx.Query(ctx, `SELECT group_name, CAST(SUM(CASE WHEN failures + skipped = 0 THEN 1 ELSE 0 END) AS BIGINT),
			CAST(SUM(CASE WHEN failures + skipped > 0 THEN 1 ELSE 0 END) AS BIGINT)
		FROM instance WHERE run_id = $1 AND completed_at IS NOT NULL GROUP BY group_name`, runID)
	_, err = database.All(rows, err, func(r database.Row) (string, error) {
		var group string
		var c SpecCounts
		err := r.Scan(&group, &c.Passes, &c.Failures)
		counts[group] = c
		return group, err
	})
	return counts, err
}

// AnnounceInstance stores the number of announced tests and the announcement
// itself, in the wire form of [run.Announcement].
func (tx *Tx) AnnounceInstance(ctx context.Context, i run.Instance, doc string) error {
	if _, err := tx.Exec(ctx, `UPDATE instance SET announced = $2, announced_at = $3 WHERE id = $1`,
		i.ID, i.Announced, micros(i.AnnouncedAt)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO announcement (instance_id, document) VALUES ($1, $2)`, i.ID, doc)
	return err
}

// CompleteInstance stores results, once: counts and the document of a
// [run.Outcome]. It says that they are due in the history.
func (tx *Tx) CompleteInstance(ctx context.Context, i run.Instance, doc string) error {
	c := i.Counts
	if _, err := tx.Exec(ctx, `UPDATE instance SET completed_at = $2, passes = $3, failures = $4, pending = $5,
		skipped = $6, retries = $7, flaky = $8, duration = $9, exception = $10, history_due = 1 WHERE id = $1`,
		i.ID, micros(i.CompletedAt), c.Passes, c.Failures, c.Pending, c.Skipped, c.Retries, c.Flaky,
		i.Duration.Microseconds(), i.Exception); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO outcome (instance_id, document) VALUES ($1, $2)`, i.ID, doc)
	return err
}

// SetOutput stores the console output of a spec; the first one stays. The run
// must be locked.
func (tx *Tx) SetOutput(ctx context.Context, i run.Instance, text string) error {
	if _, err := tx.Exec(ctx, `UPDATE run SET has_output = 1 WHERE id = $1 AND has_output = 0`, i.RunID); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO console_output (instance_id, text) VALUES ($1, $2)
		ON CONFLICT (instance_id) DO NOTHING`,
		i.ID, text)
	return err
}

// Output is the console output of a spec, "" if there is none.
func (tx *Tx) Output(ctx context.Context, instanceID string) (string, error) {
	return one(tx.QueryRow(ctx, `SELECT text FROM console_output WHERE instance_id = $1`, instanceID), scanText, nil)
}

// Screenshots lists the screenshots of a run's specs, by instance.
func (tx *Tx) Screenshots(ctx context.Context, runID string) (map[string][]run.Screenshot, error) {
	shots := map[string][]run.Screenshot{}
	// Most specs have none, so their documents are not read.
	rows, err := tx.Query(ctx, `SELECT outcome.instance_id, outcome.document FROM instance
		JOIN outcome ON outcome.instance_id = instance.id
		WHERE instance.run_id = $1 AND outcome.document LIKE '%"screenshots":[%'`, runID)
	_, err = database.All(rows, err, func(r database.Row) (string, error) {
		var id, doc string
		if err := r.Scan(&id, &doc); err != nil {
			return id, err
		}
		var o struct {
			Screenshots []run.Screenshot `json:"screenshots"`
		}
		err := parse(doc, &o)
		shots[id] = o.Screenshots
		return id, err
	})
	return shots, err
}

// Announcement returns the announced tests of an instance, if there are any.
func (tx *Tx) Announcement(ctx context.Context, instanceID string) (run.Announcement, error) {
	return documentOf[run.Announcement](ctx, tx, "announcement", instanceID)
}

// Tests returns what is known about the tests of an instance.
func (tx *Tx) Tests(ctx context.Context, instanceID string) (run.Announcement, run.Outcome, error) {
	a, err := tx.Announcement(ctx, instanceID)
	if err != nil {
		return a, run.Outcome{}, err
	}
	o, err := documentOf[run.Outcome](ctx, tx, "outcome", instanceID)
	return a, o, err
}

// documentOf is the document of an instance in a table, zero if there is none.
func documentOf[T any](ctx context.Context, tx *Tx, table, instanceID string) (v T, err error) {
	doc, err := one(tx.QueryRow(ctx, `SELECT document FROM `+table+` WHERE instance_id = $1`, instanceID), scanText, nil)
	if err != nil || doc == "" {
		return v, err
	}
	return v, parse(doc, &v)
}
