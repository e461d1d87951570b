package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

// Lane is an endpoint with pending deliveries.
type Lane struct {
	EndpointID string
	DueAt      time.Time // when the first of them may be sent
}

// Lanes lists the enabled endpoints with pending deliveries that a node may serve: it
// holds their lease, or nobody does.
func (tx *Tx) Lanes(ctx context.Context, node string) ([]Lane, error) {
	rows, err := tx.Query(ctx, `SELECT endpoint_id, hold_until, due_at FROM (
		SELECT l.endpoint_id, l.hold_until, (SELECT MIN(d.due_at) FROM delivery d WHERE d.endpoint_id = l.endpoint_id
		AND d.due_at IS NOT NULL) AS due_at
		FROM lane l JOIN endpoint e ON e.id = l.endpoint_id
		WHERE e.enabled = 1 AND (l.node = $1 OR l.lease_until <= $2)) AS waiting
		WHERE due_at IS NOT NULL`, node, micros(tx.Now))
	return database.All(rows, err, func(r database.Row) (Lane, error) {
		var l Lane
		var hold, due int64
		err := r.Scan(&l.EndpointID, &hold, &due)
		l.DueAt = timeOf(max(hold, due))
		return l, err
	})
}

// TakeLane gives a node the lease of an endpoint, and reports whether the node now has
// it: another node may have it.
func (tx *Tx) TakeLane(ctx context.Context, endpointID, node string, until time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE lane SET node = $2, lease_until = $3 WHERE endpoint_id = $1
		AND (node = $2 OR lease_until <= $4)`,
		endpointID, node, micros(until), micros(tx.Now))
	return n == 1, err
}

// KeepLanes extends a node's leases. It locks lanes in the same order as
// RecordAttempts, so that the two cannot deadlock.
func (tx *Tx) KeepLanes(ctx context.Context, node string, until time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE lane SET lease_until = $2
		WHERE endpoint_id IN (SELECT endpoint_id FROM lane WHERE node = $1 ORDER BY endpoint_id`+tx.ForUpdate()+`)`, node,
		micros(until))
	return err
}

// LeaveLane ends a node's lease, for others to take.
func (tx *Tx) LeaveLane(ctx context.Context, endpointID, node string) error {
	_, err := tx.Exec(ctx, `UPDATE lane SET node = '', lease_until = 0 WHERE endpoint_id = $1 AND node = $2`, endpointID,
		node)
	return err
}

// Claim is a delivery that may be sent now, with the documents of its event.
type Claim struct {
	webhook.Delivery
	Payload []byte
	Facts   []byte // nil unless the endpoint's payload includes them
}

// Work is what a lane has to do.
type Work struct {
	Node     string // who holds the lane
	Endpoint webhook.Endpoint
	// Trouble is why the endpoint cannot be called: its secrets were stored with
	// another key. The other endpoints are not affected.
	Trouble  error
	Hold     time.Time // nothing is sent before
	Failures int       // as the last [Outcome] had them
	Claims   []Claim   // what is due, the first due first
	Large    bool      // Claims ended before the limit, because its documents are large
	Next     time.Time // when there is more; zero if nothing else waits
}

// maxWorkBytes is about how many bytes of documents [Tx.Work] reads at once.
const maxWorkBytes = 1 << 20

// QueuePosition is the position of a delivery in the queue of its endpoint, which is
// ordered by due time. The zero QueuePosition is before them all.
type QueuePosition struct {
	Due time.Time
	ID  string
}

// Work reads what there is to do for an endpoint: up to limit deliveries behind a
// place, fewer if their documents are large, apart from those that are known to be in
// work. Nothing is written: who holds the lane is alone with it.
func (tx *Tx) Work(ctx context.Context, endpointID string, after QueuePosition, limit int,
	known map[string]bool) (Work, error) {
	w, err := tx.laneEndpoint(ctx, endpointID)
	if err == nil && w.Endpoint.Enabled {
		err = tx.due(ctx, &w, after, limit, known)
	}
	return w, err
}

// due reads the due deliveries, and notes when there are more.
func (tx *Tx) due(ctx context.Context, w *Work, after QueuePosition, limit int, known map[string]bool) error {
	most := limit + 1
	if after == (QueuePosition{}) {
		most += len(known)
	}
	// A missing event is an error: the delivery must not vanish.
	rows, err := tx.Query(ctx, `SELECT d.id, d.due_at, d.event_id, d.run_id, d.kind, d.sequence, d.attempts, d.earlier,
		d.created_at, e.payload, d.with_facts, CASE WHEN d.with_facts = 1 THEN e.facts END
		FROM delivery d LEFT JOIN event e ON e.id = d.event_id
		WHERE d.endpoint_id = $1 AND d.due_at IS NOT NULL AND (d.due_at, d.id) > ($2, $3) ORDER BY d.due_at, d.id LIMIT $4`,
		w.Endpoint.ID, micros(after.Due), after.ID, most)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	c := Claim{Delivery: webhook.Delivery{EndpointID: w.Endpoint.ID,
		State: webhook.Waiting}} // where each row is scanned to
	var due, created, withFacts int64
	var facts database.NullString
	size := 0
	dest := []any{&c.ID, &due, &c.EventID, &c.RunID, &c.Kind, &c.Sequence, &c.Attempts, &c.Earlier, &created, &c.Payload,
		&withFacts, &facts}
	for ; rows.Next(); most-- {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		c.DueAt, c.CreatedAt, c.WithFacts, c.Facts = timeOf(due), timeOf(created), withFacts != 0, nil
		if facts.Valid {
			c.Facts = []byte(facts.String)
		}
		switch {
		case known[c.ID]:
		case c.DueAt.After(tx.Now), len(w.Claims) == limit:
			w.Next = c.DueAt
			return nil
		case size >= maxWorkBytes:
			w.Next, w.Large = c.DueAt, true
			return nil
		case c.Payload == nil:
			return fmt.Errorf("delivery %s has no event", c.ID)
		case c.WithFacts && c.Facts == nil:
			return fmt.Errorf("delivery %s has an event without facts", c.ID)
		default:
			w.Claims = append(w.Claims, c)
			size += len(c.Payload) + len(c.Facts)
		}
	}
	if most == 0 {
		w.Next = tx.Now // known deliveries took the place of others
	}
	return rows.Err()
}

func (tx *Tx) laneEndpoint(ctx context.Context, id string) (w Work, err error) {
	var hold int64
	err = tx.QueryRow(ctx, `SELECT node, hold_until, failures FROM lane WHERE endpoint_id = $1`, id).Scan(&w.Node, &hold,
		&w.Failures)
	if err == nil {
		w.Hold = timeOf(hold)
		w.Endpoint, err = tx.Endpoint(ctx, id)
	}
	if errors.Is(err, webhook.ErrSealed) {
		w.Trouble, err = err, nil
	}
	if errors.Is(err, database.ErrNoRows) {
		err = run.Missing("webhook", id)
	}
	return w, err
}
