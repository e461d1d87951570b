package ui

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"runbell/internal/auth"
	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// deliveryPage is a delivery with every attempt.
type deliveryPage struct {
	layout
	Masked   bool // the reader may not see secrets and responses
	ID       string
	Kind     string
	Test     bool
	Hook     string
	HookURL  string
	HooksURL string
	RunURL   string
	Subject  string
	Group    string // "" at run scope
	Event    string
	Created  time.Time
	Finished time.Time
	Payload  string
	Trials   []attemptView
	RetryURL string // "" if the reader may not, or before the first attempt
	Error    string
	deliveryStatus
}

// attemptView is one try.
type attemptView struct {
	ID       string // anchor
	Number   int
	Word     string
	Tone     tone
	Status   int
	Error    string
	At       time.Time
	Took     time.Duration
	Request  []headerView
	Response []headerView
	Body     string
	Binary   int // the size of a body that is not text
}

type headerView struct{ Name, Value string }

func headersOf(h webhook.Headers) []headerView {
	var out []headerView
	for _, one := range h {
		out = append(out, headerView{one.Name, run.Plain(one.Value)})
	}
	return out
}

func (u *ui) delivery(r *request) error {
	body, err := u.deliveryBody(r, "")
	return r.show(body, err)
}

func (u *ui) deliveryBody(r *request, problem string) ([]byte, error) {
	ctx := r.Context()
	p := deliveryPage{Masked: !r.may(auth.ManageWebhooks), Error: problem}
	err := u.db.Read(ctx, func(tx *store.Tx) error {
		d, e, project, err := u.deliveryOf(r, tx)
		if err != nil {
			return err
		}
		event, err := tx.Event(ctx, d.EventID)
		if err != nil {
			return err
		}
		attempts, err := tx.Attempts(ctx, d.ID)
		if err != nil {
			return err
		}
		health, err := tx.Health(ctx, e)
		if err != nil {
			return err
		}
		var last *webhook.Attempt
		for n := len(attempts) - 1; n >= 0; n-- {
			attempt := attempts[n]
			if p.Masked {
				attempt = webhook.MaskAttempt(attempt)
			}
			p.Trials = append(p.Trials, attemptOf(attempt))
		}
		if len(attempts) > 0 {
			last = &attempts[len(attempts)-1]
		}
		p.deliveryStatus = statusOf(d, last, e, health, tx.Now)
		p.layout = u.layout(r, p.Word+" · "+string(d.Kind)+" · "+project.Name, p.Tone)
		p.Project = u.nav(project, "webhooks")
		p.ID, p.Kind, p.Event, p.Hook, p.HookURL, p.HooksURL = d.ID, string(d.Kind), event.ID, hookName(r, e),
			u.hookURL(e, ""), u.projectURL(project.ID, "/webhooks")
		p.Created, p.Finished, p.Test = d.CreatedAt, d.FinishedAt, d.RunID == ""
		if !p.Test {
			found, err := tx.Run(ctx, d.RunID)
			switch {
			case run.KindOf(err) == run.NotFound: // retention removed the run, and keeps the log longer
			case err != nil:
				return err
			default:
				p.RunURL, p.Subject = u.runURL(d.RunID), subjectOf(found)
			}
			if event.Group != found.CIBuildID {
				p.Group = event.Group
			}
		}
		var indented bytes.Buffer
		if json.Indent(&indented, event.Body(d), "", "  ") == nil {
			p.Payload = indented.String()
		}
		if d.State == webhook.Waiting {
			p.Live, p.Reload = 1, true
		}
		if r.may(auth.ManageWebhooks) && e.Enabled && (d.State != webhook.Waiting || d.Attempts > 0) {
			p.RetryURL = u.deliveryURL(project.ID, d.ID) + "/retry"
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return u.views.delivery.render(p)
}

// deliveryOf finds the delivery that an address names, in its project.
func (u *ui) deliveryOf(r *request, tx *store.Tx) (webhook.Delivery, webhook.Endpoint, run.Project, error) {
	project, err := tx.Project(r.Context(), r.PathValue("projectId"))
	if err != nil {
		return webhook.Delivery{}, webhook.Endpoint{}, project, err
	}
	d, err := tx.Delivery(r.Context(), r.PathValue("deliveryId"))
	if err != nil {
		return d, webhook.Endpoint{}, project, err
	}
	e, err := tx.Endpoint(r.Context(), d.EndpointID)
	if err == nil && e.ProjectID != project.ID {
		err = run.Missing("delivery", d.ID)
	}
	return d, e, project, err
}

func attemptOf(a webhook.Attempt) attemptView {
	v := attemptView{ID: "attempt-" + strconv.Itoa(a.Number), Number: a.Number, Word: responseOf(a), Tone: toneFail,
		Status: a.Status, Error: run.Plain(a.Error), At: a.StartedAt, Took: a.Duration, Request: headersOf(a.RequestHeaders),
		Response: headersOf(a.ResponseHeaders)}
	if a.Class == webhook.OK {
		v.Tone = tonePass
	}
	if a.Status > 0 && a.Class == webhook.BadStatus {
		v.Error = "" // the status says it
	}
	if utf8.Valid(a.ResponseBody) && !bytes.ContainsRune(a.ResponseBody, 0) {
		v.Body = run.Plain(string(a.ResponseBody))
	} else {
		v.Binary = len(a.ResponseBody)
	}
	return v
}

func (u *ui) retryDelivery(r *request) error {
	var d webhook.Delivery
	err := u.db.Read(r.Context(), func(tx *store.Tx) (err error) {
		d, _, _, err = u.deliveryOf(r, tx)
		return err
	})
	if err == nil {
		_, err = u.endpoints.Retry(r.Context(), d.ID)
	}
	if text, is := message(err); is {
		body, err := u.deliveryBody(r, text)
		return r.showOnce(http.StatusBadRequest, body, err)
	}
	if err != nil {
		return err
	}
	return r.to(u.deliveryURL(r.PathValue("projectId"), d.ID))
}

// replayPage asks which deliveries of a webhook to redeliver, and shows their number first.
type replayPage struct {
	layout
	Hook     string
	HookURL  string
	HooksURL string
	Since    string
	Until    string
	Run      string
	All      bool
	Counted  bool
	Count    int64
	Sent     bool
	Error    string
}

// The format of a time in the fields of browsers; ours are UTC.
const localTime = "2006-01-02T15:04"

func (u *ui) replayForm(r *request) error {
	since := time.Now().UTC().AddDate(0, 0, -1).Truncate(time.Minute).Format(localTime)
	return u.showReplay(r, http.StatusOK, replayPage{Since: since, Run: r.query("run")})
}

func (u *ui) showReplay(r *request, status int, p replayPage) error {
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		e, project, err := u.endpointOf(r, tx)
		if err != nil {
			return err
		}
		p.layout = u.layout(r, "Redeliver · "+hookName(r, e), toneIdle)
		p.Project = u.nav(project, "webhooks")
		p.Hook, p.HookURL, p.HooksURL = hookName(r, e), u.hookURL(e, ""), u.projectURL(project.ID, "/webhooks")
		return nil
	})
	if err != nil {
		return err
	}
	body, err := u.views.replay.render(p)
	return r.showOnce(status, body, err)
}

func (u *ui) replay(r *request) error {
	p := replayPage{Since: r.PostFormValue("since"), Until: r.PostFormValue("until"),
		Run: strings.TrimSpace(r.PostFormValue("run")), All: r.PostFormValue("all") != ""}
	ask := endpoint.Replay{All: p.All, RunID: p.Run, DryRun: r.PostFormValue("do") != "send"}
	var err error
	if ask.Since, err = time.Parse(localTime, p.Since); err != nil {
		p.Error = "Enter a start date and time."
		return u.showReplay(r, http.StatusBadRequest, p)
	}
	if p.Until != "" {
		if ask.Until, err = time.Parse(localTime, p.Until); err != nil {
			p.Error = "The end must be a date and time, or empty."
			return u.showReplay(r, http.StatusBadRequest, p)
		}
	}
	e, err := u.hookOf(r)
	if err == nil {
		p.Count, err = u.endpoints.Replay(r.Context(), e.ID, ask, r.by())
	}
	if text, is := message(err); is {
		p.Error = text
		return u.showReplay(r, http.StatusBadRequest, p)
	}
	if err != nil {
		return err
	}
	p.Counted, p.Sent = true, !ask.DryRun
	return u.showReplay(r, http.StatusOK, p)
}

// overviewPage shows the webhooks and deliveries of all projects, for admins.
type overviewPage struct {
	layout
	Depth  store.Backlog
	States []stateCount
	Hooks  []troubled
}

type stateCount struct {
	Word string
	Tone tone
	N    int64
}

// troubled is a webhook that is failing, or that Runbell disabled.
type troubled struct {
	Hook       hookView
	Project    string
	ProjectURL string
}

const troubledHooks = 50

func (u *ui) overview(r *request) error {
	ctx := r.Context()
	p := overviewPage{layout: u.layout(r, "Deliveries", toneIdle)}
	p.Section, p.Live = "deliveries", 5
	err := u.db.Read(ctx, func(tx *store.Tx) (err error) {
		if p.Depth, err = tx.Backlog(ctx); err != nil {
			return err
		}
		counts, err := tx.EndpointStates(ctx)
		if err != nil {
			return err
		}
		for _, s := range webhook.HealthStates() {
			word, tone := healthWord(webhook.Endpoint{}, webhook.Health{State: s})
			if s == webhook.Unused {
				word = "not used yet"
			}
			p.States = append(p.States, stateCount{word, tone, counts[s]})
		}
		list, err := tx.TroubledEndpoints(ctx, troubledHooks)
		if err != nil {
			return err
		}
		for _, e := range list {
			v, err := u.hookView(r, tx, e)
			if err != nil {
				return err
			}
			project, err := tx.Project(ctx, e.ProjectID)
			if err != nil {
				return err
			}
			p.Hooks = append(p.Hooks, troubled{v, project.Name, u.projectURL(project.ID, "/webhooks")})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.show(u.views.overview.render(p))
}
