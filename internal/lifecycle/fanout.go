package lifecycle

import (
	"context"
	"slices"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// Result is the result of a run or one of its groups, to find out whether it is a
// recovery.
type Result struct {
	ProjectID string
	RunID     string
	Branch    string
	Scope     run.Scope
	Group     *run.Group // nil at run scope
	At        time.Time  // when it ended
}

// FailedBefore reports whether the result before this one, on the same branch, was
// a failure. At run scope that is the result of the last finished run. At group
// scope it is that of the same group, in the last finished run that had it. A run
// without a branch has no result before it.
func FailedBefore(ctx context.Context, tx *store.Tx, r Result) (bool, error) {
	if r.Branch == "" {
		return false, nil
	}
	var track *string
	if r.Scope == run.GroupScope {
		track = new(webhook.Track(*r.Group))
	}
	groups, err := tx.LastFinished(ctx, r.ProjectID, r.Branch, r.RunID, r.At, track)
	return webhook.HadFailed(groups), err
}

// FanOut stores an event and queues a delivery at each endpoint that wants it. It returns
// those endpoints, and whether the facts of the event have to be completed: see
// [Service.TellFacts]. s is the input of their filters. Whether a branch has recovered, and
// the facts, are only read if an endpoint needs them. group is nil at run scope. The run
// and its groups must already be stored.
func FanOut(ctx context.Context, tx *store.Tx, e webhook.Event, s webhook.Subject,
	group *run.Group) (queued []string, factsDue bool, err error) {
	var endpoints []webhook.Endpoint
	for _, scope := range e.Scopes() {
		list, err := tx.Listeners(ctx, e.ProjectID, scope)
		if err != nil {
			return nil, false, err
		}
		endpoints = append(endpoints, list...)
	}
	if slices.ContainsFunc(endpoints, func(l webhook.Endpoint) bool { return l.Filters.Result == webhook.Recovered }) {
		s.Results, err = webhook.WithRecovered(s.Results, func() (bool, error) {
			return FailedBefore(ctx, tx,
				Result{ProjectID: e.ProjectID, RunID: e.RunID, Branch: s.Branch, Scope: e.Scope, Group: group, At: e.CreatedAt})
		})
		if err != nil {
			return nil, false, err
		}
	}
	endpoints = slices.DeleteFunc(endpoints, func(l webhook.Endpoint) bool { return !l.Wants(e, s) })
	if e.Kind == webhook.TestStatus && len(endpoints) == 0 {
		return nil, false, nil // only endpoints that list this event get it
	}
	if slices.ContainsFunc(endpoints, webhook.Endpoint.NeedsFacts) {
		facts, err := knownFacts(ctx, tx, e)
		if err != nil {
			return nil, false, err
		}
		e.Facts, e.FactsDue = facts.Bytes(), e.Kind != webhook.RunStart
	}
	if err := tx.InsertEvent(ctx, e); err != nil {
		return nil, false, err
	}
	if e.FactsDue {
		// What is reported later is not in the facts, so it is decided now where failures are looked for.
		failed, err := tx.FailedSpecs(ctx, e.RunID, e.Group, webhook.MaxFactsFailures)
		if err != nil {
			return nil, false, err
		}
		if err := tx.AwaitFacts(ctx, e, failed); err != nil {
			return nil, false, err
		}
	}
	for _, endpoint := range endpoints {
		if _, err := tx.QueueDelivery(ctx, endpoint, e); err != nil {
			return nil, false, err
		}
		queued = append(queued, endpoint.ID)
	}
	return queued, e.FactsDue, nil
}
