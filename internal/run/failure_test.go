package run_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"runbell/internal/run"
)

func TestHeadline(t *testing.T) {
	for in, want := range map[string]string{
		"Error: Webpack Compilation Error\n./cypress/e2e/a.cy.js\nModule not found: Error: Can't resolve './x'\n\nThis occurred while Cypress was compiling and bundling your test code. This is usually caused by:\n\n- A missing file or dependency": "Error: Webpack Compilation Error ./cypress/e2e/a.cy.js Module not found: Error: Can't resolve './x'",
		"":                        "",
		"just this":               "just this",
		"first\nsecond":           "first",
		"\x1b[31mTypeError: x":    "TypeError: x",
		"We failed to do it:\n\n": "We failed to do it",
		"It ends here:\n    at Object.eq (a.js:1:2)": "It ends here",
		"Oops...we found an error preparing this test file:\n\n  > \x1b[34mcypress/e2e/e.cy.js\x1b[39m\n\nThe error was:\n\n  throw err;\n  ^\n\nError: Cannot find module './x'\nRequire stack:\n- /e.cy.js":                                       "Error: Cannot find module './x'",
		"CypressError: `cy.visit()` failed trying to load:\n\nhttps://shop.test/cart\n\nThe response we received from your web server was:\n\n  > 503: Service Unavailable\n\nThis was considered a failure because the status code was not `2xx`.": "CypressError: `cy.visit()` failed trying to load: https://shop.test/cart The response we received from your web server was: 503: Service Unavailable",
		"Error: all of these are missing:\n- a:\n- b:\n- c:\n- d:\n- e:\n- f:\n- g:": "Error: all of these are missing: - a: - b: - c: - d: - e",
		strings.Repeat("é", 200): strings.Repeat("é", 150) + "…",
	} {
		if got := run.Headline(in); got != want {
			t.Errorf("Headline(%q)\n got %q\nwant %q", in, got, want)
		}
	}
}

func TestTextAndTrace(t *testing.T) {
	for _, c := range []struct {
		failure     run.Failure
		text, trace string
	}{
		{run.Failure{}, "", ""},
		{run.Failure{Message: "flake"}, "flake", ""},
		{run.Failure{Name: "Error"}, "Error", ""},
		{run.Failure{Name: "Error", Message: "Error: flake"}, "Error: flake", ""},
		{run.Failure{Name: "Error", Message: "\x1b[31mflake\x1b[0m", Stack: "Error: flake\n    at x (y.js:1:2)"}, "Error: \x1b[31mflake\x1b[0m", "\n    at x (y.js:1:2)"},
		{run.Failure{Message: "flake", Stack: "flake\n    at x"}, "flake", "\n    at x"},
		{run.ParseFailure("Error: flake\nmore\n    at x\n    at y"), "Error: flake\nmore", "    at x\n    at y"},
		{run.ParseFailure("no stack at all"), "no stack at all", ""},
	} {
		if text, trace := c.failure.Text(), c.failure.Trace(); text != c.text || trace != c.trace {
			t.Errorf("%+v: %q and %q, want %q and %q", c.failure, text, trace, c.text, c.trace)
		}
	}
}

func TestPosition(t *testing.T) {
	for want, f := range map[string]run.Frame{"": {}, "a.js": {File: "a.js", Column: 3}, "a.js:2": {File: "a.js", Line: 2}, "a.js:2:3": {File: "a.js", Line: 2, Column: 3}} {
		if got := f.Position(); got != want {
			t.Errorf("%+v is at %q, want %q", f, got, want)
		}
	}
}

