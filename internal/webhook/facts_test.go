package webhook_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// factsOf makes the bodies that the golden file holds, by name, in its order.
func factsOf() (names []string, bodies map[string]webhook.ExtendedPayload) {
	start := time.Date(2026, 1, 31, 12, 0, 0, 123456000, time.UTC)
	end := start.Add(90 * time.Second)
	project := run.NewProject("shop")
	project.Name = "The shop"
	pr := sampleRun()
	pr.ID, pr.ProjectID, pr.State, pr.CreatedAt, pr.FinishedAt = "5e07550d4fdf09e9e60b7b29314f8e60", "shop", run.Finished, start, end
	pr.Commit.SHA, pr.Commit.RemoteOrigin = "561b38e3d774d183dc38e3f2c53e4cf1271521fa", "https://token@github.com/org/repo.git"
	pr.Commit.PullRequest = &run.PullRequest{Number: 12, Title: "Change the color <of> the button", URL: "https://github.com/org/repo/pull/12", Author: "john"}
	pr.CI = run.CI{Provider: "githubActions", Params: map[string]string{"githubRepository": "org/repo", "githubRunId": "7"}}
	chrome := run.Group{RunID: pr.ID, Name: "chrome", Explicit: true, Platform: run.Platform{OSName: "linux", OSVersion: "Debian - 12.4", BrowserName: "chrome", BrowserVersion: "141"},
		Specs: 3, Completed: 3, Counts: run.Counts{Passes: 6, Failures: 3, Pending: 1, Skipped: 1, Retries: 3, Flaky: 1}, State: run.Finished, CreatedAt: start,
		HeardAt: end, FinishedAt: end}
	unnamed := run.Group{RunID: pr.ID, Name: pr.CIBuildID, Specs: 1, Completed: 1, Counts: run.Counts{Passes: 2}, State: run.Finished, CreatedAt: start, HeardAt: start.Add(time.Second),
		FinishedAt: end}
	failures := []webhook.Failure{
		{Group: "chrome", Spec: "cypress/e2e/cart.cy.js", Title: []string{"Cart", "shows \x1b[31mthe total\x1b[0m"}, Error: "AssertionError: expected 1 to equal 2\n    at cart.cy.js:3",
			ScreenshotURL: "https://runbell.example.com/files/0a1b2c3d4e5f60718293a4b5c6d7e8f9?expires=1770465690&signature=3f9a2d8c7b6e5f4a3d7b1f6b0a5d1c4f"},
		{Group: "chrome", Spec: "cypress/e2e/broken.cy.js", Error: "The following error originated from your test code:\n\n  > SyntaxError: Unexpected token"},
		{Group: unnamed.Name, Spec: "cypress/e2e/large.cy.js"},
	}
	bare := run.Run{ID: "0123", ProjectID: "shop", CIBuildID: "b", State: run.TimedOut, CreatedAt: start, FinishedAt: end, TimedOutGroups: 1}
	silent := run.Group{RunID: "0123", Name: "b", Specs: 2, State: run.TimedOut, CreatedAt: start, HeardAt: start.Add(time.Minute), FinishedAt: end}
	canceled := bare
	canceled.State, canceled.Cancellation = run.Canceled, &run.Cancellation{Actor: "mia", Reason: "superseded", At: end}

	bodies = map[string]webhook.ExtendedPayload{}
	add := func(name string, kind webhook.Kind, scope run.Scope, at time.Time, r run.Run, groups []run.Group, failures []webhook.Failure) {
		var group *run.Group
		var counts run.Counts
		if scope == run.GroupScope {
			group = &groups[0]
		}
		if kind != webhook.RunStart {
			for _, g := range groups {
				counts = counts.Plus(g.Counts)
			}
		}
		e := webhook.Event{ProjectID: "shop", RunID: r.ID, Scope: scope, Kind: kind, CreatedAt: at}
		names = append(names, name)
		bodies[name] = webhook.ExtendedPayload{
			Payload: webhook.NewPayload(kind, r, group, counts, "https://runbell.example.com/run/"+r.ID, "main"),
			Facts:   webhook.NewFacts(e, project, r, groups),
		}
		if kind != webhook.RunStart {
			body := bodies[name]
			body.Facts = body.Facts.With(groups, failures, nil)
			bodies[name] = body
		}
	}
	add("a run that failed", webhook.RunFinish, run.RunScope, end, pr, []run.Group{chrome, unnamed}, failures)
	add("its group", webhook.RunFinish, run.GroupScope, end, pr, []run.Group{chrome}, failures[:2])
	add("its start, told when it is over", webhook.RunStart, run.RunScope, start, pr, []run.Group{chrome}, failures)
	add("nothing is known of it", webhook.RunTimeout, run.RunScope, end, bare, []run.Group{silent}, nil)
	add("canceled", webhook.RunCanceled, run.RunScope, end, canceled, nil, nil)
	return names, bodies
}

