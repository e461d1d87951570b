package store

import (
	"context"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

// InsertEvent stores an event and, for each endpoint that wants it, a delivery
// that is due at once, or parked behind an earlier event of the same run. It
// reports how many deliveries there are.
func (tx *Tx) InsertEvent(ctx context.Context, e webhook.Event) (int, error) {
	phase := "end"
	if e.Kind == webhook.RunStart {
		phase = "start"
	}
	if _, err := tx.conn.ExecContext(ctx, `INSERT INTO event (id, project_id, run_id, group_name, scope, kind, phase, sequence, payload, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		e.ID, e.ProjectID, e.RunID, e.Group, string(e.Scope), string(e.Kind), phase, e.Sequence, string(e.Payload), micros(e.CreatedAt)); err != nil {
		return 0, err
	}
	endpoints, err := tx.listeners(ctx, e.ProjectID, e.Scope)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, endpoint := range endpoints {
		if !endpoint.Wants(e) {
			continue
		}
		if err := tx.insertDelivery(ctx, endpoint.ID, e); err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// insertDelivery queues an event. The predecessor's row is locked while we
// look at it, so that its outcome is recorded either before the look (then
// nothing is parked) or after this transaction (then it releases this row).
func (tx *Tx) insertDelivery(ctx context.Context, endpointID string, e webhook.Event) error {
	rows, err := tx.conn.QueryContext(ctx, `SELECT id FROM delivery
		WHERE endpoint_id = $1 AND run_id = $2 AND due_at IS NOT NULL AND sequence < $3`+tx.forUpdate(), endpointID, e.RunID, e.Sequence)
	earlier, err := all(rows, err, scanText)
	if err != nil {
		return err
	}
	due, parked := tx.Now, len(earlier) > 0
	if parked {
		due = tx.Now.Add(webhook.OrderWait)
	}
	_, err = tx.conn.ExecContext(ctx, `INSERT INTO delivery (id, endpoint_id, event_id, run_id, kind, sequence, state, attempts, due_at, node, parked, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, '', $8, $9)`,
		newID("dlv_"), endpointID, e.ID, e.RunID, string(e.Kind), e.Sequence, micros(due), flag(parked), micros(tx.Now))
	return err
}

func scanEvent(r row) (webhook.Event, error) {
	var e webhook.Event
	var scope, kind, payload string
	var created int64
	err := r.Scan(&e.ID, &e.ProjectID, &e.RunID, &e.Group, &scope, &kind, &e.Sequence, &payload, &created)
	e.Scope, e.Kind, e.Payload, e.CreatedAt = run.Scope(scope), webhook.Kind(kind), []byte(payload), timeOf(created)
	return e, err
}

const eventColumns = `id, project_id, run_id, group_name, scope, kind, sequence, payload, created_at`

// Event finds an event by its id.
func (tx *Tx) Event(ctx context.Context, id string) (webhook.Event, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT `+eventColumns+` FROM event WHERE id = $1`, id), scanEvent, run.Missing("event", id))
}

// Events lists the events of a run in order.
func (tx *Tx) Events(ctx context.Context, runID string) ([]webhook.Event, error) {
	rows, err := tx.conn.QueryContext(ctx, `SELECT `+eventColumns+` FROM event WHERE run_id = $1 ORDER BY sequence`, runID)
	return all(rows, err, scanEvent)
}
