package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

const projectColumns = `id, name, inactivity_timeout, completion_delay, default_branch, fail_fast, retention_days,
	run_days, artifacts_failed_days, artifacts_passed_days, output_days, artifacts_max_bytes, public_runs, created_at`

func scanProject(r database.Row) (run.Project, error) {
	var p run.Project
	var inactivity, completion, public, created int64
	err := r.Scan(&p.ID, &p.Name, &inactivity, &completion, &p.DefaultBranch, &p.FailFast, &p.Keep.Deliveries,
		&p.Keep.Runs, &p.Keep.FailedArtifacts, &p.Keep.PassedArtifacts, &p.Keep.Output, &p.Keep.ArtifactBytes, &public,
		&created)
	p.InactivityTimeout = time.Duration(inactivity) * time.Microsecond
	p.CompletionDelay = time.Duration(completion) * time.Microsecond
	p.PublicRuns = public != 0
	p.CreatedAt = timeOf(created)
	return p, err
}

// InsertProject stores a new project. It reports false if the id is taken.
func (tx *Tx) InsertProject(ctx context.Context, p run.Project) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO project (`+projectColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (id) DO NOTHING`,
		p.ID, p.Name, p.InactivityTimeout.Microseconds(), p.CompletionDelay.Microseconds(),
		p.DefaultBranch, p.FailFast, p.Keep.Deliveries, p.Keep.Runs, p.Keep.FailedArtifacts, p.Keep.PassedArtifacts,
		p.Keep.Output, p.Keep.ArtifactBytes, flag(p.PublicRuns), micros(p.CreatedAt))
	return n == 1, err
}

// UpdateProject stores the settings of a project that exists.
func (tx *Tx) UpdateProject(ctx context.Context, p run.Project) error {
	_, err := tx.Exec(ctx, `UPDATE project SET name = $2, inactivity_timeout = $3, completion_delay = $4,
		default_branch = $5, fail_fast = $6, retention_days = $7, run_days = $8, artifacts_failed_days = $9,
		artifacts_passed_days = $10, output_days = $11, artifacts_max_bytes = $12, public_runs = $13 WHERE id = $1`,
		p.ID, p.Name, p.InactivityTimeout.Microseconds(), p.CompletionDelay.Microseconds(),
		p.DefaultBranch, p.FailFast, p.Keep.Deliveries, p.Keep.Runs, p.Keep.FailedArtifacts, p.Keep.PassedArtifacts,
		p.Keep.Output, p.Keep.ArtifactBytes, flag(p.PublicRuns))
	return err
}

// Project finds a project by its id.
func (tx *Tx) Project(ctx context.Context, id string) (run.Project, error) {
	return one(tx.QueryRow(ctx, `SELECT `+projectColumns+` FROM project WHERE id = $1`, id),
		scanProject, run.Missing("project", id))
}

// LockProject finds a project and blocks changes of its settings until the transaction
// ends.
func (tx *Tx) LockProject(ctx context.Context, id string) (run.Project, error) {
	return one(tx.QueryRow(ctx, `SELECT `+projectColumns+` FROM project WHERE id = $1`+tx.ForUpdate(), id),
		scanProject, run.Missing("project", id))
}

// Projects lists projects, newest first.
func (tx *Tx) Projects(ctx context.Context, page Page) ([]run.Project, bool, error) {
	q := query{text: `SELECT ` + projectColumns + ` FROM project WHERE 1 = 1`}
	return paged(ctx, tx, q, page, scanProject)
}

// DeleteProject removes a project that has no runs, no endpoints and no history any
// more.
func (tx *Tx) DeleteProject(ctx context.Context, id string) error {
	if err := tx.DeleteKeys(ctx, id); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM sweep WHERE project_id = $1`, id); err != nil {
		return err
	}
	return tx.deleteOne(ctx, `DELETE FROM project WHERE id = $1`, "project", id)
}

// AnyProject says whether there is a project at all.
func (tx *Tx) AnyProject(ctx context.Context) (bool, error) {
	var n int
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM project LIMIT 1) AS p`).Scan(&n)
	return n > 0, err
}

// ActiveProject is a project in a list by activity.
type ActiveProject struct {
	ID      string
	Running int // runs
}

// ProjectsByActivity lists the projects whose name or id contains a text, in any case,
// by their newest run, newest first. A project without runs counts by its creation.
func (tx *Tx) ProjectsByActivity(ctx context.Context, text string) ([]ActiveProject, error) {
	q := query{text: `SELECT id FROM (SELECT id, name, created_at,
		(SELECT MAX(r.created_at) FROM run r WHERE r.project_id = project.id) AS newest FROM project) AS p WHERE 1 = 1`}
	if text != "" {
		part := "%" + likeLiteral(text) + "%"
		q.where(`LOWER(name) LIKE LOWER(?) ESCAPE '!' OR LOWER(id) LIKE LOWER(?) ESCAPE '!'`, part, part)
	}
	rows, err := tx.Query(ctx, q.text+` ORDER BY COALESCE(newest, created_at) DESC, id DESC`, q.args...)
	list, err := database.All(rows, err, func(r database.Row) (ActiveProject, error) {
		var v ActiveProject
		err := r.Scan(&v.ID)
		return v, err
	})
	if err != nil {
		return nil, err
	}
	rows, err = tx.Query(ctx, `SELECT project_id, COUNT(*) FROM run WHERE `+running+` GROUP BY project_id`)
	counts := map[string]int{}
	if _, err = database.All(rows, err, func(r database.Row) (string, error) {
		var id string
		var n int
		err := r.Scan(&id, &n)
		counts[id] = n
		return id, err
	}); err != nil {
		return nil, err
	}
	for n := range list {
		list[n].Running = counts[list[n].ID]
	}
	return list, nil
}
