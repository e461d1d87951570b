package store

import (
	"context"
	"time"

	"runbell/internal/run"
)

const projectColumns = `id, name, inactivity_timeout, completion_delay, default_branch, fail_fast, retention_days, public_runs, created_at`

func scanProject(r row) (run.Project, error) {
	var p run.Project
	var inactivity, completion, public, created int64
	err := r.Scan(&p.ID, &p.Name, &inactivity, &completion, &p.DefaultBranch, &p.FailFast, &p.RetentionDays, &public, &created)
	p.InactivityTimeout = time.Duration(inactivity) * time.Microsecond
	p.CompletionDelay = time.Duration(completion) * time.Microsecond
	p.PublicRuns = public != 0
	p.CreatedAt = timeOf(created)
	return p, err
}

// InsertProject stores a new project. It reports false if the id is taken.
func (tx *Tx) InsertProject(ctx context.Context, p run.Project) (bool, error) {
	res, err := tx.conn.ExecContext(ctx, `INSERT INTO project (`+projectColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING`,
		p.ID, p.Name, p.InactivityTimeout.Microseconds(), p.CompletionDelay.Microseconds(),
		p.DefaultBranch, p.FailFast, p.RetentionDays, flag(p.PublicRuns), micros(p.CreatedAt))
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// UpdateProject stores the settings of a project that exists.
func (tx *Tx) UpdateProject(ctx context.Context, p run.Project) error {
	_, err := tx.conn.ExecContext(ctx, `UPDATE project SET name = $2, inactivity_timeout = $3, completion_delay = $4,
		default_branch = $5, fail_fast = $6, retention_days = $7, public_runs = $8 WHERE id = $1`,
		p.ID, p.Name, p.InactivityTimeout.Microseconds(), p.CompletionDelay.Microseconds(),
		p.DefaultBranch, p.FailFast, p.RetentionDays, flag(p.PublicRuns))
	return err
}

// Project finds a project by its id.
func (tx *Tx) Project(ctx context.Context, id string) (run.Project, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT `+projectColumns+` FROM project WHERE id = $1`, id),
		scanProject, run.Missing("project", id))
}

// LockProject finds a project and keeps changes of its settings waiting until
// the transaction ends.
func (tx *Tx) LockProject(ctx context.Context, id string) (run.Project, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT `+projectColumns+` FROM project WHERE id = $1`+tx.forUpdate(), id),
		scanProject, run.Missing("project", id))
}

// Projects lists projects, newest first.
func (tx *Tx) Projects(ctx context.Context, page Page) ([]run.Project, bool, error) {
	q := query{text: `SELECT ` + projectColumns + ` FROM project WHERE 1 = 1`}
	return paged(ctx, tx, q, page, scanProject)
}

// AnyProject says whether there is a project at all.
func (tx *Tx) AnyProject(ctx context.Context) (bool, error) {
	var n int
	err := tx.conn.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM project LIMIT 1) AS p`).Scan(&n)
	return n > 0, err
}
