package store

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// What explorers and insights read of a period.

// HistoryFilter narrows a project's history. Empty fields have no effect.
type HistoryFilter struct {
	Tags     []string
	AnyTag   bool // one of Tags is enough; otherwise all are needed
	Branches []string
	Authors  []string
	Groups   []string
	// Runs that were created at or after Since and before Until.
	Since, Until time.Time
}

// runs adds the conditions on the run r.
func (f HistoryFilter) runs(q *query) {
	q.tags("r.tags", f.Tags, f.AnyTag)
	q.in("r.branch", f.Branches)
	q.in("r.author", f.Authors)
	if !f.Since.IsZero() {
		q.where(`r.created_at >= ?`, micros(f.Since))
	}
	if !f.Until.IsZero() {
		q.where(`r.created_at < ?`, micros(f.Until))
	}
}

// HistoryRun is what explorers need to know about the run of packed results.
type HistoryRun struct {
	ID        string
	CreatedAt time.Time
	Branch    string
	Tags      string // as JSON
}

// RunOrder is the order of runs by creation.
type RunOrder string

// The orders of runs.
const (
	OldestFirst RunOrder = ` ORDER BY r.created_at, r.id`
	NewestFirst RunOrder = ` ORDER BY r.created_at DESC, r.id DESC`
)

// after adds the condition that a run r comes after a place.
func (o RunOrder) after(q *query, last HistoryRun) {
	switch {
	case last.ID == "":
	case o == OldestFirst:
		q.where(`(r.created_at, r.id) > (?, ?)`, micros(last.CreatedAt), last.ID)
	default:
		q.where(`(r.created_at, r.id) < (?, ?)`, micros(last.CreatedAt), last.ID)
	}
}

// EachHistoryDigest is EachHistoryPart, oldest first, without the results: with how many bytes
// they have, and their digest.
func (tx *Tx) EachHistoryDigest(ctx context.Context, projectID string, filter HistoryFilter,
	f func(r HistoryRun, p HistoryPart, bytes int, digest int64) error) error {
	q := query{text: `SELECT r.id, r.created_at, r.branch, r.tags, p.group_name, p.part, OCTET_LENGTH(p.results), p.digest
		FROM run r JOIN history_part p ON p.run_id = r.id WHERE r.project_id = $1`, args: []any{projectID}}
	filter.runs(&q)
	q.in("p.group_name", filter.Groups)
	rows, err := tx.Query(ctx, q.text+string(OldestFirst)+`, p.group_name, p.part`, q.args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var r HistoryRun
		var p HistoryPart
		var created, digest int64
		var bytes int
		if err := rows.Scan(&r.ID, &created, &r.Branch, &r.Tags, &p.Group, &p.Part, &bytes, &digest); err != nil {
			return err
		}
		r.CreatedAt, p.RunID = timeOf(created), r.ID
		if err := f(r, p, bytes, digest); err != nil {
			return err
		}
	}
	return rows.Err()
}

// firstRuns is how many runs [Tx.FirstHistoryParts] reads at first.
const firstRuns = 16

// FirstHistoryParts is EachHistoryPart for those who stop early. It reads the results of some
// runs, then of twice as many, and so on: PostgreSQL sends all that was asked for.
func (tx *Tx) FirstHistoryParts(ctx context.Context, projectID string, filter HistoryFilter, order RunOrder,
	f func(r HistoryRun, p HistoryPart, results []byte) error) error {
	var last HistoryRun
	for limit := firstRuns; ; limit *= 2 {
		found := 0
		q := query{text: `SELECT r.id, r.created_at, r.branch, r.tags, COALESCE(p.group_name, ''), COALESCE(p.part, -1),
			COALESCE(p.results, '') FROM (SELECT r.id, r.created_at, r.branch, r.tags FROM run r WHERE r.project_id = $1`,
			args: []any{projectID}}
		filter.runs(&q)
		order.after(&q, last)
		q.text += string(order) + ` LIMIT ` + strconv.Itoa(limit) + `) AS r LEFT JOIN history_part p ON p.run_id = r.id`
		q.in("p.group_name", filter.Groups)
		rows, err := tx.Query(ctx, q.text+string(order), q.args...)
		if err := eachPart(rows, err, func(r HistoryRun, p HistoryPart, results []byte) error {
			if r.ID != last.ID {
				found, last = found+1, r
			}
			if p.Part < 0 { // the run has no results
				return nil
			}
			return f(r, p, results)
		}); err != nil {
			return err
		}
		if found < limit {
			return nil
		}
	}
}

