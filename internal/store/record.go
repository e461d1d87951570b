package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"runbell/internal/database"
	"runbell/internal/webhook"
)

// Outcome is an attempt of a delivery and its consequences.
type Outcome struct {
	Delivery webhook.Delivery // as it was claimed
	Attempt  webhook.Attempt
	// EndedAt is when the attempt ended, by the clock of the database. Those of the attempt are by
	// the clock of the machine, as its signature is.
	EndedAt  time.Time
	Decision webhook.Decision
	// Failures is the endpoint's failures minus its successes after the attempt, as the
	// engine counts them; at least 0.
	Failures int
}

// Notice is something that people should know about an endpoint.
type Notice struct {
	EndpointID string
	Kind       webhook.HistoryKind // WasFailing or WasDisabled
	Text       string
}

// RecordAttempts logs attempts and stores their consequences for their deliveries, for
// the deliveries behind them, and for the endpoints. It skips attempts of lanes that
// the node has lost: another node sends them, or the endpoint is gone. It returns
// notices for people.
func (tx *Tx) RecordAttempts(ctx context.Context, node string, outcomes []*Outcome) ([]Notice, error) {
	// In the same order everywhere, so that two nodes cannot deadlock.
	sorted := slices.Clone(outcomes)
	slices.SortStableFunc(sorted, func(a, b *Outcome) int {
		return cmp.Compare(a.Delivery.EndpointID, b.Delivery.EndpointID)
	})
	var notices []Notice
	held := make([]*Outcome, 0, len(outcomes))
	for len(sorted) > 0 {
		id := sorted[0].Delivery.EndpointID
		n := slices.IndexFunc(sorted, func(o *Outcome) bool { return o.Delivery.EndpointID != id })
		if n < 0 {
			n = len(sorted)
		}
		notice, ok, err := tx.recordHealth(ctx, node, id, sorted[:n])
		if err != nil {
			return nil, err
		}
		if ok {
			held = append(held, sorted[:n]...)
		}
		if notice != nil {
			notices = append(notices, *notice)
		}
		sorted = sorted[n:]
	}
	recorded, err := tx.recordDecisions(ctx, held)
	if err != nil {
		return nil, err
	}
	rows := make([][]any, len(recorded))
	var buf []byte
	for i, o := range recorded {
		a := &o.Attempt
		buf = a.RequestHeaders.AppendJSON(buf[:0])
		request := string(buf)
		buf = a.ResponseHeaders.AppendJSON(buf[:0])
		rows[i] = []any{o.Delivery.ID, a.Number, micros(a.StartedAt), a.Duration.Microseconds(), request, string(a.Class),
			a.Status, string(buf), bodyText(a.ResponseBody), cleanText(a.Error)}
	}
	if err := tx.InsertMany(ctx, `attempt (delivery_id, number, started_at, duration, request_headers, class, status,
		response_headers, response_body, error)`, rows); err != nil {
		return nil, err
	}
	return notices, tx.release(ctx, recorded)
}

