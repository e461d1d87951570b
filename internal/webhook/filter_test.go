package webhook_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

func TestMatchBranch(t *testing.T) {
	for _, c := range []struct {
		globs, branch string // globs with spaces between
		want          bool
	}{
		{"", "main", true},
		{"", "", true},
		{"main", "main", true},
		{"main", "Main", false},
		{"main", "main2", false},
		{"main", "", false},
		{"*", "", true},
		{"*", "a/b", true},
		{"release/*", "release/1", true},
		{"release/*", "release/1/2", true},
		{"release/*", "release/", true},
		{"release/*", "release", false},
		{"release/*", "my/release/1", false},
		{"*/fix", "a/b/fix", true},
		{"*/fix", "fix", false},
		{"a*b*c", "abc", true},
		{"a*b*c", "axbxbxc", true},
		{"a*b*c", "axbxcx", false},
		{"a**c", "ac", true},
		{"v?", "v1", true},
		{"v?", "v", false},
		{"v?", "vä", true},
		{"v?", "v12", false},
		{"v?.*", "v1.2", true},
		{"main dev", "dev", true},
		{"main dev", "other", false},
		{"!dependabot/*", "main", true},
		{"!dependabot/*", "", true},
		{"!dependabot/*", "dependabot/npm/x", false},
		{"!dependabot/* !dev", "dev", false},
		{"!dependabot/* !dev", "main", true},
		{"main !main", "main", false},
		{"!main *", "main", false},
		{"* !release/* ", "release/1", false},
		{"* !release/*", "dev", true},
		{"release/* !release/old", "dev", false},
		{"!!x", "!x", false}, // one ! excludes, the next is the branch's
		{"!!x", "x", true},
		{"[a-z]", "a", false}, // no classes
		{"[a-z]", "[a-z]", true},
		{`\*`, `\x`, true}, // no escapes
		{"日*語", "日本語", true},
	} {
		if got := webhook.MatchBranch(strings.Fields(c.globs), c.branch); got != c.want {
			t.Errorf("%q and branch %q: %v, want %v", c.globs, c.branch, got, c.want)
		}
	}
}

