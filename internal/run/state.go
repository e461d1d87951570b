package run

import (
	"errors"
	"fmt"
	"time"
)

// State is where a run or a group is in its life.
type State string

const (
	// Running: from the first POST /runs. Left for one of the other three when
	// every spec has results, when there was no report for the inactivity
	// timeout, or when somebody cancels.
	Running State = "running"
	// Finished: every spec has results. Terminal.
	Finished State = "finished"
	// TimedOut: silent for the inactivity timeout. Terminal.
	TimedOut State = "timed_out"
	// Canceled: by a person, the API, CI, or fail-fast. Terminal.
	Canceled State = "canceled"
)

// Terminal says that the state is never left again.
func (s State) Terminal() bool { return s == Finished || s == TimedOut || s == Canceled }

// Command is something that happens to a run or to one of its groups.
type Command int

const (
	// Join: a machine asks to take part. Starts the run and the group if they
	// are new (their State is "").
	Join Command = iota
	// Report: results were counted into the group.
	Report
	// Silence: the inactivity deadline may have passed.
	Silence
	// Cancel: somebody wants the run to end.
	Cancel
	// Close: the completion delay may have passed.
	Close
)

// Scope says whether a transition, event or endpoint is about groups or runs.
type Scope string

// The two scopes.
const (
	GroupScope Scope = "group"
	RunScope   Scope = "run"
)

// Transition is a change of state that the world is told about.
type Transition struct {
	Scope Scope
	Group int // index into the groups given to Step; without meaning at run scope
	To    State
}

// ErrOver is answered to a Join when the run has ended already.
var ErrOver = errors.New("the run is over")

// ErrSilent is answered to a Join of a group that was timed out in a run that
// is still open.
var ErrSilent = errors.New("the group was timed out")

// ErrGroupOver is answered to a Join of a group that has finished with failures
// in a run that is still open: there is nothing left to run, so the machine
// would end well and turn a failed pipeline green.
var ErrGroupOver = errors.New("the group is over")

// Step decides what command does to a run at an instant: the new run, the new
// groups, and the transitions to announce, in order. Join, Report and Silence
// take the one group they are about; Cancel takes every running group; Close
// takes none. A command that has nothing to change changes nothing. Every
// start is announced before the end of the same thing, each end once, and a
// terminal state is never left.
func Step(r Run, groups []Group, command Command, now time.Time) (Run, []Group, []Transition, error) {
	groups = append([]Group(nil), groups...)
	var out []Transition

	end := func(i int, to State) {
		g := &groups[i]
		g.State, g.FinishedAt = to, now
		r.RunningGroups--
		if to == TimedOut {
			r.TimedOutGroups++
		}
		out = append(out, Transition{GroupScope, i, to})
	}
	endRun := func(to State) {
		r.State, r.FinishedAt, r.CloseAt = to, now, time.Time{}
		out = append(out, Transition{Scope: RunScope, To: to})
	}
	// settle ends the run, or starts its completion delay, when no group runs.
	settle := func() {
		if r.State != Running || r.RunningGroups > 0 {
			return
		}
		if r.CloseAt.IsZero() && r.Explicit {
			r.CloseAt = now.Add(r.CompletionDelay)
		}
		if r.Explicit && now.Before(r.CloseAt) {
			return
		}
		if r.TimedOutGroups > 0 {
			endRun(TimedOut)
		} else {
			endRun(Finished)
		}
	}

	switch command {
	case Join:
		if r.State.Terminal() {
			return r, groups, nil, ErrOver
		}
		if groups[0].State == TimedOut {
			return r, groups, nil, ErrSilent
		}
		if groups[0].State == Finished && !groups[0].Counts.Green() {
			return r, groups, nil, ErrGroupOver
		}
		if r.State == "" {
			r.State = Running
			out = append(out, Transition{Scope: RunScope, To: Running})
		}
		if g := &groups[0]; g.State == "" {
			g.State, g.HeardAt = Running, now
			r.RunningGroups++
			r.Explicit = r.Explicit || g.Explicit
			r.CloseAt = time.Time{}
			out = append(out, Transition{GroupScope, 0, Running})
		}
	case Report:
		if g := groups[0]; g.State == Running && g.Completed == g.Specs {
			end(0, Finished)
			settle()
		}
	case Silence:
		if g := groups[0]; g.State == Running && !now.Before(g.Deadline()) {
			end(0, TimedOut)
			settle()
		}
	case Cancel:
		if r.State != Running {
			break
		}
		for i, g := range groups {
			if g.State == Running {
				end(i, Canceled)
			}
		}
		endRun(Canceled)
	case Close:
		settle()
	default:
		return r, groups, nil, fmt.Errorf("run: unknown command %d", command)
	}
	return r, groups, out, nil
}
