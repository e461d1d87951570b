package ui

import (
	"fmt"
	"net/http"
	"net/url"
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

// homePage lists the projects, those with the newest runs first.
type homePage struct {
	layout
	Projects  []projectView
	Text      string // of the search
	NewURL    string // "" if the reader may not create one
	Page      pager
	Done      string
	PublicURL string
}

// projectView is a project as a line of the list.
type projectView struct {
	Name, ID, URL string
	Branch        string // of the runs that are shown; "" is all
	Running       int    // runs
	RunningURL    string
	Latest        *latestRun
	Strip         *strip
}

type latestRun struct {
	crumbs
	Counts run.Counts
	At     time.Time
}

// strip draws the latest runs of a branch, or of a project.
type strip struct {
	Branch  string // "" is all
	Rate    int    // percent of the ended runs that passed
	Ended   int
	Bars    []barRun
	Longest time.Duration
}

// barRun is a run in a strip: its height is its duration.
type barRun struct {
	Tone    tone
	X, Y, H int
	Text    string
	URL     string
}

func (u *ui) home(r *request) error {
	p := homePage{layout: u.layout(r, "Projects", toneIdle), Text: run.Clip(strings.TrimSpace(r.query("q")), maxSearch),
		Done: done[r.query("done")], PublicURL: u.public}
	p.Section = "projects"
	p.Live = 5
	if r.may(auth.ManageProjects) {
		p.NewURL = u.base + "/new-project"
	}
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		list, err := tx.ProjectsByActivity(r.Context(), p.Text)
		if err != nil {
			return err
		}
		var from, to int
		p.Page, from, to = pagerOf(r, len(list), projectsPerPage, func(n int) string {
			q := url.Values{"page": {strconv.Itoa(n)}}
			if p.Text != "" {
				q.Set("q", p.Text)
			}
			return withValues(u.base+"/", q)
		})
		for _, a := range list[from:to] {
			project, err := tx.Project(r.Context(), a.ID)
			if err != nil {
				return err
			}
			recent, err := tx.RecentRuns(r.Context(), project.ID, project.DefaultBranch, recentRuns)
			if err != nil {
				return err
			}
			v := u.projectView(project, recent)
			v.Running = a.Running
			p.Projects = append(p.Projects, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.show(u.views.home.render(p))
}

// The height of a strip in its own units.
const barHeight = 24

func (u *ui) projectView(project run.Project, recent []store.RecentRun) projectView {
	v := projectView{Name: project.Name, ID: project.ID, URL: u.projectURL(project.ID, ""), Branch: project.DefaultBranch,
		RunningURL: u.projectURL(project.ID, "?status=running")}
	if len(recent) > 0 {
		latest := recent[0]
		v.Latest = &latestRun{crumbs: u.crumbs(latest.Run, project, []run.Group{{Counts: latest.Counts}}),
			Counts: latest.Counts, At: latest.CreatedAt}
		v.Strip = u.stripOf(project, recent)
	}
	return v
}

func (u *ui) stripOf(project run.Project, recent []store.RecentRun) *strip {
	s := strip{Branch: project.DefaultBranch}
	passed, longest := 0, time.Duration(1)
	took := func(r store.RecentRun) time.Duration { return r.Elapsed(r.LastReport, r.LastReport) }
	for _, r := range recent {
		longest = max(longest, took(r))
		if r.State.Terminal() {
			if r.State == run.Finished && r.Counts.Green() && !r.Counts.Ran() {
				continue // no test ran: nothing to rate
			}
			s.Ended++
			if run.StatusOf(r.State, r.Counts) == run.StatusPassed {
				passed++
			}
		}
	}
	for n, r := range recent {
		verdict := verdictOf(r.State, r.Counts)
		b := barRun{Tone: verdict.Tone, URL: u.runURL(r.ID), H: barHeight, X: 8 * (recentRuns - 1 - n),
			Text: run.Clip(subjectOf(r.Run), 60) + ": " + verdict.Word}
		if r.Counts.Flaky > 0 && verdict.Tone == tonePass {
			b.Tone = toneFlaky
		}
		if r.State.Terminal() {
			b.H = max(4, int(barHeight*took(r)/longest))
			b.Text += ", " + span(took(r))
		}
		b.Y = barHeight - b.H
		s.Bars = append(s.Bars, b)
	}
	if s.Ended > 0 {
		s.Rate = 100 * passed / s.Ended
	}
	return &s
}

// settingsForm is the form of a project's settings, as people filled it in.
type settingsForm struct {
	Name, ID      string
	Inactivity    string // minutes
	Completion    string // seconds
	DefaultBranch string
	FailFast      string
	// Days; ArtifactBytes is a size.
	Runs, FailedArtifacts, PassedArtifacts, ArtifactBytes, Output, Retention string
	PublicRuns                                                               bool
}

func formOf(p run.Project) settingsForm {
	f := settingsForm{Name: p.Name, ID: p.ID, DefaultBranch: p.DefaultBranch, PublicRuns: p.PublicRuns,
		Inactivity: strconv.FormatFloat(p.InactivityTimeout.Minutes(), 'f', -1, 64),
		Completion: strconv.Itoa(int(p.CompletionDelay.Seconds())), FailFast: strconv.Itoa(p.FailFast)}
	f.setRetention(p.Keep)
	return f
}

func (f *settingsForm) setRetention(k run.Retention) {
	f.Runs, f.FailedArtifacts, f.PassedArtifacts = strconv.Itoa(k.Runs), strconv.Itoa(k.FailedArtifacts),
		strconv.Itoa(k.PassedArtifacts)
	f.Output, f.Retention = strconv.Itoa(k.Output), strconv.Itoa(k.Deliveries)
	// As people write it, and exact: a size that has no short form is written in bytes.
	f.ArtifactBytes = run.FormatSize(k.ArtifactBytes)
	if n, err := run.ParseSize(f.ArtifactBytes); err != nil || n != k.ArtifactBytes || n == 0 {
		f.ArtifactBytes = strconv.FormatInt(k.ArtifactBytes, 10)
	}
}

// retention is the retention in the form.
func (f settingsForm) retention() (k run.Retention, err error) {
	for _, days := range []struct {
		text, name string
		least      int
		into       *int
	}{
		{f.Runs, "runs", 0, &k.Runs}, {f.FailedArtifacts, "artifacts of failed and flaky runs", 0, &k.FailedArtifacts},
		{f.PassedArtifacts, "artifacts of other runs", 0, &k.PassedArtifacts}, {f.Output, "console output", 0, &k.Output},
		{f.Retention, "the delivery log", 1, &k.Deliveries},
	} {
		n, err := strconv.Atoi(days.text)
		if err != nil || n < days.least || n > run.MaxRetentionDays {
			return k, run.Errorf(run.Invalid, "The number of days to keep %s must be from %d to %d.", days.name, days.least,
				run.MaxRetentionDays)
		}
		*days.into = n
	}
	k.ArtifactBytes, err = run.ParseSize(f.ArtifactBytes)
	return k, err
}

func (r *request) settingsForm() settingsForm {
	v := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	return settingsForm{Name: v("name"), ID: v("id"), Inactivity: v("inactivity"), Completion: v("completion"),
		DefaultBranch: v("branch"),
		FailFast:      v("failfast"), Runs: v("rundays"), FailedArtifacts: v("failedartifacts"),
		PassedArtifacts: v("passedartifacts"),
		ArtifactBytes:   v("artifactbytes"), Output: v("output"), Retention: v("retention"),
		PublicRuns: r.PostFormValue("public") != ""}
}

// The shortest inactivity timeout that people can set on the dashboard. The API, which tests use, allows shorter
// ones.
const minInactivity = 3 * time.Minute

// apply changes p, or says which field is wrong. An unchanged field is never wrong.
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
	inactivity, err := number(f.Inactivity, "The inactivity timeout", time.Minute, int64(p.InactivityTimeout),
		int64(minInactivity), int64(run.MaxInactivity))
	if err != nil {
		return err
	}
	completion, err := number(f.Completion, "The completion delay", time.Second, int64(p.CompletionDelay), 0,
		int64(run.MaxCompletion))
	if err != nil {
		return err
	}
	failFast, err := number(f.FailFast, "The number of failures", 1, int64(p.FailFast), 0, run.MaxFailFast)
	if err != nil {
		return err
	}
	keep, err := f.retention()
	if err != nil {
		return err
	}
	p.Name, p.DefaultBranch, p.PublicRuns = f.Name, f.DefaultBranch, f.PublicRuns
	p.InactivityTimeout, p.CompletionDelay = time.Duration(inactivity).Truncate(time.Second),
		time.Duration(completion).Truncate(time.Second)
	p.FailFast, p.Keep = int(failFast), keep
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
	f.Inactivity, f.Completion, f.FailFast = defaults.Inactivity, defaults.Completion, defaults.FailFast
	f.setRetention(p.Keep)
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

// start is what people need to start a reporter.
type start struct {
	ID  string
	Key string // "" if it is not known here: it was shown once
	URL string
	// KeysURL is where an admin creates another key.
	KeysURL string
}

func (u *ui) startOf(r *request, p run.Project, key string) start {
	s := start{ID: run.ShellWord(p.ID), Key: key,
		URL: strings.Replace(u.public, "//localhost", "//127.0.0.1", 1)} // Node may try IPv6 first
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

// settingsPage has all settings of a project.
type settingsPage struct {
	layout
	URL       string // of the project
	Form      settingsForm
	Usage     store.Usage
	Removed   store.Sweep // last
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
		if p.Usage, err = tx.Usage(r.Context(), id); err != nil {
			return err
		}
		if p.Removed, err = tx.LastSweep(r.Context(), id); err != nil {
			return err
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
		return u.showSettings(r, settingsPage{Typed: typed,
			Error: fmt.Sprintf("To delete the project, type its id, %s.", id)})
	}
	if err := u.projects.Delete(r.Context(), id); err != nil {
		return err
	}
	return r.to(u.base + "/?done=deleted")
}

// removal lists what retention removed from a project.
func removal(r store.Removed) string {
	var parts []string
	for _, p := range []struct {
		n    int
		text string
	}{
		{r.Runs, count(r.Runs, "run")},
		{r.Artifacts, count(r.Artifacts, "artifact") + " (" + run.FormatSize(r.ArtifactBytes) + ")"},
		{r.Outputs, "console output of " + count(r.Outputs, "run")},
		{r.Deliveries, count(r.Deliveries, "delivery")},
	} {
		if p.n > 0 {
			parts = append(parts, p.text)
		}
	}
	return strings.Join(parts, ", ")
}
