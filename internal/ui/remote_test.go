package ui

import (
	"testing"
)

func TestCommitLinks(t *testing.T) {
	const sha = "1ea02a6664aaf4872b49b3bb8d99d556c07d2a54"
	for _, c := range []struct{ remote, name, link string }{
		{"https://github.com/acme/shop.git", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
		{"https://github.com/acme/shop", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
		{"https://ci-token:s3cr3t@github.com/acme/shop.git", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
		{"https://s3cr3t@github.com/acme/shop/", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
		{"https://github.com/acme/shop.git?token=s3cr3t#s3cr3t", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
		{"git@github.com:acme/shop.git", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
		{"ssh://git@github.com:22/acme/shop.git", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
		{"git://github.com/acme/shop.git", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
		{"git@gitlab.com:acme/web/shop.git", "gitlab.com/acme/web/shop", "https://gitlab.com/acme/web/shop/-/commit/" + sha},
		{"http://gitlab.example.test:8080/acme/shop.git", "gitlab.example.test:8080/acme/shop", "http://gitlab.example.test:8080/acme/shop/-/commit/" + sha},
		{"git@bitbucket.org:acme/shop.git", "bitbucket.org/acme/shop", "https://bitbucket.org/acme/shop/commits/" + sha},
		{"git@example.test:acme/shop.git", "example.test/acme/shop", ""},
		{"oauth2:s3cr3t@gitlab.com:acme/shop.git", "gitlab.com/acme/shop", "https://gitlab.com/acme/shop/-/commit/" + sha},
		// Not understood, so neither shown nor linked.
		{"", "", ""},
		{"javascript:alert(1)", "", ""},
		{"javascript://github.com/acme/shop", "", ""},
		{"data:text/html,x", "", ""},
		{"/srv/git/shop.git", "", ""},
		{"file:///srv/git/shop.git", "", ""},
		{"https://github.com/acme/../../x", "", ""},
		{"https://github.com/acme/shop\"><script>", "", ""},
		{"git@github.com:../acme/shop", "", ""},
		{"git@git hub.com:acme/shop", "", ""},
		{"https://user:pa%zz@github.com/acme/shop", "github.com/acme/shop", "https://github.com/acme/shop/commit/" + sha},
	} {
		r, ok := parseRemote(c.remote)
		if ok != (c.name != "") {
			t.Errorf("%q: understood %v", c.remote, ok)
			continue
		}
		if ok && (r.String() != c.name || r.commitURL(sha) != c.link) {
			t.Errorf("%q: %s, %s; want %s, %s", c.remote, r, r.commitURL(sha), c.name, c.link)
		}
	}
	r, _ := parseRemote("git@github.com:acme/shop.git")
	for _, no := range []string{"", "HEAD", "1ea02", sha + "/../..", "javascript:"} {
		if link := r.commitURL(no); link != "" {
			t.Errorf("commit %q: %s", no, link)
		}
	}
}
