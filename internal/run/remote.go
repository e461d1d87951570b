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
	if !ok || strings.Contains(scheme, "/") { // a path
		return remote
	}
	u, err := url.Parse(remote)
	if err != nil || u.Opaque != "" {
		// Not such a URL to Go, still one to git, whose own forms (helper::url)
		// Go does not read. Rather cut too much than let a part of a token pass.
		return scheme + "://" + rest[strings.LastIndex(rest, "@")+1:]
	}
	if u.User == nil {
		return remote
	}
	if _, hasPassword := u.User.Password(); u.Scheme == "ssh" && !hasPassword {
		return remote
	}
	u.User = nil
	return u.String()
}
