package history

import (
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func drawResult(rt *rapid.T) Result {
	r := Result{Test: rapid.IntRange(1, 400).Draw(rt, "test"), State: rapid.SampledFrom([]state{passed, failed, pending, skipped}).Draw(rt, "state"),
		Attempts: rapid.IntRange(0, maxAttempts).Draw(rt, "attempts"), Duration: rapid.Int64Range(0, 1<<40).Draw(rt, "duration")}
	if rapid.Bool().Draw(rt, "error") {
		r.Error = rapid.IntRange(1, 1<<20).Draw(rt, "number")
	}
	return r
}

// Packed results are unpacked unchanged, even if others were replaced or removed.
func TestPackedResultsComeBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := map[int]Execution{}
		var packed []byte
		for range rapid.IntRange(1, 5).Draw(rt, "rounds") {
			changes := map[int]*Execution{}
			for range rapid.IntRange(0, 4).Draw(rt, "changes") {
				position := rapid.IntRange(0, 6).Draw(rt, "position")
				changes[position] = nil
				delete(want, position)
				if rapid.IntRange(0, 4).Draw(rt, "remove") == 0 {
					continue
				}
				e := Execution{Summary: Summary{Position: position, Spec: rapid.IntRange(1, 3).Draw(rt, "spec"), Duration: rapid.Int64Range(0, 1<<40).Draw(rt, "duration"),
					Complete: rapid.Bool().Draw(rt, "complete"), Crashed: rapid.Bool().Draw(rt, "crashed"), Error: rapid.IntRange(0, 9).Draw(rt, "why")}}
				for range rapid.IntRange(0, 5).Draw(rt, "results") {
					e.Results = append(e.Results, drawResult(rt))
				}
				changes[position] = &e
				kept := e
				kept.Tests = len(e.Results)
				kept.Failed = e.Crashed || slices.ContainsFunc(e.Results, func(r Result) bool { return r.State == failed })
				kept.Flaky = slices.ContainsFunc(e.Results, func(r Result) bool { return r.State == passed && r.Attempts > 1 })
				kept.Errors = slices.ContainsFunc(e.Results, func(r Result) bool { return r.Error > 0 })
				want[position] = kept
			}
			var err error
			if packed, err = repack(packed, changes); err != nil {
				rt.Fatal(err)
			}
		}
		only := rapid.IntRange(0, 3).Draw(rt, "of spec")
		got, last := map[int]Execution{}, -1
		if err := unpack(packed, func(s *Summary) bool { return only == 0 || s.Spec == only }, func(e *Execution) {
			if e.Position <= last {
				rt.Fatalf("position %d after %d", e.Position, last)
			}
			last = e.Position
			kept := *e
			kept.Results = slices.Clone(e.Results)
			got[e.Position] = kept
		}); err != nil {
			rt.Fatal(err)
		}
		for position, e := range want {
			if only != 0 && e.Spec != only {
				delete(want, position)
			}
		}
		if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			rt.Fatal(diff)
		}
	})
}

// Damaged results are an error, and never a crash.
func FuzzUnpack(f *testing.F) {
	e := Execution{Summary: Summary{Position: 3, Spec: 2, Duration: 1200, Complete: true}, Results: []Result{{Test: 7, Attempts: 2, Duration: 900, Error: 1}, {Test: 8, State: failed, Attempts: 1}}}
	f.Add(pack(nil, e), 0)
	f.Add(pack(pack(nil, e), Execution{Summary: Summary{Position: 4, Crashed: true, Error: 5}}), 2)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1}, 0)
	f.Fuzz(func(t *testing.T, packed []byte, spec int) {
		n := 0
		err := unpack(packed, func(s *Summary) bool { return spec == 0 || s.Spec == spec }, func(e *Execution) { n += len(e.Results) + 1 })
		if n > len(packed) {
			t.Errorf("%d things in %d bytes", n, len(packed))
		}
		if _, again := repack(packed, nil); err == nil && spec == 0 && again != nil {
			t.Error(again)
		}
	})
}

// TestHealth compares the rule with a plain version of its comment.
func TestHealth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var recent Recent
		var ran []Result // the latest first
		for range rapid.IntRange(0, 30).Draw(rt, "results") {
			r := Result{State: rapid.SampledFrom([]state{passed, passed, passed, failed, skipped}).Draw(rt, "state"), Attempts: rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(rt, "attempts")}
			recent.Add(&r)
			if r.State == passed || r.State == failed {
				ran = append([]Result{r}, ran...)
			}
		}
		ran = ran[:min(20, len(ran))]
		fails := func(n int) bool { return ran[n].State == failed }
		unstable := 0
		for n := range ran {
			if ran[n].Flaky() || n > 0 && n < len(ran)-1 && fails(n) && !fails(n-1) && !fails(n+1) {
				unstable++
			}
		}
		want := Healthy
		switch {
		case len(ran) >= 3 && fails(0) && fails(1) && fails(2):
			want = Broken
		case !slices.ContainsFunc(ran, func(r Result) bool { return r.State == passed }):
			want = Unknown
		case unstable >= 2:
			want = Flaky
		}
		if got := recent.Health(); got != want {
			rt.Fatalf("%s of %v, want %s", got, ran, want)
		}
		for range 20 {
			recent.Add(&Result{State: passed, Attempts: 1})
		}
		if got := recent.Health(); got != Healthy {
			rt.Fatalf("%s after 20 good results", got)
		}
	})
}

