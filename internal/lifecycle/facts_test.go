package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/endpoint"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// Facts are stored with an event only if an endpoint that gets it needs them, and each delivery
// says what it said at first, whatever the settings are later.
func TestFactsAreFrozenWithTheEvent(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop", func(p *run.Project) { p.Name, p.CompletionDelay = "The shop", 0 })
		plain := testkit.Endpoint(t, db, "shop")
		extended := testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) {
			e.Payload, e.Events, e.Scope = webhook.ExtendedForm, []webhook.Kind{webhook.RunFinish}, run.RunScope
		})
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		runID := playFailures(t, runs)

		var finish webhook.Event
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			events, err := tx.Events(ctx, runID)
			for _, e := range events {
				wanted := e.Kind == webhook.RunFinish && e.Scope == run.RunScope
				if (e.Facts != nil) != wanted {
					t.Errorf("%s at %s scope has the facts %s", e.Kind, e.Scope, e.Facts)
				}
				if wanted {
					finish = e
				}
			}
			return err
		})
		var f webhook.Facts
		if err := json.Unmarshal(finish.Facts, &f); err != nil {
			t.Fatal(err)
		}
		if f.Project.Name != "The shop" || f.Status != run.StatusFailed || f.CompletionState != run.Complete || f.FinishedAt == nil || len(f.Groups) != 2 ||
			f.Groups[0].Tests.Failures+f.Groups[1].Tests.Failures != 15 {
			t.Errorf("facts %s", finish.Facts)
		}
		var got []string
		for _, one := range f.Failures {
			text := "?"
			if one.Error != nil {
				text = *one.Error
			}
			got = append(got, fmt.Sprint(*one.GroupID, " ", one.Spec, " ", strings.Join(one.Title, " > "), ": ", text))
		}
		want := []string{
			"a crash.cy.js : Error: the browser crashed",
			"a large.cy.js : ?",
			"a red.cy.js A > fails: AssertionError: no",
		}
		for n := range 7 {
			want = append(want, fmt.Sprintf("b many.cy.js B > test %d: AssertionError: no", n))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("first failures (-want +got):\n%s", diff)
		}

		// The settings change; what was queued stays as it was.
		endpoints := endpoint.New(db, "http://runbell.test", func(string) error { return nil }, func(...string) {})
		for id, form := range map[string]webhook.Form{plain.ID: webhook.ExtendedForm, extended.ID: webhook.DefaultForm} {
			if _, _, err := endpoints.Change(ctx, id, endpoint.Settings{Payload: &form}, "by a test"); err != nil {
				t.Fatal(err)
			}
		}
		due := func(id string) (claims []store.Claim) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				w, err := tx.Work(ctx, id, store.QueuePosition{}, 20, nil)
				claims = w.Claims
				return err
			})
			return claims
		}
		if claims := due(extended.ID); len(claims) != 1 || string(claims[0].Facts) != string(finish.Facts) || string(claims[0].Payload) != string(finish.Payload) {
			t.Errorf("due at the extended one: %+v", claims)
		}
		if claims := due(plain.ID); len(claims) == 0 || slices.ContainsFunc(claims, func(c store.Claim) bool { return c.Facts != nil || c.WithFacts }) {
			t.Errorf("due at the default one: %+v", claims)
		}
		// A test has the body that the endpoint asks for now.
		if _, err := endpoints.Test(ctx, plain.ID, webhook.RunFinish); err != nil {
			t.Fatal(err)
		}
		claims := due(plain.ID)
		if last := claims[len(claims)-1]; last.RunID != "" || json.Unmarshal(last.Facts, &f) != nil || f.Project.ProjectID != "shop" || len(f.Failures) != 1 {
			t.Errorf("a test has the facts %s", last.Facts)
		}
	})
}

