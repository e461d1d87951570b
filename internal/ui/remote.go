package ui

import (
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	"runbell/internal/run"
)

var (
	repositoryPath = regexp.MustCompile(`^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)+$`)
	digits         = regexp.MustCompile(`^[0-9]+$`)
	hostname       = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?$`)
	commitSHA      = regexp.MustCompile(`^[0-9a-fA-F]{7,64}$`)
)

// repository is a git remote as its web pages have it.
type repository struct {
	scheme, host, path string
}

// parseRemote understands URLs and the ssh form git@host:path. It reports
// false for everything else: what is not understood is not shown, for there is
// no saying what is in it.
func parseRemote(remote string) (repository, bool) {
	remote = run.WithoutCredentials(strings.TrimSpace(remote))
	var r repository
	if scheme, _, ok := strings.Cut(remote, "://"); ok {
		u, err := url.Parse(remote)
		if err != nil {
			return r, false
		}
		r = repository{scheme: "https", host: u.Host, path: u.Path}
		switch strings.ToLower(scheme) {
		case "http", "https":
			r.scheme = strings.ToLower(scheme)
		case "ssh", "git", "git+ssh":
			r.host = u.Hostname() // the port is ssh's
		default:
			return r, false
		}
	} else {
		host, path, ok := strings.Cut(remote[strings.LastIndex(remote, "@")+1:], ":")
		if !ok || !strings.Contains(remote, "@") {
			return r, false
		}
		r = repository{scheme: "https", host: host, path: path}
	}
	r.path = strings.TrimSuffix(strings.Trim(r.path, "/"), ".git")
	ok := hostname.MatchString(r.host) && repositoryPath.MatchString(r.path) && path.Clean(r.path) == r.path &&
		r.path != ".." && !strings.HasPrefix(r.path, "../")
	return r, ok
}

// String is the repository in words.
func (r repository) String() string { return r.host + "/" + r.path }

// host are the sites whose addresses are known.
type host int

const (
	otherHost host = iota
	github
	gitlab
	bitbucket
)

// hostOf knows sites by the name that most give theirs.
func (r repository) hostOf() host {
	name, _, _ := strings.Cut(strings.ToLower(r.host), ":")
	switch first, _, _ := strings.Cut(name, "."); {
	case first == "github": // and GitHub Enterprise
		return github
	case first == "gitlab":
		return gitlab
	case name == "bitbucket.org": // Bitbucket Server has other addresses
		return bitbucket
	default:
		return otherHost
	}
}

// page is an address below the repository's, "" where the site's addresses are not known.
func (r repository) page(ofGitHub, ofGitLab, ofBitbucket string) string {
	below := map[host]string{github: ofGitHub, gitlab: ofGitLab, bitbucket: ofBitbucket}[r.hostOf()]
	if below == "" {
		return ""
	}
	return r.scheme + "://" + r.host + "/" + r.path + below
}

// commitURL is the page of a commit.
func (r repository) commitURL(sha string) string {
	if !commitSHA.MatchString(sha) {
		return ""
	}
	return r.page("/commit/"+sha, "/-/commit/"+sha, "/commits/"+sha)
}

// lineURL is a line of a file as it was at a commit, "" where file is not a path
// below the root of the repository.
func (r repository) lineURL(sha, file string, line int) string {
	if !commitSHA.MatchString(sha) || line <= 0 || file == "" || strings.ContainsAny(file, "\\:?#") || path.IsAbs(file) || path.Clean(file) != file || strings.HasPrefix(file, "..") {
		return ""
	}
	at := sha + "/" + (&url.URL{Path: file}).EscapedPath()
	n := strconv.Itoa(line)
	return r.page("/blob/"+at+"#L"+n, "/-/blob/"+at+"#L"+n, "/src/"+at+"#lines-"+n)
}

// pullNumbers are the parameters in which CI services say which pull request they build.
var pullNumbers = []string{"ciMergeRequestIid", "bitbucketPrId", "circlePrNumber", "dronePullRequest", "travisPullRequest", "buildkitePullRequest",
	"appveyorPullRequestNumber", "semaphoreGitPrNumber", "pullRequestNumber", "systemPullRequestPullRequestNumber", "systemPullrequestPullrequestnumber",
	"cfPullRequestNumber", "changeId", "ghprbPullId"}

// pullRequest is the pull request that a build is of: its number and its page, ""
// where they are not known.
func pullRequest(ci run.CI, r repository) (number, address string) {
	if n, ok := strings.CutSuffix(ci.Params["githubRefName"], "/merge"); ok {
		number = n
	}
	for _, name := range pullNumbers {
		if number == "" {
			number = ci.Params[name]
		}
	}
	if !digits.MatchString(number) || len(number) > 12 {
		return "", ""
	}
	return number, r.page("/pull/"+number, "/-/merge_requests/"+number, "/pull-requests/"+number)
}

// providers are the names of CI services that cannot be read off the word
// clients use.
var providers = map[string]string{
	"githubActions":  "GitHub Actions",
	"gitlab":         "GitLab CI",
	"circle":         "CircleCI",
	"jenkins":        "Jenkins",
	"azure":          "Azure Pipelines",
	"awsCodeBuild":   "AWS CodeBuild",
	"bamboo":         "Bamboo",
	"bitbucket":      "Bitbucket Pipelines",
	"buildkite":      "Buildkite",
	"drone":          "Drone",
	"semaphore":      "Semaphore",
	"teamcity":       "TeamCity",
	"teamfoundation": "Team Foundation",
	"travis":         "Travis CI",
	"appveyor":       "AppVeyor",
	"codeFresh":      "Codefresh",
	"googleCloud":    "Google Cloud Build",
	"netlify":        "Netlify",
}

// frameworkName is what people call a test framework.
func frameworkName(name string) string {
	if name == "cypress" {
		return "Cypress"
	}
	return name
}

func providerName(provider string) string {
	if name, ok := providers[provider]; ok {
		return name
	}
	return run.Clip(provider, 80)
}
