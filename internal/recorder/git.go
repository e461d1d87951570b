package recorder

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// gitCommit asks git about a commit. Without git or a repository, it returns nothing. sha
// "" is the commit that is checked out. Another commit may be missing in a shallow
// clone.
func gitCommit(ctx context.Context, dir, sha string) commit {
	var c commit
	format := strings.Join([]string{"%H", "%an", "%ae", "%B"}, "%x00")
	args := []string{"log", "-1", "--no-show-signature", "--format=" + format}
	switch {
	case strings.HasPrefix(sha, "-"):
		return c // an option to git, which could write files
	case sha != "":
		args = append(args, sha)
	}
	if parts := strings.SplitN(git(ctx, dir, append(args, "--")...), "\x00", 4); len(parts) == 4 {
		c.SHA, c.AuthorName, c.AuthorEmail, c.Message = parts[0], parts[1], parts[2], strings.TrimRight(parts[3], "\n")
	}
	// Empty for a detached HEAD, which is on no branch.
	c.Branch = strings.TrimSpace(git(ctx, dir, "symbolic-ref", "--quiet", "--short", "HEAD"))
	c.RemoteOrigin = strings.TrimSpace(git(ctx, dir, "config", "--get", "remote.origin.url"))
	// Only a full clone has it, and CI services make shallow ones.
	c.DefaultBranch = strings.TrimPrefix(strings.TrimSpace(git(ctx, dir, "symbolic-ref", "--quiet", "--short",
		"refs/remotes/origin/HEAD")), "origin/")
	return c
}

// git runs a command that only reads; "" if it fails or takes too long.
func git(ctx context.Context, dir string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = dir
	// No pager, no prompt, no lock.
	c.Env = append(os.Environ(), "GIT_PAGER=cat", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
	c.WaitDelay = time.Second
	out, err := c.Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// withoutCredentials cuts user and password out of a URL: CI services put
// tokens there.
func withoutCredentials(s string) string {
	u, err := url.Parse(s)
	if err == nil && u.User != nil && u.Scheme == "ssh" {
		u.User = url.User(u.User.Username()) // the name is needed there and is not secret
		return u.String()
	}
	if err != nil || u.User == nil {
		if scheme, rest, ok := strings.Cut(s, "://"); err != nil && ok {
			return scheme + "://" + rest[strings.LastIndex(rest, "@")+1:] // too much is safer than too little
		}
		return s
	}
	u.User = nil
	return u.String()
}

// facts combines the values of CI and git. The commit that is checked out is the tested
// one, so it wins. CI may name another one: if tests have a separate repository, or if
// another commit started the job. CI's values are used only if they are about the same
// commit.
func facts(ctx context.Context, dir string, e environment) (ciFacts, commit) {
	ci, fromCI := detectCI(e)
	given := givenCommit(e)
	head := gitCommit(ctx, dir, "")
	c := head
	switch {
	case head.SHA == "": // no checkout to compare with
		c = fromCI.or(head)
	case fromCI.SHA == "": // nor here
		c = head.or(fromCI)
	case sameCommit(head.SHA, fromCI.SHA):
		// The commit itself has its author and message. CI often has the person who pushed.
		c = commit{SHA: head.SHA, AuthorName: head.AuthorName, AuthorEmail: head.AuthorEmail,
			Message: head.Message}.or(fromCI).or(head)
	case mergeOf(ctx, dir, fromCI.SHA):
		// The checkout is the merge that CI made for a pull request. A shallow clone has
		// only the merge, but its author is still right.
		c = gitCommit(ctx, dir, fromCI.SHA).or(fromCI)
		head.Branch = ""
		c = c.or(head)
		c.Branch = fromCI.Branch
	}
	if given.SHA != "" && !sameCommit(c.SHA, given.SHA) {
		c = gitCommit(ctx, dir, given.SHA) // nothing else is known about it
	}
	c = given.or(c)
	c.RemoteOrigin = withoutCredentials(c.RemoteOrigin)
	return ci, c
}

// sameCommit reports whether two names mean the same commit. Some services shorten them.
func sameCommit(a, b string) bool {
	return a == b || min(len(a), len(b)) >= 7 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a))
}

// mergeOf says whether a merge of this commit with another one is checked out. The
// commit itself names its parents: in a shallow clone, git's log does not.
func mergeOf(ctx context.Context, dir, sha string) bool {
	var parents []string
	for line := range strings.Lines(git(ctx, dir, "cat-file", "commit", "HEAD")) {
		if parent, ok := strings.CutPrefix(line, "parent "); ok {
			parents = append(parents, strings.TrimSpace(parent))
		}
		if line == "\n" {
			break // the message follows
		}
	}
	return len(parents) > 1 && slices.Contains(parents, sha)
}