// EachHistoryPart calls f with the packed results of the runs that match a filter, run by
// run, until f returns an error.
func (tx *Tx) EachHistoryPart(ctx context.Context, projectID string, filter HistoryFilter, order RunOrder,
	f func(r HistoryRun, p HistoryPart, results []byte) error) error {
	rows, err := tx.history(ctx, projectID, filter, `p.results`, order)
	return eachPart(rows, err, f)
}

// history reads a column of each part of the runs that match a filter.
func (tx *Tx) history(ctx context.Context, projectID string, filter HistoryFilter, column string,
	order RunOrder) (database.Rows, error) {
	q := query{text: `SELECT r.id, r.created_at, r.branch, r.tags, p.group_name, p.part, ` + column + `
		FROM run r JOIN history_part p ON p.run_id = r.id WHERE r.project_id = $1`, args: []any{projectID}}
	filter.runs(&q)
	q.in("p.group_name", filter.Groups)
	return tx.Query(ctx, q.text+string(order), q.args...)
}

// scan reads a row of history but for where the piece is.
func (s *HistorySlice) scan(r database.Row, packed *[]byte) error {
	var created int64
	err := r.Scan(&s.RunID, &created, &s.Run.Branch, &s.Run.Tags, &s.Group, &s.Part, packed)
	s.Run.ID, s.Run.CreatedAt = s.RunID, timeOf(created)
	return err
}

// eachPart puts the parts of a run in order itself: the database would sort all results.
func eachPart(rows database.Rows, err error, f func(r HistoryRun, p HistoryPart, results []byte) error) error {
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	type part struct {
		HistorySlice
		results []byte
	}
	var last HistoryRun
	var parts []part // of the last run
	flush := func() error {
		slices.SortFunc(parts, func(a, b part) int {
			return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Part, b.Part))
		})
		for _, p := range parts {
			if err := f(last, p.HistoryPart, p.results); err != nil {
				return err
			}
		}
		parts = parts[:0]
		return nil
	}
	for rows.Next() {
		var p part
		if err := p.scan(rows, &p.results); err != nil {
			return err
		}
		if p.RunID != last.ID {
			if err := flush(); err != nil {
				return err
			}
			last = p.Run
		}
		parts = append(parts, p)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return flush()
}

// HistorySlice is a piece of the packed results of a part.
type HistorySlice struct {
	HistoryPart
	Run           HistoryRun
	First, Length int // bytes
}

// HistorySlices reads pieces of packed results of the runs that match a filter, oldest run first.
// find says by the contents of a part which pieces it wants, as where they begin and how long they are.
func (tx *Tx) HistorySlices(ctx context.Context, projectID string, filter HistoryFilter,
	find func(contents []byte, wanted func(first, length int)) error, f func(HistorySlice, []byte) error) error {
	wanted, err := tx.findSlices(ctx, projectID, filter, find)
	if err != nil {
		return err
	}
	// Not by the database: it would sort the contents.
	slices.SortFunc(wanted, func(a, b HistorySlice) int {
		return cmp.Or(a.Run.CreatedAt.Compare(b.Run.CreatedAt), cmp.Compare(a.RunID, b.RunID), cmp.Compare(a.Group, b.Group),
			cmp.Compare(a.Part, b.Part), cmp.Compare(a.First, b.First))
	})
	for some := range slices.Chunk(wanted, 1000) {
		pieces, err := tx.historyPieces(ctx, some)
		if err != nil {
			return err
		}
		for n, s := range some {
			if err := f(s, pieces[n]); err != nil {
				return err
			}
		}
	}
	return nil
}

