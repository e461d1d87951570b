package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// HistoryPartSpecs is how many specs of a group share a row of history_part.
const HistoryPartSpecs = 256

// HistoryPart names a row of history_part: the specs of a group with positions
// from Part*HistoryPartSpecs on.
type HistoryPart struct {
	RunID string
	Group string
	Part  int
}

// HistoryDue lists the parts of the first limit due results, the longest due first.
// Oldest is when the first of these results came in; zero if nothing is due.
func (tx *Tx) HistoryDue(ctx context.Context, limit int) (parts []HistoryPart, oldest time.Time, err error) {
	rows, err := tx.Query(ctx, `SELECT run_id, group_name, position, completed_at FROM instance WHERE history_due = 1
		AND EXISTS (SELECT 1 FROM run WHERE run.id = instance.run_id) ORDER BY completed_at, id LIMIT $1`, limit)
	seen := map[HistoryPart]bool{}
	_, err = database.All(rows, err, func(r database.Row) (p HistoryPart, err error) {
		var position int
		var at database.NullInt64
		if err := r.Scan(&p.RunID, &p.Group, &position, &at); err != nil {
			return p, err
		}
		if oldest.IsZero() {
			oldest = timeOrZero(at)
		}
		p.Part = position / HistoryPartSpecs
		if !seen[p] {
			seen[p] = true
			parts = append(parts, p)
		}
		return p, nil
	})
	return parts, oldest, err
}

// HistoryCompleteUpTo is an instant: the history has all results that came in before it.
func (tx *Tx) HistoryCompleteUpTo(ctx context.Context) (time.Time, error) {
	oldest := micros(tx.Now)
	// Without the ones that a reset took back, which have no time.
	err := tx.QueryRow(ctx, `SELECT completed_at FROM instance WHERE history_due = 1 AND completed_at IS NOT NULL
		AND EXISTS (SELECT 1 FROM run WHERE run.id = instance.run_id) ORDER BY completed_at, id LIMIT 1`).Scan(&oldest)
	if errors.Is(err, database.ErrNoRows) {
		err = nil
	}
	return timeOf(oldest), err
}

// DueResults are the results of a spec that are due in the history.
type DueResults struct {
	ProjectID    string
	InstanceID   string
	Spec         string
	Position     int
	CompletedAt  time.Time
	Duration     time.Duration
	Exception    string
	Announcement run.Announcement
	Outcome      run.Outcome
}

// maxDueBytes limits what DueResults reads at once.
const maxDueBytes = 16 << 20

// DueResults reads results of a part that are due: at most limit, and fewer if their
// documents are large.
func (tx *Tx) DueResults(ctx context.Context, p HistoryPart, limit int) ([]DueResults, error) {
	first := p.Part * HistoryPartSpecs
	rows, err := tx.Query(ctx, `SELECT r.project_id, i.id, i.spec, i.position, i.completed_at, i.duration, i.exception,
		a.document, o.document
		FROM run r JOIN instance i ON i.run_id = r.id LEFT JOIN announcement a ON a.instance_id = i.id LEFT
		JOIN outcome o ON o.instance_id = i.id
		WHERE r.id = $1 AND i.group_name = $2 AND i.position >= $3 AND i.position < $4 AND i.history_due = 1
		ORDER BY i.position LIMIT $5`, p.RunID, p.Group, first, first+HistoryPartSpecs, limit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var list []DueResults
	for size := 0; size < maxDueBytes && rows.Next(); {
		var d DueResults
		var completed database.NullInt64
		var duration int64
		var announced, outcome database.NullString
		if err := rows.Scan(&d.ProjectID, &d.InstanceID, &d.Spec, &d.Position, &completed, &duration, &d.Exception,
			&announced, &outcome); err != nil {
			return nil, err
		}
		d.CompletedAt, d.Duration = timeOrZero(completed), time.Duration(duration)*time.Microsecond
		if announced.String != "" {
			if err := parse(announced.String, &d.Announcement); err != nil {
				return nil, err
			}
		}
		if outcome.String != "" {
			if err := parse(outcome.String, &d.Outcome); err != nil {
				return nil, err
			}
		}
		size += len(announced.String) + len(outcome.String)
		list = append(list, d)
	}
	return list, rows.Err()
}

// TakeDue marks results as being in the history, and returns those that were still due.
// It leaves out results that another worker has added. It also leaves out those that
// were reset or repeated since they were read: these stay due. The run must be locked.
func (tx *Tx) TakeDue(ctx context.Context, list []DueResults) ([]DueResults, error) {
	var taken []DueResults
	for _, d := range list {
		n, err := tx.Exec(ctx, `UPDATE instance SET history_due = 0 WHERE id = $1 AND history_due = 1
			AND COALESCE(completed_at, 0) = $2`,
			d.InstanceID, microsOrZero(d.CompletedAt))
		if err != nil {
			return nil, err
		}
		if n == 1 {
			taken = append(taken, d)
		}
	}
	return taken, nil
}

func microsOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return micros(t)
}

