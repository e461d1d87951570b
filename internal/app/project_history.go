package app

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"runbell/internal/client"
)

// periodFlags say which runs a question about the past is about.
type periodFlags struct {
	Since  moment   `help:"Runs since this time, or this long ago (2h, 3d)." default:"30d" placeholder:"TIME"`
	Until  *moment  `help:"Runs before this time. Default: now." placeholder:"TIME"`
	Branch []string `help:"Only runs of these branches." placeholder:"NAME"`
	Tag    []string `help:"Only runs with all of these tags." placeholder:"TAG"`
	Author []string `help:"Only runs of these authors." placeholder:"NAME"`
	Group  []string `help:"Only these groups." placeholder:"NAME"`
}

func (p periodFlags) period() (client.Period, error) {
	until := time.Now().Add(time.Minute) // what was created just now is before it, on a server whose clock differs
	if p.Until != nil {
		until = p.Until.Time
	}
	if !p.Since.Before(until) {
		return client.Period{}, usagef("--until must be after --since")
	}
	return client.Period{Since: p.Since.Time, Until: until, Branches: p.Branch, Tags: p.Tag, Authors: p.Author,
		Groups: p.Group}, nil
}

// limitFlag is how much of a list is shown.
type limitFlag struct {
	Limit int `help:"The most to list; 0 is all." default:"20" placeholder:"N"`
}

func (l limitFlag) check() error {
	if l.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	return nil
}

func percent(rate float64) string { return strconv.FormatFloat(rate*100, 'f', 1, 64) + "%" }

type projectTestsCmd struct {
	ID string `arg:"" name:"project" help:"The projectId."`
	periodFlags
	limitFlag
	Spec   string   `help:"Only tests of specs with this text in the path." placeholder:"TEXT"`
	Title  string   `help:"Only tests with this text in the title." placeholder:"TEXT"`
	Health []string `help:"Only tests that are healthy, flaky, broken or unknown." enum:"healthy,flaky,broken,unknown" placeholder:"HEALTH"`
	Order  string   `help:"Sort by title, executions, failures, passes, flakiness, duration, flakinessXSamples, failRateXSamples, durationXSamples, flakinessRateDelta, failureRateDelta or durationDelta." enum:"title,executions,failures,passes,flakiness,duration,flakinessXSamples,failRateXSamples,durationXSamples,flakinessRateDelta,failureRateDelta,durationDelta" default:"failures" placeholder:"ORDER"`
	Asc    bool     `help:"Sort in ascending order."`
}

func (projectTestsCmd) Help() string {
	return `Examples:

    runbell project tests my-shop --branch main --health flaky --health broken
    runbell project tests my-shop --since 7d --order duration --limit 5

` + momentHelp
}

// Run lists tests.
func (c *projectTestsCmd) Run(ctx context.Context, s *session) error {
	period, err := c.period()
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return err
	}
	tests, err := s.Tests(ctx, c.ID, client.TestFilter{Period: period, Order: client.Order{By: c.Order, Ascending: c.Asc,
		Limit: c.Limit}, Spec: c.Spec, Title: c.Title, Healths: c.Health})
	if err != nil {
		return err
	}
	return show(s, tests, func(w io.Writer, list []client.TestNumbers) error {
		var rows [][]string
		for _, t := range list {
			m := t.Metrics
			rows = append(rows, []string{t.Signature, t.Health, strconv.Itoa(m.Executions), percent(m.FailureRate),
				percent(m.FlakinessRate), milliseconds(int64(m.AvgDurationMs)), when(t.LastSeen), t.Spec, t.Title})
		}
		return table(w, "No tests.",
			[]string{"TEST", "HEALTH", "RAN", "FAILED", "FLAKY", "TOOK", "LAST SEEN", "SPEC", "TITLE"}, rows)
	})
}

type projectTestCmd struct {
	Signature string `arg:"" name:"test" help:"Signature of the test, from 'runbell project tests'."`
	periodFlags
	limitFlag
	Status []string `help:"Only passed, failed, pending or skipped results." enum:"passed,failed,pending,skipped" placeholder:"STATUS"`
}

func (projectTestCmd) Help() string {
	return `Examples:

    runbell project test 4bf5122f344554c53bde2ebb8cd2b7e3 --since 90d --status failed

` + momentHelp
}

