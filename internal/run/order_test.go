package run_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"runbell/internal/run"
)

func TestHandOutOrder(t *testing.T) {
	recent := map[string]time.Duration{"short": time.Second, "long": time.Minute, "long too": time.Minute, "gone": time.Hour}
	var got []string
	for _, e := range run.HandOutOrder([]string{"short", "new", "long", "newer", "long too"}, recent) {
		if e.Expected != recent[e.Spec] {
			t.Errorf("%s is expected to take %s", e.Spec, e.Expected)
		}
		got = append(got, e.Spec)
	}
	if want := []string{"new", "newer", "long", "long too", "short"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Longest first keeps machines together: whatever the durations are, no order
// of this kind takes more than 4/3 of what the best packing would (Graham).
func TestLongestFirstPacksWell(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOfN(rapid.IntRange(1, 1000), 1, 60).Draw(t, "durations")
		machines := rapid.IntRange(1, 8).Draw(t, "machines")
		recent := map[string]time.Duration{}
		var specs []string
		total, longest := time.Duration(0), time.Duration(0)
		for i, d := range durations {
			spec := string(rune('a' + i))
			specs = append(specs, spec)
			recent[spec] = time.Duration(d)
			total += recent[spec]
			longest = max(longest, recent[spec])
		}
		free := make([]time.Duration, machines) // when each machine is free
		for _, e := range run.HandOutOrder(specs, recent) {
			next := slices.Index(free, slices.Min(free))
			free[next] += e.Expected
		}
		// No packing is better than this.
		bound := max(longest, (total+time.Duration(machines)-1)/time.Duration(machines))
		// Two that share a machine whatever one does: with m machines, the (m+1) longest.
		sorted := slices.Sorted(slices.Values(durations))
		slices.Reverse(sorted)
		if len(sorted) > machines {
			bound = max(bound, time.Duration(sorted[machines-1]+sorted[machines]))
		}
		if wall := slices.Max(free); wall*3 > bound*4 {
			t.Errorf("%d machines take %d, while %d is the least possible", machines, wall, bound)
		}
	})
}
