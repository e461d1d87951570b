package recorder

import (
	"cmp"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"unicode"
)

// ciFacts is what the environment variables of a CI service tell about a build.
type ciFacts struct {
	Provider string            `json:"provider"`
	Params   map[string]string `json:"params"`
}

// commit is the commit of a run. Empty fields are unknown.
type commit struct {
	SHA           string
	Branch        string
	AuthorName    string
	AuthorEmail   string
	Message       string
	RemoteOrigin  string
	DefaultBranch string
}

// or fills what is unknown from another source.
func (c commit) or(o commit) commit {
	return commit{cmp.Or(c.SHA, o.SHA), cmp.Or(c.Branch, o.Branch), cmp.Or(c.AuthorName, o.AuthorName),
		cmp.Or(c.AuthorEmail, o.AuthorEmail), cmp.Or(c.Message, o.Message), cmp.Or(c.RemoteOrigin, o.RemoteOrigin),
		cmp.Or(c.DefaultBranch, o.DefaultBranch)}
}

// environment is a process's variables.
type environment map[string]string

func newEnvironment(list []string) environment {
	env := environment{}
	for _, v := range list {
		if name, value, ok := strings.Cut(v, "="); ok {
			env[name] = value
		}
	}
	return env
}

// first is the value of the first variable that has one.
func (e environment) first(names ...string) string {
	for _, n := range names {
		if v := strings.TrimSpace(e[n]); v != "" {
			return v
		}
	}
	return ""
}

// provider is a CI service: how to detect it, which of its variables are sent, and how
// they describe the commit. Names and variables are the same as in Cypress' own
// recorder, so that a run looks the same with any reporter. Variables that are not
// listed are never sent.
type provider struct {
	name   string
	here   func(environment) bool
	params []string
	commit func(environment) commit
}

// has detects a service by any of these variables.
func has(names ...string) func(environment) bool {
	return func(e environment) bool { return e.first(names...) != "" }
}

// branchOfRef is the branch of refs/heads/x, "" for a tag.
func branchOfRef(ref string) string {
	if strings.HasPrefix(ref, "refs/tags/") {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "origin/")
}

