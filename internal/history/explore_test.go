package history_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// day is when the runs of tests begin.
var day = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// execution is a spec of a run as the model has it, with its raw results once they
// are in.
type execution struct {
	run       *modelRun
	group     string
	instance  string
	spec      string
	position  int
	done      bool
	exception string
	tests     []run.Announced
	results   []run.Result
	duration  time.Duration
}

type modelRun struct {
	id     string
	at     time.Time
	branch string
	author string
	tags   []string
	state  run.State
	specs  []*execution
	// machines are those that have all specs of a group.
	machines map[string]string
}

// world is a project whose raw results are kept a second time, plainly.
type world struct {
	db      *store.DB
	runs    *lifecycle.Service
	worker  *history.Worker
	project string
	list    []*modelRun
	started int
	swept   int // how often its names were
	// explorer remembers totals of what has changed since.
	explorer *history.Explorer
}

func newWorld(t testing.TB, db *store.DB, project string) *world {
	testkit.Project(t, db, project, func(p *run.Project) { p.CompletionDelay = 0 })
	return &world{db: db, runs: lifecycle.New(db, "http://runbell.test", func(...string) {}), project: project,
		explorer: history.NewExplorer().RememberFrom(1), worker: history.NewWorker(db, slog.New(slog.DiscardHandler), prometheus.NewRegistry())}
}

// start starts a run, all of whose specs are claimed.
func (w *world) start(t testing.TB, r *modelRun, groups []string, specs []string) *modelRun {
	ctx := context.Background()
	w.started++
	r.machines = map[string]string{}
	build := fmt.Sprint(w.project, "-", w.started)
	at := w.runs.At(r.at)
	for _, group := range groups {
		joined, err := at.Join(ctx, lifecycle.Join{ProjectID: w.project, CIBuildID: build, Group: group, Specs: specs, SpecHash: "s", Parallel: true, Batches: true,
			Commit: run.Commit{SHA: "abc", Branch: r.branch, AuthorName: r.author}, Tags: r.tags})
		if err != nil {
			t.Fatal(err)
		}
		r.id, r.machines[joined.GroupName] = joined.RunID, joined.MachineID
		claimed, err := at.Claim(ctx, lifecycle.Claim{RunID: r.id, MachineID: joined.MachineID, Limit: len(specs)})
		if err != nil || len(claimed.Instances) != len(specs) {
			t.Fatalf("%d of %d specs claimed: %v", len(claimed.Instances), len(specs), err)
		}
		for _, i := range claimed.Instances {
			r.specs = append(r.specs, &execution{run: r, group: joined.GroupName, instance: i.ID, spec: i.Spec, position: i.Position})
		}
	}
	r.state = run.Running
	w.list = append(w.list, r)
	return r
}

// complete sends the results that e has.
func (w *world) complete(t testing.TB, e *execution) {
	o := run.Outcome{Results: e.results, Exception: e.exception, Duration: e.duration}
	if _, err := w.runs.At(e.run.at.Add(time.Minute)).Complete(context.Background(), e.instance, &run.Announcement{Tests: e.tests}, o); err != nil {
		t.Fatal(err)
	}
	e.done = true
}

