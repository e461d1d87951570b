package ui

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	runsPerPage = 50
	maxSearch   = 200 // characters
)

// feedPage lists the runs of a project, newest first.
type feedPage struct {
	layout
	Filter  filterForm
	Runs    []runLine
	Newest  string // the first page, "" on it
	Newer   string
	Older   string
	Further string // looks at older runs than this search did
	Looked  int    // at how many runs, if not at all
	Start   *start // of a project that has no run yet
}

// filterForm is the filter as its fields show it.
type filterForm struct {
	URL                       string
	Active                    bool
	Branch, Author, Tag, Text string
	From, To                  string
	Statuses, Completions     []choice
	Branches, Authors, Tags   []string // to choose from
}

// runLine is a run in the list.
type runLine struct {
	URL, Build string
	Verdict    verdict
	Tone       tone
	Subject    string
	Commit     string
	CommitURL  string
	Branch     string
	Author     string
	CI, CIURL  string
	Tags       []string
	Groups     []string
	MoreGroups int
	Counts     run.Counts
	Completed  int
	Specs      int
	Running    bool
	Started    time.Time
	Elapsed    elapsed
	BranchURL  string
	AuthorURL  string
}

// positionOf reads a cursor; nil if it is none.
func positionOf(s string) *store.Position {
	if p, ok := store.ParseCursor(s); ok {
		return &p
	}
	return nil
}

var (
	statusWords     = []choice{{Value: "RUNNING", Text: "Running"}, {Value: "FAILING", Text: "Failing"}, {Value: "PASSED", Text: "Passed"}, {Value: "FAILED", Text: "Failed"}}
	completionWords = []choice{{Value: "IN_PROGRESS", Text: "In progress"}, {Value: "COMPLETE", Text: "Complete"}, {Value: "CANCELED", Text: "Canceled"}, {Value: "TIMEOUT", Text: "Timed out"}}
	completionState = map[string]run.State{"IN_PROGRESS": run.Running, "COMPLETE": run.Finished, "CANCELED": run.Canceled, "TIMEOUT": run.TimedOut}
)

// chosen marks the choice with a value; a value that is none is left out.
func chosen(list []choice, value string) ([]choice, string) {
	out, found := slices.Clone(list), ""
	for n := range out {
		if out[n].Value == value {
			out[n].Chosen, found = true, value
		}
	}
	return out, found
}

// filterOf reads the filter of the address. What makes no sense there is left
// out, and so does not show in the fields.
func (u *ui) filterOf(r *request, projectID string) (store.RunFilter, filterForm, url.Values) {
	f, form, query := store.RunFilter{}, filterForm{URL: u.projectURL(projectID, "")}, url.Values{}
	text := func(name string) string {
		v := run.Clip(strings.TrimSpace(r.query(name)), maxSearch)
		if v != "" {
			query.Set(name, v)
		}
		return v
	}
	if form.Branch = text("branch"); form.Branch != "" {
		f.Branches = []string{form.Branch}
	}
	if form.Author = text("author"); form.Author != "" {
		f.Authors = []string{form.Author}
	}
	if form.Tag = text("tag"); form.Tag != "" {
		f.Tags = []string{form.Tag}
	}
	form.Text = text("q")
	f.Search = form.Text
	var word string
	if form.Statuses, word = chosen(statusWords, r.query("status")); word != "" {
		f.Statuses = []run.Status{run.Status(word)}
		query.Set("status", word)
	}
	if form.Completions, word = chosen(completionWords, r.query("state")); word != "" {
		f.States = []run.State{completionState[word]}
		query.Set("state", word)
	}
	f.Since, f.Until = r.days(query)
	form.From, form.To = query.Get("from"), query.Get("to")
	form.Active = len(query) > 0
	return f, form, query
}

// days are those that an address asks for, from the first on and before the one
// after the last. They are noted in query, too.
func (r *request) days(query url.Values) (since, until time.Time) {
	day := func(name string) time.Time {
		at, err := time.Parse(time.DateOnly, r.query(name))
		if err == nil {
			query.Set(name, at.Format(time.DateOnly))
		}
		return at
	}
	since, until = day("from"), day("to")
	if !until.IsZero() {
		until = until.AddDate(0, 0, 1)
	}
	return since, until
}

