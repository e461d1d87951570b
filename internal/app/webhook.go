package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

type webhookCmd struct {
	remote

	Create     webhookCreateCmd     `cmd:"" help:"Create a webhook; prints its signing secret."`
	List       webhookListCmd       `cmd:"" help:"List the webhooks of a project."`
	Show       webhookShowCmd       `cmd:"" help:"Show a webhook."`
	Update     webhookUpdateCmd     `cmd:"" help:"Change a webhook."`
	Delete     webhookDeleteCmd     `cmd:"" help:"Delete a webhook with its deliveries."`
	Secret     webhookSecretCmd     `cmd:"" help:"Print the signing secret of a webhook."`
	Enable     webhookEnableCmd     `cmd:"" help:"Enable a webhook; what was queued is sent."`
	Disable    webhookDisableCmd    `cmd:"" help:"Disable a webhook; what is queued stays."`
	Deliveries webhookDeliveriesCmd `cmd:"" help:"List what was and will be sent, newest first."`
}

// webhookSettings are the flags of create and update; nil or none leaves a
// setting as it is.
type webhookSettings struct {
	Events []string `help:"What to hear: RUN_START, RUN_FINISH, RUN_TIMEOUT, RUN_CANCELED; all four unless given." enum:"RUN_START,RUN_FINISH,RUN_TIMEOUT,RUN_CANCELED" placeholder:"EVENT"`
	Scope  string   `help:"Hear about each group of a run (group, as at first) or the run as a whole (run)." enum:"group,run," default:"" placeholder:"group"`
	Label  *string  `help:"To tell webhooks apart." placeholder:"TEXT"`
	Header []string `help:"A header to send along, for example a credential; can be repeated." sep:"none" placeholder:"'NAME: VALUE'"`
}

func (w webhookSettings) body() (map[string]any, error) {
	body := map[string]any{}
	if len(w.Events) > 0 {
		body["hookEvents"] = w.Events
	}
	if w.Scope != "" {
		body["scope"] = w.Scope
	}
	switch {
	case w.Label == nil:
	case *w.Label == "":
		body["label"] = nil
	default:
		body["label"] = *w.Label
	}
	if len(w.Header) > 0 {
		headers := map[string]string{}
		for _, h := range w.Header {
			name, value, ok := strings.Cut(h, ":")
			if !ok || strings.TrimSpace(name) == "" {
				return nil, usagef("--header must have the form 'Name: value'") // not quoted: it may be a credential
			}
			headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
		object, err := json.Marshal(headers)
		if err != nil {
			return nil, err
		}
		body["headers"] = string(object) // an object in a string, as Currents has it
	}
	return body, nil
}

// hook is what the commands print of a webhook of the API.
type hook struct {
	HookID         string     `json:"hookId"`
	ProjectID      string     `json:"projectId"`
	URL            string     `json:"url"`
	Headers        *string    `json:"headers"`
	Events         []string   `json:"hookEvents"`
	Label          *string    `json:"label"`
	Scope          string     `json:"scope"`
	Enabled        bool       `json:"enabled"`
	DisabledReason *string    `json:"disabledReason"`
	CreatedAt      *time.Time `json:"createdAt"`
	UpdatedAt      *time.Time `json:"updatedAt"`
	Resumed        *int64     `json:"resumed"`
}

func (h hook) state() string {
	switch {
	case h.Enabled:
		return "enabled"
	case orEmpty(h.DisabledReason) != "":
		return "disabled: " + *h.DisabledReason
	default:
		return "disabled"
	}
}

func (h hook) events() string {
	if len(h.Events) == 0 {
		return "none"
	}
	return strings.Join(h.Events, ", ")
}

// headers are names only: their values are credentials.
func (h hook) headers() string {
	var headers map[string]string
	if json.Unmarshal([]byte(orEmpty(h.Headers)), &headers) != nil {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Keys(headers)), ", ")
}

func (h hook) print(w io.Writer) error {
	return fields(w, "Webhook", h.HookID, "Project", h.ProjectID, "URL", h.URL, "Label", orEmpty(h.Label), "Events", h.events(),
		"Scope", h.Scope, "Headers", h.headers(), "State", h.state(), "Created", when(h.CreatedAt), "Updated", when(h.UpdatedAt))
}

type webhookCreateCmd struct {
	Project string `required:"" help:"The projectId." placeholder:"ID"`
	URL     string `arg:"" help:"Where to send webhooks."`
	webhookSettings
}

