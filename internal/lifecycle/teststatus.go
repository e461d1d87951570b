package lifecycle

import (
	"context"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// statusLimit is how many runs that ended one look takes.
const statusLimit = 256

// expectStatus notes that a run has ended, if it may change the health of tests.
func expectStatus(ctx context.Context, tx *store.Tx, r run.Run, defaultBranch string) error {
	if on := history.MainBranch(defaultBranch, r.Commit); on != "" && on != r.Commit.Branch {
		return nil
	}
	return tx.ExpectStatus(ctx, store.DueStatus{ProjectID: r.ProjectID, RunID: r.ID})
}

// TellStatuses looks at the tests of all ended runs whose results are in the history, and makes events of the
// changes. Any number of processes may do so on one database.
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

// tellStatus makes one event of what has changed since some runs of a project ended. It is an event of the last of
// them. The same transaction stores that the runs were looked at, so a process that dies repeats no event and loses
// none. Results are read before the transaction that writes: of two processes that read them, the second takes no
// runs.
func (s *Service) tellStatus(ctx context.Context, runIDs []string) error {
	last := runIDs[len(runIDs)-1]
	var described run.Run
	var project run.Project
	var branch string
	var now map[int]history.Health
	err := s.read(ctx, func(tx *store.Tx) (err error) {
		if described, err = tx.Run(ctx, last); err != nil {
			return err
		}
		if project, err = tx.Project(ctx, described.ProjectID); err != nil {
			return err
		}
		branch = history.MainBranch(project.DefaultBranch, described.Commit)
		now, err = history.HealthsOn(ctx, tx, project.ID, branch)
		return err
	})
	if err == nil {
		err = s.write(ctx, func(tx *store.Tx, e *effect) error {
			r, err := tx.LockRun(ctx, last)
			if err != nil {
				return err
			}
			taken, err := tx.TakeStatuses(ctx, runIDs)
			if err != nil || taken == 0 { // another process was faster
				return err
			}
			changes, err := history.Statuses(ctx, tx, r.ProjectID, branch, now)
			if err != nil || len(changes) == 0 {
				return err
			}
			counts, err := tx.RunCounts(ctx, r.ID)
			if err != nil {
				return err
			}
			payload := webhook.NewPayload(webhook.TestStatus, described, nil, counts, s.RunURL(r.ID),
				project.DefaultBranch)
			payload.Changes = testChanges(changes)
			r.Sequence++
			event := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: r.ProjectID, RunID: r.ID, Scope: run.RunScope,
				Kind: webhook.TestStatus, Sequence: r.Sequence, CreatedAt: tx.Now, Payload: payload.Bytes()}
			subject := webhook.Subject{Branch: described.Commit.Branch, Tags: described.Tags}
			e.queued, e.factsDue, err = FanOut(ctx, tx, event, subject, nil)
			if err != nil || len(e.queued) == 0 {
				return err
			}
			return tx.UpdateRun(ctx, r)
		})
	}
	if run.KindOf(err) == run.NotFound {
		return nil // it was removed, and is not due any more
	}
	return err
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
