package lifecycle

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Join is a machine's wish to take part in a build.
type Join struct {
	ProjectID string
	CIBuildID string // "" is derived from CI, or else random
	Group     string // "" is the implicit group
	MachineID string // "" makes a new one; else the client chose it
	// Fingerprint identifies the request: the same one with Attempt above 0 is
	// a retry.
	Fingerprint string
	Attempt     int
	Specs       []string // none twice
	// SpecHash identifies the specs as the reporter's protocol compares them: all
	// machines of a group have the same one, or Join returns an OtherSpecsError.
	SpecHash string
	Alone    bool // the group must not have other machines
	Batches  bool // the machine decides how many specs it claims at once
	// Late says that the specs have been run already, while nobody could be
	// asked: their results are taken even where the run is over.
	Late     bool
	Commit   run.Commit
	Tags     []string
	CI       run.CI
	Client   run.Client
	Platform run.Platform
	FailFast *int // nil is the project's; 0 is never
}

// Joined is the answer to a Join.
type Joined struct {
	RunID     string
	GroupName string
	MachineID string
	RunURL    string
	IsNew     bool // this request started the run
	// InactivityTimeout is how long the group may be silent.
	InactivityTimeout time.Duration
	// Order is how the specs are handed out.
	Order []run.Expected
	// Machines is how many machines a group of the project's latest runs had, for
	// a machine that decides how many specs it claims at once; 0 is unknown.
	Machines int
}

// retryWindow is how long after a request its retry can come: cypress-cloud
// waits four times 30 s for an answer and pauses 45 s between, native Cypress
// four times 60 s and 210 s.
const retryWindow = 10 * time.Minute

