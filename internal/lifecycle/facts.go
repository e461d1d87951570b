package lifecycle

import (
	"context"
	"time"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// factsBudget limits how many bytes of stored tests and results the facts of an event
// read, because the transaction occupies the database's only writer meanwhile.
const factsBudget = 1 << 20

// LinkTo makes an address that shows an artifact to anyone who has it, for some time after an
// instant.
type LinkTo func(artifactID string, at time.Time) string

// Facts reads the facts of an event, which are not in its payload. It needs the event's
// type, run, group and time. Without link, they lead to no screenshots.
func Facts(ctx context.Context, tx *store.Tx, e webhook.Event, link LinkTo) (webhook.Facts, error) {
	var groups []run.Group
	project, err := tx.Project(ctx, e.ProjectID)
	if err != nil {
		return webhook.Facts{}, err
	}
	r, err := tx.Run(ctx, e.RunID)
	if err != nil {
		return webhook.Facts{}, err
	}
	if e.Scope == run.GroupScope {
		g, err := tx.Group(ctx, e.RunID, e.Group)
		if err != nil {
			return webhook.Facts{}, err
		}
		groups = []run.Group{g}
	} else if groups, err = tx.Groups(ctx, e.RunID); err != nil {
		return webhook.Facts{}, err
	}
	failures, err := firstFailures(ctx, tx, e, link)
	if err != nil {
		return webhook.Facts{}, err
	}
	facts := webhook.NewFacts(e, project, r, groups, failures)
	if ofWholeRun(e) {
		facts.Comparison, err = compare(ctx, tx, r, project)
	}
	return facts, err
}

// ofWholeRun says that an event is about a whole run that is over.
func ofWholeRun(e webhook.Event) bool { return e.Scope == run.RunScope && e.Kind != webhook.RunStart }

// maxCompared is the most tests of a run that facts compare.
const maxCompared = 20_000

// compare says what a run changed since earlier ones. It is nil if the run has no branch or
// too many tests, or if some of its results are not in the history yet.
func compare(ctx context.Context, tx *store.Tx, r run.Run, project run.Project) (*webhook.FactsComparison, error) {
	counts, err := tx.RunCounts(ctx, r.ID)
	if err != nil || r.Commit.Branch == "" || counts.Overall() > maxCompared {
		return nil, err
	}
	if complete, err := tx.HistoryComplete(ctx, r.ID); err != nil || !complete {
		return nil, err
	}
	var out webhook.FactsComparison
	if out.Branch, err = compareTo(ctx, tx, r, r.Commit.Branch); err != nil {
		return nil, err
	}
	if main := history.MainBranch(project.DefaultBranch, r.Commit); main != "" && main != r.Commit.Branch {
		out.DefaultBranch, err = compareTo(ctx, tx, r, main)
	}
	return &out, err
}

func compareTo(ctx context.Context, tx *store.Tx, r run.Run, branch string) (*webhook.FactsCompared, error) {
	c, err := history.CompareRun(ctx, tx, r, branch)
	if err != nil || c.With == nil {
		return nil, err
	}
	list := func(changes []history.Change) webhook.FactsChanges {
		out := webhook.FactsChanges{Total: len(changes), Tests: []webhook.FactsTest{}}
		for _, change := range changes[:min(len(changes), webhook.MaxFactsChanges)] {
			test := webhook.NewFactsTest(c.Names[change.Test].Spec, c.Names[change.Test].Title)
			if since := change.Since; since.ID != "" {
				test.Since = &webhook.FactsSince{RunID: since.ID, CreatedAt: webhook.Time{Time: since.CreatedAt}}
			}
			out.Tests = append(out.Tests, test)
		}
		return out
	}
	return &webhook.FactsCompared{RunID: c.With.ID, BuildID: c.With.CIBuildID, BranchName: branch,
		CreatedAt: webhook.Time{Time: c.With.CreatedAt}, NewlyFailing: list(c.NewlyFailing),
		StillFailing: list(c.StillFailing), NewlyFlaky: list(c.NewlyFlaky), Fixed: list(c.Fixed),
		NewTests: list(c.NewTests), Slower: list(c.Slower)}, nil
}

// firstFailures lists the first failures, in the order of groups, specs and tests.
func firstFailures(ctx context.Context, tx *store.Tx, e webhook.Event, link LinkTo) ([]webhook.Failure, error) {
	if e.Kind == webhook.RunStart {
		return nil, nil
	}
	specs, err := tx.FailedSpecs(ctx, e.RunID, e.Group, webhook.MaxFactsFailures)
	if err != nil {
		return nil, err
	}
	var out []webhook.Failure
	budget := int64(factsBudget)
	for _, s := range specs {
		if len(out) >= webhook.MaxFactsFailures {
			break
		}
		of := webhook.Failure{Group: s.GroupName, Spec: s.Spec, Error: s.Exception}
		if s.Exception != "" {
			out = append(out, of)
		}
		if s.Size > budget {
			if s.Exception == "" {
				out = append(out, of)
			}
			continue
		}
		budget -= s.Size
		announced, results, err := tx.Tests(ctx, s.ID)
		if err != nil {
			return nil, err
		}
		for _, t := range run.Tests(announced, results) {
			if t.Result.State != run.Failed || t.Repeats(s.Exception) {
				continue
			}
			failure, _ := t.Failure()
			of.Title, of.Error = t.Title, failure.Text()
			of.ScreenshotURL, err = screenshotURL(ctx, tx, s.ID, results.LastScreenshot(t.ID), e.CreatedAt, link)
			if err != nil {
				return nil, err
			}
			out = append(out, of)
		}
	}
	return out, nil
}

// screenshotURL leads to a screenshot of an instance, "" if there is none or it could not be
// uploaded.
func screenshotURL(ctx context.Context, tx *store.Tx, instanceID, screenshotID string, at time.Time,
	link LinkTo) (string, error) {
	if link == nil || screenshotID == "" {
		return "", nil
	}
	id := run.ArtifactID(instanceID, run.ScreenshotArtifact, screenshotID)
	a, err := tx.Artifact(ctx, id)
	if err != nil && run.KindOf(err) != run.NotFound { // else it may still be uploaded
		return "", err
	}
	if a.Problem != "" {
		return "", nil
	}
	return link(id, at), nil
}
