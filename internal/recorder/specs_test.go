package recorder

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes files in a directory of their own.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		path := filepath.Join(root, filepath.FromSlash(f))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFindSpecs(t *testing.T) {
	root := tree(t, "cypress/e2e/b.cy.js", "cypress/e2e/a.cy.ts", "cypress/e2e/deep/er/c.cy.jsx", "cypress/e2e/x.hot-update.js", "cypress/e2e/helper.js",
		"cypress/e2e/[id].cy.js", "cypress/e2e/i.cy.js", "cypress/e2e/a,b.cy.js", "cypress/e2e/with space.cy.js", "cypress/e2e/.hidden.cy.js",
		"src/button.cy.tsx", "src/__snapshots__/button.cy.js", "node_modules/pkg/d.cy.js", ".next/e.cy.js", "tests/one.spec.js", "tests/two.wip.js")
	if err := os.Symlink(filepath.Join(root, "cypress"), filepath.Join(root, "cypress/e2e/deep/circle")); err != nil {
		t.Fatal(err)
	}
	e2e := []string{"cypress/e2e/[id].cy.js", "cypress/e2e/a,b.cy.js", "cypress/e2e/a.cy.ts", "cypress/e2e/b.cy.js", "cypress/e2e/deep/er/c.cy.jsx", "cypress/e2e/i.cy.js", "cypress/e2e/with space.cy.js"}
	for name, c := range map[string]struct {
		project patterns
		from    string // where the command is started
		only    []string
		want    []string
		err     string
	}{
		"the default":              {want: e2e},
		"component tests":          {project: patterns{Find: []string{"**/*.cy.{js,jsx,ts,tsx}"}, Exclude: []string{"**/__snapshots__/*"}, Ignored: []string{"cypress/e2e/**/*.cy.{js,jsx,ts,tsx}"}}, want: []string{"src/button.cy.tsx"}},
		"several patterns":         {project: patterns{Find: []string{"tests/*.spec.js", "src/**/*.tsx"}}, want: []string{"src/button.cy.tsx", "tests/one.spec.js"}},
		"one that takes away":      {project: patterns{Find: []string{"tests/*.js", "!tests/*.wip.js"}}, want: []string{"tests/one.spec.js"}},
		"excluded":                 {project: patterns{Exclude: []string{"**/b.cy.js", "**/*.jsx", "**/[[]id].cy.js"}}, want: []string{e2e[1], e2e[2], e2e[5], e2e[6]}},
		"excluded by a name":       {project: patterns{Exclude: []string{"b.cy.js"}}, want: e2e}, // Cypress does not look for it in directories
		"nothing excluded":         {project: patterns{Find: []string{"cypress/e2e/*.hot-update.js"}, Exclude: []string{}}, want: []string{"cypress/e2e/x.hot-update.js"}},
		"in packages, if asked":    {project: patterns{Find: []string{"node_modules/**/*.cy.js"}}, want: []string{"node_modules/pkg/d.cy.js"}},
		"hidden, if asked":         {project: patterns{Find: []string{".next/*.cy.js"}}, want: []string{".next/e.cy.js"}},
		"a path":                   {project: patterns{Find: []string{"./cypress/e2e/b.cy.js"}}, want: []string{"cypress/e2e/b.cy.js"}},
		"an absolute path":         {project: patterns{Find: []string{root + "/cypress/e2e/b.cy.js"}}, want: []string{"cypress/e2e/b.cy.js"}},
		"extended globs":           {project: patterns{Find: []string{"cypress/e2e/@(a|b).cy.?(js|ts)"}}, want: []string{"cypress/e2e/a.cy.ts", "cypress/e2e/b.cy.js"}},
		"only one":                 {only: []string{"cypress/e2e/b.cy.js"}, want: []string{"cypress/e2e/b.cy.js"}},
		"only globs":               {only: []string{"**/deep/**,cypress/e2e/{a,i}.cy.*"}, want: []string{"cypress/e2e/a.cy.ts", "cypress/e2e/deep/er/c.cy.jsx", "cypress/e2e/i.cy.js"}},
		"a name that is a pattern": {only: []string{"cypress/e2e/[id].cy.js"}, want: []string{"cypress/e2e/[id].cy.js"}},
		"a name with a comma":      {only: []string{"cypress/e2e/a,b.cy.js"}, want: []string{"cypress/e2e/a,b.cy.js"}},
		"a directory":              {only: []string{"cypress/e2e/deep"}, want: []string{"cypress/e2e/deep/er/c.cy.jsx"}},
		"directories":              {project: patterns{Find: []string{"./tests", "src/", "!src/__snapshots__"}}, want: []string{"src/button.cy.tsx", "tests/one.spec.js", "tests/two.wip.js"}},
		"from below":               {from: "cypress/e2e", only: []string{"b.cy.js"}, want: []string{"cypress/e2e/b.cy.js"}},
		"from below, but not":      {from: "cypress/e2e", only: []string{"*.cy.js", "!i.cy.js"}, want: []string{e2e[0], e2e[1], e2e[3], e2e[6]}},
		"from above":               {from: "..", only: []string{filepath.Base(root) + "/cypress/e2e/b.*", "elsewhere/**"}, want: []string{"cypress/e2e/b.cy.js"}},
		"but not":                  {only: []string{"cypress/e2e/*.cy.js", "!**/i.cy.js"}, want: []string{e2e[0], e2e[1], e2e[3], e2e[6]}},
		"outside of specPattern":   {only: []string{"tests/one.spec.js"}, err: "it chooses among those"},
		"nothing there":            {project: patterns{Find: []string{"nowhere/**/*.js"}}, err: `"nowhere/**/*.js"`},
		"above the project":        {project: patterns{Find: []string{"../" + filepath.Base(root) + "/tests/*.spec.js"}}, want: []string{"tests/one.spec.js"}},
		"not a pattern":            {project: patterns{Find: []string{"tests/{a"}}, err: "not a valid pattern"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.project.Find == nil { // Cypress' defaults
				c.project.Find = []string{"cypress/e2e/**/*.cy.{js,jsx,ts,tsx}"}
			}
			if c.project.Exclude == nil {
				c.project.Exclude = []string{"**/*.hot-update.js"}
			}
			got, err := findSpecs(root, c.project, filepath.Join(root, c.from), splitGlobs(c.only, root))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%q, %v; want an error with %q", got, err, c.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func FuzzSplitGlobs(f *testing.F) {
	for _, s := range []string{"a,b", "{a,b}.js,c", "[a,b]", "@(a|b),", ",,", "}{,", "(,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, pattern := range splitGlobs([]string{s}, "/does/not/exist") {
			if pattern == "" || !strings.Contains(s, pattern) {
				t.Errorf("%q gives %q", s, pattern)
			}
			if p, err := parseGlobs("/root", []string{pattern}); err == nil {
				matches(p.find, "cypress/e2e/a.cy.js")
			}
		}
	})
}

// TestUnderstood: what is not the same here as it is to Cypress is left to it.
func TestUnderstood(t *testing.T) {
	for pattern, want := range map[string]bool{
		"cypress/e2e/**/*.cy.{js,ts}": true, "../../e2e/**": true, "@(a|b)/?(c)d.js": true, "!**/*.skip.js": true, `\[id\].js`: true, "[a-c].js": true,
		"!(a|b).cy.js": false, "e2e/!(a).js": false, "+(a).js": false, "*(a).js": false, "{1..3}.js": false, "[[:alpha:]].js": false, "{a": false,
	} {
		if got := understood([]string{"**", pattern}); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}