// Join takes a machine into a group of a run, and starts either if it is new.
func (s *Service) Join(ctx context.Context, j Join) (Joined, error) {
	if j.CIBuildID == "" {
		j.CIBuildID = j.CI.BuildID()
	}
	newRun := run.Run{ProjectID: j.ProjectID, CIBuildID: j.CIBuildID, Commit: j.Commit, Tags: j.Tags, CI: j.CI, Client: j.Client}
	if j.MachineID == "" {
		j.MachineID = uuid.NewString()
	}
	// Read before the lock: an average that misses the last moment does no harm.
	var recent map[string]time.Duration
	var machines int
	err := s.read(ctx, func(tx *store.Tx) (err error) {
		newRun.ID = newRunID(tx.Now)
		recent, err = tx.RecentDurations(ctx, j.ProjectID)
		if err == nil && j.Batches {
			machines, err = tx.RecentMachines(ctx, j.ProjectID, j.CIBuildID)
		}
		return err
	})
	if err != nil {
		return Joined{}, err
	}
	order := run.HandOutOrder(j.Specs, recent)
	instances := make([]run.Instance, len(order))
	for i, spec := range order {
		instances[i] = run.Instance{ID: newInstanceID(), Spec: spec.Spec, Position: i}
	}

	var joined Joined
	err = s.write(ctx, func(tx *store.Tx, e *effect) error {
		buildID, err := buildID(ctx, tx, j)
		if err != nil {
			return err
		}
		newRun.CIBuildID = buildID
		project, err := tx.Project(ctx, j.ProjectID)
		if err != nil {
			return err
		}
		r, isNew, err := findOrStart(ctx, tx, project, newRun, j)
		if err != nil {
			return err
		}
		groupName := j.Group
		if groupName == "" {
			groupName = buildID
		}
		joined = Joined{RunID: r.ID, GroupName: groupName, MachineID: j.MachineID, RunURL: s.RunURL(r.ID), IsNew: isNew, Order: order, Machines: machines}
		var g run.Group
		newGroup, known := isNew, false
		if !isNew {
			g, err = tx.Group(ctx, r.ID, groupName)
			if newGroup = run.KindOf(err) == run.NotFound; err != nil && !newGroup {
				return err
			}
			joined.InactivityTimeout = g.InactivityTimeout
			m, retry, err := alreadyJoined(ctx, tx, j, r.ID, groupName)
			if err != nil && run.KindOf(err) != run.NotFound {
				return err
			}
			if retry {
				joined.MachineID = m.ID // a retry changes nothing
				return nil
			}
			known = err == nil
		}
		if newGroup {
			g = run.Group{RunID: r.ID, Name: groupName, Explicit: j.Group != "", Platform: j.Platform, SpecHash: j.SpecHash,
				Specs: len(j.Specs), CreatedAt: tx.Now, HeardAt: tx.Now, InactivityTimeout: project.InactivityTimeout}
			e.deadline = g.Deadline()
			joined.InactivityTimeout = g.InactivityTimeout
		}
		machine := run.Machine{ID: j.MachineID, RunID: r.ID, GroupName: groupName, Fingerprint: j.Fingerprint, Platform: j.Platform, JoinedAt: tx.Now}
		next, groups, transitions, err := run.Step(r, []run.Group{g}, run.Join, tx.Now)
		over := errors.Is(err, run.ErrOver) || errors.Is(err, run.ErrGroupOver) || errors.Is(err, run.ErrSilent)
		switch {
		case over && j.Late && !newGroup && !known && g.SpecHash == j.SpecHash:
			return tx.InsertMachine(ctx, machine) // nothing else changes
		case errors.Is(err, run.ErrOver):
			how := map[run.State]string{run.Finished: "finished", run.TimedOut: "timed out", run.Canceled: "canceled"}[r.State]
			return alreadyComplete(fmt.Sprintf("The run of build %q is over (%s).", run.Clip(r.CIBuildID, 80), how), s.RunURL(r.ID))
		case errors.Is(err, run.ErrGroupOver):
			return alreadyComplete(fmt.Sprintf("Group %q of build %q is over (finished with failures).", run.Clip(groupName, 80), run.Clip(r.CIBuildID, 80)), s.RunURL(r.ID))
		case errors.Is(err, run.ErrSilent):
			return silent(g)
		case err != nil:
			return err
		case !newGroup && g.SpecHash != j.SpecHash:
			return otherSpecs(ctx, tx, g)
		case !newGroup && !known && j.Alone:
			return notUnique(g)
		}
		if groups[0].State == run.Running {
			groups[0].HeardAt = tx.Now
		}
		changed := groups
		if newGroup {
			if err := tx.InsertGroup(ctx, groups[0]); err != nil {
				return err
			}
			changed = nil // inserted as it is
			for i := range instances {
				instances[i].RunID, instances[i].GroupName = r.ID, groupName
			}
			if err := tx.InsertInstances(ctx, instances); err != nil {
				return err
			}
		}
		if known {
			_, err = s.store(ctx, tx, e, r, next, changed, groups, transitions)
			return err
		}
		if err := tx.InsertMachine(ctx, machine); err != nil {
			return err
		}
		_, err = s.store(ctx, tx, e, r, next, changed, groups, transitions)
		return err
	})
	return joined, err
}

// buildID names the build: as the client does, as CI does, as the request this
// one repeats, or by chance.
func buildID(ctx context.Context, tx *store.Tx, j Join) (string, error) {
	if j.CIBuildID != "" {
		return j.CIBuildID, nil
	}
	if j.Attempt > 0 {
		id, err := tx.BuildJoinedWith(ctx, j.ProjectID, j.Fingerprint, tx.Now.Add(-retryWindow))
		if run.KindOf(err) != run.NotFound {
			return id, err
		}
	}
	return "local-" + randomHex(8), nil
}