// Run lists the results of a test.
func (c *projectTestCmd) Run(ctx context.Context, s *session) error {
	period, err := c.period()
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return err
	}
	results, err := s.TestResults(ctx, c.Signature, period, c.Status, c.Limit)
	if err != nil {
		return err
	}
	return show(s, results, func(w io.Writer, list []client.TestResult) error {
		var rows [][]string
		for _, r := range list {
			status := r.Status
			if r.Flaky {
				status = "flaky"
			}
			rows = append(rows, []string{r.RunID, r.GroupID, orEmpty(r.Commit.Branch), status, when(r.CreatedAt),
				milliseconds(r.Duration), firstLine(orEmpty(r.DisplayError))})
		}
		return table(w, "No results.", []string{"RUN", "GROUP", "BRANCH", "STATUS", "STARTED", "TOOK", "ERROR"}, rows)
	})
}

type projectSpecsCmd struct {
	ID string `arg:"" name:"project" help:"The projectId."`
	periodFlags
	limitFlag
	Spec  string `help:"Only specs with this text in the path." placeholder:"TEXT"`
	Order string `help:"Sort by avgDuration, failedExecutions, failureRate, flakeRate, flakyExecutions, fullyReported, overallExecutions, suiteSize, timeoutExecutions or timeoutRate." enum:"avgDuration,failedExecutions,failureRate,flakeRate,flakyExecutions,fullyReported,overallExecutions,suiteSize,timeoutExecutions,timeoutRate" default:"avgDuration" placeholder:"ORDER"`
	Asc   bool   `help:"Sort in ascending order."`
}

func (projectSpecsCmd) Help() string {
	return `Examples:

    runbell project specs my-shop --branch main --order failureRate

` + momentHelp
}

// Run lists specs.
func (c *projectSpecsCmd) Run(ctx context.Context, s *session) error {
	period, err := c.period()
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return err
	}
	specs, err := s.SpecFiles(ctx, c.ID, client.SpecFilter{Period: period, Order: client.Order{By: c.Order,
		Ascending: c.Asc, Limit: c.Limit}, Spec: c.Spec})
	if err != nil {
		return err
	}
	return show(s, specs, func(w io.Writer, list []client.SpecNumbers) error {
		var rows [][]string
		for _, v := range list {
			m := v.Metrics
			rows = append(rows, []string{v.Spec, strconv.Itoa(m.OverallExecutions), strconv.Itoa(m.FailedExecutions),
				percent(m.FailureRate), percent(m.FlakeRate), strconv.Itoa(m.TimeoutExecutions), strconv.Itoa(m.SuiteSize),
				milliseconds(int64(m.AvgDuration))})
		}
		return table(w, "No specs.", []string{"SPEC", "RAN", "FAILED", "FAILURES", "FLAKY", "TIMED OUT", "TESTS", "TOOK"},
			rows)
	})
}

type projectErrorsCmd struct {
	ID string `arg:"" name:"project" help:"The projectId."`
	periodFlags
	limitFlag
	Message string `help:"Only errors with this text in the message." placeholder:"TEXT"`
	Order   string `help:"Sort by count, tests, branches or error (the message)." enum:"count,tests,branches,error" default:"count" placeholder:"ORDER"`
	Asc     bool   `help:"Sort in ascending order."`
}

func (projectErrorsCmd) Help() string {
	return `Errors are the same if they differ only in numbers, ids, times, paths, URLs and quoted values.

Examples:

    runbell project errors my-shop --branch main --since 7d

` + momentHelp
}

// Run lists errors.
func (c *projectErrorsCmd) Run(ctx context.Context, s *session) error {
	period, err := c.period()
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return err
	}
	errs, err := s.Errors(ctx, c.ID, client.ErrorFilter{Period: period, Order: client.Order{By: c.Order, Ascending: c.Asc,
		Limit: c.Limit}, Message: c.Message})
	if err != nil {
		return err
	}
	return show(s, errs, func(w io.Writer, list []client.ErrorNumbers) error {
		var rows [][]string
		for _, e := range list {
			rows = append(rows, []string{strconv.Itoa(e.Count), strconv.Itoa(e.Details.Tests.Count),
				strconv.Itoa(e.Details.Branches.Count), when(e.FirstSeen), when(e.LastSeen), e.Message})
		}
		return table(w, "No errors.", []string{"COUNT", "TESTS", "BRANCHES", "FIRST SEEN", "LAST SEEN", "MESSAGE"}, rows)
	})
}

