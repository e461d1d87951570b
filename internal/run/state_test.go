package run_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"runbell/internal/run"
)

// world is a run with its groups, to which Step is applied as the verbs do:
// they give it the groups a command is about, and keep what it answers.
type world struct {
	now    time.Time
	run    run.Run
	groups []run.Group
	told   []string // "what state", as events say it
}

func newWorld(delay time.Duration) *world {
	return &world{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), run: run.Run{CompletionDelay: delay}}
}

// about lists the indexes of the groups that a command is given.
func (w *world) about(c run.Command, group int) []int {
	switch c {
	case run.Cancel:
		var running []int
		for i, g := range w.groups {
			if g.State == run.Running {
				running = append(running, i)
			}
		}
		return running
	case run.Close:
		return nil
	default:
		return []int{group}
	}
}

func (w *world) step(c run.Command, group int) error {
	at := w.about(c, group)
	given := make([]run.Group, len(at))
	for i, g := range at {
		given[i] = w.groups[g]
	}
	r, groups, transitions, err := run.Step(w.run, given, c, w.now)
	if err != nil {
		return err
	}
	w.run = r
	for i, g := range at {
		w.groups[g] = groups[i]
	}
	for _, t := range transitions {
		what := "run"
		if t.Scope == run.GroupScope {
			what = w.groups[at[t.Group]].Name
		}
		w.told = append(w.told, what+" "+string(t.To))
	}
	return nil
}

