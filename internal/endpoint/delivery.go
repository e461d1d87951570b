package endpoint

import (
	"context"
	"slices"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// Test queues a webhook with sample data and returns the id of the delivery.
func (s *Service) Test(ctx context.Context, id string, kind webhook.Kind) (string, error) {
	if err := oneOf("event", kind, webhook.AllKinds()); err != nil {
		return "", err
	}
	var sample webhook.ExtendedPayload
	err := s.db.Read(ctx, func(tx *store.Tx) error {
		e, err := tx.Endpoint(ctx, id)
		if err != nil {
			return err
		}
		project, err := tx.Project(ctx, e.ProjectID)
		sample = Sample(kind, project, s.publicURL, tx.Now)
		return err
	})
	if err != nil {
		return "", err
	}
	payload, facts := sample.Payload.Bytes(), sample.Facts.Bytes()
	var deliveryID string
	err = s.db.Write(ctx, func(tx *store.Tx) error {
		e, err := s.enabled(ctx, tx, id)
		if err != nil {
			return err
		}
		event := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: e.ProjectID, Scope: e.Scope, Kind: kind,
			CreatedAt: tx.Now, Payload: payload}
		if e.NeedsFacts() {
			event.Facts = facts
		}
		deliveryID, err = tx.InsertTest(ctx, e, event)
		return err
	})
	if err == nil {
		s.changed(id)
	}
	return deliveryID, err
}

// enabled locks an endpoint and refuses one to which nothing is sent.
func (s *Service) enabled(ctx context.Context, tx *store.Tx, id string) (webhook.Endpoint, error) {
	e, err := lock(ctx, tx, id)
	if err == nil && !e.Enabled {
		err = run.Errorf(run.Conflict, "The webhook is disabled, and nothing is sent to it: enable it first.")
	}
	return e, err
}

// Sample is what a test says: what an event of a project's run looks like that has run until
// an instant.
func Sample(kind webhook.Kind, project run.Project, publicURL string, at time.Time) webhook.ExtendedPayload {
	r := run.Run{ID: "00000000000000000000000000000000", CIBuildID: "runbell-test", Tags: []string{"test"},
		Commit: run.Commit{
			SHA: "5a7edc9a156e417068060d67109021351fc7d9b8", Branch: "feature/button-color", AuthorName: "Ada Example",
			AuthorEmail: "ada@example.com",
			Message:     "feat: change the color of the button", RemoteOrigin: "https://github.com/example/shop.git"},
		CreatedAt: at.Add(-4 * time.Minute), FinishedAt: at,
		State: map[webhook.Kind]run.State{webhook.RunFinish: run.Finished, webhook.RunTimeout: run.TimedOut,
			webhook.RunCanceled: run.Canceled, webhook.TestStatus: run.Finished}[kind],
		CI: run.CI{Provider: "githubActions",
			Params: map[string]string{"githubRepository": "example/shop", "githubRunId": "123456789"}}}
	if r.State == run.Canceled {
		r.Cancellation = &run.Cancellation{Actor: "Ada Example", Reason: "The deployment was withdrawn.", At: at}
	}
	counts := map[webhook.Kind]run.Counts{
		webhook.RunStart:    {},
		webhook.RunFinish:   {Passes: 40, Failures: 1, Pending: 1, Retries: 3, Flaky: 1},
		webhook.RunTimeout:  {Passes: 12},
		webhook.RunCanceled: {Passes: 25, Failures: 3},
		webhook.TestStatus:  {Passes: 40, Failures: 1, Pending: 1, Retries: 3, Flaky: 1},
	}[kind]
	groups := []run.Group{{Name: r.CIBuildID, State: r.State, Specs: 12, Completed: 12, Counts: counts,
		CreatedAt: r.CreatedAt, HeardAt: at, FinishedAt: at, Platform: run.Platform{OSName: "linux",
			OSVersion: "Ubuntu - 24.04", BrowserName: "chrome", BrowserVersion: "141.0.7390.54"}}}
	var failures []webhook.Failure
	if counts.Failures > 0 {
		failures = []webhook.Failure{{Group: r.CIBuildID, Spec: "cypress/e2e/cart.cy.ts",
			Title: []string{"Cart", "shows the total"}, Error: "AssertionError: expected '€ 10.00' to equal '€ 12.00'"}}
	}
	if kind == webhook.RunStart {
		r.CreatedAt, groups[0].CreatedAt = at, at
	}
	sample := webhook.ExtendedPayload{
		Payload: webhook.NewPayload(kind, r, nil, counts, publicURL+"/run/"+r.ID, project.DefaultBranch),
		Facts:   webhook.NewFacts(webhook.Event{Scope: run.RunScope, Kind: kind, CreatedAt: at}, project, r, groups),
	}
	if kind != webhook.RunStart {
		changed := webhook.FactsChanges{Total: 1, Tests: []webhook.FactsTest{
			webhook.NewFactsTest("cypress/e2e/cart.cy.ts", []string{"Cart", "shows the total"})}}
		none := webhook.FactsChanges{Tests: []webhook.FactsTest{}}
		sample.Facts = sample.Facts.With(groups, failures, &webhook.FactsComparison{DefaultBranch: &webhook.FactsCompared{
			RunID: "11111111111111111111111111111111", BuildID: "runbell-test-before", BranchName: "main",
			CreatedAt: webhook.Time{Time: at.Add(-time.Hour)}, NewlyFailing: changed, StillFailing: none, NewlyFlaky: none,
			Fixed: none, NewTests: none, Slower: none}})
	}
	if kind == webhook.TestStatus {
		sample.Changes = &webhook.TestChanges{Total: 1, Tests: []webhook.TestChange{{
			Signature: run.Signature(project.ID, "cypress/e2e/cart.cy.ts", []string{"Cart", "shows the total"}),
			Spec:      "cypress/e2e/cart.cy.ts", Title: []string{"Cart", "shows the total"}, From: "healthy", To: "flaky"}}}
	}
	return sample
}

