package ui

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

type eventView struct {
	ID   string // anchor
	Kind string
	Of   string
	At   time.Time
	// Deliveries are only for readers who have signed in.
	Deliveries []deliveryLine
}

// deliveryLine is an event on its way to one webhook.
type deliveryLine struct {
	Hook string
	URL  string
	deliveryStatus
}

// deliveryStatus is the state of a delivery as people read it.
type deliveryStatus struct {
	Word     string
	Tone     tone
	Attempts int
	// Response is the result of the last attempt, "" if there was none.
	Response string
	Bad      bool      // the response is the reason for the failure
	Next     time.Time // when the next attempt is due; zero if none is
	Overdue  bool
	Why      string // it waits, "" if that is obvious
}

// statusOf describes a delivery; last is its last attempt, nil if there was none.
func statusOf(d webhook.Delivery, last *webhook.Attempt, e webhook.Endpoint, h webhook.Health,
	now time.Time) deliveryStatus {
	s := deliveryStatus{Attempts: d.Attempts}
	s.Word, s.Tone = deliveryWord(d.State)
	if last != nil {
		s.Response, s.Bad = responseOf(*last), last.Class != webhook.OK
	}
	switch {
	case d.State == webhook.Held:
		s.Why = "until the webhook is enabled"
	case d.State != webhook.Waiting:
	case d.DueAt.IsZero():
		s.Why = "after an earlier event of the run"
	case !now.IsZero() && now.Sub(d.DueAt) >= overdueAfter:
		s.Next, s.Overdue, s.Why = d.DueAt, true, whyOverdue(e, h)
	default:
		s.Next = d.DueAt
	}
	return s
}

// overdueAfter is how late a delivery may be without a reason.
const overdueAfter = 2 * time.Second

// whyOverdue is why a delivery that is due has not been sent.
func whyOverdue(e webhook.Endpoint, h webhook.Health) string {
	switch {
	case !h.HoldUntil.IsZero():
		return "the receiver asked Runbell to wait"
	case h.State == webhook.Failing:
		return "the receiver is failing, so deliveries go out one at a time"
	case e.RatePerMinute > 0:
		return "limited to " + count(e.RatePerMinute, "request") + " a minute"
	default:
		return "at most " + count(e.MaxInFlight, "request") + " at a time"
	}
}

// responseOf is the result of an attempt in a few words.
func responseOf(a webhook.Attempt) string {
	if a.Status > 0 {
		status := strconv.Itoa(a.Status)
		if at := strings.Index(a.Error, status+" "); at >= 0 {
			return run.Plain(a.Error[at:]) // with the words of the receiver
		}
		return strings.TrimSpace(status + " " + http.StatusText(a.Status))
	}
	return map[webhook.Class]string{webhook.DNS: "DNS error", webhook.RefusedTCP: "Connection refused",
		webhook.Reset: "Connection reset", webhook.TLS: "TLS error", webhook.Timeout: "Timeout",
		webhook.Blocked: "Blocked address", webhook.Proxy: "Proxy error", webhook.BadRequest: "Invalid request",
		webhook.OtherError: "Error"}[a.Class]
}

// deliveriesOf lists the deliveries of a run by event.
func (u *ui) deliveriesOf(r *request, tx *store.Tx, at runState) (map[string][]deliveryLine, error) {
	if len(at.deliveries) == 0 {
		return nil, nil
	}
	endpoints, err := tx.Endpoints(r.Context(), at.project.ID)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(at.deliveries))
	for n, d := range at.deliveries {
		ids[n] = d.ID
	}
	entries, err := tx.LogEntries(r.Context(), ids)
	if err != nil {
		return nil, err
	}
	health := map[string]webhook.Health{}
	out := map[string][]deliveryLine{}
	for _, d := range at.deliveries {
		n := slices.IndexFunc(endpoints, func(e webhook.Endpoint) bool { return e.ID == d.EndpointID })
		if n < 0 {
			continue // the webhook was deleted just now
		}
		e := endpoints[n]
		if _, known := health[e.ID]; !known {
			if health[e.ID], err = tx.Health(r.Context(), e); err != nil {
				return nil, err
			}
		}
		out[d.EventID] = append(out[d.EventID],
			deliveryLine{Hook: hookName(r, e), URL: u.deliveryURL(at.project.ID, d.ID),
				deliveryStatus: statusOf(d, entries[d.ID].Last, e, health[e.ID], tx.Now)})
	}
	return out, nil
}

// hookName is the name of a webhook for people.
func hookName(r *request, e webhook.Endpoint) string {
	if e.Label != "" {
		return e.Label
	}
	return run.Clip(shownURL(r, e), 80)
}

// shownURL is the URL of a webhook as a reader may see it. Anyone who knows the URL of a chat's webhook can post
// there, so viewers see only the host.
func shownURL(r *request, e webhook.Endpoint) string {
	if r.may(auth.ManageWebhooks) {
		return e.URL
	}
	return webhook.MaskURL(e.URL)
}

func deliveryWord(s webhook.DeliveryState) (string, tone) {
	switch s {
	case webhook.Delivered:
		return "delivered", tonePass
	case webhook.Failed:
		return "failed", toneFail
	case webhook.Held:
		return "held", toneIdle
	default:
		return "pending", toneRun
	}
}

// addEvents lists the events of a run. Of a run without named groups only the
// group's events: the run's are the same at the same time.
func (u *ui) addEvents(req *request, tx *store.Tx, at runState, p *runPage) error {
	events, err := tx.Events(req.Context(), at.run.ID)
	if err != nil {
		return err
	}
	deliveries, err := u.deliveriesOf(req, tx, at)
	if err != nil {
		return err
	}
	for _, e := range events {
		v := eventView{ID: fmt.Sprintf("event-%d", e.Sequence), Kind: string(e.Kind), Of: "run", At: e.CreatedAt,
			Deliveries: deliveries[e.ID]}
		switch {
		case e.Scope == run.RunScope && !at.run.Explicit && len(v.Deliveries) == 0:
			continue
		case e.Scope == run.GroupScope:
			v.Of = "group " + e.Group
		}
		if e.Scope == run.GroupScope && !at.run.Explicit {
			v.Of = ""
		}
		p.Events = append(p.Events, v)
	}
	p.MoreEvents = max(0, len(p.Events)-maxEvents)
	p.Events = p.Events[:min(len(p.Events), maxEvents)]
	return nil
}
