package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/endpoint"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// hookFormPage makes or changes a webhook.
type hookFormPage struct {
	layout
	New      bool
	Action   string // of the form
	Preview  string // the address that shows it
	HooksURL string
	Hook     string // the name of the webhook that is edited
	Back     string
	Form     hookForm
	Sample   preview
	Error    string
}

// hookForm is what people fill in, as they typed it.
type hookForm struct {
	URL, Label     string
	Events, Scopes []choice
	Results        []choice
	Payloads       []choice
	Branches, Tags string // one in a line
	Headers        string // Name: value, one in a line
	InFlight, Rate string
	Ed25519        bool
}

// Advanced says whether one of the folded fields differs from its default.
func (f hookForm) Advanced() bool {
	return f.Headers != "" || f.Rate != "" || f.Ed25519 ||
		f.InFlight != "" && f.InFlight != strconv.Itoa(webhook.DefaultInFlight)
}

// preview is what a webhook with the settings of the form would have sent.
type preview struct {
	Payload string
	Of      string // the build of the body; "" is sample data
	Looked  int
	Runs    []previewRun
	// Deliveries is how many deliveries it would have made for all runs, Most for one.
	Deliveries, Most int
}

type previewRun struct {
	URL, Subject, Branch string
	Verdict              verdict
	Events               []string
	Deliveries           int
}

var (
	scopeWords = []choice{{Value: string(run.GroupScope),
		Text: "Per group: each named group of a run sends its own events."},
		{Value: string(run.RunScope), Text: "Per run: one start and one end for the whole run."}}
	payloadWords = []choice{{Value: string(webhook.DefaultForm), Text: "Default"},
		{Value: string(webhook.ExtendedForm), Text: "Extended: links, groups and the first failures as well"}}
	resultWords = []choice{{Value: "any", Text: "Any"}, {Value: "failed", Text: "Failed"},
		{Value: "passed", Text: "Passed"},
		{Value: "flaky", Text: "Flaky"}, {Value: "recovered", Text: "Recovered: passed after a failed run on the branch"}}
)

func kindChoices(on []webhook.Kind) []choice {
	var out []choice
	for _, k := range webhook.AllKinds() {
		out = append(out, choice{Value: string(k),
			Text: map[webhook.Kind]string{webhook.RunStart: "started", webhook.RunFinish: "finished",
				webhook.RunTimeout: "timed out", webhook.RunCanceled: "canceled",
				webhook.TestStatus: "tests became flaky, broken or healthy"}[k], Chosen: slices.Contains(on, k)})
	}
	return out
}

// formOfHook shows a webhook in the fields. Values of headers are secret: what
// stands for them means that they stay.
func formOfHook(e webhook.Endpoint) hookForm {
	f := hookForm{URL: e.URL, Label: e.Label, Events: kindChoices(e.Events),
		Branches: strings.Join(e.Filters.Branches, "\n"), Tags: strings.Join(e.Filters.Tags, "\n"),
		InFlight: strconv.Itoa(e.MaxInFlight), Ed25519: e.Private != ""}
	f.Scopes, _ = chosen(scopeWords, string(e.Scope))
	f.Results, _ = chosen(resultWords, string(e.Filters.Result))
	f.Payloads, _ = chosen(payloadWords, string(e.Payload))
	if e.RatePerMinute > 0 {
		f.Rate = strconv.Itoa(e.RatePerMinute)
	}
	names := make([]string, 0, len(e.Headers))
	for name := range e.Headers {
		names = append(names, name+": "+webhook.Masked)
	}
	slices.Sort(names)
	f.Headers = strings.Join(names, "\n")
	return f
}

