package ui

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
)

// changesShown is how many tests of each list of a comparison a page names.
const changesShown = 20

// comparison is what a run changed since earlier ones.
type comparison struct {
	// Counting means that some results of the run are not in the history yet.
	Counting bool
	With     []comparedTo
}

// comparedTo is what changed since the last run of a branch that finished before.
type comparedTo struct {
	ID     string // anchor
	Branch string
	Own    bool // it is the branch of the run
	// Run is the build of the earlier run. Only readers who have signed in get a link, because anyone with the link of
	// a public run can see it.
	Run, RunURL string
	At          time.Time
	Lists       []changedList
}

// changedList is the tests that changed in one way.
type changedList struct {
	ID, Word string
	Tone     tone
	N        int
	Tests    []changedTest
	More     int
}

// changedTest is a test that changed.
type changedTest struct {
	testName
	Since       time.Time // of a test that still fails; the run it began with
	SinceURL    string
	Before, Now time.Duration // of a test that is slower
}

// knownFailure is what other runs tell about a failed test.
type knownFailure struct {
	New bool
	// Since is when the test began to fail, in the run at SinceURL; zero if it did not
	// fail before.
	Since    time.Time
	SinceURL string
	On       string // the other branch on which it fails; "" for the branch of the run
	Flaky    bool
	URL      string // of its history
}

// branchesOf are the branches that a run is compared with: its own, and the default branch.
func branchesOf(project run.Project, r run.Run) []string {
	if r.Commit.Branch == "" {
		return nil
	}
	branches := []string{r.Commit.Branch}
	if main := history.MainBranch(project.DefaultBranch, r.Commit); main != "" && main != r.Commit.Branch {
		branches = append(branches, main)
	}
	return branches
}

// comparisonTag changes when the comparison of a run does.
func comparisonTag(ctx context.Context, tx *store.Tx, project run.Project, r run.Run) (string, error) {
	complete, err := tx.HistoryComplete(ctx, r.ID)
	tag := fmt.Sprint(complete)
	for _, branch := range branchesOf(project, r) {
		before, errBefore := tx.FinishedBefore(ctx, r, branch, history.LookBack)
		if errBefore != nil {
			return "", errBefore
		}
		for _, b := range before {
			tag += " " + b.ID
		}
	}
	return tag, err
}

// compared compares the run of a page with earlier ones, and adds what they tell about its failures.
func (u *ui) compared(req *request, tx *store.Tx, at runState, failures []*failureGroup) (comparison, error) {
	ctx, r := req.Context(), at.run
	complete, err := tx.HistoryComplete(ctx, r.ID)
	if err != nil {
		return comparison{}, err
	}
	out := comparison{Counting: !complete}
	branches := branchesOf(at.project, r)
	all, err := history.CompareRunWith(ctx, tx, r, branches)
	if err != nil {
		return out, err
	}
	for n, c := range all {
		if c.With != nil {
			out.With = append(out.With, u.comparedTo(req, at.project, c, n))
		}
	}
	var failed []*failedTest
	for _, kind := range failures {
		failed = append(failed, kind.Tests...)
	}
	return out, u.addKnown(req, tx, at, all, branches, failed)
}

// addKnown marks failed tests as new, known or flaky.
func (u *ui) addKnown(req *request, tx *store.Tx, at runState, compared []history.RunComparison, branches []string,
	failed []*failedTest) error {
	ctx, r := req.Context(), at.run
	if len(failed) == 0 {
		return nil
	}
	signatures := make([]string, len(failed))
	for n, t := range failed {
		signatures[n] = t.Signature
	}
	numbers, err := tx.HistoryNumbers(ctx, r.ProjectID, store.TestName, signatures)
	if err != nil {
		return err
	}
	tests := make([]int, 0, len(numbers))
	for _, n := range numbers {
		tests = append(tests, n)
	}
	healths, err := history.HealthsBefore(ctx, tx, r, branches, tests)
	if err != nil {
		return err
	}
	news, since := map[int]bool{}, map[int]knownFailure{}
	for _, c := range compared {
		for _, change := range c.NewlyFailing {
			news[change.Test] = true
		}
		for _, change := range c.StillFailing {
			if _, known := since[change.Test]; known {
				continue
			}
			k := knownFailure{Since: change.Since.CreatedAt, SinceURL: u.linkFor(req, change.Since.ID)}
			if c.Branch != r.Commit.Branch {
				k.On = c.Branch
			}
			since[change.Test] = k
		}
	}
	for _, t := range failed {
		number := numbers[t.Signature]
		if number == 0 {
			continue // a crashed spec, or a test that is not in the history yet
		}
		known := since[number]
		known.New = known.Since.IsZero() && news[number]
		known.Flaky = healths[number] == history.Flaky
		if req.signedIn() {
			known.URL = u.projectURL(r.ProjectID, "/tests/"+t.Signature)
		}
		t.Known = &known
	}
	return nil
}

// linkFor is the address of another run, for readers who may see all runs.
func (u *ui) linkFor(req *request, runID string) string {
	if !req.signedIn() {
		return ""
	}
	return u.runURL(runID)
}

func (u *ui) comparedTo(req *request, project run.Project, c history.RunComparison, n int) comparedTo {
	out := comparedTo{ID: fmt.Sprintf("compared-%d", n+1), Branch: run.Clip(c.Branch, 300), Own: n == 0,
		RunURL: u.linkFor(req, c.With.ID), At: c.With.CreatedAt}
	if req.signedIn() {
		out.Run = c.With.CIBuildID
	}
	for _, list := range []struct {
		word    string
		tone    tone
		changes []history.Change
	}{{"newly failing", toneFail, c.NewlyFailing}, {"still failing", toneFail, c.StillFailing},
		{"newly flaky", toneFlaky, c.NewlyFlaky}, {"fixed", tonePass, c.Fixed}, {"new", toneRun, c.NewTests},
		{"slower", toneWarn, c.Slower}} {
		if len(list.changes) == 0 {
			continue
		}
		v := changedList{ID: out.ID + "-" + strings.ReplaceAll(list.word, " ", "-"), Word: list.word, Tone: list.tone,
			N: len(list.changes), More: max(0, len(list.changes)-changesShown)}
		for _, change := range list.changes[:len(list.changes)-v.More] {
			v.Tests = append(v.Tests, u.changedTest(req, project, c.Names[change.Test], change))
		}
		out.Lists = append(out.Lists, v)
	}
	return out
}

func (u *ui) changedTest(req *request, project run.Project, d history.TestDescription,
	change history.Change) changedTest {
	t := changedTest{Before: change.Before, Now: change.Now}
	t.Path, t.Title = titleOf(d.Title)
	t.Spec = run.Clip(d.Spec, 500)
	if req.signedIn() {
		t.URL = u.projectURL(project.ID, "/tests/"+url.PathEscape(d.Signature))
	}
	if change.Since.ID != "" {
		t.Since, t.SinceURL = change.Since.CreatedAt, u.linkFor(req, change.Since.ID)
	}
	return t
}
