package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

type deliveryCmd struct {
	remote

	Show  deliveryShowCmd  `cmd:"" help:"Show a delivery with every attempt."`
	Retry deliveryRetryCmd `cmd:"" help:"Send a delivery again, at once."`
}

// delivery is what the commands print of a delivery of the API.
type delivery struct {
	DeliveryID    string     `json:"deliveryId"`
	HookID        string     `json:"hookId"`
	EventID       string     `json:"eventId"`
	Event         string     `json:"event"`
	RunID         *string    `json:"runId"` // null of a test
	GroupID       *string    `json:"groupId"`
	Sequence      int64      `json:"sequence"`
	Status        string     `json:"status"`
	AttemptCount  int        `json:"attemptCount"`
	CreatedAt     *time.Time `json:"createdAt"`
	FinishedAt    *time.Time `json:"finishedAt"`
	NextAttemptAt *time.Time `json:"nextAttemptAt"`
	Attempts      []attempt  `json:"attempts"` // in detail only
}

// run is whose event it is.
func (d delivery) run() string {
	if d.RunID == nil {
		return "(test)"
	}
	return *d.RunID
}

type attempt struct {
	Number     int        `json:"number"`
	StartedAt  *time.Time `json:"startedAt"`
	DurationMS int64      `json:"durationMs"`
	Class      string     `json:"class"`
	Error      *string    `json:"error"`
	Response   *struct {
		Status int    `json:"status"`
		Body   string `json:"body"`
		Base64 bool   `json:"base64"`
	} `json:"response"`
}

func (a attempt) status() string {
	if a.Response == nil {
		return "-"
	}
	return strconv.Itoa(a.Response.Status)
}

type deliveryShowCmd struct {
	ID string `arg:"" help:"Id of the delivery, dlv_…, from 'runbell webhook deliveries'."`
}

func (deliveryShowCmd) Help() string {
	return `With --json it has the headers and the body that were sent and received, too.

Examples:

    runbell delivery show dlv_2c7dkq3x
    runbell delivery show dlv_2c7dkq3x --json | jq '.attempts[-1].response'`
}

// Run shows a delivery.
func (c *deliveryShowCmd) Run(ctx context.Context, s *session) error {
	d, a, err := s.delivery(ctx, http.MethodGet, c.ID, "")
	if err != nil {
		return err
	}
	return s.show(a.Data, d.print)
}

// delivery sends a request about a delivery, which it answers.
func (s *session) delivery(ctx context.Context, method, id, verb string) (delivery, answer, error) {
	a, err := s.do(ctx, method, "/deliveries/"+url.PathEscape(id)+verb, nil, nil)
	if err != nil {
		return delivery{}, a, err
	}
	var d delivery
	return d, a, a.into(&d)
}

type deliveryRetryCmd struct {
	ID   string `arg:"" help:"Id of the delivery, dlv_…, from 'runbell webhook deliveries'."`
	Wait bool   `help:"Wait for the answer and show it; exit with 1 if the webhook was not accepted."`
}

func (deliveryRetryCmd) Help() string {
	return `One that failed, was delivered, or waits for its next attempt; with the whole schedule of retries ahead. An earlier event of the same run that is still on its way comes first.

Examples:

    runbell delivery retry dlv_2c7dkq3x
    runbell delivery retry dlv_2c7dkq3x --wait`
}

// Run queues a delivery again, and may wait for its answer.
func (c *deliveryRetryCmd) Run(ctx context.Context, s *session) error {
	d, a, err := s.delivery(ctx, http.MethodPost, c.ID, "/retry")
	if err != nil {
		return err
	}
	if c.Wait {
		return s.await(ctx, c.ID, d.AttemptCount)
	}
	return s.show(a.Data, d.print)
}

// awaitFor is longer than any attempt takes. What is not sent by then waits for
// something else: an earlier event of its run, the rate, or Retry-After.
const awaitFor = 6 * time.Minute

// await looks at a delivery until it has had more than so many attempts, and
// shows it. It is an error if that attempt was not accepted.
func (s *session) await(ctx context.Context, id string, attempts int) error {
	ctx, cancel := context.WithTimeout(ctx, awaitFor)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		d, a, err := s.delivery(ctx, http.MethodGet, id, "")
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("delivery %s waits: it has had no attempt yet", id)
		case err != nil:
			return err
		case d.AttemptCount <= attempts && d.Status == "held":
			return fmt.Errorf("delivery %s is held: the webhook was disabled", id)
		case d.AttemptCount <= attempts:
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		if err := s.show(a.Data, d.print); err != nil {
			return err
		}
		if last := d.Attempts[len(d.Attempts)-1]; last.Class != "ok" {
			return fmt.Errorf("the webhook was not accepted: %s", printable(orEmpty(last.Error)))
		}
		return nil
	}
}

func (d delivery) print(w io.Writer) error {
	if err := fields(w, "Delivery", d.DeliveryID, "Status", d.Status, "Event", d.Event, "Webhook-Id", d.EventID, "Webhook", d.HookID,
		"Run", d.run(), "Group", orEmpty(d.GroupID), "Sequence", strconv.FormatInt(d.Sequence, 10), "Queued", when(d.CreatedAt),
		"Finished", when(d.FinishedAt), "Next attempt", when(d.NextAttemptAt)); err != nil {
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
		rows = append(rows, []string{strconv.Itoa(a.Number), when(a.StartedAt), fmt.Sprintf("%d ms", a.DurationMS), a.Class, a.status(), why})
	}
	return table(w, "No attempt yet.", []string{"ATTEMPT", "STARTED", "TOOK", "RESULT", "STATUS", "WHY"}, rows)
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
