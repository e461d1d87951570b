package api

import (
	"encoding/base64"
	"strings"
	"time"
	"unicode/utf8"

	"runbell/internal/auth"
	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

var deliveryStates = []webhook.DeliveryState{webhook.Waiting, webhook.Delivered, webhook.Failed, webhook.Held}

func deliveryFilters() []param {
	return append(cursors(),
		param{name: "status", enum: texts(deliveryStates), repeats: true},
		param{name: "event", enum: texts(webhook.AllKinds()), repeats: true},
		param{name: "runId", doc: "Only deliveries of this run."},
		param{name: "since", doc: "Queued at or after this time.", format: "date-time"},
		param{name: "until", doc: "Queued before this time.", format: "date-time"},
	)
}

type delivery struct {
	DeliveryID    string                `json:"deliveryId"`
	HookID        string                `json:"hookId"`
	EventID       string                `json:"eventId" doc:"The Webhook-Id of every attempt."`
	Event         webhook.Kind          `json:"event"`
	RunID         *string               `json:"runId" doc:"null for a test."`
	GroupID       *string               `json:"groupId" doc:"null at run scope."`
	Sequence      int64                 `json:"sequence" doc:"The position of the event in its run."`
	Status        webhook.DeliveryState `json:"status"`
	AttemptCount  int                   `json:"attemptCount"`
	CreatedAt     timestamp             `json:"createdAt"`
	FinishedAt    *timestamp            `json:"finishedAt"`
	NextAttemptAt *timestamp            `json:"nextAttemptAt" doc:"null unless pending."`
	Cursor        string                `json:"cursor,omitempty" doc:"In lists: for starting_after and ending_before."`
}

func showDelivery(d webhook.Delivery, e webhook.Event) delivery {
	return delivery{
		DeliveryID:    d.ID,
		HookID:        d.EndpointID,
		EventID:       d.EventID,
		Event:         e.Kind,
		RunID:         text(d.RunID),
		GroupID:       text(e.Group),
		Sequence:      d.Sequence,
		Status:        d.State,
		AttemptCount:  d.Attempts,
		CreatedAt:     timestamp(d.CreatedAt),
		FinishedAt:    known(d.FinishedAt),
		NextAttemptAt: known(d.DueAt),
	}
}

func (a *api) deliveries(r *request) ([]delivery, bool, error) {
	filter := store.DeliveryFilter{EndpointID: r.id(), RunID: r.query.Get("runId")}
	page, err := r.page()
	if err == nil {
		filter.States, err = choices(r, "status", deliveryStates)
	}
	if err == nil {
		filter.Kinds, err = choices(r, "event", webhook.AllKinds())
	}
	if err == nil {
		filter.Since, err = r.instant("since")
	}
	if err == nil {
		filter.Until, err = r.instant("until")
	}
	if err == nil {
		err = checkPeriod("since", filter.Since, "until", filter.Until)
	}
	if err != nil {
		return nil, false, err
	}
	var out []delivery
	var more bool
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Endpoint(r.Context(), r.id()); err != nil {
			return err
		}
		list, m, err := tx.Deliveries(r.Context(), filter, page)
		if err != nil {
			return err
		}
		more = m
		for _, d := range list {
			e, err := tx.Event(r.Context(), d.EventID)
			if err != nil {
				return err
			}
			shown := showDelivery(d, e)
			shown.Cursor = cursorOf(d.CreatedAt, d.ID)
			out = append(out, shown)
		}
		return nil
	})
	return out, more, err
}

type deliveryDetail struct {
	delivery
	Attempts []attempt `json:"attempts" doc:"In order."`
}

type attempt struct {
	Number        int           `json:"number"`
	StartedAt     timestamp     `json:"startedAt"`
	DurationMs    int64         `json:"durationMs"`
	Class         webhook.Class `json:"class" doc:"The class: ok, status, dns, refused, reset, tls, timeout, blocked address, proxy, request or error."`
	Error         *string       `json:"error"`
	Request       sent          `json:"request"`
	Response      *received     `json:"response" doc:"null if there was no response."`
	NextAttemptAt *timestamp    `json:"nextAttemptAt" doc:"Only on the last attempt of a pending delivery."`
}

type sent struct {
	Headers map[string]string `json:"headers" doc:"Custom values are masked. A read-only key does not see the signature either."`
	Body    string            `json:"body"`
}

type received struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers" doc:"A read-only key sees the values as …"`
	Body    string            `json:"body" doc:"The first 8 KiB. A read-only key sees …"`
	Base64  bool              `json:"base64" doc:"Whether the body is binary, and encoded as base64."`
}

