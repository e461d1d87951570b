package lifecycle

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Join is a machine's request to take part in a build.
type Join struct {
	ProjectID string
	CIBuildID string // "" is derived from CI, or random
	RunID     string // of an imported run, if it is new; "" makes one
	Group     string // "" is the implicit group
	MachineID string // "" makes a new one; otherwise the reporter chose it
	// Fingerprint identifies the request: the same one with Attempt above 0 is
	// a retry.
	Fingerprint string
	Attempt     int
	Specs       []string // without duplicates
	// SpecHash identifies the specs in the way in which the reporter's protocol compares
	// them. If two machines of a group differ, Join returns an OtherSpecsError.
	SpecHash string
	// Parallel means that the machine shares the specs of its group with others.
	Parallel bool
	Batches  bool // the machine decides how many specs it claims at once
	// Late means that the specs already ran while the server was unreachable: their
	// results are accepted even if the run is over.
	Late     bool
	Commit   run.Commit
	Tags     []string
	CI       run.CI
	Client   run.Client
	Platform run.Platform
	FailFast *int          // nil is the project's setting; 0 is off
	Warnings []run.Warning // about the request itself
}

// Joined is the result of a Join.
type Joined struct {
	RunID     string
	GroupName string
	MachineID string
	RunURL    string
	IsNew     bool // this request started the run
	// InactivityTimeout is how long the group may go without a report.
	InactivityTimeout time.Duration
	// Order is how the specs are handed out.
	Order []run.Expected
	// Machines is how many machines a group of the project's latest runs had, for
	// a machine that decides how many specs it claims at once; 0 is unknown.
	Machines int
	// Warnings are for the person who started the machine.
	Warnings []run.Warning
}

// retryWindow is how long after a request its retry can come. cypress-cloud waits four
// times 30 s for a response and pauses 45 s in total; native Cypress waits four times
// 60 s and pauses 210 s.
const retryWindow = 10 * time.Minute

// Join takes a machine into a group of a run, and starts either if it is new.
func (s *Service) Join(ctx context.Context, j Join) (Joined, error) {
	if j.MachineID == "" {
		j.MachineID = uuid.NewString()
	}
	v := joining{Service: s, Join: j, derived: j.CIBuildID == ""}
	if v.derived {
		v.CIBuildID = j.CI.BuildID(j.Commit)
	}
	// Read before the lock: a slightly old average does no harm.
	err := s.read(ctx, func(tx *store.Tx) error {
		if v.runID = j.RunID; v.runID == "" {
			v.runID = newRunID(tx.Now)
		}
		recent, err := tx.RecentDurations(ctx, j.ProjectID)
		if err == nil && j.Batches {
			v.machines, err = tx.RecentMachines(ctx, j.ProjectID, v.CIBuildID)
		}
		v.order = run.HandOutOrder(j.Specs, recent)
		return err
	})
	if err != nil {
		return Joined{}, err
	}
	var joined Joined
	err = s.write(ctx, func(tx *store.Tx, e *effect) (err error) {
		joined, err = v.join(ctx, tx, e)
		return err
	})
	return joined, err
}

// joining is a Join in progress.
type joining struct {
	*Service
	Join
	derived  bool   // the build id is not from the reporter
	runID    string // of the run, if it is new
	order    []run.Expected
	machines int // see [Joined.Machines]
}

// place is where a machine joins.
type place struct {
	project  run.Project
	run      run.Run
	group    run.Group
	newRun   bool
	newGroup bool
	known    bool   // the machine has joined before
	differs  string // how the machine's commit differs from the run's, see [run.Commit.Disagreement]
}

func (v joining) join(ctx context.Context, tx *store.Tx, e *effect) (Joined, error) {
	p, err := v.findRun(ctx, tx)
	if err != nil {
		return Joined{}, err
	}
	retried, err := v.findGroup(ctx, tx, &p)
	if err != nil {
		return Joined{}, err
	}
	joined := Joined{RunID: p.run.ID, GroupName: p.group.Name, MachineID: v.MachineID, RunURL: v.RunURL(p.run.ID),
		IsNew: p.newRun, Order: v.order, Machines: v.machines, InactivityTimeout: p.group.InactivityTimeout}
	if retried != "" {
		joined.MachineID = retried // a retry changes nothing
		return joined, nil
	}
	next, groups, transitions, err := run.Step(p.run, []run.Group{p.group}, run.Join, tx.Now)
	idle, err := v.admit(ctx, tx, p, err)
	if err != nil {
		return Joined{}, err
	}
	joined.Warnings = v.warnings(p, idle)
	if idle {
		return joined, v.addMachine(ctx, tx, p)
	}
	for _, w := range joined.Warnings {
		if err := tx.Warn(ctx, p.run.ID, w); err != nil {
			return Joined{}, err
		}
	}
	return joined, v.begin(ctx, tx, e, p, next, groups[0], transitions)
}

