package run_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
)

func TestCount(t *testing.T) {
	test := func(s run.TestState, attempts int) run.Result {
		return run.Result{State: s, Attempts: make([]run.Attempt, attempts)}
	}
	for name, c := range map[string]struct {
		results   []run.Result
		exception string
		want      run.Counts
	}{
		"nothing":                        {nil, "", run.Counts{}},
		"one of each":                    {[]run.Result{test(run.Passed, 1), test(run.Failed, 1), test(run.Pending, 1), test(run.Skipped, 1)}, "", run.Counts{Passes: 1, Failures: 1, Pending: 1, Skipped: 1}},
		"passed at the third attempt":    {[]run.Result{test(run.Passed, 3)}, "", run.Counts{Passes: 1, Flaky: 1, Retries: 2}},
		"failed every time is not flaky": {[]run.Result{test(run.Failed, 3)}, "", run.Counts{Failures: 1, Retries: 2}},
		// Tests that never ran have no attempts: that is no negative retry.
		"no attempts":                         {[]run.Result{test(run.Pending, 0), test(run.Skipped, 0), test(run.Passed, 0)}, "", run.Counts{Pending: 1, Skipped: 1, Passes: 1}},
		"an exception and no tests":           {nil, "cannot compile", run.Counts{Failures: 1}},
		"an exception and an empty list":      {[]run.Result{}, "crashed", run.Counts{Failures: 1}},
		"an exception and a test that failed": {[]run.Result{test(run.Passed, 1), test(run.Failed, 1)}, "crashed", run.Counts{Passes: 1, Failures: 1}},
		"an exception after all tests passed": {[]run.Result{test(run.Passed, 1), test(run.Passed, 1)}, "crashed", run.Counts{Passes: 2, Failures: 1}},
	} {
		got := run.Count(c.results, c.exception)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got.Ran() != (got.Passes > 0 || got.Failures > 0) {
			t.Errorf("%s: ran is %v of %+v", name, got.Ran(), got)
		}
		if sum := got.Passes + got.Failures + got.Pending + got.Skipped; got.Overall() != sum {
			t.Errorf("%s: overall is %d, the four states sum to %d", name, got.Overall(), sum)
		}
	}
}

func TestCountsAdd(t *testing.T) {
	a := run.Counts{Announced: 1, Passes: 2, Failures: 3, Pending: 4, Skipped: 5, Retries: 6, Flaky: 7}
	if diff := cmp.Diff(run.Counts{Announced: 2, Passes: 4, Failures: 6, Pending: 8, Skipped: 10, Retries: 12, Flaky: 14}, a.Plus(a)); diff != "" {
		t.Errorf("a sum lost something (-want +got):\n%s", diff)
	}
	if got := a.Overall(); got != 15 {
		t.Errorf("overall is %d, want 15: announced tests count until their results are in", got)
	}
	for c, want := range map[run.Counts]bool{{}: true, {Pending: 1, Flaky: 1, Retries: 1}: true, {Failures: 1}: false, {Skipped: 1}: false} {
		if c.Green() != want {
			t.Errorf("%+v is green: %v, want %v", c, c.Green(), want)
		}
	}
}

func TestStatusAndCompletion(t *testing.T) {
	green, red, skipped := run.Counts{Passes: 1}, run.Counts{Failures: 1}, run.Counts{Skipped: 1}
	for _, c := range []struct {
		state      run.State
		counts     run.Counts
		status     run.Status
		completion run.Completion
	}{
		{run.Running, green, run.StatusRunning, run.InProgress},
		{run.Running, red, run.StatusFailing, run.InProgress},
		{run.Running, skipped, run.StatusFailing, run.InProgress},
		{run.Finished, green, run.StatusPassed, run.Complete},
		{run.Finished, red, run.StatusFailed, run.Complete},
		{run.Finished, skipped, run.StatusFailed, run.Complete},
		// What did not come to its end has not passed, whatever was green until then.
		{run.TimedOut, green, run.StatusFailed, run.CompletionTimeout},
		{run.Canceled, green, run.StatusFailed, run.CompletionCanceled},
	} {
		if got := run.StatusOf(c.state, c.counts); got != c.status {
			t.Errorf("%s with %+v is %s, want %s", c.state, c.counts, got, c.status)
		}
		if got := run.CompletionOf(c.state); got != c.completion {
			t.Errorf("%s is %s, want %s", c.state, got, c.completion)
		}
	}
}

