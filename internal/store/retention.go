package store

import (
	"context"
	"time"

	"runbell/internal/database"
)

// DeliveryLog tells about the deliveries of one endpoint.
type DeliveryLog struct {
	EndpointID string
	Oldest     time.Time     // when the first of them was queued
	Orphaned   bool          // the endpoint is deleted
	Keep       time.Duration // how long its project keeps deliveries; 0 if orphaned
}

// NextDeliveryLog finds the deliveries of the first endpoint after the given one,
// in the order of ids. The EndpointID of its answer is "" if there are none.
func (tx *Tx) NextDeliveryLog(ctx context.Context, after string) (DeliveryLog, error) {
	var endpoint database.NullString
	var oldest, days database.NullInt64
	err := tx.QueryRow(ctx, `SELECT d.endpoint_id, (SELECT MIN(created_at) FROM delivery WHERE endpoint_id = d.endpoint_id), p.retention_days
		FROM (SELECT MIN(endpoint_id) AS endpoint_id FROM delivery WHERE endpoint_id > $1) d
		LEFT JOIN endpoint e ON e.id = d.endpoint_id LEFT JOIN project p ON p.id = e.project_id`, after).Scan(&endpoint, &oldest, &days)
	return DeliveryLog{endpoint.String, timeOrZero(oldest), !days.Valid, time.Duration(days.Int64) * 24 * time.Hour}, err
}

// DeleteDeliveries removes up to limit deliveries of an endpoint, with their log,
// and returns how many it removed. It takes those that were queued and ended before
// an instant; with waiting, also those that have not ended. They are locked first:
// one that is queued again meanwhile stays, and none gets another attempt.
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

// DeleteSessions removes up to limit sessions that were last used before an instant,
// and returns how many it removed.
func (tx *Tx) DeleteSessions(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := tx.Exec(ctx, `DELETE FROM session WHERE seen_at < $1 AND hash IN (SELECT hash FROM session WHERE seen_at < $1 LIMIT $2)`, micros(before), limit)
	return int(n), err
}

// DeleteInvitations removes up to limit invitations that expired before an instant,
// and returns how many it removed.
func (tx *Tx) DeleteInvitations(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := tx.Exec(ctx, `DELETE FROM invitation WHERE id IN (SELECT id FROM invitation WHERE expires_at < $1 LIMIT $2)`, micros(before), limit)
	return int(n), err
}