// findRun locks the run of the build, or inserts it. Machines that test different commits
// belong to two builds, unless the reporter gave them the same build id.
func (v joining) findRun(ctx context.Context, tx *store.Tx) (place, error) {
	id, err := buildID(ctx, tx, v.Join)
	if err != nil {
		return place{}, err
	}
	project, err := tx.Project(ctx, v.ProjectID)
	if err != nil {
		return place{}, err
	}
	p := place{project: project}
	if p.run, p.newRun, err = v.findOrStart(ctx, tx, project, id); err != nil || p.newRun {
		return p, err
	}
	commit, _, _, err := tx.RunDetails(ctx, p.run.ID)
	if err != nil {
		return p, err
	}
	p.differs = commit.Disagreement(v.Commit)
	if p.differs != "" && v.derived {
		p.differs = ""
		p.run, p.newRun, err = v.findOrStart(ctx, tx, project, run.Clip(id, run.MaxNameLength-20)+"-"+v.Commit.Identity())
	}
	return p, err
}

// findOrStart locks the run of a build. A new run has state "" until run.Step starts it.
// Its row is inserted before that, because two machines may start it at the same time.
func (v joining) findOrStart(ctx context.Context, tx *store.Tx, project run.Project, id string) (run.Run, bool, error) {
	found, err := tx.LockBuild(ctx, v.ProjectID, id)
	if run.KindOf(err) != run.NotFound {
		return found, false, err
	}
	r := run.Run{ID: v.runID, ProjectID: v.ProjectID, CIBuildID: id, Commit: v.Commit, Tags: v.Tags, CI: v.CI,
		Client: v.Client, FailFast: project.FailFast, CompletionDelay: project.CompletionDelay, CreatedAt: tx.Now}
	if v.FailFast != nil {
		r.FailFast = *v.FailFast
	}
	inserted, err := tx.InsertRun(ctx, r)
	if err != nil || inserted {
		return r, inserted, err
	}
	found, err = tx.LockBuild(ctx, v.ProjectID, id)
	return found, false, err
}

// findGroup sets the group of the place, and whether the machine has joined it before. It
// returns the machine of the request that this one repeats, or "".
func (v joining) findGroup(ctx context.Context, tx *store.Tx, p *place) (retried string, err error) {
	fresh := run.Group{RunID: p.run.ID, Name: v.Group, Explicit: v.Group != "", Parallel: v.Parallel, Platform: v.Platform,
		SpecHash: v.SpecHash, Specs: len(v.Specs), CreatedAt: tx.Now, HeardAt: tx.Now,
		InactivityTimeout: p.project.InactivityTimeout}
	if fresh.Name == "" {
		fresh.Name = p.run.CIBuildID
	}
	p.group, p.newGroup = fresh, true
	if p.newRun {
		return "", nil
	}
	switch found, err := tx.Group(ctx, p.run.ID, fresh.Name); {
	case err == nil:
		p.group, p.newGroup = found, false
	case run.KindOf(err) != run.NotFound:
		return "", err
	}
	if p.newGroup { // the end of a run may end every group, in one transaction
		switch groups, err := tx.CountGroups(ctx, p.run.ID); {
		case err != nil:
			return "", err
		case groups >= run.MaxGroups:
			return "", run.Errorf(run.Refused, "The run of build %q has %d groups, and a run can have no more. Give other "+
				"machines the same --group, or another --ci-build-id.", run.Clip(p.run.CIBuildID, 80), groups)
		}
	}
	m, retry, err := alreadyJoined(ctx, tx, v.Join, p.run.ID, fresh.Name)
	if retry {
		return m.ID, nil
	}
	p.known = err == nil
	if run.KindOf(err) == run.NotFound {
		err = nil
	}
	return "", err
}

