package run

import (
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

var (
	repositoryPath = regexp.MustCompile(`^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)+$`)
	hostname       = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?$`)
	commitSHA      = regexp.MustCompile(`^[0-9a-fA-F]{7,64}$`)
)

// Repository is a git remote as the web pages of its host have it.
type Repository struct {
	scheme, host, path string
}

// ParseRemote understands URLs and the ssh form git@host:path. It reports false
// for everything else: a remote that is not understood may hold anything, so
// pages do not show it.
func ParseRemote(remote string) (Repository, bool) {
	remote = WithoutCredentials(strings.TrimSpace(remote))
	var r Repository
	if scheme, _, ok := strings.Cut(remote, "://"); ok {
		u, err := url.Parse(remote)
		if err != nil {
			return r, false
		}
		r = Repository{scheme: "https", host: u.Host, path: u.Path}
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
		r = Repository{scheme: "https", host: host, path: path}
	}
	r.path = strings.TrimSuffix(strings.Trim(r.path, "/"), ".git")
	ok := hostname.MatchString(r.host) && repositoryPath.MatchString(r.path) && path.Clean(r.path) == r.path &&
		r.path != ".." && !strings.HasPrefix(r.path, "../")
	return r, ok
}

// String is host and path: the same however the repository is reached.
func (r Repository) String() string { return r.host + "/" + r.path }

// URL is the page of the repository.
func (r Repository) URL() string { return r.scheme + "://" + r.String() }

// page is an address below the repository's; "" where the addresses of the host
// are not known.
func (r Repository) page(github, gitlab, bitbucket string) string {
	name, _, _ := strings.Cut(strings.ToLower(r.host), ":")
	var below string
	switch first, _, _ := strings.Cut(name, "."); {
	case first == "github": // GitHub Enterprise too
		below = github
	case first == "gitlab":
		below = gitlab
	case name == "bitbucket.org": // Bitbucket Server has other addresses
		below = bitbucket
	default:
		return ""
	}
	return r.URL() + below
}

// CommitURL is the page of a commit, "" if it is not known.
func (r Repository) CommitURL(sha string) string {
	if !commitSHA.MatchString(sha) {
		return ""
	}
	return r.page("/commit/"+sha, "/-/commit/"+sha, "/commits/"+sha)
}

// LineURL is the page of a line of a file at a commit; "" if it is not known, or
// if file is not a path below the root of the repository.
func (r Repository) LineURL(sha, file string, line int) string {
	if !commitSHA.MatchString(sha) || line <= 0 || file == "" || strings.ContainsAny(file, "\\:?#") || path.IsAbs(file) ||
		path.Clean(file) != file || strings.HasPrefix(file, "..") {
		return ""
	}
	at := sha + "/" + (&url.URL{Path: file}).EscapedPath()
	n := strconv.Itoa(line)
	return r.page("/blob/"+at+"#L"+n, "/-/blob/"+at+"#L"+n, "/src/"+at+"#lines-"+n)
}

// PullURL is the page of a pull or merge request, "" if it is not known.
func (r Repository) PullURL(number int) string {
	if number <= 0 {
		return ""
	}
	n := strconv.Itoa(number)
	return r.page("/pull/"+n, "/-/merge_requests/"+n, "/pull-requests/"+n)
}
