package lifecycle

import (
	"context"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// factsBudget is how many bytes of stored tests and results the facts of an event look
// into: the transaction holds the database's one writer meanwhile.
const factsBudget = 1 << 20

// Facts reads what an event says beyond its payload. Of the event it looks at what
// happened to which run and group, and when.
func Facts(ctx context.Context, tx *store.Tx, e webhook.Event) (webhook.Facts, error) {
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
	failures, err := firstFailures(ctx, tx, e)
	if err != nil {
		return webhook.Facts{}, err
	}
	return webhook.NewFacts(e, project, r, groups, failures), nil
}

// firstFailures lists what failed first, in the order of groups, specs and tests.
func firstFailures(ctx context.Context, tx *store.Tx, e webhook.Event) ([]webhook.Failure, error) {
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
			out = append(out, of)
		}
	}
	return out, nil
}