func TestBuildID(t *testing.T) {
	for _, c := range []struct{ provider, params, want string }{
		{"githubActions", "githubRepository=o/r githubRunId=7 githubRunAttempt=2 githubSha=x", "o/r-7-2"},
		{"githubActions", "githubRepository=o/r githubRunId=7", ""}, // a second attempt would join the first
		{"githubActions", "githubRepository=o/r githubRunId= githubRunAttempt=1", ""},
		{"gitlab", "ciPipelineId=12 ciJobId=9", "12"},
		{"gitlab", "ciJobId=9", ""},
		{"circle", "circleWorkflowId=w circleBuildNum=5", "w"},
		{"circle", "circleBuildNum=5 circleBuildUrl=https://circleci.com/gh/acme/shop/5", "circleci.com/gh/acme/shop/5"},
		{"circle", "circleBuildNum=5", ""}, // each project counts its own
		{"circle", "circleBuildNum=5 sha=abc", "5-" + run.Commit{SHA: "abc"}.Identity()},
		{"circle", "", ""},
		{"jenkins", "jobName=shop/main buildNumber=8 buildUrl=https://ci.test/job/shop/job/main/8/", "ci.test/job/shop/job/main/8"},
		{"jenkins", "buildNumber=8", ""}, // each branch counts its own
		{"jenkins", "buildNumber=8 sha=abc branch=main", "8-" + run.Commit{SHA: "abc", Branch: "main"}.Identity()},
		{"jenkins", "buildUrl=https://ci.test/" + strings.Repeat("x", 300), run.ShortHash("ci.test/" + strings.Repeat("x", 300))},
		{"jenkins", "jobName=shop buildNumber=8", "shop-8"},
		{"jenkins", "jobName=shop", ""},
		{"azure", "buildBuildid=31", "31"},
		{"azure", "buildBuildnumber=3", ""},
		{"awsCodeBuild", "codebuildBuildId=p:1", "p:1"},
		{"bamboo", "bambooBuildKey=K bambooBuildNumber=4", "K-4"},
		{"bamboo", "bambooBuildNumber=4", ""},
		{"bamboo", "bambooBuildKey=K", ""},
		{"bitbucket", "bitbucketRepoSlug=s bitbucketBuildNumber=6", "s-6"},
		{"bitbucket", "bitbucketRepoOwner=o bitbucketRepoSlug=s bitbucketBuildNumber=6", "o-s-6"},
		{"bitbucket", "bitbucketRepoSlug=s", ""},
		{"buildkite", "buildkiteBuildId=b", "b"},
		{"drone", "dronePullRequest=3 droneBuildNumber=9 droneBuildLink=https://drone.test/acme/shop/9", "drone.test/acme/shop/9"},
		{"drone", "dronePullRequest=3 droneBuildNumber=9 sha=abc", "3-9-" + run.Commit{SHA: "abc"}.Identity()},
		{"drone", "dronePullRequest=3", ""},
		{"semaphore", "semaphorePipelineId=p", "p"},
		{"teamcity", "buildBuildid=1 buildBuildnumber=2", "1-2"},
		{"teamcity", "teamcityProjectName=shop teamcityBuildconfName=e2e buildNumber=14", "shop-e2e-14"},
		{"teamcity", "buildNumber=14", ""},
		{"teamfoundation", "buildBuildid=1 buildBuildnumber=2", "1-2"},
		{"teamfoundation", "buildBuildnumber=2", ""},
		{"travis", "travisBuildId=t", "t"},
		{"appveyor", "appveyorAccountName=acme appveyorProjectSlug=shop appveyorBuildNumber=1", "acme-shop-1"},
		{"appveyor", "appveyorBuildNumber=1", ""},
		{"codeFresh", "cfBuildId=c", "c"},
		{"googleCloud", "buildId=g", "g"},
		{"googleCloud", "projectId=g", ""},
		{"netlify", "buildId=n", "n"},
		{"", "buildId=n", ""},
		{"homemade", "buildId=n ciPipelineId=2", ""}, // one shared value would merge strangers
	} {
		ci := run.CI{Provider: c.provider, Params: map[string]string{}}
		var commit run.Commit
		for p := range strings.FieldsSeq(c.params) {
			name, value, _ := strings.Cut(p, "=")
			switch name {
			case "sha":
				commit.SHA = value
			case "branch":
				commit.Branch = value
			default:
				ci.Params[name] = value
			}
		}
		if got := ci.BuildID(commit); got != c.want {
			t.Errorf("%s with %s: %q, want %q", c.provider, c.params, got, c.want)
		}
	}
}

