package api

import (
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	maxURL   = 2048
	maxLabel = 255
)

type hook struct {
	HookID         string         `json:"hookId"`
	ProjectID      string         `json:"projectId"`
	URL            string         `json:"url"`
	Headers        *string        `json:"headers" doc:"A JSON object in a string; to a read-only key its values show as …"`
	HookEvents     []webhook.Kind `json:"hookEvents" doc:"What it hears; nothing if empty."`
	Label          *string        `json:"label"`
	Scope          run.Scope      `json:"scope" doc:"Whether it hears of each group or of the run as a whole."`
	Enabled        bool           `json:"enabled"`
	DisabledReason *string        `json:"disabledReason" doc:"Why the server disabled it; null if a person did."`
	CreatedAt      timestamp      `json:"createdAt"`
	UpdatedAt      timestamp      `json:"updatedAt"`
	Resumed        *int64         `json:"resumed,omitempty" doc:"How many held deliveries this request put back into the queue."`
}

// showHook shows the values of headers, which are credentials, only to who may
// change them.
func (r *request) showHook(e webhook.Endpoint) hook {
	events := e.Events
	if events == nil {
		events = []webhook.Kind{}
	}
	return hook{
		HookID:         e.ID,
		ProjectID:      e.ProjectID,
		URL:            e.URL,
		Headers:        formatHeaders(e.Headers, r.write),
		HookEvents:     events,
		Label:          text(e.Label),
		Scope:          e.Scope,
		Enabled:        e.Enabled,
		DisabledReason: text(e.DisabledReason),
		CreatedAt:      timestamp(e.CreatedAt),
		UpdatedAt:      timestamp(e.UpdatedAt),
	}
}

// hookSettings are what may be set; absent ones stay as they are.
type hookSettings struct {
	URL        *string          `json:"url" doc:"At most 2048 characters."`
	Headers    nullable[string] `json:"headers" doc:"A JSON object with string values, in a string of at most 4096 characters; or null."`
	HookEvents *[]webhook.Kind  `json:"hookEvents" doc:"All four at first; an empty list means none."`
	Label      nullable[string] `json:"label" doc:"1 to 255 characters, or null."`
	Scope      *run.Scope       `json:"scope" doc:"group at first."`
	Enabled    *bool            `json:"enabled" doc:"Disabling holds the deliveries that wait; enabling resumes them."`
}

var scopes = []run.Scope{run.GroupScope, run.RunScope}

// apply changes e, except for whether it is enabled, or says which field is
// wrong.
func (a *api) apply(s hookSettings, e *webhook.Endpoint) error {
	if s.URL != nil {
		if n := utf8.RuneCountInString(*s.URL); n == 0 || n > maxURL {
			return run.Errorf(run.Invalid, "url must have 1 to %d characters.", maxURL)
		}
		if err := a.Guard.CheckURL(*s.URL); err != nil {
			return run.Errorf(run.Invalid, "%s.", err)
		}
		if !storable(*s.URL) {
			return run.Errorf(run.Invalid, "url must not contain control characters: percent-encode them.")
		}
		e.URL = *s.URL
	}
	if s.Headers.given {
		e.Headers = nil
		if s.Headers.value != nil {
			headers, err := parseHeaders(*s.Headers.value)
			if err != nil {
				return err
			}
			e.Headers = headers
		}
	}
	if s.HookEvents != nil {
		e.Events = []webhook.Kind{}
		for _, k := range *s.HookEvents {
			if !slices.Contains(webhook.Kinds(), k) {
				return run.Errorf(run.Invalid, "hookEvents may contain %s, not %q.", oneOf(webhook.Kinds()), run.Clip(string(k), 40))
			}
			if !slices.Contains(e.Events, k) {
				e.Events = append(e.Events, k)
			}
		}
	}
	if s.Label.given {
		e.Label = ""
		if s.Label.value != nil {
			if err := checkText("label", *s.Label.value, 1, maxLabel); err != nil {
				return err
			}
			e.Label = *s.Label.value
		}
	}
	if s.Scope != nil {
		if !slices.Contains(scopes, *s.Scope) {
			return run.Errorf(run.Invalid, "scope must be %s, not %q.", oneOf(scopes), run.Clip(string(*s.Scope), 40))
		}
		e.Scope = *s.Scope
	}
	return nil
}