func (w *world) catch(t testing.TB) {
	if err := w.worker.Catch(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// reset resets the specs of a group's machine that did not pass, and claims them again at once.
func (w *world) reset(t testing.TB, r *modelRun, group string) {
	ctx, at := context.Background(), w.runs.At(r.at.Add(2*time.Minute))
	taken, err := at.Reset(ctx, r.id, []string{r.machines[group]})
	if run.KindOf(err) == run.Refused {
		return // the group has ended
	}
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := at.Claim(ctx, lifecycle.Claim{RunID: r.id, MachineID: r.machines[group], Limit: len(r.specs)})
	if err != nil || len(claimed.Instances) != len(taken) {
		t.Fatalf("%d of %d specs claimed again: %v", len(claimed.Instances), len(taken), err)
	}
	for n, i := range claimed.Instances {
		old := slices.IndexFunc(r.specs, func(e *execution) bool { return e.instance == taken[n].ID })
		if e := r.specs[old]; e.position != i.Position || e.done && e.passed() {
			t.Fatalf("%+v was reset, and %+v claimed", e, i)
		}
		r.specs[old] = &execution{run: r, group: group, instance: i.ID, spec: i.Spec, position: i.Position}
	}
}

func (e *execution) passed() bool {
	return e.exception == "" && !slices.ContainsFunc(e.results, func(r run.Result) bool { return r.State == run.Failed || r.State == run.Skipped })
}

// matching are the executions with results that a filter is about.
func (w *world) matching(f store.HistoryFilter) (list []*execution) {
	for _, r := range w.list {
		tags := len(f.Tags) == 0 || f.AnyTag && slices.ContainsFunc(f.Tags, func(t string) bool { return slices.Contains(r.tags, t) }) ||
			!f.AnyTag && !slices.ContainsFunc(f.Tags, func(t string) bool { return !slices.Contains(r.tags, t) })
		if !tags || r.at.Before(f.Since) || !r.at.Before(f.Until) || len(f.Branches) > 0 && !slices.Contains(f.Branches, r.branch) ||
			len(f.Authors) > 0 && !slices.Contains(f.Authors, r.author) {
			continue
		}
		for _, e := range r.specs {
			if len(f.Groups) == 0 || slices.Contains(f.Groups, e.group) {
				list = append(list, e)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *execution) int {
		return cmp.Or(a.run.at.Compare(b.run.at), cmp.Compare(a.run.id, b.run.id), cmp.Compare(a.group, b.group), cmp.Compare(a.position, b.position))
	})
	return list
}

func flaky(r run.Result) bool { return r.State == run.Passed && len(r.Attempts) > 1 }

func took(r run.Result) (ms int64) {
	for _, a := range r.Attempts {
		ms += a.Duration
	}
	if len(r.Attempts) == 0 {
		return r.Duration
	}
	return ms
}

// countedTest is a test as the plain recount has it.
type countedTest struct {
	Signature, Spec, Name                        string
	Executions, Failures, Passes, Flaky, Ignored int
	Duration                                     float64
	LastSeen                                     time.Time
}

func (w *world) countTests(f store.HistoryFilter) map[string]countedTest {
	counted, passedFor := map[string]countedTest{}, map[string]int64{}
	for _, e := range w.matching(f) {
		for i, r := range e.results {
			if !e.done {
				break
			}
			title := e.tests[i].Title
			key := run.Signature(w.project, e.spec, title)
			c := counted[key]
			c.Signature, c.Spec, c.Name, c.LastSeen = key, e.spec, strings.Join(title, " > "), e.run.at
			switch r.State {
			case run.Passed:
				c.Passes++
				c.Executions++
				passedFor[key] += took(r)
				c.Duration = float64(passedFor[key]) / float64(c.Passes)
			case run.Failed:
				c.Failures++
				c.Executions++
			default:
				c.Ignored++
			}
			if flaky(r) {
				c.Flaky++
			}
			counted[key] = c
		}
	}
	return counted
}

func (w *world) countSpecs(f store.HistoryFilter) map[string]history.SpecMetrics {
	counted, timed, total := map[string]history.SpecMetrics{}, map[string]int{}, map[string]time.Duration{}
	for _, e := range w.matching(f) {
		m := counted[e.spec]
		if !e.done {
			continue
		}
		m.Overall++
		m.FullyReported++
		bad := slices.ContainsFunc(e.results, func(r run.Result) bool { return r.State == run.Failed })
		if bad || e.exception != "" {
			m.Failed++
		} else {
			timed[e.spec]++
			total[e.spec] += e.duration
			m.AvgDuration = float64(total[e.spec].Milliseconds()) / float64(timed[e.spec])
		}
		if slices.ContainsFunc(e.results, flaky) {
			m.Flaky++
		}
		m.SuiteSize = max(m.SuiteSize, len(e.results))
		m.FailureRate, m.FlakeRate = float64(m.Failed)/float64(m.Overall), float64(m.Flaky)/float64(m.Overall)
		counted[e.spec] = m
	}
	return counted
}

type countedError struct{ Count, Tests, Branches int }

func (w *world) countErrors(f store.HistoryFilter) (map[string]countedError, map[time.Time]int) {
	counted, perDay, seen := map[string]countedError{}, map[time.Time]int{}, map[string]bool{}
	once := func(parts ...string) int {
		if key := strings.Join(parts, "\x00"); !seen[key] {
			seen[key] = true
			return 1
		}
		return 0
	}
	add := func(e *execution, text, test string) {
		print := run.Fingerprint(text)
		c := counted[print]
		c.Count++
		if test != "" {
			c.Tests += once(print, "t", test)
		}
		c.Branches += once(print, "b", e.run.branch)
		counted[print] = c
		perDay[e.run.at.Truncate(24*time.Hour)]++
	}
	for _, e := range w.matching(f) {
		if !e.done {
			continue
		}
		failures := 0
		for i, r := range e.results {
			if r.State == run.Failed {
				failures++
			}
			if r.State == run.Failed || flaky(r) {
				add(e, r.Attempts[0].Error.Message, run.Signature(w.project, e.spec, e.tests[i].Title))
			}
		}
		if e.exception != "" && failures == 0 {
			add(e, e.exception, "")
		}
	}
	return counted, perDay
}

var (
	branches = []string{"main", "fix", "dev"}
	authors  = []string{"Ann", "Bo"}
	tags     = []string{"smoke", "nightly", `o"dd, one`}
	groups   = []string{"chrome", "firefox"}
	specs    = []string{"a.cy.js", "b.cy.js", "deep/c.cy.js"}
	messages = []string{"Timed out retrying after 4000ms: Expected to find element: `.done`, but never found it.", "AssertionError: expected 1 to equal 2", "boom"}
)

func subset[T any](rt *rapid.T, list []T, label string) []T {
	var out []T
	for i, v := range list {
		if rapid.IntRange(0, 2).Draw(rt, fmt.Sprint(label, i)) == 0 {
			out = append(out, v)
		}
	}
	return out
}

// drawResults fills in how an execution ended.
func drawResults(rt *rapid.T, e *execution) {
	e.duration = time.Duration(rapid.IntRange(0, 90_000).Draw(rt, "duration")) * time.Millisecond
	for i := range rapid.IntRange(0, 4).Draw(rt, "tests") {
		title := []string{"suite", fmt.Sprint("test ", rapid.IntRange(0, 3).Draw(rt, "title"))} // two may share a title
		id := fmt.Sprint("r", i)
		r := run.Result{ID: id, State: rapid.SampledFrom([]run.TestState{run.Passed, run.Passed, run.Failed, run.Pending, run.Skipped}).Draw(rt, "state")}
		if r.State == run.Passed || r.State == run.Failed {
			message := rapid.SampledFrom(messages).Draw(rt, "message")
			tries := rapid.SampledFrom([]int{1, 1, 2, 40}).Draw(rt, "attempts")
			for n := range tries {
				a := run.Attempt{State: run.Failed, Duration: int64(rapid.IntRange(0, 5000).Draw(rt, "ms")), Error: &run.Failure{Message: message}}
				if n == tries-1 && r.State == run.Passed {
					a.State, a.Error = run.Passed, nil
				}
				r.Attempts = append(r.Attempts, a)
			}
		}
		e.tests, e.results = append(e.tests, run.Announced{ID: id, Title: title}), append(e.results, r)
	}
	if rapid.IntRange(0, 9).Draw(rt, "crash") == 0 {
		e.exception = "The spec did not compile: " + rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "why")
	}
}

func drawFilter(rt *rapid.T) store.HistoryFilter {
	f := store.HistoryFilter{Since: day, Until: day.AddDate(0, 0, 8)}
	if rapid.Bool().Draw(rt, "some days") {
		from := rapid.IntRange(0, 7).Draw(rt, "from")
		f.Since, f.Until = day.AddDate(0, 0, from), day.AddDate(0, 0, rapid.IntRange(from+1, 8).Draw(rt, "to"))
	}
	f.Branches, f.Authors = subset(rt, branches, "branch"), subset(rt, authors, "author")
	f.Tags, f.AnyTag, f.Groups = subset(rt, tags, "tag"), rapid.Bool().Draw(rt, "any tag"), subset(rt, groups, "group")
	return f
}

// TestExplorersAgreeWithARecount: whatever happens in whatever order, every explorer
// counts what a plain recount of the raw results counts, once the worker has caught up.
func TestExplorersAgreeWithARecount(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		project, most := 0, 100
		if db.Shared() {
			most = 25 // what PostgreSQL does differently shows in a few
		}
		rapid.Check(t, func(rt *rapid.T) {
			if project++; project > most {
				return
			}
			w := newWorld(t, db, fmt.Sprint("p", project))
			// The total of each day, of those with more than a few results, or of none.
			w.explorer.RememberFrom(rapid.SampledFrom([]int{1, 60, 1 << 20}).Draw(rt, "days with a total"))
			open := func(rt *rapid.T) *execution {
				var list []*execution
				for _, r := range w.list {
					for _, e := range r.specs {
						if !e.done {
							list = append(list, e)
						}
					}
				}
				if len(list) == 0 {
					rt.Skip("everything is done")
				}
				return rapid.SampledFrom(list).Draw(rt, "spec")
			}
			rt.Repeat(map[string]func(*rapid.T){
				"start": func(rt *rapid.T) {
					w.start(t, &modelRun{at: day.Add(time.Duration(rapid.IntRange(0, 7*24*60).Draw(rt, "at")) * time.Minute), branch: rapid.SampledFrom(branches).Draw(rt, "branch"),
						author: rapid.SampledFrom(authors).Draw(rt, "author"), tags: subset(rt, tags, "tag")}, groups[:rapid.IntRange(1, 2).Draw(rt, "groups")], specs)
				},
				"complete": func(rt *rapid.T) {
					e := open(rt)
					drawResults(rt, e)
					w.complete(t, e)
				},
				"cancel": func(rt *rapid.T) { // what is completed later is a late result
					if len(w.list) == 0 {
						rt.Skip("no run yet")
					}
					r := rapid.SampledFrom(w.list).Draw(rt, "run")
					if _, err := w.runs.Cancel(context.Background(), r.id, "test", ""); err != nil {
						rt.Fatal(err)
					}
				},
				"reset": func(rt *rapid.T) {
					if len(w.list) == 0 {
						rt.Skip("no run yet")
					}
					r := rapid.SampledFrom(w.list).Draw(rt, "run")
					w.reset(t, r, rapid.SampledFrom(slices.Sorted(maps.Keys(r.machines))).Draw(rt, "group"))
				},
				"catch": func(*rapid.T) { w.catch(t) },
				"sweep": func(*rapid.T) { w.sweepNames(t) },
				"look": func(rt *rapid.T) {
					w.catch(t)
					f := drawFilter(rt)
					testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error { return w.check(ctx, rt, tx, f) })
				},
				"die": func(rt *rapid.T) {
					ctx, kill := context.WithCancel(context.Background())
					after := time.AfterFunc(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "µs"))*time.Microsecond, kill)
					_ = w.worker.Catch(ctx) // it ends where it is
					after.Stop()
					kill()
				},
				"delete": func(rt *rapid.T) {
					if rapid.IntRange(0, 3).Draw(rt, "often") > 0 || len(w.list) == 0 {
						rt.Skip("not now")
					}
					oldest := slices.MinFunc(w.list, func(a, b *modelRun) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id)) })
					testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
						_, err := tx.RemoveRun(ctx, oldest.id) // the rows of its specs stay for a while
						return err
					})
					w.list = slices.DeleteFunc(w.list, func(r *modelRun) bool { return r == oldest })
				},
			})
			w.catch(t)
			f := drawFilter(rt)
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error { return w.check(ctx, rt, tx, f) })
		})
	})
}