// TestStories tells the main lives of a run. Each word is a command or some time
// that passes; what it makes the world hear stands beside it.
func TestStories(t *testing.T) {
	const silence, delay = 30 * time.Minute, time.Minute
	type line struct {
		do   string // "join a", "report a", "done a" (its last results), "silence a", "cancel", "close", or a duration
		says string // what is announced, in order, or the error
	}
	for name, c := range map[string]struct {
		explicit bool
		delay    time.Duration
		lines    []line
		state    run.State
	}{
		"the implicit group ends the run at once": {false, delay, []line{
			{"join a", "run running, a running"}, {"join a", ""}, {"report a", ""}, {"done a", "a finished, run finished"},
		}, run.Finished},
		"an explicit group leaves the run open for the delay": {true, delay, []line{
			{"join a", "run running, a running"}, {"done a", "a finished"}, {"59s", ""}, {"close", ""}, {"1s", ""}, {"close", "run finished"},
		}, run.Finished},
		"no delay, no waiting": {true, 0, []line{
			{"join a", "run running, a running"}, {"done a", "a finished, run finished"},
		}, run.Finished},
		"a late group joins during the delay, which then starts again": {true, delay, []line{
			{"join a", "run running, a running"}, {"done a", "a finished"}, {"50s", ""}, {"join b", "b running"}, {"20s", ""},
			{"close", ""}, {"done b", "b finished"}, {"59s", ""}, {"close", ""}, {"1s", ""}, {"close", "run finished"},
		}, run.Finished},
		"a machine of a finished group joins during the delay, which goes on": {true, delay, []line{
			{"join a", "run running, a running"}, {"done a", "a finished"}, {"50s", ""}, {"join a", ""}, {"10s", ""}, {"close", "run finished"},
		}, run.Finished},
		"two groups: the run ends with the last": {true, 0, []line{
			{"join a", "run running, a running"}, {"join b", "b running"}, {"done a", "a finished"}, {"done b", "b finished, run finished"},
		}, run.Finished},
		"the last results, reported twice, finish once": {true, 0, []line{
			{"join a", "run running, a running"}, {"done a", "a finished, run finished"}, {"done a", ""}, {"report a", ""},
		}, run.Finished},
		"silence ends a group and the run": {false, delay, []line{
			{"join a", "run running, a running"}, {"29m59s", ""}, {"silence a", ""}, {"1s", ""}, {"silence a", "a timed_out, run timed_out"}, {"silence a", ""},
		}, run.TimedOut},
		"one silent group makes the run timed out": {true, delay, []line{
			{"join a", "run running, a running"}, {"join b", "b running"}, {"30m", ""}, {"silence a", "a timed_out"}, {"done b", "b finished"},
			{"1m", ""}, {"close", "run timed_out"},
		}, run.TimedOut},
		"a group that was timed out takes no machine, the open run does": {true, delay, []line{
			{"join a", "run running, a running"}, {"30m", ""}, {"silence a", "a timed_out"}, {"join a", "error: the group was timed out"},
			{"join b", "b running"}, {"done b", "b finished"}, {"1m", ""}, {"close", "run timed_out"},
		}, run.TimedOut},
		"late results of a silent group change no state": {false, delay, []line{
			{"join a", "run running, a running"}, {"30m", ""}, {"silence a", "a timed_out, run timed_out"}, {"done a", ""},
		}, run.TimedOut},
		"cancel ends every group that runs, and the run": {true, delay, []line{
			{"join a", "run running, a running"}, {"join b", "b running"}, {"join c", "c running"}, {"done b", "b finished"},
			{"cancel", "a canceled, c canceled, run canceled"}, {"cancel", ""}, {"done a", ""}, {"30m", ""}, {"silence c", ""}, {"close", ""},
		}, run.Canceled},
		"cancel during the delay ends the run only": {true, delay, []line{
			{"join a", "run running, a running"}, {"done a", "a finished"}, {"10s", ""}, {"cancel", "run canceled"}, {"1m", ""}, {"close", ""},
		}, run.Canceled},
		"cancel after the end changes nothing": {false, delay, []line{
			{"join a", "run running, a running"}, {"done a", "a finished, run finished"}, {"cancel", ""},
		}, run.Finished},
		"nobody joins a run that is over": {false, delay, []line{
			{"join a", "run running, a running"}, {"done a", "a finished, run finished"}, {"join a", "error: the run is over"}, {"join b", "error: the run is over"},
		}, run.Finished},
		"close while a group runs changes nothing": {true, 0, []line{
			{"join a", "run running, a running"}, {"close", ""},
		}, run.Running},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(c.delay)
			for _, l := range c.lines {
				if d, err := time.ParseDuration(l.do); err == nil {
					w.now = w.now.Add(d)
					continue
				}
				verb, group, _ := strings.Cut(l.do, " ")
				i := slices.IndexFunc(w.groups, func(g run.Group) bool { return g.Name == group })
				if group != "" && i < 0 {
					i = len(w.groups)
					w.groups = append(w.groups, run.Group{Name: group, Explicit: c.explicit, Specs: 3, InactivityTimeout: silence})
				}
				if verb == "done" {
					w.groups[i].Completed = w.groups[i].Specs
				}
				w.told = nil
				err := w.step(map[string]run.Command{"join": run.Join, "report": run.Report, "done": run.Report, "silence": run.Silence,
					"cancel": run.Cancel, "close": run.Close}[verb], i)
				says := strings.Join(w.told, ", ")
				if err != nil {
					says = "error: " + err.Error()
				}
				if says != l.says {
					t.Fatalf("%q announces %q, want %q", l.do, says, l.says)
				}
			}
			if w.run.State != c.state {
				t.Errorf("in the end the run is %s, want %s", w.run.State, c.state)
			}
		})
	}
}

// TestStepKeepsItsPromises plays any commands in any order, also ones that no
// verb would give, at any time.
func TestStepKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "delay"))
		explicit := rapid.Bool().Draw(t, "explicit")
		for i := range rapid.IntRange(1, 4).Draw(t, "groups") {
			w.groups = append(w.groups, run.Group{Name: fmt.Sprint("g", i), Explicit: explicit, Specs: 2, InactivityTimeout: 5 * time.Second})
		}
		for range rapid.IntRange(1, 40).Draw(t, "commands") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "seconds")) * time.Second)
			command := rapid.SampledFrom([]run.Command{run.Join, run.Report, run.Silence, run.Cancel, run.Close}).Draw(t, "command")
			i := rapid.IntRange(0, len(w.groups)-1).Draw(t, "group")
			if command == run.Report && w.groups[i].State != "" {
				w.groups[i].Completed = min(w.groups[i].Specs, w.groups[i].Completed+1)
			}
			// A run that was never joined gets no other command: it does not exist.
			if w.run.State == "" && command != run.Join {
				continue
			}
			runBefore, groupsBefore := w.run, slices.Clone(w.groups)
			err := w.step(command, i)
			checkStep(t, w, runBefore, groupsBefore, command, i, err)
		}
		checkTold(t, w)
	})
}

