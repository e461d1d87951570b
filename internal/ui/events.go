package ui

import (
	"fmt"
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
	// Deliveries are for who has signed in.
	Deliveries []deliveryLine
}

// deliveryLine is an event on its way to one webhook.
type deliveryLine struct {
	Hook     string
	URL      string
	Word     string
	Tone     tone
	Attempts int
	Next     time.Time // attempt; zero if there is none
}

// deliveriesOf lists the deliveries of a run by event, for who has signed in:
// where webhooks go is nobody else's business.
func (u *ui) deliveriesOf(r *request, tx *store.Tx, of run.Run) (map[string][]deliveryLine, error) {
	if !r.signedIn() {
		return nil, nil
	}
	list, _, err := tx.Deliveries(r.Context(), store.DeliveryFilter{RunID: of.ID}, store.Page{Limit: maxDeliveries})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	endpoints, err := tx.Endpoints(r.Context(), of.ProjectID)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, e := range endpoints {
		names[e.ID] = hookName(r, e)
	}
	out := map[string][]deliveryLine{}
	for _, d := range list {
		word, tone := deliveryWord(d.State)
		out[d.EventID] = append(out[d.EventID], deliveryLine{Hook: names[d.EndpointID], URL: u.deliveryURL(of.ProjectID, d.ID), Word: word, Tone: tone, Attempts: d.Attempts, Next: d.DueAt})
	}
	return out, nil
}

// hookName is what people know a webhook by.
func hookName(r *request, e webhook.Endpoint) string {
	if e.Label != "" {
		return e.Label
	}
	return run.Clip(shownURL(r, e), 80)
}

// shownURL is where a webhook goes. Who knows the URL of a chat's webhook can
// post there, so people who may only look see no more than the host.
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
		return "waiting", toneRun
	}
}

// addEvents lists what was told to the world. Of a run without explicit groups
// only the group's events: the run's are the same at the same time.
func (p *runPage) addEvents(r run.Run, events []webhook.Event, deliveries map[string][]deliveryLine) {
	for _, e := range events {
		v := eventView{ID: fmt.Sprintf("event-%d", e.Sequence), Kind: string(e.Kind), Of: "run", At: e.CreatedAt, Deliveries: deliveries[e.ID]}
		switch {
		case e.Scope == run.RunScope && !r.Explicit && len(v.Deliveries) == 0:
			continue
		case e.Scope == run.GroupScope:
			v.Of = "group " + e.Group
		}
		if e.Scope == run.GroupScope && !r.Explicit {
			v.Of = ""
		}
		p.Events = append(p.Events, v)
	}
	p.MoreEvents = max(0, len(p.Events)-maxEvents)
	p.Events = p.Events[:min(len(p.Events), maxEvents)]
}
