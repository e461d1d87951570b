package run

import (
	"net/url"
	"strings"
)

// WithoutCredentials removes user and password from a git remote that is a
// URL. CI services put tokens there. The ssh form git@host:path is kept: its
// user is no secret.
func WithoutCredentials(remote string) string {
	scheme, rest, ok := strings.Cut(remote, "://")
	if !ok {
		return remote
	}
	if u, err := url.Parse(remote); err == nil {
		if u.User == nil {
			return remote
		}
		if _, hasPassword := u.User.Password(); u.Scheme == "ssh" && !hasPassword {
			return remote
		}
		u.User = nil
		return u.String()
	}
	// Not a URL to Go, still one to git: cut by hand rather than let a token pass.
	authority, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndex(authority, "@"); at >= 0 {
		rest = authority[at+1:] + "/" + path
	}
	return scheme + "://" + rest
}
