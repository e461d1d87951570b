package lifecycle_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// model is the rules of a run's life written down a second time, plainly, with
// everything in memory and recounted from scratch. The verbs must agree with it
// after any sequence of commands.
type model struct {
	state    run.State // "" before the first join
	sha      string    // of the first machine
	explicit bool
	closeAt  time.Time
	groups   map[string]*modelGroup
	order    []string // of groups, as they started
	machines []*modelMachine
	events   []string
	owner    map[string]*modelMachine // instance -> machine
	place    map[string]string        // instance -> its group and position: ids are random, places replay
}

type modelGroup struct {
	name      string
	explicit  bool
	parallel  bool
	state     run.State
	heard     time.Time
	specs     int
	instances map[string]*modelInstance // claimed ones
}

type modelInstance struct {
	announced int // -1 before
	results   []run.Result
	exception string
	done      bool
}

type modelMachine struct {
	id     string
	joined time.Time
	group  *modelGroup
	last   []string  // instances of the last claim
	at     time.Time // of the last claim
}

const (
	inactivity = 30 * time.Minute
	delay      = time.Minute
)

func (g *modelGroup) counts() run.Counts {
	var c run.Counts
	for _, i := range g.instances {
		if !i.done {
			c.Announced += max(0, i.announced)
			continue
		}
		if i.exception != "" && !slices.ContainsFunc(i.results, func(res run.Result) bool { return res.State == run.Failed }) {
			c.Failures++
		}
		for _, res := range i.results {
			switch res.State {
			case run.Passed:
				c.Passes++
				if len(res.Attempts) > 1 {
					c.Flaky++
				}
			case run.Failed:
				c.Failures++
			case run.Pending:
				c.Pending++
			case run.Skipped:
				c.Skipped++
			}
			if n := len(res.Attempts); n > 1 {
				c.Retries += n - 1
			}
		}
	}
	return c
}

// passed says that nothing of the spec failed or was skipped.
func (i *modelInstance) passed() bool {
	return i.done && i.exception == "" && !slices.ContainsFunc(i.results, func(r run.Result) bool { return r.State == run.Failed || r.State == run.Skipped })
}

func (g *modelGroup) completed() int {
	n := 0
	for _, i := range g.instances {
		if i.done {
			n++
		}
	}
	return n
}

func (m *model) counts() (c run.Counts) {
	for _, g := range m.groups {
		c = c.Plus(g.counts())
	}
	return c
}

func (m *model) emit(scope run.Scope, group string, s run.State, c run.Counts) {
	if s == run.Running {
		c = run.Counts{}
	}
	m.events = append(m.events, fmt.Sprint(scope, " ", group, " ", webhook.KindOf(s), " ", c))
}

func (m *model) running() (list []*modelGroup) {
	for _, name := range m.order {
		if g := m.groups[name]; g.state == run.Running {
			list = append(list, g)
		}
	}
	return list
}

// end ends a group, and the run with it if nothing keeps it open.
func (m *model) end(g *modelGroup, s run.State, now time.Time) {
	g.state = s
	m.emit(run.GroupScope, g.name, s, g.counts())
	if len(m.running()) > 0 || m.state != run.Running {
		return
	}
	if m.explicit {
		m.closeAt = now.Add(delay)
		return
	}
	m.endRun()
}

func (m *model) endRun() {
	m.state, m.closeAt = run.Finished, time.Time{}
	for _, g := range m.groups {
		if g.state == run.TimedOut {
			m.state = run.TimedOut
		}
	}
	m.emit(run.RunScope, "", m.state, m.counts())
}

func (m *model) cancel() {
	if m.state != run.Running {
		return
	}
	for _, g := range m.running() {
		g.state = run.Canceled
		m.emit(run.GroupScope, g.name, run.Canceled, g.counts())
	}
	m.state, m.closeAt = run.Canceled, time.Time{}
	m.emit(run.RunScope, "", run.Canceled, m.counts())
}

// pass advances the model to now, deadline by deadline.
func (m *model) pass(now time.Time) {
	for {
		var at time.Time
		var due func()
		for _, g := range m.running() {
			if d := g.heard.Add(inactivity); !d.After(now) && (at.IsZero() || d.Before(at)) {
				at, due = d, func() { m.end(g, run.TimedOut, d) }
			}
		}
		if c := m.closeAt; !c.IsZero() && !c.After(now) && (at.IsZero() || c.Before(at)) {
			due = m.endRun
		}
		if due == nil {
			return
		}
		due()
	}
}