var providers = []provider{
	{"appveyor", has("APPVEYOR"),
		[]string{"APPVEYOR_JOB_ID", "APPVEYOR_ACCOUNT_NAME", "APPVEYOR_PROJECT_SLUG", "APPVEYOR_BUILD_NUMBER",
			"APPVEYOR_BUILD_VERSION", "APPVEYOR_PULL_REQUEST_NUMBER", "APPVEYOR_PULL_REQUEST_HEAD_REPO_BRANCH"},
		func(e environment) commit {
			return commit{SHA: e["APPVEYOR_REPO_COMMIT"],
				Branch:  e.first("APPVEYOR_PULL_REQUEST_HEAD_REPO_BRANCH", "APPVEYOR_REPO_BRANCH"),
				Message: e["APPVEYOR_REPO_COMMIT_MESSAGE"], AuthorName: e["APPVEYOR_REPO_COMMIT_AUTHOR"],
				AuthorEmail: e["APPVEYOR_REPO_COMMIT_AUTHOR_EMAIL"]}
		}},
	{"azure", func(e environment) bool { return e["TF_BUILD"] != "" && e["AZURE_HTTP_USER_AGENT"] != "" },
		[]string{"BUILD_BUILDID", "BUILD_BUILDNUMBER", "BUILD_CONTAINERID", "BUILD_REPOSITORY_URI",
			"SYSTEM_PULLREQUEST_PULLREQUESTNUMBER", "SYSTEM_PULLREQUEST_TARGETBRANCH", "AGENT_MACHINENAME",
			"SYSTEM_JOBPOSITIONINPHASE", "SYSTEM_JOBATTEMPT"},
		func(e environment) commit {
			return commit{SHA: e.first("SYSTEM_PULLREQUEST_SOURCECOMMITID", "BUILD_SOURCEVERSION"),
				Branch:  branchOfRef(e.first("SYSTEM_PULLREQUEST_SOURCEBRANCH", "BUILD_SOURCEBRANCH")),
				Message: e["BUILD_SOURCEVERSIONMESSAGE"], AuthorName: e.first("BUILD_SOURCEVERSIONAUTHOR", "BUILD_REQUESTEDFOR"),
				AuthorEmail: e["BUILD_REQUESTEDFOREMAIL"], RemoteOrigin: e["BUILD_REPOSITORY_URI"]}
		}},
	{"awsCodeBuild", has("CODEBUILD_BUILD_ID", "CODEBUILD_BUILD_ARN"),
		[]string{"CODEBUILD_BUILD_ID", "CODEBUILD_BUILD_NUMBER", "CODEBUILD_RESOLVED_SOURCE_VERSION",
			"CODEBUILD_SOURCE_REPO_URL", "CODEBUILD_SOURCE_VERSION", "CODEBUILD_WEBHOOK_TRIGGER"},
		func(e environment) commit {
			branch := branchOfRef(e["CODEBUILD_WEBHOOK_HEAD_REF"])
			if name, ok := strings.CutPrefix(e["CODEBUILD_WEBHOOK_TRIGGER"], "branch/"); ok && branch == "" {
				branch = name
			}
			return commit{SHA: e["CODEBUILD_RESOLVED_SOURCE_VERSION"], Branch: branch,
				RemoteOrigin: e["CODEBUILD_SOURCE_REPO_URL"]}
		}},
	{"bamboo", has("bamboo_buildNumber"),
		[]string{"bamboo_buildNumber", "bamboo_buildResultsUrl", "bamboo_planRepository_repositoryUrl", "bamboo_buildKey"},
		func(e environment) commit {
			return commit{SHA: e["bamboo_planRepository_revision"], Branch: e["bamboo_planRepository_branch"],
				AuthorName: e["bamboo_planRepository_username"], RemoteOrigin: e["bamboo_planRepository_repositoryURL"]}
		}},
	{"bitbucket", has("BITBUCKET_BUILD_NUMBER"),
		[]string{"BITBUCKET_REPO_SLUG", "BITBUCKET_REPO_OWNER", "BITBUCKET_BUILD_NUMBER", "BITBUCKET_PARALLEL_STEP",
			"BITBUCKET_STEP_RUN_NUMBER", "BITBUCKET_PR_ID", "BITBUCKET_PR_DESTINATION_BRANCH", "BITBUCKET_PR_DESTINATION_COMMIT",
			"BITBUCKET_GIT_HTTP_ORIGIN"},
		func(e environment) commit {
			return commit{SHA: e["BITBUCKET_COMMIT"], Branch: e["BITBUCKET_BRANCH"],
				RemoteOrigin: e["BITBUCKET_GIT_HTTP_ORIGIN"]}
		}},
	{"buildkite", has("BUILDKITE"),
		[]string{"BUILDKITE_REPO", "BUILDKITE_SOURCE", "BUILDKITE_JOB_ID", "BUILDKITE_BUILD_ID", "BUILDKITE_BUILD_URL",
			"BUILDKITE_BUILD_NUMBER", "BUILDKITE_PULL_REQUEST", "BUILDKITE_PULL_REQUEST_REPO",
			"BUILDKITE_PULL_REQUEST_BASE_BRANCH", "BUILDKITE_AGENT_NAME", "BUILDKITE_PARALLEL_JOB", "BUILDKITE_RETRY_COUNT"},
		func(e environment) commit {
			return commit{SHA: e["BUILDKITE_COMMIT"], Branch: e["BUILDKITE_BRANCH"], Message: e["BUILDKITE_MESSAGE"],
				AuthorName:   e.first("BUILDKITE_BUILD_AUTHOR", "BUILDKITE_BUILD_CREATOR"),
				AuthorEmail:  e.first("BUILDKITE_BUILD_AUTHOR_EMAIL", "BUILDKITE_BUILD_CREATOR_EMAIL"),
				RemoteOrigin: e["BUILDKITE_REPO"], DefaultBranch: e["BUILDKITE_PIPELINE_DEFAULT_BRANCH"]}
		}},
	{"circle", has("CIRCLECI"),
		[]string{"CIRCLE_JOB", "CIRCLE_BUILD_NUM", "CIRCLE_BUILD_URL", "CIRCLE_PR_NUMBER", "CIRCLE_PR_REPONAME",
			"CIRCLE_PR_USERNAME", "CIRCLE_COMPARE_URL", "CIRCLE_WORKFLOW_ID", "CIRCLE_PULL_REQUEST", "CIRCLE_REPOSITORY_URL",
			"CI_PULL_REQUEST", "CIRCLE_NODE_INDEX"},
		func(e environment) commit {
			return commit{SHA: e["CIRCLE_SHA1"], Branch: e["CIRCLE_BRANCH"], AuthorName: e["CIRCLE_USERNAME"],
				RemoteOrigin: e["CIRCLE_REPOSITORY_URL"]}
		}},
	{"codeFresh", has("CF_BUILD_ID"),
		[]string{"CF_BUILD_ID", "CF_BUILD_URL", "CF_CURRENT_ATTEMPT", "CF_STEP_NAME", "CF_PIPELINE_NAME",
			"CF_PULL_REQUEST_ID", "CF_PULL_REQUEST_NUMBER", "CF_PULL_REQUEST_TARGET"},
		func(e environment) commit {
			return commit{SHA: e["CF_REVISION"], Branch: e["CF_BRANCH"], Message: e["CF_COMMIT_MESSAGE"],
				AuthorName: e["CF_COMMIT_AUTHOR"]}
		}},
	{"drone", has("DRONE"),
		[]string{"DRONE_JOB_NUMBER", "DRONE_BUILD_LINK", "DRONE_BUILD_NUMBER", "DRONE_PULL_REQUEST", "DRONE_STAGE_MACHINE",
			"DRONE_STEP_NAME"},
		func(e environment) commit {
			return commit{SHA: e["DRONE_COMMIT_SHA"], Branch: e.first("DRONE_SOURCE_BRANCH", "DRONE_COMMIT_BRANCH"),
				Message: e["DRONE_COMMIT_MESSAGE"], AuthorName: e.first("DRONE_COMMIT_AUTHOR_NAME", "DRONE_COMMIT_AUTHOR"),
				AuthorEmail: e["DRONE_COMMIT_AUTHOR_EMAIL"], RemoteOrigin: e.first("DRONE_GIT_HTTP_URL", "DRONE_REPO_LINK"),
				DefaultBranch: e["DRONE_REPO_BRANCH"]}
		}},
	{"githubActions", has("GITHUB_ACTIONS"),
		[]string{"GITHUB_WORKFLOW", "GITHUB_ACTION", "GITHUB_EVENT_NAME", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT",
			"GITHUB_REPOSITORY", "GITHUB_JOB", "GITHUB_REF_NAME", "GITHUB_HEAD_REF", "GITHUB_BASE_REF", "GITHUB_SERVER_URL",
			"RUNNER_NAME"},
		githubCommit},
	{"gitlab", func(e environment) bool {
		return e["GITLAB_CI"] != "" || strings.HasPrefix(e["CI_SERVER_NAME"], "GitLab")
	},
		[]string{"CI_PIPELINE_ID", "CI_PIPELINE_URL", "CI_BUILD_ID", "CI_JOB_ID", "CI_JOB_URL", "CI_JOB_NAME", "GITLAB_HOST",
			"CI_PROJECT_ID", "CI_PROJECT_URL", "CI_ENVIRONMENT_URL", "CI_DEFAULT_BRANCH", "CI_MERGE_REQUEST_IID",
			"CI_MERGE_REQUEST_PROJECT_URL", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "CI_NODE_INDEX", "CI_RUNNER_DESCRIPTION"},
		func(e environment) commit {
			c := commit{SHA: e.first("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", "CI_COMMIT_SHA"),
				Branch:  e.first("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_BRANCH", "CI_COMMIT_REF_NAME"),
				Message: e["CI_COMMIT_MESSAGE"], RemoteOrigin: e.first("CI_PROJECT_URL", "CI_REPOSITORY_URL"),
				DefaultBranch: e["CI_DEFAULT_BRANCH"]}
			// "Jane Roe <jane@example.test>"
			if name, mail, ok := strings.Cut(e["CI_COMMIT_AUTHOR"], " <"); ok {
				c.AuthorName, c.AuthorEmail = name, strings.TrimSuffix(mail, ">")
			} else {
				c.AuthorName, c.AuthorEmail = e["GITLAB_USER_NAME"], e["GITLAB_USER_EMAIL"]
			}
			return c
		}},
	{"jenkins", has("JENKINS_URL", "JENKINS_HOME", "JENKINS_VERSION", "HUDSON_URL", "HUDSON_HOME"),
		[]string{"BUILD_ID", "BUILD_URL", "BUILD_NUMBER", "JOB_NAME", "NODE_NAME", "ghprbPullId", "CHANGE_ID", "CHANGE_URL",
			"CHANGE_TARGET"},
		func(e environment) commit {
			return commit{SHA: e.first("ghprbActualCommit", "GIT_COMMIT"),
				Branch:      branchOfRef(e.first("CHANGE_BRANCH", "ghprbSourceBranch", "BRANCH_NAME", "GIT_BRANCH")),
				AuthorName:  e.first("CHANGE_AUTHOR_DISPLAY_NAME", "GIT_AUTHOR_NAME"),
				AuthorEmail: e.first("CHANGE_AUTHOR_EMAIL", "GIT_AUTHOR_EMAIL"), RemoteOrigin: e["GIT_URL"]}
		}},
	{"semaphore", has("SEMAPHORE"),
		[]string{"SEMAPHORE_PIPELINE_ID", "SEMAPHORE_WORKFLOW_ID", "SEMAPHORE_JOB_ID", "SEMAPHORE_JOB_NAME",
			"SEMAPHORE_JOB_COUNT", "SEMAPHORE_JOB_INDEX", "SEMAPHORE_BUILD_NUMBER", "SEMAPHORE_PROJECT_ID",
			"SEMAPHORE_PROJECT_NAME", "SEMAPHORE_ORGANIZATION_URL", "SEMAPHORE_GIT_REF_TYPE", "SEMAPHORE_GIT_PR_NUMBER",
			"SEMAPHORE_AGENT_MACHINE_TYPE", "PULL_REQUEST_NUMBER"},
		func(e environment) commit {
			return commit{SHA: e.first("SEMAPHORE_GIT_PR_SHA", "SEMAPHORE_GIT_SHA"),
				Branch:     e.first("SEMAPHORE_GIT_PR_BRANCH", "SEMAPHORE_GIT_WORKING_BRANCH", "SEMAPHORE_GIT_BRANCH"),
				AuthorName: e["SEMAPHORE_GIT_COMMIT_AUTHOR"], RemoteOrigin: e["SEMAPHORE_GIT_URL"]}
		}},
	{"teamcity", has("TEAMCITY_VERSION"),
		[]string{"BUILD_NUMBER", "BUILD_URL", "TEAMCITY_PROJECT_NAME", "TEAMCITY_BUILDCONF_NAME"},
		func(e environment) commit {
			return commit{SHA: e["BUILD_VCS_NUMBER"], Branch: branchOfRef(e["TEAMCITY_BUILD_BRANCH"])}
		}},
	{"teamfoundation", func(e environment) bool { return e["TF_BUILD"] != "" },
		[]string{"BUILD_BUILDID", "BUILD_BUILDNUMBER", "BUILD_CONTAINERID"},
		func(e environment) commit {
			return commit{SHA: e["BUILD_SOURCEVERSION"], Branch: e["BUILD_SOURCEBRANCHNAME"],
				Message: e["BUILD_SOURCEVERSIONMESSAGE"], AuthorName: e["BUILD_SOURCEVERSIONAUTHOR"]}
		}},
	{"travis", has("TRAVIS"),
		[]string{"TRAVIS_JOB_ID", "TRAVIS_BUILD_ID", "TRAVIS_BUILD_WEB_URL", "TRAVIS_REPO_SLUG", "TRAVIS_JOB_NUMBER",
			"TRAVIS_EVENT_TYPE", "TRAVIS_COMMIT_RANGE", "TRAVIS_BUILD_NUMBER", "TRAVIS_PULL_REQUEST",
			"TRAVIS_PULL_REQUEST_BRANCH", "TRAVIS_PULL_REQUEST_SHA"},
		func(e environment) commit {
			return commit{SHA: e.first("TRAVIS_PULL_REQUEST_SHA", "TRAVIS_COMMIT"),
				Branch: e.first("TRAVIS_PULL_REQUEST_BRANCH", "TRAVIS_BRANCH"), Message: e["TRAVIS_COMMIT_MESSAGE"]}
		}},
	{"netlify", has("NETLIFY"),
		[]string{"BUILD_ID", "CONTEXT", "URL", "DEPLOY_URL", "DEPLOY_ID", "REVIEW_ID"},
		func(e environment) commit {
			return commit{SHA: e["COMMIT_REF"], Branch: e.first("HEAD", "BRANCH"), RemoteOrigin: e["REPOSITORY_URL"]}
		}},
	// Last: people set these variables on their own machines, too.
	{"googleCloud", func(e environment) bool {
		return e.first("GCP_PROJECT", "GCLOUD_PROJECT", "GOOGLE_CLOUD_PROJECT") != "" && e["BUILD_ID"] != ""
	},
		[]string{"BUILD_ID", "PROJECT_ID", "REPO_NAME", "BRANCH_NAME", "TAG_NAME", "COMMIT_SHA", "SHORT_SHA"},
		func(e environment) commit { return commit{SHA: e["COMMIT_SHA"], Branch: e["BRANCH_NAME"]} }},
}