func (webhookCreateCmd) Help() string {
	return `Examples:

    runbell webhook create --project my-shop https://example.com/hooks/cypress
    runbell webhook create --project my-shop https://example.com/hooks --events RUN_FINISH,RUN_TIMEOUT --scope run --header 'Authorization: Bearer abc'`
}

// Run creates a webhook and says how to check its signatures.
func (c *webhookCreateCmd) Run(ctx context.Context, s *session) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	body["url"] = c.URL
	a, err := s.do(ctx, http.MethodPost, "/webhooks", url.Values{"projectId": {c.Project}}, body)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var h hook
		if err := a.into(&h); err != nil {
			return err
		}
		secret, _, err := s.secret(ctx, h.HookID)
		if err != nil {
			return fmt.Errorf("webhook %s was created, but its secret cannot be read: %w", h.HookID, err)
		}
		if err := fields(w, "Webhook", h.HookID, "URL", h.URL, "Events", h.events(), "Scope", h.Scope, "Secret", secret); err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, `
Every request is signed as Standard Webhooks says (standardwebhooks.com has libraries): Webhook-Signature is "v1," and the base64 HMAC-SHA256, with the secret as key, of

    <Webhook-Id>.<Webhook-Timestamp>.<body>

Webhook-Id stays the same when a request is repeated: remember it to do nothing twice.
To see webhooks and check their signatures, on the machine that the URL points to:

    runbell listen --secret %s
`, secret)
		return err
	})
}

// secret reads the signing secret of a webhook.
func (s *session) secret(ctx context.Context, id string) (string, json.RawMessage, error) {
	a, err := s.do(ctx, http.MethodGet, "/webhooks/"+url.PathEscape(id)+"/secret", nil, nil)
	if err != nil {
		return "", nil, err
	}
	var data struct {
		Secret string `json:"secret"`
	}
	return data.Secret, a.Data, a.into(&data)
}

type webhookListCmd struct {
	Project string `required:"" help:"The projectId." placeholder:"ID"`
}

func (webhookListCmd) Help() string {
	return `Examples:

    runbell webhook list --project my-shop`
}

// Run lists webhooks.
func (c *webhookListCmd) Run(ctx context.Context, s *session) error {
	a, err := s.do(ctx, http.MethodGet, "/webhooks", url.Values{"projectId": {c.Project}}, nil)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var list []hook
		if err := a.into(&list); err != nil {
			return err
		}
		var rows [][]string
		for _, h := range list {
			rows = append(rows, []string{h.HookID, h.URL, orEmpty(h.Label), h.Scope, h.state(), h.events()})
		}
		return table(w, "No webhooks yet: create one with 'runbell webhook create --project "+c.Project+" URL'.",
			[]string{"WEBHOOK", "URL", "LABEL", "SCOPE", "STATE", "EVENTS"}, rows)
	})
}

// webhookID is the argument of the commands about one webhook.
type webhookID struct {
	ID string `arg:"" help:"The hookId, from 'runbell webhook list'."`
}

// do sends a request about the webhook and shows the webhook it answers.
func (c webhookID) do(ctx context.Context, s *session, method, verb string, body any) error {
	a, err := s.do(ctx, method, "/webhooks/"+url.PathEscape(c.ID)+verb, nil, body)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var h hook
		if err := a.into(&h); err != nil {
			return err
		}
		if err := h.print(w); err != nil {
			return err
		}
		if h.Resumed != nil {
			_, err := fmt.Fprintf(w, "\n%d queued deliveries resume.\n", *h.Resumed)
			return err
		}
		return nil
	})
}

type webhookShowCmd struct{ webhookID }

func (webhookShowCmd) Help() string {
	return `Examples:

    runbell webhook show 7c9e6679-7425-40de-944b-e07fc1f90ae7`
}

// Run shows a webhook.
func (c *webhookShowCmd) Run(ctx context.Context, s *session) error {
	return c.do(ctx, s, http.MethodGet, "", nil)
}

type webhookUpdateCmd struct {
	webhookID
	URL       *string `name:"url" help:"Where to send webhooks." placeholder:"URL"`
	NoHeaders bool    `help:"Send no headers of its own any more."`
	webhookSettings
}

