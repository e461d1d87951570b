package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// delivery is one as the REST API lists it.
type delivery struct {
	DeliveryID, EventID, Event, RunID, Status, Cursor string
	GroupID                                           *string
	Sequence                                          int64
	AttemptCount                                      int
	FinishedAt, NextAttemptAt                         *time.Time
	Attempts                                          []struct { // only of one that is asked for alone
		Class      string
		StartedAt  time.Time
		DurationMs int64
	}
}

// pages walks through a list of the REST API.
func pages[T any](s *server, path string) func(yield func(T) bool) {
	return func(yield func(T) bool) {
		for after := ""; ; {
			var page []T
			var cursors []struct{ Cursor string }
			var raw json.RawMessage
			s.call("GET", path+"?limit=100"+after, nil, &raw)
			if err := errors.Join(json.Unmarshal(raw, &page), json.Unmarshal(raw, &cursors)); err != nil {
				s.t.Fatal(err)
			}
			for _, v := range page {
				if !yield(v) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
			after = "&starting_after=" + cursors[len(cursors)-1].Cursor
		}
	}
}

// told is what a server reports about its webhooks, compared with what arrived.
type told struct {
	t         *testing.T
	quick     int                   // attempts of a delivery before later events of its run overtake it
	builds    map[string]build      // by run
	committed map[string]delivery   // by path and event
	ofRun     map[string][]delivery // by path and run, in order
	received  []testkit.Received
}

// whatIsTold finds out what s has to tell of the builds at hooks, which are ids by path.
func whatIsTold(t *testing.T, s *server, hooks map[string]string, builds []build, quick int) *told {
	t.Helper()
	a := &told{t: t, quick: quick, builds: map[string]build{}, committed: map[string]delivery{}, ofRun: map[string][]delivery{}}
	for _, b := range builds {
		a.builds[b.runID] = b
	}
	for path, hook := range hooks {
		for d := range pages[delivery](s, "/webhooks/"+hook+"/deliveries") {
			if d.Status == "pending" {
				s.call("GET", "/deliveries/"+d.DeliveryID, nil, &d)
			}
			a.committed[path+" "+d.EventID] = d
			a.ofRun[path+" "+d.RunID] = append(a.ofRun[path+" "+d.RunID], d)
		}
	}
	for _, events := range a.ofRun {
		slices.SortFunc(events, func(a, b delivery) int { return cmp.Compare(a.Sequence, b.Sequence) })
	}
	return a
}

// checkEvents holds what was committed against what was played: each run and
// each group has one start and one end, no run is missing, and none is there
// that nobody asked for.
func (a *told) checkEvents(s *server, hooks map[string]string) {
	a.t.Helper()
	for path := range hooks {
		for _, b := range a.builds {
			groups := b.groups
			if strings.HasPrefix(path, "/run") {
				groups = []string{""}
			}
			var got, want []string
			for _, d := range a.ofRun[path+" "+b.runID] {
				group := ""
				if d.GroupID != nil && len(groups) > 1 {
					group = *d.GroupID
				}
				got = append(got, group+" "+d.Event)
			}
			for _, g := range groups {
				want = append(want, g+" RUN_START", g+" "+b.end)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				a.t.Errorf("run %s has %q at %s, want %q", b.runID, got, path, want)
			}
		}
	}
	if len(a.ofRun) != len(hooks)*len(a.builds) {
		a.t.Errorf("%d times a run was told of at a webhook, want %d times %d", len(a.ofRun), len(hooks), len(a.builds))
	}
	runs := 0
	for v := range pages[struct{ RunID, CompletionState, Cursor string }](s, "/projects/shop/runs") {
		runs++
		if want := map[string]string{"RUN_FINISH": "COMPLETE", "RUN_CANCELED": "CANCELED"}[a.builds[v.RunID].end]; v.CompletionState != want {
			a.t.Errorf("run %s is %q, want %q", v.RunID, v.CompletionState, want)
		}
	}
	if runs != len(a.builds) {
		a.t.Errorf("there are %d runs, want %d", runs, len(a.builds))
	}
}

// checkReceived holds what arrived against what was committed: nothing is
// invented, repetitions are the same, and what counts as delivered was taken.
// Signatures and the shape are checked by the receiver. It says how many
// requests were repetitions.
func (a *told) checkReceived(list []testkit.Received) (repeated int) {
	a.t.Helper()
	a.received = list
	first, taken := map[string]testkit.Received{}, map[string]bool{}
	for _, w := range list {
		id := w.Path + " " + w.ID
		d, known := a.committed[id]
		if !known {
			a.t.Errorf("a webhook that was never committed: %s %s", id, w.Body)
			continue
		}
		taken[id] = taken[id] || !w.Refused
		if before, again := first[id]; again {
			repeated++
			if !bytes.Equal(before.Body, w.Body) {
				a.t.Errorf("%s has two bodies:\n%s\n%s", id, before.Body, w.Body)
			}
			continue
		}
		first[id] = w
		p := decode(a.t, w)
		specs := 3
		if strings.HasPrefix(w.Path, "/run") {
			specs *= len(a.builds[d.RunID].groups)
		}
		if p.Event == "RUN_FINISH" && p.counts != (counts{Overall: 2 * specs, Passes: specs, Failures: specs}) {
			a.t.Errorf("results were lost or counted twice: %s", w.Body)
		}
		if p.Event != d.Event || filepath.Base(p.RunURL) != d.RunID {
			a.t.Errorf("%s %s was committed as %+v", id, w.Body, d)
		}
	}
	for id, d := range a.committed {
		if d.Status == "delivered" && !taken[id] {
			a.t.Errorf("%s counts as delivered and was never taken", id)
		}
	}
	return repeated
}

// checkOrder holds the first arrival of each event against the earlier ones of
// its run. What is promised: it comes after each of them was delivered there,
// or had used up its attempts with quick retries between.
func (a *told) checkOrder() (overtaken int) {
	a.t.Helper()
	first := map[string]time.Time{}
	for _, w := range a.received {
		if id := w.Path + " " + w.ID; first[id].IsZero() {
			first[id] = w.At
		}
	}
	for key, events := range a.ofRun {
		path, _, _ := strings.Cut(key, " ")
		for i, later := range events {
			arrived, did := first[path+" "+later.EventID]
			for _, earlier := range events[:i] {
				if decided, ok := a.decided(earlier); did && (!ok || arrived.Before(decided)) {
					a.t.Errorf("%s: %s (%d) came at %s, but the way was free only at %s: %+v", key, later.Event, later.Sequence, arrived, decided, earlier)
				}
				if did && earlier.Status == "pending" {
					overtaken++
				}
			}
		}
	}
	return overtaken
}

// decided says when later events no longer had to wait for one, if so. Its
// instant is cut to milliseconds, so it is no later than it was.
func (a *told) decided(d delivery) (time.Time, bool) {
	switch {
	case d.FinishedAt != nil:
		return *d.FinishedAt, true
	case len(d.Attempts) >= a.quick:
		last := d.Attempts[a.quick-1]
		return last.StartedAt.Add(time.Duration(last.DurationMs) * time.Millisecond), true
	default:
		return time.Time{}, false
	}
}
