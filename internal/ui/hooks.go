package ui

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	deliveriesPerPage = 50
	historyLines      = 30
)

// hooksPage lists the webhooks of a project.
type hooksPage struct {
	layout
	Hooks     []hookView
	NewURL    string // "" if the reader may not create one
	EventsURL string
	Done      string
}

// hookView is a webhook at a glance.
type hookView struct {
	ID, Name, URL string
	Page          string // its own
	Word          string
	Tone          tone
	Events        string
	Filter        string // "" lets all through
	Health        webhook.Health
	Reason        string     // why we disabled it
	Failure       *lastTrial // of one that fails
}

// lastTrial is the last attempt that failed.
type lastTrial struct {
	Response string
	Error    string // "" if the response says it all
	At       time.Time
}

// failureOf is why a webhook fails.
func failureOf(r *request, tx *store.Tx, e webhook.Endpoint, h webhook.Health) (*lastTrial, error) {
	if h.State != webhook.Failing && e.DisabledReason == "" {
		return nil, nil
	}
	a, err := tx.LastFailure(r.Context(), e.ID)
	if a == nil || err != nil {
		return nil, err
	}
	t := &lastTrial{Response: responseOf(*a), At: a.StartedAt}
	if a.Status == 0 {
		t.Error = run.Plain(a.Error)
	}
	return t, nil
}

func healthWord(e webhook.Endpoint, h webhook.Health) (string, tone) {
	switch {
	case h.State == webhook.IsOff && e.DisabledReason != "":
		return "disabled", toneStopped
	case h.State == webhook.IsOff:
		return "disabled", toneIdle
	case h.State == webhook.Failing:
		return "failing", toneFail
	case h.State == webhook.Healthy:
		return "healthy", tonePass
	default:
		return "no deliveries yet", toneIdle
	}
}

func (u *ui) hookURL(e webhook.Endpoint, below string) string {
	return u.projectURL(e.ProjectID, "/webhooks/"+url.PathEscape(e.ID)+below)
}

func (u *ui) hookView(r *request, tx *store.Tx, e webhook.Endpoint) (hookView, error) {
	h, err := tx.Health(r.Context(), e)
	if err != nil {
		return hookView{}, err
	}
	v := hookView{ID: e.ID, Name: hookName(r, e), URL: shownURL(r, e), Page: u.hookURL(e, ""), Health: h,
		Reason: e.DisabledReason, Events: eventsText(e), Filter: filterText(e.Filters)}
	v.Word, v.Tone = healthWord(e, h)
	v.Failure, err = failureOf(r, tx, e, h)
	return v, err
}

func eventsText(e webhook.Endpoint) string {
	what := "per group"
	if e.Scope == run.RunScope {
		what = "per run"
	}
	switch len(e.Events) {
	case 0:
		return "no events"
	case len(webhook.AllKinds()):
		return "all events and TEST_STATUS, " + what
	}
	if slices.Equal(e.Events, webhook.Kinds()) {
		return "all events, " + what
	}
	words := make([]string, len(e.Events))
	for n, k := range e.Events {
		words[n] = string(k)
	}
	return strings.Join(words, ", ") + " " + what
}

func filterText(f webhook.Filters) string {
	var parts []string
	if len(f.Branches) > 0 {
		parts = append(parts, "branches "+strings.Join(f.Branches, ", "))
	}
	if len(f.Tags) > 0 {
		parts = append(parts, "tags "+strings.Join(f.Tags, ", "))
	}
	if f.Result != "" && f.Result != webhook.AnyResult {
		parts = append(parts, string(f.Result)+" only")
	}
	return strings.Join(parts, "; ")
}

