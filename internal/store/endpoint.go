package store

import (
	"context"
	"encoding/json"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

const endpointColumns = `id, project_id, url, headers, events, label, scope, enabled, disabled_reason, secret, created_at, updated_at`

func (tx *Tx) scanEndpoint(r row) (webhook.Endpoint, error) {
	var e webhook.Endpoint
	var headers, events, scope, secret string
	var enabled, created, updated int64
	err := r.Scan(&e.ID, &e.ProjectID, &e.URL, &headers, &events, &e.Label, &scope, &enabled, &e.DisabledReason, &secret, &created, &updated)
	if err != nil {
		return e, err
	}
	e.Scope = run.Scope(scope)
	e.Enabled = enabled != 0
	e.CreatedAt, e.UpdatedAt = timeOf(created), timeOf(updated)
	if err := parse(events, &e.Events); err != nil {
		return e, err
	}
	plain, err := tx.sealer.Open(headers, e.ID)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(plain), &e.Headers); err != nil {
		return e, err
	}
	plain, err = tx.sealer.Open(secret, e.ID)
	e.Secret = webhook.Secret(plain)
	return e, err
}

// InsertEndpoint stores a new endpoint.
func (tx *Tx) InsertEndpoint(ctx context.Context, e webhook.Endpoint) error {
	_, err := tx.conn.ExecContext(ctx, `INSERT INTO endpoint (`+endpointColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		e.ID, e.ProjectID, e.URL, tx.sealer.Seal(document(e.Headers), e.ID), document(e.Events), e.Label, string(e.Scope),
		flag(e.Enabled), e.DisabledReason, tx.sealer.Seal(e.Secret.Reveal(), e.ID), micros(e.CreatedAt), micros(e.UpdatedAt))
	return err
}

// UpdateEndpoint stores the settings of an endpoint that exists. Its secret
// stays.
func (tx *Tx) UpdateEndpoint(ctx context.Context, e webhook.Endpoint) error {
	_, err := tx.conn.ExecContext(ctx, `UPDATE endpoint SET url = $2, headers = $3, events = $4, label = $5, scope = $6, enabled = $7,
			disabled_reason = $8, updated_at = $9 WHERE id = $1`,
		e.ID, e.URL, tx.sealer.Seal(document(e.Headers), e.ID), document(e.Events), e.Label, string(e.Scope),
		flag(e.Enabled), e.DisabledReason, micros(e.UpdatedAt))
	return err
}

// LockEndpoint finds an endpoint and keeps changes of it, and new deliveries
// to it, waiting until the transaction ends.
func (tx *Tx) LockEndpoint(ctx context.Context, id string) (webhook.Endpoint, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT `+endpointColumns+` FROM endpoint WHERE id = $1`+tx.forUpdate(), id),
		tx.scanEndpoint, run.Missing("webhook", id))
}

// forUpdate locks the rows of a SELECT. SQLite has one writer and needs none.
func (tx *Tx) forUpdate() string {
	if tx.kind == postgres {
		return ` FOR UPDATE`
	}
	return ``
}

// Endpoint finds an endpoint by its id.
func (tx *Tx) Endpoint(ctx context.Context, id string) (webhook.Endpoint, error) {
	return one(tx.conn.QueryRowContext(ctx, `SELECT `+endpointColumns+` FROM endpoint WHERE id = $1`, id),
		tx.scanEndpoint, run.Missing("webhook", id))
}

// CheckSecrets says whether the stored secrets can be read: webhook.ErrSealed
// if they were stored with another key.
func (tx *Tx) CheckSecrets(ctx context.Context) error {
	_, err := one(tx.conn.QueryRowContext(ctx, `SELECT `+endpointColumns+` FROM endpoint ORDER BY created_at DESC LIMIT 1`), tx.scanEndpoint, nil)
	return err
}

// Endpoints lists the endpoints of a project, oldest first.
func (tx *Tx) Endpoints(ctx context.Context, projectID string) ([]webhook.Endpoint, error) {
	rows, err := tx.conn.QueryContext(ctx, `SELECT `+endpointColumns+` FROM endpoint WHERE project_id = $1 ORDER BY created_at, id`, projectID)
	return all(rows, err, tx.scanEndpoint)
}

// DeleteEndpoint removes an endpoint with its deliveries and their log.
func (tx *Tx) DeleteEndpoint(ctx context.Context, id string) error {
	for _, statement := range []string{
		`DELETE FROM attempt WHERE delivery_id IN (SELECT id FROM delivery WHERE endpoint_id = $1)`,
		`DELETE FROM delivery WHERE endpoint_id = $1`,
	} {
		if _, err := tx.conn.ExecContext(ctx, statement, id); err != nil {
			return err
		}
	}
	return tx.deleteOne(ctx, `DELETE FROM endpoint WHERE id = $1`, "webhook", id)
}

// listeners lists what decides whether an enabled endpoint takes an event. The
// rows are locked against change, so that an endpoint that is being disabled or
// removed gets no delivery behind its back.
func (tx *Tx) listeners(ctx context.Context, projectID string, scope run.Scope) ([]webhook.Endpoint, error) {
	share := ``
	if tx.kind == postgres {
		share = ` FOR SHARE`
	}
	rows, err := tx.conn.QueryContext(ctx, `SELECT id, events FROM endpoint WHERE project_id = $1 AND scope = $2 AND enabled = 1`+share,
		projectID, string(scope))
	return all(rows, err, func(r row) (webhook.Endpoint, error) {
		e := webhook.Endpoint{ProjectID: projectID, Scope: scope, Enabled: true}
		var events string
		if err := r.Scan(&e.ID, &events); err != nil {
			return e, err
		}
		return e, parse(events, &e.Events)
	})
}
