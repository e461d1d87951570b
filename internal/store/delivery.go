package store

import (
	"context"
	"encoding/base64"
	"strings"
	"time"
	"unicode/utf8"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

// The response of a receiver may be any bytes, but the column is text. Bytes that are
// not text are kept as base64, behind a marker that is not valid JSON, HTML or
// prose. So nothing is lost, and no text is mistaken for base64.
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

// cleanText makes a string that both databases accept as text.
func cleanText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// QueueDelivery queues an event at an endpoint, and returns the id of the delivery. It
// reads only the endpoint's id and needs. The delivery is due at once, or waits
// for an earlier event of the same run, or for the facts of its event.
func (tx *Tx) QueueDelivery(ctx context.Context, to webhook.Endpoint, e webhook.Event) (string, error) {
	earlier, err := tx.lockEarlier(ctx, to.ID, e)
	if err != nil {
		return "", err
	}
	due, parked := any(micros(tx.Now)), earlier || to.NeedsFacts() && e.FactsDue
	if parked {
		due = nil
	}
	id := webhook.NewID("dlv_", tx.Now)
	_, err = tx.Exec(ctx, `INSERT INTO delivery (id, endpoint_id, event_id, run_id, kind, sequence, with_facts, state,
		attempts, earlier, blocks, parked, due_at, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', 0, 0, 1, $8, $9, $10)`,
		id, to.ID, e.ID, e.RunID, string(e.Kind), e.Sequence, flag(to.NeedsFacts()), flag(parked), due, micros(tx.Now))
	if tx.queued == nil {
		tx.queued = map[string]string{}
	}
	tx.queued[to.ID] = e.RunID
	return id, err
}

// lockEarlier reports whether a delivery at an endpoint has to wait for earlier events of its run. It
// locks their deliveries: the outcome of one is recorded either before, so that nothing waits for it,
// or after this transaction, and then it lets go what this transaction has parked.
func (tx *Tx) lockEarlier(ctx context.Context, endpointID string, e webhook.Event) (bool, error) {
	if e.RunID == "" {
		return false, nil
	}
	if tx.queued[endpointID] == e.RunID { // with the run, all of its groups may end at once
		return true, nil
	}
	rows, err := tx.Query(ctx, `SELECT id FROM delivery
		WHERE run_id = $1 AND sequence < $2 AND endpoint_id = $3 AND blocks = 1
		ORDER BY sequence`+tx.ForUpdate(), e.RunID, e.Sequence, endpointID)
	list, err := database.All(rows, err, scanText)
	return len(list) > 0, err
}

// waits is the condition that a delivery waits: for an earlier event of its run, or for the facts of its event.
const waits = `(EXISTS (SELECT 1 FROM delivery p WHERE p.run_id = delivery.run_id AND p.sequence < delivery.sequence
	AND p.endpoint_id = delivery.endpoint_id AND p.blocks = 1)
	OR delivery.with_facts = 1 AND EXISTS (SELECT 1 FROM facts_due f WHERE f.event_id = delivery.event_id))`

// InsertTest stores an event that did not happen and its delivery to one
// endpoint, and returns the id of the delivery.
func (tx *Tx) InsertTest(ctx context.Context, to webhook.Endpoint, e webhook.Event) (string, error) {
	if err := tx.InsertEvent(ctx, e); err != nil {
		return "", err
	}
	return tx.QueueDelivery(ctx, to, e)
}

const deliveryColumns = `id, endpoint_id, event_id, run_id, kind, sequence, with_facts, state, attempts, earlier,
	due_at, created_at, finished_at`

// deliveryRow is a row of deliveryColumns on its way to a webhook.Delivery.
type deliveryRow struct {
	webhook.Delivery
	facts, created int64
	due, finished  database.NullInt64
}

func (d *deliveryRow) fields() []any {
	return []any{&d.ID, &d.EndpointID, &d.EventID, &d.RunID, &d.Kind, &d.Sequence, &d.facts, &d.State, &d.Attempts,
		&d.Earlier, &d.due, &d.created, &d.finished}
}

func (d *deliveryRow) value() webhook.Delivery {
	d.WithFacts = d.facts != 0
	d.DueAt, d.CreatedAt, d.FinishedAt = timeOrZero(d.due), timeOf(d.created), timeOrZero(d.finished)
	return d.Delivery
}

// shownColumns are deliveryColumns with the state as people see it: a pending delivery
// of a disabled endpoint is held.
var shownColumns = strings.Replace(deliveryColumns, "state",
	`CASE WHEN state = 'pending' AND `+atDisabled+` THEN 'held' ELSE state END`, 1)

const atDisabled = `EXISTS (SELECT 1 FROM endpoint e WHERE e.id = delivery.endpoint_id AND e.enabled = 0)`

func scanDelivery(r database.Row) (webhook.Delivery, error) {
	var d deliveryRow
	err := r.Scan(d.fields()...)
	if d.State == webhook.Held {
		d.due = database.NullInt64{}
	}
	return d.value(), err
}

// Delivery finds a delivery by its id.
func (tx *Tx) Delivery(ctx context.Context, id string) (webhook.Delivery, error) {
	return one(tx.QueryRow(ctx, `SELECT `+shownColumns+` FROM delivery WHERE id = $1`, id), scanDelivery,
		run.Missing("delivery", id))
}

// DeliveryFilter narrows a list of deliveries. Empty fields have no effect.
type DeliveryFilter struct {
	EndpointID string
	States     []webhook.DeliveryState
	Kinds      []webhook.Kind
	RunID      string
	Responses  []Response // to the last attempt
	Since      time.Time
	Until      time.Time
	// Limit is the place where the search ends.
	Limit *Position
}

// Response is a class of responses of receivers.
type Response string

// The classes of responses.
const (
	Response2xx Response = "2xx"
	Response3xx Response = "3xx"
	Response4xx Response = "4xx"
	Response5xx Response = "5xx"
	NoResponse  Response = "none" // there was an attempt but no response
)

// statuses are the lowest and the highest status of each.
var statuses = map[Response][2]int{Response2xx: {200, 299}, Response3xx: {300, 399}, Response4xx: {400, 499},
	Response5xx: {500, 599}, NoResponse: {0, 0}}

// LogLimit is SearchLimit for the deliveries of an endpoint.
func (tx *Tx) LogLimit(ctx context.Context, f DeliveryFilter, page Page, depth int) (Position, bool, error) {
	q := query{text: `SELECT created_at, id FROM delivery WHERE endpoint_id = $1`, args: []any{f.EndpointID}}
	q.between(f.Since, f.Until)
	return tx.limit(ctx, q, page, depth)
}

// Deliveries lists deliveries, newest first.
func (tx *Tx) Deliveries(ctx context.Context, f DeliveryFilter, page Page) ([]webhook.Delivery, bool, error) {
	q := query{text: `SELECT ` + shownColumns + ` FROM delivery WHERE 1 = 1`}
	f.narrow(&q)
	q.upTo(f.Limit, page)
	return paged(ctx, tx, q, page, scanDelivery)
}

func (f DeliveryFilter) narrow(q *query) {
	if f.EndpointID != "" {
		q.where(`endpoint_id = ?`, f.EndpointID)
	}
	if f.RunID != "" {
		q.where(`run_id = ?`, f.RunID)
	}
	var kinds []string
	for _, k := range f.Kinds {
		kinds = append(kinds, string(k))
	}
	q.in("kind", kinds)
	q.states(f.States)
	if len(f.Responses) > 0 {
		conditions, args := []string{}, []any{}
		for _, r := range f.Responses {
			conditions, args = append(conditions, `a.status BETWEEN ? AND ?`), append(args, statuses[r][0], statuses[r][1])
		}
		q.where(`EXISTS (SELECT 1 FROM attempt a WHERE a.delivery_id = delivery.id AND a.number = delivery.attempts AND (`+
			strings.Join(conditions, ` OR `)+`))`, args...)
	}
	q.between(f.Since, f.Until)
}

// states adds a condition on the state as people see it.
func (q *query) states(states []webhook.DeliveryState) {
	if len(states) == 0 {
		return
	}
	var any []string
	for _, s := range states {
		switch s {
		case webhook.Waiting:
			any = append(any, `(state = 'pending' AND NOT `+atDisabled+`)`)
		case webhook.Held:
			any = append(any, `(state = 'pending' AND `+atDisabled+`)`)
		case webhook.Delivered:
			any = append(any, `state = 'delivered'`)
		case webhook.Failed:
			any = append(any, `state = 'failed'`)
		}
	}
	q.where(strings.Join(any, ` OR `))
}

// Attempts lists the attempts of a delivery, first to last.
func (tx *Tx) Attempts(ctx context.Context, deliveryID string) ([]webhook.Attempt, error) {
	rows, err := tx.Query(ctx, `SELECT delivery_id, number, started_at, duration, request_headers, class, status,
		response_headers, response_body, error FROM attempt WHERE delivery_id = $1 ORDER BY number`, deliveryID)
	return database.All(rows, err, func(r database.Row) (webhook.Attempt, error) {
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
