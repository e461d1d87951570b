package store

import (
	"context"
	"errors"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

const endpointColumns = `id, project_id, kind, payload, url, headers, events, label, scope, branches, tags, result,
	enabled, disabled_reason, max_in_flight, rate_per_minute, secret, previous_secret, previous_until, private_key,
	created_at, updated_at`

func (tx *Tx) scanEndpoint(r database.Row) (webhook.Endpoint, error) {
	var e webhook.Endpoint
	var headers, events, branches, tags, secret, previous, private string
	var enabled, created, updated int64
	var until database.NullInt64
	err := r.Scan(&e.ID, &e.ProjectID, &e.Kind, &e.Payload, &e.URL, &headers, &events, &e.Label, &e.Scope, &branches,
		&tags, &e.Filters.Result, &enabled, &e.DisabledReason, &e.MaxInFlight, &e.RatePerMinute, &secret, &previous, &until,
		&private, &created, &updated)
	if err != nil {
		return e, err
	}
	e.Enabled = enabled != 0
	e.PreviousUntil, e.CreatedAt, e.UpdatedAt = timeOrZero(until), timeOf(created), timeOf(updated)
	if err := errors.Join(parse(events, &e.Events), parse(branches, &e.Filters.Branches),
		parse(tags, &e.Filters.Tags)); err != nil {
		return e, err
	}
	for _, sealed := range []*string{&headers, &secret, &previous, &private} {
		if *sealed == "" {
			continue
		}
		if *sealed, err = tx.sealer.Open(*sealed, e.ID); err != nil {
			return e, err
		}
	}
	e.Secret, e.Previous, e.Private = webhook.Secret(secret), webhook.Secret(previous), webhook.PrivateKey(private)
	return e, parse(headers, &e.Headers)
}

// settings are the columns of an endpoint that can change, in the order of
// endpointColumns.
func (tx *Tx) settings(e webhook.Endpoint) []any {
	seal := func(plain string) string {
		if plain == "" {
			return ""
		}
		return tx.sealer.Seal(plain, e.ID)
	}
	return []any{string(e.Payload), e.URL, seal(document(e.Headers)), document(e.Events), e.Label, string(e.Scope),
		list(e.Filters.Branches), list(e.Filters.Tags), string(e.Filters.Result), flag(e.Enabled), e.DisabledReason,
		e.MaxInFlight, e.RatePerMinute, seal(e.Secret.Reveal()), seal(e.Previous.Reveal()), microsOrNull(e.PreviousUntil),
		seal(e.Private.Reveal())}
}

// list is a JSON array, [] if it is empty.
func list(values []string) string {
	if values == nil {
		values = []string{}
	}
	return document(values)
}

// InsertEndpoint stores a new endpoint.
func (tx *Tx) InsertEndpoint(ctx context.Context, e webhook.Endpoint) error {
	args := append([]any{e.ID, e.ProjectID, string(e.Kind)}, tx.settings(e)...)
	_, err := tx.Exec(ctx, `INSERT INTO endpoint (`+endpointColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)`,
		append(args, micros(e.CreatedAt), micros(e.UpdatedAt))...)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO lane (endpoint_id, node, lease_until, hold_until, failures, warned)
		VALUES ($1, '', 0, 0, 0, 0)`, e.ID)
	return err
}

// UpdateEndpoint stores the settings of an endpoint that exists, its secrets
// too.
func (tx *Tx) UpdateEndpoint(ctx context.Context, e webhook.Endpoint) error {
	_, err := tx.Exec(ctx, `UPDATE endpoint SET payload = $2, url = $3, headers = $4, events = $5, label = $6, scope = $7,
		branches = $8, tags = $9, result = $10, enabled = $11, disabled_reason = $12, max_in_flight = $13,
		rate_per_minute = $14, secret = $15, previous_secret = $16, previous_until = $17, private_key = $18, updated_at = $19
		WHERE id = $1`,
		append(append([]any{e.ID}, tx.settings(e)...), micros(e.UpdatedAt))...)
	return err
}

// LockEndpoint finds an endpoint and blocks changes of it, and new deliveries
// to it, until the transaction ends.
func (tx *Tx) LockEndpoint(ctx context.Context, id string) (webhook.Endpoint, error) {
	return one(tx.QueryRow(ctx, `SELECT `+endpointColumns+` FROM endpoint WHERE id = $1`+tx.ForUpdate(), id),
		tx.scanEndpoint, run.Missing("webhook", id))
}

// Endpoint finds an endpoint by its id.
func (tx *Tx) Endpoint(ctx context.Context, id string) (webhook.Endpoint, error) {
	return one(tx.QueryRow(ctx, `SELECT `+endpointColumns+` FROM endpoint WHERE id = $1`, id),
		tx.scanEndpoint, run.Missing("webhook", id))
}

