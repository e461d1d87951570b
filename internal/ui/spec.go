package ui

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// What the pages of specs show at most at a time.
const (
	specsPerPage = 500
	testsPerPage = 500
	maxSpecText  = 4 << 20
)

// limits bounds single texts, in bytes.
type limits struct{ title, message, frame, stack, exception, output int }

var (
	onRunPage  = limits{title: 300, message: 4 << 10, frame: 4 << 10, stack: 8 << 10, exception: 8 << 10, output: 8 << 10}
	onSpecPage = limits{title: 2000, message: 64 << 10, frame: 16 << 10, stack: 64 << 10, exception: 64 << 10, output: 512 << 10}
)

// reader bounds what one page reads and shows of specs.
type reader struct {
	budget
	limits limits
	tests  int // that may still be shown
	read   int // that may still be looked at
}

// specView is a spec in a list, with the tests worth showing there.
type specView struct {
	ID        string // anchor
	URL       string
	Dir, File string
	Group     string // "" where there is only one
	Machine   int    // its number; 0 where there is only one
	State     specState
	Counts    run.Counts
	Elapsed   time.Duration // zero if not known
	Exception string
	Tests     []testView
	MoreTests int // worth showing, and left out
	Output    string
}

// Open says that there is more to show than a line.
func (v specView) Open() bool {
	return v.Exception != "" || len(v.Tests) > 0 || v.MoreTests > 0 || v.Output != ""
}

// testView is a test.
type testView struct {
	ID       string // anchor
	Path     []string
	Title    string
	State    string
	Tone     tone
	Flaky    bool
	Attempts int
	Elapsed  time.Duration
	Failures []failureView
}

// failureView is an error of one or more attempts of a test.
type failureView struct {
	ID       string // anchor
	Attempts string // "" if it is that of the only one
	Hook     string // that failed, "" if none
	Message  string
	Where    string // file, line and column
	Frame    string
	Stack    string
}

// worthShowing says that a test is not simply green.
func (t testView) worthShowing() bool {
	return t.State == string(run.Failed) || t.State == string(run.Skipped) || t.Flaky
}

// loadSpec makes the list entry of a spec, and a line for each failure in it.
// Tests of green specs stay out of lists.
func (u *ui) loadSpec(ctx context.Context, tx *store.Tx, r run.Run, s specRef, named bool, b *reader) (specView, []failureLine, error) {
	v := u.specLine(r, s, named)
	bad := s.Counts.Failures + s.Counts.Skipped + s.Counts.Flaky
	if s.CompletedAt.IsZero() || bad == 0 && s.Exception == "" {
		return v, nil, nil
	}
	var lines []failureLine
	if s.Exception != "" {
		v.Exception = b.head(s.Exception, b.limits.exception)
		lines = append(lines, failureLine{URL: "#" + v.ID, Spec: v.Dir + v.File, Title: "The spec could not run to its end", Error: run.Headline(s.Exception)})
	}
	if b.tests == 0 || b.read < s.Counts.Overall() {
		v.MoreTests = bad
		return v, lines, nil
	}
	b.read -= s.Counts.Overall()
	announcement, outcome, err := tx.Tests(ctx, s.ID)
	if err != nil {
		return v, nil, err
	}
	hooks := hooksOf(announcement)
	for n, t := range run.Tests(announcement, outcome) {
		test := summary(t, fmt.Sprintf("%s-%d", v.ID, n+1), b.limits)
		if !test.worthShowing() || t.Repeats(s.Exception) {
			continue
		}
		if b.tests == 0 || len(v.Tests) == maxOfSpec {
			v.MoreTests++
			continue
		}
		b.tests--
		test.Failures = failuresOf(t, test.ID, hooks, b)
		v.Tests = append(v.Tests, test)
		if test.State == string(run.Failed) {
			lines = append(lines, failureLine{URL: "#" + test.ID, Spec: v.Dir + v.File, Path: test.Path, Title: test.Title, Error: headlineOf(t)})
		}
	}
	if s.state.Tone == toneFail {
		output, err := tx.Output(ctx, s.ID)
		if err != nil {
			return v, nil, err
		}
		v.Output = b.tail(output, b.limits.output)
	}
	return v, lines, nil
}

// specLine is a spec as a line of a list.
func (u *ui) specLine(r run.Run, s specRef, named bool) specView {
	query := url.Values{"file": {s.Spec}}
	if s.group.Explicit {
		query.Set("group", s.GroupName)
	}
	dir, file := path.Split(s.Spec)
	v := specView{
		ID:    fmt.Sprintf("spec-%d-%d", s.groupIndex+1, s.Position+1),
		URL:   u.runURL(r.ID) + "/spec?" + query.Encode(),
		Dir:   dir,
		File:  file,
		State: s.state, Counts: s.Counts, Elapsed: s.Duration,
	}
	if s.CompletedAt.IsZero() {
		v.Counts.Announced = s.Announced
	}
	if named {
		v.Group = s.GroupName
	}
	if s.among > 1 {
		v.Machine = s.machine
	}
	return v
}