// detectCI returns what the environment tells about the build and its commit.
func detectCI(e environment) (ciFacts, commit) {
	facts := ciFacts{Params: map[string]string{}}
	var c commit
	if i := slices.IndexFunc(providers, func(p provider) bool { return p.here(e) }); i >= 0 {
		p := providers[i]
		facts.Provider = p.name
		for _, name := range p.params {
			// Some services set "false" if there is no pull request.
			if v := e.first(name); v != "" && v != "false" {
				facts.Params[camel(name)] = withoutCredentials(v)
			}
		}
		c = p.commit(e)
	}
	return facts, c
}

// givenCommit is the commit from Cypress' own variables, which correct wrong ones from
// CI.
func givenCommit(e environment) commit {
	return commit{SHA: e["COMMIT_INFO_SHA"], Branch: e["COMMIT_INFO_BRANCH"], Message: e["COMMIT_INFO_MESSAGE"],
		AuthorName: e["COMMIT_INFO_AUTHOR"], AuthorEmail: e["COMMIT_INFO_EMAIL"], RemoteOrigin: e["COMMIT_INFO_REMOTE"]}
}

// githubCommit corrects the commit of a pull request. GitHub builds a merge commit of
// its own, with its own message; the event has the real ones.
func githubCommit(e environment) commit {
	c := commit{SHA: e["GITHUB_SHA"], AuthorName: e["GITHUB_ACTOR"], Branch: e["GITHUB_HEAD_REF"]}
	if c.Branch == "" && e["GITHUB_REF_TYPE"] != "tag" {
		c.Branch = cmp.Or(branchOfRef(e["GITHUB_REF"]), e["GITHUB_REF_NAME"])
	}
	if server, repo := e["GITHUB_SERVER_URL"], e["GITHUB_REPOSITORY"]; server != "" && repo != "" {
		c.RemoteOrigin = server + "/" + repo
	}
	var event struct {
		Repository struct {
			DefaultBranch string `json:"default_branch"`
		} `json:"repository"`
		PullRequest struct {
			Title string
			Head  struct{ Ref, SHA string }
		} `json:"pull_request"`
		HeadCommit struct {
			ID, Message string
			Author      struct{ Name, Email string }
		} `json:"head_commit"`
	}
	b, err := os.ReadFile(e["GITHUB_EVENT_PATH"])
	if err != nil || json.Unmarshal(b, &event) != nil {
		return c // every job has the file; without it the variables have to do
	}
	c.DefaultBranch = event.Repository.DefaultBranch
	if pr := event.PullRequest; pr.Head.SHA != "" {
		c.SHA, c.Branch, c.Message = pr.Head.SHA, pr.Head.Ref, pr.Title
	} else if h := event.HeadCommit; h.ID == c.SHA {
		c.Message, c.AuthorName, c.AuthorEmail = h.Message, cmp.Or(h.Author.Name, c.AuthorName), h.Author.Email
	}
	return c
}

// camel spells a variable as Cypress' recorder does: CI_JOB_ID is ciJobId,
// CODEBUILD_BUILD_ID is codebuildBuildId; lower case inside a word stays.
func camel(name string) string {
	var b strings.Builder
	for i, word := range strings.Split(name, "_") {
		if word == strings.ToUpper(word) {
			word = strings.ToLower(word)
		}
		runes := []rune(word)
		if i > 0 && len(runes) > 0 {
			runes[0] = unicode.ToUpper(runes[0])
		}
		b.WriteString(string(runes))
	}
	return b.String()
}
