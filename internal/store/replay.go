package store

import (
	"context"

	"runbell/internal/database"
	"runbell/internal/run"
)

// LockLane blocks the recording of attempts at an endpoint until the transaction ends.
func (tx *Tx) LockLane(ctx context.Context, endpointID string) error {
	_, err := one(tx.QueryRow(ctx, `SELECT endpoint_id FROM lane WHERE endpoint_id = $1`+tx.ForUpdate(), endpointID),
		scanText, run.Missing("webhook", endpointID))
	return err
}

// CountDeliveries counts the deliveries that Deliveries would list.
func (tx *Tx) CountDeliveries(ctx context.Context, f DeliveryFilter) (int64, error) {
	q := query{text: `SELECT COUNT(*) FROM delivery WHERE 1 = 1`}
	f.narrow(&q)
	var n int64
	err := tx.QueryRow(ctx, q.text, q.args...).Scan(&n)
	return n, err
}

// RequeueDeliveries queues those of the deliveries of one endpoint again that have
// ended, and returns how many: others may have queued some meanwhile. Each has all its
// retries ahead. The events of a run wait for one another, if those that happened first
// are queued again first or together. The lane must be locked.
func (tx *Tx) RequeueDeliveries(ctx context.Context, ids []string) (int, error) {
	var ended []string
	err := database.Chunks(tx.Tx, ids, func(chunk []string) error {
		among, args := tx.Among(chunk)
		rows, err := tx.Query(ctx, `SELECT id FROM delivery WHERE state <> 'pending' AND id`+among, args...)
		ended, err = database.Append(ended, rows, err, scanText)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(ended), tx.requeue(ctx, ended)
}

// RequeueDelivery queues one delivery again, whatever its state: at once, or when what it waits for is over.
func (tx *Tx) RequeueDelivery(ctx context.Context, id string) error {
	return tx.requeue(ctx, []string{id})
}

func (tx *Tx) requeue(ctx context.Context, ids []string) error {
	for _, statement := range []string{
		`UPDATE delivery SET state = 'pending', blocks = 1, parked = 0, due_at = $1, earlier = attempts, finished_at = NULL
			WHERE id`,
		`UPDATE delivery SET parked = 1, due_at = NULL WHERE run_id <> '' AND CAST($1 AS BIGINT) > 0 AND ` + waits +
			` AND id`,
	} {
		err := database.Chunks(tx.Tx, ids, func(chunk []string) error {
			among, args := tx.Among(chunk, micros(tx.Now))
			_, err := tx.Exec(ctx, statement+among, args...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ResumeDeliveries makes up to limit deliveries of an endpoint due at once that wait for
// a retry, and returns how many. Each gets all its retries again. Deliveries that are
// due already, or wait for an earlier event, do not change.
func (tx *Tx) ResumeDeliveries(ctx context.Context, endpointID string, limit int) (int64, error) {
	return tx.Exec(ctx, `UPDATE delivery SET due_at = $2, earlier = attempts WHERE id IN (
		SELECT id FROM delivery WHERE endpoint_id = $1 AND due_at > $2 ORDER BY due_at, id LIMIT $3)`, endpointID,
		micros(tx.Now), limit)
}

// ResetHealth clears the failures of an endpoint: the person who enables it has fixed it.
func (tx *Tx) ResetHealth(ctx context.Context, endpointID string) error {
	_, err := tx.Exec(ctx, `UPDATE lane SET failing_since = NULL, failures = 0, warned = 0 WHERE endpoint_id = $1`,
		endpointID)
	return err
}
