package recorder

import (
	"cmp"
	"slices"
	"time"
)

// Assumptions about every machine, so that all make the same plan.
const (
	startTime       = 4 * time.Second // of Cypress, until its first spec begins
	betweenSpecs    = time.Second     // Cypress' time for each spec in addition to its tests
	defaultMachines = 4               // of a group without history
	// The shortest specs wait for the machines that finish first, if that is worth
	// another start of Cypress.
	held = 0.15
)

// plan distributes specs with known expected durations among the starts of Cypress on
// several machines. Each start is a list of specs, and a machine takes the first one
// that is free. The plan is the same on all machines. Within a round each machine has
// one start, and all take about as long: the longest specs go first, each to the start
// with the least work.
func plan(order []expectedSpec, machines int) (starts [][]string) {
	left := slices.Clone(order)
	known := slices.DeleteFunc(slices.Clone(order), func(e expectedSpec) bool { return e.DurationMS <= 0 })
	if 2*len(known) <= len(order) {
		return nil
	}
	mean := sum(known) / time.Duration(len(known))
	for i := range left {
		if left[i].DurationMS <= 0 {
			left[i].DurationMS = mean.Milliseconds()
		}
	}
	slices.SortStableFunc(left, func(a, b expectedSpec) int { return cmp.Compare(b.DurationMS, a.DurationMS) })
	for len(left) > 0 {
		now := left
		pool := time.Duration(held * float64(sum(left)))
		if len(left) > 2*machines && pool/time.Duration(machines) >= 3*startTime {
			for len(now) > machines && sum(left[len(now)-1:]) <= pool {
				now = now[:len(now)-1]
			}
		}
		left = left[len(now):]
		starts = append(starts, level(now, machines)...)
	}
	return starts
}

// level distributes specs, the longest first, among one start for each machine.
func level(specs []expectedSpec, machines int) [][]string {
	starts := make([][]string, min(machines, len(specs)))
	takes := make([]time.Duration, len(starts))
	for _, spec := range specs {
		least := 0
		for i := range takes {
			if takes[i] < takes[least] {
				least = i
			}
		}
		starts[least] = append(starts[least], spec.Spec)
		takes[least] += spec.expected() + betweenSpecs
	}
	return starts
}

func (e expectedSpec) expected() time.Duration { return time.Duration(e.DurationMS) * time.Millisecond }

func sum(specs []expectedSpec) (total time.Duration) {
	for _, e := range specs {
		total += e.expected()
	}
	return total
}

// batchSize is how many specs the next start of Cypress gets if there is no plan. Without
// history, it leaves enough specs for other machines.
func (m *machine) batchSize() int {
	switch {
	case m.o.Batch > 0:
		return m.o.Batch
	case !m.o.Parallel || !m.recorded:
		return len(m.specs) // no other machine runs them
	}
	return max(1, (len(m.specs)-m.claimed)/(4*cmp.Or(m.joined.Machines, defaultMachines)))
}
