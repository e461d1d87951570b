package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Period says which runs a question about the past is about. Empty lists match all.
type Period struct {
	Since, Until                    time.Time // when the runs were created
	Branches, Tags, Authors, Groups []string  // all of the tags, one of the others
}

func (p Period) query() url.Values {
	return url.Values{"date_start": {p.Since.UTC().Format(time.RFC3339)}, "date_end": {p.Until.UTC().Format(time.RFC3339)},
		"branches[]": p.Branches, "tags[]": p.Tags, "authors[]": p.Authors, "groups[]": p.Groups, "tag_operator": {"AND"},
		"tags_logical_operator": {"AND"}}
}

// Order is what a list is ordered by, and how much of it is asked for.
type Order struct {
	By        string // "" is the server's own
	Ascending bool
	Limit     int // 0 is all
}

func (o Order) add(q url.Values, name string) {
	if o.By != "" {
		q.Set(name, o.By)
	}
	q.Set("dir", map[bool]string{true: "asc", false: "desc"}[o.Ascending])
}

// numbered follows a list with numbered pages of a size, up to limit items.
func numbered[T any](ctx context.Context, c *Client, path string, query url.Values,
	limit, size int) (Result[[]T], error) {
	items := []json.RawMessage{}
	if limit > 0 {
		size = min(size, limit)
	}
	query.Set("limit", strconv.Itoa(size))
	for page := 0; ; page++ {
		query.Set("page", strconv.Itoa(page))
		answer, err := call[struct {
			List  []json.RawMessage `json:"list"`
			Total int               `json:"total"`
		}](ctx, c, http.MethodGet, path, query, nil)
		if err != nil {
			return Result[[]T]{}, err
		}
		items = append(items, answer.Value.List...)
		if limit > 0 && len(items) >= limit {
			items = items[:limit]
			break
		}
		if len(answer.Value.List) == 0 || len(items) >= answer.Value.Total {
			break
		}
	}
	all, err := json.Marshal(items)
	if err != nil {
		return Result[[]T]{}, err
	}
	return decode[[]T](all)
}

// TestNumbers is a test over a period.
type TestNumbers struct {
	Title     string     `json:"title"`
	Signature string     `json:"signature"`
	Spec      string     `json:"spec"`
	Health    string     `json:"health"` // healthy, flaky, broken or unknown
	LastSeen  *time.Time `json:"lastSeen"`
	Metrics   struct {
		Executions    int     `json:"executions"`
		Failures      int     `json:"failures"`
		Flaky         int     `json:"flaky"`
		FailureRate   float64 `json:"failureRate"`   // 0 to 1
		FlakinessRate float64 `json:"flakinessRate"` // 0 to 1
		AvgDurationMs float64 `json:"avgDurationMs"`
	} `json:"metrics"`
}

// TestFilter says which tests to list. Empty fields match all.
type TestFilter struct {
	Period
	Order
	Spec, Title string // parts of them
	Healths     []string
}

// Tests lists tests of a project with their numbers.
func (c *Client) Tests(ctx context.Context, projectID string, f TestFilter) (Result[[]TestNumbers], error) {
	q := f.query()
	f.add(q, "order")
	q["health[]"] = f.Healths
	q.Set("spec", f.Spec)
	q.Set("title", f.Title)
	return numbered[TestNumbers](ctx, c, "/tests"+segment(projectID), q, f.Limit, 100)
}

// SpecNumbers is a spec over a period.
type SpecNumbers struct {
	Spec    string `json:"spec"`
	Metrics struct {
		AvgDuration       float64 `json:"avgDuration"` // milliseconds
		OverallExecutions int     `json:"overallExecutions"`
		FailedExecutions  int     `json:"failedExecutions"`
		TimeoutExecutions int     `json:"timeoutExecutions"`
		FailureRate       float64 `json:"failureRate"` // 0 to 1
		FlakeRate         float64 `json:"flakeRate"`   // 0 to 1
		SuiteSize         int     `json:"suiteSize"`
	} `json:"metrics"`
}

// SpecFilter says which specs to list. Empty fields match all.
type SpecFilter struct {
	Period
	Order
	Spec string // part of the path
}

// SpecFiles lists specs of a project with their numbers.
func (c *Client) SpecFiles(ctx context.Context, projectID string, f SpecFilter) (Result[[]SpecNumbers], error) {
	q := f.query()
	f.add(q, "order")
	q.Set("specNameFilter", f.Spec)
	return numbered[SpecNumbers](ctx, c, "/spec-files"+segment(projectID), q, f.Limit, 50)
}

// ErrorNumbers is an error over a period.
type ErrorNumbers struct {
	Message string `json:"message"`
	Count   int    `json:"count"`
	Details struct {
		Tests    struct{ Count int } `json:"tests"`
		Branches struct{ Count int } `json:"branches"`
	} `json:"details"`
	FirstSeen *time.Time `json:"firstSeen"`
	LastSeen  *time.Time `json:"lastSeen"`
}

// ErrorFilter says which errors to list. Empty fields match all.
type ErrorFilter struct {
	Period
	Order
	Message string // part of it
}

// Errors lists errors of a project with their numbers.
func (c *Client) Errors(ctx context.Context, projectID string, f ErrorFilter) (Result[[]ErrorNumbers], error) {
	q := f.query()
	f.add(q, "order_by")
	q.Set("error_message", f.Message)
	return numbered[ErrorNumbers](ctx, c, "/errors"+segment(projectID), q, f.Limit, 100)
}

