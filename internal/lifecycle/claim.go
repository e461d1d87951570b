package lifecycle

import (
	"context"
	"fmt"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Claim is a machine's request for specs to run.
type Claim struct {
	RunID     string
	GroupName string // "" is the machine's
	MachineID string
	Spec      string // "" is any; otherwise the spec that the reporter requires
	Attempt   int    // above 0 repeats a claim whose response may be lost
	Limit     int    // the largest number of specs
	// Late means that Spec already ran while the server was unreachable: the claim
	// succeeds even if its run is over, for the results that follow.
	Late bool
}

// Claimed is the result of a Claim. No instances means that none are left.
type Claimed struct {
	Instances []run.Instance
	Claimed   int // specs of the group that are claimed so far
	Total     int // specs of the group
}

// Claim gives specs to a machine. No two machines get the same spec, and a repeated claim
// gets the same specs again.
func (s *Service) Claim(ctx context.Context, c Claim) (Claimed, error) {
	var out Claimed
	err := s.write(ctx, func(tx *store.Tx, _ *effect) error {
		r, g, m, err := tx.LockMachine(ctx, c.RunID, c.MachineID)
		if err != nil {
			return err
		}
		if c.GroupName != "" && c.GroupName != m.GroupName {
			return run.Errorf(run.Refused, "This machine has joined group %q, not %q.", run.Clip(m.GroupName, 60),
				run.Clip(c.GroupName, 60))
		}
		switch {
		case c.Late && c.Spec != "":
		case r.State == run.Canceled:
			return canceled(r)
		case g.State == run.TimedOut:
			return silent(g)
		}
		list, again, err := handOut(ctx, tx, c, g, m)
		if err != nil {
			return err
		}
		if m.Unanswered {
			m.Unanswered = false
			if err := tx.UpdateMachine(ctx, m); err != nil {
				return err
			}
		}
		if !again {
			g.Claimed += len(list)
		}
		out = Claimed{Instances: list, Claimed: g.Claimed, Total: g.Specs}
		if again || len(list) == 0 {
			return hear(ctx, tx, g)
		}
		if g.State == run.Running {
			g.HeardAt = tx.Now
		}
		return tx.UpdateGroup(ctx, g)
	})
	return out, err
}

// handOut chooses the specs of a claim and stores who has them; again means that the
// machine already has them.
func handOut(ctx context.Context, tx *store.Tx, c Claim, g run.Group,
	m run.Machine) (list []run.Instance, again bool, err error) {
	number := g.Claimed + g.TakenBack + 1 // above those of all claims of the group so far
	if c.Spec != "" {
		i, err := tx.SpecInstance(ctx, c.RunID, m.GroupName, c.Spec)
		switch {
		case err != nil:
			return nil, false, err
		case i.MachineID == "":
			return []run.Instance{i}, false, tx.ClaimInstance(ctx, m, number, i)
		case i.MachineID == m.ID:
			return []run.Instance{i}, true, nil
		default:
			return nil, false, nil
		}
	}
	if c.Attempt > 0 || m.Unanswered {
		last, err := tx.LastClaim(ctx, m)
		if err != nil {
			return nil, false, err
		}
		// A retry comes soon after the claim that it repeats. A later one is a new claim
		// whose first try did not arrive. Within that time only a report can distinguish the
		// two. A spec that runs twice does less harm than a spec that is lost.
		soon := m.Unanswered || len(last) > 0 && tx.Now.Sub(last[0].ClaimedAt) < claimRetry(c.Attempt)
		if len(last) > 0 && !anyHeard(last) && soon {
			return last, true, nil
		}
	}
	if g.Claimed == g.Specs {
		return nil, false, nil
	}
	list, err = tx.ClaimNext(ctx, m, number, c.Limit)
	return list, false, err
}

// claimRetry is how long after a claim its n-th retry can come. Native Cypress is the
// slowest reporter: it waits 60 s for each response and pauses 30, 60, 120 s.
func claimRetry(n int) time.Duration {
	switch n {
	case 1:
		return 2 * time.Minute
	case 2:
		return 4 * time.Minute
	default:
		return 7 * time.Minute
	}
}

// anyHeard reports whether the machine has received its specs: it has reported one of
// them.
func anyHeard(list []run.Instance) bool {
	for _, i := range list {
		if !i.AnnouncedAt.IsZero() || !i.CompletedAt.IsZero() {
			return true
		}
	}
	return false
}

func canceled(r run.Run) error {
	return &run.Error{Kind: run.Refused, Code: "RUN_CANCELLED", Message: "Run is cancelled",
		Details: []string{CancelReason(r)}}
}

// CancelReason says in a line who canceled a run and why.
func CancelReason(r run.Run) string {
	if r.Cancellation == nil {
		return ""
	}
	if r.Cancellation.Reason == "" {
		return fmt.Sprintf("Canceled by %s", r.Cancellation.Actor)
	}
	return fmt.Sprintf("Canceled by %s: %s", r.Cancellation.Actor, r.Cancellation.Reason)
}

// Unanswered notes that the response to a machine's last claim could not be written, so
// that its next claim gets the same specs.
func (s *Service) Unanswered(ctx context.Context, runID, machineID string) error {
	return s.write(ctx, func(tx *store.Tx, _ *effect) error {
		_, _, m, err := tx.LockMachine(ctx, runID, machineID)
		if err != nil {
			return err
		}
		m.Unanswered = true
		return tx.UpdateMachine(ctx, m)
	})
}
