package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"runbell/internal/client"
	"runbell/internal/config"
	"runbell/internal/run"
)

type projectCmd struct {
	remote

	Create projectCreateCmd `cmd:"" help:"Create a project, and print its record key."`
	List   projectListCmd   `cmd:"" help:"List all projects with their last run and pass rate."`
	Show   projectShowCmd   `cmd:"" help:"Show a project."`
	Update projectUpdateCmd `cmd:"" help:"Change a project."`

	Insights projectInsightsCmd `cmd:"" help:"Count the runs and tests of a project per hour, day or week."`
	Tests    projectTestsCmd    `cmd:"" help:"List the tests of a project: how often they fail, flake, and how long they take."`
	Test     projectTestCmd     `cmd:"" help:"List the results of a test, newest first."`
	Specs    projectSpecsCmd    `cmd:"" help:"List the specs of a project: how long they take, and how often they fail."`
	Errors   projectErrorsCmd   `cmd:"" help:"List the errors of a project, by message."`
	Pulls    projectPullsCmd    `cmd:"" help:"List the pull requests of a project with their latest run."`
	Values   projectValuesCmd   `cmd:"" help:"List the values of a filter, such as branches."`
}

// projectSettings are the flags of create and update; nil leaves a setting as
// it is.
type projectSettings struct {
	InactivityTimeout *time.Duration `help:"Time a group out after this long without a report (1s to 12h; default 30m)." placeholder:"30m"`
	CompletionDelay   *time.Duration `help:"How long a run with named groups stays open for another group (0s to 15m; default 60s)." placeholder:"60s"`
	DefaultBranch     *string        `help:"Used for the project's status, and in webhooks if the reporter does not send it." placeholder:"main"`
	FailFast          *int           `help:"Cancel a run after this many failures; 0 is off." placeholder:"N"`
	RunDays           *int           `help:"Days to keep runs (0 to 3650; default 180; 0 is forever)." placeholder:"DAYS"`
	ArtifactsFailed   *int           `name:"artifacts-failed-days" help:"Days to keep the artifacts of failed and flaky runs (default 30; 0 is as long as the run)." placeholder:"DAYS"`
	ArtifactsPassed   *int           `name:"artifacts-passed-days" help:"Days to keep the artifacts of other runs (default 7; 0 is as long as the run)." placeholder:"DAYS"`
	OutputDays        *int           `help:"Days to keep console output (default 30; 0 is as long as the run)." placeholder:"DAYS"`
	ArtifactsMax      *config.Bytes  `help:"Maximum size of the project's artifacts, such as 20GiB; 0 is no limit (default)." placeholder:"SIZE"`
	RetentionDays     *int           `name:"retention" help:"Days to keep the delivery log (1 to 3650; default 30)." placeholder:"DAYS"`
	PublicRunLinks    *bool          `help:"Let anyone with a run's link view it." negatable:""`
}

func (p projectSettings) settings() (client.ProjectSettings, error) {
	out := client.ProjectSettings{DefaultBranchName: p.DefaultBranch, FailFast: p.FailFast, RetentionDays: p.RetentionDays,
		PublicRunLinks: p.PublicRunLinks,
		RunDays:        p.RunDays, ArtifactsFailedDays: p.ArtifactsFailed, ArtifactsPassedDays: p.ArtifactsPassed,
		OutputDays: p.OutputDays, ArtifactsMaxBytes: (*int64)(p.ArtifactsMax)}
	for _, f := range []struct {
		flag  string
		given *time.Duration
		into  **int64
	}{{"--inactivity-timeout", p.InactivityTimeout, &out.InactivityTimeoutSeconds},
		{"--completion-delay", p.CompletionDelay, &out.CompletionDelaySeconds}} {
		if f.given == nil {
			continue
		}
		n, err := wholeSeconds(f.flag, *f.given)
		if err != nil {
			return out, err
		}
		*f.into = &n
	}
	return out, nil
}

