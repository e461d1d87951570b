package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

// LogEntry is what a log of deliveries shows besides the delivery itself.
type LogEntry struct {
	CIBuildID string // "" of a test
	Commit    run.Commit
	Group     string // of the event, "" at run scope
	Last      *webhook.Attempt
}

const lastAttempt = `a.number, a.started_at, a.duration, a.class, a.status, a.error`

// attemptRow is a row of lastAttempt, of which all may be NULL.
type attemptRow struct {
	number, started, duration, status database.NullInt64
	class, text                       database.NullString
}

func (a *attemptRow) fields() []any {
	return []any{&a.number, &a.started, &a.duration, &a.class, &a.status, &a.text}
}

func (a *attemptRow) value() *webhook.Attempt {
	if !a.number.Valid {
		return nil
	}
	return &webhook.Attempt{Number: int(a.number.Int64), StartedAt: timeOf(a.started.Int64),
		Duration: time.Duration(a.duration.Int64) * time.Microsecond, Class: webhook.Class(a.class.String),
		Status: int(a.status.Int64), Error: a.text.String}
}

// LogEntries returns the entries of deliveries by id. Their last attempts come without
// headers and body.
func (tx *Tx) LogEntries(ctx context.Context, ids []string) (map[string]LogEntry, error) {
	entries := make(map[string]LogEntry, len(ids))
	if len(ids) == 0 {
		return entries, nil
	}
	q := query{text: `SELECT d.id, e.group_name, r.ci_build_id, r.commit_info, ` + lastAttempt + `
		FROM delivery d JOIN event e ON e.id = d.event_id LEFT JOIN run r ON r.id = d.run_id
		LEFT JOIN attempt a ON a.delivery_id = d.id AND a.number = d.attempts WHERE 1 = 1`}
	q.in("d.id", ids)
	rows, err := tx.Query(ctx, q.text, q.args...)
	_, err = database.All(rows, err, func(r database.Row) (string, error) {
		var id string
		var v LogEntry
		var build, commit database.NullString
		var last attemptRow
		if err := r.Scan(append([]any{&id, &v.Group, &build, &commit}, last.fields()...)...); err != nil {
			return id, err
		}
		v.CIBuildID, v.Last = build.String, last.value()
		if commit.Valid {
			if err := parse(commit.String, &v.Commit); err != nil {
				return id, err
			}
		}
		entries[id] = v
		return id, nil
	})
	return entries, err
}

// LastFailure looks among the latest deliveries of an endpoint for one that has not
// succeeded. It returns its last attempt, without headers and body, or nil.
func (tx *Tx) LastFailure(ctx context.Context, endpointID string) (*webhook.Attempt, error) {
	const latest = `2000`
	var last attemptRow
	_, err := one(tx.QueryRow(ctx, `SELECT `+lastAttempt+` FROM
			(SELECT id, attempts, state, created_at FROM delivery WHERE endpoint_id = $1 ORDER BY created_at DESC, id DESC
			LIMIT `+latest+`) AS d
			JOIN attempt a ON a.delivery_id = d.id AND a.number = d.attempts
		WHERE d.state <> 'delivered' ORDER BY a.started_at DESC, d.id DESC LIMIT 1`,
		endpointID), func(r database.Row) (bool, error) {
		return true, r.Scan(last.fields()...)
	}, nil)
	return last.value(), err
}

// Hour counts the deliveries that were queued in an hour, by their state.
type Hour struct {
	At                         time.Time // its beginning, UTC
	Delivered, Failed, Pending int
}

// Hours counts the deliveries of an endpoint since an instant by the hour, oldest
// first; empty hours are left out. It reads at most this many of the latest deliveries.
func (tx *Tx) Hours(ctx context.Context, endpointID string, since time.Time, most int) ([]Hour, error) {
	const hour = `3600000000`
	rows, err := tx.Query(ctx, `SELECT hour, COUNT(CASE WHEN state = 'delivered' THEN 1 END),
		COUNT(CASE WHEN state = 'failed' THEN 1 END), COUNT(CASE WHEN state = 'pending' THEN 1 END)
		FROM (SELECT created_at / `+hour+
		` AS hour, state FROM delivery WHERE endpoint_id = $1 AND created_at >= $2 ORDER BY created_at DESC, id DESC
			LIMIT $3) AS latest
		GROUP BY hour ORDER BY hour`, endpointID, micros(since), most)
	return database.All(rows, err, func(r database.Row) (Hour, error) {
		var v Hour
		var at int64
		err := r.Scan(&at, &v.Delivered, &v.Failed, &v.Pending)
		v.At = time.Unix(at*3600, 0).UTC()
		return v, err
	})
}
