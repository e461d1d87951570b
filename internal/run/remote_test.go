package run_test

import (
	"net/url"
	"strings"
	"testing"

	"runbell/internal/run"
)

func TestWithoutCredentials(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"https://github.com/org/repo.git": "https://github.com/org/repo.git",
		"https://x-access-token:ghs_secret@github.com/org/repo": "https://github.com/org/repo",
		"https://ghp_secret@github.com/org/repo.git":            "https://github.com/org/repo.git",
		"https://oauth2:secret@gitlab.example.com:8443/a/b.git": "https://gitlab.example.com:8443/a/b.git",
		"http://u:secret@host/r":                                "http://host/r",
		"HTTPS://u:secret@host/r":                               "https://host/r",
		"https://:secret@host/r":                                "https://host/r",
		"https://u:secret@[2001:db8::1]:8443/r":                 "https://[2001:db8::1]:8443/r",
		"https://u:s%40cret@host/r":                             "https://host/r",
		"https://u:secret@host/a%20b?x=1#y":                     "https://host/a%20b?x=1#y",
		"https://host/a@b/c":                                    "https://host/a@b/c", // no user: the path may say what it likes
		"https://secret@host":                                   "https://host",
		"git://secret@host/r":                                   "git://host/r",
		"ftp://u:secret@host/r":                                 "ftp://host/r",
		"ssh://git@github.com/org/repo.git":                     "ssh://git@github.com/org/repo.git",
		"SSH://git@github.com/org/repo.git":                     "SSH://git@github.com/org/repo.git",
		"ssh://git:secret@host:22/r":                            "ssh://host:22/r",
		"ssh://host/r":                                          "ssh://host/r",
		"git@github.com:org/repo.git":                           "git@github.com:org/repo.git",
		"github.com:org/repo.git":                               "github.com:org/repo.git",
		"/srv/git/repo.git":                                     "/srv/git/repo.git",
		"../repo":                                               "../repo",
		"file:///srv/git/repo.git":                              "file:///srv/git/repo.git",
		"C:\\git\\repo":                                         "C:\\git\\repo",
		// Not URLs to Go, but git would send what stands there.
		"https://u:sec%ret@host/r":         "https://host/r",
		"https://u:sec ret@host/r":         "https://host/r",
		" https://u:secret@host/r":         " https://host/r",
		"https://u:secret@ho st/r":         "https://ho st/r",
		"https://u:secret@host:port/r":     "https://host:port/r",
		"https://u:sec%zz@host":            "https://host",
		"https://u:se/cret@host/r":         "https://host/r",
		"https://u:secret@host/r\n":        "https://host/r\n",
		"https://u:sec@ret@host/r":         "https://host/r",
		"ext::https://u:secret@host/r":     "ext::https://host/r", // a remote helper's address
		"hg::https://u:secret@host/r":      "hg::https://host/r",
		"hg::ssh://git:secret@host/r":      "hg::ssh://host/r",
		"https://user%00:secret@host/\x00": "https://host/\x00",
	} {
		got := run.WithoutCredentials(in)
		if got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
		if strings.Contains(got, "secret") {
			t.Errorf("%q still has the secret: %q", in, got)
		}
	}
}

// FuzzRemote looks for a remote that keeps a password, changes when it is
// cleaned again, or panics.
func FuzzRemote(f *testing.F) {
	for _, s := range []string{"https://u:p@host/r", "ssh://git@host/x", "git@host:x", "https://u:%@host", "x::y://u:p@h", "://@", "a://b@c@d/e@f", "ssh://a:b@%", "http://@/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := run.WithoutCredentials(in)
		if again := run.WithoutCredentials(got); again != got {
			t.Errorf("%q became %q, and then %q", in, got, again)
		}
		if scheme, _, ok := strings.Cut(in, "://"); !ok || strings.Contains(scheme, "/") {
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.User == nil {
			return
		}
		if _, has := u.User.Password(); has || u.Scheme != "ssh" {
			t.Errorf("%q became %q, with credentials", in, got)
		}
	})
}
