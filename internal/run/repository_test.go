package run_test

import (
	"strings"
	"testing"

	"runbell/internal/run"
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
		r, ok := run.ParseRemote(c.remote)
		if ok != (c.name != "") {
			t.Errorf("%q: understood %v", c.remote, ok)
			continue
		}
		if ok && (r.String() != c.name || r.CommitURL(sha) != c.link) {
			t.Errorf("%q: %s, %s; want %s, %s", c.remote, r, r.CommitURL(sha), c.name, c.link)
		}
	}
	r, _ := run.ParseRemote("git@github.com:acme/shop.git")
	for _, no := range []string{"", "HEAD", "1ea02", sha + "/../..", "javascript:"} {
		if link := r.CommitURL(no); link != "" {
			t.Errorf("commit %q: %s", no, link)
		}
	}
}

func TestLinks(t *testing.T) {
	const sha = "1ea02a6664aaf4872b49b3bb8d99d556c07d2a54"
	remotes := map[string]run.Repository{}
	for _, remote := range []string{"https://github.com/acme/shop", "git@gitlab.com:acme/shop.git", "git@bitbucket.org:acme/shop.git", "https://git.example.test/acme/shop"} {
		r, _ := run.ParseRemote(remote)
		name, _, _ := strings.Cut(r.String(), ".")
		remotes[name] = r
	}
	for _, c := range []struct {
		site, file string
		line       int
		want       string
	}{
		{"github", "cypress/e2e/a b.cy.ts", 41, "https://github.com/acme/shop/blob/" + sha + "/cypress/e2e/a%20b.cy.ts#L41"},
		{"gitlab", "a.cy.ts", 1, "https://gitlab.com/acme/shop/-/blob/" + sha + "/a.cy.ts#L1"},
		{"bitbucket", "a.cy.ts", 1, "https://bitbucket.org/acme/shop/src/" + sha + "/a.cy.ts#lines-1"},
		{"git", "a.cy.ts", 1, ""},
		{"github", "a.cy.ts", 0, ""},
		{"github", "/builds/acme/a.cy.ts", 1, ""},
		{"github", "../a.cy.ts", 1, ""},
		{"github", `C:\a.cy.ts`, 1, ""},
		{"github", "webpack:///./a.cy.ts", 1, ""},
	} {
		if got := remotes[c.site].LineURL(sha, c.file, c.line); got != c.want {
			t.Errorf("%s %s:%d is at %q, want %q", c.site, c.file, c.line, got, c.want)
		}
	}
	if got := remotes["github"].LineURL("main", "a.cy.ts", 1); got != "" {
		t.Errorf("a line at no commit is at %q", got)
	}
}