// A project that is deleted and created again starts its numbers at 1: the worker must not use those that it
// remembers.
func TestNumbersStartAgain(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, "again")
		record := func(titles ...string) *modelRun {
			r := w.start(t, &modelRun{at: day, branch: "main"}, groups[:1], specs[:1])
			for _, title := range titles {
				r.specs[0].tests = append(r.specs[0].tests, run.Announced{ID: title, Title: []string{title}})
				r.specs[0].results = append(r.specs[0].results, run.Result{ID: title, State: run.Passed})
			}
			w.complete(t, r.specs[0])
			w.catch(t)
			return r
		}
		w.list = []*modelRun{record("a", "b"), record("b", "c")}
		for _, r := range w.list {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				if _, err := tx.RemoveRun(ctx, r.id); err != nil {
					return err
				}
				_, err := tx.RemoveRest(ctx, 1000)
				return err
			})
		}
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			for names, err := 1, error(nil); names == 1; { // some at a time, as a project is deleted
				if names, err = tx.DeleteHistory(ctx, "again", 1); err != nil {
					return err
				}
			}
			return tx.DeleteProject(ctx, "again")
		})
		testkit.Project(t, db, "again")
		w.list = nil
		record("c", "a")
		record("c", "a")
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, _, err := history.NewExplorer().Tests(ctx, tx, "again", history.TestQuery{Filter: store.HistoryFilter{Since: day, Until: day.Add(time.Hour)}, Order: history.ByTitle, Ascending: true, Limit: 10})
			if err == nil && (len(list) != 2 || list[0].Name() != "a" || list[1].Name() != "c" || list[1].Metrics.Passes != 2) {
				t.Errorf("%+v", list)
			}
			return err
		})
	})
}

