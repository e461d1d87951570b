package run_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
)

func TestBranch(t *testing.T) {
	for name, want := range map[string]string{
		"main": "main", "refs/heads/main": "main", "origin/main": "main", "remotes/origin/main": "main", "refs/remotes/origin/feature/x": "feature/x",
		"heads/main": "main", "main\n": "main", "feature/origin/x": "feature/origin/x", "HEAD": "", "origin/HEAD": "", "": "",
	} {
		if got := run.Branch(name); got != want {
			t.Errorf("%q is branch %q, want %q", name, got, want)
		}
	}
}

// Of a pull request, what counts is its head, no matter who says so.
func TestResolve(t *testing.T) {
	pull := func(number int, url string) *run.PullRequest { return &run.PullRequest{Number: number, URL: url} }
	const remote = "git@github.com:acme/shop.git"
	const queued = "gh-readonly-queue/main/pr-104-0123456789abcdef0123456789abcdef01234567"
	for name, c := range map[string]struct {
		commit run.Commit
		ci     run.CI
		head   run.Head
		want   run.Commit
	}{
		"a branch": {commit: run.Commit{SHA: "a", Branch: "origin/main"}, want: run.Commit{SHA: "a", Branch: "main"}},
		"the client's data": {
			commit: run.Commit{SHA: "merge", Branch: "refs/pull/12/merge", Message: "Merge a into b", AuthorName: "Jane", RemoteOrigin: remote},
			head:   run.Head{SHA: "head", Branch: "fix", PullRequest: run.PullRequest{Title: "Fix it", URL: "https://github.com/acme/shop/pull/12", Author: "jane"}},
			want: run.Commit{SHA: "head", MergeSHA: "merge", Branch: "fix", Message: "Fix it", AuthorName: "Jane", RemoteOrigin: remote,
				PullRequest: &run.PullRequest{Number: 12, Title: "Fix it", URL: "https://github.com/acme/shop/pull/12", Author: "jane"}},
		},
		"GitHub's variables": {
			commit: run.Commit{SHA: "merge", Branch: "5/merge", RemoteOrigin: remote},
			ci:     run.CI{Provider: "githubActions", Params: map[string]string{"githubHeadRef": "fix", "githubRefName": "5/merge"}},
			want:   run.Commit{SHA: "merge", Branch: "fix", RemoteOrigin: remote, PullRequest: pull(5, "https://github.com/acme/shop/pull/5")},
		},
		"a branch on GitHub": {
			commit: run.Commit{SHA: "a", Branch: "release-7"},
			ci:     run.CI{Provider: "githubActions", Params: map[string]string{"githubRefName": "release-7"}},
			want:   run.Commit{SHA: "a", Branch: "release-7"},
		},
		"GitLab": {
			commit: run.Commit{SHA: "merge", Branch: "refs/merge-requests/3/head"},
			ci: run.CI{Provider: "gitlab", Params: map[string]string{"ciMergeRequestIid": "3", "ciMergeRequestSourceBranchName": "fix",
				"ciMergeRequestSourceBranchSha": "head", "ciMergeRequestProjectUrl": "https://gitlab.test/acme/shop"}},
			want: run.Commit{SHA: "head", MergeSHA: "merge", Branch: "fix", PullRequest: pull(3, "https://gitlab.test/acme/shop/-/merge_requests/3")},
		},
		"a merge train of GitLab": {commit: run.Commit{SHA: "a", Branch: "refs/merge-requests/3/train"}, want: run.Commit{SHA: "a", PullRequest: pull(3, "")}},
		"a fork on CircleCI":      {commit: run.Commit{SHA: "a", Branch: "pull/7"}, want: run.Commit{SHA: "a", PullRequest: pull(7, "")}},
		"a branch like one":       {commit: run.Commit{SHA: "a", Branch: "pull/7/x"}, want: run.Commit{SHA: "a", Branch: "pull/7/x"}},
		"GitHub's merge queue": {
			commit: run.Commit{SHA: "a", Branch: queued, RemoteOrigin: remote},
			ci:     run.CI{Provider: "githubActions", Params: map[string]string{"githubRefName": queued}},
			want:   run.Commit{SHA: "a", Branch: queued, RemoteOrigin: remote, PullRequest: pull(104, "https://github.com/acme/shop/pull/104")},
		},
		"a pull request on CodeBuild": {
			commit: run.Commit{SHA: "a", Branch: "HEAD", RemoteOrigin: remote},
			ci:     run.CI{Provider: "awsCodeBuild", Params: map[string]string{"codebuildSourceVersion": "pr/12"}},
			want:   run.Commit{SHA: "a", RemoteOrigin: remote, PullRequest: pull(12, "https://github.com/acme/shop/pull/12")},
		},
		"Jenkins, multibranch": {
			commit: run.Commit{SHA: "a", Branch: "PR-9"},
			ci:     run.CI{Provider: "jenkins", Params: map[string]string{"changeId": "9", "changeBranch": "fix", "changeUrl": "https://git.test/pulls/9", "changeAuthor": "jane"}},
			want:   run.Commit{SHA: "a", Branch: "fix", PullRequest: &run.PullRequest{Number: 9, URL: "https://git.test/pulls/9", Author: "jane"}},
		},
		"no pull request on Travis": {
			commit: run.Commit{SHA: "a", Branch: "main"},
			ci:     run.CI{Provider: "travis", Params: map[string]string{"travisPullRequest": "false"}},
			want:   run.Commit{SHA: "a", Branch: "main"},
		},
		"a link that is none": {
			commit: run.Commit{SHA: "a", Branch: "main"},
			ci:     run.CI{Provider: "circle", Params: map[string]string{"circlePullRequest": "javascript:alert(1)/7", "circlePrNumber": "7"}},
			want:   run.Commit{SHA: "a", Branch: "main", PullRequest: pull(7, "")},
		},
	} {
		if diff := cmp.Diff(c.want, c.commit.Resolve(c.ci, c.head)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Machines that name one commit in different ways test the same.
func TestOneCommitHasSeveralNames(t *testing.T) {
	full := "1ea02a6664aaf4872b49b3bb8d99d556c07d2a54"
	for name, c := range map[string]struct {
		a, b run.Commit
		want string
	}{
		"a short name":              {run.Commit{SHA: full}, run.Commit{SHA: full[:10]}, ""},
		"a name that is too short":  {run.Commit{SHA: full}, run.Commit{SHA: full[:3]}, "commit"},
		"the merge of its pull":     {run.Commit{SHA: full, MergeSHA: "merge-1"}, run.Commit{SHA: "merge-1"}, ""},
		"the merge of another pull": {run.Commit{SHA: full, MergeSHA: "merge-1"}, run.Commit{SHA: "merge-2"}, "commit"},
	} {
		for _, got := range []string{c.a.Disagreement(c.b), c.b.Disagreement(c.a)} {
			if got != c.want {
				t.Errorf("%s: they disagree about %q, want %q", name, got, c.want)
			}
		}
	}
}

func TestDisagreement(t *testing.T) {
	a := run.Commit{SHA: "a", Branch: "main", RemoteOrigin: "https://github.com/acme/Shop.git"}
	for name, c := range map[string]struct {
		other run.Commit
		want  string
	}{
		"the same":                   {a, ""},
		"nothing is known":           {run.Commit{}, ""},
		"the same, by ssh":           {run.Commit{SHA: "a", RemoteOrigin: "git@github.com:acme/shop.git"}, ""},
		"another commit":             {run.Commit{SHA: "b", Branch: "main"}, "commit"},
		"another branch":             {run.Commit{SHA: "a", Branch: "next"}, "branch"},
		"another repository":         {run.Commit{SHA: "a", RemoteOrigin: "https://github.com/acme/other"}, "repository"},
		"another repository and all": {run.Commit{SHA: "b", Branch: "x", RemoteOrigin: "https://github.com/acme/other"}, "repository"},
	} {
		if got := a.Disagreement(c.other); got != c.want {
			t.Errorf("%s: they disagree about %q, want %q", name, got, c.want)
		}
		if got := c.other.Disagreement(a); got != c.want {
			t.Errorf("%s, the other way round: they disagree about %q, want %q", name, got, c.want)
		}
		if same := a.Identity() == c.other.Identity(); same && c.want != "" {
			t.Errorf("%s: both have the identity %s", name, a.Identity())
		}
	}
}

func TestSettle(t *testing.T) {
	results := func(states ...run.TestState) []run.Result {
		var out []run.Result
		for _, s := range states {
			out = append(out, run.Result{ID: "r", State: s})
		}
		return out
	}
	states := func(results []run.Result) (out []run.TestState) {
		for _, r := range results {
			out = append(out, r.State)
		}
		return out
	}
	for name, c := range map[string]struct {
		states    []run.TestState
		exception string
		want      []run.TestState
		changes   int
		counts    run.Counts
	}{
		"all ended":           {[]run.TestState{"passed", "pending"}, "", []run.TestState{"passed", "pending"}, 0, run.Counts{Passes: 1, Pending: 1}},
		"a crash":             {[]run.TestState{"passed", "processing", "", "active"}, "crashed", []run.TestState{"passed", "failed", "skipped", "skipped"}, 3, run.Counts{Passes: 1, Failures: 1, Skipped: 2}},
		"without exception":   {[]run.TestState{"passed", "processing", ""}, "", []run.TestState{"passed", "failed", "failed"}, 2, run.Counts{Passes: 1, Failures: 2}},
		"a crash after all":   {[]run.TestState{"passed"}, "crashed", []run.TestState{"passed"}, 0, run.Counts{Passes: 1, Failures: 1}},
		"after the first one": {[]run.TestState{"active", "passed"}, "crashed", []run.TestState{"failed", "passed"}, 1, run.Counts{Passes: 1, Failures: 1}},
	} {
		r := results(c.states...)
		changes := run.Settle(r, c.exception)
		if diff := cmp.Diff(c.want, states(r)); diff != "" || len(changes) != c.changes {
			t.Errorf("%s: %d changes %q (-want +got):\n%s", name, len(changes), changes, diff)
		}
		if diff := cmp.Diff(c.counts, run.Count(r, c.exception)); diff != "" {
			t.Errorf("%s, counts (-want +got):\n%s", name, diff)
		}
	}
	// Warnings about one spec leave room for others.
	many := results(slices.Repeat([]run.TestState{""}, run.MaxTests)...)
	if changes := run.Settle(many, ""); len(changes) > 10 || !strings.HasPrefix(changes[len(changes)-1], "19995 more tests") {
		t.Errorf("%d changes of one spec; the last is %q", len(changes), changes[len(changes)-1])
	}
	r := []run.Result{{ID: "r1", State: "active", Attempts: []run.Attempt{{State: "failed"}, {State: ""}}}}
	run.Settle(r, "crashed")
	want := []run.Result{{ID: "r1", State: run.Failed, Error: "crashed", Attempts: []run.Attempt{{State: run.Failed}, {State: run.Failed, Error: &run.Failure{Message: "crashed"}}}}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
}