type projectInsightsCmd struct {
	ID string `arg:"" name:"project" help:"The projectId."`
	periodFlags
	Step string `help:"Length of a step: 1h, 1d or 1w." enum:"1h,1d,1w" default:"1d" placeholder:"STEP"`
}

func (projectInsightsCmd) Help() string {
	return `Steps without runs are left out.

Examples:

    runbell project insights my-shop --branch main --since 90d --step 1w

` + momentHelp
}

// Run counts runs and tests.
func (c *projectInsightsCmd) Run(ctx context.Context, s *session) error {
	period, err := c.period()
	if err != nil {
		return err
	}
	insights, err := s.Insights(ctx, c.ID, period, c.Step)
	if err != nil {
		return err
	}
	return show(s, insights, func(w io.Writer, v client.Insights) error {
		var rows [][]string
		row := func(name string, i client.Insight) {
			took := ""
			if i.Runs.AvgDurationSeconds > 0 {
				took = milliseconds(int64(i.Runs.AvgDurationSeconds * 1000))
			}
			rows = append(rows, []string{name, strconv.Itoa(i.Runs.Total), strconv.Itoa(i.Runs.Passed),
				strconv.Itoa(i.Runs.Failed), took, strconv.Itoa(i.Tests.Total), strconv.Itoa(i.Tests.Passed),
				strconv.Itoa(i.Tests.Failed), strconv.Itoa(i.Tests.Flaky)})
		}
		for _, step := range v.Results.Timeline {
			for _, start := range slices.Sorted(maps.Keys(step)) {
				if step[start].Runs.Total > 0 {
					began, err := time.Parse(time.RFC3339, start)
					if err != nil {
						return err
					}
					row(when(&began), step[start])
				}
			}
		}
		row("all", v.Results.Overall)
		return table(w, "", []string{"FROM", "RUNS", "PASSED", "FAILED", "TOOK", "TESTS", "PASSED", "FAILED", "FLAKY"}, rows)
	})
}

type projectPullsCmd struct {
	ID string `arg:"" name:"project" help:"The projectId."`
	limitFlag
}

func (projectPullsCmd) Help() string {
	return `Examples:

    runbell project pulls my-shop --limit 5`
}

// Run lists pull requests.
func (c *projectPullsCmd) Run(ctx context.Context, s *session) error {
	if err := c.check(); err != nil {
		return err
	}
	pulls, err := s.PullRequests(ctx, c.ID, c.Limit)
	if err != nil {
		return err
	}
	return show(s, pulls, func(w io.Writer, list []client.PullRequest) error {
		var rows [][]string
		for _, p := range list {
			status, runID := "", ""
			if len(p.Runs) > 0 {
				status, runID = outcome(p.Runs[0]), p.Runs[0].RunID
			}
			rows = append(rows, []string{fmt.Sprint("#", p.Number), status, runID, when(p.LastRun), orEmpty(p.Branch),
				orEmpty(p.Author), orEmpty(p.Title)})
		}
		return table(w, "No pull requests.", []string{"PR", "STATUS", "RUN", "LAST RUN", "BRANCH", "AUTHOR", "TITLE"}, rows)
	})
}

type projectValuesCmd struct {
	ID   string `arg:"" name:"project" help:"The projectId."`
	Term string `arg:"" help:"tag, group, branch, authorName, authorEmail, framework, frameworkVersion or clientVersion." enum:"tag,group,branch,authorName,authorEmail,framework,frameworkVersion,clientVersion"`
	limitFlag
}

func (projectValuesCmd) Help() string {
	return `Examples:

    runbell project values my-shop branch`
}

// Run lists the values of a term.
func (c *projectValuesCmd) Run(ctx context.Context, s *session) error {
	if err := c.check(); err != nil {
		return err
	}
	values, err := s.TermValues(ctx, c.ID, c.Term, c.Limit)
	if err != nil {
		return err
	}
	return show(s, values, func(w io.Writer, list []client.TermValue) error {
		var rows [][]string
		for _, v := range list {
			rows = append(rows, []string{v.Value, when(v.LastSeen)})
		}
		return table(w, "No values.", []string{"VALUE", "LAST SEEN"}, rows)
	})
}
