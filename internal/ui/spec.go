package ui

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"slices"
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

// limits bounds single texts, in bytes, and the pictures of one failure.
type limits struct{ title, message, frame, stack, exception, output, pictures int }

var (
	onRunPage = limits{title: 300, message: 4 << 10, frame: 4 << 10, stack: 8 << 10, exception: 8 << 10, output: 8 << 10,
		pictures: 6}
	onSpecPage = limits{title: 2000, message: 64 << 10, frame: 16 << 10, stack: 64 << 10, exception: 64 << 10,
		output: 512 << 10, pictures: 100}
)

// specReader reads the tests of a run's specs, and bounds what one page reads and
// shows of them.
type specReader struct {
	budget
	ctx    context.Context
	tx     *store.Tx
	u      *ui
	run    run.Run
	remote run.Repository // zero if it is not known
	named  bool           // the run has groups to tell apart
	limits limits
	shown  int // tests that may still be shown
	read   int // tests that may still be looked at
	known  map[string]specTests
	files  map[string]map[string]run.Artifact // by instance and id
	// pictured is the bytes of the pictures that the page loads by itself.
	pictured int64
}

// specTests is what was reported for a spec.
type specTests struct {
	tests       []run.Test
	hooks       map[string]string // by id
	screenshots []run.Screenshot
	recorded    bool // there is a video
	video       bool // of which a reporter was told to upload it
	coverage    bool // of the code, there is some
}

// shots are the screenshots of a test; of none if id is "".
func (t specTests) shots(id string) []run.Screenshot {
	var list []run.Screenshot
	for _, s := range t.screenshots {
		if s.TestID == id {
			list = append(list, s)
		}
	}
	return list
}

func (u *ui) specReader(r *request, tx *store.Tx, of run.Run, named bool) *specReader {
	x := &specReader{budget: budget{maxRunText}, ctx: r.Context(), tx: tx, u: u, run: of, named: named, limits: onRunPage,
		shown: maxTests, read: maxRead, known: map[string]specTests{}, files: map[string]map[string]run.Artifact{}}
	x.remote, _ = run.ParseRemote(of.Commit.RemoteOrigin)
	return x
}

// tests reads what was reported for a spec; nothing if too many tests were read already.
func (x *specReader) tests(s specRef) (specTests, error) {
	if known, ok := x.known[s.ID]; ok {
		return known, nil
	}
	if x.read < s.Counts.Overall() {
		return specTests{}, nil
	}
	x.read -= s.Counts.Overall()
	announcement, outcome, err := x.tx.Tests(x.ctx, s.ID)
	if err != nil {
		return specTests{}, err
	}
	t := specTests{tests: run.Tests(announcement, outcome), hooks: hooksOf(announcement), screenshots: outcome.Screenshots,
		recorded: outcome.Video, video: outcome.Video &&
			announcement.Settings.WantsVideo(s.Counts.Failures+s.Counts.Skipped > 0), coverage: outcome.Coverage}
	x.known[s.ID] = t
	return t, nil
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
	MoreTests int // that the filter shows, and that are left out
	Output    string
}

// Open means that there is more to show than a line.
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
	Pictures []picture // that are of no failure
	Clips    []clip    // of a flaky test whose failures are not known
	// Above is where its failures are already, "" if nowhere.
	Above string
	// HistoryURL is what it did in other runs; "" where that is not linked to.
	HistoryURL string
}

// failureView is an error of one or more attempts of a test.
type failureView struct {
	ID       string // anchor
	Group    string // "" where it is the same in all
	Attempts string // "" if it is that of the only one
	Hook     string // that failed, "" if none
	Message  string
	Where    string // file, line and column
	WhereURL string // that line at the commit, "" if it is not known
	Frame    string
	Stack    string
	Pictures []picture
	Clips    []clip
}

// worthShowing reports whether a test did not simply pass.
func (t testView) worthShowing() bool {
	return t.State == string(run.Failed) || t.State == string(run.Skipped) || t.Flaky
}

