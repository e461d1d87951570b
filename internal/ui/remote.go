package ui

import (
	"net/url"
	"path"
	"regexp"
	"strings"

	"runbell/internal/run"
)

var (
	repositoryPath = regexp.MustCompile(`^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)+$`)
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

// commitURL is the page of a commit, "" where the host's pages are not known.
func (r repository) commitURL(sha string) string {
	if !commitSHA.MatchString(sha) {
		return ""
	}
	host, _, _ := strings.Cut(strings.ToLower(r.host), ":")
	base := r.scheme + "://" + r.host + "/" + r.path
	switch first, _, _ := strings.Cut(host, "."); {
	case first == "github": // and GitHub Enterprise, as most call their host
		return base + "/commit/" + sha
	case first == "gitlab":
		return base + "/-/commit/" + sha
	case host == "bitbucket.org": // Bitbucket Server has other addresses
		return base + "/commits/" + sha
	default:
		return ""
	}
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
