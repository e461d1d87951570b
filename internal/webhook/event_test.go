package webhook_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

func sampleRun() run.Run {
	return run.Run{
		ID: "950a13c3edf4f28b6e8ce301a404b4aa", CIBuildID: "demo-build-cdx3314", Tags: []string{"nightly", "smoke <1>"},
		Commit: run.Commit{
			SHA: "5a7edc9a156e417068060d67109021351fc7d9b8", Branch: "feature-A", AuthorName: "John Doe", AuthorEmail: "john@doe.com",
			Message: "feat: change <Button> color & \"size\"\n\nlong text\n", RemoteOrigin: "https://token@github.com/org/repo.git", DefaultBranch: "main",
		},
	}
}

const sampleURL = "https://runbell.example.com/run/950a13c3edf4f28b6e8ce301a404b4aa"

// Every byte of the four bodies: keys in the order of the published schema,
// nothing escaped that JSON does not ask for, no newline at the end.
func TestPayloadBytes(t *testing.T) {
	const head = `"runUrl":"` + sampleURL + `","buildId":"demo-build-cdx3314",`
	const commit = `"tags":["nightly","smoke <1>"],"commit":{"sha":"5a7edc9a156e417068060d67109021351fc7d9b8","branch":"feature-A",` +
		`"authorName":"John Doe","authorEmail":"john@doe.com","message":"feat: change <Button> color & \"size\"\n\nlong text",` +
		`"remoteOrigin":"https://github.com/org/repo.git","defaultBranch":"main"},`
	group := &run.Group{Name: "e2e <Chrome>", Explicit: true}
	implicit := &run.Group{Name: "demo-build-cdx3314"}
	for name, c := range map[string]struct {
		kind   webhook.Kind
		group  *run.Group
		counts run.Counts
		want   string
	}{
		"start of a named group": {webhook.RunStart, group, run.Counts{},
			`{"event":"RUN_START",` + head + `"groupId":"e2e <Chrome>",` + commit + `"overall":0,"passes":0,"failures":0,"pending":0,"skipped":0,"retries":0,"flaky":0}`},
		"end of the implicit group": {webhook.RunFinish, implicit, run.Counts{Passes: 5, Failures: 1, Pending: 2, Skipped: 3, Retries: 4, Flaky: 1},
			`{"event":"RUN_FINISH",` + head + commit + `"overall":11,"passes":5,"failures":1,"pending":2,"skipped":3,"retries":4,"flaky":1}`},
		"timeout with results missing": {webhook.RunTimeout, group, run.Counts{Announced: 7, Passes: 1},
			`{"event":"RUN_TIMEOUT",` + head + `"groupId":"e2e <Chrome>",` + commit + `"overall":8,"passes":1,"failures":0,"pending":0,"skipped":0,"retries":0,"flaky":0}`},
		"cancel of a run": {webhook.RunCanceled, nil, run.Counts{Failures: 2},
			`{"event":"RUN_CANCELED",` + head + commit + `"overall":2,"passes":0,"failures":2,"pending":0,"skipped":0,"retries":0,"flaky":0}`},
	} {
		got := webhook.NewPayload(c.kind, sampleRun(), c.group, c.counts, sampleURL, "trunk").Bytes()
		if diff := cmp.Diff(c.want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if err := testkit.CheckPayload(got); err != nil {
			t.Errorf("%s is not as published: %v", name, err)
		}
	}
}

func TestWhatIsUnknownIsNull(t *testing.T) {
	got := webhook.NewPayload(webhook.RunStart, run.Run{CIBuildID: "b"}, nil, run.Counts{}, "u", "").Bytes()
	const want = `{"event":"RUN_START","runUrl":"u","buildId":"b","tags":[],"commit":{"sha":null,"branch":null,"authorName":null,"authorEmail":null,` +
		`"message":null,"remoteOrigin":null,"defaultBranch":null},"overall":0,"passes":0,"failures":0,"pending":0,"skipped":0,"retries":0,"flaky":0}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := testkit.CheckPayload(got); err != nil {
		t.Error(err)
	}
}

func TestPayloadOfCommit(t *testing.T) {
	text := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		commit  run.Commit
		project string // its default branch
		want    webhook.PayloadCommit
	}{
		"the client's default branch": {run.Commit{DefaultBranch: "main"}, "trunk", webhook.PayloadCommit{DefaultBranch: text("main")}},
		"else the project's":          {run.Commit{}, "trunk", webhook.PayloadCommit{DefaultBranch: text("trunk")}},
		"one newline":                 {run.Commit{Message: "a\n"}, "", webhook.PayloadCommit{Message: text("a")}},
		"newlines of Windows":         {run.Commit{Message: "a\r\n\r\nb\r\n\r\n"}, "", webhook.PayloadCommit{Message: text("a\r\n\r\nb")}},
		"only newlines":               {run.Commit{Message: "\n\n"}, "", webhook.PayloadCommit{}},
		"indented text stays":         {run.Commit{Message: "  a  \n"}, "", webhook.PayloadCommit{Message: text("  a  ")}},
		"a remote with a token":       {run.Commit{RemoteOrigin: "https://u:p@h/r"}, "", webhook.PayloadCommit{RemoteOrigin: text("https://h/r")}},
		"the ssh form of a remote":    {run.Commit{RemoteOrigin: "git@h:r"}, "", webhook.PayloadCommit{RemoteOrigin: text("git@h:r")}},
	} {
		got := webhook.NewPayload(webhook.RunStart, run.Run{Commit: c.commit}, nil, run.Counts{}, "u", c.project)
		if diff := cmp.Diff(c.want, got.Commit); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Names come from outside: whatever they hold, the body is JSON that reads back.
func TestPayloadOfStrangeText(t *testing.T) {
	for _, s := range []string{`"quoted" \ back`, "tab\tnul\x00", "日本語 😀", "line\u2028end", "<script>&amp;"} {
		r := sampleRun()
		r.CIBuildID, r.Commit.Branch, r.Tags = s, s, []string{s}
		body := webhook.NewPayload(webhook.RunStart, r, nil, run.Counts{}, sampleURL, "").Bytes()
		var back webhook.Payload
		if err := json.Unmarshal(body, &back); err != nil || back.BuildID != s || *back.Commit.Branch != s || back.Tags[0] != s {
			t.Errorf("%q came back as %+v, %v", s, back, err)
		}
		if strings.HasSuffix(string(body), "\n") {
			t.Errorf("the body of %q ends in a newline", s)
		}
	}
}

func TestEachStateHasItsEvent(t *testing.T) {
	for s, want := range map[run.State]webhook.Kind{run.Running: webhook.RunStart, run.Finished: webhook.RunFinish, run.TimedOut: webhook.RunTimeout, run.Canceled: webhook.RunCanceled} {
		if got := webhook.KindOf(s); got != want {
			t.Errorf("%s is announced by %s, want %s", s, got, want)
		}
	}
	if diff := cmp.Diff([]webhook.Kind{"RUN_START", "RUN_FINISH", "RUN_TIMEOUT", "RUN_CANCELED"}, webhook.Kinds()); diff != "" {
		t.Error(diff)
	}
}

func TestEndpointWants(t *testing.T) {
	endpoint := webhook.Endpoint{ProjectID: "shop", Scope: run.GroupScope, Enabled: true, Events: []webhook.Kind{webhook.RunStart, webhook.RunFinish}}
	event := webhook.Event{ProjectID: "shop", Scope: run.GroupScope, Kind: webhook.RunFinish}
	facts := webhook.Subject{Branch: "main", Tags: []string{"a", "b"}, Results: []webhook.Result{webhook.Passed}}
	for name, c := range map[string]struct {
		change func(*webhook.Endpoint, *webhook.Event)
		want   bool
	}{
		"its event":       {func(*webhook.Endpoint, *webhook.Event) {}, true},
		"another event":   {func(_ *webhook.Endpoint, e *webhook.Event) { e.Kind = webhook.RunTimeout }, false},
		"no events":       {func(e *webhook.Endpoint, _ *webhook.Event) { e.Events = nil }, false},
		"disabled":        {func(e *webhook.Endpoint, _ *webhook.Event) { e.Enabled = false }, false},
		"another project": {func(_ *webhook.Endpoint, e *webhook.Event) { e.ProjectID = "other" }, false},
		"a run's event":   {func(_ *webhook.Endpoint, e *webhook.Event) { e.Scope = run.RunScope }, false},
		"a run's endpoint": {func(e *webhook.Endpoint, v *webhook.Event) {
			e.Scope, v.Scope = run.RunScope, run.RunScope
		}, true},
		"its filters": {func(e *webhook.Endpoint, _ *webhook.Event) {
			e.Filters = webhook.Filters{Branches: []string{"main"}, Tags: []string{"a"}, Result: webhook.Passed}
		}, true},
		"another branch": {func(e *webhook.Endpoint, _ *webhook.Event) { e.Filters.Branches = []string{"dev"} }, false},
		"another tag":    {func(e *webhook.Endpoint, _ *webhook.Event) { e.Filters.Tags = []string{"c"} }, false},
		"another result": {func(e *webhook.Endpoint, _ *webhook.Event) { e.Filters.Result = webhook.Flaky }, false},
	} {
		e, v := endpoint, event
		c.change(&e, &v)
		if got := e.Wants(v, facts); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