// admit decides whether the machine may join. stepped is the error of run.Step. idle
// means that nothing is left to do and everything passed: the machine gets no spec and
// changes nothing.
func (v joining) admit(ctx context.Context, tx *store.Tx, p place, stepped error) (idle bool, err error) {
	g := p.group
	sameSpecs := !p.newGroup && g.SpecHash == v.SpecHash
	over := stepped != nil || g.State == run.Finished
	switch {
	case stepped != nil && !errors.Is(stepped, run.ErrOver) && !errors.Is(stepped, run.ErrGroupOver) &&
		!errors.Is(stepped, run.ErrSilent):
		return false, stepped
	case over && v.Late && !p.known && sameSpecs:
		return true, nil
	case over && sameSpecs && v.Parallel && g.Parallel && g.State == run.Finished && g.Counts.Green() && p.differs == "":
		return true, nil
	case errors.Is(stepped, run.ErrOver):
		how := map[run.State]string{run.Finished: "finished", run.TimedOut: "timed out",
			run.Canceled: "canceled"}[p.run.State]
		err := alreadyComplete(fmt.Sprintf("The run of build %q is over (%s).", run.Clip(p.run.CIBuildID, 80), how),
			v.RunURL(p.run.ID))
		if p.newGroup && v.Group != "" && p.run.State == run.Finished {
			err.Details = append([]string{fmt.Sprintf("If group %q belongs to the same attempt, it came too late: a group "+
				"can join until %s after the last one ended. Raise the project's completion delay (completionDelaySeconds).",
				run.Clip(v.Group, 80), p.run.CompletionDelay)}, err.Details...)
		}
		return false, err
	case errors.Is(stepped, run.ErrGroupOver):
		return false, alreadyComplete(fmt.Sprintf("Group %q of build %q is over (finished with failures).",
			run.Clip(g.Name, 80), run.Clip(p.run.CIBuildID, 80)), v.RunURL(p.run.ID))
	case errors.Is(stepped, run.ErrSilent):
		return false, silent(g)
	case p.newGroup:
		return false, nil
	case !sameSpecs:
		return false, otherSpecs(ctx, tx, g)
	case !p.known && !v.Late && (!v.Parallel || !g.Parallel):
		return false, notShared(g, v.Parallel)
	default:
		return false, otherPlatform(g, v.Platform)
	}
}

// warnings returns the warnings for people about the machine that joins.
func (v joining) warnings(p place, idle bool) []run.Warning {
	out := slices.Clone(v.Warnings)
	if p.differs != "" {
		out = append(out, run.Warning{Code: run.WarnDisagree, Message: fmt.Sprintf(
			"The machines of build %q do not test the same thing: this one has another %s than the first. Their results are "+
				"shown as one run. Give each build a --ci-build-id of its own.",
			run.Clip(p.run.CIBuildID, 80), p.differs)})
	}
	if what := v.Platform.Differs(p.group.Platform); !p.newGroup && what != "" {
		out = append(out, run.Warning{Code: run.WarnPlatform,
			Message: fmt.Sprintf("The machines of group %q differ: %s.", run.Clip(p.group.Name, 80), what)})
	}
	if idle && !v.Late {
		out = append(out, run.Warning{Code: run.WarnNothingToDo, Message: fmt.Sprintf(
			"Group %q has finished, and all of its tests passed: there is nothing left to run for this machine.",
			run.Clip(p.group.Name, 80))})
	}
	return out
}

// begin stores the changes of the join.
func (v joining) begin(ctx context.Context, tx *store.Tx, e *effect, p place, next run.Run, g run.Group,
	transitions []run.Transition) error {
	if g.State == run.Running {
		g.HeardAt = tx.Now
	}
	if p.known && g.State == run.Running {
		var err error
		if g, err = v.takeBackLost(ctx, tx, g); err != nil {
			return err
		}
	}
	changed := []run.Group{g}
	if p.newGroup {
		changed = nil // the insert has everything
		e.deadline = g.Deadline()
		if err := tx.InsertGroup(ctx, g); err != nil {
			return err
		}
		instances := make([]run.Instance, len(v.order))
		for i, spec := range v.order {
			instances[i] = run.Instance{ID: newInstanceID(), RunID: g.RunID, GroupName: g.Name, Spec: spec.Spec, Position: i}
		}
		if err := tx.InsertInstances(ctx, instances); err != nil {
			return err
		}
	}
	if err := v.addMachine(ctx, tx, p); err != nil {
		return err
	}
	_, err := v.store(ctx, tx, e, p.run, next, changed, []run.Group{g}, transitions)
	return err
}

// takeBackLost is for a machine that joins again with its own id: it has restarted, so its claimed specs without
// results can be claimed again.
func (v joining) takeBackLost(ctx context.Context, tx *store.Tx, g run.Group) (run.Group, error) {
	lost, err := tx.NotPassed(ctx, run.Machine{ID: v.MachineID, RunID: g.RunID, GroupName: g.Name})
	if err != nil {
		return g, err
	}
	lost = slices.DeleteFunc(lost, func(i run.Instance) bool { return !i.CompletedAt.IsZero() })
	if len(lost) > 0 {
		if err := tx.Warn(ctx, g.RunID, run.Warning{Code: run.WarnStartedOver, Message: fmt.Sprintf("A machine joined "+
			"again as %q before it had reported %d of its specs. They run once more, and earlier results of them are "+
			"refused. If two machines have this id, give each its own.", run.Clip(v.MachineID, 80), len(lost))}); err != nil {
			return g, err
		}
	}
	return g.TakeBack(lost), tx.ReplaceInstances(ctx, g.RunID, lost, newInstanceID)
}