// Insights count the runs and tests of a project.
type Insights struct {
	Results struct {
		Overall  Insight              `json:"overall"`
		Timeline []map[string]Insight `json:"timeline"` // each has one key, when the step begins
	} `json:"results"`
}

// Insight counts runs and tests.
type Insight struct {
	Runs struct {
		Total              int     `json:"total"`
		Passed             int     `json:"passed"`
		Failed             int     `json:"failed"` // also those that were canceled or timed out
		AvgDurationSeconds float64 `json:"avgDurationSeconds"`
	} `json:"runs"`
	Tests struct {
		Total  int `json:"total"`
		Passed int `json:"passed"`
		Failed int `json:"failed"`
		Flaky  int `json:"flaky"`
	} `json:"tests"`
}

// Insights counts the runs of a project, over a period and in steps of 1h, 1d or 1w.
func (c *Client) Insights(ctx context.Context, projectID string, p Period,
	resolution string) (Result[Insights], error) {
	q := p.query()
	q.Set("resolution", resolution)
	return call[Insights](ctx, c, http.MethodGet, "/projects"+segment(projectID)+"/insights", q, nil)
}

// TestResult is how a test ended in a run.
type TestResult struct {
	CreatedAt    *time.Time `json:"createdAt"`
	RunID        string     `json:"runId"`
	GroupID      string     `json:"groupId"`
	Status       string     `json:"status"`
	Flaky        bool       `json:"flaky"`
	Duration     int64      `json:"duration"` // milliseconds
	DisplayError *string    `json:"displayError"`
	Commit       Commit     `json:"commit"`
}

// TestResults lists the results of the test with a signature, the latest first.
func (c *Client) TestResults(ctx context.Context, signature string, p Period, states []string,
	limit int) (Result[[]TestResult], error) {
	q := p.query()
	q["status[]"] = states
	return list[TestResult](ctx, c, "/test-results"+segment(signature), q, limit)
}

// PullRequest is a pull or merge request with its latest runs.
type PullRequest struct {
	Number  int        `json:"pr_id"`
	Title   *string    `json:"title"`
	URL     *string    `json:"url"`
	Author  *string    `json:"author"`
	Branch  *string    `json:"branch"`
	LastRun *time.Time `json:"lastRunAt"`
	Runs    []Run      `json:"runs"`
}

// PullRequests lists the pull requests of a project with their latest run, the latest first.
func (c *Client) PullRequests(ctx context.Context, projectID string, limit int) (Result[[]PullRequest], error) {
	return listBy[PullRequest](ctx, c, "/projects"+segment(projectID)+"/pull-requests", nil, limit, 50)
}

// TermValue is a value that a filter can have.
type TermValue struct {
	Value    string     `json:"value"`
	LastSeen *time.Time `json:"lastSeen"`
}

// TermValues lists the values of a term, the latest first.
func (c *Client) TermValues(ctx context.Context, projectID, term string, limit int) (Result[[]TermValue], error) {
	return list[TermValue](ctx, c, "/projects"+segment(projectID)+"/terms"+segment(term), nil, limit)
}

// Comparison is what a run changed since earlier ones; a part is nil if there is nothing to
// compare with.
type Comparison struct {
	Complete      bool      `json:"complete"` // all results that came in are compared
	Branch        *Compared `json:"branch"`
	DefaultBranch *Compared `json:"defaultBranch"`
}

// Compared is what a run changed since another one.
type Compared struct {
	RunID        string  `json:"runId"`
	CIBuildID    string  `json:"ciBuildId"`
	BranchName   string  `json:"branchName"`
	NewlyFailing Changes `json:"newlyFailing"`
	StillFailing Changes `json:"stillFailing"`
	NewlyFlaky   Changes `json:"newlyFlaky"`
	Fixed        Changes `json:"fixed"`
	NewTests     Changes `json:"newTests"`
	Slower       Changes `json:"slower"`
}

// Changes are tests that changed in one way; the first 50 are listed.
type Changes struct {
	Total int `json:"total"`
	Tests []struct {
		Spec  string   `json:"spec"`
		Title []string `json:"title"`
		Since *struct {
			RunID     string     `json:"runId"`
			CreatedAt *time.Time `json:"createdAt"`
		} `json:"since"`
		BeforeMs *int64 `json:"beforeMs"`
		NowMs    *int64 `json:"nowMs"`
	} `json:"tests"`
}

// ResetRun is what of a run can be claimed again.
type ResetRun struct {
	RunID string `json:"runId"`
	Specs []struct {
		Spec      string `json:"spec"`
		GroupID   string `json:"groupId"`
		MachineID string `json:"machineId"`
	} `json:"specs"`
}

// ResetRun takes from machines the specs that did not pass, so that they can be claimed again.
func (c *Client) ResetRun(ctx context.Context, id string, machineIDs []string) (Result[ResetRun], error) {
	body := struct {
		MachineID []string `json:"machineId"`
	}{machineIDs}
	return call[ResetRun](ctx, c, http.MethodPut, "/runs"+segment(id)+"/reset", nil, body)
}

// FindRun finds the run of a build, or the latest finished one of a branch and tags.
func (c *Client) FindRun(ctx context.Context, projectID, buildID, branch string, tags []string) (Result[Run], error) {
	q := url.Values{"projectId": {projectID}, "tags[]": tags}
	if buildID != "" {
		q.Set("ciBuildId", buildID)
	}
	if branch != "" {
		q.Set("branch", branch)
	}
	return call[Run](ctx, c, http.MethodGet, "/runs/find", q, nil)
}
