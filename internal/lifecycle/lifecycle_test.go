package lifecycle_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// eventLine is an event as the model writes it: what it is about, and the
// counts its payload carries.
func eventLine(t tb, e webhook.Event) string {
	var p webhook.Payload
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		t.Fatalf("payload %s: %v", e.Payload, err)
	}
	c := run.Counts{Passes: p.Passes, Failures: p.Failures, Pending: p.Pending, Skipped: p.Skipped, Retries: p.Retries, Flaky: p.Flaky}
	c.Announced = p.Overall - c.Overall()
	return fmt.Sprint(e.Scope, " ", e.Group, " ", p.Event, " ", c)
}

// TestLifeUnderConcurrency lets machines of several groups report at the same time, each repeating requests as a
// client on a bad connection would, and cancels some runs meanwhile. The result must add up, on both databases.
func TestLifeUnderConcurrency(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop", func(p *run.Project) { p.CompletionDelay = 0 })
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		var wg sync.WaitGroup
		for build := range 12 {
			wg.Go(func() { playBuild(t, db, runs, fmt.Sprint("build-", build), build%3 == 0) })
		}
		wg.Wait()
	})
}

func playBuild(t *testing.T, db *store.DB, runs *lifecycle.Service, build string, cancel bool) {
	ctx := context.Background()
	groups := map[string]int{"": 5, "a": 9, "b": 3}
	type handed struct{ group, spec, machine string }
	var mu sync.Mutex
	owner := map[string]handed{}
	firstResults := map[string]run.Counts{}
	var runID string

	var machines sync.WaitGroup
	for group, specs := range groups {
		for n := range 3 {
			machines.Go(func() {
				list := make([]string, specs)
				for i := range list {
					list[i] = fmt.Sprintf("%s%d.cy.js", group, i)
				}
				j := lifecycle.Join{ProjectID: "shop", CIBuildID: build, Group: group, Specs: shuffled(list), Fingerprint: fmt.Sprint(group, n)}
				joined, err := runs.Join(ctx, j)
				if run.KindOf(err) == run.Refused {
					return // the others have finished or somebody canceled
				}
				if err != nil {
					t.Error(err)
					return
				}
				j.Attempt = 1
				if again, err := runs.Join(ctx, j); err != nil || again.MachineID != joined.MachineID || again.RunID != joined.RunID {
					t.Errorf("a retried join answered %+v, %v; first %+v", again, err, joined)
				}
				mu.Lock()
				if runID != "" && runID != joined.RunID {
					t.Errorf("build %s became two runs", build)
				}
				runID = joined.RunID
				mu.Unlock()
				for {
					c := lifecycle.Claim{RunID: joined.RunID, GroupName: joined.GroupName, MachineID: joined.MachineID, Limit: 1 + rand.IntN(2)}
					got, err := runs.Claim(ctx, c)
					if run.KindOf(err) == run.Refused {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					if len(got.Instances) == 0 {
						return
					}
					c.Attempt = 1
					if again, err := runs.Claim(ctx, c); err == nil && !slices.EqualFunc(got.Instances, again.Instances, func(a, b run.Instance) bool { return a.ID == b.ID }) {
						t.Errorf("a repeated claim got other specs")
					}
					for _, i := range got.Instances {
						mu.Lock()
						if o, ok := owner[i.ID]; ok {
							t.Errorf("%s of %s was handed to %s and to %s", i.Spec, build, o.machine, joined.MachineID)
						}
						owner[i.ID] = handed{joined.GroupName, i.Spec, joined.MachineID}
						mu.Unlock()
						report(t, runs, i.ID, func(c run.Counts) {
							mu.Lock()
							defer mu.Unlock()
							firstResults[i.ID] = c
						})
					}
				}
			})
		}
	}
	if cancel {
		machines.Go(func() {
			for range 1 + rand.IntN(20) {
				if _, err := runs.Sweep(ctx); err != nil {
					t.Error(err)
				}
			}
			mu.Lock()
			id := runID
			mu.Unlock()
			if id == "" {
				return // no machine has joined yet
			}
			if _, err := runs.Cancel(ctx, id, "a person", ""); err != nil {
				t.Error(err)
			}
		})
	}
	machines.Wait()

	if err := db.Read(ctx, func(tx *store.Tx) error {
		r, err := tx.Build(ctx, "shop", build)
		if err != nil {
			return err
		}
		groups, err := tx.Groups(ctx, r.ID)
		if err != nil {
			return err
		}
		for _, g := range groups {
			var want run.Counts
			for id, o := range owner {
				if o.group == g.Name {
					want = want.Plus(firstResults[id])
				}
			}
			if diff := gocmp.Diff(want, g.Counts); diff != "" {
				t.Errorf("counts of %s %s differ from a recount (-want +got):\n%s", build, g.Name, diff)
			}
			if !g.State.Terminal() {
				t.Errorf("group %s of %s is still %s, %d of %d done", g.Name, build, g.State, g.Completed, g.Specs)
			}
		}
		if !r.State.Terminal() {
			t.Errorf("run of %s is still %s", build, r.State)
		}
		events, err := tx.Events(ctx, r.ID)
		if want := 2 + 2*len(groups); len(events) != want {
			t.Errorf("%s has %d events, want %d", build, len(events), want)
		}
		checkEvents(t, events)
		return err
	}); err != nil {
		t.Error(err)
	}
}

// report announces and completes a spec, each twice at the same time. Of the
// two results, which differ, only one may count: the first that is accepted,
// which is the one whose counts the group has.
func report(t *testing.T, runs *lifecycle.Service, instance string, counted func(run.Counts)) {
	ctx := context.Background()
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if _, err := runs.Announce(ctx, instance, run.Announcement{Tests: make([]run.Announced, 4)}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	o := run.Outcome{Results: []run.Result{{State: run.Passed, Attempts: make([]run.Attempt, 1+rand.IntN(3))}, {State: run.Failed, Attempts: make([]run.Attempt, 2)}, {State: run.Skipped}}}
	for range 2 {
		both.Go(func() {
			if _, err := runs.Complete(ctx, instance, nil, o); err != nil {
				t.Error(err)
			}
			if err := runs.Output(ctx, instance, "output"); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if _, err := runs.Complete(ctx, instance, nil, run.Outcome{Exception: "late and different"}); err != nil {
		t.Error(err)
	}
	counted(run.Count(o.Results, o.Exception))
}

// TestAnUnansweredClaim: a client that is gone before it gets the response gets the same specs again, once.
func TestAnUnansweredClaim(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop")
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		j, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: "b1", Specs: []string{"a", "b"}})
		if err != nil {
			t.Fatal(err)
		}
		claim := func() string {
			t.Helper()
			c, err := runs.Claim(ctx, lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: 1})
			if err != nil || len(c.Instances) != 1 {
				t.Fatalf("claim: %+v, %v", c, err)
			}
			return c.Instances[0].Spec
		}
		first := claim()
		if err := runs.Unanswered(ctx, j.RunID, j.MachineID); err != nil {
			t.Fatal(err)
		}
		if again := claim(); again != first {
			t.Errorf("after an unanswered claim of %s came %s", first, again)
		}
		if next := claim(); next == first {
			t.Errorf("%s was handed out a third time", next)
		}
	})
}