// addMachine stores the machine, unless it has joined before.
func (v joining) addMachine(ctx context.Context, tx *store.Tx, p place) error {
	if p.known {
		return nil
	}
	return tx.InsertMachine(ctx, run.Machine{ID: v.MachineID, RunID: p.run.ID, GroupName: p.group.Name,
		Fingerprint: v.Fingerprint, Platform: v.Platform, JoinedAt: tx.Now})
}

// buildID returns the build id: from the reporter, from CI, from the request that this
// one repeats, or a random one.
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

// alreadyJoined finds the machine that joined before with the same name or the same
// request; retry means that this is the same request again.
func alreadyJoined(ctx context.Context, tx *store.Tx, j Join,
	runID, group string) (m run.Machine, retry bool, err error) {
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
		err = run.Errorf(run.Refused,
			"Machine %q has already joined group %q of this run: a machine can be in only one group.",
			run.Clip(m.ID, 60), run.Clip(m.GroupName, 60))
	}
	return m, false, err
}

func alreadyComplete(message, url string) *run.Error {
	return &run.Error{Kind: run.Refused, Code: "ALREADY_COMPLETE", Message: message,
		Details: []string{
			"Use a new --ci-build-id for each attempt of a build, for example with the run attempt in it: otherwise no spec " +
				"would run and a failed pipeline would turn green.",
			"The earlier run: " + url,
		}}
}

func silent(g run.Group) error {
	return &run.Error{Kind: run.Refused, Code: "RUN_TIMED_OUT",
		Message: fmt.Sprintf("Run timed out: no report from group %q for %s.", run.Clip(g.Name, 80), g.InactivityTimeout),
		Details: []string{"If specs take longer than that, raise the project's inactivity timeout " +
			"(inactivityTimeoutSeconds), then start a new run."}}
}

// notShared refuses a machine if not all machines of its group share the specs: each
// would run only a part without knowing it. The error codes are those of Cypress.
func notShared(g run.Group, parallel bool) error {
	name := run.Clip(g.Name, 80)
	switch {
	case parallel:
		return &run.Error{Kind: run.Refused, Code: "PARALLEL_DISALLOWED",
			Message: fmt.Sprintf("Group %q was started without --parallel, so no other machine can share its specs.", name),
			Details: []string{"Pass --parallel on every machine, or give this one a --group of its own. A build that is run " +
				"again needs a new --ci-build-id."}}
	case g.Parallel:
		return &run.Error{Kind: run.Refused, Code: "PARALLEL_REQUIRED",
			Message: fmt.Sprintf("Group %q shares its specs between machines, and this machine did not pass --parallel.", name),
			Details: []string{"Pass --parallel on this machine too, or give it a --group of its own."}}
	default:
		return &run.Error{Kind: run.Refused, Code: "RUN_GROUP_NAME_NOT_UNIQUE",
			Message: fmt.Sprintf("Another machine runs group %q already.", name),
			Details: []string{"Pass --parallel on every machine to share the group's specs, or give this one a --group of its " +
				"own. A build that is run again needs a new --ci-build-id."}}
	}
}

// otherPlatform refuses a machine whose browser or system differs from its group's.
func otherPlatform(g run.Group, p run.Platform) error {
	what := p.Mismatch(g.Platform)
	if what == "" {
		return nil
	}
	return &run.Error{Kind: run.Refused, Code: "PARALLEL_GROUP_PARAMS_MISMATCH",
		Message: fmt.Sprintf("This machine does not fit into group %q: %s.", run.Clip(g.Name, 80), what),
		Details: []string{"All machines of a group need the same browser and operating system. Give this one a --group " +
			"of its own."}}
}

// OtherSpecsError means that a machine's specs differ from those of the group it wants to
// join. Each protocol describes the difference in its reporter's words.
type OtherSpecsError struct {
	Group string
	Specs []string // of the group
}

func (e *OtherSpecsError) Error() string { return e.Unwrap().Error() }

// Unwrap returns the error for reporters whose protocol has no words of its own.
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

// newRunID begins with the time, so that runs of the same time are neighbors in the
// indexes. Otherwise each run would write to a separate page in six of them. 80 random
// bits follow, because anyone who knows the id of a public run may see it.
func newRunID(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:])
	return hex.EncodeToString(b[:])
}

// newInstanceID makes a UUID that starts with the time, so that rows of the same time are
// neighbors in the index.
func newInstanceID() string { return uuid.Must(uuid.NewV7()).String() }
