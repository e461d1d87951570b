package app

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"runbell/internal/client"
)

type runCmd struct {
	remote

	List     runListCmd     `cmd:"" help:"List the runs of a project, newest first."`
	Show     runShowCmd     `cmd:"" help:"Show a run: what failed, then its groups and specs."`
	Failures runFailuresCmd `cmd:"" help:"Print the failures of a run, to paste into an issue or a chat."`
	Find     runFindCmd     `cmd:"" help:"Show the run of a build, or the latest finished one of a branch and tags."`
	Compare  runCompareCmd  `cmd:"" help:"Show what changed in a run: newly failing, fixed, flaky, new and slower tests."`
	Reset    runResetCmd    `cmd:"" help:"Run the specs that did not pass again, in a run that is still running."`
	Cancel   runCancelCmd   `cmd:"" help:"Cancel a run. This cannot be undone."`
	Pin      runPinCmd      `cmd:"" help:"Keep a run past its retention."`
	Unpin    runUnpinCmd    `cmd:"" help:"Unpin a run, so that its retention applies again."`
	Delete   runDeleteCmd   `cmd:"" help:"Delete a run with its artifacts. This cannot be undone."`
}

// outcome is the outcome of a run, in the word that pages use.
func outcome(r client.Run) string {
	switch {
	case r.CompletionState == "CANCELED":
		return "canceled"
	case r.CompletionState == "TIMEOUT":
		return "timed out"
	case r.Status == "FAILING":
		return "running, failing"
	case r.NoTests:
		return "no tests"
	default:
		return strings.ToLower(r.Status)
	}
}

func testsOf(r client.Run) client.TestCounts {
	var t client.TestCounts
	for _, g := range r.Groups {
		t = t.Plus(g.Tests)
	}
	return t
}

var testHeader = []string{"TESTS", "PASSED", "FAILED", "PENDING", "SKIPPED", "FLAKY"}

func testCells(t client.TestCounts) []string {
	var cells []string
	for _, n := range []int{t.Overall, t.Passes, t.Failures, t.Pending, t.Skipped, t.Flaky} {
		cells = append(cells, fmt.Sprint(n))
	}
	return cells
}

// statusFlag is a --status flag of runs, in any case.
type statusFlag []string

// statuses maps the outcomes that commands take to the words of the REST API.
var statuses = map[string]struct {
	status     []string
	completion string
}{
	"passed":    {[]string{"PASSED"}, "COMPLETE"},
	"failed":    {[]string{"FAILED"}, "COMPLETE"},
	"canceled":  {[]string{"FAILED"}, "CANCELED"},
	"timed-out": {[]string{"FAILED"}, "TIMEOUT"},
	"running":   {[]string{"RUNNING", "FAILING"}, "IN_PROGRESS"},
	"failing":   {[]string{"FAILING"}, "IN_PROGRESS"},
}

// spellings are other ways to write a status.
var spellings = map[string]string{"cancelled": "canceled", "timeout": "timed-out", "timedout": "timed-out",
	"timed out": "timed-out", "timed_out": "timed-out"}

// filter narrows a filter to runs with one of the statuses. The API knows the
// result and the end of a run apart, so passed cannot be asked for together with
// canceled unless failed is asked for too.
func (s statusFlag) filter(f *client.RunFilter) error {
	asked := map[string]bool{}
	for _, given := range s {
		word := strings.ToLower(strings.TrimSpace(given))
		if other, ok := spellings[word]; ok {
			word = other
		}
		st, ok := statuses[word]
		if !ok {
			return usagef("--status must be passed, failed, canceled, timed-out, running or failing, not %q", given)
		}
		asked[word] = true
		f.Statuses = append(f.Statuses, st.status...)
		f.Completions = append(f.Completions, st.completion)
	}
	if asked["passed"] && !asked["failed"] && (asked["canceled"] || asked["timed-out"]) {
		return usagef("--status passed cannot be combined with canceled or timed-out: list them separately")
	}
	return nil
}

// completionFlag is a --completion flag of runs, in any case.
type completionFlag []string

func (c completionFlag) filter(f *client.RunFilter) error {
	for _, given := range c {
		word := strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToUpper(given))
		if !slices.Contains([]string{"COMPLETE", "IN_PROGRESS", "CANCELED", "TIMEOUT"}, word) {
			return usagef("--completion must be complete, in-progress, canceled or timeout, not %q", given)
		}
		f.Completions = append(f.Completions, word)
	}
	return nil
}