func (r *request) hookForm() hookForm {
	f := hookForm{URL: strings.TrimSpace(r.PostFormValue("url")), Label: strings.TrimSpace(r.PostFormValue("label")),
		Branches: r.PostFormValue("branches"), Tags: r.PostFormValue("tags"), Headers: r.PostFormValue("headers"),
		InFlight: strings.TrimSpace(r.PostFormValue("inflight")), Rate: strings.TrimSpace(r.PostFormValue("rate")),
		Ed25519: r.PostFormValue("ed25519") != ""}
	var kinds []webhook.Kind
	for _, k := range r.PostForm["event"] {
		kinds = append(kinds, webhook.Kind(k))
	}
	f.Events = kindChoices(kinds)
	f.Scopes, _ = chosen(scopeWords, r.PostFormValue("scope"))
	f.Results, _ = chosen(resultWords, r.PostFormValue("result"))
	f.Payloads, _ = chosen(payloadWords, r.PostFormValue("payload"))
	return f
}

func lines(text string) []string {
	out := []string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func pick(list []choice) string {
	for _, c := range list {
		if c.Chosen {
			return c.Value
		}
	}
	return ""
}

// settings are those of the form; stored are the headers that stay where the
// form has only their names.
func (f hookForm) settings(stored map[string]string) (endpoint.Settings, error) {
	headers := map[string]string{}
	for _, line := range lines(f.Headers) {
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok {
			return endpoint.Settings{}, run.Errorf(run.Invalid, "Write each header as Name: value, one per line.")
		}
		if value == webhook.Masked {
			if value, ok = stored[name]; !ok {
				return endpoint.Settings{}, run.Errorf(run.Invalid, "The header %s has no value yet. Write it after the colon.",
					run.Clip(name, 80))
			}
		}
		if _, twice := headers[name]; twice {
			return endpoint.Settings{}, run.Errorf(run.Invalid, "The header %s is listed twice.", run.Clip(name, 80))
		}
		headers[name] = value
	}
	number := func(text, name string) (int, error) {
		if text == "" {
			return 0, nil
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, run.Errorf(run.Invalid, "%s must be a whole number.", name)
		}
		return n, nil
	}
	inFlight, err := number(f.InFlight, "The concurrency")
	if err != nil {
		return endpoint.Settings{}, err
	}
	if f.InFlight == "" {
		inFlight = webhook.DefaultInFlight
	}
	rate, err := number(f.Rate, "The requests per minute")
	if err != nil {
		return endpoint.Settings{}, err
	}
	kinds := []webhook.Kind{}
	for _, c := range f.Events {
		if c.Chosen {
			kinds = append(kinds, webhook.Kind(c.Value))
		}
	}
	branches, tags, scope, result := lines(f.Branches), lines(f.Tags), run.Scope(pick(f.Scopes)),
		webhook.Result(pick(f.Results))
	payload := webhook.Form(pick(f.Payloads))
	return endpoint.Settings{Payload: &payload, URL: &f.URL, Headers: &headers, Events: &kinds, Label: &f.Label,
		Scope: &scope, Branches: &branches, Tags: &tags, Result: &result, MaxInFlight: &inFlight, RatePerMinute: &rate,
		Ed25519: &f.Ed25519}, nil
}

// newHook shows the form for a new webhook.
func (u *ui) newHook(r *request) error {
	e := webhook.NewEndpoint("", r.PathValue("projectId"))
	return u.showHookForm(r, http.StatusOK, hookFormPage{New: true, Form: formOfHook(e)})
}

// showHookForm shows the form with the preview of what is in it.
func (u *ui) showHookForm(r *request, status int, p hookFormPage) error {
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		project, err := tx.Project(r.Context(), r.PathValue("projectId"))
		if err != nil {
			return err
		}
		title, at := "New webhook", u.projectURL(project.ID, "/webhooks")
		p.HooksURL, p.Action, p.Preview, p.Back = at, at+"/new", at+"/preview", at
		if !p.New {
			e, _, err := u.endpointOf(r, tx)
			if err != nil {
				return err
			}
			title, at = "Edit webhook", u.hookURL(e, "")
			p.Hook, p.Action, p.Preview, p.Back = hookName(r, e), at+"/edit", at+"/preview", at
		}
		p.layout = u.layout(r, title+" · "+project.Name, toneIdle)
		p.Project = u.nav(project, "webhooks")
		p.Sample, err = u.previewOf(r, tx, project, p.Form)
		return err
	})
	if err != nil {
		return err
	}
	body, err := u.views.hookForm.render(p)
	return r.showOnce(status, body, err)
}