func (u *ui) hooks(r *request) error {
	p := hooksPage{Done: done[r.query("done")]}
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		project, err := tx.Project(r.Context(), r.PathValue("projectId"))
		if err != nil {
			return err
		}
		p.layout = u.layout(r, "Webhooks · "+project.Name, toneIdle)
		p.Project = u.nav(project, "webhooks")
		p.Live, p.EventsURL = 5, u.projectURL(project.ID, "/webhooks/events")
		if r.may(auth.ManageWebhooks) {
			p.NewURL = u.projectURL(project.ID, "/webhooks/new")
		}
		endpoints, err := tx.Endpoints(r.Context(), project.ID)
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			v, err := u.hookView(r, tx, e)
			if err != nil {
				return err
			}
			p.Hooks = append(p.Hooks, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.show(u.views.hooks.render(p))
}

// hookPage is all about one webhook.
type hookPage struct {
	layout
	Hook       hookView
	HooksURL   string
	EventsURL  string
	Member     bool
	Enabled    bool
	Headers    []string // names
	InFlight   int
	Rate       int
	Ed25519    bool
	Extended   bool      // payload
	Rotating   time.Time // until when the secret before signs too; zero if it does not
	Stops      time.Time // when we disable it unless an attempt succeeds
	Secret     string    // where it was asked for
	PublicKey  string
	Kinds      []choice
	States     []choice
	Responses  []choice
	Events     []choice
	Hours      *hours
	From, To   string
	Filtered   bool
	Looked     int    // at how many deliveries, if not at all
	Further    string // looks at older ones
	Deliveries []deliveryRow
	Newest     string
	Older      string
	History    []historyLine
	Done       string
	Error      string
}

type historyLine struct {
	Text string
	At   time.Time
}

// deliveryRow is a delivery in the log of its webhook.
type deliveryRow struct {
	URL     string
	Kind    string
	RunURL  string // "" of a test, and of a run that was removed
	Subject string
	Build   string
	Group   string
	At      time.Time
	Took    time.Duration
	deliveryStatus
}

// endpointOf finds the webhook that an address names, in its project.
func (u *ui) endpointOf(r *request, tx *store.Tx) (webhook.Endpoint, run.Project, error) {
	project, err := tx.Project(r.Context(), r.PathValue("projectId"))
	if err != nil {
		return webhook.Endpoint{}, project, err
	}
	e, err := tx.Endpoint(r.Context(), r.PathValue("hookId"))
	if err == nil && e.ProjectID != project.ID {
		err = run.Missing("webhook", e.ID)
	}
	return e, project, err
}

func (u *ui) hook(r *request) error {
	body, err := u.hookBody(r, hookPage{Done: done[r.query("done")]})
	return r.show(body, err)
}

// hookSays shows the page with the result of a form, once.
func (u *ui) hookSays(r *request, status int, p hookPage) error {
	body, err := u.hookBody(r, p)
	return r.showOnce(status, body, err)
}

func (u *ui) hookBody(r *request, p hookPage) ([]byte, error) {
	ctx := r.Context()
	err := u.db.Read(ctx, func(tx *store.Tx) error {
		e, project, err := u.endpointOf(r, tx)
		if err != nil {
			return err
		}
		if p.Hook, err = u.hookView(r, tx, e); err != nil {
			return err
		}
		health := p.Hook.Health
		p.layout = u.layout(r, hookName(r, e)+" · "+project.Name, toneIdle)
		p.Project = u.nav(project, "webhooks")
		p.Live, p.HooksURL, p.EventsURL = 3, u.projectURL(project.ID, "/webhooks"),
			u.projectURL(project.ID, "/webhooks/events")
		p.Enabled, p.InFlight, p.Rate, p.Ed25519 = e.Enabled, e.MaxInFlight, e.RatePerMinute, e.Private != ""
		p.Extended = e.Payload == webhook.ExtendedForm
		p.Member = r.may(auth.ManageWebhooks)
		for name := range e.Headers {
			p.Headers = append(p.Headers, name)
		}
		slices.Sort(p.Headers)
		if p.Hours, err = hoursOf(ctx, tx, e); err != nil {
			return err
		}
		if e.Previous != "" && tx.Now.Before(e.PreviousUntil) {
			p.Rotating = e.PreviousUntil
		}
		if health.State == webhook.Failing {
			p.Stops = webhook.StopAt(health.FailingSince)
		}
		for _, k := range webhook.AllKinds() {
			p.Kinds = append(p.Kinds, choice{Value: string(k), Text: string(k), Chosen: k == webhook.RunFinish})
		}
		history, err := tx.History(ctx, e.ID, historyLines)
		if err != nil {
			return err
		}
		for _, h := range history {
			p.History = append(p.History, historyLine{h.Text, h.At})
		}
		return u.addDeliveries(r, tx, e, &p)
	})
	if err != nil {
		return nil, err
	}
	return u.views.hook.render(p)
}

var stateWords = []choice{{Value: "delivered", Text: "Delivered"}, {Value: "failed", Text: "Failed"},
	{Value: "pending", Text: "Pending"}, {Value: "held", Text: "Held"}}

var responseWords = []choice{{Value: string(store.Response2xx), Text: "2xx"},
	{Value: string(store.Response3xx), Text: "3xx"}, {Value: string(store.Response4xx), Text: "4xx"},
	{Value: string(store.Response5xx), Text: "5xx"}, {Value: string(store.NoResponse), Text: "No response"}}

// logDepth is how far one search of a log goes: deliveries are smaller than runs.
func (u *ui) logDepth() int { return 5 * u.depth }

// addDeliveries adds the log, as the address filters it.
func (u *ui) addDeliveries(r *request, tx *store.Tx, e webhook.Endpoint, p *hookPage) error {
	f := store.DeliveryFilter{EndpointID: e.ID}
	query := url.Values{}
	var word string
	if p.States, word = chosen(stateWords, r.query("state")); word != "" {
		f.States = []webhook.DeliveryState{webhook.DeliveryState(word)}
		query.Set("state", word)
	}
	if p.Responses, word = chosen(responseWords, r.query("response")); word != "" {
		f.Responses = []store.Response{store.Response(word)}
		query.Set("response", word)
	}
	kinds := make([]choice, len(p.Kinds))
	for n, k := range p.Kinds {
		kinds[n] = choice{Value: k.Value, Text: k.Text}
	}
	if p.Events, word = chosen(kinds, r.query("event")); word != "" {
		f.Kinds = []webhook.Kind{webhook.Kind(word)}
		query.Set("event", word)
	}
	f.Since, f.Until = r.days(query)
	p.From, p.To = query.Get("from"), query.Get("to")
	p.Filtered = len(query) > 0
	page := store.Page{Limit: deliveriesPerPage, After: positionOf(r.query("after"))}
	if len(f.States)+len(f.Kinds)+len(f.Responses) > 0 {
		limit, beyond, err := tx.LogLimit(r.Context(), f, page, u.logDepth())
		if err != nil {
			return err
		}
		if beyond {
			f.Limit = &limit
		}
	}
	list, more, err := tx.Deliveries(r.Context(), f, page)
	if err != nil {
		return err
	}
	ids := make([]string, len(list))
	for n, d := range list {
		ids[n] = d.ID
	}
	entries, err := tx.LogEntries(r.Context(), ids)
	if err != nil {
		return err
	}
	for _, d := range list {
		p.Deliveries = append(p.Deliveries, u.deliveryRow(d, entries[d.ID], e, p.Hook.Health, tx.Now))
	}
	if page.After != nil {
		p.Live, p.Newest = 0, u.hookURL(e, withValues("", query)+"#log")
	}
	switch {
	case more:
		last := list[len(list)-1]
		query.Set("after", store.Position{At: last.CreatedAt, ID: last.ID}.Cursor())
		p.Older = u.hookURL(e, "?"+query.Encode()+"#log")
	case f.Limit != nil:
		query.Set("after", f.Limit.Cursor())
		p.Further, p.Looked = u.hookURL(e, "?"+query.Encode()+"#log"), u.logDepth()
	}
	return nil
}

func (u *ui) deliveryRow(d webhook.Delivery, entry store.LogEntry, e webhook.Endpoint, h webhook.Health,
	now time.Time) deliveryRow {
	row := deliveryRow{URL: u.deliveryURL(e.ProjectID, d.ID), Kind: string(d.Kind), At: d.CreatedAt, Group: entry.Group,
		deliveryStatus: statusOf(d, entry.Last, e, h, now)}
	switch {
	case d.RunID == "":
	case entry.CIBuildID == "":
		row.Subject = "removed run" // the log is kept longer
	default:
		row.RunURL, row.Build = u.runURL(d.RunID), entry.CIBuildID
		row.Subject = subjectOf(run.Run{CIBuildID: entry.CIBuildID, Commit: entry.Commit})
	}
	if row.Group == row.Build {
		row.Group = "" // the implicit group
	}
	if !d.FinishedAt.IsZero() {
		row.Took = d.FinishedAt.Sub(d.CreatedAt)
	}
	return row
}

// by names who did something, for a webhook's history.
func (r *request) by() string { return "by " + r.who.Name }

// hookOf is the webhook that an address names.
func (u *ui) hookOf(r *request) (e webhook.Endpoint, err error) {
	err = u.db.Read(r.Context(), func(tx *store.Tx) error {
		e, _, err = u.endpointOf(r, tx)
		return err
	})
	return e, err
}

// ended leads on from a form of the page of a webhook, or shows there what was
// wrong with it.
func (u *ui) ended(r *request, err error, to string) error {
	if text, is := message(err); is {
		return u.hookSays(r, http.StatusBadRequest, hookPage{Error: text})
	}
	if err != nil {
		return err
	}
	return r.to(to)
}

func (u *ui) enableHook(r *request) error { return u.switchHook(r, true, "enabled") }

func (u *ui) disableHook(r *request) error { return u.switchHook(r, false, "disabled") }

func (u *ui) switchHook(r *request, on bool, word string) error {
	e, err := u.hookOf(r)
	if err == nil {
		_, _, err = u.endpoints.Change(r.Context(), e.ID, endpoint.Settings{Enabled: &on}, r.by())
	}
	return u.ended(r, err, u.hookURL(e, "?done="+word))
}

func (u *ui) deleteHook(r *request) error {
	e, err := u.hookOf(r)
	if err == nil && strings.TrimSpace(r.PostFormValue("confirm")) != "delete" {
		err = run.Errorf(run.Invalid, "Type delete to delete the webhook.")
	}
	if err == nil {
		_, err = u.endpoints.Delete(r.Context(), e.ID)
	}
	return u.ended(r, err, u.projectURL(e.ProjectID, "/webhooks?done=hookdeleted"))
}

// revealSecret shows the secret once, to the person who asked for it.
func (u *ui) revealSecret(r *request) error {
	e, err := u.hookOf(r)
	if err != nil {
		return err
	}
	return u.showSecret(r, e)
}

func (u *ui) showSecret(r *request, e webhook.Endpoint) error {
	p := hookPage{Secret: e.Secret.Reveal()}
	if e.Private != "" {
		public, err := e.Private.Public()
		if err != nil {
			return err
		}
		p.PublicKey = string(public)
	}
	return u.hookSays(r, http.StatusOK, p)
}

func (u *ui) rotateSecret(r *request) error {
	e, err := u.hookOf(r)
	if err != nil {
		return err
	}
	hours, err := strconv.Atoi(strings.TrimSpace(r.PostFormValue("hours")))
	if err != nil || hours < 0 || hours > int(endpoint.MaxGrace.Hours()) {
		err = run.Errorf(run.Invalid, "Enter how many hours the old secret stays valid: 0 to %d.",
			int(endpoint.MaxGrace.Hours()))
		return u.ended(r, err, "")
	}
	if e, err = u.endpoints.Rotate(r.Context(), e.ID, time.Duration(hours)*time.Hour, r.by()); err != nil {
		return u.ended(r, err, "")
	}
	return u.showSecret(r, e)
}

// testHook sends sample data, and leads to what is answered.
func (u *ui) testHook(r *request) error {
	e, err := u.hookOf(r)
	var delivery string
	if err == nil {
		delivery, err = u.endpoints.Test(r.Context(), e.ID, webhook.Kind(r.PostFormValue("event")))
	}
	return u.ended(r, err, u.deliveryURL(e.ProjectID, delivery))
}

func (u *ui) deliveryURL(projectID, id string) string {
	return u.projectURL(projectID, "/deliveries/"+url.PathEscape(id))
}