// Retry queues a delivery again, to be sent at once, with the whole schedule
// ahead: one that failed, one that was delivered, or one that waits for a retry.
func (s *Service) Retry(ctx context.Context, deliveryID string) (webhook.Delivery, error) {
	var d webhook.Delivery
	read := func(tx *store.Tx) (err error) {
		d, err = tx.Delivery(ctx, deliveryID)
		return err
	}
	// What the endpoint of a delivery is never changes, so it is read before the transaction.
	if err := s.db.Read(ctx, read); err != nil {
		return d, err
	}
	err := s.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := s.enabled(ctx, tx, d.EndpointID); err != nil {
			return err
		}
		if err := tx.RequeueDelivery(ctx, deliveryID); err != nil {
			return err
		}
		return read(tx)
	})
	if err == nil {
		s.changed(d.EndpointID)
	}
	return d, err
}

// Replay says which deliveries of an endpoint are sent again.
type Replay struct {
	Since  time.Time // when they were first queued
	Until  time.Time // zero is now
	All    bool      // those that were delivered too, not only those that failed
	RunID  string    // "" is any run
	DryRun bool      // count only
}

func (r Replay) filter(endpointID string, now time.Time) store.DeliveryFilter {
	f := store.DeliveryFilter{EndpointID: endpointID, RunID: r.RunID, Since: r.Since, Until: r.Until,
		States: []webhook.DeliveryState{webhook.Failed}}
	if r.All {
		f.States = append(f.States, webhook.Delivered)
	}
	if f.Until.IsZero() || f.Until.After(now) {
		f.Until = now.Add(time.Microsecond)
	}
	return f
}

// Replay sends deliveries again, with their first ids and bodies, each run's in
// order. It answers how many.
func (s *Service) Replay(ctx context.Context, id string, r Replay, by string) (int64, error) {
	var n int64
	var f store.DeliveryFilter
	err := s.db.Read(ctx, func(tx *store.Tx) error {
		e, err := tx.Endpoint(ctx, id)
		if err != nil {
			return err
		}
		if !r.DryRun && !e.Enabled {
			return run.Errorf(run.Conflict, "The webhook is disabled, and nothing is sent to it: enable it first.")
		}
		f = r.filter(id, tx.Now)
		n, err = tx.CountDeliveries(ctx, f)
		return err
	})
	if err != nil || r.DryRun || n == 0 {
		return n, err
	}
	n = 0
	var after store.Position
	for first := true; ; first = false {
		// They are found outside of the transaction, because they may be few among many.
		var ids []string
		if ids, after, err = s.behind(ctx, f, after); err != nil || len(ids) == 0 {
			return n, err
		}
		queued := 0
		err := s.db.Write(ctx, func(tx *store.Tx) (err error) {
			if err = tx.LockLane(ctx, id); err != nil {
				return err
			}
			if first {
				if err = tx.Note(ctx, id, webhook.WasReplayed, r.describe(by)); err != nil {
					return err
				}
			}
			queued, err = tx.RequeueDeliveries(ctx, ids)
			return err
		})
		s.changed(id)
		if err != nil {
			return n, err
		}
		n += int64(queued)
	}
}

// behind lists some deliveries that a filter finds behind a place, oldest first, and
// the place of the last one. It lists none when there are no more.
func (s *Service) behind(ctx context.Context, f store.DeliveryFilter, after store.Position) ([]string, store.Position,
	error) {
	var ids []string
	err := s.db.Read(ctx, func(tx *store.Tx) error {
		list, _, err := tx.Deliveries(ctx, f, store.Page{Limit: chunk, Before: &after})
		for _, d := range slices.Backward(list) { // a list has the newest first
			ids = append(ids, d.ID)
			after = store.Position{At: d.CreatedAt, ID: d.ID}
		}
		return err
	})
	return ids, after, err
}

// describe is for the history of the endpoint.
func (r Replay) describe(by string) string {
	what := "Failed deliveries"
	if r.All {
		what = "All deliveries"
	}
	if r.RunID != "" {
		what += " of run " + r.RunID
	}
	if !r.Since.IsZero() {
		what += " since " + r.Since.Format(time.RFC3339)
	}
	if !r.Until.IsZero() {
		what += " until " + r.Until.Format(time.RFC3339)
	}
	return what + " redelivered " + by + "."
}
