package ui

import (
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// failureLine is a failure in the list at the top of a spec's page.
type failureLine struct {
	URL   string
	Path  []string // of titles, without the last
	Title string
	Error string
}

// specPage is all about one spec of a run.
type specPage struct {
	layout
	crumbs
	Spec      specView
	Before    *specView // the failed spec before it, nil if there is none
	After     *specView // the failed spec after it, nil if there is none
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
	Pictures  []picture // that are of no test
	Video     *clip     // nil if the reporter named none
	Coverage  *clip     // of the code; nil if the reporter named none
	Output    string
	OutputURL string // all of it, "" if there is none
	// OutputRemoved is when retention removed console output of the run.
	OutputRemoved time.Time
}

func (u *ui) spec(r *request) error {
	return u.ofRun(r, []string{"group", "file", "page"}, func(tx *store.Tx, at runState) ([]byte, error) {
		p, err := u.loadSpecPage(r, tx, at)
		if err != nil {
			return nil, err
		}
		return u.views.spec.render(p)
	})
}

func (u *ui) loadSpecPage(r *request, tx *store.Tx, at runState) (specPage, error) {
	ctx, found := r.Context(), at.run
	groups, err := tx.Groups(ctx, found.ID)
	if err != nil {
		return specPage{}, err
	}
	i, err := r.specInstance(tx, found)
	if err != nil {
		return specPage{}, err
	}
	machines, err := tx.MachineNumbers(ctx, found.ID)
	if err != nil {
		return specPage{}, err
	}
	ref := sortSpecs(groups, machines, []run.Instance{i})[0]
	x := u.specReader(r, tx, found, found.Explicit || len(groups) > 1)
	x.budget, x.limits, x.read = budget{maxSpecText}, onSpecPage, math.MaxInt
	p := specPage{crumbs: u.crumbs(found, at.project, groups), Spec: u.specLine(found, ref, x.named),
		Started: i.ClaimedAt, Completed: i.CompletedAt,
		Browser: run.Clip(strings.TrimSpace(ref.group.Platform.BrowserName+" "+ref.group.Platform.BrowserVersion), 100),
		OS:      osOf(ref.group.Platform)}
	p.layout = u.layout(r, ref.state.Word+" · "+run.Clip(p.Spec.File, 100)+" · "+p.Subject, ref.state.Tone)
	p.Project = u.nav(at.project, "runs")
	p.Spec.Exception = x.head(i.Exception, x.limits.exception)
	if err := p.addTests(r, x, ref); err != nil {
		return p, err
	}
	if err := u.addBeside(ctx, tx, &p, at.run, groups, i); err != nil {
		return p, err
	}
	output, err := tx.Output(ctx, i.ID)
	if err != nil {
		return p, err
	}
	if p.Output = x.tail(output, x.limits.output); output != "" {
		p.OutputURL = strings.Replace(p.Spec.URL, "/spec?", "/output?", 1)
	} else if !i.CompletedAt.IsZero() {
		p.OutputRemoved = found.OutputRemovedAt
	}
	return p, nil
}

// addBeside adds the failed specs before and after the one of a page.
func (u *ui) addBeside(ctx context.Context, tx *store.Tx, p *specPage, of run.Run, groups []run.Group,
	i run.Instance) error {
	before, after, err := tx.FailedBeside(ctx, i)
	if err != nil {
		return err
	}
	show := func(beside run.Instance) *specView {
		if beside.ID == "" {
			return nil
		}
		v := u.specLine(of, sortSpecs(groups, nil, []run.Instance{beside})[0], p.Spec.Group != "")
		return &v
	}
	p.Before, p.After = show(before), show(after)
	return nil
}

// specInstance finds the spec that an address names.
func (r *request) specInstance(tx *store.Tx, of run.Run) (run.Instance, error) {
	group := r.query("group")
	if group == "" {
		group = of.CIBuildID // the implicit group's name
	}
	return tx.SpecInstance(r.Context(), of.ID, group, r.query("file"))
}

// output answers with the whole console output of a spec, as it was printed.
func (u *ui) output(r *request) error {
	r.file = path.Base(r.query("file")) + ".txt"
	err := u.ofRun(r, []string{"file", "group"}, func(tx *store.Tx, at runState) ([]byte, error) {
		i, err := r.specInstance(tx, at.run)
		if err != nil {
			return nil, err
		}
		output, err := tx.Output(r.Context(), i.ID)
		if err == nil && output == "" {
			err = run.Errorf(run.NotFound, "There is no console output of this spec.")
		}
		return []byte(output), err
	})
	if err != nil {
		r.file = "" // the error is a page
	}
	return err
}

// addTests adds a page of the tests, and a line for each failure of all of them.
func (p *specPage) addTests(r *request, x *specReader, s specRef) error {
	reported, err := x.tests(s)
	if err != nil {
		return err
	}
	if err := p.addMedia(x, s, reported); err != nil {
		return err
	}
	tests := reported.tests
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
	for n, t := range tests {
		onPage := n >= from && n < to
		failed := t.Result.State == run.Failed && !t.Repeats(s.Exception)
		if !onPage && !failed {
			continue
		}
		v := summary(t, fmt.Sprintf("test-%d", n+1), x.limits)
		if failed && len(p.Failures) == maxFailures {
			p.More++
		} else if failed {
			failure, _ := t.Failure()
			p.Failures = append(p.Failures,
				failureLine{URL: anchor(address, n, onPage, v.ID), Path: v.Path, Title: v.Title,
					Error: run.Headline(failure.Text())})
		}
		if onPage {
			if r.signedIn() {
				v.HistoryURL = x.u.projectURL(x.run.ProjectID, "/tests/"+run.Signature(x.run.ProjectID, s.Spec, t.Title))
			}
			if err := x.fill(&v, s, reported, t); err != nil {
				return err
			}
			p.Tests = append(p.Tests, v)
		}
	}
	return nil
}

// fill adds the failures of a test, its other screenshots and, if it is flaky, its video.
func (x *specReader) fill(v *testView, s specRef, reported specTests, t run.Test) (err error) {
	shots := reported.shots(t.ID)
	if v.worthShowing() && !t.Repeats(s.Exception) {
		if v.Failures, err = x.failuresOf(s, reported, t, v.ID); err != nil {
			return err
		}
		shots = slices.DeleteFunc(shots, func(shot run.Screenshot) bool {
			return slices.ContainsFunc(distinct(t, nil),
				func(f distinctFailure) bool { return len(f.of([]run.Screenshot{shot})) > 0 })
		})
	}
	name := strings.Join(append(slices.Clone(v.Path), v.Title), " › ")
	if v.Pictures, err = x.pictures(s, reported, shots, name, v.Attempts > 1); err != nil {
		return err
	}
	if v.Flaky && len(v.Failures) == 0 {
		v.Clips, err = x.clips(s, reported, distinctFailure{}.in(t), name)
	}
	return err
}

// addMedia adds the video of the spec, the coverage of its code, and the screenshots that are of no test.
func (p *specPage) addMedia(x *specReader, s specRef, reported specTests) error {
	known := map[string]bool{}
	for _, t := range reported.tests {
		known[t.ID] = true
	}
	var others []run.Screenshot
	for _, shot := range reported.screenshots {
		if !known[shot.TestID] {
			others = append(others, shot)
		}
	}
	var err error
	if p.Pictures, err = x.pictures(s, reported, others, p.Spec.File, false); err != nil {
		return err
	}
	if p.Coverage, err = x.coverage(s, reported); err != nil {
		return err
	}
	clips, err := x.clips(s, reported, nil, p.Spec.File)
	switch {
	case len(clips) > 0:
		p.Video = &clips[0]
	case reported.recorded:
		p.Video = &clip{Missing: "No video was uploaded, because the spec passed and videoUploadOnPasses is false."}
	}
	return err
}

// anchor is the link to a test, on this page or on another one of its list.
func anchor(address func(int) string, n int, onPage bool, id string) string {
	if onPage {
		return "#" + id
	}
	return address(n/testsPerPage+1) + "#" + id
}