// TestFailFast: failed and skipped tests count, over all groups. Running groups are canceled, finished ones stay
// finished.
func TestFailFast(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop", func(p *run.Project) { p.FailFast = 2 })
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		play := func(build, group string, specs int, failFast *int, results ...run.TestState) lifecycle.CancelStatus {
			t.Helper()
			list := []string{"a", "b"}[:specs]
			j, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: build, Group: group, Specs: list, FailFast: failFast})
			if err != nil {
				t.Fatal(err)
			}
			c, err := runs.Claim(ctx, lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			var o run.Outcome
			for _, s := range results {
				o.Results = append(o.Results, run.Result{State: s})
			}
			h, err := runs.Complete(ctx, c.Instances[0].ID, nil, o)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		never := 0
		if h := play("b1", "done", 1, nil, run.Failed); h.Cancelled {
			t.Errorf("canceled after one failure: %s", h.Reason)
		}
		if h := play("b1", "open", 2, nil, run.Skipped); !h.Cancelled {
			t.Error("not canceled after a failed and a skipped test")
		}
		if h := play("b2", "", 2, &never, run.Failed, run.Failed, run.Failed); h.Cancelled {
			t.Error("canceled although the client switched it off")
		}
		if h := play("b3", "", 1, nil, run.Failed, run.Failed); h.Cancelled {
			t.Error("canceled although nothing was left to run")
		}
		if err := db.Read(ctx, func(tx *store.Tx) error {
			for build, want := range map[string]run.State{"b1": run.Canceled, "b2": run.Running, "b3": run.Finished} {
				r, err := tx.Build(ctx, "shop", build)
				if err != nil || r.State != want {
					t.Errorf("%s is %s, want %s (%v)", build, r.State, want, err)
				}
			}
			r, err := tx.Build(ctx, "shop", "b1")
			if err != nil {
				return err
			}
			g, err := tx.Group(ctx, r.ID, "done")
			if g.State != run.Finished {
				t.Errorf("a finished group became %s", g.State)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAGroupIsNotRunAgain: in a run that is still open, a group that finished with failures refuses machines, because
// they would run nothing and succeed. A group that passed accepts a late machine.
func TestAGroupIsNotRunAgain(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop")
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		join := func(group string) (lifecycle.Joined, error) {
			return runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: "b1", Group: group, Specs: []string{"a"}})
		}
		if _, err := join("open"); err != nil {
			t.Fatal(err)
		}
		for group, state := range map[string]run.TestState{"red": run.Failed, "green": run.Passed} {
			j, err := join(group)
			if err != nil {
				t.Fatal(err)
			}
			c, err := runs.Claim(ctx, lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := runs.Complete(ctx, c.Instances[0].ID, nil, run.Outcome{Results: []run.Result{{State: state}}}); err != nil {
				t.Fatal(err)
			}
			_, err = join(group)
			if e, ok := errors.AsType[*run.Error](err); state == run.Failed != (ok && e.Code == "ALREADY_COMPLETE") {
				t.Errorf("joining the %s group again: %v", group, err)
			}
		}
	})
}

// A run has a limited number of groups, because its end may end them all in one transaction. Machines of its existing
// groups can still join.
func TestGroupsOfARunAreLimited(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		join := func(group, machine string) error {
			_, err := runs.Join(t.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Group: group, Specs: []string{"a"}, MachineID: machine, Parallel: true})
			return err
		}
		for n := range run.MaxGroups {
			if err := join(fmt.Sprint("g", n), fmt.Sprint("m", n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := join("one more", "m"); run.KindOf(err) != run.Refused || !strings.Contains(err.Error(), "--ci-build-id") {
			t.Errorf("one more group: %v", err)
		}
		if err := join("g7", "another"); err != nil {
			t.Errorf("another machine of a group: %v", err)
		}
	})
}

// A reset takes all specs, however many transactions that takes.
func TestAResetOfManySpecs(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop")
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		specs := make([]string, 250)
		for n := range specs {
			specs[n] = fmt.Sprint(n, ".cy.js")
		}
		j, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Specs: specs})
		if err != nil {
			t.Fatal(err)
		}
		claim := func() []run.Instance {
			c, err := runs.Claim(ctx, lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: len(specs)})
			if err != nil {
				t.Fatal(err)
			}
			return c.Instances
		}
		first := claim()
		for _, want := range []int{len(specs), 0} {
			taken, err := runs.Reset(ctx, j.RunID, []string{j.MachineID})
			if err != nil || len(taken) != want {
				t.Fatalf("took %d, %v; want %d", len(taken), err, want)
			}
		}
		again := claim()
		if len(again) != len(specs) || again[0].ID == first[0].ID || again[0].Spec != first[0].Spec {
			t.Errorf("claimed %d again, the first is %+v", len(again), again[0])
		}
		if _, err := runs.Cancel(ctx, j.RunID, "a test", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := runs.Reset(ctx, j.RunID, []string{j.MachineID}); run.KindOf(err) != run.Refused {
			t.Errorf("reset after the end: %v", err)
		}
	})
}

// TestIDsOfRunsBeginWithTheTime, so that indexes stay compact, and end with random bits.
func TestIDsOfRunsBeginWithTheTime(t *testing.T) {
	db := testkit.SQLite(t)
	testkit.Project(t, db, "shop")
	runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
	chance := map[string]bool{}
	for n := range 20 {
		before := db.Now().UnixMilli()
		joined, err := runs.Join(t.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: fmt.Sprint("build-", n), Specs: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(joined.RunID)
		if err != nil || len(b) != 16 {
			t.Fatalf("%q is not 16 bytes in hexadecimal: %v", joined.RunID, err)
		}
		if at := int64(binary.BigEndian.Uint64(b) >> 16); at < before || at > db.Now().UnixMilli() {
			t.Errorf("%q begins with %d, and it is %d", joined.RunID, at, before)
		}
		for _, part := range []string{string(b[6:11]), string(b[11:])} {
			if chance[part] {
				t.Errorf("%q repeats a part of an earlier id", joined.RunID)
			}
			chance[part] = true
		}
	}
}