type runListCmd struct {
	Project    string         `required:"" help:"The projectId." var:"RUNBELL_PROJECT" placeholder:"ID"`
	Branch     []string       `help:"Only runs of these branches." placeholder:"NAME"`
	Tag        []string       `help:"Only runs with all of these tags." placeholder:"TAG"`
	Status     statusFlag     `help:"Only runs that are passed, failed, canceled, timed-out, running or failing (running, with failures)." placeholder:"STATUS"`
	Completion completionFlag `help:"Only complete, in-progress, canceled or timeout, as in the API." xor:"state" placeholder:"STATE"`
	Search     string         `help:"Only runs with this text in the build id or the commit message." placeholder:"TEXT"`
	Limit      int            `help:"The most to list; 0 is all." default:"20" placeholder:"N"`
}

func (runListCmd) Help() string {
	return `Examples:

    runbell run list --project my-shop
    runbell run list --project my-shop --branch main --status failed --json | jq -r '.[].runUrl'`
}

// Run lists runs.
func (c *runListCmd) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	if len(c.Status) > 0 && len(c.Completion) > 0 {
		return usagef("give --status or --completion, not both")
	}
	f := client.RunFilter{Branches: c.Branch, Tags: c.Tag, Search: c.Search, Limit: c.Limit}
	if err := c.Status.filter(&f); err != nil {
		return err
	}
	if err := c.Completion.filter(&f); err != nil {
		return err
	}
	runs, err := s.Runs(ctx, c.Project, f)
	if err != nil {
		return err
	}
	return show(s, runs, func(w io.Writer, list []client.Run) error {
		var rows [][]string
		for _, r := range list {
			row := []string{r.RunID, r.Meta.CIBuildID, orEmpty(r.Meta.Commit.Branch), outcome(r), when(r.CreatedAt),
				milliseconds(r.DurationMs)}
			rows = append(rows, append(row, testCells(testsOf(r))...))
		}
		return table(w, "No runs.", append([]string{"RUN", "BUILD", "BRANCH", "STATUS", "STARTED", "TOOK"}, testHeader...),
			rows)
	})
}

// whichRun names one run: by id, or as the latest.
type whichRun struct {
	ID      string `arg:"" optional:"" name:"run" help:"The runId, a prefix of it, or the build id."`
	Latest  bool   `help:"The latest run, instead of one by its id."`
	Project string `help:"With --latest: of this project; not needed if there is only one." placeholder:"ID"`
	Branch  string `help:"With --latest: of this branch." placeholder:"NAME"`
}

// find returns the id of the run.
func (c whichRun) find(ctx context.Context, s *session) (string, error) {
	switch {
	case c.Latest && c.ID != "":
		return "", usagef("give a run or --latest, not both")
	case !c.Latest && c.ID == "":
		return "", usagef("say which run: its id, or --latest --branch main")
	case !c.Latest && (c.Branch != "" || c.Project != ""):
		return "", usagef("--branch and --project go with --latest")
	case !c.Latest:
		return s.findRun(ctx, c.ID)
	}
	project := c.Project
	if project == "" {
		projects, err := s.Projects(ctx)
		if err != nil {
			return "", err
		}
		if len(projects.Value) != 1 {
			return "", usagef("give the project: --project ID ('runbell project list' lists them)")
		}
		project = projects.Value[0].ProjectID
	}
	f := client.RunFilter{Limit: 1}
	if c.Branch != "" {
		f.Branches = []string{c.Branch}
	}
	runs, err := s.Runs(ctx, project, f)
	if err != nil {
		return "", err
	}
	if len(runs.Value) == 0 {
		return "", fmt.Errorf("project %s has no run%s yet", project,
			strings.TrimSuffix(" on branch "+c.Branch, " on branch "))
	}
	return runs.Value[0].RunID, nil
}

// read asks the server for the run.
func (c whichRun) read(ctx context.Context, s *session) (client.Result[client.Run], error) {
	id, err := c.find(ctx, s)
	if err != nil {
		return client.Result[client.Run]{}, err
	}
	return s.Run(ctx, id)
}

type runShowCmd struct {
	whichRun
}

func (runShowCmd) Help() string {
	return `Examples:

    runbell run show 6d4d09d9ff151222372347a1ffe4fa5c
    runbell run show 6d4d09d9
    runbell run show --latest --project my-shop --branch main`
}

// Run shows a run.
func (c *runShowCmd) Run(ctx context.Context, s *session) error {
	r, err := c.read(ctx, s)
	if err != nil {
		return err
	}
	var failed []failure
	left := 0
	if !s.json {
		if failed, left, err = s.failuresOf(ctx, r.Value); err != nil {
			return err
		}
	}
	return show(s, r, func(w io.Writer, r client.Run) error { return printRun(w, r, failed, left) })
}