var nearly = cmpopts.EquateApprox(0, 1e-6)

// check compares every explorer with the recount.
func (w *world) check(ctx context.Context, rt *rapid.T, tx *store.Tx, f store.HistoryFilter) error {
	list, total, err := w.explorer.Tests(ctx, tx, w.project, history.TestQuery{Filter: f, States: history.DefaultStates(), Order: history.ByExecutions, Limit: 1000})
	if err != nil {
		return err
	}
	got := map[string]countedTest{}
	for _, v := range list {
		m := v.Metrics
		got[v.Signature] = countedTest{v.Signature, v.Spec, v.Name(), m.Executions, m.Failures, m.Passes, m.Flaky, m.Ignored, m.AvgDuration, v.LastSeen}
	}
	want := w.countTests(f)
	if diff := gocmp.Diff(want, got, nearly); diff != "" || total != len(want) {
		rt.Fatalf("%d tests of %+v: %s", total, f, diff)
	}
	specList, _, err := w.explorer.Specs(ctx, tx, w.project, history.SpecQuery{Filter: f, Order: history.ByAvgDuration, Limit: 1000})
	if err != nil {
		return err
	}
	gotSpecs := map[string]history.SpecMetrics{}
	for _, s := range specList {
		gotSpecs[s.Path] = s.Metrics
	}
	if diff := gocmp.Diff(w.countSpecs(f), gotSpecs, nearly); diff != "" {
		rt.Fatalf("specs of %+v: %s", f, diff)
	}
	errs, err := w.explorer.Errors(ctx, tx, w.project, history.ErrorQuery{Filter: f, Order: history.ByCount, TopBy: history.ByCount, Limit: 1000, Top: 1})
	if err != nil {
		return err
	}
	gotErrors, gotDays := map[string]countedError{}, map[time.Time]int{}
	for _, e := range errs.List {
		gotErrors[e.Fingerprint] = countedError{e.Count, e.Tests, e.Branches}
	}
	for _, d := range errs.Timeline {
		gotDays[d.Day] = d.Count
	}
	wantErrors, wantDays := w.countErrors(f)
	if diff := gocmp.Diff(wantErrors, gotErrors) + gocmp.Diff(wantDays, gotDays); diff != "" {
		rt.Fatalf("errors of %+v: %s", f, diff)
	}
	if err := w.checkInsights(ctx, rt, tx, f); err != nil {
		return err
	}
	if err := w.checkTests(ctx, rt, tx, f, list); err != nil {
		return err
	}
	if err := w.checkErrors(ctx, rt, tx, f, errs.List); err != nil {
		return err
	}
	if err := w.checkHealths(ctx, rt, tx); err != nil {
		return err
	}
	return w.checkResults(ctx, rt, tx, f, want)
}