func (g *modelGroup) hear(now time.Time) {
	if g.state == run.Running {
		g.heard = now
	}
}

// tmpDir is in memory where the system offers that: the test opens a database
// for each of many cases.
func tmpDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "runbell-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// bubbleTB hides from rapid that it has a *testing.T, whose Deadline cannot be
// asked inside a synctest bubble.
type bubbleTB struct{ rapid.TB }

// TestLifeAgreesWithTheModel plays any interleaving of joins, claims, tests,
// results, retries, late results, cancels and silence in any number of groups
// and machines, on a real SQLite database and virtual time.
func TestLifeAgreesWithTheModel(t *testing.T) {
	dir := tmpDir(t)
	synctest.Test(t, func(t *testing.T) {
		db := testkit.Open(t, testkit.MigratedFile(t, dir))
		testkit.Project(t, db, "shop", func(p *run.Project) { p.InactivityTimeout, p.CompletionDelay = inactivity, delay })
		queued := 0
		runs := lifecycle.New(db, "http://runbell.test", func(...string) { queued++ })
		ctx, cancel := context.WithCancel(t.Context())
		go runs.Keep(ctx, slog.New(slog.DiscardHandler))
		synctest.Wait()
		build := 0
		rapid.Check(bubbleTB{t}, func(rt *rapid.T) {
			build++
			checkLife(ctx, rt, db, runs, fmt.Sprint("b", build))
		})
		if queued != 0 {
			t.Errorf("deliveries were queued for nobody")
		}
		cancel()
		synctest.Wait()
	})
}

