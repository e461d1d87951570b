package api

import (
	"context"
	"time"

	"runbell/internal/auth"
	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

type hook struct {
	HookID         string               `json:"hookId"`
	ProjectID      string               `json:"projectId"`
	Kind           webhook.EndpointKind `json:"kind" doc:"The format of the requests."`
	Payload        webhook.Form         `json:"payload" doc:"default, or extended, which adds facts to the body."`
	URL            string               `json:"url" doc:"A read-only key sees only the host."`
	Headers        *string              `json:"headers" doc:"A JSON object in a string. A read-only key sees its values as …"`
	HookEvents     []webhook.Kind       `json:"hookEvents" doc:"The events that the webhook gets; empty means none."`
	Label          *string              `json:"label"`
	Scope          run.Scope            `json:"scope" doc:"Whether the webhook gets events per group or per run."`
	Filters        hookFilters          `json:"filters"`
	MaxInFlight    int                  `json:"maxInFlight" doc:"Maximum requests in flight."`
	RatePerMinute  *int                 `json:"ratePerMinute" doc:"Maximum attempts per minute; null means no limit."`
	Ed25519        bool                 `json:"ed25519" doc:"Whether webhooks also have an ed25519 signature."`
	Enabled        bool                 `json:"enabled"`
	DisabledReason *string              `json:"disabledReason" doc:"Why Runbell disabled the webhook; null if a person did."`
	Health         health               `json:"health"`
	CreatedAt      timestamp            `json:"createdAt"`
	UpdatedAt      timestamp            `json:"updatedAt"`
	Resumed        *int64               `json:"resumed,omitempty" doc:"The number of held deliveries that this request released."`
}

type hookFilters struct {
	Branches []string       `json:"branches" doc:"Patterns such as main, release/* or !dependabot/*. Empty means every branch."`
	Tags     []string       `json:"tags" doc:"Only runs with at least one of these tags. Empty means every run."`
	Result   webhook.Result `json:"result" doc:"any, or the result of the run or group. RUN_START has no result."`
}

type health struct {
	State         webhook.HealthState `json:"state" doc:"unused, healthy, failing or disabled."`
	LastSuccessAt *timestamp          `json:"lastSuccessAt"`
	LastFailureAt *timestamp          `json:"lastFailureAt"`
	FailingSince  *timestamp          `json:"failingSince" doc:"Since when all attempts failed; null if the last one succeeded."`
	HoldUntil     *timestamp          `json:"holdUntil" doc:"Until when the receiver limits the rate (Retry-After)."`
	Pending       int64               `json:"pending" doc:"Pending deliveries."`
	Failed24h     int64               `json:"failed24h" doc:"Deliveries that failed in the last 24 hours."`
}

// showHook shows the URL and the values of headers, which are credentials, only
// to keys that may change them.
func (r *request) showHook(e webhook.Endpoint, h webhook.Health) hook {
	manage := r.by.May(auth.ManageWebhooks)
	address := e.URL
	if !manage {
		address = webhook.MaskURL(e.URL)
	}
	events := e.Events
	if events == nil {
		events = []webhook.Kind{}
	}
	var rate *int
	if e.RatePerMinute > 0 {
		rate = &e.RatePerMinute
	}
	return hook{
		HookID:         e.ID,
		ProjectID:      e.ProjectID,
		Kind:           e.Kind,
		Payload:        e.Payload,
		URL:            address,
		Headers:        formatHeaders(e.Headers, manage),
		HookEvents:     events,
		Label:          text(e.Label),
		Scope:          e.Scope,
		Filters:        hookFilters{orNone(e.Filters.Branches), orNone(e.Filters.Tags), e.Filters.Result},
		MaxInFlight:    e.MaxInFlight,
		RatePerMinute:  rate,
		Ed25519:        e.Private != "",
		Enabled:        e.Enabled,
		DisabledReason: text(e.DisabledReason),
		Health: health{State: h.State, LastSuccessAt: known(h.LastSuccessAt), LastFailureAt: known(h.LastFailureAt),
			FailingSince: known(h.FailingSince), HoldUntil: known(h.HoldUntil), Pending: h.Pending, Failed24h: h.Failed24h},
		CreatedAt: timestamp(e.CreatedAt),
		UpdatedAt: timestamp(e.UpdatedAt),
	}
}

func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// hookSettings are what may be set; absent ones stay as they are.
type hookSettings struct {
	Kind          *webhook.EndpointKind `json:"kind" doc:"Only webhook is available; it cannot be changed later."`
	Payload       *webhook.Form         `json:"payload" doc:"default or extended. Default: default."`
	URL           *string               `json:"url" doc:"At most 2048 characters."`
	Headers       nullable[string]      `json:"headers" doc:"A JSON object with string values, in a string of at most 4096 characters; or null."`
	HookEvents    *[]webhook.Kind       `json:"hookEvents" doc:"Default: all four. An empty list means none."`
	Label         nullable[string]      `json:"label" doc:"1 to 255 characters, or null."`
	Scope         *run.Scope            `json:"scope" doc:"Default: group."`
	Filters       *filterSettings       `json:"filters" doc:"Fields that you do not send stay as they are."`
	MaxInFlight   *int                  `json:"maxInFlight" doc:"1 to 256. Default: 16."`
	RatePerMinute nullable[int]         `json:"ratePerMinute" doc:"1 to 60000, or null for no limit."`
	Ed25519       *bool                 `json:"ed25519" doc:"Also sign with ed25519. The secret call returns the public key. Turning it on creates a new key."`
	Enabled       *bool                 `json:"enabled" doc:"Disabling holds pending deliveries; enabling sends them."`
}

type filterSettings struct {
	Branches *[]string       `json:"branches" doc:"At most 50."`
	Tags     *[]string       `json:"tags" doc:"At most 50."`
	Result   *webhook.Result `json:"result" doc:"any, passed, failed, flaky or recovered. Default: any."`
}

func (s hookSettings) settings() (endpoint.Settings, error) {
	out := endpoint.Settings{Kind: s.Kind, Payload: s.Payload, URL: s.URL, Events: s.HookEvents, Scope: s.Scope,
		MaxInFlight: s.MaxInFlight, Ed25519: s.Ed25519, Enabled: s.Enabled}
	if s.Headers.given {
		headers := map[string]string(nil)
		if s.Headers.value != nil {
			var err error
			if headers, err = parseHeaders(*s.Headers.value); err != nil {
				return out, err
			}
		}
		out.Headers = &headers
	}
	if s.Label.given {
		label := ""
		if s.Label.value != nil {
			label = *s.Label.value
			if label == "" {
				return out, run.Errorf(run.Invalid, "label must have 1 to %d characters, or be null.", endpoint.MaxLabel)
			}
		}
		out.Label = &label
	}
	if s.RatePerMinute.given {
		rate := 0
		if s.RatePerMinute.value != nil {
			if rate = *s.RatePerMinute.value; rate == 0 {
				rate = -1 // null is the way to say no limit
			}
		}
		out.RatePerMinute = &rate
	}
	if f := s.Filters; f != nil {
		out.Branches, out.Tags, out.Result = f.Branches, f.Tags, f.Result
	}
	return out, nil
}

// byAPI is who does it, for the history of an endpoint.
const byAPI = "via the API"

// projectParam is the project that a request names in its query.
func (r *request) projectParam() (string, error) {
	id := r.query.Get("projectId")
	if id == "" {
		return "", run.Errorf(run.Invalid, "projectId is missing: add it to the query, as ?projectId=ID.")
	}
	return id, nil
}

func (a *api) webhooks(r *request) ([]hook, bool, error) {
	projectID, err := r.projectParam()
	if err != nil {
		return nil, false, err
	}
	var out []hook
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), projectID); err != nil {
			return err
		}
		list, err := tx.Endpoints(r.Context(), projectID)
		if err != nil {
			return err
		}
		for _, e := range list {
			h, err := tx.Health(r.Context(), e)
			if err != nil {
				return err
			}
			out = append(out, r.showHook(e, h))
		}
		return nil
	})
	return out, false, err
}

