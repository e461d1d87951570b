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

	"runbell/internal/webhook"
)

type webhookCmd struct {
	remote

	Create     webhookCreateCmd     `cmd:"" help:"Create a webhook; prints its signing secret."`
	List       webhookListCmd       `cmd:"" help:"List the webhooks of a project."`
	Show       webhookShowCmd       `cmd:"" help:"Show a webhook."`
	Update     webhookUpdateCmd     `cmd:"" help:"Change a webhook."`
	Delete     webhookDeleteCmd     `cmd:"" help:"Delete a webhook with its deliveries."`
	Secret     webhookSecretCmd     `cmd:"" help:"Print the signing secret or the public key of a webhook."`
	Rotate     webhookRotateCmd     `cmd:"" help:"Make a new signing secret; the one before signs too, for a while."`
	Test       webhookTestCmd       `cmd:"" help:"Send a webhook with sample data."`
	Enable     webhookEnableCmd     `cmd:"" help:"Enable a webhook; what was queued is sent."`
	Disable    webhookDisableCmd    `cmd:"" help:"Disable a webhook; what is queued stays."`
	Deliveries webhookDeliveriesCmd `cmd:"" help:"List what was and will be sent, newest first."`
	Replay     webhookReplayCmd     `cmd:"" help:"Send again what failed, or all of a time or a run."`
	History    webhookHistoryCmd    `cmd:"" help:"List what happened to a webhook, newest first."`
}

// hook is what the commands print of a webhook of the API.
type hook struct {
	HookID         string      `json:"hookId"`
	ProjectID      string      `json:"projectId"`
	URL            string      `json:"url"`
	Headers        *string     `json:"headers"`
	Events         []string    `json:"hookEvents"`
	Label          *string     `json:"label"`
	Scope          string      `json:"scope"`
	Filters        hookFilters `json:"filters"`
	MaxInFlight    int         `json:"maxInFlight"`
	RatePerMinute  *int        `json:"ratePerMinute"`
	Ed25519        bool        `json:"ed25519"`
	Enabled        bool        `json:"enabled"`
	DisabledReason *string     `json:"disabledReason"`
	Health         hookHealth  `json:"health"`
	CreatedAt      *time.Time  `json:"createdAt"`
	UpdatedAt      *time.Time  `json:"updatedAt"`
	Resumed        *int64      `json:"resumed"`
}

type hookFilters struct {
	Branches []string `json:"branches"`
	Tags     []string `json:"tags"`
	Result   string   `json:"result"`
}

// pairs are for fields; a filter that lets everything through is left out.
func (f hookFilters) pairs() []string {
	result := f.Result
	if result == "any" {
		result = ""
	}
	return []string{"Branches", strings.Join(f.Branches, ", "), "Tags", strings.Join(f.Tags, ", "), "Result", result}
}

type hookHealth struct {
	State         string     `json:"state"`
	LastSuccessAt *time.Time `json:"lastSuccessAt"`
	LastFailureAt *time.Time `json:"lastFailureAt"`
	FailingSince  *time.Time `json:"failingSince"`
	HoldUntil     *time.Time `json:"holdUntil"`
	Pending       int64      `json:"pending"`
	Failed24h     int64      `json:"failed24h"`
}