func TestTestsJoinsWhatWasAnnouncedWithResults(t *testing.T) {
	announced := run.Announcement{Tests: []run.Announced{{ID: "r2", Title: []string{"a", "one"}}, {ID: "r3", Title: []string{"a", "two"}}}}
	result := func(id string, s run.TestState) run.Result { return run.Result{ID: id, State: s} }
	for name, c := range map[string]struct {
		announced run.Announcement
		outcome   run.Outcome
		want      []string
	}{
		"nothing at all":     {run.Announcement{}, run.Outcome{}, nil},
		"before results":     {announced, run.Outcome{}, []string{"a one: ", "a two: "}},
		"announced order":    {announced, run.Outcome{Results: []run.Result{result("r3", run.Failed), result("r2", run.Passed)}}, []string{"a one: passed", "a two: failed"}},
		"one is missing":     {announced, run.Outcome{Results: []run.Result{result("r3", run.Failed)}}, []string{"a one: ", "a two: failed"}},
		"unknown ones last":  {announced, run.Outcome{Results: []run.Result{result("r9", run.Failed), result("r2", run.Passed), result("r8", run.Pending)}}, []string{"a one: passed", "a two: ", "r9: failed", "r8: pending"}},
		"never announced":    {run.Announcement{}, run.Outcome{Results: []run.Result{result("r2", run.Passed)}}, []string{"r2: passed"}},
		"unknown ones twice": {run.Announcement{}, run.Outcome{Results: []run.Result{result("r2", run.Failed), result("r2", run.Passed)}}, []string{"r2: passed"}},
	} {
		var got []string
		for _, test := range run.Tests(c.announced, c.outcome) {
			if test.Done != (test.Result.State != "") {
				t.Errorf("%s: test %s is done: %v, and %q", name, test.ID, test.Done, test.Result.State)
			}
			got = append(got, strings.Join(test.Title, " ")+": "+string(test.Result.State))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestClipCutsBetweenRunes(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"", 0, ""}, {"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"abc", 0, "…"},
		{"grün", 3, "gr…"}, {"grün", 4, "grü…"}, {"日本語", 4, "日…"}, {"日本語", 2, "…"}, {"a😀b", 4, "a…"}, {"a😀b", 5, "a😀…"},
		{"\x80\x80\x80", 2, "…"}, // not UTF-8 at all
	} {
		got := run.Clip(c.in, c.n)
		if got != c.want {
			t.Errorf("Clip(%q, %d) is %q, want %q", c.in, c.n, got, c.want)
		}
		if utf8.ValidString(c.in) && !utf8.ValidString(got) {
			t.Errorf("Clip(%q, %d) is not UTF-8: %q", c.in, c.n, got)
		}
	}
}

func TestCheckProjectID(t *testing.T) {
	for id, ok := range map[string]bool{
		"shop": true, "7": true, "Shop.v2_a-b": true, strings.Repeat("a", 100): true, ".shop": true, "-shop": true,
		"owner/my-project": true, "my shop": true, "shöp": true, "a/b/c d": true, "100%": true, "what?": true,
		"": false, " shop": false, "shop ": false, "shop\n": false, "sh\x00op": false, "sh\x1bop": false, "sh\xffop": false,
		strings.Repeat("a", 101): false, "../etc": false, "..": false, "a//b": false, "/a": false, "a/": false, "a/../b": false,
	} {
		err := run.CheckProjectID(id)
		if (err == nil) != ok {
			t.Errorf("%q: %v, want it accepted: %v", id, err, ok)
		}
		if err != nil && run.KindOf(err) != run.Invalid {
			t.Errorf("%q: the error is of kind %d", id, run.KindOf(err))
		}
	}
}

func TestKindsOfErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind run.Kind
		text string
	}{
		{run.Errorf(run.Conflict, "taken by %s", "x"), run.Conflict, "taken by x"},
		{fmt.Errorf("while looking: %w", run.Missing("run", "r1")), run.NotFound, `while looking: There is no run "r1".`},
		{io.EOF, run.Internal, "EOF"},
		{errors.Join(io.EOF, run.Errorf(run.Refused, "no")), run.Refused, "EOF\nno"},
		{nil, run.Internal, "<nil>"},
	} {
		if got := run.KindOf(c.err); got != c.kind || fmt.Sprint(c.err) != c.text {
			t.Errorf("%v is of kind %d, want %d and %q", c.err, got, c.kind, c.text)
		}
	}
	if text := run.Missing("run", strings.Repeat("x", 10_000)).Error(); len(text) > 200 {
		t.Errorf("a long id makes a message of %d bytes", len(text))
	}
}

func TestElapsed(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	groups := []run.Group{{HeardAt: at(70), CreatedAt: at(20), State: run.TimedOut}, {HeardAt: at(40), CreatedAt: at(10), State: run.Running}}
	for name, c := range map[string]struct {
		run    run.Run
		groups []run.Group
		want   time.Duration
	}{
		"a group runs":              {run.Run{CreatedAt: at(10), State: run.Running, RunningGroups: 1}, groups, 90 * time.Second},
		"waits for a late group":    {run.Run{CreatedAt: at(10), State: run.Running, CloseAt: at(130)}, groups, 60 * time.Second},
		"over":                      {run.Run{CreatedAt: at(10), State: run.Finished, FinishedAt: at(95)}, groups, 60 * time.Second},
		"without a report":          {run.Run{CreatedAt: at(10), State: run.Canceled, FinishedAt: at(95)}, nil, 0},
		"a clock that was set back": {run.Run{CreatedAt: at(110), State: run.Running, RunningGroups: 1}, nil, 0},
	} {
		if got := c.run.Elapsed(c.run.LastReport(c.groups), at(100)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	for n, want := range []time.Duration{50 * time.Second, 90 * time.Second} {
		if got := groups[n].Elapsed(at(100)); got != want {
			t.Errorf("group %d: %s, want %s", n, got, want)
		}
	}
}
