package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

// newID makes an id of 130 random bits behind a prefix.
func newID(prefix string) string {
	return prefix + strings.ToLower(rand.Text())
}

// Claim is a delivery that this node may send now, with the endpoint and the
// event it needs for that.
type Claim struct {
	webhook.Delivery
	Event    webhook.Event
	Endpoint webhook.Endpoint
	// Trouble is why the endpoint cannot be called: its secrets were stored with
	// another key. That is no reason to hold up the others.
	Trouble error
}

// ClaimDeliveries takes up to limit due deliveries for a node, until lease: a
// claim that is not recorded by then is due again, for any node.
func (tx *Tx) ClaimDeliveries(ctx context.Context, node string, limit int, lease time.Time) ([]Claim, error) {
	skip := ``
	if tx.kind == postgres {
		// Two nodes must not wait for, or take, each other's rows.
		skip = ` FOR UPDATE SKIP LOCKED`
	}
	rows, err := tx.conn.QueryContext(ctx, `UPDATE delivery SET due_at = $1, node = $2, parked = 0
		WHERE id IN (SELECT id FROM delivery WHERE due_at IS NOT NULL AND due_at <= $3 ORDER BY due_at LIMIT $4`+skip+`)
		RETURNING `+deliveryColumns, micros(lease), node, micros(tx.Now), limit)
	deliveries, err := all(rows, err, scanDelivery)
	if err != nil {
		return nil, err
	}
	type found struct {
		endpoint webhook.Endpoint
		trouble  error
	}
	endpoints := map[string]found{}
	claims := make([]Claim, len(deliveries))
	for i, d := range deliveries {
		f, ok := endpoints[d.EndpointID]
		if !ok {
			f.endpoint, f.trouble = tx.Endpoint(ctx, d.EndpointID)
			if f.trouble != nil && !errors.Is(f.trouble, webhook.ErrSealed) {
				return nil, f.trouble
			}
			endpoints[d.EndpointID] = f
		}
		event, err := tx.Event(ctx, d.EventID)
		if err != nil {
			return nil, err
		}
		claims[i] = Claim{d, event, f.endpoint, f.trouble}
	}
	return claims, nil
}

// ReleaseNode makes the deliveries of a node due at once: of a node that is
// known to be gone, or with "" of every node, on a database that only this
// process uses.
func (tx *Tx) ReleaseNode(ctx context.Context, node string) error {
	_, err := tx.conn.ExecContext(ctx, `UPDATE delivery SET due_at = $1, node = ''
		WHERE due_at IS NOT NULL AND node <> '' AND (node = $2 OR $2 = '')`, micros(tx.Now), node)
	return err
}

// NextDue is when the next delivery is due; false when none waits.
func (tx *Tx) NextDue(ctx context.Context) (time.Time, bool, error) {
	var at sql.NullInt64
	err := tx.conn.QueryRowContext(ctx, `SELECT MIN(due_at) FROM delivery WHERE due_at IS NOT NULL`).Scan(&at)
	return timeOrZero(at), at.Valid, err
}

// Verdict is what an attempt means for its delivery.
type Verdict struct {
	State   webhook.DeliveryState // Waiting: there is another attempt
	RetryAt time.Time             // when Waiting
}

// RecordAttempt logs an attempt and stores its verdict, if the node still holds
// the delivery: false means that the lease ran out and somebody else has it, or
// that its endpoint is gone. Deliveries parked behind this one are released
// unless it has a quick retry ahead.
func (tx *Tx) RecordAttempt(ctx context.Context, node string, d webhook.Delivery, a webhook.Attempt, v Verdict) (bool, error) {
	var due, finished any = nil, micros(tx.Now)
	if v.State == webhook.Waiting {
		due, finished = micros(v.RetryAt), nil
	}
	res, err := tx.conn.ExecContext(ctx, `UPDATE delivery SET attempts = $4, node = '', finished_at = $6,
			state = CASE WHEN state = 'held' AND $3 = 'pending' THEN 'held' ELSE $3 END,
			due_at = CASE WHEN state = 'held' THEN NULL ELSE CAST($5 AS BIGINT) END
		WHERE id = $1 AND node = $2 AND attempts = $4 - 1 AND state IN ('pending', 'held')`, d.ID, node, string(v.State), a.Number, due, finished)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	if _, err := tx.conn.ExecContext(ctx, `INSERT INTO attempt (delivery_id, number, started_at, duration, request_headers, class, status,
			response_headers, response_body, error) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		d.ID, a.Number, micros(a.StartedAt), a.Duration.Microseconds(), document(a.RequestHeaders), string(a.Class), a.Status,
		document(a.ResponseHeaders), bodyText(a.ResponseBody), cleanText(a.Error)); err != nil {
		return false, err
	}
	if v.State == webhook.Waiting && v.RetryAt.Sub(tx.Now) <= webhook.OrderWait {
		return true, nil
	}
	_, err = tx.conn.ExecContext(ctx, `UPDATE delivery SET due_at = $4, parked = 0
		WHERE parked = 1 AND due_at IS NOT NULL AND endpoint_id = $1 AND run_id = $2 AND sequence = (
			SELECT MIN(sequence) FROM delivery WHERE endpoint_id = $1 AND run_id = $2 AND sequence > $3 AND due_at IS NOT NULL)`,
		d.EndpointID, d.RunID, d.Sequence, micros(tx.Now))
	return true, err
}

// The response of a receiver may be any bytes; the column is text. Bytes that
// are not text are kept as base64 behind a marker that is not valid JSON, HTML
// or prose, so that nothing is lost and nothing is mistaken.
const binaryMarker = "\x1bbase64:"

func bodyText(b []byte) string {
	s := string(b)
	if utf8.ValidString(s) && !strings.Contains(s, "\x00") && !strings.HasPrefix(s, binaryMarker) {
		return s
	}
	return binaryMarker + base64.StdEncoding.EncodeToString(b)
}

func bodyBytes(s string) ([]byte, error) {
	if encoded, ok := strings.CutPrefix(s, binaryMarker); ok {
		return base64.StdEncoding.DecodeString(encoded)
	}
	return []byte(s), nil
}

// cleanText makes a string that both databases take as text.
func cleanText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

const deliveryColumns = `id, endpoint_id, event_id, run_id, sequence, state, attempts, due_at, created_at, finished_at`

func scanDelivery(r row) (webhook.Delivery, error) {
	var d webhook.Delivery
	var state string
	var created int64
	var due, finished sql.NullInt64
	err := r.Scan(&d.ID, &d.EndpointID, &d.EventID, &d.RunID, &d.Sequence, &state, &d.Attempts, &due, &created, &finished)
	d.State = webhook.DeliveryState(state)
	d.DueAt, d.CreatedAt, d.FinishedAt = timeOrZero(due), timeOf(created), timeOrZero(finished)
	return d, err
}

// Delivery finds a delivery by its id.
func (tx *Tx) Delivery(ctx context.Context, id string) (webhook.Delivery, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT `+deliveryColumns+` FROM delivery WHERE id = $1`, id), scanDelivery, run.Missing("delivery", id))
}

