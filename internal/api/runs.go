package api

import (
	"context"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

type runSummary struct {
	RunID           string         `json:"runId"`
	ProjectID       string         `json:"projectId"`
	RunURL          string         `json:"runUrl"`
	CreatedAt       timestamp      `json:"createdAt"`
	FinishedAt      *timestamp     `json:"finishedAt"`
	DurationMs      int64          `json:"durationMs" doc:"From the start to the last report; until now while a group is running."`
	CompletionState run.Completion `json:"completionState"`
	Status          run.Status     `json:"status"`
	Tags            []string       `json:"tags"`
	PullID          *int           `json:"pr_id" doc:"The number of the pull request."`
	Timeout         timeout        `json:"timeout"`
	NoTests         bool           `json:"noTests" doc:"The run finished without running a test. It did not fail, but it matches no webhook for passed."`
	Cancellation    *cancellation  `json:"cancellation"`
	Pin             *pin           `json:"pin" doc:"Who pinned the run; null if it is not pinned."`
	Groups          []group        `json:"groups"`
	Meta            meta           `json:"meta"`
	Cursor          string         `json:"cursor,omitempty" doc:"In lists: for starting_after and ending_before."`
}

type timeout struct {
	IsTimeout      bool  `json:"isTimeout"`
	TimeoutValueMs int64 `json:"timeoutValueMs" doc:"How long a group may go without a report."`
}

type cancellation struct {
	Actor      string    `json:"actor"`
	CanceledAt timestamp `json:"canceledAt"`
	Reason     string    `json:"reason"`
}

type group struct {
	GroupID   string         `json:"groupId"`
	Platform  platform       `json:"platform"`
	Instances instanceCounts `json:"instances"`
	Tests     testCounts     `json:"tests"`
}

type platform struct {
	OSName         *string `json:"osName"`
	OSVersion      *string `json:"osVersion"`
	BrowserName    *string `json:"browserName"`
	BrowserVersion *string `json:"browserVersion"`
}

type instanceCounts struct {
	Overall  int `json:"overall"`
	Claimed  int `json:"claimed"`
	Complete int `json:"complete"`
	Passes   int `json:"passes"`
	Failures int `json:"failures"`
}

type testCounts struct {
	Overall  int `json:"overall"`
	Passes   int `json:"passes"`
	Failures int `json:"failures"`
	Pending  int `json:"pending"`
	Skipped  int `json:"skipped"`
	Retries  int `json:"retries"`
	Flaky    int `json:"flaky"`
}

type meta struct {
	CIBuildID string    `json:"ciBuildId"`
	CI        ci        `json:"ci"`
	Commit    commit    `json:"commit"`
	Framework framework `json:"framework"`
}

type ci struct {
	URL *string `json:"url" doc:"URL of the build at the CI service."`
}

type framework struct {
	Name    string  `json:"name"`
	Version *string `json:"version"`
}

// commit is as in webhooks.
type commit = webhook.PayloadCommit

func showPlatform(p run.Platform) platform {
	return platform{text(p.OSName), text(p.OSVersion), text(p.BrowserName), text(p.BrowserVersion)}
}

func showCommit(c run.Commit) commit {
	return commit{
		SHA:           text(c.SHA),
		Branch:        text(c.Branch),
		AuthorName:    text(c.AuthorName),
		AuthorEmail:   text(c.AuthorEmail),
		Message:       text(c.Message),
		RemoteOrigin:  text(run.WithoutCredentials(c.RemoteOrigin)),
		DefaultBranch: text(c.DefaultBranch),
	}
}

func showCancellation(c *run.Cancellation) *cancellation {
	if c == nil {
		return nil
	}
	return &cancellation{c.Actor, timestamp(c.At), c.Reason}
}

// summarize reads the parts of a run, except its specs.
func (a *api) summarize(ctx context.Context, tx *store.Tx, v run.Run) (runSummary, error) {
	groups, err := tx.Groups(ctx, v.ID)
	if err != nil {
		return runSummary{}, err
	}
	specs, err := tx.SpecCounts(ctx, v.ID)
	if err != nil {
		return runSummary{}, err
	}
	out := runSummary{
		RunID:           v.ID,
		ProjectID:       v.ProjectID,
		RunURL:          a.Runs.RunURL(v.ID),
		CreatedAt:       timestamp(v.CreatedAt),
		FinishedAt:      known(v.FinishedAt),
		DurationMs:      v.Elapsed(v.LastReport(groups), tx.Now).Milliseconds(),
		CompletionState: run.CompletionOf(v.State),
		Tags:            append([]string{}, v.Tags...),
		Timeout:         timeout{IsTimeout: v.State == run.TimedOut},
		Cancellation:    showCancellation(v.Cancellation),
		Pin:             showPin(v),
		Groups:          make([]group, len(groups)),
		Meta: meta{
			CIBuildID: v.CIBuildID,
			CI:        ci{text(v.CI.URL())},
			Commit:    showCommit(v.Commit),
			Framework: framework{Name: v.Client.Framework.Name, Version: text(v.Client.Framework.Version)},
		},
	}
	if pull := v.Commit.PullRequest; pull != nil && pull.Number > 0 {
		out.PullID = &pull.Number
	}
	var counts run.Counts
	limit := time.Duration(0)
	for i, g := range groups {
		counts = counts.Plus(g.Counts)
		// Groups may differ: the one that timed out says why.
		if limit == 0 || g.State == run.TimedOut {
			limit = g.InactivityTimeout
		}
		out.Groups[i] = group{
			GroupID:   g.Name,
			Platform:  showPlatform(g.Platform),
			Instances: instanceCounts{g.Specs, g.Claimed, g.Completed, specs[g.Name].Passes, specs[g.Name].Failures},
			Tests: testCounts{g.Counts.Overall(), g.Counts.Passes, g.Counts.Failures, g.Counts.Pending, g.Counts.Skipped,
				g.Counts.Retries, g.Counts.Flaky},
		}
	}
	out.Status = run.StatusOf(v.State, counts)
	out.NoTests = v.State == run.Finished && counts.Green() && !counts.Ran()
	out.Timeout.TimeoutValueMs = limit.Milliseconds()
	return out, nil
}

var (
	statuses    = []run.Status{run.StatusPassed, run.StatusFailed, run.StatusRunning, run.StatusFailing}
	completions = []run.Completion{run.Complete, run.InProgress, run.CompletionCanceled, run.CompletionTimeout}
	allStates   = []run.State{run.Running, run.Finished, run.TimedOut, run.Canceled}
)

func runFilters() []param {
	return append(cursors(),
		param{name: "tags[]", doc: "A tag of the run.", repeats: true},
		tagOperator,
		param{name: "branches[]", repeats: true},
		param{name: "authors[]", doc: "The name of the commit's author.", repeats: true},
		param{name: "search", doc: "Part of the ciBuildId or of the commit message; at most 200 characters."},
		param{name: "status", enum: texts(statuses), repeats: true},
		param{name: "completion_state", enum: texts(completions), repeats: true},
		param{name: "date_start", doc: "Created at or after this time.", format: "date-time"},
		param{name: "date_end", doc: "Created before this time. A date without a time includes that day.",
			format: "date-time"},
	)
}

// runFilter reads the parameters of runFilters.
func (r *request) runFilter() (f store.RunFilter, err error) {
	f.Search = r.query.Get("search")
	for _, p := range []struct {
		name string
		into *[]string
	}{{"tags", &f.Tags}, {"branches", &f.Branches}, {"authors", &f.Authors}} {
		if *p.into, err = r.all(p.name); err != nil {
			return f, err
		}
	}
	if f.AnyTag, err = r.anyTag("tag_operator", "AND"); err != nil {
		return f, err
	}
	if err := checkText("search", f.Search, 0, maxSearch); err != nil {
		return f, err
	}
	if f.Statuses, err = choices(r, "status", statuses); err != nil {
		return f, err
	}
	wanted, err := choices(r, "completion_state", completions)
	if err != nil {
		return f, err
	}
	for _, c := range wanted {
		for _, s := range allStates {
			if run.CompletionOf(s) == c {
				f.States = append(f.States, s)
			}
		}
	}
	f.Since, f.Until, err = r.dates()
	return f, err
}

func (a *api) runs(r *request) ([]runSummary, bool, error) {
	page, err := r.page()
	if err != nil {
		return nil, false, err
	}
	filter, err := r.runFilter()
	if err != nil {
		return nil, false, err
	}
	var out []runSummary
	var more bool
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), r.id()); err != nil {
			return err
		}
		list, m, err := tx.Runs(r.Context(), r.id(), filter, page)
		if err != nil {
			return err
		}
		more = m
		for _, v := range list {
			shown, err := a.summarize(r.Context(), tx, v)
			if err != nil {
				return err
			}
			shown.Cursor = cursorOf(v.CreatedAt, v.ID)
			out = append(out, shown)
		}
		return nil
	})
	return out, more, err
}

