package ui

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	// defaultDays is the period of a history page whose address has none.
	defaultDays = 30
	// maxDays limits a period.
	maxDays = 366
	// historyRows is how many tests, specs or errors a page lists.
	historyRows = 50
	// behindAfter is how far the history may be behind before pages say so.
	behindAfter = 10 * time.Second
)

// explorer is what all history pages of a project have in common.
type explorer struct {
	Filter historyForm
	// Behind is when the first result came in that is not counted yet; zero if the
	// history is up to date.
	Behind time.Time
	// Counting means that some results are not counted yet.
	Counting bool
	// NoRuns means that the project has no runs.
	NoRuns  bool
	RunsURL string
	// Wider shows a longer period; "" if there is none.
	Wider string
}

// historyForm is the period and the filter, as their fields show them.
type historyForm struct {
	URL    string
	Period string // in words
	// Presets are the usual periods.
	Presets []preset
	Chips   []chip
	Active  bool
	// Hidden are values that the form keeps.
	Hidden []hiddenField
	// What a page adds: a search, lists to choose from, and more fields.
	Search                              *textField
	Selects                             []selectField
	Fields                              []textField
	Branch, Author, Tag, Group          string
	From, To                            string
	Branches, Authors, Tags, GroupNames []string // to choose from
}

type hiddenField struct{ Name, Value string }

type textField struct {
	Name, Value, Label string
	Number             bool
}

type selectField struct {
	Name, Label string
	Choices     []choice
}

// scope is the part of a project's history that a page is about.
type scope struct {
	u       *ui
	r       *request
	tx      *store.Tx
	project run.Project
	filter  store.HistoryFilter
	path    string     // of the page, below the project
	shared  url.Values // the period and the filter, which other pages of the history take, too
	own     url.Values // what only this page takes
}

// historyTabs are the pages about the history of a project.
var historyTabs = []struct{ name, below string }{{"Insights", "/insights"}, {"Tests", "/tests"}, {"Specs", "/specs"},
	{"Errors", "/errors"}}

// inHistory reads what all history pages need, and shows the page that load makes. below is the address of the page
// in its project, and tab the one it belongs to.
func (u *ui) inHistory(r *request, title, tab, below string,
	load func(*scope, layout, explorer) ([]byte, error)) error {
	ctx := r.Context()
	var body []byte
	err := u.db.Read(ctx, func(tx *store.Tx) error {
		project, err := tx.Project(ctx, r.PathValue("projectId"))
		if err != nil {
			return err
		}
		s := &scope{u: u, r: r, tx: tx, project: project, path: u.projectURL(project.ID, below), shared: url.Values{},
			own: url.Values{}}
		e := explorer{RunsURL: u.projectURL(project.ID, "")}
		e.Filter.URL = s.path
		s.readFilter(&e.Filter)
		s.readPeriod(&e.Filter)
		l := u.layout(r, title+" · "+project.Name, toneIdle)
		l.Project = u.nav(project, tab)
		for n := range l.Project.History {
			l.Project.History[n].URL, l.Project.History[n].Keep = s.at(historyTabs[n].below), false
		}
		upTo, err := tx.HistoryCompleteUpTo(ctx)
		if err != nil {
			return err
		}
		e.Counting = upTo.Before(tx.Now)
		if tx.Now.Sub(upTo) > behindAfter {
			e.Behind, l.Live = upTo, 5
		}
		if err := s.addChoices(&e); err != nil {
			return err
		}
		body, err = load(s, l, e)
		return err
	})
	return r.show(body, err)
}

// value reads a parameter that is a text, and keeps it among those of an address.
func (s *scope) value(query url.Values, name string) string {
	v := run.Clip(strings.TrimSpace(s.r.query(name)), maxSearch)
	if v != "" {
		query.Set(name, v)
	}
	return v
}

// number reads a parameter that is a number; 0 if it is none, or less than 1.
func (s *scope) number(name string) int {
	n, err := strconv.Atoi(s.r.query(name))
	if err != nil || n < 1 || n > 1_000_000_000 {
		return 0
	}
	s.own.Set(name, strconv.Itoa(n))
	return n
}