// projectParam is the project that a request names in its query.
func (r *request) projectParam() (string, error) {
	id := r.query.Get("projectId")
	if id == "" {
		return "", run.Errorf(run.Invalid, "Name the project in the query: ?projectId=…")
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
		for _, e := range list {
			out = append(out, r.showHook(e))
		}
		return err
	})
	return out, false, err
}

func (a *api) createWebhook(r *request, b hookSettings) (hook, error) {
	projectID, err := r.projectParam()
	if err != nil {
		return hook{}, err
	}
	if b.URL == nil {
		return hook{}, run.Errorf(run.Invalid, "url is missing: where should the webhook be sent?")
	}
	e := webhook.Endpoint{ID: uuid.NewString(), ProjectID: projectID, Events: webhook.Kinds(), Scope: run.GroupScope,
		Enabled: b.Enabled == nil || *b.Enabled, Secret: webhook.NewSecret()}
	if err := a.apply(b, &e); err != nil {
		return hook{}, err
	}
	err = a.DB.Write(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), projectID); err != nil {
			return err
		}
		e.CreatedAt, e.UpdatedAt = tx.Now, tx.Now
		return tx.InsertEndpoint(r.Context(), e)
	})
	return r.showHook(e), err
}

func (a *api) webhook(r *request) (hook, error) {
	var out hook
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		e, err := tx.Endpoint(r.Context(), r.id())
		out = r.showHook(e)
		return err
	})
	return out, err
}

func (a *api) updateWebhook(r *request, b hookSettings) (hook, error) {
	e, resumed, err := a.changeWebhook(r, b)
	out := r.showHook(e)
	if resumed > 0 {
		out.Resumed = &resumed
	}
	return out, err
}

func (a *api) enableWebhook(r *request) (hook, error) {
	enabled := true
	e, resumed, err := a.changeWebhook(r, hookSettings{Enabled: &enabled})
	out := r.showHook(e)
	out.Resumed = &resumed
	return out, err
}

func (a *api) disableWebhook(r *request) (hook, error) {
	enabled := false
	e, _, err := a.changeWebhook(r, hookSettings{Enabled: &enabled})
	return r.showHook(e), err
}

// changeWebhook changes what is given. The lock keeps an event that commits at
// the same time from queueing a delivery at an endpoint that is being disabled.
func (a *api) changeWebhook(r *request, b hookSettings) (webhook.Endpoint, int64, error) {
	var e webhook.Endpoint
	var resumed int64
	err := a.DB.Write(r.Context(), func(tx *store.Tx) (err error) {
		resumed = 0 // this may be a second try
		if e, err = tx.LockEndpoint(r.Context(), r.id()); err != nil {
			return err
		}
		if err := a.apply(b, &e); err != nil {
			return err
		}
		switch {
		case b.Enabled == nil || *b.Enabled == e.Enabled:
		case *b.Enabled:
			e.Enabled, e.DisabledReason = true, ""
			if resumed, err = tx.ResumeDeliveries(r.Context(), e.ID); err != nil {
				return err
			}
		default:
			e.Enabled = false
			if _, err := tx.HoldDeliveries(r.Context(), e.ID); err != nil {
				return err
			}
		}
		e.UpdatedAt = tx.Now
		return tx.UpdateEndpoint(r.Context(), e)
	})
	if err == nil && resumed > 0 {
		a.Queued()
	}
	return e, resumed, err
}

type deletedHook struct {
	HookID    string `json:"hookId"`
	ProjectID string `json:"projectId"`
}

func (a *api) deleteWebhook(r *request) (deletedHook, error) {
	var out deletedHook
	err := a.DB.Write(r.Context(), func(tx *store.Tx) error {
		e, err := tx.LockEndpoint(r.Context(), r.id())
		if err != nil {
			return err
		}
		out = deletedHook{e.ID, e.ProjectID}
		return tx.DeleteEndpoint(r.Context(), e.ID)
	})
	return out, err
}

type hookSecret struct {
	Secret                  string     `json:"secret" doc:"whsec_ and base64: the key of the HMAC in Webhook-Signature."`
	PreviousSecretExpiresAt *timestamp `json:"previousSecretExpiresAt"`
	PublicKey               *string    `json:"publicKey"`
}

func (a *api) webhookSecret(r *request) (hookSecret, error) {
	var out hookSecret
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		e, err := tx.Endpoint(r.Context(), r.id())
		out.Secret = e.Secret.Reveal()
		return err
	})
	return out, err
}
