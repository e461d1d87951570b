package ui

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"runbell/internal/run"
	"runbell/internal/store"
)

// specRef is a spec with what its state depends on.
type specRef struct {
	*run.Instance
	group      *run.Group
	groupIndex int
	machine    int // its number; 0 if no machine has the spec
	among      int // how many machines the run has
	state      specState
}

// specState is a state of a spec; rank is its place in lists.
type specState struct {
	Word string
	Tone tone
	rank int
}

func stateOfSpec(i *run.Instance, group run.State) specState {
	switch {
	case !i.CompletedAt.IsZero() && (!i.Counts.Green() || i.Exception != ""):
		return specState{"failed", toneFail, 0}
	case !i.CompletedAt.IsZero() && i.Counts.Flaky > 0:
		return specState{"flaky", toneFlaky, 3}
	case !i.CompletedAt.IsZero() && i.Counts.Passes == 0:
		return specState{"pending", toneIdle, 5}
	case !i.CompletedAt.IsZero():
		return specState{"passed", tonePass, 4}
	case i.MachineID != "" && group == run.Running:
		return specState{"running", toneRun, 2}
	case i.MachineID != "":
		return specState{"never reported", toneWarn, 1}
	case group == run.Running:
		return specState{"queued", toneIdle, 6}
	default:
		return specState{"not started", toneIdle, 6}
	}
}

// sortSpecs puts the specs first that people look for.
func sortSpecs(groups []run.Group, machines map[string]int, instances []run.Instance) []specRef {
	index := make(map[string]int, len(groups))
	for i, g := range groups {
		index[g.Name] = i
	}
	specs := make([]specRef, len(instances))
	for n := range instances {
		i := &instances[n]
		at := index[i.GroupName]
		specs[n] = specRef{Instance: i, group: &groups[at], groupIndex: at, machine: machines[i.MachineID],
			among: len(machines), state: stateOfSpec(i, groups[at].State)}
	}
	slices.SortFunc(specs, func(a, b specRef) int {
		return cmp.Or(a.state.rank-b.state.rank, a.groupIndex-b.groupIndex, a.Position-b.Position)
	})
	return specs
}

// specFilter narrows and sorts a list of specs, as an address asks for it.
type specFilter struct {
	URL          string // of the page
	Show, Text   string
	Sort         string
	Shows, Sorts []choice
	Active       bool
}

var (
	showWords = []choice{{Value: "failed", Text: "Failed"}, {Value: "flaky", Text: "Flaky"},
		{Value: "skipped", Text: "Skipped"}, {Value: "pending", Text: "Pending"},
		{Value: "passed", Text: "Passed"}, {Value: "running", Text: "Running"}, {Value: "unreported", Text: "Not reported"}}
	sortWords = []choice{{Value: "time", Text: "Slowest first"}, {Value: "name", Text: "By name"}}
)

func (r *request) specFilter(address string) specFilter {
	f := specFilter{URL: address, Text: run.Clip(strings.TrimSpace(r.query("q")), maxSearch)}
	f.Shows, f.Show = chosen(showWords, r.query("show"))
	f.Sorts, f.Sort = chosen(sortWords, r.query("sort"))
	f.Active = f.Show != "" || f.Text != "" || f.Sort != ""
	return f
}

// at is the address of a page with the filter.
func (f specFilter) at(address string) string {
	q := url.Values{}
	for name, value := range map[string]string{"show": f.Show, "q": f.Text, "sort": f.Sort} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return withValues(address, q)
}

// show is the address of the list with what a number counts.
func (f specFilter) show(what string) string {
	f.Show = what
	return f.at(f.URL) + "#specs"
}

// counts is how many tests of a spec the filter shows; of a spec that is shown
// whatever its tests, 0.
func (f specFilter) counts(c run.Counts) int {
	switch f.Show {
	case "failed":
		return c.Failures
	case "flaky":
		return c.Flaky
	case "skipped":
		return c.Skipped
	case "pending":
		return c.Pending
	case "passed":
		return c.Passes
	default:
		return c.Failures + c.Skipped + c.Flaky
	}
}

