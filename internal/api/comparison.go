package api

import (
	"context"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
)

type comparison struct {
	Complete      bool        `json:"complete" doc:"Whether all results so far are compared. Those of the last few seconds may not be."`
	Branch        *comparedTo `json:"branch" doc:"Compared with the last finished run of its branch; null if there is none."`
	DefaultBranch *comparedTo `json:"defaultBranch" doc:"Compared with the last finished run of the default branch; null if there is none, or if this run is on the default branch."`
}

type comparedTo struct {
	RunID        string      `json:"runId"`
	RunURL       string      `json:"runUrl"`
	CIBuildID    string      `json:"ciBuildId"`
	BranchName   string      `json:"branchName"`
	CreatedAt    timestamp   `json:"createdAt"`
	NewlyFailing changedList `json:"newlyFailing" doc:"Tests that did not fail before."`
	StillFailing changedList `json:"stillFailing"`
	NewlyFlaky   changedList `json:"newlyFlaky"`
	Fixed        changedList `json:"fixed" doc:"Tests that failed before, and passed now."`
	NewTests     changedList `json:"newTests"`
	Slower       changedList `json:"slower" doc:"Tests that passed in both runs, and took at least 30 % and 0.1 s longer."`
}

type changedList struct {
	Total int           `json:"total"`
	Tests []changedTest `json:"tests" doc:"At most 50."`
}

type changedTest struct {
	Signature string        `json:"signature"`
	Spec      string        `json:"spec"`
	Title     []string      `json:"title"`
	Since     *failingSince `json:"since,omitempty" doc:"For a test that still fails: the first of the latest 20 runs since which it has failed."`
	BeforeMs  *int64        `json:"beforeMs,omitempty" doc:"For a slower test."`
	NowMs     *int64        `json:"nowMs,omitempty"`
}

type failingSince struct {
	RunID     string    `json:"runId"`
	RunURL    string    `json:"runUrl"`
	CreatedAt timestamp `json:"createdAt"`
}

// comparison compares a run with the last finished runs of its branch and of the default
// branch; it is nil for a run without a branch.
func (a *api) comparison(ctx context.Context, tx *store.Tx, r run.Run) (*comparison, error) {
	if r.Commit.Branch == "" {
		return nil, nil
	}
	project, err := tx.Project(ctx, r.ProjectID)
	if err != nil {
		return nil, err
	}
	var out comparison
	if out.Complete, err = tx.HistoryComplete(ctx, r.ID); err != nil {
		return nil, err
	}
	if out.Branch, err = a.compareTo(ctx, tx, r, r.Commit.Branch); err != nil {
		return nil, err
	}
	if main := history.MainBranch(project.DefaultBranch, r.Commit); main != "" && main != r.Commit.Branch {
		out.DefaultBranch, err = a.compareTo(ctx, tx, r, main)
	}
	return &out, err
}

func (a *api) compareTo(ctx context.Context, tx *store.Tx, r run.Run, branch string) (*comparedTo, error) {
	c, err := history.CompareRun(ctx, tx, r, branch)
	if err != nil || c.With == nil {
		return nil, err
	}
	list := func(changes []history.Change) changedList { return a.showChanges(c, changes) }
	return &comparedTo{RunID: c.With.ID, RunURL: a.Runs.RunURL(c.With.ID), CIBuildID: c.With.CIBuildID, BranchName: branch,
		CreatedAt: timestamp(c.With.CreatedAt), NewlyFailing: list(c.NewlyFailing), StillFailing: list(c.StillFailing),
		NewlyFlaky: list(c.NewlyFlaky), Fixed: list(c.Fixed), NewTests: list(c.NewTests), Slower: list(c.Slower)}, nil
}

func (a *api) showChanges(c history.RunComparison, changes []history.Change) changedList {
	out := changedList{Total: len(changes), Tests: []changedTest{}}
	for _, change := range changes[:min(history.Shown, len(changes))] {
		name := c.Names[change.Test]
		shown := changedTest{Signature: name.Signature, Spec: name.Spec, Title: name.Title}
		if since := change.Since; since.ID != "" {
			shown.Since = &failingSince{since.ID, a.Runs.RunURL(since.ID), timestamp(since.CreatedAt)}
		}
		if change.Now > 0 {
			shown.BeforeMs, shown.NowMs = new(change.Before.Milliseconds()), new(change.Now.Milliseconds())
		}
		out.Tests = append(out.Tests, shown)
	}
	return out
}
