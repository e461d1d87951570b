package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

type runCmd struct {
	remote

	List   runListCmd   `cmd:"" help:"List the runs of a project, newest first."`
	Show   runShowCmd   `cmd:"" help:"Show a run with its groups and specs."`
	Cancel runCancelCmd `cmd:"" help:"Cancel a run, for good."`
}

// runInfo is what the commands print of a run of the API.
type runInfo struct {
	RunID        string     `json:"runId"`
	ProjectID    string     `json:"projectId"`
	RunURL       string     `json:"runUrl"`
	CreatedAt    *time.Time `json:"createdAt"`
	FinishedAt   *time.Time `json:"finishedAt"`
	DurationMS   int64      `json:"durationMs"`
	Completion   string     `json:"completionState"`
	Status       string     `json:"status"`
	Tags         []string   `json:"tags"`
	Cancellation *struct {
		Actor  string `json:"actor"`
		Reason string `json:"reason"`
	} `json:"cancellation"`
	Groups []runGroup `json:"groups"`
	Meta   struct {
		CIBuildID string `json:"ciBuildId"`
		Commit    struct {
			SHA        *string `json:"sha"`
			Branch     *string `json:"branch"`
			AuthorName *string `json:"authorName"`
			Message    *string `json:"message"`
		} `json:"commit"`
	} `json:"meta"`
	Specs []runSpec `json:"specs"`
}

type runGroup struct {
	GroupID   string `json:"groupId"`
	Instances struct {
		Overall  int `json:"overall"`
		Complete int `json:"complete"`
	} `json:"instances"`
	Tests runTests `json:"tests"`
}

type runTests struct {
	Overall  int `json:"overall"`
	Passes   int `json:"passes"`
	Failures int `json:"failures"`
	Pending  int `json:"pending"`
	Skipped  int `json:"skipped"`
	Retries  int `json:"retries"`
	Flaky    int `json:"flaky"`
}

type runSpec struct {
	Spec      string     `json:"spec"`
	GroupID   string     `json:"groupId"`
	ClaimedAt *time.Time `json:"claimedAt"`
	Results   *struct {
		Stats struct {
			Passes            int   `json:"passes"`
			Failures          int   `json:"failures"`
			Pending           int   `json:"pending"`
			Skipped           int   `json:"skipped"`
			WallClockDuration int64 `json:"wallClockDuration"`
		} `json:"stats"`
		Flaky int `json:"flaky"`
	} `json:"results"`
}

// state is status and completion in one word where they say the same.
func (r runInfo) state() string {
	switch r.Completion {
	case "CANCELED", "TIMEOUT":
		return r.Status + " (" + r.Completion + ")"
	default:
		return r.Status
	}
}

func (r runInfo) tests() runTests {
	var t runTests
	for _, g := range r.Groups {
		t.Overall += g.Tests.Overall
		t.Passes += g.Tests.Passes
		t.Failures += g.Tests.Failures
		t.Pending += g.Tests.Pending
		t.Skipped += g.Tests.Skipped
		t.Retries += g.Tests.Retries
		t.Flaky += g.Tests.Flaky
	}
	return t
}

func (t runTests) cells() []string {
	var cells []string
	for _, n := range []int{t.Overall, t.Passes, t.Failures, t.Pending, t.Skipped, t.Flaky} {
		cells = append(cells, fmt.Sprint(n))
	}
	return cells
}

var testHeader = []string{"TESTS", "PASSED", "FAILED", "PENDING", "SKIPPED", "FLAKY"}

// milliseconds prints a duration as precisely as people care.
func milliseconds(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

type runListCmd struct {
	Project    string   `required:"" help:"The projectId." placeholder:"ID"`
	Branch     []string `help:"Only of these branches." placeholder:"NAME"`
	Tag        []string `help:"Only with all of these tags." placeholder:"TAG"`
	Status     []string `help:"Only passed, failed, running or failing ones." enum:"PASSED,FAILED,RUNNING,FAILING" placeholder:"STATUS"`
	Completion []string `help:"Only complete, in progress, canceled or timed out ones." enum:"COMPLETE,IN_PROGRESS,CANCELED,TIMEOUT" placeholder:"STATE"`
	Search     string   `help:"Only with this in the build id or the commit message." placeholder:"TEXT"`
	Limit      int      `help:"How many at most; 0 is all." default:"20" placeholder:"N"`
}

func (runListCmd) Help() string {
	return `Examples:

    runbell run list --project my-shop
    runbell run list --project my-shop --branch main --status FAILED --json | jq -r '.[].runUrl'`
}

// Run lists runs.
func (c *runListCmd) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	query := url.Values{"branches[]": c.Branch, "tags[]": c.Tag, "status": c.Status, "completion_state": c.Completion}
	if c.Search != "" {
		query.Set("search", c.Search)
	}
	data, err := s.list(ctx, "/projects/"+url.PathEscape(c.Project)+"/runs", query, c.Limit)
	if err != nil {
		return err
	}
	return s.show(data, func(w io.Writer) error {
		var list []runInfo
		if err := (answer{Data: data}).into(&list); err != nil {
			return err
		}
		var rows [][]string
		for _, r := range list {
			row := []string{r.RunID, r.Meta.CIBuildID, orEmpty(r.Meta.Commit.Branch), r.state(), when(r.CreatedAt), milliseconds(r.DurationMS)}
			rows = append(rows, append(row, r.tests().cells()...))
		}
		return table(w, "No runs.", append([]string{"RUN", "BUILD", "BRANCH", "STATUS", "STARTED", "TOOK"}, testHeader...), rows)
	})
}