// checkTests compares what the page of each test says with the list of tests, and with its raw results.
func (w *world) checkTests(ctx context.Context, rt *rapid.T, tx *store.Tx, f store.HistoryFilter, list []history.Test) error {
	type seen struct {
		run, group string
		state      run.TestState
		flaky      bool
		ms         int64
	}
	for _, v := range list {
		trace, err := history.TraceTest(ctx, tx, w.project, v.Signature, f)
		if err != nil {
			return err
		}
		if trace.Metrics != v.Metrics || trace.Health != v.Health {
			rt.Fatalf("the page of %s says %+v, %s; the list %+v, %s", v.Name(), trace.Metrics, trace.Health, v.Metrics, v.Health)
		}
		var want, got []seen
		for _, e := range w.matching(f) {
			for i, r := range e.results {
				if e.done && run.Signature(w.project, e.spec, e.tests[i].Title) == v.Signature {
					want = append(want, seen{e.run.id, e.group, r.State, flaky(r), took(r)})
				}
			}
		}
		for _, r := range trace.Results {
			got = append(got, seen{r.Run.ID, r.Group, r.State, r.Flaky, r.Duration.Milliseconds()})
		}
		if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(seen{})); diff != "" {
			rt.Fatalf("results on the page of %s: %s", v.Name(), diff)
		}
	}
	return nil
}