func TestFailureOfATest(t *testing.T) {
	first, last := &run.Failure{Message: "first"}, &run.Failure{Message: "last"}
	failed := run.Test{Result: run.Result{State: run.Failed, Attempts: []run.Attempt{{Error: first}, {Error: last}, {}}}}
	if f, ok := failed.Failure(); !ok || f.Message != "last" {
		t.Errorf("%+v, %v", f, ok)
	}
	shown := run.Test{Result: run.Result{State: run.Failed, Error: "shown\n    at x"}}
	if f, ok := shown.Failure(); !ok || f.Message != "shown" {
		t.Errorf("%+v, %v", f, ok)
	}
	if f, ok := (run.Test{}).Failure(); ok {
		t.Errorf("a test that passed failed with %+v", f)
	}
	for exception, want := range map[string]bool{"": false, "it is the \x1b[31mlast\x1b[0m straw": true, "something else": false} {
		if got := failed.Repeats(exception); got != want {
			t.Errorf("repeats %q: %v", exception, got)
		}
	}
}

func TestSignature(t *testing.T) {
	of := run.Signature("shop", "a.cy.js", []string{"cart", "adds"})
	if want := "af77bd94f23ca229b6822d0fc9104d7c"; of != want {
		t.Errorf("the signature is %q, want %q: stored ones would match no test any more", of, want)
	}
	if again := run.Signature("shop", "a.cy.js", []string{"cart", "adds"}); again != of {
		t.Errorf("%s and %s", of, again)
	}
	seen := map[string]string{of: "the test"}
	for name, other := range map[string]string{
		"another project": run.Signature("shop2", "a.cy.js", []string{"cart", "adds"}),
		"another spec":    run.Signature("shop", "b.cy.js", []string{"cart", "adds"}),
		"another title":   run.Signature("shop", "a.cy.js", []string{"cart", "adds two"}),
		"a deeper suite":  run.Signature("shop", "a.cy.js", []string{"shop", "cart", "adds"}),
		"joined titles":   run.Signature("shop", "a.cy.js", []string{"cartadds"}),
		"shifted parts":   run.Signature("shopa", ".cy.js", []string{"cart", "adds"}),
		"no title":        run.Signature("shop", "a.cy.js", nil),
	} {
		if who, twice := seen[other]; twice {
			t.Errorf("%s has the signature of %s", name, who)
		}
		seen[other] = name
	}
}

// TestErrorsOfOneKind: the errors of a row have one fingerprint, and no two rows share one.
func TestErrorsOfOneKind(t *testing.T) {
	kinds := map[string]string{}
	for _, kind := range [][]string{
		{"AssertionError: Timed out retrying after 4000ms: Expected to find element: `.order`, but never found it.",
			"AssertionError: Timed out retrying after 10000ms: Expected to find element: `.order`, but never found it.\n    at x (y.js:1:2)",
			"\x1b[31mAssertionError: Timed out retrying after 4.5 s: Expected to find element: `.order`, but never found it.\x1b[0m"},
		{"AssertionError: Timed out retrying after 4000ms: Expected to find element: `.cart`, but never found it."},
		{"expected 'blue' to equal 'green'", `expected "it's red" to equal ""`, "expected 'it's one' to equal 'it isn't'"},
		{"expected 'blue' to contain 'green'"},
		{"expected 3 to equal 4", "expected 1,203.5 to equal 17"},
		{"User 018f3a4e-7c1b-7d6e-9f00-0123456789ab is gone", "User 9f86d081884c7d659a2feaa0c55ad015 is gone", "User 0xDEADbeef is gone"},
		{"ENOENT: no such file or directory, open /builds/acme/shop/a.json", "ENOENT: no such file or directory, open /home/runner/shop/b.json", `ENOENT: no such file or directory, open C:\agent\_work\b.json`},
		{"Session ended at 2026-01-02T03:04:05.678Z", "Session ended at 2027-11-12 13:14:15", "Session ended at 9:05 PM"},
		{"CypressError: `cy.visit()` failed trying to load:\n\nhttps://a.test/x?y=1\n\nThe response we received from your web server was:\n\n  > 503: Service Unavailable",
			"CypressError: `cy.visit()` failed trying to load:\n\nhttp://b.test:8080/\n\nThe response we received from your web server was:\n\n  > 503: Service Unavailable"},
		{"CypressError: `cy.visit()` failed trying to load:\n\nhttps://a.test/x?y=1\n\nThe response we received from your web server was:\n\n  > 404: Not Found"},
		{"can't read it", "can't  read\tit"},
		{"cannot read it"},
		{"TypeError: Cannot read properties of undefined (reading 'id')", "TypeError: Cannot read properties of undefined (reading 'name')"},
	} {
		first := run.Fingerprint(kind[0])
		if len(first) != 32 {
			t.Errorf("%q has the fingerprint %q", kind[0], first)
		}
		for _, other := range kind[1:] {
			if got := run.Fingerprint(other); got != first {
				t.Errorf("two kinds:\n%q\n%q", kind[0], other)
			}
		}
		if twin, taken := kinds[first]; taken {
			t.Errorf("one kind:\n%q\n%q", twin, kind[0])
		}
		kinds[first] = kind[0]
	}
	if got := run.Fingerprint(" \n\t"); got != "" {
		t.Errorf("nothing has the fingerprint %q", got)
	}
}

