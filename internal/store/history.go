package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
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

// HistoryComplete says that all results of a run that came in are in the history.
func (tx *Tx) HistoryComplete(ctx context.Context, runID string) (bool, error) {
	var due int
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM instance WHERE run_id = $1 AND history_due = 1
		LIMIT 1) AS due`, runID).Scan(&due)
	return due == 0, err
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

// HistoryOfRun lists the packed results of a run.
func (tx *Tx) HistoryOfRun(ctx context.Context, runID string) ([][]byte, error) {
	rows, err := tx.Query(ctx, `SELECT results FROM history_part WHERE run_id = $1 ORDER BY group_name, part`, runID)
	return database.All(rows, err, func(r database.Row) (b []byte, err error) { err = r.Scan(&b); return b, err })
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
