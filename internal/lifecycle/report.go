package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"runbell/internal/run"
	"runbell/internal/store"
)

// CancelStatus is the response to a machine's report: whether it should stop, and why.
type CancelStatus struct {
	Cancelled bool
	Reason    string
}

func cancelStatus(r run.Run) CancelStatus {
	return CancelStatus{Cancelled: r.State == run.Canceled, Reason: CancelReason(r)}
}

// Announce stores the tests of a spec, before or after they ran. Announcing
// again changes nothing.
func (s *Service) Announce(ctx context.Context, instanceID string, a run.Announcement) (CancelStatus, error) {
	doc, err := document(a)
	if err != nil {
		return CancelStatus{}, err
	}
	var out CancelStatus
	err = s.report(ctx, instanceID, func(tx *store.Tx, _ *effect, r run.Run, g run.Group, i run.Instance) error {
		out = cancelStatus(r)
		return announce(ctx, tx, &g, &i, a, doc)
	})
	return out, err
}

// Complete stores the results of a spec, with its tests if the reporter sends both at
// once. Only the first results count; repeating them changes nothing.
func (s *Service) Complete(
	ctx context.Context, instanceID string, a *run.Announcement, o run.Outcome,
) (CancelStatus, error) {
	var announcement string
	var err error
	if a != nil {
		if announcement, err = document(a); err != nil {
			return CancelStatus{}, err
		}
		o = withMissing(o, *a)
	}
	out, err := s.complete(ctx, instanceID, a, announcement, o, false)
	if !errors.Is(err, errMissing) {
		return out, err
	}
	// What was announced before is only read now, because it may be large and this is rare. It
	// does not change any more.
	var announced run.Announcement
	if err := s.read(ctx, func(tx *store.Tx) (err error) {
		announced, err = tx.Announcement(ctx, instanceID)
		return err
	}); err != nil {
		return CancelStatus{}, err
	}
	return s.complete(ctx, instanceID, a, announcement, withMissing(o, announced), true)
}

// errMissing means that more tests were announced before than have results.
var errMissing = errors.New("some tests have no results")

// withMissing is for an outcome with fewer results than were announced: a spec must
// not pass because some of its tests were not reported.
func withMissing(o run.Outcome, a run.Announcement) run.Outcome {
	if len(a.Tests) <= len(o.Results) {
		return o
	}
	o = o.WithMissing(a)
	o.Warnings = slices.Concat(o.Warnings, run.Settle(o.Results, o.Exception))
	return o
}

// complete is the transaction of a Complete. It returns errMissing unless all is said to have results.
func (s *Service) complete(ctx context.Context, instanceID string, a *run.Announcement, announcement string,
	o run.Outcome, all bool) (CancelStatus, error) {
	doc, err := document(o)
	if err != nil {
		return CancelStatus{}, err
	}
	counts := o.Counts()
	var out CancelStatus
	err = s.report(ctx, instanceID, func(tx *store.Tx, e *effect, r run.Run, g run.Group, i run.Instance) (err error) {
		if a != nil {
			if err := announce(ctx, tx, &g, &i, *a, announcement); err != nil {
				return err
			}
		}
		if !i.CompletedAt.IsZero() {
			out = cancelStatus(r)
			return hear(ctx, tx, g)
		}
		if i.Announced > len(o.Results) && !all {
			return errMissing
		}
		for _, message := range o.Warnings {
			if err := tx.Warn(ctx, r.ID, run.Warning{Code: run.WarnMended, Message: message}); err != nil {
				return err
			}
		}
		i.CompletedAt, i.Counts, i.Duration, i.Exception = tx.Now, counts, o.Duration, o.Exception
		if err := tx.CompleteInstance(ctx, i, doc); err != nil {
			return err
		}
		g.Completed++
		g.Counts = g.Counts.Plus(counts)
		g.Counts.Announced -= i.Announced
		if r, err = s.step(ctx, tx, e, r, []run.Group{g}, run.Report); err != nil {
			return err
		}
		r, err = s.failFast(ctx, tx, e, r)
		out = cancelStatus(r)
		return err
	})
	return out, err
}

// failFast cancels the run when too many tests have failed or were skipped.
func (s *Service) failFast(ctx context.Context, tx *store.Tx, e *effect, r run.Run) (run.Run, error) {
	if r.FailFast == 0 || r.RunningGroups == 0 {
		return r, nil
	}
	counts, err := tx.RunCounts(ctx, r.ID)
	if err != nil {
		return r, err
	}
	bad := counts.Failures + counts.Skipped
	if bad < r.FailFast {
		return r, nil
	}
	return s.cancel(ctx, tx, e, r, "fail fast",
		fmt.Sprintf("%d tests failed or were skipped; the limit is %d", bad, r.FailFast))
}

// CheckRun returns an error of kind NotFound unless the run exists.
func (s *Service) CheckRun(ctx context.Context, id string) error {
	return s.db.Read(ctx, func(tx *store.Tx) error { return tx.CheckRun(ctx, id) })
}

// Output stores the console output of a spec. Only the first one counts.
func (s *Service) Output(ctx context.Context, instanceID, text string) error {
	return s.report(ctx, instanceID, func(tx *store.Tx, _ *effect, _ run.Run, g run.Group, i run.Instance) error {
		if err := tx.SetOutput(ctx, i, text); err != nil {
			return err
		}
		return hear(ctx, tx, g)
	})
}

// Hear counts as a report of the machine that has an instance.
func (s *Service) Hear(ctx context.Context, instanceID string) error {
	return s.write(ctx, func(tx *store.Tx, _ *effect) error {
		_, err := Hear(ctx, tx, instanceID)
		return err
	})
}

// Heartbeat counts as a report of a machine between its other reports.
func (s *Service) Heartbeat(ctx context.Context, runID, machineID string) (CancelStatus, error) {
	var out CancelStatus
	err := s.write(ctx, func(tx *store.Tx, _ *effect) error {
		r, g, _, err := tx.LockMachine(ctx, runID, machineID)
		if err != nil {
			return err
		}
		out = cancelStatus(r)
		return hear(ctx, tx, g)
	})
	return out, err
}

// report runs a verb on a claimed instance, its group and its run.
func (s *Service) report(ctx context.Context, instanceID string,
	f func(*store.Tx, *effect, run.Run, run.Group, run.Instance) error) error {
	return s.write(ctx, func(tx *store.Tx, e *effect) error {
		r, g, i, err := tx.LockInstance(ctx, instanceID)
		if err != nil {
			return err
		}
		if i.MachineID == "" {
			return run.Missing("instance", instanceID) // no machine has this id
		}
		if g.State == run.Running {
			g.HeardAt = tx.Now
		}
		return f(tx, e, r, g, i)
	})
}

// document is the stored form of a report. It may be large, so it is not copied.
func document(v any) (string, error) {
	var b strings.Builder
	err := json.MarshalWrite(&b, v)
	return b.String(), err
}

// announce stores an announcement once, and counts its tests as long as there are no
// results.
func announce(ctx context.Context, tx *store.Tx, g *run.Group, i *run.Instance, a run.Announcement, doc string) error {
	if !i.AnnouncedAt.IsZero() {
		return hear(ctx, tx, *g)
	}
	i.AnnouncedAt = tx.Now
	if i.CompletedAt.IsZero() {
		i.Announced = len(a.Tests)
		g.Counts.Announced += i.Announced
	}
	if err := tx.AnnounceInstance(ctx, *i, doc); err != nil {
		return err
	}
	return tx.UpdateGroup(ctx, *g)
}
