package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Webhook is an endpoint that hears about the runs of a project.
type Webhook struct {
	HookID         string     `json:"hookId"`
	ProjectID      string     `json:"projectId"`
	Payload        string     `json:"payload"` // default or extended
	URL            string     `json:"url"`
	Headers        *string    `json:"headers"` // a JSON object in a string
	HookEvents     []string   `json:"hookEvents"`
	Label          *string    `json:"label"`
	Scope          string     `json:"scope"` // group or run
	Filters        Filters    `json:"filters"`
	MaxInFlight    int        `json:"maxInFlight"`
	RatePerMinute  *int       `json:"ratePerMinute"`
	Ed25519        bool       `json:"ed25519"`
	Enabled        bool       `json:"enabled"`
	DisabledReason *string    `json:"disabledReason"` // null if a person disabled it
	Health         Health     `json:"health"`
	CreatedAt      *time.Time `json:"createdAt"`
	UpdatedAt      *time.Time `json:"updatedAt"`
	Resumed        *int64     `json:"resumed"` // held deliveries that were just resumed
}

// Filters say which events a webhook gets.
type Filters struct {
	Branches []string `json:"branches"`
	Tags     []string `json:"tags"`
	Result   string   `json:"result"` // any, passed, failed, flaky or recovered
}

// Health is how deliveries to a webhook went lately.
type Health struct {
	State         string     `json:"state"` // unused, healthy, failing or disabled
	LastSuccessAt *time.Time `json:"lastSuccessAt"`
	LastFailureAt *time.Time `json:"lastFailureAt"`
	FailingSince  *time.Time `json:"failingSince"`
	HoldUntil     *time.Time `json:"holdUntil"`
	Pending       int64      `json:"pending"`
	Failed24h     int64      `json:"failed24h"`
}

// WebhookSettings are what may be set. Fields that are left out stay as they are.
type WebhookSettings struct {
	Payload       string          `json:"payload,omitempty"` // default or extended
	URL           *string         `json:"url,omitempty"`
	Headers       Setting[string] `json:"headers,omitzero"` // a JSON object in a string
	HookEvents    []string        `json:"hookEvents,omitempty"`
	Label         Setting[string] `json:"label,omitzero"`
	Scope         string          `json:"scope,omitempty"`
	Filters       *FilterSettings `json:"filters,omitempty"`
	MaxInFlight   *int            `json:"maxInFlight,omitempty"`
	RatePerMinute Setting[int]    `json:"ratePerMinute,omitzero"` // null is no limit
	Ed25519       *bool           `json:"ed25519,omitempty"`
}

// FilterSettings change filters. An empty list matches everything.
type FilterSettings struct {
	Branches *[]string `json:"branches,omitempty"`
	Tags     *[]string `json:"tags,omitempty"`
	Result   string    `json:"result,omitempty"`
}

// Secret is what a webhook signs with.
type Secret struct {
	Secret                  string     `json:"secret"`
	PreviousSecretExpiresAt *time.Time `json:"previousSecretExpiresAt"`
	PublicKey               *string    `json:"publicKey"` // of ed25519
}

// HistoryEntry is something that happened to a webhook.
type HistoryEntry struct {
	At   *time.Time `json:"at"`
	Kind string     `json:"kind"`
	Text string     `json:"text"`
}

// Delivery is an event on its way to a webhook; [Client.Delivery] adds the attempts.
type Delivery struct {
	DeliveryID    string            `json:"deliveryId"`
	HookID        string            `json:"hookId"`
	EventID       string            `json:"eventId"`
	Event         string            `json:"event"`
	RunID         *string           `json:"runId"` // null of a test
	GroupID       *string           `json:"groupId"`
	Sequence      int64             `json:"sequence"`
	Status        string            `json:"status"` // pending, delivered, failed or held
	AttemptCount  int               `json:"attemptCount"`
	CreatedAt     *time.Time        `json:"createdAt"`
	FinishedAt    *time.Time        `json:"finishedAt"`
	NextAttemptAt *time.Time        `json:"nextAttemptAt"`
	Attempts      []DeliveryAttempt `json:"attempts"`
}

// DeliveryAttempt is one request of a delivery, with its outcome.
type DeliveryAttempt struct {
	Number     int        `json:"number"`
	StartedAt  *time.Time `json:"startedAt"`
	DurationMs int64      `json:"durationMs"`
	Class      string     `json:"class"` // ok, or what went wrong
	Error      *string    `json:"error"`
	Response   *struct {
		Status int    `json:"status"`
		Body   string `json:"body"`
		Base64 bool   `json:"base64"`
	} `json:"response"` // null without an answer
}

// DeliveryFilter says which deliveries to list. Empty fields match all.
type DeliveryFilter struct {
	Statuses []string
	Events   []string
	RunID    string
	Since    time.Time // queued at or after it
	Until    time.Time // and before it
	Limit    int       // 0 is all
}

// Redelivery says which deliveries of a webhook to redeliver.
type Redelivery struct {
	Since  *time.Time `json:"since,omitempty"`
	Until  *time.Time `json:"until,omitempty"`
	Status string     `json:"status"` // failed, or all
	RunID  string     `json:"runId,omitempty"`
	DryRun bool       `json:"dryRun"` // only count
}