func checkLife(ctx context.Context, rt *rapid.T, db *store.DB, runs *lifecycle.Service, build string) {
	must := func(err error) {
		if err != nil {
			rt.Helper()
			rt.Fatal(err)
		}
	}
	m := &model{groups: map[string]*modelGroup{}, owner: map[string]*modelMachine{}, place: map[string]string{}}
	runID, terminal := "", map[string]run.State{}
	specs := map[string][]string{}
	machine := func(rt *rapid.T) *modelMachine {
		if len(m.machines) == 0 {
			rt.Skip("no machine yet")
		}
		return rapid.SampledFrom(m.machines).Draw(rt, "machine")
	}
	instance := func(rt *rapid.T) (string, *modelGroup, *modelInstance) {
		if len(m.owner) == 0 {
			rt.Skip("no instance yet")
		}
		ids := slices.SortedFunc(maps.Keys(m.owner), func(a, b string) int { return cmp.Compare(m.place[a], m.place[b]) })
		id := rapid.SampledFrom(ids).Draw(rt, "instance")
		g := m.owner[id].group
		return id, g, g.instances[id]
	}

	rt.Repeat(map[string]func(*rapid.T){
		"join": func(rt *rapid.T) {
			name := rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "group")
			if specs[name] == nil {
				for i := range rapid.IntRange(1, 4).Draw(rt, "specs") {
					specs[name] = append(specs[name], fmt.Sprintf("%s%d.cy.js", name, i))
				}
			}
			list := slices.Clone(specs[name])
			slices.Reverse(list) // the order does not matter, the set does
			differs := rapid.IntRange(0, 9).Draw(rt, "other specs") == 0
			if differs {
				list = append(list, "other.cy.js")
			}
			j := lifecycle.Join{ProjectID: "shop", CIBuildID: build, Group: name, Specs: list, SpecHash: fmt.Sprint(slices.Sorted(slices.Values(list))), Fingerprint: fmt.Sprint("f", len(m.machines))}
			j.Parallel = rapid.IntRange(0, 9).Draw(rt, "alone") > 0
			j.Commit.SHA = rapid.SampledFrom([]string{"a", "a", "a", "b"}).Draw(rt, "commit")
			retry := len(m.machines) > 0 && rapid.IntRange(0, 4).Draw(rt, "retry") == 0
			if retry {
				k := rapid.IntRange(0, len(m.machines)-1).Draw(rt, "of machine")
				if retry = name == groupParam(m.machines[k].group) && time.Since(m.machines[k].joined) < 10*time.Minute; retry {
					j.Fingerprint, j.Attempt = fmt.Sprint("f", k), 1
				}
			}
			got, err := runs.Join(ctx, j)
			key := name
			if key == "" {
				key = build
			}
			g := m.groups[key]
			idle := g != nil && g.state == run.Finished && g.counts().Green() && !differs && j.Parallel && g.parallel && j.Commit.SHA == m.sha
			switch {
			case retry:
				must(err)
				if !slices.ContainsFunc(m.machines, func(x *modelMachine) bool { return x.id == got.MachineID }) {
					rt.Fatalf("a retried join made a new machine")
				}
				return
			case idle:
				must(err)
				if len(got.Warnings) != 1 || got.Warnings[0].Code != run.WarnNothingToDo {
					rt.Fatalf("a machine that came late was told %+v", got.Warnings)
				}
				m.machines = append(m.machines, &modelMachine{id: got.MachineID, joined: time.Now(), group: g})
				return
			case m.state.Terminal(), g != nil && g.state == run.TimedOut, g != nil && differs, g != nil && (!j.Parallel || !g.parallel),
				g != nil && g.state == run.Finished && !g.counts().Green():
				if run.KindOf(err) != run.Refused {
					rt.Fatalf("join of run %s, group %+v: %v; want it refused", m.state, g, err)
				}
				return
			}
			if differs {
				specs[name] = list
			}
			must(err)
			if runID != "" && runID != got.RunID {
				rt.Fatalf("one build, two runs")
			}
			runID = got.RunID
			if disagrees := m.sha != "" && m.sha != j.Commit.SHA; disagrees != slices.ContainsFunc(got.Warnings, func(w run.Warning) bool { return w.Code == run.WarnDisagree }) {
				rt.Fatalf("the run is of commit %s, the machine of %s, and it was told %+v", m.sha, j.Commit.SHA, got.Warnings)
			}
			if m.state == "" {
				m.state, m.sha = run.Running, j.Commit.SHA
				m.emit(run.RunScope, "", run.Running, run.Counts{})
			}
			if g == nil {
				g = &modelGroup{name: key, explicit: name != "", parallel: j.Parallel, state: run.Running, specs: len(list), instances: map[string]*modelInstance{}}
				m.groups[key], m.order = g, append(m.order, key)
				m.explicit = m.explicit || g.explicit
				m.closeAt = time.Time{}
				m.emit(run.GroupScope, key, run.Running, run.Counts{})
			}
			g.hear(time.Now())
			m.machines = append(m.machines, &modelMachine{id: got.MachineID, joined: time.Now(), group: g})
		},
		"claim": func(rt *rapid.T) {
			mm := machine(rt)
			g := mm.group
			attempt := rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "attempt")
			limit := rapid.IntRange(1, 3).Draw(rt, "batch")
			got, err := runs.Claim(ctx, lifecycle.Claim{RunID: runID, GroupName: g.name, MachineID: mm.id, Attempt: attempt, Limit: limit})
			if m.state == run.Canceled || g.state == run.TimedOut {
				if run.KindOf(err) != run.Refused {
					rt.Fatalf("claim of %s group in %s run: %v; want it refused", g.state, m.state, err)
				}
				return
			}
			must(err)
			g.hear(time.Now())
			known := slices.ContainsFunc(mm.last, func(id string) bool { i := g.instances[id]; return i.done || i.announced >= 0 })
			ids := []string{}
			for _, i := range got.Instances {
				ids = append(ids, i.ID)
				m.place[i.ID] = fmt.Sprintf("%s/%05d", i.GroupName, i.Position)
			}
			if attempt > 0 && len(mm.last) > 0 && !known && time.Since(mm.at) < 2*time.Minute {
				if diff := gocmp.Diff(mm.last, ids); diff != "" {
					rt.Fatalf("a repeated claim got other specs: %s", diff)
				}
			} else {
				if want := min(limit, g.specs-len(g.instances)); len(ids) != want {
					rt.Fatalf("claim got %d specs, want %d", len(ids), want)
				}
				for _, id := range ids {
					if m.owner[id] != nil {
						rt.Fatalf("a spec was handed out twice")
					}
					m.owner[id] = mm
					g.instances[id] = &modelInstance{announced: -1}
				}
				if len(ids) > 0 {
					mm.last, mm.at = ids, time.Now()
				}
			}
			if got.Claimed != len(g.instances) || got.Total != g.specs {
				rt.Fatalf("claimed %d of %d, want %d of %d", got.Claimed, got.Total, len(g.instances), g.specs)
			}
		},
		"tests": func(rt *rapid.T) {
			id, g, i := instance(rt)
			n := rapid.IntRange(0, 3).Draw(rt, "tests")
			_, err := runs.Announce(ctx, id, run.Announcement{Tests: slices.Repeat([]run.Announced{{ID: "announced"}}, n)})
			must(err)
			g.hear(time.Now())
			if i.announced < 0 {
				i.announced = n
			}
		},
		"results": func(rt *rapid.T) {
			id, g, i := instance(rt)
			var o run.Outcome
			for range rapid.IntRange(0, 3).Draw(rt, "tests") {
				o.Results = append(o.Results, run.Result{
					State:    rapid.SampledFrom([]run.TestState{run.Passed, run.Failed, run.Pending, run.Skipped}).Draw(rt, "state"),
					Attempts: make([]run.Attempt, rapid.IntRange(0, 3).Draw(rt, "attempts"))})
			}
			odd := rapid.IntRange(0, 3).Draw(rt, "without an end")
			for i := range min(odd, len(o.Results)) {
				o.Results[i].State = rapid.SampledFrom([]run.TestState{"processing", "active", ""}).Draw(rt, "no end")
			}
			o.Exception = rapid.SampledFrom([]string{"", "it broke"}).Draw(rt, "exception")
			var a *run.Announcement
			if rapid.Bool().Draw(rt, "tests with it") {
				a = &run.Announcement{Tests: make([]run.Announced, len(o.Results))}
			}
			o.Warnings = run.Settle(o.Results, o.Exception)
			heard, err := runs.Complete(ctx, id, a, o)
			must(err)
			if heard.Cancelled != (m.state == run.Canceled) {
				rt.Fatalf("the client was told canceled: %v, of a run that is %s", heard.Cancelled, m.state)
			}
			g.hear(time.Now())
			if a != nil && i.announced < 0 {
				i.announced = len(o.Results)
			}
			if i.done {
				return
			}
			i.done, i.results, i.exception = true, slices.Clone(o.Results), o.Exception
			// What was announced and has no result did not pass.
			for range i.announced - len(o.Results) {
				missing := run.Result{State: run.Failed, Error: o.Exception}
				if o.Exception != "" && slices.ContainsFunc(i.results, func(r run.Result) bool { return r.Error == o.Exception }) {
					missing.State, missing.Error = run.Skipped, ""
				}
				i.results = append(i.results, missing)
			}
			if g.state == run.Running && g.completed() == g.specs {
				m.end(g, run.Finished, time.Now())
			}
		},
		"stdout": func(rt *rapid.T) {
			id, g, _ := instance(rt)
			must(runs.Output(ctx, id, "…"))
			g.hear(time.Now())
		},
		"heartbeat": func(rt *rapid.T) {
			mm := machine(rt)
			heard, err := runs.Heartbeat(ctx, runID, mm.id)
			must(err)
			if heard.Cancelled != (m.state == run.Canceled) {
				rt.Fatalf("heartbeat of a %s run says canceled: %v", m.state, heard.Cancelled)
			}
			mm.group.hear(time.Now())
		},
		"reset": func(rt *rapid.T) {
			mm := machine(rt)
			taken, err := runs.Reset(ctx, runID, []string{mm.id, mm.id})
			if mm.group.state != run.Running {
				if run.KindOf(err) != run.Refused {
					rt.Fatalf("reset of a machine whose group is %s: %v; want it refused", mm.group.state, err)
				}
				return
			}
			must(err)
			mm.group.hear(time.Now())
			want := map[string]bool{}
			for id, owner := range m.owner {
				if owner == mm && !mm.group.instances[id].passed() {
					want[id] = true
				}
			}
			got := map[string]bool{}
			for _, i := range taken {
				got[i.ID] = true
				delete(m.owner, i.ID)
				delete(m.place, i.ID)
				delete(mm.group.instances, i.ID)
				mm.last = slices.DeleteFunc(mm.last, func(id string) bool { return id == i.ID })
				if _, err := runs.Complete(ctx, i.ID, nil, run.Outcome{}); run.KindOf(err) != run.NotFound {
					rt.Fatalf("results of a spec that was taken back: %v; want it unknown", err)
				}
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				rt.Fatalf("a reset took other specs (-want +got):\n%s", diff)
			}
		},
		"cancel": func(rt *rapid.T) {
			if runID == "" || rapid.IntRange(0, 3).Draw(rt, "really") > 0 {
				rt.Skip("not now")
			}
			r, err := runs.Cancel(ctx, runID, "a person", "")
			must(err)
			m.cancel()
			if r.State != m.state {
				rt.Fatalf("canceling left the run %s, want %s", r.State, m.state)
			}
		},
		"silence": func(rt *rapid.T) {
			time.Sleep(time.Duration(rapid.Int64Range(1, int64(40*time.Minute/time.Microsecond)).Draw(rt, "µs")) * time.Microsecond)
			synctest.Wait()
			m.pass(time.Now())
		},
		"": func(rt *rapid.T) {
			if runID != "" {
				compare(ctx, rt, db, runID, m, terminal)
			}
		},
	})
}

