package ui

import (
	"maps"
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
	Done    string
	Filter  filterForm
	Strip   *strip // the latest runs of the default branch, on the first page
	Days    []dayOfRuns
	Newest  string // the first page, "" on it
	Newer   string
	Older   string
	Further string // continues the search with older runs
	Looked  int    // the number of runs searched; 0 if all were
	Start   *start // of a project that has no run yet
}

// dayOfRuns is the runs that began on a day, in UTC.
type dayOfRuns struct {
	Day  time.Time
	Runs []runLine
}

// filterForm is the filter as its fields show it.
type filterForm struct {
	URL                       string
	Active                    bool
	Presets                   []preset
	Chips                     []chip // what is set beside text and outcome
	Branch, Author, Tag, Text string
	From, To                  string
	Outcomes                  []choice
	Branches, Authors, Tags   []string // to choose from
}

// preset is a filter that people use often.
type preset struct {
	Text, URL string
	Current   bool
}

// chip is a part of the filter, with the address of the list without it.
type chip struct{ Name, Value, Without string }

// runLine is a run in the list.
type runLine struct {
	crumbs
	Commit, CommitURL string
	Branch, BranchURL string
	Author, AuthorURL string
	CI, CIURL         string
	Tags, Groups      []string
	MoreTags          int // and groups
	Counts            run.Counts
	Completed         int
	Specs             int
	Running           bool
	Started           time.Time
	Elapsed           elapsed
}

// positionOf reads a cursor; nil if it is none.
func positionOf(s string) *store.Position {
	if p, ok := store.ParseCursor(s); ok {
		return &p
	}
	return nil
}

// outcomes are the outcomes of a run, with their conditions for the database.
var outcomes = []struct {
	word, text string
	states     []run.State
	statuses   []run.Status
}{
	{"passed", "Passed", []run.State{run.Finished}, []run.Status{run.StatusPassed}},
	{"failed", "Failed", []run.State{run.Finished}, []run.Status{run.StatusFailed}},
	{"canceled", "Canceled", []run.State{run.Canceled}, nil},
	{"timed-out", "Timed out", []run.State{run.TimedOut}, nil},
	{"running", "Running", []run.State{run.Running}, nil},
}

// chosen marks the choice with a value, in any case. An unknown value marks none.
func chosen(list []choice, value string) ([]choice, string) {
	out, found := slices.Clone(list), ""
	for n := range out {
		if strings.EqualFold(out[n].Value, value) {
			out[n].Chosen, found = true, out[n].Value
		}
	}
	return out, found
}

// filterOf reads the filter of the address. Invalid values are ignored and do not show in the fields.
func (u *ui) filterOf(r *request, project run.Project) (store.RunFilter, filterForm, url.Values) {
	f, form, query := store.RunFilter{}, filterForm{URL: u.projectURL(project.ID, "")}, url.Values{}
	text := func(name string) (string, []string) {
		v := run.Clip(strings.TrimSpace(r.query(name)), maxSearch)
		if v == "" {
			return "", nil
		}
		query.Set(name, v)
		return v, []string{v}
	}
	form.Branch, f.Branches = text("branch")
	form.Author, f.Authors = text("author")
	form.Tag, f.Tags = text("tag")
	form.Text, _ = text("q")
	f.Search = form.Text
	words := make([]choice, len(outcomes))
	for n, o := range outcomes {
		words[n] = choice{Value: o.word, Text: o.text}
	}
	var word string
	if form.Outcomes, word = chosen(words, r.query("status")); word != "" {
		n := slices.IndexFunc(words, func(c choice) bool { return c.Value == word })
		f.States, f.Statuses = outcomes[n].states, outcomes[n].statuses
		query.Set("status", word)
	}
	f.Since, f.Until = r.days(query)
	form.From, form.To = query.Get("from"), query.Get("to")
	form.Active = len(query) > 0
	form.shortcuts(r, project, query)
	return f, form, query
}

// shortcuts adds the presets, and a chip for each part that is set.
func (f *filterForm) shortcuts(r *request, project run.Project, query url.Values) {
	add := func(text string, pairs ...string) {
		q := url.Values{}
		for n := 0; n < len(pairs); n += 2 {
			q.Set(pairs[n], pairs[n+1])
		}
		f.Presets = append(f.Presets, preset{text, withValues(f.URL, q), q.Encode() == query.Encode()})
	}
	add("All runs")
	if project.DefaultBranch != "" {
		add(project.DefaultBranch, "branch", project.DefaultBranch)
	}
	add("Failed", "status", "failed")
	if r.who.Name != "" {
		add("Mine", "author", r.who.Name)
	}
	for _, name := range []string{"branch", "author", "tag", "from", "to"} {
		if value := query.Get(name); value != "" {
			rest := maps.Clone(query)
			rest.Del(name)
			f.Chips = append(f.Chips, chip{name, value, withValues(f.URL, rest)})
		}
	}
}

