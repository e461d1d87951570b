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

	Show deliveryShowCmd `cmd:"" help:"Show a delivery with every attempt."`
}

// delivery is what the commands print of a delivery of the API.
type delivery struct {
	DeliveryID    string     `json:"deliveryId"`
	HookID        string     `json:"hookId"`
	EventID       string     `json:"eventId"`
	Event         string     `json:"event"`
	RunID         string     `json:"runId"`
	GroupID       *string    `json:"groupId"`
	Sequence      int64      `json:"sequence"`
	Status        string     `json:"status"`
	AttemptCount  int        `json:"attemptCount"`
	CreatedAt     *time.Time `json:"createdAt"`
	FinishedAt    *time.Time `json:"finishedAt"`
	NextAttemptAt *time.Time `json:"nextAttemptAt"`
	Attempts      []attempt  `json:"attempts"` // in detail only
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
	a, err := s.do(ctx, http.MethodGet, "/deliveries/"+url.PathEscape(c.ID), nil, nil)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var d delivery
		if err := a.into(&d); err != nil {
			return err
		}
		return d.print(w)
	})
}

func (d delivery) print(w io.Writer) error {
	if err := fields(w, "Delivery", d.DeliveryID, "Status", d.Status, "Event", d.Event, "Webhook-Id", d.EventID, "Webhook", d.HookID,
		"Run", d.RunID, "Group", orEmpty(d.GroupID), "Sequence", strconv.FormatInt(d.Sequence, 10), "Queued", when(d.CreatedAt),
		"Finished", when(d.FinishedAt), "Next attempt", when(d.NextAttemptAt)); err != nil {
		return err
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
