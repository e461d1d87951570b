package store

import (
	"context"
	"strconv"
	"strings"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

// FactsDue is an event whose facts are not complete.
type FactsDue struct {
	EventID string
	Failed  []string // the first specs that had failed when it happened: ids of instances
}

// AwaitFacts notes that the facts of a stored event are not complete.
func (tx *Tx) AwaitFacts(ctx context.Context, e webhook.Event, failed []string) error {
	_, err := tx.Exec(ctx, `INSERT INTO facts_due (event_id, failed, at) VALUES ($1, $2, $3)`, e.ID,
		strings.Join(failed, " "), micros(e.CreatedAt))
	return err
}

// FactsDue lists up to limit events whose facts are not complete, in the order in which they
// happened.
func (tx *Tx) FactsDue(ctx context.Context, limit int) ([]FactsDue, error) {
	rows, err := tx.Query(ctx, `SELECT event_id, failed FROM facts_due ORDER BY at, event_id LIMIT $1`, limit)
	return database.All(rows, err, func(r database.Row) (FactsDue, error) {
		var due FactsDue
		var failed string
		err := r.Scan(&due.EventID, &failed)
		due.Failed = strings.Fields(failed)
		return due, err
	})
}

// CompleteFacts stores the complete facts of an event, once, and lets its deliveries go that wait
// for them. It returns their endpoints: none if the facts were complete already.
func (tx *Tx) CompleteFacts(ctx context.Context, e webhook.Event) (endpointIDs []string, err error) {
	if n, err := tx.Exec(ctx, `DELETE FROM facts_due WHERE event_id = $1`, e.ID); err != nil || n == 0 {
		return nil, err
	}
	if _, err := tx.Exec(ctx, `UPDATE event SET facts = $2 WHERE id = $1`, e.ID, string(e.Facts)); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT endpoint_id FROM delivery WHERE run_id = $1 AND sequence = $2 AND with_facts = 1
		AND parked = 1 ORDER BY endpoint_id`, e.RunID, e.Sequence)
	if endpointIDs, err = database.All(rows, err, scanText); err != nil {
		return nil, err
	}
	for _, id := range endpointIDs {
		if _, err := tx.lockEarlier(ctx, id, e); err != nil {
			return nil, err
		}
		if err := tx.unpark(ctx, id, []string{e.RunID}); err != nil {
			return nil, err
		}
	}
	return endpointIDs, nil
}

// FailedSpec is a spec with a failed test, or a spec that could not run.
type FailedSpec struct {
	ID        string // of the instance
	GroupName string
	Spec      string
	Exception string // the first 8,192 characters; "" if it ran to its end
	Size      int64  // bytes of what [Tx.Tests] reads
}

// FailedSpecs lists the first specs of a run that have failed, as ids of instances, group by group; of
// one group unless that is "".
func (tx *Tx) FailedSpecs(ctx context.Context, runID, group string, limit int) (instanceIDs []string, err error) {
	q := query{text: `SELECT id FROM instance WHERE run_id = $1 AND failures > 0`, args: []any{runID}}
	if group != "" {
		q.where(`group_name = ?`, group)
	}
	rows, err := tx.Query(ctx, q.text+` ORDER BY group_name, position LIMIT `+strconv.Itoa(limit), q.args...)
	return database.All(rows, err, scanText)
}

// FailedSpec reads a spec that has failed.
func (tx *Tx) FailedSpec(ctx context.Context, instanceID string) (FailedSpec, error) {
	return one(tx.QueryRow(ctx, `SELECT id, group_name, spec, SUBSTR(exception, 1, 8192),
			COALESCE((SELECT OCTET_LENGTH(document) FROM announcement WHERE instance_id = instance.id), 0)
			+ COALESCE((SELECT OCTET_LENGTH(document) FROM outcome WHERE instance_id = instance.id), 0)
		FROM instance WHERE id = $1`, instanceID), func(r database.Row) (FailedSpec, error) {
		var s FailedSpec
		err := r.Scan(&s.ID, &s.GroupName, &s.Spec, &s.Exception, &s.Size)
		return s, err
	}, run.Missing("spec", instanceID))
}