// state is the health in words, with the reason why it is off.
func (h hook) state() string {
	switch {
	case !h.Enabled && orEmpty(h.DisabledReason) != "":
		return "disabled: " + *h.DisabledReason
	case !h.Enabled:
		return "disabled by a person"
	case h.Health.FailingSince != nil:
		stop := webhook.StopAt(*h.Health.FailingSince)
		return fmt.Sprintf("failing since %s, disabled on %s if nothing succeeds until then", when(h.Health.FailingSince), when(&stop))
	default:
		return h.Health.State
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

func (h hook) limits() string {
	text := fmt.Sprintf("%d at the same time", h.MaxInFlight)
	if h.RatePerMinute != nil {
		text += fmt.Sprintf(", %d a minute", *h.RatePerMinute)
	}
	return text
}

func (h hook) signatures() string {
	if h.Ed25519 {
		return "v1 (HMAC-SHA256), v1a (ed25519)"
	}
	return "v1 (HMAC-SHA256)"
}

func (h hook) print(w io.Writer) error {
	pairs := append([]string{"Webhook", h.HookID, "Project", h.ProjectID, "URL", h.URL, "Label", orEmpty(h.Label), "Events", h.events(),
		"Scope", h.Scope}, h.Filters.pairs()...)
	return fields(w, append(pairs, "Headers", h.headers(), "Signatures", h.signatures(), "Limits", h.limits(), "State", h.state(),
		"Last success", when(h.Health.LastSuccessAt), "Last failure", when(h.Health.LastFailureAt), "Quiet until", when(h.Health.HoldUntil),
		"Pending", strconv.FormatInt(h.Health.Pending, 10), "Failed in 24 h", strconv.FormatInt(h.Health.Failed24h, 10),
		"Created", when(h.CreatedAt), "Updated", when(h.UpdatedAt))...)
}

// webhook reads a webhook.
func (s *session) webhook(ctx context.Context, id string) (hook, answer, error) {
	a, err := s.do(ctx, http.MethodGet, "/webhooks/"+url.PathEscape(id), nil, nil)
	if err != nil {
		return hook{}, a, err
	}
	var h hook
	return h, a, a.into(&h)
}

// deliveries counts them in words: "1 failed delivery".
func deliveries(n int64, kind string) string {
	switch n {
	case 0:
		return "no " + kind + " deliveries"
	case 1:
		return "1 " + kind + " delivery"
	default:
		return fmt.Sprintf("%d %s deliveries", n, kind)
	}
}

type webhookListCmd struct {
	Project string `required:"" help:"The projectId." placeholder:"ID"`
}

func (webhookListCmd) Help() string {
	return `HEALTH is unused, healthy, failing (nothing succeeded since a failure) or disabled; 'runbell webhook show' says more.

Examples:

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
			rows = append(rows, []string{h.HookID, h.URL, orEmpty(h.Label), h.Scope, h.Health.State,
				strconv.FormatInt(h.Health.Pending, 10), strconv.FormatInt(h.Health.Failed24h, 10), h.events()})
		}
		return table(w, "No webhooks yet: create one with 'runbell webhook create --project "+c.Project+" URL'.",
			[]string{"WEBHOOK", "URL", "LABEL", "SCOPE", "HEALTH", "PENDING", "FAILED 24H", "EVENTS"}, rows)
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
			_, err := fmt.Fprintf(w, "\nResumed: %s.\n", deliveries(*h.Resumed, "queued"))
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

type webhookDeliveriesCmd struct {
	webhookID
	Status []string `help:"Only pending, delivered, failed or held ones." enum:"pending,delivered,failed,held" placeholder:"STATUS"`
	Event  []string `help:"Only these events." enum:"RUN_START,RUN_FINISH,RUN_TIMEOUT,RUN_CANCELED" placeholder:"EVENT"`
	RunID  string   `name:"run" help:"Only of this run." placeholder:"ID"`
	Since  moment   `help:"Only what was queued since then: an age such as 2h or 3d, or a time." placeholder:"2h|TIME"`
	Until  moment   `help:"Only what was queued before then." placeholder:"2h|TIME"`
	Limit  int      `help:"How many at most; 0 is all." default:"20" placeholder:"N"`
}

func (webhookDeliveriesCmd) Help() string {
	return momentHelp + `

Examples:

    runbell webhook deliveries 7c9e6679-7425-40de-944b-e07fc1f90ae7 --status failed,pending
    runbell webhook deliveries 7c9e6679-7425-40de-944b-e07fc1f90ae7 --since 2h --limit 0`
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
	if !c.Since.IsZero() {
		query.Set("since", c.Since.Format(time.RFC3339Nano))
	}
	if !c.Until.IsZero() {
		query.Set("until", c.Until.Format(time.RFC3339Nano))
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
			rows = append(rows, []string{d.DeliveryID, d.Event, d.Status, strconv.Itoa(d.AttemptCount), when(d.CreatedAt), when(d.NextAttemptAt), d.run()})
		}
		return table(w, "No deliveries.", []string{"DELIVERY", "EVENT", "STATUS", "ATTEMPTS", "QUEUED", "NEXT ATTEMPT", "RUN"}, rows)
	})
}

type webhookHistoryCmd struct{ webhookID }

func (webhookHistoryCmd) Help() string {
	return `When it was created, enabled, disabled and why, warned of, rotated and replayed: the last 100 lines.

Examples:

    runbell webhook history 7c9e6679-7425-40de-944b-e07fc1f90ae7`
}

// Run lists what happened.
func (c *webhookHistoryCmd) Run(ctx context.Context, s *session) error {
	a, err := s.do(ctx, http.MethodGet, "/webhooks/"+url.PathEscape(c.ID)+"/history", nil, nil)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var list []struct {
			At   *time.Time `json:"at"`
			Kind string     `json:"kind"`
			Text string     `json:"text"`
		}
		if err := a.into(&list); err != nil {
			return err
		}
		var rows [][]string
		for _, h := range list {
			rows = append(rows, []string{when(h.At), h.Kind, h.Text})
		}
		return table(w, "Nothing has happened to it yet.", []string{"WHEN", "WHAT", "IN WORDS"}, rows)
	})
}
