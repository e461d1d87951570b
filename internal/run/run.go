package run

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits on what a reporter may send. The size limits of bodies are in package
// cypress, where bodies are read.
const (
	MaxGroups      = 100    // groups of a run
	MaxSpecs       = 10_000 // specs of a group
	MaxTests       = 20_000 // tests of a spec
	MaxScreenshots = 2_000  // of a spec
	MaxTags        = 100
	MaxNameLength  = 255  // ciBuildId, group, tag, machineId
	MaxSpecLength  = 1024 // path of a spec
	MaxInactivity  = 12 * time.Hour
	MinInactivity  = time.Second
	MaxCompletion  = 15 * time.Minute
	MaxFailFast    = 1_000_000
)

// Defaults of a new project.
const (
	DefaultInactivity = 30 * time.Minute
	DefaultCompletion = 60 * time.Second
)

// ValidName says that s may be a ciBuildId, a group, a tag or a machineId.
func ValidName(s string) bool {
	return utf8.RuneCountInString(s) <= MaxNameLength &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Project is what runs belong to.
type Project struct {
	ID   string // chosen by people: stands in cypress.config.js as projectId
	Name string
	// InactivityTimeout is how long a group may be silent before it is timed out.
	InactivityTimeout time.Duration
	// CompletionDelay is how long a run with explicit groups stays open after
	// its last group ended, so that a late group can still join.
	CompletionDelay time.Duration
	DefaultBranch   string // "" if unknown
	// FailFast cancels a run after this many failed or skipped tests; 0 is off.
	FailFast int
	// Keep is how long what is kept.
	Keep Retention
	// PublicRuns lets anyone with a run's link view its pages.
	PublicRuns bool
	CreatedAt  time.Time
}

// Check says which setting of a project is wrong, by its name in the REST API.
func (p Project) Check() error {
	if p.Name == "" || utf8.RuneCountInString(p.Name) > MaxNameLength {
		return Errorf(Invalid, "name must have 1 to %d characters.", MaxNameLength)
	}
	for _, text := range []struct{ name, value string }{{"name", p.Name}, {"defaultBranchName", p.DefaultBranch}} {
		if utf8.RuneCountInString(text.value) > MaxNameLength {
			return Errorf(Invalid, "%s must have at most %d characters.", text.name, MaxNameLength)
		}
		if !ValidName(text.value) || !utf8.ValidString(text.value) {
			return Errorf(Invalid, "%s must not contain control characters.", text.name)
		}
	}
	for _, number := range []struct {
		name               string
		value, least, most int64
	}{
		{"inactivityTimeoutSeconds", seconds(p.InactivityTimeout), seconds(MinInactivity), seconds(MaxInactivity)},
		{"completionDelaySeconds", seconds(p.CompletionDelay), 0, seconds(MaxCompletion)},
		{"failFast", int64(p.FailFast), 0, MaxFailFast},
	} {
		if number.value < number.least || number.value > number.most {
			return Errorf(Invalid, "%s must be a number from %d to %d.", number.name, number.least, number.most)
		}
	}
	return p.Keep.check()
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// CI is the continuous integration service a run came from.
type CI struct {
	Provider string            `json:"provider,omitempty"`
	Params   map[string]string `json:"params,omitempty"`
}

// Client is the reporter that created a run, for people who look for the odd
// one out. Versions as the client sent them, "" if it did not.
type Client struct {
	Name      string    `json:"name,omitempty"` // cypress, cypress-cloud or runbell
	Version   string    `json:"version,omitempty"`
	Framework Framework `json:"framework,omitzero"`
}

// Framework is what ran the tests.
type Framework struct {
	Name    string `json:"name,omitempty"` // cypress
	Version string `json:"version,omitempty"`
}

// Cancellation is who ended a run, when and why.
type Cancellation struct {
	Actor  string
	Reason string
	At     time.Time
}

// Run is one build of a project's tests: all that was reported with one
// ciBuildId.
type Run struct {
	ID        string // 32 hex characters; public, stands in links
	ProjectID string
	CIBuildID string
	Rev       int64 // grows with every verb
	Sequence  int64 // events so far
	Commit    Commit
	Tags      []string
	CI        CI
	Client    Client
	// FailFast is the threshold of this run (see Project.FailFast); 0 never.
	FailFast int
	// CompletionDelay is the project's at the time the run was created.
	CompletionDelay time.Duration
	CreatedAt       time.Time
	Cancellation    *Cancellation

	// What Step decides on and changes.
	State          State
	RunningGroups  int
	TimedOutGroups int
	// Explicit says that a group was named by a client: only then is there a
	// completion delay.
	Explicit bool
	// CloseAt is when the completion delay ends; zero while groups run or
	// after the run is over.
	CloseAt    time.Time
	FinishedAt time.Time // zero while running

	// PinnedAt is since when a person keeps the run from retention; zero if nobody does.
	PinnedAt time.Time
	PinnedBy string
	// Artifacts and ArtifactBytes are what is stored of its screenshots, videos and coverage.
	Artifacts     int
	ArtifactBytes int64
	// ArtifactsRemovedAt and OutputRemovedAt are when retention last removed artifacts
	// and console output of the run; zero if it did not.
	ArtifactsRemovedAt time.Time
	OutputRemovedAt    time.Time
}

// LastReport is when a group of the run was last heard, or when the run began.
func (r Run) LastReport(groups []Group) time.Time {
	last := r.CreatedAt
	for _, g := range groups {
		if g.HeardAt.After(last) {
			last = g.HeardAt
		}
	}
	return last
}

// Elapsed is how long the run has worked: until now while a group runs, else
// until the last report. The wait for a late group and the silence before a
// timeout are not work.
func (r Run) Elapsed(lastReport, now time.Time) time.Duration {
	if r.State == Running && r.RunningGroups > 0 {
		return max(0, now.Sub(r.CreatedAt))
	}
	return lastReport.Sub(r.CreatedAt)
}

// Group is the machines and specs that were reported under one group name.
type Group struct {
	RunID string
	Name  string // the implicit group's is the ciBuildId
	// Explicit says that a client named the group; only then is its name in webhooks.
	Explicit bool
	Platform Platform
	// Parallel says that its machines share its specs. Otherwise it has one machine.
	Parallel  bool
	SpecHash  string // of the sorted spec list, to compare machines
	Specs     int
	Claimed   int
	TakenBack int // claims that a reset took back: the specs were claimed, and can be again
	Completed int
	Counts    Counts
	CreatedAt time.Time

	State      State
	FinishedAt time.Time // zero while running
	// HeardAt is when the last request of the group was accepted.
	HeardAt time.Time
	// InactivityTimeout is the project's at the time the group was created.
	InactivityTimeout time.Duration
}

// Elapsed is how long the group has worked, see [Run.Elapsed].
func (g Group) Elapsed(now time.Time) time.Duration {
	if g.State == Running {
		return max(0, now.Sub(g.CreatedAt))
	}
	return g.HeardAt.Sub(g.CreatedAt)
}

// Deadline is the instant at which the group is timed out unless something is
// heard from it before.
func (g Group) Deadline() time.Time { return g.HeardAt.Add(g.InactivityTimeout) }

// Machine is one process of a client that joined a group.
type Machine struct {
	ID        string // public; chosen by the client, or a UUID. Reporters get a signed one
	RunID     string
	GroupName string
	// Fingerprint is the hash of the body the machine joined with: a retried
	// join is recognized by it.
	Fingerprint string
	Platform    Platform
	JoinedAt    time.Time
	// Unanswered says that the answer to the last claim could not be written.
	Unanswered bool
}

// Instance is one spec of a group, and its execution.
type Instance struct {
	ID          string // public; reporters get a signed one
	RunID       string
	GroupName   string
	Spec        string
	Position    int       // specs are handed out in this order
	MachineID   string    // "" while unclaimed
	Claim       int       // grows from claim to claim of a group; specs that were handed out together have the same
	ClaimedAt   time.Time // zero while unclaimed
	Announced   int       // tests announced before results
	AnnouncedAt time.Time // zero until tests were announced
	CompletedAt time.Time // zero until results were accepted
	Counts      Counts    // zero until results were accepted
	Duration    time.Duration
	Exception   string // why the spec could not run to its end, "" if it did
}

// Status is the state of a run as people ask for it.
type Status string

// The statuses of a run.
const (
	StatusRunning Status = "RUNNING"
	StatusFailing Status = "FAILING" // running, with a failure
	StatusPassed  Status = "PASSED"
	StatusFailed  Status = "FAILED" // also when it did not come to its end
)

// StatusOf combines state and counts.
func StatusOf(s State, c Counts) Status {
	switch {
	case s == Running && c.Green():
		return StatusRunning
	case s == Running:
		return StatusFailing
	case s == Finished && c.Green():
		return StatusPassed
	default:
		return StatusFailed
	}
}

// Completion is how far a run has come.
type Completion string

// The completions of a run.
const (
	InProgress         Completion = "IN_PROGRESS"
	Complete           Completion = "COMPLETE"
	CompletionCanceled Completion = "CANCELED"
	CompletionTimeout  Completion = "TIMEOUT"
)

// CompletionOf translates a state.
func CompletionOf(s State) Completion {
	switch s {
	case Finished:
		return Complete
	case Canceled:
		return CompletionCanceled
	case TimedOut:
		return CompletionTimeout
	default:
		return InProgress
	}
}

// CheckProjectID returns an error of kind Invalid unless a project may have this
// id: owner/name and spaces are fine, as in other dashboards.
func CheckProjectID(id string) error {
	odd := func(part string) bool { return part == "" || part == "." || part == ".." } // of a path
	if utf8.RuneCountInString(id) > 100 || !utf8.ValidString(id) || strings.TrimSpace(id) != id ||
		strings.ContainsFunc(id, unicode.IsControl) || slices.ContainsFunc(strings.Split(id, "/"), odd) {
		return Errorf(Invalid, "%q is not a valid projectId: it must have 1 to 100 characters, without control "+
			"characters and without spaces at its ends. Slashes must separate names, as in owner/project.", Clip(id, 80))
	}
	return nil
}

// NewProject is a project with the defaults.
func NewProject(id string) Project {
	return Project{ID: id, Name: id, InactivityTimeout: DefaultInactivity, CompletionDelay: DefaultCompletion,
		Keep: DefaultRetention()}
}
