package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strings"

	"runbell/internal/client"
	"runbell/internal/run"
)

// webhookSettings are the flags of create and update; nil or none leaves a
// setting as it is.
type webhookSettings struct {
	Events      []string `help:"Events to send: RUN_START, RUN_FINISH, RUN_TIMEOUT, RUN_CANCELED, TEST_STATUS. Default: the first four." enum:"RUN_START,RUN_FINISH,RUN_TIMEOUT,RUN_CANCELED,TEST_STATUS" placeholder:"EVENT"`
	Scope       string   `help:"Send events per group of a run (group, the default) or per run (run)." enum:"group,run," default:"" placeholder:"group"`
	Payload     string   `help:"Payload: default, or extended with facts such as links, groups and the first failures." enum:"default,extended," default:"" placeholder:"default"`
	Branch      []string `help:"Only runs of these branches: main, release/*, '!dependabot/*' to leave some out; can be repeated." sep:"none" placeholder:"GLOB"`
	Tag         []string `help:"Only runs with one of these tags; can be repeated." sep:"none" placeholder:"TAG"`
	Result      string   `help:"Only this result: passed, failed, flaky, or recovered (passed, after the last run of the branch failed). RUN_START has no result." enum:"any,passed,failed,flaky,recovered," default:"" placeholder:"any"`
	Label       *string  `help:"Label, to tell webhooks apart." placeholder:"TEXT"`
	Header      []string `help:"Custom header, such as a credential; can be repeated." sep:"none" placeholder:"'NAME: VALUE'"`
	MaxInFlight *int     `help:"Maximum requests in flight, 1 to 256 (default 16)." placeholder:"N"`
	Rate        *int     `help:"Maximum attempts per minute, 1 to 60000; 0 is no limit (default)." placeholder:"N"`
	Ed25519     *bool    `name:"ed25519" help:"Also sign with ed25519. Receivers then need only the public key, from 'runbell webhook secret --public-key'." negatable:""`
}

func (w webhookSettings) settings() (client.WebhookSettings, error) {
	out := client.WebhookSettings{Payload: w.Payload, HookEvents: w.Events, Scope: w.Scope, MaxInFlight: w.MaxInFlight,
		Ed25519: w.Ed25519, Filters: w.filters()}
	if w.Label != nil {
		out.Label = orNull(*w.Label)
	}
	if w.Rate != nil {
		out.RatePerMinute = orNull(*w.Rate)
	}
	if len(w.Header) > 0 {
		headers, err := headersOf(w.Header)
		if err != nil {
			return out, err
		}
		out.Headers = client.Set(headers)
	}
	return out, nil
}

// orNull sets a value; nothing is null.
func orNull[T comparable](v T) client.Setting[T] {
	if v == *new(T) {
		return client.Null[T]()
	}
	return client.Set(v)
}

// filters are those that were given, nil if none were.
func (w webhookSettings) filters() *client.FilterSettings {
	f := client.FilterSettings{Result: w.Result}
	if len(w.Branch) > 0 {
		f.Branches = orNone(w.Branch)
	}
	if len(w.Tag) > 0 {
		f.Tags = orNone(w.Tag)
	}
	if f == (client.FilterSettings{}) {
		return nil
	}
	return &f
}

// orNone is the values of a flag, of which a single empty one means none.
func orNone(given []string) *[]string {
	if len(given) == 1 && given[0] == "" {
		return &[]string{}
	}
	return &given
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
	Project string `required:"" help:"The projectId." var:"RUNBELL_PROJECT" placeholder:"ID"`
	URL     string `arg:"" help:"URL of the receiver."`
	webhookSettings
}

func (webhookCreateCmd) Help() string {
	return `Examples:

    runbell webhook create --project my-shop https://example.com/hooks/cypress
    runbell webhook create --project my-shop https://example.com/hooks --events RUN_FINISH,RUN_TIMEOUT --scope run --header 'Authorization: Bearer abc'
    runbell webhook create --project my-shop https://example.com/chat --label chat --branch main --branch 'release/*' --result failed
    runbell webhook create --project my-shop https://example.com/slow --max-in-flight 1 --rate 30`
}

