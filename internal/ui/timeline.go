package ui

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"runbell/internal/run"
)

const (
	maxMachines = 60   // lines of a timeline
	maxSpans    = 2000 // specs in it
	// Thinner ones are drawn and not linked to: nobody could point at them.
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
	Spans []spanView
}

// spanView is a spec on the line, in thousandths of the whole time.
type spanView struct {
	X, W int
	Tone tone
	Text string
	URL  string // "" where it is too thin
}

// timelineOf draws the specs that were claimed, until an instant for those that
// run; address is where a spec is shown. A machine that claims many at once reports one after the other.
func timelineOf(r run.Run, specs []specRef, until time.Time, named bool, address func(specRef) string) *timeline {
	byMachine := map[string][]*specRef{}
	end := r.CreatedAt
	drawn := 0
	for n := range specs {
		s := &specs[n]
		if s.MachineID == "" || drawn == maxSpans {
			continue
		}
		drawn++
		byMachine[s.MachineID] = append(byMachine[s.MachineID], s)
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
			return cmp.Or(a.ClaimedAt.Compare(b.ClaimedAt), ended(a, end).Compare(ended(b, end)), cmp.Compare(a.Position, b.Position))
		})
		machines = append(machines, list)
	}
	slices.SortFunc(machines, func(a, b []*specRef) int {
		return cmp.Or(a[0].ClaimedAt.Compare(b[0].ClaimedAt), cmp.Compare(a[0].ID, b[0].ID))
	})
	t := &timeline{More: max(0, len(machines)-maxMachines), Total: total}
	for n := range 5 {
		t.Quarters = append(t.Quarters, total*time.Duration(n)/4)
	}
	at := func(instant time.Time) int { return int(1000 * instant.Sub(r.CreatedAt) / total) }
	for n, list := range machines[:min(len(machines), maxMachines)] {
		m := machineView{Name: fmt.Sprintf("Machine %d", n+1), Specs: len(list)}
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
			v := spanView{X: at(from), Tone: s.state.Tone}
			v.W = max(1, at(to)-v.X)
			if v.W >= minLinked {
				v.Text, v.URL = fmt.Sprintf("%s: %s, %s", run.Clip(s.Spec, 200), s.state.Word, span(to.Sub(from))), address(*s)
			}
			if last := len(m.Spans) - 1; v.URL == "" && last >= 0 && m.Spans[last].URL == "" && m.Spans[last].Tone == v.Tone && m.Spans[last].X+m.Spans[last].W >= v.X {
				m.Spans[last].W = v.X + v.W - m.Spans[last].X // thin ones of a kind are one
				continue
			}
			m.Spans = append(m.Spans, v)
		}
		if whole := begin.Sub(list[0].ClaimedAt); whole > 0 {
			m.Busy = fmt.Sprintf("%d %%", int(100*busy/whole))
		}
		t.Machines = append(t.Machines, m)
	}
	return t
}

// ended is when a spec was reported; until, while it was not.
func ended(s *specRef, until time.Time) time.Time {
	if s.CompletedAt.IsZero() {
		return until
	}
	return s.CompletedAt
}