// previewHook shows the form as it was sent, with the preview of it. Nothing is
// stored.
func (u *ui) previewHook(r *request) error {
	return u.showHookForm(r, http.StatusOK, hookFormPage{New: r.PathValue("hookId") == "", Form: r.hookForm()})
}

func (u *ui) createHook(r *request) error {
	f := r.hookForm()
	settings, err := f.settings(nil)
	var e webhook.Endpoint
	if err == nil {
		e, err = u.endpoints.Create(r.Context(), r.PathValue("projectId"), settings, r.by())
	}
	if text, is := message(err); is {
		return u.showHookForm(r, http.StatusBadRequest, hookFormPage{New: true, Form: f, Error: text})
	}
	if err != nil {
		return err
	}
	r.SetPathValue("hookId", e.ID)
	return u.showSecret(r, e)
}

func (u *ui) editHook(r *request) error {
	e, err := u.hookOf(r)
	if err != nil {
		return err
	}
	return u.showHookForm(r, http.StatusOK, hookFormPage{Form: formOfHook(e)})
}

func (u *ui) saveHook(r *request) error {
	e, err := u.hookOf(r)
	if err != nil {
		return err
	}
	f := r.hookForm()
	settings, err := f.settings(e.Headers)
	if err == nil {
		_, _, err = u.endpoints.Change(r.Context(), e.ID, settings, r.by())
	}
	if text, is := message(err); is {
		return u.showHookForm(r, http.StatusBadRequest, hookFormPage{Form: f, Error: text})
	}
	if err != nil {
		return err
	}
	return r.to(u.hookURL(e, "?done=saved"))
}

// What a preview looks at, and lists.
const (
	previewLooks = 100
	previewRuns  = 8
)

// previewOf tells what a webhook with these settings would have sent of the
// latest runs.
func (u *ui) previewOf(r *request, tx *store.Tx, project run.Project, f hookForm) (preview, error) {
	var p preview
	e := webhook.NewEndpoint("", project.ID)
	e.Scope, e.Filters = run.Scope(pick(f.Scopes)),
		webhook.Filters{Branches: lines(f.Branches), Tags: lines(f.Tags), Result: webhook.Result(pick(f.Results))}
	e.Payload, e.Events = webhook.Form(pick(f.Payloads)), nil
	for _, c := range f.Events {
		if c.Chosen {
			e.Events = append(e.Events, webhook.Kind(c.Value))
		}
	}
	runs, _, err := tx.Runs(r.Context(), project.ID, store.RunFilter{}, store.Page{Limit: previewLooks})
	if err != nil {
		return p, err
	}
	p.Looked = len(runs)
	ids := make([]string, len(runs))
	for n, v := range runs {
		ids[n] = v.ID
	}
	groups, err := tx.GroupsOf(r.Context(), ids)
	if err != nil {
		return p, err
	}
	var latest *wouldBe
	for _, v := range runs {
		sent, err := u.wouldSend(r.Context(), tx, e, v, groups[v.ID], project)
		if err != nil {
			return p, err
		}
		if len(sent) == 0 {
			continue
		}
		p.Deliveries, p.Most = p.Deliveries+len(sent), max(p.Most, len(sent))
		if latest == nil {
			latest, p.Of = &sent[len(sent)-1], subjectOf(v)
		}
		if len(p.Runs) == previewRuns {
			continue
		}
		line := previewRun{URL: u.runURL(v.ID), Subject: subjectOf(v), Branch: v.Commit.Branch, Deliveries: len(sent)}
		var counts run.Counts
		for _, g := range groups[v.ID] {
			counts = counts.Plus(g.Counts)
		}
		line.Verdict = verdictOf(v.State, counts)
		of := map[webhook.Kind]int{}
		for _, s := range sent {
			of[s.event.Kind]++
		}
		for _, k := range webhook.Kinds() {
			if word := string(k); of[k] > 1 {
				line.Events = append(line.Events, fmt.Sprintf("%s ×%d", word, of[k]))
			} else if of[k] == 1 {
				line.Events = append(line.Events, word)
			}
		}
		p.Runs = append(p.Runs, line)
	}
	body := webhook.ExtendedPayload{}
	if latest == nil {
		body = endpoint.Sample(webhook.RunFinish, project, u.public, tx.Now)
	} else {
		body.Payload = latest.payload
		if e.NeedsFacts() {
			if body.Facts, err = lifecycle.Facts(r.Context(), tx, latest.event, u.runs.LinkTo()); err != nil {
				return p, err
			}
		}
	}
	p.Payload, err = indented(body, e.Payload)
	return p, err
}

