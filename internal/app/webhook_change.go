package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// webhookSettings are the flags of create and update; nil or none leaves a
// setting as it is.
type webhookSettings struct {
	Events      []string `help:"What to hear: RUN_START, RUN_FINISH, RUN_TIMEOUT, RUN_CANCELED; all four unless given." enum:"RUN_START,RUN_FINISH,RUN_TIMEOUT,RUN_CANCELED" placeholder:"EVENT"`
	Scope       string   `help:"Hear about each group of a run (group, as at first) or the run as a whole (run)." enum:"group,run," default:"" placeholder:"group"`
	Branch      []string `help:"Only runs of these branches: main, release/*, '!dependabot/*' to leave some out; can be repeated." sep:"none" placeholder:"GLOB"`
	Tag         []string `help:"Only runs with one of these tags; can be repeated." sep:"none" placeholder:"TAG"`
	Result      string   `help:"Only what came to this: passed, failed, flaky, or recovered (passed after the last one of the branch had failed). A start has no result yet." enum:"any,passed,failed,flaky,recovered," default:"" placeholder:"any"`
	Label       *string  `help:"To tell webhooks apart." placeholder:"TEXT"`
	Header      []string `help:"A header to send along, for example a credential; can be repeated." sep:"none" placeholder:"'NAME: VALUE'"`
	MaxInFlight *int     `help:"How many requests it gets at the same time, 1 to 256; 16 at first." placeholder:"N"`
	Rate        *int     `help:"How many attempts begin in a minute, 1 to 60000; 0 is no limit, as at first." placeholder:"N"`
	Ed25519     *bool    `name:"ed25519" help:"Sign with ed25519 as well: receivers need the public key only, from 'runbell webhook secret --public-key'." negatable:""`
}

func (w webhookSettings) body() (map[string]any, error) {
	body := map[string]any{}
	if len(w.Events) > 0 {
		body["hookEvents"] = w.Events
	}
	if w.Scope != "" {
		body["scope"] = w.Scope
	}
	if filters := w.filters(); len(filters) > 0 {
		body["filters"] = filters
	}
	switch {
	case w.Label == nil:
	case *w.Label == "":
		body["label"] = nil
	default:
		body["label"] = *w.Label
	}
	if w.MaxInFlight != nil {
		body["maxInFlight"] = *w.MaxInFlight
	}
	switch {
	case w.Rate == nil:
	case *w.Rate == 0:
		body["ratePerMinute"] = nil
	default:
		body["ratePerMinute"] = *w.Rate
	}
	if w.Ed25519 != nil {
		body["ed25519"] = *w.Ed25519
	}
	if len(w.Header) > 0 {
		headers, err := headersOf(w.Header)
		if err != nil {
			return nil, err
		}
		body["headers"] = headers
	}
	return body, nil
}

// filters are those that were given.
func (w webhookSettings) filters() map[string]any {
	filters := map[string]any{}
	if len(w.Branch) > 0 {
		filters["branches"] = orNone(w.Branch)
	}
	if len(w.Tag) > 0 {
		filters["tags"] = orNone(w.Tag)
	}
	if w.Result != "" {
		filters["result"] = w.Result
	}
	return filters
}

// orNone is the values of a flag, of which a single empty one means none.
func orNone(given []string) []string {
	if len(given) == 1 && given[0] == "" {
		return []string{}
	}
	return given
}

// headersOf is an object in a string, as Currents has it.
func headersOf(flags []string) (string, error) {
	headers := map[string]string{}
	for _, h := range flags {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return "", usagef("--header must have the form 'Name: value'") // not quoted: it may be a credential
		}
		headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	object, err := json.Marshal(headers)
	return string(object), err
}

type webhookCreateCmd struct {
	Project string `required:"" help:"The projectId." placeholder:"ID"`
	URL     string `arg:"" help:"Where to send webhooks."`
	webhookSettings
}