func checkStep(t *rapid.T, w *world, runBefore run.Run, groupsBefore []run.Group, command run.Command, i int, err error) {
	switch {
	case command == run.Join && runBefore.State.Terminal():
		if !errors.Is(err, run.ErrOver) {
			t.Fatalf("joining a run that is over: %v", err)
		}
	case command == run.Join && groupsBefore[i].State == run.TimedOut:
		if !errors.Is(err, run.ErrSilent) {
			t.Fatalf("joining a silent group: %v", err)
		}
	case err != nil:
		t.Fatalf("command %d: %v", command, err)
	}
	if runBefore.State.Terminal() {
		if diff := cmp.Diff(runBefore.State, w.run.State) + cmp.Diff(runBefore.FinishedAt, w.run.FinishedAt); diff != "" {
			t.Fatalf("a terminal state was left: %s", diff)
		}
	}
	running, timedOut := 0, 0
	for n, g := range w.groups {
		if before := groupsBefore[n]; before.State.Terminal() && (g.State != before.State || !g.FinishedAt.Equal(before.FinishedAt)) {
			t.Fatalf("group %s left %s for %s", g.Name, before.State, g.State)
		}
		if g.State.Terminal() == g.FinishedAt.IsZero() {
			t.Fatalf("group %s is %s and ended at %v", g.Name, g.State, g.FinishedAt)
		}
		if g.State == run.Running {
			running++
		}
		if g.State == run.TimedOut {
			timedOut++
		}
	}
	r := w.run
	if r.RunningGroups != running || r.TimedOutGroups != timedOut {
		t.Fatalf("the run counts %d running and %d timed out groups; there are %d and %d", r.RunningGroups, r.TimedOutGroups, running, timedOut)
	}
	if r.State.Terminal() && (running > 0 || r.FinishedAt.IsZero() || !r.CloseAt.IsZero()) {
		t.Fatalf("the run is over with %d groups running, ended %v, closing %v", running, r.FinishedAt, r.CloseAt)
	}
	// A run that is open is either at work or about to close: else nothing would ever end it.
	if r.State == run.Running && (running > 0) == !r.CloseAt.IsZero() {
		t.Fatalf("the run is open with %d groups running, closing %v", running, r.CloseAt)
	}
}

// checkTold checks what the world heard: each thing starts once, ends once at
// most, in that order, and as it is now; the run starts first and ends last.
func checkTold(t *rapid.T, w *world) {
	heard := map[string][]string{}
	for _, line := range w.told {
		what, state, _ := strings.Cut(line, " ")
		heard[what] = append(heard[what], state)
	}
	want := func(s run.State) []string {
		switch {
		case s == "":
			return nil
		case s.Terminal():
			return []string{string(run.Running), string(s)}
		default:
			return []string{string(run.Running)}
		}
	}
	for _, g := range w.groups {
		if diff := cmp.Diff(want(g.State), heard[g.Name]); diff != "" {
			t.Fatalf("about %s (-want +got):\n%s", g.Name, diff)
		}
	}
	if diff := cmp.Diff(want(w.run.State), heard["run"]); diff != "" {
		t.Fatalf("about the run (-want +got):\n%s", diff)
	}
	if len(w.told) > 0 && w.told[0] != "run running" {
		t.Fatalf("the first thing heard is %q", w.told[0])
	}
	if w.run.State.Terminal() && !strings.HasPrefix(w.told[len(w.told)-1], "run ") {
		t.Fatalf("after its end something was heard: %q", w.told)
	}
}

func TestStepLeavesItsInputAlone(t *testing.T) {
	groups := []run.Group{{State: run.Running, Specs: 1, Completed: 1}}
	if _, out, _, err := run.Step(run.Run{State: run.Running, RunningGroups: 1}, groups, run.Report, time.Now()); err != nil || out[0].State != run.Finished {
		t.Fatalf("the group is %v, %v", out, err)
	}
	if groups[0].State != run.Running {
		t.Errorf("the caller's group became %s", groups[0].State)
	}
}

func TestAnUnknownCommandIsAnError(t *testing.T) {
	if _, _, _, err := run.Step(run.Run{State: run.Running}, nil, run.Command(99), time.Now()); err == nil {
		t.Error("it was accepted")
	}
}
