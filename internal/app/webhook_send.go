package app

import (
	"context"
	"fmt"
	"io"

	"runbell/internal/client"
)

type webhookTestCmd struct {
	whichWebhook
	Event string `help:"Which event: RUN_START, RUN_FINISH, RUN_TIMEOUT, RUN_CANCELED or TEST_STATUS." enum:"RUN_START,RUN_FINISH,RUN_TIMEOUT,RUN_CANCELED,TEST_STATUS" default:"RUN_FINISH" placeholder:"EVENT"`
	Wait  bool   `help:"Wait for the response and show it; exit with 1 if the delivery failed."`
}

func (webhookTestCmd) Help() string {
	return `Sends sample data with the header X-Runbell-Test: 1. It ignores the events and filters of the webhook.

Examples:

    runbell webhook test chat --wait
    runbell webhook test chat --event RUN_TIMEOUT`
}

// Run queues a test, and may wait for its answer.
func (c *webhookTestCmd) Run(ctx context.Context, s *session) error {
	queued, err := about(ctx, s, c.whichWebhook,
		func(ctx context.Context, id string) (client.Result[client.QueuedTest], error) {
			return s.TestWebhook(ctx, id, c.Event)
		})
	if err != nil {
		return err
	}
	if c.Wait {
		return s.await(ctx, queued.Value.DeliveryID, 0)
	}
	return show(s, queued, func(w io.Writer, q client.QueuedTest) error {
		_, err := fmt.Fprintf(w, "Delivery %[1]s is queued. To see how it went:\n\n    runbell delivery show %[1]s\n",
			q.DeliveryID)
		return err
	})
}

type webhookRedeliverCmd struct {
	whichWebhook
	Since  moment `help:"Deliveries queued since this time, or this long ago (2h, 3d)." placeholder:"2h|TIME"`
	Until  moment `help:"Deliveries queued before this time. Default: now." placeholder:"2h|TIME"`
	All    bool   `help:"Include successful deliveries."`
	RunID  string `name:"run" help:"Only deliveries of this run. Then --since is optional." placeholder:"ID"`
	DryRun bool   `help:"Print only the number."`
	Yes    bool   `help:"Do not ask for confirmation."`
}

func (webhookRedeliverCmd) Help() string {
	return `Redelivers the deliveries of each run in order. Their retries start from the first. Original ids and bodies are
reused, so receivers can ignore duplicates. The command prints the number and asks for confirmation.

` + momentHelp + `

Examples:

    runbell webhook redeliver chat --since 2h
    runbell webhook redeliver chat --since '2026-01-31 12:00' --until '2026-01-31 14:30' --dry-run
    runbell webhook redeliver chat --run 6d4d09d9 --all --yes`
}

// Run counts, asks, and sends.
func (c *webhookRedeliverCmd) Run(ctx context.Context, s *session) error {
	if c.Since.IsZero() && c.RunID == "" {
		return usagef("say what to redeliver: --since 2h, --since TIME or --run ID")
	}
	if !c.Until.IsZero() && !c.Until.After(c.Since.Time) {
		return usagef("--until must be later than --since")
	}
	h, err := about(ctx, s, c.whichWebhook, s.Webhook)
	if err != nil {
		return err
	}
	if c.RunID != "" {
		if c.RunID, err = s.findRun(ctx, c.RunID); err != nil {
			return err
		}
	}
	id := h.Value.HookID
	counted, err := s.Redeliver(ctx, id, c.redelivery(true))
	if err != nil {
		return err
	}
	count := counted.Value.Deliveries
	if c.DryRun || count == 0 {
		return show(s, counted, func(w io.Writer, _ client.Redelivered) error {
			text := "Nothing to redeliver: there are " + deliveries(0, c.kind()) + " " + c.span() + "."
			if count > 0 {
				text = deliveries(count, c.kind()) + " " + c.span() + " would be redelivered."
			}
			_, err := fmt.Fprintln(w, text)
			return err
		})
	}
	if !h.Value.Enabled {
		return fmt.Errorf("the webhook is disabled: run 'runbell webhook enable %s' first",
			c.Webhook)
	}
	if !c.Yes {
		if err := s.ask(fmt.Sprintf("Redeliver %s %s to %s?", deliveries(count, c.kind()), c.span(),
			h.Value.URL)); err != nil {
			return err
		}
	}
	queued, err := s.Redeliver(ctx, id, c.redelivery(false))
	if err != nil {
		return err
	}
	return show(s, queued, func(w io.Writer, r client.Redelivered) error {
		_, err := fmt.Fprintf(w, "Queued for redelivery: %s. To see how they went:\n\n    runbell webhook deliveries %s\n",
			deliveries(r.Deliveries, c.kind()), c.Webhook)
		return err
	})
}

func (c *webhookRedeliverCmd) redelivery(dryRun bool) client.Redelivery {
	r := client.Redelivery{Status: "failed", RunID: c.RunID, DryRun: dryRun}
	if c.All {
		r.Status = "all"
	}
	if !c.Since.IsZero() {
		r.Since = &c.Since.Time
	}
	if !c.Until.IsZero() {
		r.Until = &c.Until.Time
	}
	return r
}

// kind is what is redelivered, in a word.
func (c *webhookRedeliverCmd) kind() string {
	if c.All {
		return "ended"
	}
	return "failed"
}

// span says of which run and time.
func (c *webhookRedeliverCmd) span() string {
	text := ""
	if c.RunID != "" {
		text = " of run " + c.RunID
	}
	if !c.Since.IsZero() {
		text += " since " + when(&c.Since.Time)
	}
	if !c.Until.IsZero() {
		text += " until " + when(&c.Until.Time)
	}
	return text[1:]
}