type runShowCmd struct {
	ID string `arg:"" help:"The runId."`
}

func (runShowCmd) Help() string {
	return `Examples:

    runbell run show 6d4d09d9ff151222372347a1ffe4fa5c`
}

// Run shows a run.
func (c *runShowCmd) Run(ctx context.Context, s *session) error {
	a, err := s.do(ctx, http.MethodGet, "/runs/"+url.PathEscape(c.ID), nil, nil)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var r runInfo
		if err := a.into(&r); err != nil {
			return err
		}
		return r.print(w)
	})
}

func (r runInfo) print(w io.Writer) error {
	canceled := ""
	if c := r.Cancellation; c != nil {
		canceled = strings.TrimSuffix("by "+c.Actor+": "+c.Reason, ": ")
	}
	commit := r.Meta.Commit
	if err := fields(w, "Run", r.RunID, "Build", r.Meta.CIBuildID, "Project", r.ProjectID, "Page", r.RunURL, "Status", r.state(),
		"Canceled", canceled, "Branch", orEmpty(commit.Branch), "Commit", strings.TrimSpace(orEmpty(commit.SHA)+" "+firstLine(orEmpty(commit.Message))),
		"Author", orEmpty(commit.AuthorName), "Tags", strings.Join(r.Tags, ", "), "Started", when(r.CreatedAt), "Finished", when(r.FinishedAt),
		"Took", milliseconds(r.DurationMS)); err != nil {
		return err
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, g := range r.Groups {
		row := []string{g.GroupID, fmt.Sprintf("%d/%d", g.Instances.Complete, g.Instances.Overall)}
		rows = append(rows, append(row, g.Tests.cells()...))
	}
	if err := table(w, "No groups.", append([]string{"GROUP", "SPECS"}, testHeader...), rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	rows = nil
	for _, spec := range r.Specs {
		rows = append(rows, []string{spec.Spec, spec.GroupID, spec.outcome(), spec.took()})
	}
	return table(w, "No specs.", []string{"SPEC", "GROUP", "RESULT", "TOOK"}, rows)
}

func (s runSpec) outcome() string {
	switch {
	case s.Results == nil && s.ClaimedAt == nil:
		return "waiting"
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

func (s runSpec) took() string {
	if s.Results == nil {
		return ""
	}
	return milliseconds(s.Results.Stats.WallClockDuration)
}

type runCancelCmd struct {
	ID     string `arg:"" help:"The runId."`
	Reason string `help:"Why; machines and people see it." placeholder:"TEXT"`
}

func (runCancelCmd) Help() string {
	return `Its machines get no more specs. Canceling a run again changes nothing; neither does canceling one that has ended.

Examples:

    runbell run cancel 6d4d09d9ff151222372347a1ffe4fa5c --reason "wrong branch"`
}

// Run cancels a run.
func (c *runCancelCmd) Run(ctx context.Context, s *session) error {
	body := map[string]any{}
	if c.Reason != "" {
		body["reason"] = c.Reason
	}
	a, err := s.do(ctx, http.MethodPut, "/runs/"+url.PathEscape(c.ID)+"/cancel", nil, body)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var canceled struct {
			Cancelled   bool       `json:"cancelled"`
			CancelledAt *time.Time `json:"cancelledAt"`
		}
		if err := a.into(&canceled); err != nil {
			return err
		}
		if !canceled.Cancelled {
			_, err := fmt.Fprintf(w, "Run %s had ended already: nothing was canceled.\n", c.ID)
			return err
		}
		_, err := fmt.Fprintf(w, "Run %s is canceled (%s).\n", c.ID, when(canceled.CancelledAt))
		return err
	})
}