type runDetail struct {
	runSummary
	Specs              []spec      `json:"specs"`
	Warnings           []warning   `json:"warnings" doc:"What was corrected in the reports, and where machines disagree."`
	Comparison         *comparison `json:"comparison" doc:"What changed since earlier runs; null for a run without a branch."`
	ArtifactsRemovedAt *timestamp  `json:"artifactsRemovedAt" doc:"When artifacts of the run were last removed."`
	OutputRemovedAt    *timestamp  `json:"outputRemovedAt" doc:"When console output of the run was last removed."`
}

type warning struct {
	Code    string    `json:"code"`
	Message string    `json:"message"`
	At      timestamp `json:"at"`
}

type spec struct {
	Spec        string       `json:"spec"`
	GroupID     string       `json:"groupId"`
	InstanceID  *string      `json:"instanceId" doc:"null until the spec is claimed."`
	ClaimedAt   *timestamp   `json:"claimedAt"`
	CompletedAt *timestamp   `json:"completedAt"`
	MachineID   *string      `json:"machineId"`
	Results     *specResults `json:"results" doc:"null until there are results."`
}

func (a *api) detail(ctx context.Context, tx *store.Tx, v run.Run) (runDetail, error) {
	summary, err := a.summarize(ctx, tx, v)
	if err != nil {
		return runDetail{}, err
	}
	instances, err := tx.Instances(ctx, v.ID)
	if err != nil {
		return runDetail{}, err
	}
	shots, err := tx.Screenshots(ctx, v.ID)
	if err != nil {
		return runDetail{}, err
	}
	var files []run.Artifact
	if v.Artifacts > 0 {
		if files, err = tx.RunArtifacts(ctx, v.ID); err != nil {
			return runDetail{}, err
		}
	}
	urls := a.links(files)
	warnings, err := tx.Warnings(ctx, v.ID)
	if err != nil {
		return runDetail{}, err
	}
	compared, err := a.comparison(ctx, tx, v)
	if err != nil {
		return runDetail{}, err
	}
	out := runDetail{summary, make([]spec, len(instances)), []warning{}, compared, known(v.ArtifactsRemovedAt),
		known(v.OutputRemovedAt)}
	for _, w := range warnings {
		out.Warnings = append(out.Warnings, warning{w.Code, w.Message, timestamp(w.At)})
	}
	for i, in := range instances {
		s := spec{
			Spec:        in.Spec,
			GroupID:     in.GroupName,
			ClaimedAt:   known(in.ClaimedAt),
			CompletedAt: known(in.CompletedAt),
			MachineID:   text(in.MachineID),
		}
		if in.MachineID != "" {
			s.InstanceID = &in.ID
		}
		if !in.CompletedAt.IsZero() {
			results := showResults(in, shots[in.ID], urls)
			s.Results = &results
		}
		out.Specs[i] = s
	}
	return out, nil
}