const asRun = "as long as the run"

// keptFor describes a number of days; zero is the text for 0 days.
func keptFor(days int, zero string) string {
	switch days {
	case 0:
		return zero
	case 1:
		return "1 day"
	default:
		return strconv.Itoa(days) + " days"
	}
}

func orNoLimit(bytes int64) string {
	if bytes == 0 {
		return "no limit"
	}
	return run.FormatSize(bytes)
}

func failFast(f client.FailFast) string {
	if f == 0 {
		return "off"
	}
	return fmt.Sprintf("after %s", failures(int(f)))
}

func failures(n int) string {
	if n == 1 {
		return "1 failure"
	}
	return strconv.Itoa(n) + " failures"
}

func printProject(w io.Writer, p client.Project) error {
	branch := orEmpty(p.DefaultBranchName)
	if branch == "" {
		branch = "not set"
	}
	return fields(w, "Project", p.ProjectID, "Name", p.Name, "Created", when(p.CreatedAt),
		"Default branch", branch, "Inactivity timeout", seconds(p.InactivityTimeoutSeconds), "Completion delay",
		seconds(p.CompletionDelaySeconds),
		"Fail fast", failFast(p.FailFast), "Runs", keptFor(p.RunDays, "forever"), "Artifacts, failed or flaky",
		keptFor(p.ArtifactsFailedDays, asRun),
		"Artifacts, others", keptFor(p.ArtifactsPassedDays, asRun), "Artifact limit", orNoLimit(p.ArtifactsMaxBytes),
		"Console output", keptFor(p.OutputDays, asRun),
		"Delivery log", keptFor(p.RetentionDays, ""),
		"Public run links", map[bool]string{true: "on", false: "off"}[p.PublicRunLinks])
}

type projectCreateCmd struct {
	Name string `arg:"" help:"Name of the project."`
	ID   string `name:"id" help:"The projectId in your Cypress configuration. Default: derived from the name." placeholder:"ID"`
	projectSettings
}

func (projectCreateCmd) Help() string {
	return `Examples:

    runbell project create "My shop" --id my-shop
    runbell project create Nightly --inactivity-timeout 2h --fail-fast 5`
}

// Run creates a project and says how to record its first run.
func (c *projectCreateCmd) Run(ctx context.Context, s *session) error {
	settings, err := c.settings()
	if err != nil {
		return err
	}
	settings.ProjectID, settings.Name = c.ID, &c.Name
	created, err := s.CreateProject(ctx, settings)
	if err != nil {
		return err
	}
	return show(s, created, func(w io.Writer, p client.Project) error {
		if err := fields(w, "Project", p.ProjectID, "Record key", p.RecordKey); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, `
The record key is not shown again; 'runbell key create --project %[1]s' creates another one.

To record, in the directory of a project with Cypress 10 or newer:

    RUNBELL_RECORD_KEY=%[2]s runbell cypress run --url %[3]s --project %[1]s

To get webhooks about its runs:

    runbell webhook create --project %[1]s https://example.com/hooks/cypress
`, run.ShellWord(p.ProjectID), p.RecordKey, reporterURL(s.URL()))
		return err
	})
}

type projectListCmd struct{}

func (projectListCmd) Help() string {
	return `PASSED is the pass rate of the last 30 runs that ended, on the default branch if the project has one.

Examples:

    runbell project list
    runbell project list --json | jq -r '.[].projectId'`
}

// ratedRuns is how many runs a pass rate is about.
const ratedRuns = 30

// Run lists projects.
func (projectListCmd) Run(ctx context.Context, s *session) error {
	projects, err := s.Projects(ctx)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(projects.JSON)
	}
	var rows [][]string
	for _, p := range projects.Value {
		last, passed, err := s.recent(ctx, p)
		if client.IsNotFound(err) {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return err
		}
		rows = append(rows, append([]string{p.ProjectID, p.Name}, append(last, passed)...))
	}
	return table(s.Out, "No projects yet: create one with 'runbell project create NAME'.",
		[]string{"PROJECT", "NAME", "LAST RUN", "STATUS", "BRANCH", "PASSED"}, rows)
}