// CountEndpoints counts the endpoints of a project.
func (tx *Tx) CountEndpoints(ctx context.Context, projectID string) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM endpoint WHERE project_id = $1`, projectID).Scan(&n)
	return n, err
}

// Endpoints lists the endpoints of a project, oldest first.
func (tx *Tx) Endpoints(ctx context.Context, projectID string) ([]webhook.Endpoint, error) {
	rows, err := tx.Query(ctx, `SELECT `+endpointColumns+` FROM endpoint WHERE project_id = $1 ORDER BY created_at, id`,
		projectID)
	return database.All(rows, err, tx.scanEndpoint)
}

// DeleteEndpoint removes an endpoint. Its deliveries stay until DeleteDeliveries
// has removed them: there may be very many.
func (tx *Tx) DeleteEndpoint(ctx context.Context, id string) error {
	for _, statement := range []string{
		`DELETE FROM endpoint_history WHERE endpoint_id = $1`,
		`DELETE FROM lane WHERE endpoint_id = $1`,
	} {
		if _, err := tx.Exec(ctx, statement, id); err != nil {
			return err
		}
	}
	return tx.deleteOne(ctx, `DELETE FROM endpoint WHERE id = $1`, "webhook", id)
}

// Listeners lists the settings that decide whether an enabled endpoint gets an event. The
// rows are locked, so an endpoint that is being disabled or removed gets no delivery.
func (tx *Tx) Listeners(ctx context.Context, projectID string, scope run.Scope) ([]webhook.Endpoint, error) {
	rows, err := tx.Query(ctx, `SELECT id, kind, payload, events, branches, tags, result FROM endpoint
		WHERE project_id = $1 AND scope = $2 AND enabled = 1 ORDER BY id`+tx.OnPostgres(` FOR SHARE`),
		projectID, string(scope))
	return database.All(rows, err, func(r database.Row) (webhook.Endpoint, error) {
		e := webhook.Endpoint{ProjectID: projectID, Scope: scope, Enabled: true}
		var events, branches, tags string
		if err := r.Scan(&e.ID, &e.Kind, &e.Payload, &events, &branches, &tags, &e.Filters.Result); err != nil {
			return e, err
		}
		return e, errors.Join(parse(events, &e.Events), parse(branches, &e.Filters.Branches), parse(tags, &e.Filters.Tags))
	})
}

// Note adds a line to the history of an endpoint, of which the newest webhook.MaxHistory are kept.
func (tx *Tx) Note(ctx context.Context, endpointID string, kind webhook.HistoryKind, text string) error {
	_, err := tx.Exec(ctx, `INSERT INTO endpoint_history (id, endpoint_id, at, kind, text) VALUES ($1, $2, $3, $4, $5)`,
		webhook.NewID("his_", tx.Now), endpointID, micros(tx.Now), string(kind), cleanText(text))
	if err == nil {
		_, err = tx.Exec(ctx, `DELETE FROM endpoint_history WHERE endpoint_id = $1 AND id <=
			(SELECT id FROM endpoint_history WHERE endpoint_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)`, endpointID,
			webhook.MaxHistory)
	}
	return err
}

// History lists the history of an endpoint, newest first, up to limit lines.
func (tx *Tx) History(ctx context.Context, endpointID string, limit int) ([]webhook.History, error) {
	rows, err := tx.Query(ctx, `SELECT id, at, kind, text FROM endpoint_history WHERE endpoint_id = $1 ORDER BY id DESC
		LIMIT $2`, endpointID, limit)
	return database.All(rows, err, func(r database.Row) (webhook.History, error) {
		var h webhook.History
		var at int64
		err := r.Scan(&h.ID, &at, &h.Kind, &h.Text)
		h.At = timeOf(at)
		return h, err
	})
}

// TroubledEndpoints lists the endpoints of all projects whose attempts all fail, the
// longest failing first, and those that Runbell disabled.
func (tx *Tx) TroubledEndpoints(ctx context.Context, limit int) ([]webhook.Endpoint, error) {
	rows, err := tx.Query(ctx, `SELECT `+prefixed("e", endpointColumns)+
		` FROM endpoint e JOIN lane l ON l.endpoint_id = e.id
		WHERE (e.enabled = 1 AND l.failing_since IS NOT NULL) OR (e.enabled = 0 AND e.disabled_reason <> '')
		ORDER BY e.enabled DESC, l.failing_since, e.id LIMIT $1`, limit)
	return database.All(rows, err, tx.scanEndpoint)
}
