package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

// Lane is an endpoint with deliveries that wait.
type Lane struct {
	EndpointID string
	DueAt      time.Time // when the first of them may be sent
}

// Lanes lists the enabled endpoints with deliveries that wait, of those that a
// node may serve: it holds their lease, or nobody does.
func (tx *Tx) Lanes(ctx context.Context, node string) ([]Lane, error) {
	rows, err := tx.conn.QueryContext(ctx, `SELECT endpoint_id, hold_until, due_at FROM (
		SELECT l.endpoint_id, l.hold_until, (SELECT MIN(d.due_at) FROM delivery d WHERE d.endpoint_id = l.endpoint_id AND d.due_at IS NOT NULL) AS due_at
		FROM lane l JOIN endpoint e ON e.id = l.endpoint_id
		WHERE e.enabled = 1 AND (l.node = $1 OR l.lease_until <= $2)) AS waiting WHERE due_at IS NOT NULL`, node, micros(tx.Now))
	return all(rows, err, func(r row) (Lane, error) {
		var l Lane
		var hold, due int64
		err := r.Scan(&l.EndpointID, &hold, &due)
		l.DueAt = timeOf(max(hold, due))
		return l, err
	})
}

// TakeLane makes a node the one that sends to an endpoint, until its lease ends,
// and says whether it is: another one may be.
func (tx *Tx) TakeLane(ctx context.Context, endpointID, node string, until time.Time) (bool, error) {
	n, err := tx.count(ctx, `UPDATE lane SET node = $2, lease_until = $3 WHERE endpoint_id = $1 AND (node = $2 OR lease_until <= $4)`,
		endpointID, node, micros(until), micros(tx.Now))
	return n == 1, err
}

// KeepLanes moves the end of a node's leases.
func (tx *Tx) KeepLanes(ctx context.Context, node string, until time.Time) error {
	_, err := tx.conn.ExecContext(ctx, `UPDATE lane SET lease_until = $2 WHERE node = $1`, node, micros(until))
	return err
}

// LeaveLane ends a node's lease, for others to take.
func (tx *Tx) LeaveLane(ctx context.Context, endpointID, node string) error {
	_, err := tx.conn.ExecContext(ctx, `UPDATE lane SET node = '', lease_until = 0 WHERE endpoint_id = $1 AND node = $2`, endpointID, node)
	return err
}

// Claim is a delivery that may be sent now, with the body to send.
type Claim struct {
	webhook.Delivery
	Payload []byte
}

// Work is what a lane has to do.
type Work struct {
	Node     string // who holds the lane
	Endpoint webhook.Endpoint
	// Trouble is why the endpoint cannot be called: its secrets were stored with
	// another key. That is no reason to hold up the others.
	Trouble  error
	Hold     time.Time // nothing is sent before
	Failures int       // in a row, see [Outcome]
	Claims   []Claim   // what is due, the first due first
	Next     time.Time // when there is more; zero if nothing else waits
}

// Work reads what there is to do for an endpoint, up to limit deliveries, apart
// from those that are known to be in work. Nothing is written: who holds the
// lane is alone with it.
func (tx *Tx) Work(ctx context.Context, endpointID string, limit int, known map[string]bool) (Work, error) {
	w, err := tx.laneEndpoint(ctx, endpointID)
	if err != nil || !w.Endpoint.Enabled {
		return w, err
	}
	ids, err := tx.due(ctx, &w, limit, known)
	if err != nil {
		return w, err
	}
	w.Claims, err = tx.claims(ctx, ids)
	return w, err
}

// due lists what is due, and notes when there is more. The index has all that is
// asked for, so that rows in work cost little.
func (tx *Tx) due(ctx context.Context, w *Work, limit int, known map[string]bool) (ids []string, err error) {
	rows, err := tx.conn.QueryContext(ctx, `SELECT id, due_at FROM delivery WHERE endpoint_id = $1 AND due_at IS NOT NULL ORDER BY due_at, id LIMIT $2`,
		w.Endpoint.ID, limit+len(known)+1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var id string
	var due int64
	for rows.Next() {
		if err := rows.Scan(&id, &due); err != nil {
			return nil, err
		}
		if known[id] {
			continue
		}
		if at := timeOf(due); at.After(tx.Now) || len(ids) == limit {
			w.Next = at
			break
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

func (tx *Tx) laneEndpoint(ctx context.Context, id string) (w Work, err error) {
	var hold int64
	err = tx.conn.QueryRowContext(ctx, `SELECT node, hold_until, failures FROM lane WHERE endpoint_id = $1`, id).Scan(&w.Node, &hold, &w.Failures)
	if err == nil {
		w.Hold = timeOf(hold)
		w.Endpoint, err = tx.Endpoint(ctx, id)
	}
	if errors.Is(err, webhook.ErrSealed) {
		w.Trouble, err = err, nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = run.Missing("webhook", id)
	}
	return w, err
}

func (tx *Tx) claims(ctx context.Context, ids []string) ([]Claim, error) {
	place := make(map[string]int, len(ids))
	for i, id := range ids {
		place[id] = i
	}
	out := make([]Claim, len(ids))
	found := 0
	var c Claim // where each row is scanned to
	var created int64
	dest := []any{&c.ID, &c.EndpointID, &c.EventID, &c.RunID, &c.Kind, &c.Sequence, &c.Attempts, &c.Earlier, &created, &c.Payload}
	err := inChunks(ids, func(chunk []string) error {
		args := make([]any, len(chunk))
		for i, id := range chunk {
			args[i] = id
		}
		rows, err := tx.conn.QueryContext(ctx, `SELECT d.id, d.endpoint_id, d.event_id, d.run_id, d.kind, d.sequence, d.attempts, d.earlier, d.created_at, e.payload
			FROM delivery d JOIN event e ON e.id = d.event_id WHERE d.id IN (`+placeholders(1, len(chunk))+`)`, args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for ; rows.Next(); found++ {
			if err := rows.Scan(dest...); err != nil {
				return err
			}
			c.State, c.CreatedAt = webhook.Waiting, timeOf(created)
			out[place[c.ID]] = c
		}
		return rows.Err()
	})
	if err == nil && found != len(ids) {
		err = fmt.Errorf("%d of %d due deliveries have an event", found, len(ids))
	}
	return out, err
}