// Run creates a webhook and says how to check its signatures.
func (c *webhookCreateCmd) Run(ctx context.Context, s *session) error {
	settings, err := c.settings()
	if err != nil {
		return err
	}
	settings.URL = &c.URL
	created, err := s.CreateWebhook(ctx, c.Project, settings)
	if err != nil {
		return err
	}
	return show(s, created, func(w io.Writer, h client.Webhook) error {
		secret, err := s.WebhookSecret(ctx, h.HookID)
		if err != nil {
			return fmt.Errorf("webhook %s was created, but its secret cannot be read: %w", h.HookID, err)
		}
		pairs := append([]string{"Webhook", h.HookID, "Label", orEmpty(h.Label), "URL", h.URL, "Events", hookEvents(h),
			"Scope", h.Scope}, filterPairs(h.Filters)...)
		if err := fields(w, append(pairs, "Secret", secret.Value.Secret, "Public key",
			orEmpty(secret.Value.PublicKey))...); err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, `
Every request is signed as Standard Webhooks specifies (standardwebhooks.com has libraries). Webhook-Signature is "v1,"
and the base64 HMAC-SHA256, with the secret as key, of

    <Webhook-Id>.<Webhook-Timestamp>.<body>

A repeated request has the same Webhook-Id. Remember the ids, and ignore those you know.
To see webhooks and check their signatures, on the machine that the URL points to:

    runbell listen --addr %s --secret %s

And then, to send it one with sample data:

    runbell webhook test %s --wait
`, listenAddr(h.URL), secret.Value.Secret, run.ShellWord(cmp.Or(orEmpty(h.Label), h.HookID)))
		return err
	})
}

// listenAddr is where a listener for a webhook's URL listens: on loopback, if the
// URL says so.
func listenAddr(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return ":9000"
	}
	port := u.Port()
	if port == "" {
		port = "9000"
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLoopback() {
		return net.JoinHostPort(u.Hostname(), port)
	}
	if u.Hostname() == "localhost" {
		return "localhost:" + port
	}
	return ":" + port
}

type webhookUpdateCmd struct {
	whichWebhook
	URL       *string `name:"url" help:"URL of the receiver." placeholder:"URL"`
	NoHeaders bool    `help:"Remove the custom headers."`
	NoFilters bool    `help:"Remove the filters by branch, tag and result, except those given here."`
	webhookSettings
}

func (webhookUpdateCmd) Help() string {
	return `Settings that you do not give stay as they are. Events, headers, branches and tags replace the previous ones.

Examples:

    runbell webhook update chat --events RUN_FINISH
    runbell webhook update chat --url https://example.com/new --label ""
    runbell webhook update chat --branch '!dependabot/*' --tag ""
    runbell webhook update chat --no-filters --rate 0`
}

// Run changes what was given.
func (c *webhookUpdateCmd) Run(ctx context.Context, s *session) error {
	settings, err := c.settings()
	if err != nil {
		return err
	}
	settings.URL = c.URL
	if c.NoHeaders {
		if len(c.Header) > 0 {
			return usagef("--header and --no-headers exclude each other")
		}
		settings.Headers = client.Null[string]()
	}
	if c.NoFilters {
		f := client.FilterSettings{Branches: &[]string{}, Tags: &[]string{}, Result: "any"}
		if given := settings.Filters; given != nil {
			f = client.FilterSettings{Branches: cmp.Or(given.Branches, f.Branches), Tags: cmp.Or(given.Tags, f.Tags),
				Result: cmp.Or(given.Result, f.Result)}
		}
		settings.Filters = &f
	}
	if reflect.DeepEqual(settings, client.WebhookSettings{}) {
		return usagef("there is nothing to change: give at least one setting")
	}
	h, err := about(ctx, s, c.whichWebhook, func(ctx context.Context, id string) (client.Result[client.Webhook], error) {
		return s.UpdateWebhook(ctx, id, settings)
	})
	if err != nil {
		return err
	}
	return show(s, h, printChanged)
}

type webhookEnableCmd struct {
	whichWebhook
	DryRun bool `help:"Print only how many held deliveries would be sent."`
}

func (webhookEnableCmd) Help() string {
	return `Held deliveries are sent at once. Their retries start from the first.

Examples:

    runbell webhook enable chat --dry-run
    runbell webhook enable chat`
}

// Run enables a webhook, after it printed what that sends.
func (c *webhookEnableCmd) Run(ctx context.Context, s *session) error {
	h, err := about(ctx, s, c.whichWebhook, s.Webhook)
	if err != nil {
		return err
	}
	if c.DryRun {
		return show(s, h, func(w io.Writer, h client.Webhook) error {
			text := "The webhook is already enabled."
			if !h.Enabled {
				text = "Enabling it sends " + deliveries(h.Health.Pending, "held") + "."
			}
			_, err := fmt.Fprintln(w, text)
			return err
		})
	}
	if !h.Value.Enabled && h.Value.Health.Pending > 0 {
		fmt.Fprintf(s.Err, "Enabling it sends %s …\n", deliveries(h.Value.Health.Pending, "held"))
	}
	enabled, err := s.EnableWebhook(ctx, h.Value.HookID)
	if err != nil {
		return err
	}
	return show(s, enabled, printChanged)
}

type webhookDisableCmd struct{ whichWebhook }

func (webhookDisableCmd) Help() string {
	return `Events that happen while a webhook is disabled are never sent to it.

Examples:

    runbell webhook disable chat`
}

// Run disables a webhook.
func (c *webhookDisableCmd) Run(ctx context.Context, s *session) error {
	h, err := about(ctx, s, c.whichWebhook, s.DisableWebhook)
	if err != nil {
		return err
	}
	return show(s, h, printChanged)
}
