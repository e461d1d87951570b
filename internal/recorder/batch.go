package recorder

import (
	"cmp"
	"time"
)

// What is assumed where nothing is known.
const (
	defaultStart    = 4 * time.Second  // before the first spec begins
	defaultSpec     = 10 * time.Second // of a spec
	defaultMachines = 4                // of a group
)

// batchSize is how many specs the next start of Cypress gets.
func (m *machine) batchSize() int {
	switch {
	case m.o.Batch > 0:
		return m.o.Batch
	case !m.o.Parallel || !m.recorded:
		return len(m.specs) // no other machine runs them
	}
	machines := cmp.Or(max(m.machines, m.joined.Machines), defaultMachines)
	durations, known := m.clock.durations()
	return share(durations, m.claimed, machines, cmp.Or(m.clock.start, defaultStart), known)
}

// share is how many specs a machine takes for one start of Cypress, of those
// that follow the claimed ones in the order in which they are handed out.
//
// Machines share in rounds. In each, every machine takes the same part of what
// is left, so that a machine that was slower than expected takes less in the
// next one. A start costs time, so a round that would leave little more than
// starts is the last, and takes all. Without history the parts are small: the
// durations are guesses.
func share(durations []time.Duration, claimed, machines int, start time.Duration, known bool) int {
	part := 0.7
	if !known {
		part = 0.25
	}
	left := sum(durations[min(claimed, len(durations)):])
	round := float64(sum(durations)) // what is left when a round begins
	for float64(left) <= round*(1-part) && round > float64(start) {
		round *= 1 - part
	}
	each := round / float64(machines)
	target := each * part
	if each-target < 3*float64(start) && known {
		target = each
	}
	n := 0
	var took time.Duration
	for _, d := range durations[min(claimed, len(durations)):] {
		if n > 0 && float64(took+d/2) > target {
			break
		}
		took += d
		n++
	}
	return max(1, n)
}

func sum(list []time.Duration) (total time.Duration) {
	for _, d := range list {
		total += d
	}
	return total
}