func groupParam(g *modelGroup) string {
	if g.explicit {
		return g.name
	}
	return ""
}

// compare compares the database with the model.
func compare(ctx context.Context, rt *rapid.T, db *store.DB, runID string, m *model, terminal map[string]run.State) {
	err := db.Read(ctx, func(tx *store.Tx) error {
		r, err := tx.Run(ctx, runID)
		if err != nil {
			return err
		}
		if r.State != m.state || r.RunningGroups != len(m.running()) || !r.CloseAt.Equal(m.closeAt) {
			rt.Fatalf("run is %s, %d groups running, closes %v; want %s, %d, %v", r.State, r.RunningGroups, r.CloseAt, m.state, len(m.running()), m.closeAt)
		}
		groups, err := tx.Groups(ctx, runID)
		if err != nil {
			return err
		}
		if len(groups) != len(m.groups) {
			rt.Fatalf("%d groups, want %d", len(groups), len(m.groups))
		}
		for _, g := range groups {
			want := m.groups[g.Name]
			if g.State != want.state || g.Completed != want.completed() || g.Claimed != len(want.instances) {
				rt.Fatalf("group %s is %s with %d of %d; want %s with %d of %d", g.Name, g.State, g.Completed, g.Claimed, want.state, want.completed(), len(want.instances))
			}
			if g.State == run.Running && !g.HeardAt.Equal(want.heard) {
				rt.Fatalf("group %s was heard at %v, want %v", g.Name, g.HeardAt, want.heard)
			}
			if diff := gocmp.Diff(want.counts(), g.Counts); diff != "" {
				rt.Fatalf("counts of group %s differ from a recount (-want +got):\n%s", g.Name, diff)
			}
			if was, ok := terminal[g.Name]; ok && was != g.State {
				rt.Fatalf("group %s left its terminal state %s for %s", g.Name, was, g.State)
			}
			if g.State.Terminal() {
				terminal[g.Name] = g.State
			}
		}
		events, err := tx.Events(ctx, runID)
		if err != nil {
			return err
		}
		if len(events) != len(m.events) {
			rt.Fatalf("%d events, want %d: %v", len(events), len(m.events), m.events)
		}
		want := slices.Clone(m.events)
		for i, e := range events {
			if e.Sequence != int64(i+1) {
				rt.Fatalf("event %d has sequence %d", i+1, e.Sequence)
			}
			got := eventLine(rt, e)
			j := slices.IndexFunc(want, func(s string) bool { return s == got })
			if j < 0 {
				rt.Fatalf("event %q was not expected; left: %q", got, want)
			}
			want = slices.Delete(want, j, j+1)
		}
		checkEvents(rt, events)
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
}

// tb is what a rapid.T and a testing.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkEvents: of each group, and of the run, one start, and at most one end,
// after it.
func checkEvents(t tb, events []webhook.Event) {
	t.Helper()
	seen := map[string]int{}
	for _, e := range events {
		key := string(e.Scope) + " " + e.Group
		switch {
		case e.Kind == webhook.RunStart && seen[key] != 0:
			t.Fatalf("%s started twice", key)
		case e.Kind == webhook.RunStart:
			seen[key] = 1
		case seen[key] == 0:
			t.Fatalf("%s ended (%s) before it started", key, e.Kind)
		case seen[key] == 2:
			t.Fatalf("%s ended twice", key)
		default:
			seen[key] = 2
		}
	}
}

func shuffled[T any](list []T) []T {
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}