// word reads a parameter that has known values; the first choice is that of an address
// without it.
func (s *scope) word(name string, choices []choice) ([]choice, string) {
	out, word := chosen(choices, s.r.query(name))
	if word == "" || word == choices[0].Value {
		out, _ = chosen(choices, choices[0].Value)
		return out, choices[0].Value
	}
	s.own.Set(name, word)
	return out, word
}

func (s *scope) readFilter(f *historyForm) {
	for _, field := range []struct {
		name string
		text *string
		list *[]string
	}{{"branch", &f.Branch, &s.filter.Branches}, {"author", &f.Author, &s.filter.Authors}, {"tag", &f.Tag, &s.filter.Tags},
		{"group", &f.Group, &s.filter.Groups}} {
		if *field.text = s.value(s.shared, field.name); *field.text != "" {
			*field.list = []string{*field.text}
		}
	}
}

// readPeriod reads the days that the page is about: some that are given, or the last ones. Invalid days are ignored.
func (s *scope) readPeriod(f *historyForm) {
	tomorrow := s.tx.Now.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
	given := url.Values{}
	since, until := s.r.days(given)
	if until.IsZero() {
		until = tomorrow
	}
	if since.IsZero() && given.Has("to") {
		since = until.AddDate(0, 0, -defaultDays)
	}
	if oldest := until.AddDate(0, 0, -maxDays); since.Before(oldest) && given.Has("from") {
		since = oldest
		given.Set("from", since.Format(time.DateOnly))
	}
	days := 0
	if len(given) > 0 && since.Before(until) {
		maps.Copy(s.shared, given)
		f.From, f.To = given.Get("from"), given.Get("to")
		f.Period = "from " + since.Format("2 Jan 2006") + " to " + until.AddDate(0, 0, -1).Format("2 Jan 2006")
	} else {
		days = defaultDays
		if n, err := strconv.Atoi(s.r.query("days")); err == nil && n > 0 && n <= maxDays && n != defaultDays {
			days = n
			s.shared.Set("days", strconv.Itoa(n))
		}
		since, until = tomorrow.AddDate(0, 0, -days), tomorrow
		f.Period = "in the last " + count(days, "day")
	}
	s.filter.Since, s.filter.Until = since, until
}

// addChoices adds what the filter can be set to.
func (s *scope) addChoices(e *explorer) error {
	choices, err := s.tx.RunChoices(s.r.Context(), s.project.ID)
	if err != nil {
		return err
	}
	f := &e.Filter
	f.Branches, f.Authors, f.Tags = choices.Branches, choices.Authors, choices.Tags
	if f.GroupNames, err = s.tx.GroupChoices(s.r.Context(), s.project.ID); err != nil {
		return err
	}
	any, err := s.tx.RecentRuns(s.r.Context(), s.project.ID, "", 1)
	e.NoRuns = len(any) == 0
	return err
}

// finish adds to the form what depends on all parameters of the page, when they are read.
func (s *scope) finish(e *explorer) {
	f := &e.Filter
	days := int(s.filter.Until.Sub(s.filter.Since) / (24 * time.Hour))
	for _, n := range []int{7, 30, 90} {
		current := n == days && !s.shared.Has("from") && !s.shared.Has("to")
		f.Presets = append(f.Presets, preset{count(n, "day"), s.link("days", s.days(n), "from", "", "to", ""), current})
		if n > days && e.Wider == "" {
			e.Wider = s.link("days", s.days(n), "from", "", "to", "")
		}
	}
	for _, name := range []string{"branch", "author", "tag", "group", "from", "to", "spec", "min"} {
		if v := cmp.Or(s.shared.Get(name), s.own.Get(name)); v != "" {
			f.Chips = append(f.Chips, chip{name, v, s.link(name, "")})
		}
	}
	inForm := []string{"branch", "author", "tag", "group", "from", "to"}
	if f.Search != nil {
		inForm = append(inForm, f.Search.Name)
	}
	for _, field := range f.Fields {
		inForm = append(inForm, field.Name)
	}
	for _, field := range f.Selects {
		inForm = append(inForm, field.Name)
	}
	for _, query := range []url.Values{s.shared, s.own} {
		for _, name := range slices.Sorted(maps.Keys(query)) {
			if !slices.Contains(inForm, name) {
				f.Hidden = append(f.Hidden, hiddenField{name, query.Get(name)})
			}
		}
	}
	f.Active = len(f.Chips) > 0 || f.Search != nil && f.Search.Value != "" || s.own.Has("health")
}