// recent is the last run of a project (when, status, branch), and its pass rate.
func (s *session) recent(ctx context.Context, p client.Project) (last []string, passed string, err error) {
	last = []string{"", "", ""}
	newest, err := s.Runs(ctx, p.ProjectID, client.RunFilter{Limit: 1})
	if err != nil || len(newest.Value) == 0 {
		return last, "", err
	}
	r := newest.Value[0]
	last = []string{when(r.CreatedAt), outcome(r), orEmpty(r.Meta.Commit.Branch)}
	f := client.RunFilter{Completions: []string{"COMPLETE", "CANCELED", "TIMEOUT"}, Limit: ratedRuns}
	if b := orEmpty(p.DefaultBranchName); b != "" {
		f.Branches = []string{b}
	}
	ended, err := s.Runs(ctx, p.ProjectID, f)
	if err != nil || len(ended.Value) == 0 {
		return last, "", err
	}
	n := 0
	for _, r := range ended.Value {
		if r.Status == "PASSED" {
			n++
		}
	}
	return last, fmt.Sprintf("%d%% of %d", 100*n/len(ended.Value), len(ended.Value)), nil
}

type projectShowCmd struct {
	ID string `arg:"" help:"The projectId."`
}

func (projectShowCmd) Help() string {
	return `Examples:

    runbell project show my-shop`
}

// Run shows a project.
func (c *projectShowCmd) Run(ctx context.Context, s *session) error {
	p, err := s.Project(ctx, c.ID)
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(p.JSON)
	}
	usage, err := s.Usage(ctx, c.ID)
	if err != nil {
		return err
	}
	return show(s, p, func(w io.Writer, p client.Project) error {
		if err := printProject(w, p); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w)
		return errors.Join(err, printUsage(w, usage.Value))
	})
}

func printUsage(w io.Writer, u client.Usage) error {
	runs, artifacts, last := strconv.Itoa(u.Runs), strconv.Itoa(u.Artifacts), ""
	if u.PinnedRuns > 0 {
		runs += fmt.Sprintf(", %d pinned", u.PinnedRuns)
	}
	if u.Artifacts > 0 {
		artifacts += ", " + run.FormatSize(u.ArtifactBytes)
	}
	if r := u.LastRemoval; r != nil {
		last = fmt.Sprintf("%s: %d runs, %d artifacts (%s), console output of %d runs, %d deliveries", when(r.At), r.Runs,
			r.Artifacts,
			run.FormatSize(r.ArtifactBytes), r.ConsoleOutputs, r.Deliveries)
	}
	return fields(w, "Runs kept", runs, "Oldest run", when(u.OldestRunAt), "Artifacts kept", artifacts, "Last removal",
		last)
}

type projectUpdateCmd struct {
	ID   string  `arg:"" help:"The projectId."`
	Name *string `help:"Name of the project." placeholder:"NAME"`
	projectSettings
}

func (projectUpdateCmd) Help() string {
	return `Timeouts apply to groups that start later.

Examples:

    runbell project update my-shop --inactivity-timeout 1h
    runbell project update my-shop --default-branch main --retention 90
    runbell project update my-shop --artifacts-failed-days 14 --artifacts-max 20GiB
    runbell project update my-shop --fail-fast 0`
}

// Run changes what was given.
func (c *projectUpdateCmd) Run(ctx context.Context, s *session) error {
	settings, err := c.settings()
	if err != nil {
		return err
	}
	settings.Name = c.Name
	if settings == (client.ProjectSettings{}) {
		return usagef("nothing to change: give at least one setting")
	}
	p, err := s.UpdateProject(ctx, c.ID, settings)
	if err != nil {
		return err
	}
	return show(s, p, printProject)
}