// DeliveryFilter narrows a list of deliveries. Empty fields do not.
type DeliveryFilter struct {
	EndpointID string
	States     []webhook.DeliveryState
	Kinds      []webhook.Kind
	RunID      string
	Since      time.Time
	Until      time.Time
}

// Deliveries lists deliveries, newest first.
func (tx *Tx) Deliveries(ctx context.Context, f DeliveryFilter, page Page) ([]webhook.Delivery, bool, error) {
	q := query{text: `SELECT ` + deliveryColumns + ` FROM delivery WHERE 1 = 1`}
	if f.EndpointID != "" {
		q.where(`endpoint_id = ?`, f.EndpointID)
	}
	if f.RunID != "" {
		q.where(`run_id = ?`, f.RunID)
	}
	var states, kinds []string
	for _, s := range f.States {
		states = append(states, string(s))
	}
	for _, k := range f.Kinds {
		kinds = append(kinds, string(k))
	}
	q.in("state", states)
	q.in("kind", kinds)
	if !f.Since.IsZero() {
		q.where(`created_at >= ?`, micros(f.Since))
	}
	if !f.Until.IsZero() {
		q.where(`created_at < ?`, micros(f.Until))
	}
	return paged(ctx, tx, q, page, scanDelivery)
}

// Attempts lists the attempts of a delivery, first to last.
func (tx *Tx) Attempts(ctx context.Context, deliveryID string) ([]webhook.Attempt, error) {
	rows, err := tx.conn.QueryContext(ctx, `SELECT delivery_id, number, started_at, duration, request_headers, class, status,
		response_headers, response_body, error FROM attempt WHERE delivery_id = $1 ORDER BY number`, deliveryID)
	return all(rows, err, func(r row) (webhook.Attempt, error) {
		var a webhook.Attempt
		var started, duration int64
		var request, response, class, body string
		err := r.Scan(&a.DeliveryID, &a.Number, &started, &duration, &request, &class, &a.Status, &response, &body, &a.Error)
		if err != nil {
			return a, err
		}
		a.StartedAt, a.Duration, a.Class = timeOf(started), time.Duration(duration)*time.Microsecond, webhook.Class(class)
		if err := parse(request, &a.RequestHeaders); err != nil {
			return a, err
		}
		if err := parse(response, &a.ResponseHeaders); err != nil {
			return a, err
		}
		a.ResponseBody, err = bodyBytes(body)
		return a, err
	})
}

// HoldDeliveries takes the waiting deliveries of an endpoint out of the queue.
// An attempt in flight is recorded all the same: its node stays noted.
func (tx *Tx) HoldDeliveries(ctx context.Context, endpointID string) (int64, error) {
	return tx.count(ctx, `UPDATE delivery SET state = 'held', due_at = NULL, parked = 0
		WHERE endpoint_id = $1 AND state = 'pending'`, endpointID)
}

// ResumeDeliveries puts the held deliveries of an endpoint back, due at once,
// each run's events behind one another.
func (tx *Tx) ResumeDeliveries(ctx context.Context, endpointID string) (int64, error) {
	return tx.count(ctx, `UPDATE delivery SET state = 'pending', node = '',
			due_at = CASE WHEN EXISTS (SELECT 1 FROM delivery e WHERE e.endpoint_id = delivery.endpoint_id AND e.run_id = delivery.run_id
				AND e.sequence < delivery.sequence AND e.state IN ('held', 'pending')) THEN CAST($3 AS BIGINT) ELSE CAST($2 AS BIGINT) END,
			parked = CASE WHEN EXISTS (SELECT 1 FROM delivery e WHERE e.endpoint_id = delivery.endpoint_id AND e.run_id = delivery.run_id
				AND e.sequence < delivery.sequence AND e.state IN ('held', 'pending')) THEN 1 ELSE 0 END
		WHERE endpoint_id = $1 AND state = 'held'`, endpointID, micros(tx.Now), micros(tx.Now.Add(webhook.OrderWait)))
}

func (tx *Tx) count(ctx context.Context, statement string, args ...any) (int64, error) {
	res, err := tx.conn.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