// findSlices lists the pieces that find wants, in any order.
func (tx *Tx) findSlices(ctx context.Context, projectID string, filter HistoryFilter,
	find func(contents []byte, wanted func(first, length int)) error) (list []HistorySlice, err error) {
	rows, err := tx.history(ctx, projectID, filter, `p.contents`, ``)
	_, err = database.All(rows, err, func(r database.Row) (none struct{}, err error) {
		var s HistorySlice
		var contents []byte
		if err := s.scan(r, &contents); err != nil {
			return none, err
		}
		return none, find(contents, func(first, length int) {
			s.First, s.Length = first, length
			list = append(list, s)
		})
	})
	return list, err
}

// historyPieces reads pieces of packed results. Each is looked up by itself: PostgreSQL would join
// them with the whole table.
func (tx *Tx) historyPieces(ctx context.Context, list []HistorySlice) ([][]byte, error) {
	rows := make([][]any, len(list))
	for n, s := range list {
		rows[n] = []any{n, s.RunID, s.Group, s.Part, s.First + 1, s.Length}
	}
	pieces := make([][]byte, len(list))
	return pieces, database.Chunks(tx.Tx, rows, func(chunk [][]any) error {
		table, args := tx.Table(chunk)
		found, err := tx.Query(ctx, `WITH v (n, run_id, group_name, part, first, length) AS (`+table+`)
			SELECT v.n, (SELECT SUBSTR(p.results, CAST(v.first AS INTEGER), CAST(v.length AS INTEGER)) FROM history_part p
				WHERE p.run_id = v.run_id AND p.group_name = v.group_name AND p.part = v.part) FROM v`, args...)
		_, err = database.All(found, err, func(r database.Row) (n int, err error) {
			var piece []byte
			err = r.Scan(&n, &piece)
			pieces[n] = piece
			return n, err
		})
		return err
	})
}

// TimedOutSpecs counts the specs that were claimed and got no results, in groups that
// timed out, by path.
func (tx *Tx) TimedOutSpecs(ctx context.Context, projectID string, filter HistoryFilter) (map[string]int, error) {
	q := query{text: `SELECT i.spec, COUNT(*) FROM run r JOIN run_group g ON g.run_id = r.id
		JOIN instance i ON i.run_id = g.run_id AND i.group_name = g.name
		WHERE r.project_id = $1 AND r.timed_out_groups > 0 AND g.state = 'timed_out' AND i.machine_id IS NOT NULL
		AND i.completed_at IS NULL`, args: []any{projectID}}
	filter.runs(&q)
	q.in("g.name", filter.Groups)
	counts := map[string]int{}
	rows, err := tx.Query(ctx, q.text+` GROUP BY i.spec`, q.args...)
	_, err = database.All(rows, err, func(r database.Row) (string, error) {
		var spec string
		var n int
		err := r.Scan(&spec, &n)
		counts[spec] = n
		return spec, err
	})
	return counts, err
}

// InsightRun is a run as insights count it.
type InsightRun struct {
	CreatedAt  time.Time
	State      run.State
	LastReport time.Time
	Counts     run.Counts // of the groups in the filter
}

// InsightRuns lists the runs of a project that match a filter, oldest first. With a
// filter by groups, each run has at least one of them.
func (tx *Tx) InsightRuns(ctx context.Context, projectID string, filter HistoryFilter) ([]InsightRun, error) {
	q := query{text: `SELECT r.id, r.created_at, r.state, MAX(g.heard_at), ` + sumOfGroups + `
		FROM run r JOIN run_group g ON g.run_id = r.id WHERE r.project_id = $1`, args: []any{projectID}}
	filter.runs(&q)
	q.in("g.name", filter.Groups)
	rows, err := tx.Query(ctx, q.text+` GROUP BY r.id, r.created_at, r.state ORDER BY r.created_at, r.id`, q.args...)
	return database.All(rows, err, func(r database.Row) (InsightRun, error) {
		var v InsightRun
		var id string
		var created, heard int64
		c := &v.Counts
		err := r.Scan(&id, &created, &v.State, &heard, &c.Announced, &c.Passes, &c.Failures, &c.Pending, &c.Skipped,
			&c.Retries, &c.Flaky)
		v.CreatedAt, v.LastReport = timeOf(created), timeOf(heard)
		return v, err
	})
}