// findOrStart locks the run of a build. A new one has state "" until run.Step
// starts it; its row must be there before, for two machines may start it at once.
func findOrStart(ctx context.Context, tx *store.Tx, project run.Project, r run.Run, j Join) (run.Run, bool, error) {
	found, err := tx.LockBuild(ctx, r.ProjectID, r.CIBuildID)
	if run.KindOf(err) != run.NotFound {
		return found, false, err
	}
	r.FailFast, r.CompletionDelay, r.CreatedAt = project.FailFast, project.CompletionDelay, tx.Now
	if j.FailFast != nil {
		r.FailFast = *j.FailFast
	}
	inserted, err := tx.InsertRun(ctx, r)
	if err != nil || inserted {
		return r, inserted, err
	}
	found, err = tx.LockBuild(ctx, r.ProjectID, r.CIBuildID)
	return found, false, err
}

// alreadyJoined finds the machine that joined before under the same name, or
// with the same request; retry says that this is that request again.
func alreadyJoined(ctx context.Context, tx *store.Tx, j Join, runID, group string) (m run.Machine, retry bool, err error) {
	if j.Attempt > 0 {
		m, err = tx.MachineByFingerprint(ctx, runID, group, j.Fingerprint)
		if err == nil && tx.Now.Sub(m.JoinedAt) < retryWindow {
			return m, true, nil
		}
		if err != nil && run.KindOf(err) != run.NotFound {
			return m, false, err
		}
	}
	m, err = tx.Machine(ctx, runID, j.MachineID)
	if err == nil && m.GroupName != group {
		err = run.Errorf(run.Refused, "The machine %q has joined group %q of this run already: a machine can be in one group.",
			run.Clip(m.ID, 60), run.Clip(m.GroupName, 60))
	}
	return m, false, err
}

func alreadyComplete(message, url string) error {
	return &run.Error{Kind: run.Refused, Code: "ALREADY_COMPLETE", Message: message,
		Details: []string{
			"Use a new --ci-build-id for each attempt of a build, for example with the run attempt in it: otherwise no spec would run and a failed pipeline would turn green.",
			"The earlier run: " + url,
		}}
}

func silent(g run.Group) error {
	return &run.Error{Kind: run.Refused, Code: "RUN_TIMED_OUT",
		Message: fmt.Sprintf("Run timed out: no report from group %q for %s.", run.Clip(g.Name, 80), g.InactivityTimeout),
		Details: []string{"If specs take longer than that, raise the project's inactivity timeout (inactivityTimeoutSeconds), then start a new run."}}
}

func notUnique(g run.Group) error {
	return &run.Error{Kind: run.Refused, Code: "RUN_GROUP_NAME_NOT_UNIQUE",
		Message: fmt.Sprintf("Another machine has joined group %q already.", run.Clip(g.Name, 80)),
		Details: []string{"Give every machine --parallel to share the group's specs, or give this one a --group of its own."}}
}

// OtherSpecsError says that a machine's specs are not those of the group it
// wants to join. What differs is said in the words of its reporter.
type OtherSpecsError struct {
	Group string
	Specs []string // of the group
}

func (e *OtherSpecsError) Error() string { return e.Unwrap().Error() }

// Unwrap is what a reporter is told whose protocol has no words of its own.
func (e *OtherSpecsError) Unwrap() error {
	return run.Errorf(run.Refused, "This machine has other specs than group %q.", run.Clip(e.Group, 80))
}

func otherSpecs(ctx context.Context, tx *store.Tx, g run.Group) error {
	specs, err := tx.Specs(ctx, g.RunID, g.Name)
	if err != nil {
		return err
	}
	return &OtherSpecsError{Group: g.Name, Specs: specs}
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// newRunID begins with the time, so that what is stored of the runs of one time
// lies together in the indexes: otherwise each run would have a page of its own in
// six of them. 80 random bits follow, for a public run is shown to who knows its id.
func newRunID(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:])
	return hex.EncodeToString(b[:])
}

// newInstanceID is a UUID that starts with the time, so that rows of one time lie
// together in the index.
func newInstanceID() string { return uuid.Must(uuid.NewV7()).String() }
