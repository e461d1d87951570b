package recorder

import (
	"cmp"
	"context"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"
)

// gitCommit asks git about the checkout. Where there is no git, or no
// repository, nothing is known. sha "" is what is checked out; another commit
// may be missing in a shallow clone.
func gitCommit(ctx context.Context, dir, sha string) commit {
	var c commit
	format := strings.Join([]string{"%H", "%an", "%ae", "%B"}, "%x00")
	args := []string{"log", "-1", "--no-show-signature", "--format=" + format}
	if sha != "" {
		args = append(args, sha)
	}
	if parts := strings.SplitN(git(ctx, dir, append(args, "--")...), "\x00", 4); len(parts) == 4 {
		c.SHA, c.AuthorName, c.AuthorEmail, c.Message = parts[0], parts[1], parts[2], strings.TrimRight(parts[3], "\n")
	}
	// Nothing for a detached HEAD, which is on no branch.
	c.Branch = strings.TrimSpace(git(ctx, dir, "symbolic-ref", "--quiet", "--short", "HEAD"))
	c.RemoteOrigin = strings.TrimSpace(git(ctx, dir, "config", "--get", "remote.origin.url"))
	// What a full clone knows; CI services make others.
	c.DefaultBranch = strings.TrimPrefix(strings.TrimSpace(git(ctx, dir, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")), "origin/")
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
		u.User = url.User(u.User.Username()) // a name is needed there, and no secret
		return u.String()
	}
	if err != nil || u.User == nil {
		if scheme, rest, ok := strings.Cut(s, "://"); err != nil && ok {
			return scheme + "://" + rest[strings.LastIndex(rest, "@")+1:] // rather too much
		}
		return s
	}
	u.User = nil
	return u.String()
}

// facts joins what CI and git say. CI knows which commit it builds; git knows
// it best, if that commit is there.
func facts(ctx context.Context, dir string, e environment) (ciFacts, commit) {
	ci, fromCI := detectCI(e)
	fromGit := gitCommit(ctx, dir, fromCI.SHA)
	if fromGit.SHA == "" && fromCI.SHA != "" {
		// A merge of a pull request is checked out instead: who made it is still right.
		merge := gitCommit(ctx, dir, "")
		fromGit = commit{AuthorName: merge.AuthorName, AuthorEmail: merge.AuthorEmail, RemoteOrigin: merge.RemoteOrigin, DefaultBranch: merge.DefaultBranch}
		if fromCI.Message == "" {
			fromGit.Message = merge.Message
		}
	}
	c := fromCI.or(fromGit)
	if fromGit.SHA != "" {
		// The commit itself says who wrote it and why; CI often says who pushed.
		c.AuthorName = cmp.Or(e["COMMIT_INFO_AUTHOR"], fromGit.AuthorName)
		c.AuthorEmail = cmp.Or(e["COMMIT_INFO_EMAIL"], fromGit.AuthorEmail)
		c.Message = cmp.Or(e["COMMIT_INFO_MESSAGE"], fromGit.Message)
		c.SHA = fromGit.SHA
	}
	c.RemoteOrigin = withoutCredentials(c.RemoteOrigin)
	return ci, c
}