func (a *api) delivery(r *request) (deliveryDetail, error) {
	out := deliveryDetail{Attempts: []attempt{}}
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		d, err := tx.Delivery(r.Context(), r.id())
		if err != nil {
			return err
		}
		e, err := tx.Event(r.Context(), d.EventID)
		if err != nil {
			return err
		}
		attempts, err := tx.Attempts(r.Context(), d.ID)
		if err != nil {
			return err
		}
		out.delivery = showDelivery(d, e)
		for i, tried := range attempts {
			if !r.by.May(auth.ManageWebhooks) {
				tried = webhook.MaskAttempt(tried)
			}
			shown := showAttempt(tried, e.Body(d))
			if i == len(attempts)-1 {
				shown.NextAttemptAt = out.NextAttemptAt
			}
			out.Attempts = append(out.Attempts, shown)
		}
		return nil
	})
	return out, err
}

func showAttempt(a webhook.Attempt, body []byte) attempt {
	out := attempt{
		Number:     a.Number,
		StartedAt:  timestamp(a.StartedAt),
		DurationMs: int64(a.Duration / time.Millisecond),
		Class:      a.Class,
		Error:      text(a.Error),
		Request:    sent{Headers: headerMap(a.RequestHeaders), Body: string(body)},
	}
	if a.Status == 0 {
		return out
	}
	response, isText := asText(a.ResponseBody)
	if !isText {
		response = base64.StdEncoding.EncodeToString(a.ResponseBody)
	}
	out.Response = &received{Status: a.Status, Headers: headerMap(a.ResponseHeaders), Body: response, Base64: !isText}
	return out
}

// asText is a body as text, if it is. The log keeps the beginning of a body and
// may have cut its last character.
func asText(b []byte) (string, bool) {
	for cut := 0; cut < utf8.UTFMax && cut <= len(b); cut++ {
		whole, tail := string(b[:len(b)-cut]), b[len(b)-cut:]
		if cut > 0 && utf8.FullRune(tail) {
			continue
		}
		if utf8.ValidString(whole) && !strings.Contains(whole, "\x00") {
			return whole, true
		}
	}
	return "", false
}

func headerMap(headers webhook.Headers) map[string]string {
	out := make(map[string]string, len(headers))
	for _, h := range headers {
		out[h.Name] = h.Value
	}
	return out
}

type testRequest struct {
	Event webhook.Kind `json:"event" doc:"The event."`
}

type testSent struct {
	DeliveryID string `json:"deliveryId"`
}

func (a *api) testWebhook(r *request, b testRequest) (testSent, error) {
	id, err := a.Endpoints.Test(r.Context(), r.id(), b.Event)
	return testSent{id}, err
}

func (a *api) retryDelivery(r *request) (delivery, error) {
	d, err := a.Endpoints.Retry(r.Context(), r.id())
	if err != nil {
		return delivery{}, err
	}
	var out delivery
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		e, err := tx.Event(r.Context(), d.EventID)
		out = showDelivery(d, e)
		return err
	})
	return out, err
}

type replayRequest struct {
	Since  *time.Time `json:"since" doc:"Queued at or after this time."`
	Until  *time.Time `json:"until" doc:"Queued before this time. Default: now."`
	Status string     `json:"status" doc:"failed (default), or all to include successful deliveries."`
	RunID  string     `json:"runId" doc:"Only deliveries of this run. Then since is optional."`
	DryRun bool       `json:"dryRun" doc:"Only count the deliveries."`
}

type replayed struct {
	Deliveries int64 `json:"deliveries" doc:"The number of deliveries that are redelivered, or would be."`
	DryRun     bool  `json:"dryRun"`
}

func (a *api) replayWebhook(r *request, b replayRequest) (replayed, error) {
	what := endpoint.Replay{RunID: b.RunID, All: b.Status == "all", DryRun: b.DryRun}
	switch {
	case b.Status != "" && b.Status != "all" && b.Status != "failed":
		return replayed{}, run.Errorf(run.Invalid, "status must be failed or all, not %q.", run.Clip(b.Status, 40))
	case b.Since == nil && b.RunID == "":
		return replayed{}, run.Errorf(run.Invalid, "Say what to redeliver: send since or runId.")
	}
	if !storable(b.RunID) {
		return replayed{}, run.Errorf(run.Invalid, "runId must be the id of a run.")
	}
	if b.Since != nil {
		what.Since = *b.Since
	}
	if b.Until != nil {
		what.Until = *b.Until
	}
	if err := checkPeriod("since", what.Since, "until", what.Until); err != nil {
		return replayed{}, err
	}
	n, err := a.Endpoints.Replay(r.Context(), r.id(), what, byAPI)
	return replayed{n, b.DryRun}, err
}
