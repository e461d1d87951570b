package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

type webhookTestCmd struct {
	webhookID
	Event string `help:"Which event: RUN_START, RUN_FINISH, RUN_TIMEOUT or RUN_CANCELED." enum:"RUN_START,RUN_FINISH,RUN_TIMEOUT,RUN_CANCELED" default:"RUN_FINISH" placeholder:"EVENT"`
	Wait  bool   `help:"Wait for the answer and show it; exit with 1 if the webhook was not accepted."`
}

func (webhookTestCmd) Help() string {
	return `Sends sample data of the real shape, marked X-Runbell-Test: 1, whatever the webhook's events and filters are.

Examples:

    runbell webhook test 7c9e6679-7425-40de-944b-e07fc1f90ae7 --wait
    runbell webhook test 7c9e6679-7425-40de-944b-e07fc1f90ae7 --event RUN_TIMEOUT`
}

// Run queues a test, and may wait for its answer.
func (c *webhookTestCmd) Run(ctx context.Context, s *session) error {
	a, err := s.do(ctx, http.MethodPost, "/webhooks/"+url.PathEscape(c.ID)+"/test", nil, map[string]any{"event": c.Event})
	if err != nil {
		return err
	}
	var queued struct {
		DeliveryID string `json:"deliveryId"`
	}
	if err := a.into(&queued); err != nil {
		return err
	}
	if c.Wait {
		return s.await(ctx, queued.DeliveryID, 0)
	}
	return s.show(a.Data, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Delivery %[1]s is queued. What came of it:\n\n    runbell delivery show %[1]s\n", queued.DeliveryID)
		return err
	})
}

type webhookReplayCmd struct {
	webhookID
	Since  moment `help:"What was queued since then: an age such as 2h or 3d, or a time." placeholder:"2h|TIME"`
	Until  moment `help:"And before then; now unless given." placeholder:"2h|TIME"`
	All    bool   `help:"What was delivered, too, and not only what failed."`
	RunID  string `name:"run" help:"Only of this run; then --since may be left out." placeholder:"ID"`
	DryRun bool   `help:"Only say how many deliveries that is."`
	Yes    bool   `help:"Do not ask."`
}

func (webhookReplayCmd) Help() string {
	return `Sends deliveries again: with the same ids and bodies, those of each run in order, with the whole schedule of retries ahead. Says how many they are and asks first.

` + momentHelp + `

Examples:

    runbell webhook replay 7c9e6679-7425-40de-944b-e07fc1f90ae7 --since 2h
    runbell webhook replay 7c9e6679-7425-40de-944b-e07fc1f90ae7 --since '2026-01-31 12:00' --until '2026-01-31 14:30' --dry-run
    runbell webhook replay 7c9e6679-7425-40de-944b-e07fc1f90ae7 --run 6d4d09d9ff151222372347a1ffe4fa5c --all --yes`
}

// Run counts, asks, and sends.
func (c *webhookReplayCmd) Run(ctx context.Context, s *session) error {
	if c.Since.IsZero() && c.RunID == "" {
		return usagef("say what is to be sent again: --since 2h, --since TIME or --run ID")
	}
	if !c.Until.IsZero() && !c.Until.After(c.Since.Time) {
		return usagef("--until must be later than --since")
	}
	h, _, err := s.webhook(ctx, c.ID)
	if err != nil {
		return err
	}
	count, a, err := c.replay(ctx, s, true)
	if err != nil {
		return err
	}
	if c.DryRun || count == 0 {
		return s.show(a.Data, func(w io.Writer) error {
			text := "Nothing to send again: there are " + deliveries(0, c.kind()) + " " + c.span() + "."
			if count > 0 {
				text = deliveries(count, c.kind()) + " " + c.span() + " would be sent again."
			}
			_, err := fmt.Fprintln(w, text)
			return err
		})
	}
	if !h.Enabled {
		return fmt.Errorf("the webhook is disabled, and nothing is sent to it: 'runbell webhook enable %s' comes first", c.ID)
	}
	if !c.Yes {
		if err := s.ask(fmt.Sprintf("Send %s %s again to %s?", deliveries(count, c.kind()), c.span(), h.URL)); err != nil {
			return err
		}
	}
	count, a, err = c.replay(ctx, s, false)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "On the way again: %s. What comes of them:\n\n    runbell webhook deliveries %s\n", deliveries(count, c.kind()), c.ID)
		return err
	})
}

// replay answers how many deliveries are sent again, or would be.
func (c *webhookReplayCmd) replay(ctx context.Context, s *session, dryRun bool) (int64, answer, error) {
	body := map[string]any{"dryRun": dryRun, "status": "failed"}
	if c.All {
		body["status"] = "all"
	}
	if !c.Since.IsZero() {
		body["since"] = c.Since
	}
	if !c.Until.IsZero() {
		body["until"] = c.Until
	}
	if c.RunID != "" {
		body["runId"] = c.RunID
	}
	a, err := s.do(ctx, http.MethodPost, "/webhooks/"+url.PathEscape(c.ID)+"/replay", nil, body)
	if err != nil {
		return 0, a, err
	}
	var replayed struct {
		Deliveries int64 `json:"deliveries"`
	}
	err = a.into(&replayed)
	return replayed.Deliveries, a, err
}

// kind is what is sent again, in a word.
func (c *webhookReplayCmd) kind() string {
	if c.All {
		return "ended"
	}
	return "failed"
}

// span says of which run and time.
func (c *webhookReplayCmd) span() string {
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