func (a *api) run(r *request) (runDetail, error) {
	var out runDetail
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		v, err := tx.Run(r.Context(), r.id())
		if err != nil {
			return err
		}
		a.Artifacts.Shown(v.ID)
		out, err = a.detail(r.Context(), tx, v)
		return err
	})
	return out, err
}

func findFilters() []param {
	return []param{
		inProject,
		{name: "ciBuildId", doc: "The run of exactly this build, in whatever state."},
		{name: "branch", doc: "Without ciBuildId: the latest finished run of this branch."},
		{name: "tags[]", doc: "Without ciBuildId: the latest finished run with all these tags.", repeats: true},
	}
}

func (a *api) findRun(r *request) (runDetail, error) {
	projectID, err := r.projectParam()
	if err != nil {
		return runDetail{}, err
	}
	// currents-cmd sends tag[].
	filter := store.RunFilter{States: []run.State{run.Finished}}
	if filter.Tags, err = r.all("tags", "tag"); err != nil {
		return runDetail{}, err
	}
	if filter.Branches, err = r.all("branch"); err != nil {
		return runDetail{}, err
	}
	buildID := r.query.Get("ciBuildId")
	if buildID == "" && len(filter.Tags)+len(filter.Branches) == 0 {
		return runDetail{}, run.Errorf(run.Invalid, "Say which run to find: send ciBuildId, or branch and tags[].")
	}
	var out runDetail
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), projectID); err != nil {
			return err
		}
		found, err := find(r.Context(), tx, projectID, buildID, filter)
		if err != nil {
			return err
		}
		out, err = a.detail(r.Context(), tx, found)
		return err
	})
	return out, err
}

func find(ctx context.Context, tx *store.Tx, projectID, buildID string, filter store.RunFilter) (run.Run, error) {
	if buildID != "" {
		return tx.Build(ctx, projectID, buildID)
	}
	list, _, err := tx.Runs(ctx, projectID, filter, store.Page{Limit: 1})
	if err == nil && len(list) == 0 {
		err = run.Errorf(run.NotFound, "No run of this project on that branch and with those tags has finished.")
	}
	if err != nil {
		return run.Run{}, err
	}
	return list[0], nil
}