// days is the parameter for a number of days; "" for the usual one.
func (s *scope) days(n int) string {
	if n == defaultDays {
		return ""
	}
	return strconv.Itoa(n)
}

// link is the address of the page with some parameters changed, or left out where the
// value is "".
func (s *scope) link(pairs ...string) string {
	q := maps.Clone(s.shared)
	maps.Copy(q, s.own)
	return withPairs(s.path, q, pairs)
}

// at is the address of another page of the history, for the same period and filter.
func (s *scope) at(below string, pairs ...string) string {
	return withPairs(s.u.projectURL(s.project.ID, below), maps.Clone(s.shared), pairs)
}

func withPairs(address string, q url.Values, pairs []string) string {
	for n := 0; n < len(pairs); n += 2 {
		if pairs[n+1] == "" {
			q.Del(pairs[n])
		} else {
			q.Set(pairs[n], pairs[n+1])
		}
	}
	return withValues(address, q)
}

// result is the address of a spec in a run.
func (s *scope) result(runID, group, spec string) string {
	return withValues(s.u.runURL(runID)+"/spec", url.Values{"file": {spec}, "group": {group}})
}

// column is the heading of a column of a list; its link orders the list by it.
type column struct {
	Name, URL string
	Sort      string // "ascending", "descending" or ""
	Number    bool
}

// ordering is what a list is ordered by.
type ordering struct {
	order     string
	ascending bool
}

// ordering reads what the list is ordered by. Names are in ascending order unless the
// address says so.
func (s *scope) ordering(f *historyForm, names string, choices []choice) ordering {
	list, word := s.word("order", choices)
	f.Selects = append(f.Selects, selectField{"order", "Order", list})
	o := ordering{order: word, ascending: word == names}
	switch dir := s.r.query("dir"); {
	case dir == "asc" && !o.ascending, dir == "desc" && o.ascending:
		o.ascending = !o.ascending
		s.own.Set("dir", dir)
	}
	return o
}

// column is the heading for an order; for none if order is "".
func (s *scope) column(name, order string, o ordering, number bool) column {
	c := column{Name: name, Number: number}
	if order == "" {
		return c
	}
	if order != o.order {
		c.URL = s.link("order", order, "dir", "")
		return c
	}
	c.Sort = "descending"
	turned := "asc"
	if o.ascending {
		c.Sort, turned = "ascending", "desc"
	}
	c.URL = s.link("dir", turned)
	return c
}

// paged lists a page of something. load returns one page and the total. A page beyond the last one is the last one.
func paged[T any](s *scope, load func(page int) ([]T, int, error)) ([]T, int, pager, error) {
	page := min(pageNumber(s.r), 1_000_000) - 1
	list, total, err := load(page)
	if err != nil {
		return nil, 0, pager{}, err
	}
	p, from, _ := pagerOf(s.r, total, historyRows, func(n int) string {
		if n == 1 {
			return s.link()
		}
		return s.link("page", strconv.Itoa(n))
	})
	if actual := from / historyRows; actual != page {
		list, _, err = load(actual)
	}
	return list, total, p, err
}

// percent writes a rate, from 0 to 1, in percent.
func percent(rate float64) string {
	switch v := rate * 100; {
	case v == 0:
		return "0%"
	case v < 0.1:
		return "<0.1%"
	case v < 10 && v != float64(int(v)):
		return strconv.FormatFloat(v, 'f', 1, 64) + "%"
	default:
		return strconv.Itoa(int(v)) + "%"
	}
}

// rateCell is a rate with its base.
type rateCell struct {
	N    int
	Rate float64
	Tone tone
}

// Share is the rate in percent.
func (c rateCell) Share() string { return percent(c.Rate) }

// Width is the rate in thousandths.
func (c rateCell) Width() int { return int(c.Rate * 1000) }

// titleOf splits the titles of a test as pages show them.
func titleOf(title []string) (path []string, name string) {
	if len(title) == 0 {
		return nil, "(no title)"
	}
	for _, part := range title[:len(title)-1] {
		path = append(path, run.Clip(run.Plain(part), onSpecPage.title))
	}
	return path, cmp.Or(run.Clip(run.Plain(title[len(title)-1]), onSpecPage.title), "(no title)")
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