// health reads how an endpoint does.
func (a *api) health(ctx context.Context, e webhook.Endpoint) (h webhook.Health, err error) {
	err = a.DB.Read(ctx, func(tx *store.Tx) error {
		h, err = tx.Health(ctx, e)
		return err
	})
	return h, err
}

func (a *api) createWebhook(r *request, b hookSettings) (hook, error) {
	projectID, err := r.projectParam()
	if err != nil {
		return hook{}, err
	}
	s, err := b.settings()
	if err != nil {
		return hook{}, err
	}
	e, err := a.Endpoints.Create(r.Context(), projectID, s, byAPI)
	if err != nil {
		return hook{}, err
	}
	h, err := a.health(r.Context(), e)
	return r.showHook(e, h), err
}

func (a *api) webhook(r *request) (hook, error) {
	var out hook
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		e, err := tx.Endpoint(r.Context(), r.id())
		if err != nil {
			return err
		}
		h, err := tx.Health(r.Context(), e)
		out = r.showHook(e, h)
		return err
	})
	return out, err
}

func (a *api) updateWebhook(r *request, b hookSettings) (hook, error) {
	s, err := b.settings()
	if err != nil {
		return hook{}, err
	}
	return a.changeWebhook(r, s)
}

func (a *api) enableWebhook(r *request) (hook, error) {
	enabled := true
	return a.changeWebhook(r, endpoint.Settings{Enabled: &enabled})
}