func printRun(w io.Writer, r client.Run, failed []failure, left int) error {
	if len(failed) > 0 {
		printFailures(w, r, failed, left)
		fmt.Fprintln(w)
	}
	canceled := ""
	if c := r.Cancellation; c != nil {
		canceled = strings.TrimSuffix("by "+c.Actor+": "+c.Reason, ": ")
	}
	pinned := ""
	if p := r.Pin; p != nil {
		pinned = "by " + p.Actor + ", " + when(p.PinnedAt)
	}
	commit := r.Meta.Commit
	if err := fields(w, "Run", r.RunID, "Build", r.Meta.CIBuildID, "Project", r.ProjectID, "Page", r.RunURL, "CI job",
		orEmpty(r.Meta.CI.URL),
		"Status", outcome(r), "Canceled", canceled, "Pinned", pinned, "Branch", orEmpty(commit.Branch),
		"Commit", strings.TrimSpace(orEmpty(commit.SHA)+" "+firstLine(orEmpty(commit.Message))),
		"Author", orEmpty(commit.AuthorName), "Tags", strings.Join(r.Tags, ", "), "Started", when(r.CreatedAt), "Finished",
		when(r.FinishedAt), "Took", milliseconds(r.DurationMs)); err != nil {
		return err
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "\nWarning: %s\n", printable(warning.Message))
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, g := range r.Groups {
		row := []string{g.GroupID, fmt.Sprintf("%d/%d", g.Instances.Complete, g.Instances.Overall)}
		rows = append(rows, append(row, testCells(g.Tests)...))
	}
	if err := table(w, "No groups.", append([]string{"GROUP", "SPECS"}, testHeader...), rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	rows = nil
	specs := slices.Clone(r.Specs)
	ended := r.CompletionState != "IN_PROGRESS"
	slices.SortStableFunc(specs, func(a, b client.Spec) int { return rank(a, ended) - rank(b, ended) })
	for _, spec := range specs {
		rows = append(rows, []string{spec.Spec, spec.GroupID, specOutcome(spec, ended), specTook(spec)})
	}
	return table(w, "No specs.", []string{"SPEC", "GROUP", "RESULT", "TOOK"}, rows)
}

// rank puts failed specs first, and then those that never reported.
func rank(s client.Spec, ended bool) int {
	switch {
	case hasFailed(s):
		return 0
	case ended && s.Results == nil && s.ClaimedAt != nil:
		return 1
	default:
		return 2
	}
}

func hasFailed(s client.Spec) bool {
	return s.Results != nil && (s.Results.Stats.Failures > 0 || s.Results.Stats.Skipped > 0 || s.Results.Exception != nil)
}

// specOutcome is the outcome of a spec; ended says that its run has ended.
func specOutcome(s client.Spec, ended bool) string {
	switch {
	case s.Results == nil && s.ClaimedAt == nil && ended:
		return "not started"
	case s.Results == nil && ended:
		return "never reported"
	case s.Results == nil && s.ClaimedAt == nil:
		return "queued"
	case s.Results == nil:
		return "running"
	}
	var parts []string
	for _, c := range []struct {
		n    int
		word string
	}{{s.Results.Stats.Passes, "passed"}, {s.Results.Stats.Failures, "failed"}, {s.Results.Stats.Pending, "pending"},
		{s.Results.Stats.Skipped, "skipped"}, {s.Results.Flaky, "flaky"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.word))
		}
	}
	if len(parts) == 0 {
		return "no tests"
	}
	return strings.Join(parts, ", ")
}

func specTook(s client.Spec) string {
	if s.Results == nil {
		return ""
	}
	return milliseconds(s.Results.Stats.WallClockDuration)
}

type runCancelCmd struct {
	ID     string `arg:"" name:"run" help:"The runId, a prefix of it, or the build id."`
	Reason string `help:"Reason, shown to machines and people." placeholder:"TEXT"`
}

func (runCancelCmd) Help() string {
	return `Machines stop after their current spec. Canceling a run that has ended, or was canceled, changes nothing.

Examples:

    runbell run cancel 6d4d09d9ff151222372347a1ffe4fa5c --reason "wrong branch"`
}

// Run cancels a run.
func (c *runCancelCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findRun(ctx, c.ID)
	if err != nil {
		return err
	}
	canceled, err := s.CancelRun(ctx, id, c.Reason)
	if err != nil {
		return err
	}
	return show(s, canceled, func(w io.Writer, r client.Canceled) error {
		if !r.Cancelled {
			_, err := fmt.Fprintf(w, "Run %s had already ended: nothing was canceled.\n", id)
			return err
		}
		_, err := fmt.Fprintf(w, "Run %s is canceled (%s).\n", id, when(r.CancelledAt))
		return err
	})
}
