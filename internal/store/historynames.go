package store

import (
	"context"
	"slices"
	"strconv"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// NameKind is the kind of a name in the history.
type NameKind string

// The kinds of names.
const (
	SpecName  NameKind = "spec"
	TestName  NameKind = "test"
	ErrorName NameKind = "error"
)

// HistoryName is the name that a number in packed results replaces.
type HistoryName struct {
	Number int
	Key    string // the path of a spec, the signature of a test, the fingerprint of an error
	Spec   int    // of a test: the number of its spec
	Text   string // the titles of a test as JSON, the headline of an error
}

const nameColumns = `number, key, spec, text`

func scanName(r database.Row) (n HistoryName, err error) {
	err = r.Scan(&n.Number, &n.Key, &n.Spec, &n.Text)
	return n, err
}

// NumbersSince is an instant, the zero time if a project has no numbers. As long as it is the
// same, existing numbers are valid.
func (tx *Tx) NumbersSince(ctx context.Context, projectID string) (time.Time, error) {
	return one(tx.QueryRow(ctx, `SELECT numbers_since FROM history WHERE project_id = $1`, projectID),
		func(r database.Row) (time.Time, error) {
			var at int64
			if err := r.Scan(&at); err != nil {
				return time.Time{}, err
			}
			return timeOf(at), nil
		}, nil)
}

// NumberNames gives a number to each name that has none, and returns all numbers by key.
// The numbers of a kind count up from 1 and are never reused.
func (tx *Tx) NumberNames(ctx context.Context, projectID string, kind NameKind,
	names []HistoryName) (map[string]int, error) {
	numbers := make(map[string]int, len(names))
	missing, unused, err := tx.findNumbers(ctx, projectID, kind, names, numbers)
	if err == nil && len(unused) > 0 { // they stay, unless they are deleted just now
		if err = tx.MarkNames(ctx, projectID, kind, unused, false); err == nil {
			clear(numbers)
			missing, _, err = tx.findNumbers(ctx, projectID, kind, names, numbers)
		}
	}
	if err != nil || len(missing) == 0 {
		return numbers, err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO history (project_id, numbers_since, specs, tests, errors)
		VALUES ($1, $2, 0, 0, 0) ON CONFLICT (project_id) DO NOTHING`,
		projectID, micros(tx.Now)); err != nil {
		return nil, err
	}
	column := string(kind) + "s"
	var last int
	if err := tx.QueryRow(ctx, `SELECT `+column+` FROM history WHERE project_id = $1`+tx.ForUpdate(),
		projectID).Scan(&last); err != nil {
		return nil, err
	}
	// Once more under the lock: another process may have given numbers meanwhile.
	if missing, _, err = tx.findNumbers(ctx, projectID, kind, missing, numbers); err != nil || len(missing) == 0 {
		return numbers, err
	}
	rows := make([][]any, len(missing))
	for i, n := range missing {
		last++
		numbers[n.Key] = last
		rows[i] = []any{projectID, string(kind), last, n.Key, n.Spec, n.Text}
	}
	if err := tx.InsertMany(ctx, `history_name (project_id, kind, number, key, spec, text)`, rows); err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, `UPDATE history SET `+column+` = $2 WHERE project_id = $1`, projectID, last)
	return numbers, err
}

// findNumbers adds the numbers of names that have one, and returns the others, each once. It
// also returns the numbers of those that are marked as unused.
func (tx *Tx) findNumbers(ctx context.Context, projectID string, kind NameKind, names []HistoryName,
	numbers map[string]int) (missing []HistoryName, unused []int, err error) {
	keys := make([]string, len(names))
	for i, n := range names {
		keys[i] = n.Key
	}
	slices.Sort(keys)
	err = database.Chunks(tx.Tx, slices.Compact(keys), func(chunk []string) error {
		among, args := tx.Among(chunk, projectID)
		// The kind is not a parameter: because of the index of signatures, SQLite would
		// plan the statement again each time it changes.
		rows, err := tx.Query(ctx, `SELECT number, key, unused_since FROM history_name
			WHERE project_id = $1 AND kind = '`+string(kind)+`' AND key`+among, args...)
		_, err = database.All(rows, err, func(r database.Row) (n int, err error) {
			var key string
			var since database.NullInt64
			err = r.Scan(&n, &key, &since)
			if numbers[key] = n; since.Valid {
				unused = append(unused, n)
			}
			return n, err
		})
		return err
	})
	asked := map[string]bool{}
	for _, n := range names {
		if numbers[n.Key] == 0 && !asked[n.Key] {
			asked[n.Key] = true
			missing = append(missing, n)
		}
	}
	return missing, unused, err
}

// HistoryNumbers are the numbers of those keys of a kind that have one.
func (tx *Tx) HistoryNumbers(ctx context.Context, projectID string, kind NameKind,
	keys []string) (map[string]int, error) {
	names := make([]HistoryName, len(keys))
	for i, key := range keys {
		names[i].Key = key
	}
	numbers := make(map[string]int, len(keys))
	_, _, err := tx.findNumbers(ctx, projectID, kind, names, numbers)
	return numbers, err
}

// HistoryNames lists the names of a kind, those with the numbers, or all of the
// project if numbers is nil.
func (tx *Tx) HistoryNames(ctx context.Context, projectID string, kind NameKind,
	numbers []int) (map[int]HistoryName, error) {
	names := map[int]HistoryName{}
	add := func(r database.Row) (HistoryName, error) {
		n, err := scanName(r)
		names[n.Number] = n
		return n, err
	}
	if numbers == nil {
		rows, err := tx.Query(ctx, `SELECT `+nameColumns+` FROM history_name WHERE project_id = $1 AND kind = $2`, projectID,
			string(kind))
		_, err = database.All(rows, err, add)
		return names, err
	}
	return names, database.Chunks(tx.Tx, numbers, func(chunk []int) error {
		list := make([][]any, len(chunk))
		for i, n := range chunk {
			list[i] = []any{n}
		}
		table, args := tx.Table(list)
		n := len(args)
		rows, err := tx.Query(ctx, `WITH v (wanted) AS (`+table+`) SELECT `+nameColumns+
			` FROM v JOIN history_name n ON n.project_id = $`+strconv.Itoa(n+1)+
			` AND n.kind = $`+strconv.Itoa(n+2)+` AND n.number = v.wanted`, append(args, projectID, string(kind))...)
		_, err = database.All(rows, err, add)
		return err
	})
}

// TestOfSignature finds the project and the name of a test.
func (tx *Tx) TestOfSignature(ctx context.Context, signature string) (projectID string, name HistoryName, err error) {
	name, err = one(tx.QueryRow(ctx,
		`SELECT project_id, `+nameColumns+` FROM history_name WHERE key = $1 AND kind = 'test'`, signature),
		func(r database.Row) (n HistoryName, err error) {
			err = r.Scan(&projectID, &n.Number, &n.Key, &n.Spec, &n.Text)
			return n, err
		}, run.Missing("test", signature))
	return projectID, name, err
}

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

// DeleteHistory removes up to limit names of a project that has no runs any more, and
// returns how many it removed: fewer than limit when none is left.
func (tx *Tx) DeleteHistory(ctx context.Context, projectID string, limit int) (int, error) {
	n, err := tx.Exec(ctx, `DELETE FROM history_name WHERE project_id = $1 AND (kind, number) IN (
		SELECT kind, number FROM history_name WHERE project_id = $1 ORDER BY kind, number LIMIT $2)`, projectID, limit)
	if err == nil && int(n) < limit {
		for _, from := range []string{`test_status`, `history`} { // few rows
			if _, err := tx.Exec(ctx, `DELETE FROM `+from+` WHERE project_id = $1`, projectID); err != nil {
				return 0, err
			}
		}
	}
	return int(n), err
}
