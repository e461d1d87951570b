package store

import (
	"context"
	"database/sql"
	"fmt"

	"runbell/internal/run"
)

// findRuns is migration 5: runs can be found by branch and by author without
// reading them all. It is not a text because the databases take JSON apart each
// in a way of its own.
func findRuns(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `ALTER TABLE run ADD COLUMN author TEXT NOT NULL DEFAULT ''`); err != nil {
		return err
	}
	for last, more := "", true; more; {
		commits, err := commitsAfter(ctx, tx, last)
		if err != nil {
			return err
		}
		more = len(commits) > 0
		for _, c := range commits {
			var commit run.Commit
			if err := parse(c.doc, &commit); err != nil {
				return fmt.Errorf("run %s: %w", c.id, err)
			}
			if _, err := tx.ExecContext(ctx, `UPDATE run SET branch = $2, author = $3 WHERE id = $1`, c.id, commit.Branch, commit.AuthorName); err != nil {
				return err
			}
			last = c.id
		}
	}
	for _, statement := range []string{
		`CREATE INDEX run_branch_created ON run (project_id, branch, created_at, id)`,
		`CREATE INDEX run_author_created ON run (project_id, author, created_at, id)`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

type storedCommit struct{ id, doc string }

// commitsAfter reads the next runs in the order of their ids.
func commitsAfter(ctx context.Context, tx *sql.Tx, id string) ([]storedCommit, error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, commit_info FROM run WHERE id > $1 ORDER BY id LIMIT 1000`, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []storedCommit
	for rows.Next() {
		var c storedCommit
		if err := rows.Scan(&c.id, &c.doc); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}
