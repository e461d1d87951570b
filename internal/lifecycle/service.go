// Package lifecycle changes the state of runs: join, claim, announce,
// complete, output, heartbeat, cancel, expire. One verb is one transaction: it
// locks the run, lets [run.Step] decide, and stores the new state together with its
// events, or nothing at all.
package lifecycle

import (
	"context"
	"strings"
	"sync"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// Service acts on runs. Its methods may be called from any goroutine.
type Service struct {
	db        *store.DB
	publicURL string
	queued    func(endpointIDs ...string)
	past      time.Time // see At
	link      LinkTo    // see LinkFiles

	factsDue chan struct{} // an event has facts to complete
	wake     chan struct{} // a deadline earlier than nextLook exists
	mu       sync.Mutex
	nextLook time.Time // until when the keeper sleeps
}

// New makes a Service. publicURL is the base of runUrl, without a trailing slash. After
// a commit, queued is called with the endpoints that have new deliveries.
func New(db *store.DB, publicURL string, queued func(endpointIDs ...string)) *Service {
	return &Service{db: db, publicURL: strings.TrimRight(publicURL, "/"), queued: queued,
		factsDue: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

// LinkFiles has the facts of events lead to screenshots. It is for the start.
func (s *Service) LinkFiles(link LinkTo) { s.link = link }

// LinkTo makes an address that shows an artifact to anyone who has it, for some time after an
// instant. It is nil if there are no such addresses.
func (s *Service) LinkTo() LinkTo { return s.link }

// At returns a service whose verbs act at an instant in the past: they use it for stored
// times and for decisions that depend on time. It is for importing a history while no
// server uses the database. The verbs make no events, so no webhook is sent for the
// past.
func (s *Service) At(instant time.Time) *Service {
	return &Service{db: s.db, publicURL: s.publicURL, queued: s.queued, factsDue: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), past: instant.UTC().Truncate(time.Microsecond)}
}

// instant is the time of a transaction.
func (s *Service) instant(tx *store.Tx) time.Time {
	if !s.past.IsZero() {
		return s.past
	}
	return tx.Now
}

// read runs the reads of a verb before its transaction.
func (s *Service) read(ctx context.Context, f func(*store.Tx) error) error {
	return s.db.Read(ctx, func(tx *store.Tx) error {
		tx.Now = s.instant(tx)
		return f(tx)
	})
}

// RunURL is the page of a run.
func (s *Service) RunURL(runID string) string { return s.publicURL + "/run/" + runID }

// effect is the work that a verb leaves for after the commit.
type effect struct {
	queued   []string  // endpoints with new deliveries
	factsDue bool      // an event has facts to complete
	deadline time.Time // a new one; zero if there is none
}

// write runs one verb.
func (s *Service) write(ctx context.Context, f func(*store.Tx, *effect) error) error {
	var e effect
	err := s.db.Write(ctx, func(tx *store.Tx) error {
		e = effect{} // the transaction may be a second try
		tx.Now = s.instant(tx)
		return f(tx, &e)
	})
	if err != nil {
		return err
	}
	if len(e.queued) > 0 {
		s.queued(e.queued...)
	}
	if e.factsDue {
		select {
		case s.factsDue <- struct{}{}:
		default: // they are being completed
		}
	}
	if !e.deadline.IsZero() {
		s.expect(e.deadline)
	}
	return nil
}

// step lets run.Step decide and stores the result: the run, its groups and the events.
func (s *Service) step(ctx context.Context, tx *store.Tx, e *effect, r run.Run, groups []run.Group,
	command run.Command) (run.Run, error) {
	next, groups, transitions, err := run.Step(r, groups, command, tx.Now)
	if err != nil {
		return r, err
	}
	return s.store(ctx, tx, e, r, next, groups, groups, transitions)
}

// store stores the groups that changed, the events of the transitions of
// groups, and the run if it changed.
func (s *Service) store(ctx context.Context, tx *store.Tx, e *effect, before, r run.Run, changed, groups []run.Group,
	transitions []run.Transition) (run.Run, error) {
	for _, g := range changed {
		if err := tx.UpdateGroup(ctx, g); err != nil {
			return r, err
		}
	}
	if len(transitions) == 0 && r.CloseAt.Equal(before.CloseAt) {
		return r, nil // the run's row has not changed
	}
	if !r.CloseAt.IsZero() {
		e.deadline = r.CloseAt
	}
	sequence := r.Sequence
	if s.past.IsZero() {
		r.Sequence += int64(len(transitions))
	}
	if err := tx.UpdateRun(ctx, r); err != nil {
		return r, err
	}
	return r, s.announce(ctx, tx, e, r, sequence, groups, transitions)
}

// announce makes the event of each transition. sequence is that of the event before. The
// run and the groups must already be stored, because events describe the stored state.
func (s *Service) announce(ctx context.Context, tx *store.Tx, e *effect, r run.Run, sequence int64, groups []run.Group,
	transitions []run.Transition) error {
	if len(transitions) == 0 || !s.past.IsZero() {
		return nil
	}
	commit, tags, defaultBranch, err := tx.RunDetails(ctx, r.ID)
	if err != nil {
		return err
	}
	described := r // the lock does not read the columns that only payloads need
	described.Commit, described.Tags = commit, tags
	for _, t := range transitions {
		sequence++
		event := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: r.ProjectID, RunID: r.ID, Scope: t.Scope,
			Kind: webhook.KindOf(t.To), Sequence: sequence, CreatedAt: tx.Now}
		var group *run.Group
		var counts run.Counts
		switch {
		case t.Scope == run.GroupScope:
			group, counts = &groups[t.Group], groups[t.Group].Counts
			event.Group = group.Name
		case t.To.Terminal():
			if counts, err = tx.RunCounts(ctx, r.ID); err != nil {
				return err
			}
			if err := expectStatus(ctx, tx, described, defaultBranch); err != nil {
				return err
			}
		}
		event.Payload = webhook.NewPayload(event.Kind, described, group, counts, s.RunURL(r.ID), defaultBranch).Bytes()
		subject := webhook.Subject{Branch: described.Commit.Branch, Tags: described.Tags,
			Results: webhook.ResultsOf(t.To, counts)}
		endpoints, factsDue, err := FanOut(ctx, tx, event, subject, group)
		if err != nil {
			return err
		}
		e.queued, e.factsDue = append(e.queued, endpoints...), e.factsDue || factsDue
	}
	return nil
}

// Hear counts as a report of the machine that has an instance, as part of a transaction. It locks the run of the
// instance and returns it.
func Hear(ctx context.Context, tx *store.Tx, instanceID string) (run.Run, error) {
	r, g, i, err := tx.LockInstance(ctx, instanceID)
	if err == nil && i.MachineID == "" {
		err = run.Missing("instance", instanceID) // no machine has this id
	}
	if err != nil {
		return r, err
	}
	return r, hear(ctx, tx, g)
}

// hear moves the deadline of a running group: any accepted request counts as a report.
func hear(ctx context.Context, tx *store.Tx, g run.Group) error {
	if g.State != run.Running {
		return nil
	}
	g.HeardAt = tx.Now
	return tx.HearGroup(ctx, g)
}