func (u *ui) feed(r *request) error {
	ctx := r.Context()
	var p feedPage
	err := u.db.Read(ctx, func(tx *store.Tx) error {
		project, err := tx.Project(ctx, r.PathValue("projectId"))
		if err != nil {
			return err
		}
		filter, form, query := u.filterOf(r, project.ID)
		p = feedPage{layout: u.layout(r, project.Name, toneIdle), Filter: form}
		p.Project = u.nav(project, "runs")
		choices, err := tx.RunChoices(ctx, project.ID)
		if err != nil {
			return err
		}
		p.Filter.Branches, p.Filter.Authors, p.Filter.Tags = choices.Branches, choices.Authors, choices.Tags

		page := store.Page{Limit: runsPerPage, After: positionOf(r.query("after"))}
		if page.After == nil {
			page.Before = positionOf(r.query("before"))
		}
		address := func(name string, at *store.Position) string {
			q := url.Values{}
			for k, v := range query {
				q[k] = v
			}
			if at != nil {
				q.Set(name, at.Cursor())
			}
			return strings.TrimSuffix(form.URL+"?"+q.Encode(), "?")
		}
		if !filter.Indexed() {
			limit, beyond, err := tx.SearchLimit(ctx, project.ID, filter, page, u.depth)
			if err != nil {
				return err
			}
			if beyond {
				filter.Limit = &limit
			}
		}
		runs, more, err := tx.Runs(ctx, project.ID, filter, page)
		if err != nil {
			return err
		}
		ids := make([]string, len(runs))
		for n, v := range runs {
			ids[n] = v.ID
		}
		groups, err := tx.GroupsOf(ctx, ids)
		if err != nil {
			return err
		}
		for _, v := range runs {
			p.Runs = append(p.Runs, u.runLine(v, groups[v.ID], r.now(tx)))
		}
		// What follows in the direction of the page, and what is on its other side.
		place := func(n int) *store.Position { return &store.Position{At: runs[n].CreatedAt, ID: runs[n].ID} }
		first := page.After == nil && page.Before == nil
		switch {
		case more && page.Before != nil:
			p.Newer = address("before", place(0))
		case more:
			p.Older = address("after", place(len(runs)-1))
		case filter.Limit != nil && page.Before != nil:
			p.Newer, p.Looked = address("before", filter.Limit), u.depth
		case filter.Limit != nil:
			p.Further, p.Looked = address("after", filter.Limit), u.depth
		}
		switch {
		case page.After != nil && len(runs) > 0:
			p.Newer = address("before", place(0))
		case page.Before != nil && len(runs) > 0:
			p.Older = address("after", place(len(runs)-1))
		case page.Before != nil && filter.Limit != nil:
			p.Older = address("after", filter.Limit)
		}
		switch {
		case !first:
			p.Newest = address("", nil)
		default:
			p.Live = 3
		}
		if first && !form.Active && len(runs) == 0 {
			s := u.startOf(r, project, "")
			p.Start = &s
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.show(u.views.feed.render(p))
}

// Of a run with many groups or tags, the list names so many.
const maxNamed = 4

func (u *ui) runLine(v run.Run, groups []run.Group, now time.Time) runLine {
	l := runLine{URL: u.runURL(v.ID), Build: v.CIBuildID, Running: v.State == run.Running, Started: v.CreatedAt,
		Branch: v.Commit.Branch, Author: v.Commit.AuthorName, CI: providerName(v.CI.Provider), CIURL: v.CI.URL(), Tags: v.Tags[:min(len(v.Tags), maxNamed)]}
	l.Subject, _, _ = strings.Cut(strings.TrimSpace(run.Plain(v.Commit.Message)), "\n")
	l.Subject = run.Clip(l.Subject, 300)
	l.Commit = run.Clip(v.Commit.SHA, 40)
	if commitSHA.MatchString(v.Commit.SHA) {
		l.Commit = v.Commit.SHA[:7]
	}
	if remote, known := parseRemote(v.Commit.RemoteOrigin); known {
		l.CommitURL = remote.commitURL(v.Commit.SHA)
	}
	for _, g := range groups {
		l.Counts = l.Counts.Plus(g.Counts)
		l.Specs += g.Specs
		l.Completed += g.Completed
		if g.Explicit && len(l.Groups) < maxNamed {
			l.Groups = append(l.Groups, g.Name)
		} else if g.Explicit {
			l.MoreGroups++
		}
	}
	l.Elapsed = elapsedOf(v, groups, now)
	l.Verdict = verdictOf(v.State, l.Counts)
	l.Tone = l.Verdict.Tone
	link := func(name, value string) string {
		return u.projectURL(v.ProjectID, "") + "?" + url.Values{name: {value}}.Encode()
	}
	if l.Branch != "" {
		l.BranchURL = link("branch", l.Branch)
	}
	if l.Author != "" {
		l.AuthorURL = link("author", l.Author)
	}
	return l
}
