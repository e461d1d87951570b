package store

import (
	"context"
	"strconv"
	"time"

	"runbell/internal/database"
)

// Statements of the sweeper of names.

// LastNumbers are the last numbers that a project has given, by kind, and when its names
// were last swept: the zero time before the first time. There are none if it has no history.
func (tx *Tx) LastNumbers(ctx context.Context, projectID string) (last map[NameKind]int, swept time.Time, err error) {
	last, err = one(tx.QueryRow(ctx, `SELECT specs, tests, errors, swept_at FROM history WHERE project_id = $1`,
		projectID), func(r database.Row) (map[NameKind]int, error) {
		var specs, tests, errs int
		var at database.NullInt64
		err := r.Scan(&specs, &tests, &errs, &at)
		swept = timeOrZero(at)
		return map[NameKind]int{SpecName: specs, TestName: tests, ErrorName: errs}, err
	}, nil)
	return last, swept, err
}

// SetNamesSwept notes when the names of a project were swept.
func (tx *Tx) SetNamesSwept(ctx context.Context, projectID string, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE history SET swept_at = $2 WHERE project_id = $1`, projectID, micros(at))
	return err
}

// SweptName is a name as the sweeper sees it.
type SweptName struct {
	Number      int
	Spec        int       // of a test
	UnusedSince time.Time // zero if it is not marked
}

// NamesAfter lists up to limit names of a kind in the order of their numbers.
func (tx *Tx) NamesAfter(ctx context.Context, projectID string, kind NameKind, after, limit int) ([]SweptName, error) {
	rows, err := tx.Query(ctx, `SELECT number, spec, unused_since FROM history_name
		WHERE project_id = $1 AND kind = $2 AND number > $3 ORDER BY number LIMIT $4`, projectID, string(kind), after, limit)
	return database.All(rows, err, func(r database.Row) (n SweptName, err error) {
		var unused database.NullInt64
		err = r.Scan(&n.Number, &n.Spec, &unused)
		n.UnusedSince = timeOrZero(unused)
		return n, err
	})
}

// ofNames runs a statement about names of a kind by their numbers, which are $1 and so on, and
// returns how many rows it changed. The statement ends before the condition.
func (tx *Tx) ofNames(ctx context.Context, statement, projectID string, kind NameKind, numbers []int,
	condition string) (changed int64, err error) {
	err = database.Chunks(tx.Tx, numbers, func(chunk []int) error {
		list := make([][]any, len(chunk))
		for i, n := range chunk {
			list[i] = []any{n}
		}
		table, args := tx.Table(list)
		n, err := tx.Exec(ctx, `WITH v (wanted) AS (`+table+`) `+statement+` WHERE project_id = $`+strconv.Itoa(len(args)+1)+
			` AND kind = $`+strconv.Itoa(len(args)+2)+` AND number IN (SELECT wanted FROM v)`+condition,
			append(args, projectID, string(kind))...)
		changed += n
		return err
	})
	return changed, err
}

// MarkNames marks names of a project as unused since now, or takes the mark away. With the
// mark, numbers that processes remember are not valid any more.
func (tx *Tx) MarkNames(ctx context.Context, projectID string, kind NameKind, numbers []int, unused bool) error {
	if !unused {
		_, err := tx.ofNames(ctx, `UPDATE history_name SET unused_since = NULL`, projectID, kind, numbers, ``)
		return err
	}
	now := strconv.FormatInt(micros(tx.Now), 10)
	if _, err := tx.ofNames(ctx, `UPDATE history_name SET unused_since = `+now, projectID, kind, numbers,
		` AND unused_since IS NULL`); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE history SET numbers_since = $2 WHERE project_id = $1`, projectID, micros(tx.Now))
	return err
}

// DeleteNames deletes names that have been marked as unused since before an instant, and
// returns how many it deleted.
func (tx *Tx) DeleteNames(ctx context.Context, projectID string, kind NameKind, numbers []int,
	before time.Time) (int, error) {
	n, err := tx.ofNames(ctx, `DELETE FROM history_name`, projectID, kind, numbers,
		` AND unused_since < `+strconv.FormatInt(micros(before), 10))
	return int(n), err
}