func (f specFilter) lets(s specRef) bool {
	if f.Text != "" && !strings.Contains(strings.ToLower(s.Spec), strings.ToLower(f.Text)) {
		return false
	}
	switch f.Show {
	case "":
		return true
	case "running":
		return s.state.Tone == toneRun
	case "unreported":
		return s.CompletedAt.IsZero() && s.state.Tone != toneRun
	default:
		return f.counts(s.Counts) > 0 || f.Show == "failed" && s.Exception != ""
	}
}

// test says whether a test is one of those that the filter is about.
func (f specFilter) test(v testView) bool {
	switch f.Show {
	case "flaky":
		return v.Flaky
	case "failed", "skipped", "pending", "passed":
		return v.State == f.Show
	default:
		return v.worthShowing()
	}
}

// apply returns the specs that match the filter, in its order.
func (f specFilter) apply(specs []specRef) []specRef {
	out := make([]specRef, 0, len(specs))
	for _, s := range specs {
		if f.lets(s) {
			out = append(out, s)
		}
	}
	switch f.Sort {
	case "time":
		slices.SortStableFunc(out, func(a, b specRef) int { return cmp.Compare(b.Duration, a.Duration) })
	case "name":
		slices.SortStableFunc(out, func(a, b specRef) int { return cmp.Compare(a.Spec, b.Spec) })
	}
	return out
}

// pager has the links between the pages of a long list.
type pager struct {
	Page, Pages int
	Previous    string
	Next        string
}

// pageNumber is the page of a list that a request asks for; no number is the first.
func pageNumber(r *request) int {
	page, _ := strconv.Atoi(r.query("page"))
	return max(page, 1)
}

// pagerOf finds the page that a request asks for; address makes the address of
// a page.
func pagerOf(r *request, items, perPage int, address func(int) string) (p pager, from, to int) {
	p.Pages = max(1, (items+perPage-1)/perPage)
	p.Page = min(pageNumber(r), p.Pages)
	if p.Page > 1 {
		p.Previous = address(p.Page - 1)
	}
	if p.Page < p.Pages {
		p.Next = address(p.Page + 1)
	}
	from = (p.Page - 1) * perPage
	return p, from, min(from+perPage, items)
}

// specsPage lists all specs of a run.
type specsPage struct {
	layout
	crumbs
	Total  int // of the run
	Found  int // that match the filter
	Filter specFilter
	List   []specView
	Pager  pager
}

func (u *ui) specs(r *request) error {
	return u.ofRun(r, []string{"show", "q", "sort", "page"}, func(tx *store.Tx, at runState) ([]byte, error) {
		ctx, found := r.Context(), at.run
		groups, err := tx.Groups(ctx, found.ID)
		if err != nil {
			return nil, err
		}
		instances, err := tx.Instances(ctx, found.ID)
		if err != nil {
			return nil, err
		}
		machines, err := tx.MachineNumbers(ctx, found.ID)
		if err != nil {
			return nil, err
		}
		p := specsPage{crumbs: u.crumbs(found, at.project, groups), Total: len(instances)}
		p.Filter = r.specFilter(p.RunURL + "/specs")
		p.layout = u.layout(r, "Specs · "+p.Subject, p.Verdict.Tone)
		p.Project = u.nav(at.project, "runs")
		list := p.Filter.apply(sortSpecs(groups, machines, instances))
		p.Found = len(list)
		var from, to int
		p.Pager, from, to = pagerOf(r, len(list), specsPerPage,
			func(n int) string { return withQuery(p.Filter.at(p.Filter.URL), "page", strconv.Itoa(n)) })
		for _, s := range list[from:to] {
			p.List = append(p.List, u.specLine(found, s, found.Explicit || len(groups) > 1))
		}
		return u.views.specs.render(p)
	})
}

// withQuery is an address with another value of a parameter.
func withQuery(address, name, value string) string {
	joint := "?"
	if strings.Contains(address, "?") {
		joint = "&"
	}
	return address + joint + url.QueryEscape(name) + "=" + url.QueryEscape(value)
}