// TestValuesDoNotCount: whatever stands where a value stands, the fingerprint is the same.
func TestValuesDoNotCount(t *testing.T) {
	values := map[string]*rapid.Generator[string]{
		"%n":  rapid.Map(rapid.IntRange(0, 9_999_999), func(n int) string { return fmt.Sprint(n) }),
		"%d":  rapid.Map(rapid.IntRange(0, 99_999), func(n int) string { return fmt.Sprintf("%dms", n) }),
		"%id": rapid.StringMatching(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`),
		"%u":  rapid.StringMatching(`https?://[a-z]{1,9}\.test(:[0-9]{2,4})?/[a-z0-9/]{0,20}`),
		"%p":  rapid.StringMatching(`/[a-z0-9_]{1,9}/[a-z0-9_]{1,9}/[a-z0-9_]{1,9}\.js`),
		"%q":  rapid.StringMatching(`'[A-Za-z0-9 :/.,-]{0,20}'`),
	}
	words := rapid.SampledFrom([]string{"expected", "to", "equal", "after", "load", "the", "user", "of", "`cy.get()`"})
	rapid.Check(t, func(t *rapid.T) {
		var one, other []string
		for range rapid.IntRange(1, 12).Draw(t, "length") {
			word := words.Draw(t, "word")
			one, other = append(one, word), append(other, word)
			if kind := rapid.SampledFrom([]string{"", "%n", "%d", "%id", "%u", "%p", "%q"}).Draw(t, "kind"); kind != "" {
				one, other = append(one, values[kind].Draw(t, "value")), append(other, values[kind].Draw(t, "value"))
			}
		}
		a, b := strings.Join(one, " "), strings.Join(other, " ")
		if run.Fingerprint(a) != run.Fingerprint(b) {
			t.Errorf("two kinds:\n%s\n%s", a, b)
		}
		if run.Fingerprint(a) == run.Fingerprint(a+" except") {
			t.Errorf("another word changes nothing: %s", a)
		}
	})
}

func FuzzFingerprint(f *testing.F) {
	f.Add("expected 'a' to equal `b`", "https://x.test/ 12ms")
	f.Fuzz(func(t *testing.T, a, b string) {
		if got := run.Headline(a); len(got) > run.MaxHeadline+len("…") || strings.Contains(got, "\n") {
			t.Errorf("the headline of %q is %q", a, got)
		}
		if got := run.Fingerprint(a); got != "" && len(got) != 32 || got != run.Fingerprint(a) {
			t.Errorf("the fingerprint of %q is %q", a, got)
		}
		if run.Signature("p", a, []string{b}) == run.Signature("p", b, []string{a}) && a != b {
			t.Errorf("%q and %q have one signature", a, b)
		}
	})
}