// withValues is an address with a query, if it is not empty.
func withValues(address string, q url.Values) string {
	return strings.TrimSuffix(address+"?"+q.Encode(), "?")
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
		filter, form, query := u.filterOf(r, project)
		p = feedPage{layout: u.layout(r, project.Name, toneIdle), Filter: form}
		p.Project = u.nav(project, "runs")
		p.Done = done[r.query("done")]
		choices, err := tx.RunChoices(ctx, project.ID)
		if err != nil {
			return err
		}
		p.Filter.Branches, p.Filter.Authors, p.Filter.Tags = choices.Branches, choices.Authors, choices.Tags
		if err := u.addRuns(r, tx, project, filter, query, &p); err != nil {
			return err
		}
		first := p.Newest == ""
		if first {
			p.Live = 3
			recent, err := tx.RecentRuns(ctx, project.ID, project.DefaultBranch, recentRuns)
			if err != nil {
				return err
			}
			if len(recent) > 1 {
				p.Strip = u.stripOf(project, recent)
			}
		}
		if first && !form.Active && len(p.Days) == 0 {
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

// addRuns adds a page of the runs that match a filter.
func (u *ui) addRuns(r *request, tx *store.Tx, project run.Project, filter store.RunFilter, query url.Values,
	p *feedPage) error {
	ctx := r.Context()
	page := store.Page{Limit: runsPerPage, After: positionOf(r.query("after"))}
	if page.After == nil {
		page.Before = positionOf(r.query("before"))
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
		day := v.CreatedAt.UTC().Truncate(24 * time.Hour)
		if last := len(p.Days) - 1; last < 0 || !p.Days[last].Day.Equal(day) {
			p.Days = append(p.Days, dayOfRuns{Day: day})
		}
		last := &p.Days[len(p.Days)-1]
		last.Runs = append(last.Runs, u.runLine(v, project, groups[v.ID], r.now(tx)))
	}
	u.addPager(p, runs, more, page, filter.Limit, query)
	return nil
}

// addPager adds the links to the next and the previous page.
func (u *ui) addPager(p *feedPage, runs []run.Run, more bool, page store.Page, limit *store.Position,
	query url.Values) {
	address := func(name string, at *store.Position) string {
		q := maps.Clone(query)
		if at != nil {
			q.Set(name, at.Cursor())
		}
		return withValues(p.Filter.URL, q)
	}
	place := func(n int) *store.Position { return &store.Position{At: runs[n].CreatedAt, ID: runs[n].ID} }
	switch {
	case more && page.Before != nil:
		p.Newer = address("before", place(0))
	case more:
		p.Older = address("after", place(len(runs)-1))
	case limit != nil && page.Before != nil:
		p.Newer, p.Looked = address("before", limit), u.depth
	case limit != nil:
		p.Further, p.Looked = address("after", limit), u.depth
	}
	switch {
	case page.After != nil && len(runs) > 0:
		p.Newer = address("before", place(0))
	case page.Before != nil && len(runs) > 0:
		p.Older = address("after", place(len(runs)-1))
	case page.Before != nil && limit != nil:
		p.Older = address("after", limit)
	}
	if page.After != nil || page.Before != nil {
		p.Newest = address("", nil)
	}
}

// maxNamed is how many groups and tags the list names of a run, together.
const maxNamed = 3

func (u *ui) runLine(v run.Run, project run.Project, groups []run.Group, now time.Time) runLine {
	l := runLine{crumbs: u.crumbs(v, project, groups), Running: v.State == run.Running, Started: v.CreatedAt,
		Branch: v.Commit.Branch, Author: v.Commit.AuthorName, CI: providerName(v.CI.Provider), CIURL: v.CI.URL()}
	l.Commit = v.Commit.Short()
	if remote, known := run.ParseRemote(v.Commit.RemoteOrigin); known {
		l.CommitURL = remote.CommitURL(v.Commit.SHA)
	}
	for _, g := range groups {
		l.Counts = l.Counts.Plus(g.Counts)
		l.Specs += g.Specs
		l.Completed += g.Completed
		if g.Explicit {
			l.Groups = append(l.Groups, g.Name)
		}
	}
	all := len(l.Groups) + len(v.Tags)
	l.Groups = l.Groups[:min(len(l.Groups), maxNamed)]
	l.Tags = v.Tags[:min(len(v.Tags), maxNamed-len(l.Groups))]
	l.MoreTags = all - len(l.Groups) - len(l.Tags)
	l.Elapsed = elapsedOf(v, v.LastReport(groups), now)
	link := func(name, value string) string {
		return withValues(u.projectURL(v.ProjectID, ""), url.Values{name: {value}})
	}
	if l.Branch != "" {
		l.BranchURL = link("branch", l.Branch)
	}
	if l.Author != "" {
		l.AuthorURL = link("author", l.Author)
	}
	return l
}
