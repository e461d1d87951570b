package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	// factsEvery is how long an event waits for its facts at most, if the process that stored it has died.
	factsEvery = 2 * time.Second
	// factsPatience is how long the facts of an event are retried if completing them fails. Then the event is sent
	// with the known facts: no event waits forever.
	factsPatience = time.Minute
	// factsLimit is how many events one look completes.
	factsLimit = 256
	// factsBudget limits how many bytes of stored tests and results the facts of an event read.
	factsBudget = 1 << 20
)

// The facts of an end are made in two parts. The transaction that ends the run stores what it knows, and a row of
// facts_due. Failures and the comparison need a search. They are added right after it, and then the deliveries with
// facts are released. So no writer waits for a transaction that reads for long, and a process that dies in between
// loses nothing.

// LinkTo makes an address that shows an artifact to anyone who has it, for some time after an
// instant.
type LinkTo func(artifactID string, at time.Time) string

// Facts reads the facts of an event, which are not in its payload. It needs the event's
// type, run, group and time. Without link, they lead to no screenshots.
func Facts(ctx context.Context, tx *store.Tx, e webhook.Event, link LinkTo) (webhook.Facts, error) {
	facts, err := knownFacts(ctx, tx, e)
	if err != nil || e.Kind == webhook.RunStart {
		return facts, err
	}
	failed, err := tx.FailedSpecs(ctx, e.RunID, e.Group, webhook.MaxFactsFailures)
	if err != nil {
		return facts, err
	}
	return addFacts(ctx, tx, e, facts, failed, link)
}

// knownFacts reads the facts of an event that need no search.
func knownFacts(ctx context.Context, tx *store.Tx, e webhook.Event) (webhook.Facts, error) {
	project, err := tx.Project(ctx, e.ProjectID)
	if err != nil {
		return webhook.Facts{}, err
	}
	r, err := tx.Run(ctx, e.RunID)
	if err != nil {
		return webhook.Facts{}, err
	}
	groups, err := groupsOf(ctx, tx, e)
	return webhook.NewFacts(e, project, r, groups), err
}

// groupsOf are the groups that an event is about.
func groupsOf(ctx context.Context, tx *store.Tx, e webhook.Event) ([]run.Group, error) {
	if e.Scope == run.RunScope {
		return tx.Groups(ctx, e.RunID)
	}
	g, err := tx.Group(ctx, e.RunID, e.Group)
	return []run.Group{g}, err
}

// addFacts adds to the facts of an end those that need a search. failed are the specs that had failed.
func addFacts(ctx context.Context, tx *store.Tx, e webhook.Event, facts webhook.Facts, failed []string,
	link LinkTo) (webhook.Facts, error) {
	groups, err := groupsOf(ctx, tx, e)
	if err != nil {
		return facts, err
	}
	failures, err := firstFailures(ctx, tx, e, failed, link)
	if err != nil {
		return facts, err
	}
	var comparison *webhook.FactsComparison
	if ofWholeRun(e) {
		if comparison, err = compare(ctx, tx, e); err != nil {
			return facts, err
		}
	}
	return facts.With(groups, failures, comparison), nil
}

// TellFacts completes the facts of events until ctx ends, soon after each has happened. pack brings
// the results of a run into the history. Any number of processes may do so on one database.
func (s *Service) TellFacts(ctx context.Context, log *slog.Logger, pack func(context.Context, string) error) {
	for {
		if err := s.CompleteFacts(ctx, pack); err != nil && ctx.Err() == nil {
			log.Error("cannot complete the facts of events", "error", err)
		}
		select {
		case <-s.factsDue:
		case <-time.After(factsEvery):
		case <-ctx.Done():
			return
		}
	}
}