func (webhookCreateCmd) Help() string {
	return `Examples:

    runbell webhook create --project my-shop https://example.com/hooks/cypress
    runbell webhook create --project my-shop https://example.com/hooks --events RUN_FINISH,RUN_TIMEOUT --scope run --header 'Authorization: Bearer abc'
    runbell webhook create --project my-shop https://example.com/chat --branch main --branch 'release/*' --result failed
    runbell webhook create --project my-shop https://example.com/slow --max-in-flight 1 --rate 30`
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
		pairs := append([]string{"Webhook", h.HookID, "URL", h.URL, "Events", h.events(), "Scope", h.Scope}, h.Filters.pairs()...)
		if err := fields(w, append(pairs, "Secret", secret.Secret, "Public key", orEmpty(secret.PublicKey))...); err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, `
Every request is signed as Standard Webhooks says (standardwebhooks.com has libraries): Webhook-Signature is "v1," and the base64 HMAC-SHA256, with the secret as key, of

    <Webhook-Id>.<Webhook-Timestamp>.<body>

Webhook-Id stays the same when a request is repeated: remember it to do nothing twice.
To see webhooks and check their signatures, on the machine that the URL points to:

    runbell listen --secret %s

And then, to send it one with sample data:

    runbell webhook test %s --wait
`, secret.Secret, h.HookID)
		return err
	})
}

type webhookUpdateCmd struct {
	webhookID
	URL       *string `name:"url" help:"Where to send webhooks." placeholder:"URL"`
	NoHeaders bool    `help:"Send no headers of its own any more."`
	NoFilters bool    `help:"Forget the filters by branch, tag and result, but for those given along."`
	webhookSettings
}

func (webhookUpdateCmd) Help() string {
	return `What is not given stays as it is. The events, headers, branches or tags that are given replace all that were there.

Examples:

    runbell webhook update 7c9e6679-7425-40de-944b-e07fc1f90ae7 --events RUN_FINISH
    runbell webhook update 7c9e6679-7425-40de-944b-e07fc1f90ae7 --url https://example.com/new --label ""
    runbell webhook update 7c9e6679-7425-40de-944b-e07fc1f90ae7 --branch '!dependabot/*' --tag ""
    runbell webhook update 7c9e6679-7425-40de-944b-e07fc1f90ae7 --no-filters --rate 0`
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
	if c.NoFilters {
		filters := map[string]any{"branches": []string{}, "tags": []string{}, "result": "any"}
		maps.Copy(filters, c.filters())
		body["filters"] = filters
	}
	if len(body) == 0 {
		return usagef("there is nothing to change: give at least one setting")
	}
	return c.do(ctx, s, http.MethodPut, "", body)
}

type webhookEnableCmd struct {
	webhookID
	DryRun bool `help:"Only say how many deliveries would be sent."`
}

func (webhookEnableCmd) Help() string {
	return `What was queued before it was disabled is sent at once, with the whole schedule of retries ahead.

Examples:

    runbell webhook enable 7c9e6679-7425-40de-944b-e07fc1f90ae7 --dry-run
    runbell webhook enable 7c9e6679-7425-40de-944b-e07fc1f90ae7`
}

// Run enables a webhook, after it has said what that means.
func (c *webhookEnableCmd) Run(ctx context.Context, s *session) error {
	h, a, err := s.webhook(ctx, c.ID)
	if err != nil {
		return err
	}
	if c.DryRun {
		return s.show(a.Data, func(w io.Writer) error {
			text := "The webhook is enabled already."
			if !h.Enabled {
				text = "Enabling it sends " + deliveries(h.Health.Pending, "queued") + "."
			}
			_, err := fmt.Fprintln(w, text)
			return err
		})
	}
	if !h.Enabled && h.Health.Pending > 0 {
		fmt.Fprintf(s.Err, "Enabling it sends %s …\n", deliveries(h.Health.Pending, "queued"))
	}
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