func (a *api) disableWebhook(r *request) (hook, error) {
	enabled := false
	return a.changeWebhook(r, endpoint.Settings{Enabled: &enabled})
}

func (a *api) changeWebhook(r *request, s endpoint.Settings) (hook, error) {
	e, resumed, err := a.Endpoints.Change(r.Context(), r.id(), s, byAPI)
	if err != nil {
		return hook{}, err
	}
	h, err := a.health(r.Context(), e)
	out := r.showHook(e, h)
	if s.Enabled != nil && *s.Enabled {
		out.Resumed = &resumed
	}
	return out, err
}

type deletedHook struct {
	HookID    string `json:"hookId"`
	ProjectID string `json:"projectId"`
}

func (a *api) deleteWebhook(r *request) (deletedHook, error) {
	e, err := a.Endpoints.Delete(r.Context(), r.id())
	return deletedHook{e.ID, e.ProjectID}, err
}

type hookSecret struct {
	Secret                  string     `json:"secret" doc:"The key of the HMAC in Webhook-Signature: whsec_ and base64."`
	PreviousSecretExpiresAt *timestamp `json:"previousSecretExpiresAt" doc:"Until when the old secret is also valid; null without a rotation."`
	PublicKey               *string    `json:"publicKey" doc:"The public key that verifies the ed25519 signature: whpk_ and base64; null if the webhook has none."`
}

func (a *api) webhookSecret(r *request) (hookSecret, error) {
	var out hookSecret
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		e, err := tx.Endpoint(r.Context(), r.id())
		if err != nil {
			return err
		}
		out, err = showSecret(e, tx.Now)
		return err
	})
	return out, err
}

func showSecret(e webhook.Endpoint, now time.Time) (hookSecret, error) {
	out := hookSecret{Secret: e.Secret.Reveal()}
	if e.Previous != "" && now.Before(e.PreviousUntil) {
		out.PreviousSecretExpiresAt = known(e.PreviousUntil)
	}
	if e.Private == "" {
		return out, nil
	}
	public, err := e.Private.Public()
	key := string(public)
	out.PublicKey = &key
	return out, err
}

type rotation struct {
	GraceSeconds *int `json:"graceSeconds" doc:"How long the old secret stays valid: 0 to 2592000. Default: 86400."`
}

func (a *api) rotateSecret(r *request, b rotation) (hookSecret, error) {
	grace := endpoint.DefaultGrace
	if b.GraceSeconds != nil {
		grace = time.Duration(min(max(*b.GraceSeconds, -1), int(endpoint.MaxGrace/time.Second)+1)) * time.Second
	}
	e, err := a.Endpoints.Rotate(r.Context(), r.id(), grace, byAPI)
	if err != nil {
		return hookSecret{}, err
	}
	return showSecret(e, a.DB.Now())
}

type historyEntry struct {
	At   timestamp           `json:"at"`
	Kind webhook.HistoryKind `json:"kind" doc:"created, enabled, disabled, failing, rotated or replayed."`
	Text string              `json:"text"`
}

func (a *api) webhookHistory(r *request) ([]historyEntry, bool, error) {
	var out []historyEntry
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Endpoint(r.Context(), r.id()); err != nil {
			return err
		}
		list, err := tx.History(r.Context(), r.id(), webhook.MaxHistory)
		for _, h := range list {
			out = append(out, historyEntry{timestamp(h.At), h.Kind, h.Text})
		}
		return err
	})
	return out, false, err
}