// Redelivered counts deliveries that are sent again, or would be.
type Redelivered struct {
	Deliveries int64 `json:"deliveries"`
}

// QueuedTest is a delivery of sample data.
type QueuedTest struct {
	DeliveryID string `json:"deliveryId"`
}

func inProject(id string) url.Values { return url.Values{"projectId": {id}} }

// Webhooks lists the webhooks of a project.
func (c *Client) Webhooks(ctx context.Context, projectID string) (Result[[]Webhook], error) {
	return call[[]Webhook](ctx, c, http.MethodGet, "/webhooks", inProject(projectID), nil)
}

// CreateWebhook creates a webhook.
func (c *Client) CreateWebhook(ctx context.Context, projectID string, s WebhookSettings) (Result[Webhook], error) {
	return call[Webhook](ctx, c, http.MethodPost, "/webhooks", inProject(projectID), s)
}

// Webhook finds a webhook.
func (c *Client) Webhook(ctx context.Context, id string) (Result[Webhook], error) {
	return call[Webhook](ctx, c, http.MethodGet, "/webhooks"+segment(id), nil, nil)
}

// UpdateWebhook changes the settings that are given.
func (c *Client) UpdateWebhook(ctx context.Context, id string, s WebhookSettings) (Result[Webhook], error) {
	return call[Webhook](ctx, c, http.MethodPut, "/webhooks"+segment(id), nil, s)
}

// DeleteWebhook deletes a webhook with its deliveries.
func (c *Client) DeleteWebhook(ctx context.Context, id string) (Result[Deleted], error) {
	return call[Deleted](ctx, c, http.MethodDelete, "/webhooks"+segment(id), nil, nil)
}

// EnableWebhook enables a webhook. Held deliveries are sent.
func (c *Client) EnableWebhook(ctx context.Context, id string) (Result[Webhook], error) {
	return call[Webhook](ctx, c, http.MethodPost, "/webhooks"+segment(id)+"/enable", nil, nil)
}

// DisableWebhook disables a webhook. Pending deliveries are held.
func (c *Client) DisableWebhook(ctx context.Context, id string) (Result[Webhook], error) {
	return call[Webhook](ctx, c, http.MethodPost, "/webhooks"+segment(id)+"/disable", nil, nil)
}

// WebhookSecret reads what a webhook signs with.
func (c *Client) WebhookSecret(ctx context.Context, id string) (Result[Secret], error) {
	return call[Secret](ctx, c, http.MethodGet, "/webhooks"+segment(id)+"/secret", nil, nil)
}

// RotateSecret makes a new signing secret. The old one signs too, for the grace.
func (c *Client) RotateSecret(ctx context.Context, id string, grace time.Duration) (Result[Secret], error) {
	return call[Secret](ctx, c, http.MethodPost, "/webhooks"+segment(id)+"/rotate-secret", nil,
		map[string]int64{"graceSeconds": int64(grace / time.Second)})
}

// TestWebhook sends a webhook with sample data.
func (c *Client) TestWebhook(ctx context.Context, id, event string) (Result[QueuedTest], error) {
	return call[QueuedTest](ctx, c, http.MethodPost, "/webhooks"+segment(id)+"/test", nil,
		map[string]string{"event": event})
}

// WebhookHistory lists what happened to a webhook, newest first.
func (c *Client) WebhookHistory(ctx context.Context, id string) (Result[[]HistoryEntry], error) {
	return call[[]HistoryEntry](ctx, c, http.MethodGet, "/webhooks"+segment(id)+"/history", nil, nil)
}

// Deliveries lists the deliveries of a webhook, newest first.
func (c *Client) Deliveries(ctx context.Context, id string, f DeliveryFilter) (Result[[]Delivery], error) {
	query := url.Values{"status": f.Statuses, "event": f.Events}
	if f.RunID != "" {
		query.Set("runId", f.RunID)
	}
	if !f.Since.IsZero() {
		query.Set("since", f.Since.Format(time.RFC3339Nano))
	}
	if !f.Until.IsZero() {
		query.Set("until", f.Until.Format(time.RFC3339Nano))
	}
	return list[Delivery](ctx, c, "/webhooks"+segment(id)+"/deliveries", query, f.Limit)
}

// Redeliver sends deliveries of a webhook again.
func (c *Client) Redeliver(ctx context.Context, id string, r Redelivery) (Result[Redelivered], error) {
	return call[Redelivered](ctx, c, http.MethodPost, "/webhooks"+segment(id)+"/replay", nil, r)
}

// Delivery finds a delivery with its attempts.
func (c *Client) Delivery(ctx context.Context, id string) (Result[Delivery], error) {
	return call[Delivery](ctx, c, http.MethodGet, "/deliveries"+segment(id), nil, nil)
}

// RetryDelivery sends a delivery again, at once.
func (c *Client) RetryDelivery(ctx context.Context, id string) (Result[Delivery], error) {
	return call[Delivery](ctx, c, http.MethodPost, "/deliveries"+segment(id)+"/retry", nil, nil)
}
