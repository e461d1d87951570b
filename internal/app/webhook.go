package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"runbell/internal/client"
	"runbell/internal/webhook"
)

type webhookCmd struct {
	remote

	Create     webhookCreateCmd     `cmd:"" help:"Create a webhook, and print its signing secret."`
	List       webhookListCmd       `cmd:"" help:"List the webhooks of a project."`
	Show       webhookShowCmd       `cmd:"" help:"Show a webhook."`
	Update     webhookUpdateCmd     `cmd:"" help:"Change a webhook."`
	Delete     webhookDeleteCmd     `cmd:"" help:"Delete a webhook with its deliveries."`
	Secret     webhookSecretCmd     `cmd:"" help:"Print the signing secret or the public key of a webhook."`
	Rotate     webhookRotateCmd     `cmd:"" help:"Rotate the signing secret. The old one stays valid for a while."`
	Test       webhookTestCmd       `cmd:"" help:"Send a webhook with sample data."`
	Enable     webhookEnableCmd     `cmd:"" help:"Enable a webhook; held deliveries are sent."`
	Disable    webhookDisableCmd    `cmd:"" help:"Disable a webhook; pending deliveries are held."`
	Deliveries webhookDeliveriesCmd `cmd:"" help:"List deliveries, newest first."`
	Redeliver  webhookRedeliverCmd  `cmd:"" aliases:"replay" help:"Redeliver failed deliveries, or all deliveries of a period or run."`
	History    webhookHistoryCmd    `cmd:"" help:"List the changes of a webhook, newest first."`
}

// filterPairs are for fields; a filter that lets everything through is left out.
func filterPairs(f client.Filters) []string {
	result := f.Result
	if result == "any" {
		result = ""
	}
	return []string{"Branches", strings.Join(f.Branches, ", "), "Tags", strings.Join(f.Tags, ", "), "Result", result}
}

// hookState is the health in words, with the reason why it is disabled.
func hookState(h client.Webhook) string {
	switch {
	case !h.Enabled && orEmpty(h.DisabledReason) != "":
		return "disabled: " + *h.DisabledReason
	case !h.Enabled:
		return "disabled by a person"
	case h.Health.FailingSince != nil:
		stop := webhook.StopAt(*h.Health.FailingSince)
		return fmt.Sprintf("failing since %s; disabled on %s if this continues", when(h.Health.FailingSince), when(&stop))
	default:
		return h.Health.State
	}
}

func hookEvents(h client.Webhook) string {
	if len(h.HookEvents) == 0 {
		return "none"
	}
	return strings.Join(h.HookEvents, ", ")
}

// headerNames leaves the values out: they are credentials.
func headerNames(h client.Webhook) string {
	var headers map[string]string
	if json.Unmarshal([]byte(orEmpty(h.Headers)), &headers) != nil {
		return ""
	}
	return strings.Join(slices.Sorted(maps.Keys(headers)), ", ")
}

func hookLimits(h client.Webhook) string {
	text := fmt.Sprintf("%d at the same time", h.MaxInFlight)
	if h.RatePerMinute != nil {
		text += fmt.Sprintf(", %d a minute", *h.RatePerMinute)
	}
	return text
}

func hookSignatures(h client.Webhook) string {
	if h.Ed25519 {
		return "v1 (HMAC-SHA256), v1a (ed25519)"
	}
	return "v1 (HMAC-SHA256)"
}

func printHook(w io.Writer, h client.Webhook) error {
	pairs := append([]string{"Webhook", h.HookID, "Project", h.ProjectID, "URL", h.URL, "Label", orEmpty(h.Label),
		"Events", hookEvents(h), "Scope", h.Scope, "Payload", h.Payload}, filterPairs(h.Filters)...)
	return fields(w, append(pairs, "Headers", headerNames(h), "Signatures", hookSignatures(h), "Limits", hookLimits(h),
		"State", hookState(h), "Last success", when(h.Health.LastSuccessAt), "Last failure", when(h.Health.LastFailureAt),
		"Rate limited until", when(h.Health.HoldUntil), "Pending", strconv.FormatInt(h.Health.Pending, 10), "Failed in 24 h",
		strconv.FormatInt(h.Health.Failed24h, 10), "Created", when(h.CreatedAt), "Updated", when(h.UpdatedAt))...)
}

// printChanged prints a webhook after a change.
func printChanged(w io.Writer, h client.Webhook) error {
	if err := printHook(w, h); err != nil {
		return err
	}
	if h.Resumed != nil {
		_, err := fmt.Fprintf(w, "\nResumed: %s.\n", deliveries(*h.Resumed, "held"))
		return err
	}
	return nil
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
	Project string `required:"" help:"The projectId." var:"RUNBELL_PROJECT" placeholder:"ID"`
}

func (webhookListCmd) Help() string {
	return `HEALTH is unused, healthy, failing (no success since a failure) or disabled; 'runbell webhook show' has the
details.

Examples:

    runbell webhook list --project my-shop`
}

