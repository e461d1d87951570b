package store

import (
	"context"
	"errors"
	"slices"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

// InsertEvent stores an event and, for each endpoint that wants it, a delivery
// that is due at once, or waits for an earlier event of the same run. facts are
// what filters look at; whether the branch recovered is found out here, if
// somebody asks. It answers the endpoints that got a delivery.
func (tx *Tx) InsertEvent(ctx context.Context, e webhook.Event, facts webhook.Facts) ([]string, error) {
	if err := tx.insertEvent(ctx, e); err != nil {
		return nil, err
	}
	endpoints, err := tx.listeners(ctx, e.ProjectID, e.Scope)
	if err != nil {
		return nil, err
	}
	recovers := func(l webhook.Endpoint) bool { return l.Filters.Result == webhook.Recovered }
	if slices.Contains(facts.Results, webhook.Passed) && slices.ContainsFunc(endpoints, recovers) {
		failed, err := tx.failedBefore(ctx, e, facts.Branch)
		if err != nil {
			return nil, err
		}
		if failed {
			facts.Results = append(slices.Clone(facts.Results), webhook.Recovered)
		}
	}
	var told []string
	for _, endpoint := range endpoints {
		if !endpoint.Wants(e, facts) {
			continue
		}
		if _, err := tx.insertDelivery(ctx, endpoint.ID, e); err != nil {
			return nil, err
		}
		told = append(told, endpoint.ID)
	}
	return told, nil
}

// InsertTest stores an event that did not happen and its delivery to one
// endpoint, and answers the delivery's id.
func (tx *Tx) InsertTest(ctx context.Context, endpointID string, e webhook.Event) (string, error) {
	if err := tx.insertEvent(ctx, e); err != nil {
		return "", err
	}
	return tx.insertDelivery(ctx, endpointID, e)
}

func (tx *Tx) insertEvent(ctx context.Context, e webhook.Event) error {
	phase := "end"
	if e.Kind == webhook.RunStart {
		phase = "start"
	}
	var runID any
	if e.RunID != "" {
		runID = e.RunID
	}
	_, err := tx.Exec(ctx, `INSERT INTO event (id, project_id, run_id, group_name, scope, kind, phase, sequence, payload, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		e.ID, e.ProjectID, runID, e.Group, string(e.Scope), string(e.Kind), phase, e.Sequence, string(e.Payload), micros(e.CreatedAt))
	return err
}

// failedBefore says whether the last finished run of the branch had failed; at
// group scope, of those that had this group, whether the group had.
func (tx *Tx) failedBefore(ctx context.Context, e webhook.Event, branch string) (bool, error) {
	if branch == "" {
		return false, nil
	}
	of, args := ``, []any{e.ProjectID, branch, e.RunID}
	if e.Scope == run.GroupScope {
		of = ` AND EXISTS (SELECT 1 FROM run_group mine WHERE mine.run_id = $3 AND mine.name = $4
			AND g.explicit = mine.explicit AND (g.explicit = 0 OR g.name = mine.name))`
		args = append(args, e.Group)
	}
	var bad int64
	err := tx.QueryRow(ctx, `SELECT CAST(SUM(g.failures + g.skipped) AS BIGINT) FROM run r JOIN run_group g ON g.run_id = r.id
		WHERE r.project_id = $1 AND r.branch = $2 AND r.state = 'finished' AND r.id <> $3`+of+`
		GROUP BY r.id, r.finished_at ORDER BY r.finished_at DESC LIMIT 1`, args...).Scan(&bad)
	if errors.Is(err, database.ErrNoRows) {
		return false, nil
	}
	return bad > 0, err
}

// insertDelivery queues an event. The predecessor's row is locked while we
// look at it, so that its outcome is recorded either before the look (then
// nothing waits for it) or after this transaction (then it releases this row).
func (tx *Tx) insertDelivery(ctx context.Context, endpointID string, e webhook.Event) (string, error) {
	var earlier []string
	if e.RunID != "" {
		rows, err := tx.Query(ctx, `SELECT id FROM delivery
			WHERE run_id = $1 AND sequence < $2 AND endpoint_id = $3 AND blocks = 1`+tx.ForUpdate(), e.RunID, e.Sequence, endpointID)
		if earlier, err = database.All(rows, err, scanText); err != nil {
			return "", err
		}
	}
	due, parked := any(micros(tx.Now)), len(earlier) > 0
	if parked {
		due = nil
	}
	id := webhook.NewID("dlv_", tx.Now)
	_, err := tx.Exec(ctx, `INSERT INTO delivery (id, endpoint_id, event_id, run_id, kind, sequence, state, attempts, earlier, blocks, parked, due_at, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, 0, 1, $7, $8, $9)`,
		id, endpointID, e.ID, e.RunID, string(e.Kind), e.Sequence, flag(parked), due, micros(tx.Now))
	return id, err
}

func scanEvent(r database.Row) (webhook.Event, error) {
	var e webhook.Event
	var scope, kind, payload string
	var created int64
	err := r.Scan(&e.ID, &e.ProjectID, &e.RunID, &e.Group, &scope, &kind, &e.Sequence, &payload, &created)
	e.Scope, e.Kind, e.Payload, e.CreatedAt = run.Scope(scope), webhook.Kind(kind), []byte(payload), timeOf(created)
	return e, err
}

const eventColumns = `id, project_id, COALESCE(run_id, ''), group_name, scope, kind, sequence, payload, created_at`

// Event finds an event by its id.
func (tx *Tx) Event(ctx context.Context, id string) (webhook.Event, error) {
	return one(tx.QueryRow(ctx, `SELECT `+eventColumns+` FROM event WHERE id = $1`, id), scanEvent, run.Missing("event", id))
}

// Events lists the events of a run in order.
func (tx *Tx) Events(ctx context.Context, runID string) ([]webhook.Event, error) {
	rows, err := tx.Query(ctx, `SELECT `+eventColumns+` FROM event WHERE run_id = $1 ORDER BY sequence`, runID)
	return database.All(rows, err, scanEvent)
}
