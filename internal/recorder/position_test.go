package recorder

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestFrameOf(t *testing.T) {
	const message = "AssertionError: expected 'blue' to equal 'green'\n"
	for name, c := range map[string]struct {
		text, below, file string
		line, column      int
	}{
		"a spec":                {message + "    at Context.eval (webpack://shop/./cypress/e2e/b.cy.js:6:89)", "", "cypress/e2e/b.cy.js", 6, 90},
		"a bundle without name": {message + "    at Context.eval (webpack:///./cypress/e2e/b.cy.js:6:0)", "", "cypress/e2e/b.cy.js", 6, 1},
		"a sub-directory":       {message + "    at Context.eval (webpack://shop/./cypress/e2e/b.cy.js:6:89)", "packages/web/", "packages/web/cypress/e2e/b.cy.js", 6, 90},
		"no function":           {message + "    at webpack://shop/./cypress/support/e2e.js:12:4", "", "cypress/support/e2e.js", 12, 5},
		"a name with signs":     {message + "    at Context.eval (webpack://shop/./cypress/e2e/a (b):c.cy.js:3:1)", "", "cypress/e2e/a (b):c.cy.js", 3, 2},
		"after a package":       {message + "    at f (webpack://shop/./node_modules/x/y.js:1:1)\n    at Context.eval (webpack://shop/./a.cy.js:2:0)", "", "a.cy.js", 2, 1},
		"only Cypress itself":   {message + "    at f (http://localhost:1234/__cypress/runner/cypress_runner.js:1:1)", "", "", 0, 0},
		"outside":               {message + "    at f (webpack://shop/./../other/x.js:1:1)", "packages/web/", "", 0, 0},
		"no stack":              {message, "", "", 0, 0},
		"a number that is none": {message + "    at f (webpack://shop/./a.js:99999999999999999999:1)", "", "", 0, 0},
	} {
		var want *wireFrame
		if c.file != "" {
			want = &wireFrame{c.line, c.column, c.file}
		}
		switch got := frameOf(c.text, c.below); {
		case (got == nil) != (want == nil):
			t.Errorf("%s: %+v, want %+v", name, got, want)
		case got != nil && *got != *want:
			t.Errorf("%s: %+v, want %+v", name, *got, *want)
		}
	}
}

func TestLocate(t *testing.T) {
	text := "Error: x\n    at Context.eval (webpack:///./a.cy.js:6:0)"
	r := report{Results: wireResults{Tests: []wireResult{{DisplayError: &text}, {}, {DisplayError: &text, Attempts: []wireAttempt{{Error: &wireError{}}}}}}}
	r.locate("web/")
	if f := r.Results.Tests[0].CodeFrame; f == nil || f.RelativeFile != "web/a.cy.js" {
		t.Errorf("an error without a frame is at %+v", f)
	}
	for _, n := range []int{1, 2} {
		if f := r.Results.Tests[n].CodeFrame; f != nil {
			t.Errorf("test %d has the frame %+v", n, f)
		}
	}
}

func TestBelowRoot(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "packages", "web")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := belowRoot(t.Context(), dir); got != "" {
		t.Errorf("without a repository: %q", got)
	}
	if out, err := exec.CommandContext(t.Context(), "git", "init", "-q", root).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := belowRoot(t.Context(), root); got != "" {
		t.Errorf("at the root: %q", got)
	}
	if got := belowRoot(t.Context(), dir); got != "packages/web/" {
		t.Errorf("in a sub-directory: %q", got)
	}
}
