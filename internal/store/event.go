package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

// InsertEvent stores an event. [Tx.QueueDelivery] queues it at endpoints.
func (tx *Tx) InsertEvent(ctx context.Context, e webhook.Event) error {
	phase := "end"
	switch e.Kind {
	case webhook.RunStart:
		phase = "start"
	case webhook.TestStatus:
		phase = "tests"
	case webhook.RunFinish, webhook.RunTimeout, webhook.RunCanceled:
	}
	var runID, facts any
	if e.RunID != "" {
		runID = e.RunID
	}
	if e.Facts != nil {
		facts = string(e.Facts)
	}
	_, err := tx.Exec(ctx, `INSERT INTO event (id, project_id, run_id, group_name, scope, kind, phase, sequence, payload,
		created_at, facts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		e.ID, e.ProjectID, runID, e.Group, string(e.Scope), string(e.Kind), phase, e.Sequence, string(e.Payload),
		micros(e.CreatedAt), facts)
	return err
}

// LastFinished lists the groups of the last run of a branch that finished by an
// instant and in which a test ran. The run that asks does not count. With a track
// (see [webhook.Track]) it is the last run that has a group of the track, and only
// these groups are listed. It lists none if there is no such run among the latest
// finished ones of the branch: a group with a new name would look through all.
func (tx *Tx) LastFinished(ctx context.Context, projectID, branch, except string, by time.Time,
	track *string) ([]run.Group, error) {
	const latest = `500`
	of, args := ``, []any{projectID, branch, except, micros(by)}
	if track != nil {
		of = ` AND CASE WHEN explicit = 1 THEN name ELSE '' END = $5`
		args = append(args, *track)
	}
	rows, err := tx.Query(ctx, `SELECT `+groupColumns+` FROM run_group WHERE run_id = (
		SELECT r.id FROM run r WHERE r.project_id = $1 AND r.branch = $2 AND r.state = 'finished' AND r.id <> $3
		AND r.finished_at <= $4 AND r.finished_at > COALESCE((SELECT finished_at FROM run WHERE project_id = $1
			AND branch = $2 AND state = 'finished' AND finished_at <= $4 ORDER BY finished_at DESC LIMIT 1 OFFSET `+latest+`), 0)
			AND EXISTS (SELECT 1 FROM run_group WHERE run_id = r.id AND passes + failures > 0`+of+`) ORDER BY r.finished_at DESC,
				r.id DESC LIMIT 1)`+of, args...)
	return database.All(rows, err, scanGroup)
}

func scanEvent(r database.Row) (webhook.Event, error) {
	var e webhook.Event
	var scope, kind, payload string
	var created int64
	var facts database.NullString
	err := r.Scan(&e.ID, &e.ProjectID, &e.RunID, &e.Group, &scope, &kind, &e.Sequence, &payload, &created, &facts)
	e.Scope, e.Kind, e.Payload, e.CreatedAt = run.Scope(scope), webhook.Kind(kind), []byte(payload), timeOf(created)
	if facts.Valid {
		e.Facts = []byte(facts.String)
	}
	return e, err
}

const eventColumns = `id, project_id, COALESCE(run_id, ''), group_name, scope, kind, sequence, payload, created_at,
	facts`

// Event finds an event by its id.
func (tx *Tx) Event(ctx context.Context, id string) (webhook.Event, error) {
	return one(tx.QueryRow(ctx, `SELECT `+eventColumns+` FROM event WHERE id = $1`, id), scanEvent,
		run.Missing("event", id))
}

// Events lists the events of a run in order.
func (tx *Tx) Events(ctx context.Context, runID string) ([]webhook.Event, error) {
	rows, err := tx.Query(ctx, `SELECT `+eventColumns+` FROM event WHERE run_id = $1 ORDER BY sequence`, runID)
	return database.All(rows, err, scanEvent)
}