// A glob of many stars must not take long.
func TestGlobsAreQuick(t *testing.T) {
	began := time.Now()
	if webhook.MatchBranch([]string{strings.Repeat("a*", 120) + "b"}, strings.Repeat("a", 1000)) {
		t.Error("it matches")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

// simple is what a glob means, in as many words.
func simple(p, s []rune) bool {
	switch {
	case len(p) == 0:
		return len(s) == 0
	case p[0] == '*':
		return simple(p[1:], s) || len(s) > 0 && simple(p, s[1:])
	default:
		return len(s) > 0 && (p[0] == '?' || p[0] == s[0]) && simple(p[1:], s[1:])
	}
}

func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{{"release/*", "release/1"}, {"a*b?c", "axxbyc"}, {"**", ""}, {"*a*", "bab"}, {"?", "ä"}, {"\xff*", "\xffx"}, {"*ab", "aab"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		// The reference takes exponential time.
		if strings.HasPrefix(pattern, "!") || strings.Count(pattern, "*") > 6 || len(pattern) > 30 || len(s) > 30 {
			return
		}
		if got, want := webhook.MatchBranch([]string{pattern}, s), simple([]rune(pattern), []rune(s)); got != want {
			t.Errorf("%q and %q: %v, want %v", pattern, s, got, want)
		}
		if excluded := webhook.MatchBranch([]string{"!" + pattern}, s); excluded == simple([]rune(pattern), []rune(s)) {
			t.Errorf("%q excludes %q: %v", "!"+pattern, s, !excluded)
		}
	})
}

func TestResultsOf(t *testing.T) {
	green, red, skipped, flaky := run.Counts{Passes: 3, Pending: 1}, run.Counts{Passes: 3, Failures: 1}, run.Counts{Skipped: 1}, run.Counts{Passes: 3, Flaky: 1}
	flakyRed := red.Plus(flaky)
	for _, c := range []struct {
		name         string
		state        run.State
		counts       run.Counts
		failedBefore bool
		want         []webhook.Result
	}{
		{"a start", run.Running, green, true, nil},
		{"passed", run.Finished, green, false, []webhook.Result{webhook.Passed}},
		{"no tests", run.Finished, run.Counts{}, true, nil},
		{"no tests, all filtered away", run.Finished, run.Counts{Pending: 7}, true, nil},
		{"recovered", run.Finished, green, true, []webhook.Result{webhook.Passed, webhook.Recovered}},
		{"failed", run.Finished, red, false, []webhook.Result{webhook.FailedResult}},
		{"failed again", run.Finished, red, true, []webhook.Result{webhook.FailedResult}},
		{"skipped", run.Finished, skipped, false, []webhook.Result{webhook.FailedResult}},
		{"flaky", run.Finished, flaky, false, []webhook.Result{webhook.Passed, webhook.Flaky}},
		{"flaky and recovered", run.Finished, flaky, true, []webhook.Result{webhook.Passed, webhook.Flaky, webhook.Recovered}},
		{"flaky and failed", run.Finished, flakyRed, false, []webhook.Result{webhook.FailedResult, webhook.Flaky}},
		{"timed out", run.TimedOut, green, true, []webhook.Result{webhook.FailedResult}},
		{"timed out, flaky", run.TimedOut, flaky, false, []webhook.Result{webhook.FailedResult, webhook.Flaky}},
		{"canceled", run.Canceled, green, true, nil},
		{"canceled with failures", run.Canceled, red, false, []webhook.Result{webhook.FailedResult}},
		{"canceled, flaky", run.Canceled, flaky, false, []webhook.Result{webhook.Flaky}},
	} {
		got, err := webhook.WithRecovered(webhook.ResultsOf(c.state, c.counts), func() (bool, error) { return c.failedBefore, nil })
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestFilters(t *testing.T) {
	facts := webhook.Subject{Branch: "main", Tags: []string{"smoke", "nightly"}, Results: []webhook.Result{webhook.Passed, webhook.Flaky}}
	for name, c := range map[string]struct {
		filters webhook.Filters
		facts   webhook.Subject
		want    bool
	}{
		"none":                  {webhook.Filters{}, facts, true},
		"none, of nothing":      {webhook.Filters{}, webhook.Subject{}, true},
		"any result":            {webhook.Filters{Result: webhook.AnyResult}, webhook.Subject{}, true},
		"a branch":              {webhook.Filters{Branches: []string{"ma*"}}, facts, true},
		"another branch":        {webhook.Filters{Branches: []string{"dev"}}, facts, false},
		"a branch of none":      {webhook.Filters{Branches: []string{"main"}}, webhook.Subject{}, false},
		"one of its tags":       {webhook.Filters{Tags: []string{"x", "nightly"}}, facts, true},
		"part of a tag":         {webhook.Filters{Tags: []string{"night", "*"}}, facts, false},
		"a tag of none":         {webhook.Filters{Tags: []string{"x"}}, webhook.Subject{}, false},
		"passed":                {webhook.Filters{Result: webhook.Passed}, facts, true},
		"flaky":                 {webhook.Filters{Result: webhook.Flaky}, facts, true},
		"failed":                {webhook.Filters{Result: webhook.FailedResult}, facts, false},
		"recovered":             {webhook.Filters{Result: webhook.Recovered}, facts, false},
		"passed, of a start":    {webhook.Filters{Result: webhook.Passed}, webhook.Subject{Branch: "main"}, false},
		"all of them":           {webhook.Filters{Branches: []string{"main"}, Tags: []string{"smoke"}, Result: webhook.Passed}, facts, true},
		"all but one, a branch": {webhook.Filters{Branches: []string{"!main"}, Tags: []string{"smoke"}, Result: webhook.Passed}, facts, false},
		"all but one, a tag":    {webhook.Filters{Branches: []string{"main"}, Tags: []string{"x"}, Result: webhook.Passed}, facts, false},
		"all but one, a result": {webhook.Filters{Branches: []string{"main"}, Tags: []string{"smoke"}, Result: webhook.Recovered}, facts, false},
	} {
		if got := c.filters.Match(c.facts); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