// checkErrors compares what the page of each error says with the list of errors.
func (w *world) checkErrors(ctx context.Context, rt *rapid.T, tx *store.Tx, f store.HistoryFilter, list []history.Error) error {
	for _, e := range list {
		trace, err := w.explorer.TraceError(ctx, tx, w.project, e.Fingerprint, f)
		if err != nil {
			return err
		}
		tests, inTests, onBranches, onDays := 0, 0, 0, 0
		for _, place := range trace.ByTest {
			if inTests += place.Count; place.Signature != "" {
				tests++
			}
			if place.Spec == "" || !slices.Contains(groups, place.Group) || place.Last.CreatedAt.After(e.LastSeen) {
				rt.Fatalf("%s in %+v", e.Headline, place)
			}
		}
		for _, place := range trace.ByBranch {
			onBranches += place.Count
		}
		for _, day := range trace.Days {
			onDays += day.Count
		}
		if trace.Count != e.Count || inTests != e.Count || onBranches != e.Count || onDays != e.Count || tests != e.Tests ||
			trace.Branches != e.Branches || !trace.FirstSeen.Equal(e.FirstSeen) || !trace.LastSeen.Equal(e.LastSeen) {
			rt.Fatalf("the page of an error says %+v, the list %+v", trace, e)
		}
	}
	return nil
}