// recordHealth stores the health of an endpoint after the attempts, and reports whether
// the node still holds its lane: then the lane is locked until the transaction ends.
func (tx *Tx) recordHealth(ctx context.Context, node, endpointID string, outcomes []*Outcome) (*Notice, bool, error) {
	var success, failure, firstFailure any
	var hold int64
	var gone bool
	for _, o := range outcomes {
		ended := micros(o.EndedAt)
		gone = gone || o.Decision.Gone
		if o.Decision.Hold > 0 {
			hold = max(hold, micros(tx.Now.Add(o.Decision.Hold)))
		}
		if o.Decision.State == webhook.Delivered {
			success, firstFailure = ended, nil
			continue
		}
		failure = ended
		if firstFailure == nil {
			firstFailure = ended
		}
	}
	var since database.NullInt64
	var warned int64
	err := tx.QueryRow(ctx, `UPDATE lane SET last_success_at = COALESCE($3, last_success_at),
		last_failure_at = COALESCE($4, last_failure_at), failing_since = CASE WHEN CAST($3 AS BIGINT) IS NULL
		THEN COALESCE(failing_since, $5) ELSE $5 END, warned = CASE WHEN CAST($3 AS BIGINT) IS NULL THEN warned
		ELSE 0 END, hold_until = CASE WHEN hold_until < $6 THEN $6 ELSE hold_until END, failures = $7
		WHERE endpoint_id = $1 AND node = $2 RETURNING failing_since, warned`,
		endpointID, node, success, failure, firstFailure, hold, outcomes[len(outcomes)-1].Failures).Scan(&since, &warned)
	if errors.Is(err, database.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	failing := timeOrZero(since)
	switch {
	case gone:
		return tx.disable(ctx, endpointID, "The receiver returned 410 Gone, which means \"stop sending\".")
	case failing.IsZero() || failure == nil:
		return nil, true, nil
	case !tx.Now.Before(webhook.StopAt(failing)):
		return tx.disable(ctx, endpointID, "All attempts failed since "+failing.Format(time.RFC3339)+", for 5 days.")
	case warned == 0 && !tx.Now.Before(webhook.WarnAt(failing)):
		if _, err := tx.Exec(ctx, `UPDATE lane SET warned = 1 WHERE endpoint_id = $1`, endpointID); err != nil {
			return nil, false, err
		}
		text := "All attempts failed since " + failing.Format(time.RFC3339) + ". The webhook will be disabled at " +
			webhook.StopAt(failing).Format(time.RFC3339) + " if this continues."
		return &Notice{endpointID, webhook.WasFailing, text}, true, tx.Note(ctx, endpointID, webhook.WasFailing, text)
	default:
		return nil, true, nil
	}
}

// disable disables an endpoint that answered 410, or whose attempts all failed. Its
// pending deliveries become held.
func (tx *Tx) disable(ctx context.Context, endpointID, reason string) (*Notice, bool, error) {
	n, err := tx.Exec(ctx, `UPDATE endpoint SET enabled = 0, disabled_reason = $2, updated_at = $3 WHERE id = $1
		AND enabled = 1`,
		endpointID, reason, micros(tx.Now))
	if err != nil || n == 0 {
		return nil, true, err
	}
	return &Notice{endpointID, webhook.WasDisabled, reason}, true, tx.Note(ctx, endpointID, webhook.WasDisabled, reason)
}

// recordDecisions stores the consequences of attempts for their deliveries. It returns
// those that were not recorded yet: a commit whose response was lost may have recorded
// an attempt.
func (tx *Tx) recordDecisions(ctx context.Context, outcomes []*Outcome) ([]*Outcome, error) {
	first := make([]*Outcome, 0, len(outcomes)) // delivered at the first attempt, as nearly all are
	var rest []*Outcome
	for _, o := range outcomes {
		if o.Decision.State == webhook.Delivered && o.Attempt.Number == 1 {
			first = append(first, o)
		} else {
			rest = append(rest, o)
		}
	}
	recorded, missed, err := tx.divide(ctx, first, tx.recordDelivered)
	if err != nil {
		return nil, err
	}
	more, _, err := tx.divide(ctx, append(rest, missed...), tx.recordAny)
	return append(recorded, more...), err
}

// divide records outcomes and separates those that were recorded from the others.
func (tx *Tx) divide(ctx context.Context, outcomes []*Outcome,
	record func(context.Context, []*Outcome) ([]string, error)) (recorded, others []*Outcome, err error) {
	err = database.Chunks(tx.Tx, outcomes, func(chunk []*Outcome) error {
		ids, err := record(ctx, chunk)
		for _, o := range chunk {
			if len(ids) == len(chunk) || slices.Contains(ids, o.Delivery.ID) {
				recorded = append(recorded, o)
			} else {
				others = append(others, o)
			}
		}
		return err
	})
	return recorded, others, err
}

// recordDelivered stores successful first attempts. recordAny could do that too, but
// takes 1.7 times as long on SQLite (docs/performance.md). SQLite updates a row in
// place if no index that it searches changes, and without RETURNING.
func (tx *Tx) recordDelivered(ctx context.Context, outcomes []*Outcome) ([]string, error) {
	ids := make([]string, len(outcomes))
	for i, o := range outcomes {
		ids[i] = o.Delivery.ID
	}
	among, args := tx.Among(ids, micros(tx.Now))
	n, err := tx.Exec(ctx, `UPDATE delivery SET attempts = 1, state = 'delivered', blocks = 0, due_at = NULL,
		finished_at = $1
		WHERE id`+among+` AND attempts = 0 AND state = 'pending' AND parked = 0`, args...)
	if err != nil || n == int64(len(outcomes)) {
		return ids, err
	}
	// Only these have an attempt that the log does not have yet.
	among, args = tx.Among(ids)
	rows, err := tx.Query(ctx, `SELECT id FROM delivery WHERE id`+among+` AND attempts = 1 AND state = 'delivered'
		AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.delivery_id = delivery.id)`, args...)
	return database.All(rows, err, scanText)
}

// recordAny stores the consequences of any attempts.
func (tx *Tx) recordAny(ctx context.Context, outcomes []*Outcome) (ids []string, err error) {
	list := make([][]any, len(outcomes))
	for i, o := range outcomes {
		var due, finished any
		blocks := o.Decision.State == webhook.Waiting && o.Decision.Quick
		if o.Decision.State == webhook.Waiting {
			due = micros(tx.Now.Add(o.Decision.Wait))
		} else {
			finished = micros(tx.Now)
		}
		list[i] = []any{o.Delivery.ID, o.Attempt.Number, string(o.Decision.State), flag(blocks), due, finished,
			o.Delivery.Earlier}
	}
	// A delivery may have been redelivered by hand during this attempt. If the attempt
	// failed, the delivery is due at once.
	const again = `delivery.earlier <> v.earlier AND v.state <> 'delivered'`
	table, args := tx.Table(list)
	args = append(args, micros(tx.Now))
	now := `CAST($` + strconv.Itoa(len(args)) + ` AS BIGINT)`
	rows, err := tx.Query(ctx, `WITH v (id, number, state, blocks, due, finished, earlier) AS (`+table+`)
		UPDATE delivery SET attempts = v.number, parked = 0,
			state = CASE WHEN `+again+` THEN 'pending' ELSE v.state END,
			blocks = CASE WHEN `+again+` THEN 1 ELSE v.blocks END,
			due_at = CASE WHEN `+again+` THEN `+now+` ELSE v.due END,
			finished_at = CASE WHEN `+again+` THEN NULL ELSE v.finished END,
			earlier = CASE WHEN `+again+` THEN v.number ELSE delivery.earlier END FROM v
		WHERE delivery.id = v.id AND delivery.attempts = v.number - 1 AND delivery.state = 'pending' RETURNING delivery.id`,
		args...)
	return database.All(rows, err, scanText)
}

// release makes later events of the runs due if the earlier one is over or has no more
// quick retries.
func (tx *Tx) release(ctx context.Context, outcomes []*Outcome) error {
	behind := map[string][]string{} // runs by endpoint
	for _, o := range outcomes {
		if d := &o.Delivery; d.RunID != "" && (o.Decision.State != webhook.Waiting || !o.Decision.Quick) {
			behind[d.EndpointID] = append(behind[d.EndpointID], d.RunID)
		}
	}
	for endpointID, runs := range behind {
		var parked int
		err := tx.QueryRow(ctx, `SELECT 1 FROM delivery WHERE endpoint_id = $1 AND parked = 1 LIMIT 1`,
			endpointID).Scan(&parked)
		if errors.Is(err, database.ErrNoRows) {
			continue // nearly always
		}
		if err != nil {
			return err
		}
		if err := tx.unpark(ctx, endpointID, runs); err != nil {
			return err
		}
	}
	return nil
}

// unpark makes the parked deliveries of runs due that no longer wait for anything.
func (tx *Tx) unpark(ctx context.Context, endpointID string, runs []string) error {
	return database.Chunks(tx.Tx, runs, func(chunk []string) error {
		among, args := tx.Among(chunk, endpointID, micros(tx.Now))
		_, err := tx.Exec(ctx, `UPDATE delivery SET parked = 0, due_at = $2
			WHERE endpoint_id = $1 AND parked = 1 AND run_id`+among+` AND NOT `+waits, args...)
		return err
	})
}