// summary is a test without its errors.
func summary(t run.Test, id string, l limits) testView {
	v := testView{ID: id, State: string(t.Result.State), Attempts: len(t.Result.Attempts), Flaky: t.Result.State == run.Passed && len(t.Result.Attempts) > 1}
	if n := len(t.Title); n > 0 {
		v.Title = run.Clip(run.Plain(t.Title[n-1]), l.title)
		for _, part := range t.Title[:n-1] {
			v.Path = append(v.Path, run.Clip(run.Plain(part), l.title))
		}
	}
	if v.Title == "" {
		v.Title = "(no title)"
	}
	for _, a := range t.Result.Attempts {
		v.Elapsed += time.Duration(a.Duration) * time.Millisecond
	}
	v.Elapsed = max(v.Elapsed, time.Duration(t.Result.Duration)*time.Millisecond)
	switch {
	case !t.Done:
		v.State, v.Tone = "no result", toneIdle
	case v.Flaky:
		v.Tone = toneFlaky
	case t.Result.State == run.Passed:
		v.Tone = tonePass
	case t.Result.State == run.Failed:
		v.Tone = toneFail
	case t.Result.State == run.Skipped:
		v.Tone = toneSkip
	default:
		v.Tone = toneIdle
	}
	return v
}

// hooksOf names the hooks of a spec by their ids.
func hooksOf(a run.Announcement) map[string]string {
	hooks := make(map[string]string, len(a.Hooks))
	for _, h := range a.Hooks {
		hooks[h.ID] = h.Name
	}
	return hooks
}

// failuresOf lists the errors of a test's attempts. Equal ones are one: a test
// that failed three times in the same way is read once.
// id is the anchor of the test.
func failuresOf(t run.Test, id string, hooks map[string]string, b *reader) []failureView {
	type failure struct {
		run.Failure
		hook     string
		attempts []string
	}
	var list []failure
	for n, a := range t.Result.Attempts {
		if a.Error == nil {
			continue
		}
		f := failure{Failure: *a.Error, hook: hooks[a.Hook], attempts: []string{strconv.Itoa(n + 1)}}
		if last := len(list) - 1; last >= 0 && list[last].Name == f.Name && list[last].Message == f.Message && list[last].hook == f.hook {
			f.attempts = append(list[last].attempts, f.attempts...)
			list[last] = f
			continue
		}
		list = append(list, f)
	}
	if len(list) == 0 && t.Result.Error != "" {
		list = append(list, failure{Failure: run.ParseFailure(t.Result.Error)})
	}
	const most = 5 // attempts that each failed in another way
	if len(list) > most {
		list = list[len(list)-most:]
	}
	var out []failureView
	for _, f := range list {
		v := failureView{ID: id, Hook: f.hook, Message: b.head(f.Text(), b.limits.message)}
		if len(f.attempts) > 0 {
			v.ID += "-attempt-" + f.attempts[0]
		} else {
			v.ID += "-error"
		}
		if len(t.Result.Attempts) > 1 && len(f.attempts) > 0 {
			v.Attempts = "Attempt " + strings.Join(f.attempts, ", ")
			switch len(f.attempts) {
			case 1:
			case len(t.Result.Attempts):
				v.Attempts = "Every attempt"
			default:
				v.Attempts = "Attempts " + strings.Join(f.attempts, ", ")
			}
		}
		if f.Frame != nil {
			v.Frame = b.head(f.Frame.Text, b.limits.frame)
			v.Where = run.Clip(f.Frame.Position(), 500)
		}
		v.Stack = b.head(f.Trace(), b.limits.stack)
		out = append(out, v)
	}
	return out
}

// headlineOf is how a test failed in the end, in a line.
func headlineOf(t run.Test) string {
	f, _ := t.Failure()
	return run.Headline(f.Text())
}

// crumbs is what the pages below a run's page say of the run.
type crumbs struct {
	RunURL  string
	Build   string
	Verdict verdict
}

// pager leads through the pages of a long list.
type pager struct {
	Page, Pages int
	Previous    string
	Next        string
}

// pagerOf finds the page that a request asks for; address makes the address of
// a page.
func pagerOf(r *request, items, perPage int, address func(int) string) (p pager, from, to int) {
	p.Pages = max(1, (items+perPage-1)/perPage)
	p.Page, _ = strconv.Atoi(r.URL.Query().Get("page")) // no number is the first
	p.Page = min(max(p.Page, 1), p.Pages)
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
	Total int
	List  []specView
	Pager pager
}

