package app

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"runbell/internal/client"
)

type deliveryCmd struct {
	remote

	Show      deliveryShowCmd      `cmd:"" help:"Show a delivery with every attempt."`
	Redeliver deliveryRedeliverCmd `cmd:"" aliases:"retry" help:"Redeliver a delivery now."`
}

// runOf is the run of a delivery's event.
func runOf(d client.Delivery) string {
	if d.RunID == nil {
		return "(test)"
	}
	return *d.RunID
}

func statusOf(a client.DeliveryAttempt) string {
	if a.Response == nil {
		return "-"
	}
	return strconv.Itoa(a.Response.Status)
}

type deliveryShowCmd struct {
	ID string `arg:"" help:"Id of the delivery, dlv_…, or a prefix of it, from 'runbell webhook deliveries'."`
}

func (deliveryShowCmd) Help() string {
	return `With --json, it also prints the headers and bodies that were sent and received.

Examples:

    runbell delivery show dlv_2c7dkq3x
    runbell delivery show dlv_2c7dkq3x --json | jq '.attempts[-1].response'`
}

// Run shows a delivery.
func (c *deliveryShowCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findDelivery(ctx, c.ID)
	if err != nil {
		return err
	}
	d, err := s.Delivery(ctx, id)
	if err != nil {
		return err
	}
	return show(s, d, printDelivery)
}

type deliveryRedeliverCmd struct {
	ID   string `arg:"" help:"Id of the delivery, dlv_…, or a prefix of it, from 'runbell webhook deliveries'."`
	Wait bool   `help:"Wait for the response and show it; exit with 1 if the delivery failed."`
}

func (deliveryRedeliverCmd) Help() string {
	return `The delivery can be failed, delivered or pending. Its retries start again from the first. If an earlier
event of the same run is pending, that is sent first.

Examples:

    runbell delivery redeliver dlv_2c7dkq3x
    runbell delivery redeliver dlv_2c7dkq3x --wait`
}

// Run queues a delivery again, and may wait for its answer.
func (c *deliveryRedeliverCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findDelivery(ctx, c.ID)
	if err != nil {
		return err
	}
	d, err := s.RetryDelivery(ctx, id)
	if err != nil {
		return err
	}
	if c.Wait {
		return s.await(ctx, id, d.Value.AttemptCount)
	}
	return show(s, d, printDelivery)
}

// awaitFor is longer than any attempt takes. What is not sent by then waits for
// something else: an earlier event of its run, the rate, or Retry-After.
const awaitFor = 6 * time.Minute

// await looks at a delivery until it has had more than this many attempts, and
// shows it. It is an error if that attempt was not accepted.
func (s *session) await(ctx context.Context, id string, attempts int) error {
	ctx, cancel := context.WithTimeout(ctx, awaitFor)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		d, err := s.Delivery(ctx, id)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("delivery %s is still pending, without an attempt", id)
		case err != nil:
			return err
		case d.Value.AttemptCount <= attempts && d.Value.Status == "held":
			return fmt.Errorf("delivery %s is held: the webhook was disabled", id)
		case d.Value.AttemptCount <= attempts:
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		if err := show(s, d, printDelivery); err != nil {
			return err
		}
		if last := d.Value.Attempts[len(d.Value.Attempts)-1]; last.Class != "ok" {
			return fmt.Errorf("the webhook was not accepted: %s", printable(orEmpty(last.Error)))
		}
		return nil
	}
}

func printDelivery(w io.Writer, d client.Delivery) error {
	if err := fields(w, "Delivery", d.DeliveryID, "Status", d.Status, "Event", d.Event, "Webhook-Id", d.EventID, "Webhook",
		d.HookID, "Run", runOf(d), "Group", orEmpty(d.GroupID), "Sequence", strconv.FormatInt(d.Sequence, 10), "Queued",
		when(d.CreatedAt), "Finished", when(d.FinishedAt), "Next attempt", when(d.NextAttemptAt)); err != nil {
		return err
	}
	if d.Attempts == nil {
		return nil
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, a := range d.Attempts {
		why := orEmpty(a.Error)
		if a.Response != nil && a.Response.Body != "" && !a.Response.Base64 {
			why = strings.TrimPrefix(why+": "+firstLine(a.Response.Body), ": ")
		}
		rows = append(rows, []string{strconv.Itoa(a.Number), when(a.StartedAt), milliseconds(a.DurationMs), a.Class,
			statusOf(a), why})
	}
	return table(w, "No attempt yet.", []string{"ATTEMPT", "STARTED", "TOOK", "RESULT", "STATUS", "DETAILS"}, rows)
}

// firstLine is the beginning of a text that may be long.
func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	const longest = 80
	if short := []rune(s); len(short) > longest {
		return string(short[:longest]) + "…"
	}
	return s
}