// spec makes the list entry of a spec with the tests that match the filter. Tests among the failures of the page are
// not shown again.
func (x *specReader) spec(s specRef, filter specFilter, f *failures) (specView, error) {
	v := x.u.specLine(x.run, s, x.named)
	wanted := filter.counts(s.Counts)
	if s.CompletedAt.IsZero() || wanted == 0 && s.Exception == "" {
		return v, nil
	}
	above := func(title []string) string {
		if t := f.byID[run.Signature(x.run.ProjectID, s.Spec, title)]; t != nil {
			return "#" + t.ID
		}
		return ""
	}
	if s.Exception != "" && above(nil) == "" {
		v.Exception = x.head(s.Exception, x.limits.exception)
	}
	if x.shown == 0 {
		v.MoreTests = wanted
		return v, nil
	}
	reported, err := x.tests(s)
	if err != nil {
		return v, err
	}
	if reported.tests == nil {
		v.MoreTests = wanted
	}
	for n, t := range reported.tests {
		test := summary(t, fmt.Sprintf("%s-%d", v.ID, n+1), x.limits)
		if !filter.test(test) || t.Repeats(s.Exception) {
			continue
		}
		if x.shown == 0 || len(v.Tests) == maxOfSpec {
			v.MoreTests++
			continue
		}
		x.shown--
		if test.Above = above(t.Title); test.Above == "" && test.worthShowing() {
			if test.Failures, err = x.failuresOf(s, reported, t, test.ID); err != nil {
				return v, err
			}
		}
		v.Tests = append(v.Tests, test)
	}
	if s.state.Tone == toneFail {
		output, err := x.tx.Output(x.ctx, s.ID)
		if err != nil {
			return v, err
		}
		v.Output = x.tail(output, x.limits.output)
	}
	return v, nil
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
	v := testView{ID: id, State: string(t.Result.State), Attempts: len(t.Result.Attempts),
		Flaky: t.Result.State == run.Passed && len(t.Result.Attempts) > 1}
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
		v.State, v.Tone = "not reported", toneIdle
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

// failuresOf shows the errors of a test's attempts, with their screenshots and their
// places in the video; id is the anchor of the test.
func (x *specReader) failuresOf(s specRef, reported specTests, t run.Test, id string) ([]failureView, error) {
	var out []failureView
	shots, name := reported.shots(t.ID), run.Clip(run.Plain(strings.Join(t.Title, " › ")), 500)
	for _, f := range distinct(t, reported.hooks) {
		v := failureView{ID: id + "-error", Hook: f.hook, Message: x.head(f.Text(), x.limits.message)}
		if len(f.attempts) > 0 {
			v.ID = id + "-attempt-" + f.attempts[0]
		}
		if len(t.Result.Attempts) > 1 {
			v.Attempts = attemptsOf(f.attempts, len(t.Result.Attempts))
		}
		if f.Frame != nil {
			v.Frame = x.head(f.Frame.Text, x.limits.frame)
			v.Where = run.Clip(f.Frame.Position(), 500)
			v.WhereURL = x.remote.LineURL(x.run.Commit.SHA, f.Frame.File, f.Frame.Line)
		}
		v.Stack = x.head(f.Trace(), x.limits.stack)
		var err error
		if v.Pictures, err = x.pictures(s, reported, f.of(shots), name, len(t.Result.Attempts) > 1); err != nil {
			return nil, err
		}
		if v.Clips, err = x.clips(s, reported, f.in(t), name); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// attemptsOf names some of a test's attempts; all is how many there are.
func attemptsOf(some []string, all int) string {
	switch {
	case len(some) == 0:
		return ""
	case len(some) == 1:
		return "Attempt " + some[0]
	case len(some) == all:
		return "Every attempt"
	default:
		return "Attempts " + strings.Join(some, ", ")
	}
}

// distinctFailure is an error of some attempts of a test.
type distinctFailure struct {
	run.Failure
	hook     string
	attempts []string
}

// of are those of a test's screenshots that the attempts took.
func (f distinctFailure) of(shots []run.Screenshot) []run.Screenshot {
	var list []run.Screenshot
	for _, s := range shots {
		if len(f.attempts) == 0 || slices.Contains(f.attempts, strconv.Itoa(s.Attempt+1)) {
			list = append(list, s)
		}
	}
	return list
}

// in are the attempts of the test that failed in this way; all failed ones if the reporter does not say which, as
// with Cypress 13 and later.
func (f distinctFailure) in(t run.Test) []numbered {
	var list []numbered
	for n, a := range t.Result.Attempts {
		if slices.Contains(f.attempts, strconv.Itoa(n+1)) || len(f.attempts) == 0 && a.State == run.Failed {
			list = append(list, numbered{a, n + 1, len(t.Result.Attempts)})
		}
	}
	return list
}

// distinct lists the errors of a test's attempts, equal ones that follow each other as
// one; of many that differ, the last.
func distinct(t run.Test, hooks map[string]string) []distinctFailure {
	var list []distinctFailure
	for n, a := range t.Result.Attempts {
		if a.Error == nil {
			continue
		}
		f := distinctFailure{Failure: *a.Error, hook: hooks[a.Hook], attempts: []string{strconv.Itoa(n + 1)}}
		if last := len(list) - 1; last >= 0 && list[last].Name == f.Name && list[last].Message == f.Message &&
			list[last].hook == f.hook {
			f.attempts = append(list[last].attempts, f.attempts...)
			list[last] = f
			continue
		}
		list = append(list, f)
	}
	if len(list) == 0 && t.Result.Error != "" {
		list = append(list, distinctFailure{Failure: t.Result.Displayed()})
	}
	const most = 5
	return list[max(0, len(list)-most):]
}

// crumbs are the breadcrumbs of the pages of a run.
type crumbs struct {
	RunURL  string
	RunsURL string
	Subject string
	Build   string // "" if it is the subject
	Verdict verdict
}

func (u *ui) crumbs(r run.Run, project run.Project, groups []run.Group) crumbs {
	var counts run.Counts
	for _, g := range groups {
		counts = counts.Plus(g.Counts)
	}
	c := crumbs{RunURL: u.runURL(r.ID), RunsURL: u.projectURL(project.ID, ""), Subject: subjectOf(r), Build: r.CIBuildID,
		Verdict: verdictOf(r.State, counts)}
	if c.Subject == c.Build {
		c.Build = ""
	}
	return c
}
