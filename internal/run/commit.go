package run

import (
	"cmp"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Commit is what a run tested. "" means unknown.
type Commit struct {
	// SHA is the head of the branch. MergeSHA is the commit that was checked out
	// where that is another one: a pull request merged for the test.
	SHA           string `json:"sha,omitempty"`
	MergeSHA      string `json:"mergeSha,omitempty"`
	Branch        string `json:"branch,omitempty"`
	AuthorName    string `json:"authorName,omitempty"`
	AuthorEmail   string `json:"authorEmail,omitempty"`
	RemoteOrigin  string `json:"remoteOrigin,omitempty"`
	DefaultBranch string `json:"defaultBranch,omitempty"`
	// PullRequest is nil if the run is about no pull or merge request.
	PullRequest *PullRequest `json:"pullRequest,omitempty"`
	// Message is last, because the search for a part of it looks from here to the
	// end of the stored document.
	Message string `json:"message,omitempty"`
}

// Short is the commit as people write it: seven digits, or what was sent instead
// of a SHA.
func (c Commit) Short() string {
	if commitSHA.MatchString(c.SHA) {
		return c.SHA[:7]
	}
	return Clip(c.SHA, 40)
}

// PullRequest is the pull or merge request that a run tested.
type PullRequest struct {
	Number int    `json:"number,omitempty"` // 0 if unknown
	Title  string `json:"title,omitempty"`
	URL    string `json:"url,omitempty"`
	Author string `json:"author,omitempty"` // the account at the Git host
}

// Branch is the name of a branch as people say it: refs/heads/x, origin/x and
// remotes/origin/x are x. It is "" for a detached head.
func Branch(name string) string {
	name = strings.TrimSpace(name)
	for _, prefix := range []string{"refs/heads/", "refs/remotes/", "remotes/", "heads/", "origin/"} {
		name = strings.TrimPrefix(name, prefix)
	}
	if name == "HEAD" {
		return ""
	}
	return name
}

// mergeRef matches the ref of a pull request that was merged for a test, and of
// its head: refs/pull/12/merge, pull/12/head, 12/merge, merge-requests/12/head, and the
// pull/12 of CircleCI.
var mergeRef = regexp.MustCompile(
	`^(?:refs/)?(?:(?:pull|pull-requests|merge-requests)/)?(\d+)/(?:merge|head|from|train)$|^pull/(\d+)$`)

// queueRef matches the branch on which GitHub tests a pull request before it merges it.
var queueRef = regexp.MustCompile(`^(?:refs/heads/)?gh-readonly-queue/.+/pr-(\d+)-[0-9a-f]{40}$`)

// PullNames are the parameters of a CI service that tell of a pull request: its
// number, the branch and commit of its head, title, link and author. Names of one
// list are tried in turn.
type PullNames struct{ Number, Branch, SHA, Title, URL, Author []string }

// PullParams are the [PullNames] by CI provider. The table is in docs/recording.md,
// too.
var PullParams = map[string]PullNames{
	"githubActions": {Branch: []string{"githubHeadRef"}, Number: []string{"githubRefName", "githubRef"}},
	"gitlab": {Number: []string{"ciMergeRequestIid"}, Branch: []string{"ciMergeRequestSourceBranchName"},
		SHA: []string{"ciMergeRequestSourceBranchSha"}, Title: []string{"ciMergeRequestTitle"}},
	"azure": {Number: []string{"systemPullrequestPullrequestnumber"}, Branch: []string{"systemPullrequestSourcebranch"},
		SHA: []string{"systemPullrequestSourcecommitid"}},
	"appveyor": {Number: []string{"appveyorPullRequestNumber"}, Branch: []string{"appveyorPullRequestHeadRepoBranch"},
		SHA: []string{"appveyorPullRequestHeadCommit"}, Title: []string{"appveyorPullRequestTitle"}},
	"awsCodeBuild": {Number: []string{"codebuildSourceVersion"}},
	"bitbucket":    {Number: []string{"bitbucketPrId"}},
	"buildkite":    {Number: []string{"buildkitePullRequest"}},
	"circle": {Number: []string{"circlePrNumber", "circlePullRequest"},
		URL: []string{"circlePullRequest", "ciPullRequest"}, Author: []string{"circlePrUsername"}},
	"codeFresh": {Number: []string{"cfPullRequestNumber"}, Title: []string{"cfPullRequestTitle"}},
	"drone": {Number: []string{"dronePullRequest"}, Branch: []string{"droneSourceBranch"},
		Title: []string{"dronePullRequestTitle"}},
	"jenkins": {Number: []string{"changeId", "ghprbPullId"}, Branch: []string{"changeBranch", "ghprbSourceBranch"},
		SHA: []string{"ghprbActualCommit"}, Title: []string{"changeTitle", "ghprbPullTitle"},
		URL: []string{"changeUrl", "ghprbPullLink"}, Author: []string{"changeAuthor"}},
	"semaphore": {Number: []string{"semaphoreGitPrNumber", "pullRequestNumber"}, Branch: []string{"semaphoreGitPrBranch"},
		SHA: []string{"semaphoreGitPrSha"}, Title: []string{"semaphoreGitPrName"}},
	"travis": {Number: []string{"travisPullRequest"}, Branch: []string{"travisPullRequestBranch"},
		SHA: []string{"travisPullRequestSha"}},
}

// Head is what a reporter's own data say of the head of a pull request, beside
// the commit that was checked out.
type Head struct {
	SHA, Branch string
	PullRequest PullRequest
}

// Resolve makes a commit mean what people mean, whatever was checked out: the
// branch has its plain name, and of a pull request, sha, branch, title, author and
// link are those of its head. head wins over what the CI service says; either may
// know nothing.
func (c Commit) Resolve(ci CI, head Head) Commit {
	fromCI := ci.head(c)
	head.SHA, head.Branch = cmp.Or(head.SHA, fromCI.SHA), cmp.Or(head.Branch, fromCI.Branch)
	pr, other := &head.PullRequest, fromCI.PullRequest
	if pr.Number == 0 {
		pr.Number = other.Number
	}
	pr.Title, pr.URL, pr.Author = cmp.Or(pr.Title, other.Title), cmp.Or(pr.URL, other.URL), cmp.Or(pr.Author, other.Author)
	if mergeRef.MatchString(c.Branch) {
		if pr.Number == 0 {
			pr.Number = pullNumber(c.Branch)
		}
		c.Branch = ""
	}
	if *pr == (PullRequest{}) && head.SHA == "" {
		c.Branch = Branch(cmp.Or(c.Branch, head.Branch))
		return c
	}
	c.Branch = Branch(cmp.Or(head.Branch, c.Branch))
	if head.SHA != "" && head.SHA != c.SHA {
		// The message and author of the commit that was checked out are those of a
		// merge that nobody wrote.
		c.MergeSHA, c.SHA = c.SHA, head.SHA
		c.Message = cmp.Or(pr.Title, c.Message)
		c.AuthorName = cmp.Or(c.AuthorName, pr.Author)
	}
	if *pr != (PullRequest{}) {
		c.PullRequest = pr
	}
	return c
}

// head reads the parameters about a pull request.
func (c CI) head(commit Commit) Head {
	names := PullParams[c.Provider]
	value := func(names []string) string {
		for _, v := range c.values(names) {
			if v != "false" { // how some services say that there is none
				return v
			}
		}
		return ""
	}
	pr := PullRequest{Number: pullNumber(value(names.Number)), Title: value(names.Title), URL: webLink(value(names.URL)),
		Author: value(names.Author)}
	if pr.URL == "" && pr.Number > 0 {
		pr.URL = c.pullURL(commit, pr.Number)
	}
	return Head{SHA: value(names.SHA), Branch: value(names.Branch), PullRequest: pr}
}

// pullName matches how services write a pull request: 12, PR-12, MR-12, pr/12, and
// the end of a link.
var pullName = regexp.MustCompile(`^(?:[A-Z]{2}-|pr/|https?://.*/)?(\d+)$`)

// pullNumber is 0 if s names no pull request.
func pullNumber(s string) int {
	for _, pattern := range []*regexp.Regexp{pullName, mergeRef, queueRef} {
		if m := pattern.FindStringSubmatch(s); m != nil {
			n, err := strconv.Atoi(strings.Join(m[1:], "")) // one of the groups has it
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// pullURL is the page of a pull request at hosts whose addresses are known.
func (c CI) pullURL(commit Commit, number int) string {
	if project := c.Params["ciMergeRequestProjectUrl"]; project != "" {
		return webLink(project + "/-/merge_requests/" + strconv.Itoa(number))
	}
	r, ok := ParseRemote(commit.RemoteOrigin)
	if !ok {
		return ""
	}
	return r.PullURL(number)
}

// webLink is s if it is a link that a page may show, else "".
func webLink(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return ""
	}
	return s
}

// Identity names repository, branch and commit in 16 hexadecimal digits, the same
// for every way to write the address of the repository.
func (c Commit) Identity() string {
	return ShortHash(sameRemote(c.RemoteOrigin) + "\n" + Branch(c.Branch) + "\n" + c.SHA)
}

// Disagreement says in what two machines of one build differ that test one
// commit: "commit", "branch" or "repository"; "" if they may be of one build.
// What is unknown differs from nothing.
func (c Commit) Disagreement(o Commit) string {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	switch {
	case differ(sameRemote(c.RemoteOrigin), sameRemote(o.RemoteOrigin)):
		return "repository"
	case differ(c.Branch, o.Branch):
		return "branch"
	case differ(c.SHA, o.SHA) && !sameCommit(c.SHA, o.SHA) && c.MergeSHA != o.SHA && o.MergeSHA != c.SHA:
		return "commit"
	default:
		return ""
	}
}

// sameCommit says whether two names are of one commit: some CI services shorten it.
func sameCommit(a, b string) bool {
	return min(len(a), len(b)) >= 7 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a))
}

// sameRemote is the same for every way to write the address of a repository.
func sameRemote(remote string) string {
	if r, ok := ParseRemote(remote); ok {
		return strings.ToLower(r.String())
	}
	return remote
}
