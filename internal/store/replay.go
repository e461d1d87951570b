package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

// LockLane keeps records of attempts at an endpoint waiting until the
// transaction ends.
func (tx *Tx) LockLane(ctx context.Context, endpointID string) error {
	_, err := one(tx.QueryRow(ctx, `SELECT endpoint_id FROM lane WHERE endpoint_id = $1`+tx.ForUpdate(), endpointID),
		scanText, run.Missing("webhook", endpointID))
	return err
}

// CountDeliveries counts what Deliveries would list.
func (tx *Tx) CountDeliveries(ctx context.Context, f DeliveryFilter) (int64, error) {
	q := query{text: `SELECT COUNT(*) FROM delivery WHERE 1 = 1`}
	f.narrow(&q)
	var n int64
	err := tx.QueryRow(ctx, q.text, q.args...).Scan(&n)
	return n, err
}

// RequeueDeliveries queues deliveries of one endpoint again, oldest first, up to
// limit of those behind a position, each with the whole schedule ahead and each
// run's events behind one another. It answers the position to go on from, and
// how many it queued: fewer than limit when there are no more. The lane must be
// locked.
func (tx *Tx) RequeueDeliveries(ctx context.Context, f DeliveryFilter, after Position, limit int) (Position, int, error) {
	q := query{text: `SELECT ` + deliveryColumns + ` FROM delivery WHERE state <> 'pending'`}
	f.narrow(&q)
	page, _, err := paged(ctx, tx, q, Page{Limit: limit, Before: &after}, scanDelivery)
	if err != nil || len(page) == 0 {
		return after, 0, err
	}
	ids := make([]string, len(page))
	for i, d := range page {
		ids[i] = d.ID
	}
	last := page[0] // newest first
	return Position{last.CreatedAt, last.ID}, len(ids), tx.requeue(ctx, ids)
}

// RequeueDelivery queues one delivery again, at once, whatever its state.
func (tx *Tx) RequeueDelivery(ctx context.Context, id string) error {
	return tx.requeue(ctx, []string{id})
}