func (u *ui) specs(r *request) error {
	return u.ofRun(r, func(tx *store.Tx, found run.Run, project run.Project) ([]byte, error) {
		ctx := r.Context()
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
		p := specsPage{crumbs: u.crumbs(found, groups), Total: len(instances)}
		p.layout = u.layout(r, "Specs · "+run.Clip(p.Build, 100), p.Verdict.Tone)
		p.Project = u.nav(project, "runs")
		var from, to int
		p.Pager, from, to = pagerOf(r, len(instances), specsPerPage, func(n int) string { return p.RunURL + "/specs?page=" + strconv.Itoa(n) })
		for _, s := range sortSpecs(groups, machines, instances)[from:to] {
			p.List = append(p.List, u.specLine(found, s, found.Explicit || len(groups) > 1))
		}
		return u.views.specs.render(p)
	})
}

func (u *ui) crumbs(r run.Run, groups []run.Group) crumbs {
	var counts run.Counts
	for _, g := range groups {
		counts = counts.Plus(g.Counts)
	}
	return crumbs{RunURL: u.runURL(r.ID), Build: r.CIBuildID, Verdict: verdictOf(r.State, counts)}
}

// specPage is all about one spec of a run.
type specPage struct {
	layout
	crumbs
	Spec      specView
	Started   time.Time // zero if it was not
	Completed time.Time // zero if it was not
	Browser   string
	OS        string
	Failures  []failureLine
	More      int // failures left out of Failures
	Total     int
	From      int // of the tests on this page
	Tests     []testView
	Pager     pager
	Output    string
}

func (u *ui) spec(r *request) error {
	return u.ofRun(r, func(tx *store.Tx, found run.Run, project run.Project) ([]byte, error) {
		p, err := u.loadSpecPage(r, tx, found, project)
		if err != nil {
			return nil, err
		}
		return u.views.spec.render(p)
	})
}

func (u *ui) loadSpecPage(r *request, tx *store.Tx, found run.Run, project run.Project) (specPage, error) {
	ctx := r.Context()
	groupName := r.query("group")
	if groupName == "" {
		groupName = found.CIBuildID // the implicit group's name
	}
	groups, err := tx.Groups(ctx, found.ID)
	if err != nil {
		return specPage{}, err
	}
	i, err := tx.SpecInstance(ctx, found.ID, groupName, r.query("file"))
	if err != nil {
		return specPage{}, err
	}
	machines, err := tx.MachineNumbers(ctx, found.ID)
	if err != nil {
		return specPage{}, err
	}
	ref := sortSpecs(groups, machines, []run.Instance{i})[0]
	p := specPage{crumbs: u.crumbs(found, groups), Spec: u.specLine(found, ref, found.Explicit || len(groups) > 1),
		Started: i.ClaimedAt, Completed: i.CompletedAt,
		Browser: run.Clip(strings.TrimSpace(ref.group.Platform.BrowserName+" "+ref.group.Platform.BrowserVersion), 100), OS: osOf(ref.group.Platform)}
	p.layout = u.layout(r, strings.ToUpper(ref.state.Word)+" · "+run.Clip(p.Spec.File, 100)+" · "+run.Clip(p.Build, 100), ref.state.Tone)
	p.Project = u.nav(project, "runs")

	announcement, outcome, err := tx.Tests(ctx, i.ID)
	if err != nil {
		return p, err
	}
	tests := run.Tests(announcement, outcome)
	p.Total = len(tests)
	address := func(n int) string {
		if n == 1 {
			return p.Spec.URL
		}
		return p.Spec.URL + "&page=" + strconv.Itoa(n)
	}
	var from, to int
	p.Pager, from, to = pagerOf(r, len(tests), testsPerPage, address)
	p.From = from + 1

	b := reader{budget: budget{maxSpecText}, limits: onSpecPage}
	p.Spec.Exception = b.head(i.Exception, b.limits.exception)
	hooks := hooksOf(announcement)
	for n, t := range tests {
		onPage := n >= from && n < to
		failed := t.Result.State == run.Failed && !t.Repeats(i.Exception)
		if !onPage && !failed {
			continue
		}
		v := summary(t, fmt.Sprintf("test-%d", n+1), b.limits)
		if failed && len(p.Failures) == maxFailures {
			p.More++
		} else if failed {
			p.Failures = append(p.Failures, failureLine{URL: anchor(address, n, onPage, v.ID), Path: v.Path, Title: v.Title, Error: headlineOf(t)})
		}
		if onPage {
			if v.worthShowing() && !t.Repeats(i.Exception) {
				v.Failures = failuresOf(t, v.ID, hooks, &b)
			}
			p.Tests = append(p.Tests, v)
		}
	}
	output, err := tx.Output(ctx, i.ID)
	if err != nil {
		return p, err
	}
	p.Output = b.tail(output, b.limits.output)
	return p, nil
}

// anchor is the link to a test, on this page or on another one of its list.
func anchor(address func(int) string, n int, onPage bool, id string) string {
	if onPage {
		return "#" + id
	}
	return address(n/testsPerPage+1) + "#" + id
}