// checkHealths compares the healths that events use with the list of tests.
func (w *world) checkHealths(ctx context.Context, rt *rapid.T, tx *store.Tx) error {
	if len(w.list) > 30 {
		return nil // events look at 30 runs
	}
	list, _, err := w.explorer.Tests(ctx, tx, w.project, history.TestQuery{Filter: store.HistoryFilter{Since: day, Until: day.AddDate(0, 0, 9)}, States: history.DefaultStates(),
		Order: history.ByTitle, Limit: 1000})
	if err != nil || len(list) == 0 {
		return err
	}
	signatures := make([]string, len(list))
	for n, v := range list {
		signatures[n] = v.Signature
	}
	numbers, err := tx.HistoryNumbers(ctx, w.project, store.TestName, signatures)
	if err != nil {
		return err
	}
	healths, err := history.HealthsOn(ctx, tx, w.project, "")
	for _, v := range list {
		if got := healths[numbers[v.Signature]]; got != v.Health {
			rt.Fatalf("%s is %s for events, and %s in the list", v.Name(), got, v.Health)
		}
	}
	return err
}

func (w *world) checkInsights(ctx context.Context, rt *rapid.T, tx *store.Tx, f store.HistoryFilter) error {
	overall, timeline, err := history.Insights(ctx, tx, w.project, f, rapid.SampledFrom(history.Resolutions()).Draw(rt, "resolution"))
	if err != nil {
		return err
	}
	var want, steps run.Counts
	inRange := map[string]bool{}
	for _, e := range w.matching(f) {
		inRange[e.run.id] = true
		if e.done {
			want = want.Plus(run.Count(e.results, e.exception))
		}
	}
	ended := 0
	for _, s := range timeline {
		steps = steps.Plus(s.Tests)
		ended += s.Runs
	}
	if overall.Tests != want || steps != want || overall.Runs != len(inRange) || ended != len(inRange) {
		rt.Fatalf("insights of %+v: %+v, step by step %+v; want %d runs with %+v", f, overall, steps, len(inRange), want)
	}
	return nil
}

// checkResults walks the results of each test, in both directions.
func (w *world) checkResults(ctx context.Context, rt *rapid.T, tx *store.Tx, f store.HistoryFilter, tests map[string]countedTest) error {
	limit := rapid.IntRange(1, 4).Draw(rt, "limit")
	type seen struct {
		instance string
		state    run.TestState
		attempts int
	}
	for signature := range tests {
		var want []seen
		for _, e := range w.matching(f) {
			for i, r := range e.results {
				if e.done && run.Signature(w.project, e.spec, e.tests[i].Title) == signature {
					want = append(want, seen{e.instance, r.State, len(r.Attempts)})
				}
			}
		}
		slices.Reverse(want) // the latest first
		var got []seen
		page := store.Page{Limit: limit}
		var first *store.Position
		for more := true; more; {
			var list []history.TestResult
			var err error
			if list, more, err = history.Results(ctx, tx, signature, history.ResultQuery{Filter: f}, page); err != nil {
				return err
			}
			for _, r := range list {
				got = append(got, seen{r.Instance.ID, r.Test.Result.State, len(r.Test.Result.Attempts)})
				page.After = &r.Position
				if first == nil {
					first = &r.Position
				}
			}
			if len(list) == 0 && more {
				rt.Fatal("an empty page says that there is more")
			}
		}
		if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(seen{})); diff != "" {
			rt.Fatalf("results of %s: %s", signature, diff)
		}
		// Back from the last one: all but it, page by page, each with the latest first.
		var back []seen
		page = store.Page{Limit: limit, Before: page.After}
		for more := len(want) > 0; more; {
			var list []history.TestResult
			var err error
			if list, more, err = history.Results(ctx, tx, signature, history.ResultQuery{Filter: f}, page); err != nil {
				return err
			}
			var part []seen
			for _, r := range list {
				part = append(part, seen{r.Instance.ID, r.Test.Result.State, len(r.Test.Result.Attempts)})
			}
			back = append(part, back...)
			if len(list) > 0 {
				page.Before = &list[0].Position
			}
		}
		if diff := gocmp.Diff(want[:max(0, len(want)-1)], back, gocmp.AllowUnexported(seen{}), cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("results of %s, backwards: %s", signature, diff)
		}
	}
	return nil
}
