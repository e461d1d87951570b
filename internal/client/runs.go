package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Run is a run with its groups; [Client.Run] adds the specs.
type Run struct {
	RunID           string        `json:"runId"`
	ProjectID       string        `json:"projectId"`
	RunURL          string        `json:"runUrl"`
	CreatedAt       *time.Time    `json:"createdAt"`
	FinishedAt      *time.Time    `json:"finishedAt"`
	DurationMs      int64         `json:"durationMs"`
	CompletionState string        `json:"completionState"` // COMPLETE, IN_PROGRESS, CANCELED or TIMEOUT
	Status          string        `json:"status"`          // PASSED, FAILED, RUNNING or FAILING
	NoTests         bool          `json:"noTests"`         // finished, and no test ran
	Tags            []string      `json:"tags"`
	Cancellation    *Cancellation `json:"cancellation"`
	Pin             *Pin          `json:"pin"` // nil if retention may remove the run
	Groups          []Group       `json:"groups"`
	Meta            RunMeta       `json:"meta"`
	Specs           []Spec        `json:"specs"`
	Warnings        []Warning     `json:"warnings"`
	Comparison      *Comparison   `json:"comparison"` // nil in lists, and of a run without a branch
}

// Warning is something odd in what was reported about a run.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Cancellation says who canceled a run, and why.
type Cancellation struct {
	Actor  string `json:"actor"`
	Reason string `json:"reason"`
}

// RunMeta is what was tested, and where.
type RunMeta struct {
	CIBuildID string `json:"ciBuildId"`
	CI        CI     `json:"ci"`
	Commit    Commit `json:"commit"`
}

// CI is the job that ran the tests.
type CI struct {
	URL *string `json:"url"`
}

// Commit is what was tested.
type Commit struct {
	SHA        *string `json:"sha"`
	Branch     *string `json:"branch"`
	AuthorName *string `json:"authorName"`
	Message    *string `json:"message"`
}

// Group is a part of a run, such as a browser.
type Group struct {
	GroupID   string `json:"groupId"`
	Instances struct {
		Overall  int `json:"overall"`
		Complete int `json:"complete"`
	} `json:"instances"`
	Tests TestCounts `json:"tests"`
}

// TestCounts counts tests by their results.
type TestCounts struct {
	Overall  int `json:"overall"`
	Passes   int `json:"passes"`
	Failures int `json:"failures"`
	Pending  int `json:"pending"`
	Skipped  int `json:"skipped"`
	Retries  int `json:"retries"`
	Flaky    int `json:"flaky"`
}

// Plus adds two counts.
func (t TestCounts) Plus(o TestCounts) TestCounts {
	return TestCounts{t.Overall + o.Overall, t.Passes + o.Passes, t.Failures + o.Failures, t.Pending + o.Pending,
		t.Skipped + o.Skipped, t.Retries + o.Retries, t.Flaky + o.Flaky}
}

// Spec is a spec of a run, in a group.
type Spec struct {
	Spec       string       `json:"spec"`
	GroupID    string       `json:"groupId"`
	InstanceID *string      `json:"instanceId"` // null until a machine has it
	MachineID  *string      `json:"machineId"`  // likewise
	ClaimedAt  *time.Time   `json:"claimedAt"`
	Results    *SpecResults `json:"results"` // null until they are in
}

// SpecResults are the results of a spec.
type SpecResults struct {
	Stats struct {
		Passes            int   `json:"passes"`
		Failures          int   `json:"failures"`
		Pending           int   `json:"pending"`
		Skipped           int   `json:"skipped"`
		WallClockDuration int64 `json:"wallClockDuration"` // milliseconds
	} `json:"stats"`
	Exception   *string      `json:"exception"` // why the spec could not run to its end
	Flaky       int          `json:"flaky"`
	VideoURL    *string      `json:"videoUrl"` // shows the video for some days; null if there is none
	Screenshots []Screenshot `json:"screenshots"`
}

// Screenshot is a picture that was taken of a test.
type Screenshot struct {
	TestID  *string `json:"testId"`
	Attempt int     `json:"testAttemptIndex"` // of the test, from 0
	URL     *string `json:"screenshotURL"`    // shows the picture for some days; null if it was not uploaded
}

// Instance is a spec as it was run, with its tests.
type Instance struct {
	InstanceID string       `json:"instanceId"`
	Spec       string       `json:"spec"`
	GroupID    string       `json:"groupId"`
	Results    *SpecResults `json:"results"`
	Tests      []Test       `json:"tests"`
}

// Test is one test of a spec.
type Test struct {
	TestID       string    `json:"testId"`
	Title        []string  `json:"title"`
	State        *string   `json:"state"` // passed, failed, pending or skipped; null without a result
	DisplayError *string   `json:"displayError"`
	Attempts     []Attempt `json:"attempts"`
}

// Attempt is one attempt of a test.
type Attempt struct {
	State string     `json:"state"`
	Error *TestError `json:"error"`
}

// TestError is why an attempt failed.
type TestError struct {
	Name      string `json:"name"`
	Message   string `json:"message"`
	CodeFrame *struct {
		File   string `json:"file"`
		Line   int    `json:"line"`
		Column int    `json:"column"`
	} `json:"codeFrame"`
}

// RunFilter says which runs to list. Empty fields match all.
type RunFilter struct {
	Branches    []string
	Tags        []string // all of them
	Statuses    []string // PASSED, FAILED, RUNNING, FAILING
	Completions []string // COMPLETE, IN_PROGRESS, CANCELED, TIMEOUT
	Search      string   // in the build id or the commit message
	Limit       int      // 0 is all
}

// Runs lists the runs of a project, newest first.
func (c *Client) Runs(ctx context.Context, projectID string, f RunFilter) (Result[[]Run], error) {
	query := url.Values{"branches[]": f.Branches, "tags[]": f.Tags, "status": f.Statuses,
		"completion_state": f.Completions}
	if f.Search != "" {
		query.Set("search", f.Search)
	}
	return list[Run](ctx, c, "/projects"+segment(projectID)+"/runs", query, f.Limit)
}

// Run finds a run, with its specs.
func (c *Client) Run(ctx context.Context, id string) (Result[Run], error) {
	return call[Run](ctx, c, http.MethodGet, "/runs"+segment(id), nil, nil)
}

// Instance finds a spec as it was run, with its tests.
func (c *Client) Instance(ctx context.Context, id string) (Result[Instance], error) {
	return call[Instance](ctx, c, http.MethodGet, "/instances"+segment(id), nil, nil)
}

// Canceled says whether a run is canceled: one that had ended in another way is not.
type Canceled struct {
	RunID       string     `json:"runId"`
	Cancelled   bool       `json:"cancelled"`
	CancelledAt *time.Time `json:"cancelledAt"`
}

// CancelRun cancels a run. Its machines and people see the reason, if there is one.
func (c *Client) CancelRun(ctx context.Context, id, reason string) (Result[Canceled], error) {
	body := struct {
		Reason string `json:"reason,omitempty"`
	}{reason}
	return call[Canceled](ctx, c, http.MethodPut, "/runs"+segment(id)+"/cancel", nil, body)
}