func (tx *Tx) requeue(ctx context.Context, ids []string) error {
	for _, statement := range []string{
		`UPDATE delivery SET state = 'pending', blocks = 1, parked = 0, due_at = $1, earlier = attempts, finished_at = NULL WHERE id`,
		`UPDATE delivery SET parked = 1, due_at = NULL WHERE run_id <> '' AND CAST($1 AS BIGINT) > 0 AND EXISTS (
			SELECT 1 FROM delivery p WHERE p.run_id = delivery.run_id AND p.sequence < delivery.sequence AND p.endpoint_id = delivery.endpoint_id AND p.blocks = 1)
			AND id`,
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

// ResumeDeliveries makes those deliveries of an endpoint due at once that wait
// for a retry, up to limit, each with the whole schedule ahead, and answers how
// many. What came due before goes on where it was, and what waits for an earlier
// event goes on waiting for it.
func (tx *Tx) ResumeDeliveries(ctx context.Context, endpointID string, limit int) (int64, error) {
	return tx.Exec(ctx, `UPDATE delivery SET due_at = $2, earlier = attempts WHERE id IN (
		SELECT id FROM delivery WHERE endpoint_id = $1 AND due_at > $2 ORDER BY due_at, id LIMIT $3)`, endpointID, micros(tx.Now), limit)
}

// ResetHealth forgets that an endpoint fails: whoever enables it has mended it.
func (tx *Tx) ResetHealth(ctx context.Context, endpointID string) error {
	_, err := tx.Exec(ctx, `UPDATE lane SET failing_since = NULL, failures = 0, warned = 0 WHERE endpoint_id = $1`, endpointID)
	return err
}

// Health tells how an endpoint does.
func (tx *Tx) Health(ctx context.Context, e webhook.Endpoint) (webhook.Health, error) {
	var h webhook.Health
	var success, failure, failing database.NullInt64
	var hold int64
	err := tx.QueryRow(ctx, `SELECT last_success_at, last_failure_at, failing_since, hold_until,
			(SELECT COUNT(*) FROM delivery d WHERE d.endpoint_id = l.endpoint_id AND d.due_at IS NOT NULL)
				+ (SELECT COUNT(*) FROM delivery d WHERE d.endpoint_id = l.endpoint_id AND d.parked = 1),
			(SELECT COUNT(*) FROM delivery d WHERE d.endpoint_id = l.endpoint_id AND d.state = 'failed' AND d.finished_at >= $2)
		FROM lane l WHERE l.endpoint_id = $1`, e.ID, micros(tx.Now.Add(-24*time.Hour))).Scan(&success, &failure, &failing, &hold, &h.Pending, &h.Failed24h)
	h.LastSuccessAt, h.LastFailureAt, h.FailingSince = timeOrZero(success), timeOrZero(failure), timeOrZero(failing)
	if at := timeOf(hold); at.After(tx.Now) {
		h.HoldUntil = at
	}
	switch {
	case !e.Enabled:
		h.State = webhook.IsOff
	case failing.Valid:
		h.State = webhook.Failing
	case success.Valid:
		h.State = webhook.Healthy
	default:
		h.State = webhook.Unused
	}
	return h, err
}

// NextLog is the endpoint after the given one, in the order of ids, that has
// deliveries; "" if there is none. It may be gone itself.
func (tx *Tx) NextLog(ctx context.Context, endpointID string) (string, error) {
	var id database.NullString
	err := tx.QueryRow(ctx, `SELECT MIN(endpoint_id) FROM delivery WHERE endpoint_id > $1`, endpointID).Scan(&id)
	return id.String, err
}

// DeleteDeliveries removes deliveries of an endpoint that were queued before an
// instant, with their log, up to limit: those that ended before it, too, or all.
// They are locked first: one that is queued again meanwhile stays, and none gets
// another attempt. It answers how many.
func (tx *Tx) DeleteDeliveries(ctx context.Context, endpointID string, before time.Time, waiting bool, limit int) (int, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM delivery WHERE endpoint_id = $1 AND created_at < $2 AND (finished_at < $2 OR $3 = 1)
		ORDER BY created_at, id LIMIT $4`+tx.ForUpdate(), endpointID, micros(before), flag(waiting), limit)
	ids, err := database.All(rows, err, scanText)
	if err != nil {
		return 0, err
	}
	return len(ids), database.Chunks(tx.Tx, ids, func(chunk []string) error {
		among, args := tx.Among(chunk)
		for _, statement := range []string{
			`DELETE FROM attempt WHERE delivery_id` + among,
			`DELETE FROM event WHERE run_id IS NULL AND id IN (SELECT event_id FROM delivery WHERE id` + among + `)`, // test sends
			`DELETE FROM delivery WHERE id` + among,
		} {
			if _, err := tx.Exec(ctx, statement, args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// Backlog is how many deliveries wait.
type Backlog struct {
	Due       int64     // an attempt could begin now
	Scheduled int64     // a retry is ahead
	Parked    int64     // an earlier event of the run comes first
	Held      int64     // the endpoint is disabled
	OldestDue time.Time // since when the first of those due is; zero if none is
}

// Backlog counts the deliveries that wait.
func (tx *Tx) Backlog(ctx context.Context) (Backlog, error) {
	var d Backlog
	var oldest database.NullInt64
	err := tx.QueryRow(ctx, `SELECT
			COALESCE(SUM(CASE WHEN e.enabled = 1 AND d.due_at <= $1 THEN 1 ELSE 0 END), 0),
			COALESCE(SUM(CASE WHEN e.enabled = 1 AND d.due_at > $1 THEN 1 ELSE 0 END), 0),
			COALESCE(SUM(1 - e.enabled), 0),
			MIN(CASE WHEN e.enabled = 1 AND d.due_at <= $1 THEN d.due_at END)
		FROM delivery d JOIN endpoint e ON e.id = d.endpoint_id WHERE d.due_at IS NOT NULL`, micros(tx.Now)).Scan(&d.Due, &d.Scheduled, &d.Held, &oldest)
	if err != nil {
		return d, err
	}
	d.OldestDue = timeOrZero(oldest)
	var parkedHeld int64
	err = tx.QueryRow(ctx, `SELECT COALESCE(SUM(e.enabled), 0), COALESCE(SUM(1 - e.enabled), 0)
		FROM delivery d JOIN endpoint e ON e.id = d.endpoint_id WHERE d.parked = 1`).Scan(&d.Parked, &parkedHeld)
	d.Held += parkedHeld
	return d, err
}

// EndpointStates counts endpoints by their health.
func (tx *Tx) EndpointStates(ctx context.Context) (map[webhook.HealthState]int64, error) {
	out := map[webhook.HealthState]int64{webhook.IsOff: 0, webhook.Failing: 0, webhook.Healthy: 0, webhook.Unused: 0}
	rows, err := tx.Query(ctx, `SELECT CASE WHEN e.enabled = 0 THEN 'disabled' WHEN l.failing_since IS NOT NULL THEN 'failing'
			WHEN l.last_success_at IS NOT NULL THEN 'healthy' ELSE 'unused' END AS health, COUNT(*)
		FROM endpoint e JOIN lane l ON l.endpoint_id = e.id GROUP BY health`)
	type counted struct {
		state webhook.HealthState
		n     int64
	}
	list, err := database.All(rows, err, func(r database.Row) (counted, error) {
		var c counted
		err := r.Scan(&c.state, &c.n)
		return c, err
	})
	for _, c := range list {
		out[c.state] = c.n
	}
	return out, err
}