func (webhookUpdateCmd) Help() string {
	return `The headers that are given replace all that were there.

Examples:

    runbell webhook update 7c9e6679-7425-40de-944b-e07fc1f90ae7 --events RUN_FINISH
    runbell webhook update 7c9e6679-7425-40de-944b-e07fc1f90ae7 --url https://example.com/new --label ""`
}

// Run changes what was given.
func (c *webhookUpdateCmd) Run(ctx context.Context, s *session) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	if c.URL != nil {
		body["url"] = *c.URL
	}
	if c.NoHeaders {
		if len(c.Header) > 0 {
			return usagef("--header and --no-headers exclude each other")
		}
		body["headers"] = nil
	}
	if len(body) == 0 {
		return usagef("there is nothing to change: give at least one setting")
	}
	return c.do(ctx, s, http.MethodPut, "", body)
}

type webhookEnableCmd struct{ webhookID }

func (webhookEnableCmd) Help() string {
	return `Examples:

    runbell webhook enable 7c9e6679-7425-40de-944b-e07fc1f90ae7`
}

// Run enables a webhook.
func (c *webhookEnableCmd) Run(ctx context.Context, s *session) error {
	return c.do(ctx, s, http.MethodPost, "/enable", nil)
}

type webhookDisableCmd struct{ webhookID }

func (webhookDisableCmd) Help() string {
	return `Events that happen while a webhook is disabled are not sent to it later.

Examples:

    runbell webhook disable 7c9e6679-7425-40de-944b-e07fc1f90ae7`
}

// Run disables a webhook.
func (c *webhookDisableCmd) Run(ctx context.Context, s *session) error {
	return c.do(ctx, s, http.MethodPost, "/disable", nil)
}

type webhookDeleteCmd struct{ webhookID }

func (webhookDeleteCmd) Help() string {
	return `Examples:

    runbell webhook delete 7c9e6679-7425-40de-944b-e07fc1f90ae7`
}

// Run deletes a webhook.
func (c *webhookDeleteCmd) Run(ctx context.Context, s *session) error {
	a, err := s.do(ctx, http.MethodDelete, "/webhooks/"+url.PathEscape(c.ID), nil, nil)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Deleted webhook %s.\n", c.ID)
		return err
	})
}

type webhookSecretCmd struct{ webhookID }

func (webhookSecretCmd) Help() string {
	return `Needs a read-write API key.

Examples:

    runbell listen --secret "$(runbell webhook secret 7c9e6679-7425-40de-944b-e07fc1f90ae7)"`
}

// Run prints the secret and nothing else, so that a script can use it.
func (c *webhookSecretCmd) Run(ctx context.Context, s *session) error {
	secret, data, err := s.secret(ctx, c.ID)
	if err != nil {
		return err
	}
	return s.show(data, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, secret)
		return err
	})
}

type webhookDeliveriesCmd struct {
	webhookID
	Status []string `help:"Only pending, delivered, failed or held ones." enum:"pending,delivered,failed,held" placeholder:"STATUS"`
	Event  []string `help:"Only these events." enum:"RUN_START,RUN_FINISH,RUN_TIMEOUT,RUN_CANCELED" placeholder:"EVENT"`
	RunID  string   `name:"run" help:"Only of this run." placeholder:"ID"`
	Limit  int      `help:"How many at most; 0 is all." default:"20" placeholder:"N"`
}

func (webhookDeliveriesCmd) Help() string {
	return `Examples:

    runbell webhook deliveries 7c9e6679-7425-40de-944b-e07fc1f90ae7 --status failed,pending`
}

// Run lists deliveries.
func (c *webhookDeliveriesCmd) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	query := url.Values{"status": c.Status, "event": c.Event}
	if c.RunID != "" {
		query.Set("runId", c.RunID)
	}
	data, err := s.list(ctx, "/webhooks/"+url.PathEscape(c.ID)+"/deliveries", query, c.Limit)
	if err != nil {
		return err
	}
	return s.show(data, func(w io.Writer) error {
		var list []delivery
		if err := (answer{Data: data}).into(&list); err != nil {
			return err
		}
		var rows [][]string
		for _, d := range list {
			rows = append(rows, []string{d.DeliveryID, d.Event, d.Status, strconv.Itoa(d.AttemptCount), when(d.CreatedAt), when(d.NextAttemptAt), d.RunID})
		}
		return table(w, "No deliveries.", []string{"DELIVERY", "EVENT", "STATUS", "ATTEMPTS", "QUEUED", "NEXT ATTEMPT", "RUN"}, rows)
	})
}
