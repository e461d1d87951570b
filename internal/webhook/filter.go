package webhook

import (
	"slices"
	"strings"

	"runbell/internal/run"
)

// Result is what a run or group came to. An event can have several: a run that
// passed can be flaky, and recovered.
type Result string

// The results that an endpoint can ask for.
const (
	// AnyResult takes every event, also a start, which has no result yet.
	AnyResult Result = "any"
	// Passed: finished, with nothing failed and nothing left out by a failure. A run
	// in which no test ran has neither passed nor failed.
	Passed Result = "passed"
	// FailedResult: finished otherwise, timed out, or canceled with failures.
	FailedResult Result = "failed"
	// Flaky: over, with a test that passed only at a later attempt.
	Flaky Result = "flaky"
	// Recovered: passed, and the last finished run of the branch had failed.
	Recovered Result = "recovered"
)

// Results lists the results that an endpoint can ask for.
func Results() []Result { return []Result{AnyResult, Passed, FailedResult, Flaky, Recovered} }

// Filters narrow what an endpoint hears. The zero value lets all through.
type Filters struct {
	Branches []string // globs, see [MatchBranch]; none is every branch
	Tags     []string // the run has at least one of them; none is every run
	Result   Result   // "" is AnyResult
}

// Subject is what filters look at.
type Subject struct {
	Branch  string
	Tags    []string
	Results []Result
}

// ResultsOf says what a run or group that arrived in a state came to, but for [Recovered].
func ResultsOf(s run.State, c run.Counts) []Result {
	var out []Result
	switch {
	case !s.Terminal():
		return nil
	case s == run.Finished && c.Green() && !c.Ran():
	case s == run.Finished && c.Green():
		out = append(out, Passed)
	case s != run.Canceled || !c.Green():
		out = append(out, FailedResult)
	}
	if c.Flaky > 0 {
		out = append(out, Flaky)
	}
	return out
}

// Match says whether the filters let an event about this subject through.
func (f Filters) Match(subject Subject) bool {
	if !MatchBranch(f.Branches, subject.Branch) {
		return false
	}
	if len(f.Tags) > 0 && !slices.ContainsFunc(f.Tags, func(t string) bool { return slices.Contains(subject.Tags, t) }) {
		return false
	}
	return f.Result == "" || f.Result == AnyResult || slices.Contains(subject.Results, f.Result)
}

// MatchBranch says whether a branch is meant by a list of globs: it matches one
// of them, or there are only exclusions, and it matches no exclusion. A * stands
// for any characters, slashes too, so that !dependabot/* means all of them; ? is
// one character; a ! in front excludes. The order does not matter.
func MatchBranch(globs []string, branch string) bool {
	wanted, asked := false, false
	for _, g := range globs {
		if excluded, ok := strings.CutPrefix(g, "!"); ok {
			if glob(excluded, branch) {
				return false
			}
			continue
		}
		asked = true
		wanted = wanted || glob(g, branch)
	}
	return wanted || !asked
}

// glob matches without recursion: a star that turns out too short is extended
// by one character, and only the last star ever needs to be.
func glob(pattern, s string) bool {
	p, text := []rune(pattern), []rune(s)
	star, resume := -1, 0
	i, j := 0, 0
	for j < len(text) {
		switch {
		case i < len(p) && p[i] == '*':
			star, resume = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == text[j]):
			i++
			j++
		case star >= 0:
			resume++
			i, j = star+1, resume
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