// playFailures plays a run of two groups, and returns its id. In the first group, one spec crashes, one
// fails with more results than facts look into, and one has a test that fails. In the second
// one, a spec has twelve of them.
func playFailures(t *testing.T, runs *lifecycle.Service) string {
	t.Helper()
	result := func(title string, state run.TestState, body string) (run.Announced, run.Result) {
		r := run.Result{ID: title, State: state, Attempts: []run.Attempt{{State: state}}}
		if state == run.Failed {
			r.Attempts[0].Error = &run.Failure{Name: "AssertionError", Message: "no", Stack: "AssertionError: no\n    at a.cy.js:1"}
		}
		return run.Announced{ID: title, Title: strings.Split(title, " > "), Body: body}, r
	}
	type spec struct {
		exception string
		body      string
		failed    []string
	}
	specs := map[string]spec{
		"crash.cy.js": {exception: "Error: the browser crashed\n    at x"},
		"large.cy.js": {failed: []string{"L > fails"}, body: strings.Repeat("x", 1<<20)},
		"red.cy.js":   {failed: []string{"A > fails"}},
		"many.cy.js":  {},
	}
	many := specs["many.cy.js"]
	for n := range 12 {
		many.failed = append(many.failed, fmt.Sprint("B > test ", n))
	}
	specs["many.cy.js"] = many
	var joined []lifecycle.Joined
	for _, j := range []lifecycle.Join{
		{Group: "a", Specs: []string{"crash.cy.js", "large.cy.js", "red.cy.js"}},
		{Group: "b", Specs: []string{"many.cy.js"}},
	} {
		j.ProjectID, j.CIBuildID, j.Fingerprint = "shop", "build-1", j.Group
		m, err := runs.Join(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		joined = append(joined, m)
	}
	for _, m := range joined {
		claimed, err := runs.Claim(t.Context(), lifecycle.Claim{RunID: m.RunID, MachineID: m.MachineID, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range claimed.Instances {
			s := specs[i.Spec]
			var a run.Announcement
			o := run.Outcome{Exception: s.exception}
			add := func(title string, state run.TestState) {
				announced, r := result(title, state, s.body)
				a.Tests, o.Results = append(a.Tests, announced), append(o.Results, r)
			}
			add("passes", run.Passed)
			for _, title := range s.failed {
				add(title, run.Failed)
			}
			if _, err := runs.Complete(t.Context(), i.ID, &a, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	return joined[0].RunID
}

// Facts lead to the last screenshot of each test that failed, unless it is known that there is none.
func TestFactsLeadToScreenshots(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "shop", func(p *run.Project) { p.CompletionDelay = 0 })
		testkit.Endpoint(t, db, "shop", func(e *webhook.Endpoint) {
			e.Payload, e.Events, e.Scope = webhook.ExtendedForm, []webhook.Kind{webhook.RunFinish}, run.RunScope
		})
		runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
		var at time.Time
		runs.LinkFiles(func(id string, event time.Time) string {
			at = event
			return "http://runbell.test/files/" + id
		})
		joined, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Specs: []string{"a.cy.js", "b.cy.js"}})
		if err != nil {
			t.Fatal(err)
		}
		claimed, err := runs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		failed := func(id string) run.Result {
			return run.Result{ID: id, State: run.Failed, Attempts: []run.Attempt{{State: run.Failed}, {State: run.Failed}}}
		}
		for n, o := range []run.Outcome{
			{Results: []run.Result{failed("refused")}, Screenshots: []run.Screenshot{{ID: "refused", TestID: "refused"}}},
			{Results: []run.Result{failed("two"), failed("none")}, Screenshots: []run.Screenshot{
				{ID: "second", TestID: "two", Attempt: 1}, {ID: "last", TestID: "two", Attempt: 1}, {ID: "first", TestID: "two"}, {ID: "nobody's"}}},
		} {
			i := claimed.Instances[n]
			if _, err := runs.Complete(ctx, i.ID, nil, o); err != nil {
				t.Fatal(err)
			}
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				return tx.RefuseArtifact(ctx, run.Artifact{ID: run.ArtifactID(i.ID, run.ScreenshotArtifact, "refused"), ProjectID: "shop", RunID: joined.RunID, InstanceID: i.ID,
					Kind: run.ScreenshotArtifact, ContentType: "image/png", Problem: "The file is too large.", StoredAt: tx.Now})
			})
		}
		var f webhook.Facts
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			events, err := tx.Events(ctx, joined.RunID)
			for _, e := range events {
				if e.Facts != nil {
					err = errors.Join(err, json.Unmarshal(e.Facts, &f))
					if !at.Equal(e.CreatedAt) {
						t.Errorf("the links begin at %s, the event is of %s", at, e.CreatedAt)
					}
				}
			}
			return err
		})
		var got []string
		for _, one := range f.Failures {
			if one.ScreenshotURL == nil {
				got = append(got, one.Spec)
			} else {
				got = append(got, one.Spec+" "+*one.ScreenshotURL)
			}
		}
		want := []string{"a.cy.js", "b.cy.js http://runbell.test/files/" + run.ArtifactID(claimed.Instances[1].ID, run.ScreenshotArtifact, "last"), "b.cy.js"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("screenshots (-want +got):\n%s", diff)
		}
	})
}