// TestCompare: each test is in the lists that its two verdicts require, and tests that still fail have the first
// failure after the last pass.
func TestCompare(t *testing.T) {
	verdict := rapid.Custom(func(rt *rapid.T) Verdict {
		v := Verdict{Ran: rapid.IntRange(0, 3).Draw(rt, "ran") > 0}
		if v.Ran {
			v.Failed = rapid.Bool().Draw(rt, "failed")
			v.Flaky = !v.Failed && rapid.Bool().Draw(rt, "flaky")
			if !v.Failed {
				v.Took = time.Duration(rapid.IntRange(0, 2000).Draw(rt, "ms")) * time.Millisecond
			}
		}
		return v
	})
	verdicts := rapid.MapOf(rapid.IntRange(1, 6), verdict)
	rapid.Check(t, func(rt *rapid.T) {
		now := Verdicts(verdicts.Draw(rt, "now"))
		var earlier []Earlier
		for n := range rapid.IntRange(0, 5).Draw(rt, "earlier") {
			earlier = append(earlier, Earlier{RunRef{ID: string(rune('a' + n))}, verdicts.Draw(rt, "verdicts")})
		}
		c := Compare(now, earlier)
		if len(earlier) == 0 {
			if diff := gocmp.Diff(Comparison{}, c); diff != "" {
				rt.Fatal(diff)
			}
			return
		}
		in := func(list []Change, number int) bool {
			return slices.ContainsFunc(list, func(v Change) bool { return v.Test == number })
		}
		for number := range 7 {
			v, here := now[number]
			b, there := earlier[0].Verdicts[number]
			for name, list := range map[string]struct {
				list []Change
				want bool
			}{
				"newly failing": {c.NewlyFailing, v.Failed && !b.Failed},
				"still failing": {c.StillFailing, v.Failed && b.Failed},
				"fixed":         {c.Fixed, here && v.Ran && !v.Failed && b.Failed},
				"newly flaky":   {c.NewlyFlaky, v.Flaky && !b.Flaky},
				"new":           {c.NewTests, here && !there},
				"slower":        {c.Slower, here && there && v.Took > 0 && b.Took > 0 && float64(v.Took) > 1.3*float64(b.Took)+1e-3 && v.Took >= b.Took+100*time.Millisecond},
			} {
				if in(list.list, number) != list.want {
					rt.Fatalf("test %d, now %+v, before %+v: %s is %v", number, v, b, name, !list.want)
				}
			}
		}
		for _, s := range c.StillFailing {
			at := slices.IndexFunc(earlier, func(e Earlier) bool { return e.RunRef == s.Since })
			if !earlier[at].Verdicts[s.Test].Failed {
				rt.Fatalf("test %d fails since a run in which it did not", s.Test)
			}
			for n, e := range earlier {
				v := e.Verdicts[s.Test]
				if n <= at && v.Ran && !v.Failed {
					rt.Fatalf("test %d passed in between", s.Test)
				}
				if n > at && v.Failed && !slices.ContainsFunc(earlier[at:n], func(e Earlier) bool { v := e.Verdicts[s.Test]; return v.Ran && !v.Failed }) {
					rt.Fatalf("test %d failed before", s.Test)
				}
			}
		}
	})
}

// Reported changes of health add up: a program that follows them knows which tests are not healthy.
func TestChangesAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		known := map[int]Health{} // the tests that are not healthy, from the reported changes
		for range rapid.IntRange(1, 6).Draw(rt, "looks") {
			now := map[int]Health{}
			want := map[int]Health{}
			for number := range 5 {
				if health := rapid.SampledFrom(append(Healths(), "")).Draw(rt, "health"); health != "" {
					now[number] = health
					if health == Flaky || health == Broken {
						want[number] = health
					}
				}
			}
			for number, health := range changes(known, now) {
				if was, is := known[number], now[number]; was == health || is != health && (health != Unknown || is != "") {
					rt.Fatalf("test %d was %q and is %q: told %q", number, was, is, health)
				}
				known[number] = health
				if health != Flaky && health != Broken {
					delete(known, number)
				}
			}
			if diff := gocmp.Diff(want, known); diff != "" {
				rt.Fatalf("not healthy (-want +told): %s", diff)
			}
		}
	})
}
