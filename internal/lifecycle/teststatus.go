package lifecycle

import (
	"cmp"
	"context"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// statusLimit is how many runs that ended one look takes.
const statusLimit = 256

// statusBranch is the branch on which the health of tests counts; "" is all of them.
func statusBranch(commit run.Commit, defaultBranch string) string {
	return cmp.Or(defaultBranch, commit.DefaultBranch)
}

// expectStatus notes that a run has ended, if it may change the health of tests.
func expectStatus(ctx context.Context, tx *store.Tx, r run.Run, defaultBranch string) error {
	if on := statusBranch(r.Commit, defaultBranch); on != "" && on != r.Commit.Branch {
		return nil
	}
	return tx.ExpectStatus(ctx, store.DueStatus{ProjectID: r.ProjectID, RunID: r.ID})
}

// TellStatuses looks at the tests of all runs that ended and whose results are in the
// history, and makes the events of what has changed. Any number of processes may do so on
// one database.
func (s *Service) TellStatuses(ctx context.Context) error {
	for {
		var due []store.DueStatus
		err := s.db.Read(ctx, func(tx *store.Tx) (err error) {
			due, err = tx.StatusesDue(ctx, statusLimit)
			return err
		})
		if err != nil || len(due) == 0 {
			return err
		}
		byProject := map[string][]string{}
		for _, d := range due {
			byProject[d.ProjectID] = append(byProject[d.ProjectID], d.RunID)
		}
		for _, runIDs := range byProject {
			if err := s.tellStatus(ctx, runIDs); err != nil {
				return err
			}
		}
	}
}

// tellStatus makes one event of what has changed since some runs of a project ended. It is
// an event of the last of them. That the runs were looked at is stored with it, so a
// process that dies tells nothing twice and leaves nothing out.
func (s *Service) tellStatus(ctx context.Context, runIDs []string) error {
	return s.write(ctx, func(tx *store.Tx, e *effect) error {
		r, err := tx.LockRun(ctx, runIDs[len(runIDs)-1])
		if run.KindOf(err) == run.NotFound {
			return nil // it was removed, and is not due any more
		}
		if err != nil {
			return err
		}
		taken, err := tx.TakeStatuses(ctx, runIDs)
		if err != nil || taken == 0 { // another process was faster
			return err
		}
		commit, tags, defaultBranch, err := tx.RunDetails(ctx, r.ID)
		if err != nil {
			return err
		}
		changes, err := history.Statuses(ctx, tx, r.ProjectID, statusBranch(commit, defaultBranch))
		if err != nil || len(changes) == 0 {
			return err
		}
		counts, err := tx.RunCounts(ctx, r.ID)
		if err != nil {
			return err
		}
		described := r
		described.Commit, described.Tags = commit, tags
		payload := webhook.NewPayload(webhook.TestStatus, described, nil, counts, s.RunURL(r.ID), defaultBranch)
		payload.Changes = testChanges(changes)
		r.Sequence++
		event := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: r.ProjectID, RunID: r.ID, Scope: run.RunScope,
			Kind: webhook.TestStatus, Sequence: r.Sequence, CreatedAt: tx.Now, Payload: payload.Bytes()}
		e.queued, err = FanOut(ctx, tx, event, webhook.Subject{Branch: commit.Branch, Tags: tags}, nil)
		if err != nil || len(e.queued) == 0 {
			return err
		}
		return tx.UpdateRun(ctx, r)
	})
}

func testChanges(list []history.StatusChange) *webhook.TestChanges {
	out := &webhook.TestChanges{Total: len(list), Tests: []webhook.TestChange{}}
	for _, c := range list[:min(len(list), webhook.MaxTestChanges)] {
		named := webhook.NewFactsTest(c.Spec, c.Title)
		out.Tests = append(out.Tests, webhook.TestChange{Signature: c.Signature, Spec: named.Spec, Title: named.Title,
			From: string(c.From), To: string(c.To)})
	}
	return out
}
