package ui

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	projectsPerPage = 50
	recentRuns      = 30 // in the bar of a project
)

// homePage lists the projects.
type homePage struct {
	layout
	Projects  []projectView
	NewURL    string // "" for who may not make one
	Older     string
	Done      string
	PublicURL string
}

// projectView is a project as a line of the list.
type projectView struct {
	Name, ID, URL string
	Branch        string // of the runs that are shown; "" is all
	Latest        *latestRun
	Rate          string // of passed runs, "" if none has ended
	Bar           []barRun
}

type latestRun struct {
	URL     string
	Build   string
	Verdict verdict
	Counts  run.Counts
	At      time.Time
}

// barRun is a run in the bar of a project: as high as it took long.
type barRun struct {
	Tone       tone
	X, Y, H    int
	Word, Text string
	URL        string
}

func (u *ui) home(r *request) error {
	p := homePage{layout: u.layout(r, "Projects", toneIdle), Done: done[r.query("done")], PublicURL: u.public}
	p.Section = "projects"
	p.Live = 5
	if r.may(auth.ManageProjects) {
		p.NewURL = u.base + "/new-project"
	}
	page := store.Page{Limit: projectsPerPage, After: positionOf(r.query("after"))}
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		list, more, err := tx.Projects(r.Context(), page)
		if err != nil {
			return err
		}
		for _, project := range list {
			recent, err := tx.RecentRuns(r.Context(), project.ID, project.DefaultBranch, recentRuns)
			if err != nil {
				return err
			}
			p.Projects = append(p.Projects, u.projectView(project, recent))
		}
		if more {
			last := list[len(list)-1]
			p.Older = u.base + "/?after=" + store.Position{At: last.CreatedAt, ID: last.ID}.Cursor()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.show(u.views.home.render(p))
}

// The bar of a project is so high, in its own units.
const barHeight = 24

func (u *ui) projectView(project run.Project, recent []store.RecentRun) projectView {
	v := projectView{Name: project.Name, ID: project.ID, URL: u.projectURL(project.ID, ""), Branch: project.DefaultBranch}
	var ended, passed int
	longest := time.Duration(1)
	for _, r := range recent {
		longest = max(longest, r.Elapsed(r.LastReport, r.LastReport))
		if r.State.Terminal() {
			ended++
			if run.StatusOf(r.State, r.Counts) == run.StatusPassed {
				passed++
			}
		}
	}
	for n, r := range recent {
		verdict := verdictOf(r.State, r.Counts)
		b := barRun{Tone: verdict.Tone, Word: verdict.Word, URL: u.runURL(r.ID), H: barHeight, X: 8 * (recentRuns - 1 - n)}
		if r.Counts.Flaky > 0 && verdict.Tone == tonePass {
			b.Tone = toneFlaky
		}
		b.Text = run.Clip(r.CIBuildID, 60) + ": " + verdict.Word
		if r.State.Terminal() {
			took := r.Elapsed(r.LastReport, r.LastReport)
			b.H = max(4, int(barHeight*took/longest))
			b.Text += ", " + span(took)
		}
		b.Y = barHeight - b.H
		v.Bar = append(v.Bar, b)
	}
	if ended > 0 {
		v.Rate = strconv.Itoa(100*passed/ended) + " %"
	}
	if len(recent) > 0 {
		latest := recent[0]
		v.Latest = &latestRun{URL: u.runURL(latest.ID), Build: latest.CIBuildID, Verdict: verdictOf(latest.State, latest.Counts), Counts: latest.Counts, At: latest.CreatedAt}
	}
	return v
}

// settingsForm is what people fill in of a project, as they typed it.
type settingsForm struct {
	Name, ID      string
	Inactivity    string // minutes
	Completion    string // seconds
	DefaultBranch string
	FailFast      string
	Retention     string // days
	PublicRuns    bool
}

func formOf(p run.Project) settingsForm {
	f := settingsForm{Name: p.Name, ID: p.ID, DefaultBranch: p.DefaultBranch, PublicRuns: p.PublicRuns,
		Inactivity: strconv.FormatFloat(p.InactivityTimeout.Minutes(), 'f', -1, 64),
		Completion: strconv.Itoa(int(p.CompletionDelay.Seconds())), FailFast: strconv.Itoa(p.FailFast), Retention: strconv.Itoa(p.RetentionDays)}
	return f
}

func (r *request) settingsForm() settingsForm {
	v := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	return settingsForm{Name: v("name"), ID: v("id"), Inactivity: v("inactivity"), Completion: v("completion"), DefaultBranch: v("branch"),
		FailFast: v("failfast"), Retention: v("retention"), PublicRuns: r.PostFormValue("public") != ""}
}

// The least silence that the dashboard lets people set; over the API, which
// tests use, it may be shorter.
const minInactivity = 3 * time.Minute

// apply changes p, or says which field is wrong. What people leave as it was is
// never wrong.
func (f settingsForm) apply(p *run.Project) error {
	number := func(text, name string, unit time.Duration, now, least, most int64) (int64, error) {
		n, err := strconv.ParseFloat(text, 64)
		value := int64(n * float64(unit))
		if err != nil || value != now && (value < least || value > most) {
			return 0, run.Errorf(run.Invalid, "%s must be a number from %d to %d.", name, least/int64(unit), most/int64(unit))
		}
		return value, nil
	}
	if f.Name == "" || !run.ValidName(f.Name) {
		return run.Errorf(run.Invalid, "The name must have 1 to %d characters.", run.MaxNameLength)
	}
	if !run.ValidName(f.DefaultBranch) {
		return run.Errorf(run.Invalid, "The default branch must have at most %d characters.", run.MaxNameLength)
	}
	inactivity, err := number(f.Inactivity, "The inactivity timeout", time.Minute, int64(p.InactivityTimeout), int64(minInactivity), int64(run.MaxInactivity))
	if err != nil {
		return err
	}
	completion, err := number(f.Completion, "The completion delay", time.Second, int64(p.CompletionDelay), 0, int64(run.MaxCompletion))
	if err != nil {
		return err
	}
	failFast, err := number(f.FailFast, "The number of failures", 1, int64(p.FailFast), 0, run.MaxFailFast)
	if err != nil {
		return err
	}
	retention, err := number(f.Retention, "The number of days", 1, int64(p.RetentionDays), 1, run.MaxRetentionDays)
	if err != nil {
		return err
	}
	p.Name, p.DefaultBranch, p.PublicRuns = f.Name, f.DefaultBranch, f.PublicRuns
	p.InactivityTimeout, p.CompletionDelay = time.Duration(inactivity).Truncate(time.Second), time.Duration(completion).Truncate(time.Second)
	p.FailFast, p.RetentionDays = int(failFast), int(retention)
	return nil
}

// newProjectPage asks for a project.
type newProjectPage struct {
	layout
	Form  settingsForm
	Error string
}

func (u *ui) newProject(r *request) error {
	return u.showNewProject(r, newProjectPage{Form: formOf(run.NewProject(""))})
}

func (u *ui) showNewProject(r *request, p newProjectPage) error {
	p.layout = u.layout(r, "New project", toneIdle)
	p.Section = "projects"
	body, err := u.views.newProject.render(p)
	status := http.StatusOK
	if p.Error != "" {
		status = http.StatusBadRequest
	}
	return r.showOnce(status, body, err)
}

func (u *ui) createProject(r *request) error {
	f := r.settingsForm()
	p := run.NewProject(f.ID)
	defaults := formOf(p)
	f.Inactivity, f.Completion, f.FailFast, f.Retention = defaults.Inactivity, defaults.Completion, defaults.FailFast, defaults.Retention
	err := f.apply(&p)
	var key string
	if err == nil {
		p, key, err = u.projects.Create(r.Context(), p)
	}
	if text, is := message(err); is {
		return u.showNewProject(r, newProjectPage{Form: f, Error: text})
	}
	if err != nil {
		return err
	}
	return u.showStart(r, p, key)
}

// startPage says how the first run of a project is recorded.
type startPage struct {
	layout
	Start start
}

// start is what a reporter needs to know.
type start struct {
	ID  string
	Key string // "" if it is not known here: it was shown once
	URL string
	// KeysURL is where one who may makes another key.
	KeysURL string
}

func (u *ui) startOf(r *request, p run.Project, key string) start {
	s := start{ID: p.ID, Key: key, URL: strings.Replace(u.public, "//localhost", "//127.0.0.1", 1)} // Node may try IPv6 first
	if r.may(auth.ManageProjects) {
		s.KeysURL = u.projectURL(p.ID, "/settings#keys")
	}
	return s
}

func (u *ui) showStart(r *request, p run.Project, key string) error {
	page := startPage{layout: u.layout(r, p.Name, toneIdle), Start: u.startOf(r, p, key)}
	page.Project = u.nav(p, "runs")
	body, err := u.views.start.render(page)
	return r.showOnce(http.StatusOK, body, err)
}

// settingsPage has all that can be set of a project.
type settingsPage struct {
	layout
	URL       string // of the project
	Form      settingsForm
	Keys      []keyView
	RevokeURL string
	New       string // a record key that was just made; shown once
	Label     string
	Done      string
	Error     string
	Typed     string // instead of the name, to delete the project
}

func (u *ui) settings(r *request) error { return u.showSettings(r, settingsPage{}) }

// showSettings shows the page; what is already in p was typed or just made.
func (u *ui) showSettings(r *request, p settingsPage) error {
	id := r.PathValue("projectId")
	p.Done = done[r.query("done")]
	p.URL, p.RevokeURL = u.projectURL(id, ""), u.projectURL(id, "/keys/revoke")
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		project, err := tx.Project(r.Context(), id)
		if err != nil {
			return err
		}
		p.layout = u.layout(r, "Settings · "+project.Name, toneIdle)
		p.Project = u.nav(project, "settings")
		if p.Form.ID == "" {
			p.Form = formOf(project)
		}
		keys, err := tx.RecordKeys(r.Context(), id)
		for _, k := range keys {
			p.Keys = append(p.Keys, keyView{ID: k.ID, Label: k.Label, Hint: k.Hint, Created: k.CreatedAt, Used: k.UsedAt})
		}
		return err
	})
	if err != nil {
		return err
	}
	body, err := u.views.settings.render(p)
	status := http.StatusOK
	if p.Error != "" {
		status = http.StatusBadRequest
	}
	return r.showOnce(status, body, err)
}