func TestFacts(t *testing.T) {
	names, bodies := factsOf()
	var got bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&got, "# %s\n", name)
		body := bodies[name].Bytes()
		var read webhook.ExtendedPayload
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&read); err != nil {
			t.Fatalf("%s: %s: %v", name, body, err)
		}
		if !bytes.HasPrefix(body, bytes.TrimSuffix(bodies[name].Payload.Bytes(), []byte("}"))) {
			t.Errorf("%s: does not begin with the default payload: %s", name, body)
		}
		if err := json.Indent(&got, body, "", "  "); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
	}
	const path = "testdata/facts.golden"
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(want, got.Bytes()) {
		t.Errorf("%v; the facts differ from %s:\n%s", err, path, got.String())
	}
}

// However much a reporter sends, facts are of a size that a receiver takes.
func TestFactsAreBounded(t *testing.T) {
	long := strings.Repeat("é", 10_000)
	r := run.Run{ID: "r", State: run.Canceled, Cancellation: &run.Cancellation{Actor: long, Reason: long}, CI: run.CI{Provider: long},
		Commit: run.Commit{PullRequest: &run.PullRequest{Title: long, Author: long}}}
	var groups []run.Group
	var failures []webhook.Failure
	for range 200 {
		groups = append(groups, run.Group{Name: "g", Platform: run.Platform{BrowserName: long, BrowserVersion: long, OSName: long, OSVersion: long}})
		failures = append(failures, webhook.Failure{Spec: "a.cy.js", Title: strings.Split(strings.Repeat(long+"\n", 50), "\n"), Error: long})
	}
	f := webhook.NewFacts(webhook.Event{Scope: run.RunScope, Kind: webhook.RunCanceled}, run.NewProject("shop"), r, groups).With(groups, failures, nil)
	if len(f.Groups) != webhook.MaxFactsGroups || len(f.Failures) != webhook.MaxFactsFailures || len(f.Bytes()) > 256<<10 {
		t.Errorf("%d groups, %d failures, %d bytes", len(f.Groups), len(f.Failures), len(f.Bytes()))
	}
}

// Receivers read one form of times, whatever the last digits are.
func TestTimesOfFacts(t *testing.T) {
	for at, want := range map[time.Time]string{
		time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC):                            `"2026-01-31T12:00:00.000Z"`,
		time.Date(2026, 1, 31, 12, 0, 0, 350e6, time.UTC):                        `"2026-01-31T12:00:00.350Z"`,
		time.Date(2026, 1, 31, 13, 0, 0, 123_999_000, time.FixedZone("", 60*60)): `"2026-01-31T12:00:00.123Z"`,
	} {
		if got, err := json.Marshal(webhook.Time{Time: at}); err != nil || string(got) != want {
			t.Errorf("%s is written as %s, %v; want %s", at, got, err, want)
		}
	}
}
