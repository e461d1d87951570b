package store

import (
	"context"
	"strconv"

	"runbell/internal/database"
)

// FailedSpec is a spec with a failed test, or a spec that could not run.
type FailedSpec struct {
	ID        string // of the instance
	GroupName string
	Spec      string
	Exception string // the first 8,192 characters; "" if it ran to its end
	Size      int64  // bytes of what [Tx.Tests] reads
}

// FailedSpecs lists the first specs of a run that failed, group by group; of one group unless
// that is "".
func (tx *Tx) FailedSpecs(ctx context.Context, runID, group string, limit int) ([]FailedSpec, error) {
	q := query{text: `SELECT id, group_name, spec, SUBSTR(exception, 1, 8192),
			COALESCE((SELECT OCTET_LENGTH(document) FROM announcement WHERE instance_id = instance.id), 0)
			+ COALESCE((SELECT OCTET_LENGTH(document) FROM outcome WHERE instance_id = instance.id), 0)
		FROM instance WHERE run_id = $1 AND failures > 0`, args: []any{runID}}
	if group != "" {
		q.where(`group_name = ?`, group)
	}
	rows, err := tx.Query(ctx, q.text+` ORDER BY group_name, position LIMIT `+strconv.Itoa(limit), q.args...)
	return database.All(rows, err, func(r database.Row) (FailedSpec, error) {
		var s FailedSpec
		err := r.Scan(&s.ID, &s.GroupName, &s.Spec, &s.Exception, &s.Size)
		return s, err
	})
}
