package recorder

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
)

// The environment of a job at each service, as its documentation describes it,
// with secrets that services put there.
func TestDetectCI(t *testing.T) {
	event := filepath.Join(t.TempDir(), "event.json")
	if err := os.WriteFile(event, []byte(`{"repository":{"default_branch":"trunk"},
		"pull_request":{"title":"Change the button","head":{"ref":"feature/button","sha":"headsha"}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	push := filepath.Join(t.TempDir(), "push.json")
	if err := os.WriteFile(push, []byte(`{"repository":{"default_branch":"main"},
		"head_commit":{"id":"sha","message":"A push","author":{"name":"Jane Roe","email":"jane@example.test"}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env      []string
		provider string
		buildID  string
		params   map[string]string // some that must be there
		commit   commit
	}{
		"nothing": {env: []string{"HOME=/root", "CI=true"}},
		"GitHub, push": {
			env: []string{"GITHUB_ACTIONS=true", "GITHUB_RUN_ID=4242", "GITHUB_RUN_ATTEMPT=2", "GITHUB_REPOSITORY=acme/shop", "GITHUB_SHA=sha", "GITHUB_REF=refs/heads/feature/x",
				"GITHUB_REF_NAME=feature/x", "GITHUB_REF_TYPE=branch", "GITHUB_ACTOR=jroe", "GITHUB_SERVER_URL=https://github.com", "GITHUB_EVENT_PATH=" + push,
				"GITHUB_TOKEN=s3cret", "ACTIONS_RUNTIME_TOKEN=s3cret", "RUNNER_NAME=runner-7"},
			provider: "githubActions", buildID: "acme/shop-4242-2", params: map[string]string{"runnerName": "runner-7"},
			commit: commit{SHA: "sha", Branch: "feature/x", AuthorName: "Jane Roe", AuthorEmail: "jane@example.test", Message: "A push", RemoteOrigin: "https://github.com/acme/shop", DefaultBranch: "main"}},
		"GitHub, pull request": {
			env: []string{"GITHUB_ACTIONS=true", "GITHUB_RUN_ID=4242", "GITHUB_RUN_ATTEMPT=1", "GITHUB_REPOSITORY=acme/shop", "GITHUB_SHA=mergesha", "GITHUB_REF=refs/pull/5/merge",
				"GITHUB_HEAD_REF=feature/button", "GITHUB_BASE_REF=trunk", "GITHUB_ACTOR=jroe", "GITHUB_SERVER_URL=https://github.com", "GITHUB_EVENT_PATH=" + event},
			provider: "githubActions", buildID: "acme/shop-4242-1", params: map[string]string{"githubHeadRef": "feature/button", "githubBaseRef": "trunk"},
			commit: commit{SHA: "headsha", Branch: "feature/button", AuthorName: "jroe", Message: "Change the button", RemoteOrigin: "https://github.com/acme/shop", DefaultBranch: "trunk"}},
		"GitHub, tag": {
			env:      []string{"GITHUB_ACTIONS=true", "GITHUB_RUN_ID=1", "GITHUB_RUN_ATTEMPT=1", "GITHUB_REPOSITORY=a/b", "GITHUB_REF=refs/tags/v1", "GITHUB_REF_NAME=v1", "GITHUB_REF_TYPE=tag", "GITHUB_SHA=s"},
			provider: "githubActions", buildID: "a/b-1-1", commit: commit{SHA: "s"}},
		"GitLab": {
			env: []string{"GITLAB_CI=true", "CI_PIPELINE_ID=77", "CI_JOB_URL=https://gitlab.test/a/-/jobs/1", "CI_COMMIT_SHA=sha", "CI_COMMIT_REF_NAME=main", "CI_COMMIT_BRANCH=main", "CI_COMMIT_MESSAGE=m",
				"CI_COMMIT_AUTHOR=Jane Roe <jane@example.test>", "CI_DEFAULT_BRANCH=main", "CI_PROJECT_URL=https://gitlab.test/acme/shop", "CI_JOB_TOKEN=s3cret",
				"CI_REPOSITORY_URL=https://gitlab-ci-token:s3cret@gitlab.test/acme/shop.git", "CI_NODE_INDEX=2"},
			provider: "gitlab", buildID: "77", params: map[string]string{"ciJobUrl": "https://gitlab.test/a/-/jobs/1", "ciNodeIndex": "2"},
			commit: commit{SHA: "sha", Branch: "main", AuthorName: "Jane Roe", AuthorEmail: "jane@example.test", Message: "m", RemoteOrigin: "https://gitlab.test/acme/shop", DefaultBranch: "main"}},
		"GitLab, merge request": {
			env: []string{"GITLAB_CI=true", "CI_PIPELINE_ID=78", "CI_COMMIT_SHA=merged", "CI_COMMIT_REF_NAME=refs/merge-requests/5/merge", "CI_MERGE_REQUEST_IID=5",
				"CI_MERGE_REQUEST_SOURCE_BRANCH_NAME=feature", "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA=head"},
			provider: "gitlab", buildID: "78", params: map[string]string{"ciMergeRequestIid": "5"}, commit: commit{SHA: "head", Branch: "feature"}},
		"CircleCI": {
			env: []string{"CIRCLECI=true", "CIRCLE_WORKFLOW_ID=wf", "CIRCLE_BUILD_NUM=9", "CIRCLE_SHA1=sha", "CIRCLE_BRANCH=main", "CIRCLE_USERNAME=jroe", "CIRCLE_REPOSITORY_URL=git@github.com:acme/shop.git",
				"CIRCLE_PULL_REQUEST=https://github.com/acme/shop/pull/5", "CIRCLE_TOKEN=s3cret"},
			provider: "circle", buildID: "wf", params: map[string]string{"circlePullRequest": "https://github.com/acme/shop/pull/5"},
			commit: commit{SHA: "sha", Branch: "main", AuthorName: "jroe", RemoteOrigin: "git@github.com:acme/shop.git"}},
		"Jenkins": {
			env: []string{"JENKINS_URL=https://ci.test", "JOB_NAME=shop/main", "BUILD_NUMBER=12", "BUILD_ID=12", "BUILD_URL=https://ci.test/job/12", "GIT_COMMIT=sha", "GIT_BRANCH=origin/main",
				"GIT_URL=https://jane:s3cret@git.test/shop.git", "CHANGE_ID=5"},
			provider: "jenkins", buildID: "ci.test/job/12", params: map[string]string{"buildUrl": "https://ci.test/job/12", "changeId": "5"},
			commit: commit{SHA: "sha", Branch: "main", RemoteOrigin: "https://jane:s3cret@git.test/shop.git"}}, // cut where it is sent
		"Azure": {
			env: []string{"TF_BUILD=True", "AZURE_HTTP_USER_AGENT=VSTS", "BUILD_BUILDID=55", "BUILD_BUILDNUMBER=2026.1", "BUILD_SOURCEVERSION=merge", "SYSTEM_PULLREQUEST_SOURCECOMMITID=sha",
				"SYSTEM_PULLREQUEST_SOURCEBRANCH=refs/heads/feature", "SYSTEM_PULLREQUEST_PULLREQUESTNUMBER=5", "BUILD_REQUESTEDFOR=Jane Roe", "BUILD_REQUESTEDFOREMAIL=jane@example.test", "SYSTEM_ACCESSTOKEN=s3cret"},
			provider: "azure", buildID: "55", params: map[string]string{"systemPullrequestPullrequestnumber": "5"},
			commit: commit{SHA: "sha", Branch: "feature", AuthorName: "Jane Roe", AuthorEmail: "jane@example.test"}},
		"Bitbucket": {
			env:      []string{"BITBUCKET_BUILD_NUMBER=8", "BITBUCKET_REPO_SLUG=shop", "BITBUCKET_COMMIT=sha", "BITBUCKET_BRANCH=main", "BITBUCKET_PR_ID=5", "BITBUCKET_GIT_HTTP_ORIGIN=https://bitbucket.org/acme/shop"},
			provider: "bitbucket", buildID: "shop-8", params: map[string]string{"bitbucketPrId": "5"}, commit: commit{SHA: "sha", Branch: "main", RemoteOrigin: "https://bitbucket.org/acme/shop"}},
		"Buildkite": {
			env: []string{"BUILDKITE=true", "BUILDKITE_BUILD_ID=uuid", "BUILDKITE_COMMIT=sha", "BUILDKITE_BRANCH=main", "BUILDKITE_MESSAGE=m", "BUILDKITE_BUILD_CREATOR=Jane", "BUILDKITE_BUILD_CREATOR_EMAIL=j@x",
				"BUILDKITE_REPO=git@github.com:acme/shop.git", "BUILDKITE_PULL_REQUEST=false", "BUILDKITE_PIPELINE_DEFAULT_BRANCH=main", "BUILDKITE_AGENT_ACCESS_TOKEN=s3cret"},
			provider: "buildkite", buildID: "uuid",
			commit: commit{SHA: "sha", Branch: "main", Message: "m", AuthorName: "Jane", AuthorEmail: "j@x", RemoteOrigin: "git@github.com:acme/shop.git", DefaultBranch: "main"}},
		"Travis": {
			env:      []string{"TRAVIS=true", "TRAVIS_BUILD_ID=31", "TRAVIS_COMMIT=merge", "TRAVIS_BRANCH=main", "TRAVIS_PULL_REQUEST=5", "TRAVIS_PULL_REQUEST_BRANCH=feature", "TRAVIS_PULL_REQUEST_SHA=sha", "TRAVIS_COMMIT_MESSAGE=m"},
			provider: "travis", buildID: "31", params: map[string]string{"travisPullRequest": "5"}, commit: commit{SHA: "sha", Branch: "feature", Message: "m"}},
		"CodeBuild": {
			env:      []string{"CODEBUILD_BUILD_ID=shop:1", "CODEBUILD_RESOLVED_SOURCE_VERSION=sha", "CODEBUILD_WEBHOOK_HEAD_REF=refs/heads/main", "CODEBUILD_SOURCE_REPO_URL=https://git.test/shop", "AWS_SECRET_ACCESS_KEY=s3cret"},
			provider: "awsCodeBuild", buildID: "shop:1", commit: commit{SHA: "sha", Branch: "main", RemoteOrigin: "https://git.test/shop"}},
		"Drone": {
			env: []string{"DRONE=true", "DRONE_BUILD_NUMBER=6", "DRONE_PULL_REQUEST=5", "DRONE_COMMIT_SHA=sha", "DRONE_SOURCE_BRANCH=feature", "DRONE_COMMIT_BRANCH=main", "DRONE_COMMIT_AUTHOR_NAME=Jane",
				"DRONE_COMMIT_AUTHOR_EMAIL=j@x", "DRONE_COMMIT_MESSAGE=m", "DRONE_REPO_BRANCH=main", "DRONE_GIT_HTTP_URL=https://git.test/shop.git"},
			provider: "drone", buildID: "5-6-" + run.Commit{SHA: "sha", Branch: "feature", RemoteOrigin: "https://git.test/shop.git"}.Identity(),
			commit: commit{SHA: "sha", Branch: "feature", AuthorName: "Jane", AuthorEmail: "j@x", Message: "m", RemoteOrigin: "https://git.test/shop.git", DefaultBranch: "main"}},
		"TeamCity": {
			env:      []string{"TEAMCITY_VERSION=2026", "TEAMCITY_PROJECT_NAME=shop", "TEAMCITY_BUILDCONF_NAME=e2e", "BUILD_NUMBER=14", "BUILD_VCS_NUMBER=sha", "TEAMCITY_BUILD_PROPERTIES_FILE=/x"},
			provider: "teamcity", buildID: "shop-e2e-14", params: map[string]string{"buildNumber": "14"}, commit: commit{SHA: "sha"}},
		"Semaphore": {
			env:      []string{"SEMAPHORE=true", "SEMAPHORE_PIPELINE_ID=pipe", "SEMAPHORE_GIT_SHA=sha", "SEMAPHORE_GIT_BRANCH=main", "SEMAPHORE_GIT_URL=git@github.com:acme/shop.git", "SEMAPHORE_JOB_INDEX=1"},
			provider: "semaphore", buildID: "pipe", commit: commit{SHA: "sha", Branch: "main", RemoteOrigin: "git@github.com:acme/shop.git"}},
		"a Google project is not Google's CI": {env: []string{"GOOGLE_CLOUD_PROJECT=p"}},
	} {
		t.Run(name, func(t *testing.T) {
			facts, got := detectCI(newEnvironment(c.env))
			if facts.Provider != c.provider {
				t.Errorf("provider %q, want %q", facts.Provider, c.provider)
			}
			// The server derives the build from the same names.
			if id := (run.CI{Provider: facts.Provider, Params: facts.Params}).BuildID(run.Commit{SHA: got.SHA, Branch: got.Branch, RemoteOrigin: got.RemoteOrigin}); id != c.buildID {
				t.Errorf("build %q, want %q", id, c.buildID)
			}
			for name, want := range c.params {
				if facts.Params[name] != want {
					t.Errorf("%s is %q, want %q, of %v", name, facts.Params[name], want, facts.Params)
				}
			}
			for name, value := range facts.Params {
				if strings.Contains(value, "s3cret") {
					t.Errorf("%s holds a secret", name)
				}
			}
			if diff := cmp.Diff(c.commit, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// repository is a git repository with one commit.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"remote", "add", "origin", "https://jane:s3cret@git.test/acme/shop.git"},
		{"-c", "user.name=Jane Roe", "-c", "user.email=jane@example.test", "commit", "-q", "--allow-empty", "-m", "One\n\nand more"}} {
		command(t, dir, args...)
	}
	return dir
}

func command(t *testing.T, dir string, args ...string) string {
	t.Helper()
	c := exec.Command("git", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// side makes a commit beside main, and returns its name.
func side(t *testing.T, dir, from string) string {
	t.Helper()
	command(t, dir, "checkout", "-q", "-b", "side", from)
	command(t, dir, "-c", "user.name=Jane Roe", "-c", "user.email=jane@example.test", "commit", "-q", "--allow-empty", "-m", "Side")
	command(t, dir, "checkout", "-q", "main")
	return "side"
}

func TestFacts(t *testing.T) {
	dir := repository(t)
	sha := command(t, dir, "rev-parse", "HEAD")
	here := commit{SHA: sha, Branch: "main", AuthorName: "Jane Roe", AuthorEmail: "jane@example.test", Message: "One\n\nand more", RemoteOrigin: "https://git.test/acme/shop.git"}
	check := func(what, dir string, env environment, want commit) {
		t.Helper()
		_, got := facts(t.Context(), dir, env)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("a checkout", dir, environment{}, here)
	check("no repository", t.TempDir(), environment{"TRAVIS": "1", "TRAVIS_COMMIT": "x"}, commit{SHA: "x"})
	check("no directory", "/does/not/exist", environment{}, commit{})

	// CI checks a commit out without a branch, and knows the branch.
	command(t, dir, "checkout", "-q", "--detach")
	detached := here
	detached.Branch = ""
	check("detached", dir, environment{}, detached)
	ci := environment{"TRAVIS": "1", "TRAVIS_COMMIT": sha, "TRAVIS_BRANCH": "feature", "TRAVIS_COMMIT_MESSAGE": "shortened"}
	onBranch := here
	onBranch.Branch = "feature"
	check("detached in CI", dir, ci, onBranch)

	// A short name of the same commit; and what Cypress' own variables say, last.
	short := environment{"TRAVIS": "1", "TRAVIS_COMMIT": sha[:10], "TRAVIS_BRANCH": "feature"}
	check("a short name", dir, short, onBranch)
	mine := onBranch
	mine.Branch, mine.AuthorName = "mine", "Me"
	check("variables of Cypress", dir, environment{"TRAVIS": "1", "TRAVIS_COMMIT": sha, "TRAVIS_BRANCH": "feature", "COMMIT_INFO_BRANCH": "mine", "COMMIT_INFO_AUTHOR": "Me"}, mine)
	check("another commit, by variables of Cypress", dir, environment{"COMMIT_INFO_SHA": "x", "COMMIT_INFO_REMOTE": "r"}, commit{SHA: "x", RemoteOrigin: "r"})

	// The tests have a repository of their own, or an event of another commit has
	// started the job: nothing that CI says is about what is checked out.
	elsewhere := environment{"GITHUB_ACTIONS": "true", "GITHUB_SHA": strings.Repeat("b", 40), "GITHUB_REF": "refs/heads/release", "GITHUB_ACTOR": "somebody",
		"GITHUB_SERVER_URL": "https://git.test", "GITHUB_REPOSITORY": "acme/other"}
	check("another repository", dir, elsewhere, detached)

	// The job has made a commit of its own on top of CI's, and tests that.
	command(t, dir, "checkout", "-q", "main")
	command(t, dir, "-c", "user.name=Job", "-c", "user.email=job@example.test", "commit", "-q", "--allow-empty", "-m", "Bump")
	bumped := here
	bumped.SHA, bumped.AuthorName, bumped.AuthorEmail, bumped.Message = command(t, dir, "rev-parse", "HEAD"), "Job", "job@example.test", "Bump"
	check("a commit on top of CI's", dir, ci, bumped)
	command(t, dir, "reset", "-q", "--hard", sha)

	// No name of a commit: git would write a file.
	written := filepath.Join(t.TempDir(), "written")
	_, _ = facts(t.Context(), dir, environment{"COMMIT_INFO_SHA": "--output=" + written})
	if _, err := os.Stat(written); err == nil {
		t.Error("a variable is an option of git, which wrote a file")
	}

	// A pull request: what is checked out is a merge that nobody made.
	as := []string{"-c", "user.name=Merger", "-c", "user.email=merger@example.test"}
	command(t, dir, "checkout", "-q", "main")
	command(t, dir, append(as, "commit", "-q", "--allow-empty", "-m", "On main")...)
	command(t, dir, append(as, "merge", "-q", "--no-ff", "-m", "Merge", "--allow-unrelated-histories", "-s", "ours", side(t, dir, sha))...)
	request := environment{"TRAVIS": "1", "TRAVIS_COMMIT": command(t, dir, "rev-parse", "HEAD^2"), "TRAVIS_BRANCH": "feature", "TRAVIS_COMMIT_MESSAGE": "The title"}
	want := onBranch
	want.SHA, want.Message = request["TRAVIS_COMMIT"], "Side"
	check("the merge of a pull request", dir, request, want)
	shallow := filepath.Join(t.TempDir(), "shallow")
	command(t, dir, "clone", "-q", "--depth", "1", "file://"+dir, shallow)
	check("a shallow clone of it", shallow, request, commit{SHA: want.SHA, Branch: "feature", AuthorName: "Merger", AuthorEmail: "merger@example.test",
		Message: "The title", RemoteOrigin: "file://" + dir, DefaultBranch: "main"})

	empty := t.TempDir()
	command(t, empty, "init", "-q", "-b", "main")
	check("no commit yet", empty, environment{}, commit{Branch: "main"})
}

func TestWithoutCredentials(t *testing.T) {
	for given, want := range map[string]string{
		"https://u:p@h.test/a.git":   "https://h.test/a.git",
		"https://h.test/a.git":       "https://h.test/a.git",
		"git@h.test:a/b.git":         "git@h.test:a/b.git",
		"ssh://git@h.test/a":         "ssh://git@h.test/a",
		"ssh://git:secret@h.test/a":  "ssh://git@h.test/a",
		"https://u:p%zz@h.test/a":    "https://h.test/a",
		"https://tok\x7fen@h.test/a": "https://h.test/a",
		"feature/x@y":                "feature/x@y",
		"":                           "",
	} {
		if got := withoutCredentials(given); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

// Machines that are to share specs find each other by the build id: without one, nothing
// is started.
func TestSharingNeedsABuildID(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		refused bool
		build   string // its beginning
	}{
		"no CI service":         {Options{Parallel: true}, true, ""},
		"a build id":            {Options{Parallel: true, BuildID: "b"}, false, "b"},
		"a CI service":          {Options{Parallel: true, Env: []string{"GITHUB_ACTIONS=true"}}, false, ""}, // the server looks at its variables
		"one machine by itself": {Options{}, false, "local-"},
	} {
		m := newMachine(c.options)
		err := m.checkBuild()
		if (err != nil) != c.refused || c.refused && !strings.Contains(err.Error(), "--ci-build-id") || !strings.HasPrefix(m.o.BuildID, c.build) {
			t.Errorf("%s: build id %q, %v", name, m.o.BuildID, err)
		}
	}
	if code, err := Record(t.Context(), Options{Dir: t.TempDir(), Parallel: true}); err == nil || code != 0 || !strings.Contains(err.Error(), "--ci-build-id") {
		t.Errorf("it started: %d, %v", code, err)
	}
}