// Run lists webhooks.
func (c *webhookListCmd) Run(ctx context.Context, s *session) error {
	hooks, err := s.Webhooks(ctx, c.Project)
	if err != nil {
		return err
	}
	return show(s, hooks, func(w io.Writer, list []client.Webhook) error {
		var rows [][]string
		for _, h := range list {
			rows = append(rows, []string{orEmpty(h.Label), h.Health.State, h.URL, strconv.FormatInt(h.Health.Pending, 10),
				strconv.FormatInt(h.Health.Failed24h, 10), h.Scope, h.HookID, hookEvents(h)})
		}
		return table(w, "No webhooks yet: create one with 'runbell webhook create --project "+c.Project+" URL'.",
			[]string{"LABEL", "HEALTH", "URL", "PENDING", "FAILED 24H", "SCOPE", "WEBHOOK", "EVENTS"}, rows)
	})
}

// whichWebhook is the argument of the commands about one webhook.
type whichWebhook struct {
	Webhook string `arg:"" help:"Label of the webhook, its hookId, or a prefix of that, from 'runbell webhook list'."`
}

// about finds the webhook and makes one call about it.
func about[T any](ctx context.Context, s *session, c whichWebhook,
	do func(context.Context, string) (client.Result[T], error)) (client.Result[T], error) {
	id, err := s.findWebhook(ctx, c.Webhook)
	if err != nil {
		return client.Result[T]{}, err
	}
	return do(ctx, id)
}

type webhookShowCmd struct{ whichWebhook }

func (webhookShowCmd) Help() string {
	return `Examples:

    runbell webhook show chat
    runbell webhook show chat
    runbell webhook show 7c9e6679`
}

// Run shows a webhook.
func (c *webhookShowCmd) Run(ctx context.Context, s *session) error {
	h, err := about(ctx, s, c.whichWebhook, s.Webhook)
	if err != nil {
		return err
	}
	return show(s, h, printHook)
}

type webhookDeleteCmd struct{ whichWebhook }

func (webhookDeleteCmd) Help() string {
	return `Examples:

    runbell webhook delete chat`
}

// Run deletes a webhook.
func (c *webhookDeleteCmd) Run(ctx context.Context, s *session) error {
	deleted, err := about(ctx, s, c.whichWebhook, s.DeleteWebhook)
	if err != nil {
		return err
	}
	return show(s, deleted, func(w io.Writer, _ client.Deleted) error {
		_, err := fmt.Fprintf(w, "Deleted webhook %s.\n", c.Webhook)
		return err
	})
}

type webhookDeliveriesCmd struct {
	whichWebhook
	Status []string `help:"Only deliveries that are pending, delivered, failed or held." enum:"pending,delivered,failed,held,PENDING,DELIVERED,FAILED,HELD" placeholder:"STATUS"`
	Event  []string `help:"Only these events." enum:"RUN_START,RUN_FINISH,RUN_TIMEOUT,RUN_CANCELED,TEST_STATUS" placeholder:"EVENT"`
	RunID  string   `name:"run" help:"Only deliveries of this run: its id, a prefix of it, or the build id." placeholder:"ID"`
	Since  moment   `help:"Only deliveries queued since this time, or this long ago (2h, 3d)." placeholder:"2h|TIME"`
	Until  moment   `help:"Only deliveries queued before this time." placeholder:"2h|TIME"`
	Limit  int      `help:"The most to list; 0 is all." default:"20" placeholder:"N"`
}

func (webhookDeliveriesCmd) Help() string {
	return momentHelp + `

Examples:

    runbell webhook deliveries chat --status failed,pending
    runbell webhook deliveries chat --since 2h --limit 0`
}

// Run lists deliveries.
func (c *webhookDeliveriesCmd) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	f := client.DeliveryFilter{Statuses: lower(c.Status), Events: c.Event, Since: c.Since.Time, Until: c.Until.Time,
		Limit: c.Limit}
	if c.RunID != "" {
		id, err := s.findRun(ctx, c.RunID)
		if err != nil {
			return err
		}
		f.RunID = id
	}
	found, err := about(ctx, s, c.whichWebhook,
		func(ctx context.Context, id string) (client.Result[[]client.Delivery], error) {
			return s.Deliveries(ctx, id, f)
		})
	if err != nil {
		return err
	}
	return show(s, found, func(w io.Writer, list []client.Delivery) error {
		var rows [][]string
		for _, d := range list {
			rows = append(rows, []string{d.DeliveryID, d.Event, d.Status, strconv.Itoa(d.AttemptCount), when(d.CreatedAt),
				when(d.NextAttemptAt), runOf(d), orEmpty(d.GroupID)})
		}
		return table(w, "No deliveries.",
			[]string{"DELIVERY", "EVENT", "STATUS", "ATTEMPTS", "QUEUED", "NEXT ATTEMPT", "RUN", "GROUP"}, rows)
	})
}

type webhookHistoryCmd struct{ whichWebhook }

func (webhookHistoryCmd) Help() string {
	return `Lists the last 100 changes: created, enabled, disabled and why, rotated, redelivered.

Examples:

    runbell webhook history chat`
}

// Run lists what happened.
func (c *webhookHistoryCmd) Run(ctx context.Context, s *session) error {
	history, err := about(ctx, s, c.whichWebhook, s.WebhookHistory)
	if err != nil {
		return err
	}
	return show(s, history, func(w io.Writer, list []client.HistoryEntry) error {
		var rows [][]string
		for _, h := range list {
			rows = append(rows, []string{when(h.At), h.Kind, h.Text})
		}
		return table(w, "No changes yet.", []string{"WHEN", "WHAT", "DETAILS"}, rows)
	})
}

// lower is for values that are taken in any case.
func lower(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}
