package ui

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"runbell/internal/run"
)

const (
	maxMachines = 60 // lines of a timeline
	// The others are drawn and not linked to: nobody could point at thinner ones.
	maxLinked = 100
	minLinked = 4
)

// timeline shows where the time of a run went: a line for each machine, and on
// it the specs it ran.
type timeline struct {
	Machines []machineView
	More     int // machines left out
	Total    time.Duration
	Quarters []time.Duration // of the scale
}

// machineView is a machine's line. The machine's own name is a credential, so
// it has a number.
type machineView struct {
	Name  string
	Group string
	Specs int
	Busy  string // part of the time from its first to its last spec
	Thin  []thinView
	Spans []spanView
	all   []spanView
}

// spanView is a spec on the line that is linked to, in thousandths of the whole
// time.
type spanView struct {
	X, W int
	Tone tone
	Text string
	URL  string
	spec *specRef
	took time.Duration
}

// thinView is all other specs of one tone on the line, drawn as one shape.
type thinView struct {
	Tone tone
	Path string
}

// thinTones are in the order in which they are drawn: what failed lies above.
var thinTones = []tone{toneIdle, tonePass, toneRun, toneSkip, toneFlaky, toneWarn, toneFail}

// timelineOf draws the specs that were claimed, until an instant for those that
// run; address is where a spec is shown. A machine that claims many at once reports one after the other.
func timelineOf(r run.Run, specs []specRef, until time.Time, named bool, address func(specRef) string) *timeline {
	byMachine := map[int][]*specRef{}
	end := r.CreatedAt
	for n := range specs {
		s := &specs[n]
		if s.machine == 0 {
			continue
		}
		byMachine[s.machine] = append(byMachine[s.machine], s)
		last := s.CompletedAt
		if last.IsZero() {
			last = until
		}
		if last.After(end) {
			end = last
		}
	}
	total := end.Sub(r.CreatedAt)
	if len(byMachine) == 0 || total <= 0 {
		return nil
	}
	machines := make([][]*specRef, 0, len(byMachine))
	for _, list := range byMachine {
		slices.SortFunc(list, func(a, b *specRef) int {
			return cmp.Or(a.ClaimedAt.Compare(b.ClaimedAt), ended(a, end).Compare(ended(b, end)),
				cmp.Compare(a.Position, b.Position))
		})
		machines = append(machines, list)
	}
	slices.SortFunc(machines, func(a, b []*specRef) int {
		return a[0].machine - b[0].machine
	})
	t := &timeline{More: max(0, len(machines)-maxMachines), Total: total}
	for n := range 5 {
		t.Quarters = append(t.Quarters, total*time.Duration(n)/4)
	}
	at := func(instant time.Time) int { return int(1000 * instant.Sub(r.CreatedAt) / total) }
	widths := make([]int, 0, len(specs))
	for _, list := range machines[:min(len(machines), maxMachines)] {
		m := machineView{Name: fmt.Sprintf("Machine %d", list[0].machine), Specs: len(list),
			all: make([]spanView, 0, len(list))}
		if named {
			m.Group = list[0].GroupName
		}
		var busy time.Duration
		begin := list[0].ClaimedAt
		for _, s := range list {
			from, to := s.ClaimedAt, ended(s, until)
			if begin.After(from) {
				from = begin
			}
			if to.Before(from) {
				to = from
			}
			begin = to
			busy += to.Sub(from)
			v := spanView{X: at(from), Tone: s.state.Tone, spec: s, took: to.Sub(from)}
			v.W = max(1, at(to)-v.X)
			widths = append(widths, v.W)
			m.all = append(m.all, v)
		}
		if whole := begin.Sub(list[0].ClaimedAt); whole > 0 {
			m.Busy = fmt.Sprintf("%d%%", int(100*busy/whole))
		}
		t.Machines = append(t.Machines, m)
	}
	width := minLinked
	if slices.Sort(widths); len(widths) > maxLinked {
		width = max(width, widths[len(widths)-maxLinked])
	}
	left := maxLinked // of those that are as wide, not all may be among the widest
	for n := range t.Machines {
		left = t.Machines[n].draw(width, left, address)
	}
	return t
}

// draw links to the first specs that are wide enough, draws the others, and says
// how many more may be linked to.
func (m *machineView) draw(width, left int, address func(specRef) string) int {
	type stretch struct{ from, to int }
	thin := map[tone][]stretch{}
	for _, v := range m.all {
		if v.W >= width && left > 0 {
			left--
			v.Text, v.URL = fmt.Sprintf("%s: %s, %s", run.Clip(v.spec.Spec, 200), v.spec.state.Word, span(v.took)),
				address(*v.spec)
			m.Spans = append(m.Spans, v)
			continue
		}
		list := thin[v.Tone]
		if last := len(list) - 1; last >= 0 && v.W < minLinked && v.X <= list[last].to {
			list[last].to = v.X + v.W
		} else {
			thin[v.Tone] = append(list, stretch{v.X, v.X + v.W})
		}
	}
	for _, t := range thinTones {
		var path strings.Builder
		for _, s := range thin[t] {
			fmt.Fprintf(&path, "M%d 0h%dv20h-%dz", s.from, s.to-s.from, s.to-s.from)
		}
		if path.Len() > 0 {
			m.Thin = append(m.Thin, thinView{t, path.String()})
		}
	}
	return left
}

// ended is when a spec was reported; until, while it was not.
func ended(s *specRef, until time.Time) time.Time {
	if s.CompletedAt.IsZero() {
		return until
	}
	return s.CompletedAt
}