// indented is a body as people read it.
func indented(p webhook.ExtendedPayload, form webhook.Form) (string, error) {
	body := p.Payload.Bytes()
	if form == webhook.ExtendedForm {
		body = p.Bytes()
	}
	var b bytes.Buffer
	err := json.Indent(&b, body, "", "  ")
	return b.String(), err
}

// wouldBe is a webhook that a run has caused.
type wouldBe struct {
	event   webhook.Event // without its documents
	payload webhook.Payload
}

// wouldSend lists the webhooks that a run has caused at an endpoint, oldest first.
// It applies the rules that decide what is sent.
func (u *ui) wouldSend(ctx context.Context, tx *store.Tx, e webhook.Endpoint, v run.Run, groups []run.Group,
	project run.Project) ([]wouldBe, error) {
	var starts, ends []wouldBe
	runURL := u.public + "/run/" + v.ID
	note := func(list *[]wouldBe, at run.State, g *run.Group, counts run.Counts, when time.Time) (err error) {
		event := webhook.Event{ProjectID: e.ProjectID, RunID: v.ID, Scope: e.Scope, Kind: webhook.KindOf(at),
			CreatedAt: when}
		if g != nil {
			event.Group = g.Name
		}
		subject := webhook.Subject{Branch: v.Commit.Branch, Tags: v.Tags, Results: webhook.ResultsOf(at, counts)}
		if e.Filters.Result == webhook.Recovered {
			subject.Results, err = webhook.WithRecovered(subject.Results, func() (bool, error) {
				return lifecycle.FailedBefore(ctx, tx,
					lifecycle.Result{ProjectID: v.ProjectID, RunID: v.ID, Branch: v.Commit.Branch, Scope: e.Scope, Group: g, At: when})
			})
		}
		if e.Wants(event, subject) {
			*list = append(*list, wouldBe{event, webhook.NewPayload(event.Kind, v, g, counts, runURL, project.DefaultBranch)})
		}
		return err
	}
	add := func(state run.State, g *run.Group, counts run.Counts, over time.Time) error {
		err := note(&starts, run.Running, g, run.Counts{}, v.CreatedAt)
		if state.Terminal() {
			err = errors.Join(err, note(&ends, state, g, counts, over))
		}
		return err
	}
	if e.Scope == run.RunScope {
		var all run.Counts
		for _, g := range groups {
			all = all.Plus(g.Counts)
		}
		err := add(v.State, nil, all, v.FinishedAt)
		return append(starts, ends...), err
	}
	for n, g := range groups {
		if err := add(g.State, &groups[n], g.Counts, g.FinishedAt); err != nil {
			return nil, err
		}
	}
	return append(starts, ends...), nil
}