// HistoryResults is the packed results of a part, nil if there are none.
func (tx *Tx) HistoryResults(ctx context.Context, p HistoryPart) ([]byte, error) {
	return one(tx.QueryRow(ctx, `SELECT results FROM history_part WHERE run_id = $1 AND group_name = $2 AND part = $3`,
		p.RunID, p.Group, p.Part), func(r database.Row) (b []byte, err error) { err = r.Scan(&b); return b, err }, nil)
}

// SetHistoryResults stores the packed results of a part, and where in them each spec is.
func (tx *Tx) SetHistoryResults(ctx context.Context, p HistoryPart, results, contents []byte) error {
	sum := sha256.Sum256(results)
	_, err := tx.Exec(ctx, `INSERT INTO history_part (run_id, group_name, part, digest, contents, results)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (run_id, group_name, part) DO UPDATE SET digest = excluded.digest, contents = excluded.contents,
			results = excluded.results`,
		p.RunID, p.Group, p.Part, int64(binary.LittleEndian.Uint64(sum[:])), contents, results)
	return err
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

// HistoryOfRun lists the packed results of a run.
func (tx *Tx) HistoryOfRun(ctx context.Context, runID string) ([][]byte, error) {
	rows, err := tx.Query(ctx, `SELECT results FROM history_part WHERE run_id = $1 ORDER BY group_name, part`, runID)
	return database.All(rows, err, func(r database.Row) (b []byte, err error) { err = r.Scan(&b); return b, err })
}

// HistoryComplete says that all results of a run that came in are in the history.
func (tx *Tx) HistoryComplete(ctx context.Context, runID string) (bool, error) {
	var due int
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM instance WHERE run_id = $1 AND history_due = 1
		LIMIT 1) AS due`, runID).Scan(&due)
	return due == 0, err
}

// HistoryDueOf lists the parts of a run of which results are due.
func (tx *Tx) HistoryDueOf(ctx context.Context, runID string) ([]HistoryPart, error) {
	rows, err := tx.Query(ctx, `SELECT DISTINCT group_name, position / $2 FROM instance
		WHERE run_id = $1 AND history_due = 1 AND EXISTS (SELECT 1 FROM run WHERE id = $1) ORDER BY 1, 2`, runID,
		HistoryPartSpecs)
	return database.All(rows, err, func(r database.Row) (HistoryPart, error) {
		p := HistoryPart{RunID: runID}
		err := r.Scan(&p.Group, &p.Part)
		return p, err
	})
}

// FinishedBefore lists the latest finished runs of a branch that were created before a
// run, the latest first.
func (tx *Tx) FinishedBefore(ctx context.Context, r run.Run, branch string, limit int) ([]run.Run, error) {
	rows, err := tx.Query(ctx, `SELECT id, ci_build_id, created_at FROM run
		WHERE project_id = $1 AND branch = $2 AND state = 'finished' AND (created_at, id) < ($3, $4)
		ORDER BY created_at DESC, id DESC LIMIT $5`,
		r.ProjectID, branch, micros(r.CreatedAt), r.ID, limit)
	return database.All(rows, err, func(row database.Row) (v run.Run, err error) {
		var created int64
		err = row.Scan(&v.ID, &v.CIBuildID, &created)
		v.CreatedAt = timeOf(created)
		return v, err
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
