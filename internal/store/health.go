package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/webhook"
)

// Health is the health of an endpoint.
func (tx *Tx) Health(ctx context.Context, e webhook.Endpoint) (webhook.Health, error) {
	var h webhook.Health
	var success, failure, failing database.NullInt64
	var hold int64
	err := tx.QueryRow(ctx, `SELECT last_success_at, last_failure_at, failing_since, hold_until,
			(SELECT COUNT(*) FROM delivery d WHERE d.endpoint_id = l.endpoint_id AND d.due_at IS NOT NULL)
				+ (SELECT COUNT(*) FROM delivery d WHERE d.endpoint_id = l.endpoint_id AND d.parked = 1),
			(SELECT COUNT(*) FROM delivery d WHERE d.endpoint_id = l.endpoint_id AND d.state = 'failed' AND d.finished_at >= $2)
		FROM lane l WHERE l.endpoint_id = $1`, e.ID, micros(tx.Now.Add(-24*time.Hour))).Scan(&success, &failure, &failing,
		&hold, &h.Pending, &h.Failed24h)
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

// Backlog counts pending and held deliveries.
type Backlog struct {
	Due       int64     // an attempt could begin now
	Scheduled int64     // wait for a retry
	Parked    int64     // wait for an earlier event of the run, or for the facts of their event
	Held      int64     // wait until the endpoint is enabled
	OldestDue time.Time // since when the oldest due one has been due; zero if none is
}

// Backlog counts the pending and held deliveries.
func (tx *Tx) Backlog(ctx context.Context) (Backlog, error) {
	var d Backlog
	var oldest database.NullInt64
	err := tx.QueryRow(ctx, `SELECT
			COALESCE(SUM(CASE WHEN e.enabled = 1 AND d.due_at <= $1 THEN 1 ELSE 0 END), 0),
			COALESCE(SUM(CASE WHEN e.enabled = 1 AND d.due_at > $1 THEN 1 ELSE 0 END), 0),
			COALESCE(SUM(1 - e.enabled), 0),
			MIN(CASE WHEN e.enabled = 1 AND d.due_at <= $1 THEN d.due_at END)
		FROM delivery d JOIN endpoint e ON e.id = d.endpoint_id WHERE d.due_at IS NOT NULL`, micros(tx.Now)).Scan(&d.Due,
		&d.Scheduled, &d.Held, &oldest)
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
	rows, err := tx.Query(ctx, `SELECT CASE WHEN e.enabled = 0 THEN 'disabled' WHEN l.failing_since IS NOT NULL
		THEN 'failing'
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