func (u *ui) saveSettings(r *request) error {
	id := r.PathValue("projectId")
	f := r.settingsForm()
	f.ID = id
	_, err := u.projects.Change(r.Context(), id, f.apply)
	if text, is := message(err); is {
		return u.showSettings(r, settingsPage{Form: f, Error: text})
	}
	if err != nil {
		return err
	}
	return r.to(u.projectURL(id, "/settings?done=saved"))
}

func (u *ui) createRecordKey(r *request) error {
	label := r.PostFormValue("label")
	_, key, err := u.keys.CreateRecordKey(r.Context(), r.PathValue("projectId"), label)
	if text, is := message(err); is {
		return u.showSettings(r, settingsPage{Error: text})
	}
	if err != nil {
		return err
	}
	return u.showSettings(r, settingsPage{New: key, Label: label})
}

func (u *ui) revokeRecordKey(r *request) error {
	id := r.PathValue("projectId")
	if err := u.keys.RevokeRecordKey(r.Context(), id, r.PostFormValue("id")); err != nil {
		return err
	}
	return r.to(u.projectURL(id, "/settings?done=revoked#keys"))
}

func (u *ui) deleteProject(r *request) error {
	id := r.PathValue("projectId")
	if typed := strings.TrimSpace(r.PostFormValue("confirm")); typed != id {
		return u.showSettings(r, settingsPage{Typed: typed, Error: fmt.Sprintf("To delete the project, type its id, %s.", id)})
	}
	if err := u.projects.Delete(r.Context(), id); err != nil {
		return err
	}
	return r.to(u.base + "/?done=deleted")
}