// CompleteFacts completes the facts of all events now. See [Service.TellFacts].
func (s *Service) CompleteFacts(ctx context.Context, pack func(context.Context, string) error) error {
	for {
		var due []store.FactsDue
		err := s.db.Read(ctx, func(tx *store.Tx) (err error) {
			due, err = tx.FactsDue(ctx, factsLimit)
			return err
		})
		if err != nil || len(due) == 0 {
			return err
		}
		var failed []error // a failure does not delay the others
		for _, d := range due {
			failed = append(failed, s.completeFacts(ctx, d, pack))
		}
		if err := errors.Join(failed...); err != nil {
			return err
		}
	}
}

// completeFacts completes those of one event. All is read before the transaction that writes. What
// belongs to a run that was removed meanwhile stays as it is.
func (s *Service) completeFacts(ctx context.Context, due store.FactsDue,
	pack func(context.Context, string) error) error {
	var event webhook.Event
	var overdue, compared bool
	err := s.db.Read(ctx, func(tx *store.Tx) (err error) {
		if event, err = tx.Event(ctx, due.EventID); err != nil {
			return err
		}
		overdue = tx.Now.Sub(event.CreatedAt) > factsPatience
		if ofWholeRun(event) {
			_, compared, err = mayCompare(ctx, tx, event.RunID)
		}
		return err
	})
	if err != nil && run.KindOf(err) != run.NotFound {
		return err
	}
	event.ID = due.EventID // also if the event was removed
	if err == nil && compared {
		err = pack(ctx, event.RunID)
	}
	if err == nil {
		err = s.lookForFacts(ctx, &event, due.Failed)
	}
	if run.KindOf(err) == run.NotFound {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("event %s: %w", due.EventID, err)
		if !overdue {
			return err
		}
	}
	return errors.Join(err, s.write(ctx, func(tx *store.Tx, e *effect) error {
		_, err := tx.LockRun(ctx, event.RunID)
		if err != nil && run.KindOf(err) != run.NotFound {
			return err
		}
		e.queued, err = tx.CompleteFacts(ctx, event)
		return err
	}))
}

// lookForFacts adds to an event the facts that need a search.
func (s *Service) lookForFacts(ctx context.Context, e *webhook.Event, failed []string) error {
	var facts webhook.Facts
	if err := json.Unmarshal(e.Facts, &facts); err != nil {
		return err
	}
	err := s.db.Read(ctx, func(tx *store.Tx) (err error) {
		facts, err = addFacts(ctx, tx, *e, facts, failed, s.link)
		return err
	})
	if err == nil {
		e.Facts = facts.Bytes()
	}
	return err
}

// ofWholeRun says that an event is about a whole run that is over.
func ofWholeRun(e webhook.Event) bool { return e.Scope == run.RunScope && e.Kind != webhook.RunStart }

// maxCompared is the most tests of a run that facts compare.
const maxCompared = 20_000

// mayCompare reads a run, and reports whether it has a branch and not too many tests.
func mayCompare(ctx context.Context, tx *store.Tx, runID string) (run.Run, bool, error) {
	r, err := tx.Run(ctx, runID)
	if err != nil || r.Commit.Branch == "" {
		return r, false, err
	}
	counts, err := tx.RunCounts(ctx, runID)
	return r, counts.Overall() <= maxCompared, err
}

// compare compares a run with earlier ones. It is nil if the run has no branch or too many tests, or if some of its
// results are not in the history yet.
func compare(ctx context.Context, tx *store.Tx, e webhook.Event) (*webhook.FactsComparison, error) {
	project, err := tx.Project(ctx, e.ProjectID)
	if err != nil {
		return nil, err
	}
	r, ok, err := mayCompare(ctx, tx, e.RunID)
	if err != nil || !ok {
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

// firstFailures lists the first failures of specs that failed, in the order of specs and tests.
func firstFailures(ctx context.Context, tx *store.Tx, e webhook.Event, failed []string,
	link LinkTo) ([]webhook.Failure, error) {
	var out []webhook.Failure
	budget := int64(factsBudget)
	for _, id := range failed {
		if len(out) >= webhook.MaxFactsFailures {
			break
		}
		s, err := tx.FailedSpec(ctx, id)
		if err != nil {
			return nil, err
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
