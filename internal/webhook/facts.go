package webhook

import (
	"slices"
	"time"

	"runbell/internal/run"
)

// Form says what the body of a webhook carries: the "payload" of the REST API.
type Form string

// The forms of a body.
const (
	DefaultForm  Form = "default"  // a Payload
	ExtendedForm Form = "extended" // an ExtendedPayload
)

// Forms lists the forms of a body.
func Forms() []Form { return []Form{DefaultForm, ExtendedForm} }

// Limits of facts: what they list, and the bytes of one text.
const (
	MaxFactsGroups   = 50
	MaxFactsFailures = 10
	MaxFactsChanges  = 10
	maxFactsText     = 500
	maxFactsTitle    = 20 // titles around a test
)

// Facts are what an event can say beyond its [Payload]. They are made once: with the event, but for
// failures and comparison, which follow right after it. They are made only if an endpoint that gets
// the event needs them. A pointer is null when the value is unknown.
type Facts struct {
	Project         FactsProject       `json:"project"`
	RunID           string             `json:"runId"`
	Scope           run.Scope          `json:"scope" doc:"group: status, times, groups and failures are those of the group; run: those of the run."`
	Status          run.Status         `json:"status"`
	CompletionState run.Completion     `json:"completionState"`
	CreatedAt       Time               `json:"createdAt"`
	FinishedAt      *Time              `json:"finishedAt" doc:"null while it is running."`
	DurationMs      int64              `json:"durationMs" doc:"From the start to the last report."`
	Cancellation    *FactsCancellation `json:"cancellation" doc:"null unless the run was canceled."`
	CommitURL       *string            `json:"commitUrl" doc:"The page of the commit at its Git host."`
	PullRequest     *FactsPullRequest  `json:"pullRequest" doc:"null if the run tested no pull or merge request."`
	CI              FactsCI            `json:"ci"`
	Groups          []FactsGroup       `json:"groups" doc:"The first 50."`
	Failures        []FactsFailure     `json:"failures" doc:"The first 10; the payload has the number of all."`
	Comparison      *FactsComparison   `json:"comparison" doc:"What changed since earlier runs. null at a start, at group scope, and if it is not known."`
}

// FactsComparison is what a run changed since the last runs that finished before it.
type FactsComparison struct {
	Branch        *FactsCompared `json:"branch" doc:"Compared with the last run of its branch; null if there is none."`
	DefaultBranch *FactsCompared `json:"defaultBranch" doc:"Compared with that of the default branch; null if there is none, or if the run is on that branch."`
}

// FactsCompared is what a run changed since another one.
type FactsCompared struct {
	RunID        string       `json:"runId"`
	BuildID      string       `json:"buildId"`
	BranchName   string       `json:"branchName"`
	CreatedAt    Time         `json:"createdAt"`
	NewlyFailing FactsChanges `json:"newlyFailing" doc:"They did not fail before."`
	StillFailing FactsChanges `json:"stillFailing"`
	NewlyFlaky   FactsChanges `json:"newlyFlaky"`
	Fixed        FactsChanges `json:"fixed" doc:"They failed before, and passed now."`
	NewTests     FactsChanges `json:"newTests"`
	Slower       FactsChanges `json:"slower" doc:"They passed in both and took 30 % and 0.1 s longer."`
}

// FactsChanges are tests that changed in one way.
type FactsChanges struct {
	Total int         `json:"total"`
	Tests []FactsTest `json:"tests" doc:"The first 10."`
}

// FactsTest is a test that changed.
type FactsTest struct {
	Spec  string   `json:"spec"`
	Title []string `json:"title" doc:"From the outermost suite to the test."`
	// Since is of a test that still fails.
	Since *FactsSince `json:"since,omitempty" doc:"Only for a test that still fails: the first of the latest 20 runs since which it has failed."`
}

// FactsSince is the run in which a test began to fail.
type FactsSince struct {
	RunID     string `json:"runId"`
	CreatedAt Time   `json:"createdAt"`
}

// NewFactsTest is a test, its texts within limits.
func NewFactsTest(spec string, title []string) FactsTest {
	return FactsTest{Spec: spec, Title: clipTitle(title)}
}

func clipTitle(title []string) []string {
	out := make([]string, 0, len(title))
	for _, part := range title[:min(len(title), maxFactsTitle)] {
		out = append(out, clip(part))
	}
	return out
}

// FactsProject is the project of a run.
type FactsProject struct {
	ProjectID string `json:"projectId"`
	Name      string `json:"name"`
}

// FactsCancellation is who canceled a run, and why.
type FactsCancellation struct {
	Actor  string `json:"actor"`
	Reason string `json:"reason"`
}

// FactsPullRequest is the pull or merge request that a run tested.
type FactsPullRequest struct {
	Number *int    `json:"number"`
	Title  *string `json:"title"`
	URL    *string `json:"url"`
	Author *string `json:"author"`
}

// FactsCI is the CI service that a run came from.
type FactsCI struct {
	Provider *string `json:"provider" doc:"As the reporter calls it, such as githubActions."`
	URL      *string `json:"url" doc:"The page of the build."`
}

// FactsGroup is a group of a run.
type FactsGroup struct {
	GroupID         *string        `json:"groupId" doc:"null if the reporter did not name it."`
	Status          run.Status     `json:"status"`
	CompletionState run.Completion `json:"completionState"`
	DurationMs      int64          `json:"durationMs"`
	Platform        FactsPlatform  `json:"platform"`
	Instances       FactsInstances `json:"instances"`
	Tests           FactsTests     `json:"tests"`
}

// FactsPlatform is where a group ran.
type FactsPlatform struct {
	OSName         *string `json:"osName"`
	OSVersion      *string `json:"osVersion"`
	BrowserName    *string `json:"browserName"`
	BrowserVersion *string `json:"browserVersion"`
}

// FactsInstances counts the specs of a group.
type FactsInstances struct {
	Overall  int `json:"overall"`
	Complete int `json:"complete" doc:"Those with results."`
}

// FactsTests counts the tests of a group as a Payload does.
type FactsTests struct {
	Overall  int `json:"overall"`
	Passes   int `json:"passes"`
	Failures int `json:"failures"`
	Pending  int `json:"pending"`
	Skipped  int `json:"skipped"`
	Retries  int `json:"retries"`
	Flaky    int `json:"flaky"`
}

// FactsFailure is a test that failed.
type FactsFailure struct {
	GroupID       *string  `json:"groupId" doc:"null if the reporter did not name the group."`
	Spec          string   `json:"spec"`
	Title         []string `json:"title" doc:"From the outermost suite to the test. Empty if the spec could not run, or its results are too large to look into."`
	Error         *string  `json:"error" doc:"The error in one line."`
	ScreenshotURL *string  `json:"screenshotUrl" doc:"Shows the last screenshot of the test to anyone, for seven days from the event; null if there is none. It may be a few seconds until the file is there."`
}

// Failure is a test that failed, or a spec that could not run, as [Facts.With] takes it.
type Failure struct {
	Group string
	Spec  string
	Title []string // none of a spec that could not run
	Error string   // with all its lines; "" if unknown
	// ScreenshotURL shows its last screenshot; "" if there is none.
	ScreenshotURL string
}

// NewFacts says about an event what its payload does not say, without failures and a comparison: see
// [Facts.With]. r and groups are as they are when the event happens: at group scope those of the
// group, else those of the run.
func NewFacts(e Event, p run.Project, r run.Run, groups []run.Group) Facts {
	if e.Kind == RunStart { // it may be told about when the run is long over: in the preview of a webhook
		r, groups = started(r, groups)
	}
	var counts run.Counts
	for _, g := range groups {
		counts = counts.Plus(g.Counts)
	}
	f := Facts{
		Project:         FactsProject{p.ID, p.Name},
		RunID:           r.ID,
		Scope:           e.Scope,
		Status:          run.StatusOf(r.State, counts),
		CompletionState: run.CompletionOf(r.State),
		CreatedAt:       Time{r.CreatedAt},
		FinishedAt:      timeOrNil(r.FinishedAt),
		DurationMs:      r.Elapsed(r.LastReport(groups), e.CreatedAt).Milliseconds(),
		CommitURL:       commitURL(r.Commit),
		PullRequest:     factsOfPull(r.Commit.PullRequest),
		CI:              FactsCI{clipped(r.CI.Provider), known(r.CI.URL())},
		Groups:          []FactsGroup{},
		Failures:        []FactsFailure{},
	}
	if c := r.Cancellation; c != nil {
		f.Cancellation = &FactsCancellation{clip(c.Actor), clip(c.Reason)}
	}
	named := namesOf(groups)
	for _, g := range groups[:min(len(groups), MaxFactsGroups)] {
		f.Groups = append(f.Groups, factsOfGroup(g, named[g.Name], e.CreatedAt))
	}
	if len(groups) == 1 && e.Scope == run.GroupScope {
		g := groups[0]
		f.Status, f.CompletionState = run.StatusOf(g.State, g.Counts), run.CompletionOf(g.State)
		f.CreatedAt, f.FinishedAt, f.DurationMs = Time{g.CreatedAt}, timeOrNil(g.FinishedAt),
			g.Elapsed(e.CreatedAt).Milliseconds()
	}
	return f
}

// With is f with what takes longer to find out: the first failures of the groups, and a comparison,
// nil if there is none.
func (f Facts) With(groups []run.Group, failures []Failure, c *FactsComparison) Facts {
	named := namesOf(groups)
	f.Failures = []FactsFailure{}
	for _, one := range failures[:min(len(failures), MaxFactsFailures)] {
		f.Failures = append(f.Failures, FactsFailure{GroupID: named[one.Group], Spec: one.Spec, Title: clipTitle(one.Title),
			Error: known(run.Headline(one.Error)), ScreenshotURL: known(one.ScreenshotURL)})
	}
	f.Comparison = c
	return f
}

// namesOf are the names of groups that the reporter named, by name.
func namesOf(groups []run.Group) map[string]*string {
	named := map[string]*string{}
	for n, g := range groups {
		if g.Explicit {
			named[g.Name] = &groups[n].Name
		}
	}
	return named
}

// started is a run with its groups as they were when they began.
func started(r run.Run, groups []run.Group) (run.Run, []run.Group) {
	r.State, r.RunningGroups, r.FinishedAt, r.Cancellation = run.Running, 1, time.Time{}, nil
	groups = slices.Clone(groups)
	for n := range groups {
		g := &groups[n]
		g.State, g.FinishedAt, g.HeardAt, g.Completed, g.Counts = run.Running, time.Time{}, g.CreatedAt, 0, run.Counts{}
	}
	return r, groups
}

func factsOfGroup(g run.Group, name *string, now time.Time) FactsGroup {
	c := g.Counts
	return FactsGroup{
		GroupID:         name,
		Status:          run.StatusOf(g.State, c),
		CompletionState: run.CompletionOf(g.State),
		DurationMs:      g.Elapsed(now).Milliseconds(),
		Platform: FactsPlatform{clipped(g.Platform.OSName), clipped(g.Platform.OSVersion), clipped(g.Platform.BrowserName),
			clipped(g.Platform.BrowserVersion)},
		Instances: FactsInstances{g.Specs, g.Completed},
		Tests:     FactsTests{c.Overall(), c.Passes, c.Failures, c.Pending, c.Skipped, c.Retries, c.Flaky},
	}
}

func factsOfPull(pr *run.PullRequest) *FactsPullRequest {
	if pr == nil {
		return nil
	}
	f := &FactsPullRequest{Title: clipped(pr.Title), URL: known(pr.URL), Author: clipped(pr.Author)}
	if pr.Number != 0 {
		f.Number = &pr.Number
	}
	return f
}

func commitURL(c run.Commit) *string {
	repository, ok := run.ParseRemote(c.RemoteOrigin)
	if !ok {
		return nil
	}
	return known(repository.CommitURL(c.SHA))
}

// Bytes is the document that is stored with the event.
func (f Facts) Bytes() []byte { return encode(f) }

// ExtendedPayload is the body of a webhook that asks for more than the default.
type ExtendedPayload struct {
	Payload
	Facts Facts `json:"facts" doc:"What the default payload leaves out."`
}

// Bytes is the body as it is signed and sent.
func (p ExtendedPayload) Bytes() []byte { return Extend(p.Payload.Bytes(), p.Facts.Bytes()) }

// Extend makes the body of an [ExtendedPayload] of the documents of an event. It changes no byte of either.
func Extend(payload, facts []byte) []byte {
	const key = `,"facts":`
	body := make([]byte, 0, len(payload)+len(key)+len(facts))
	body = append(append(body, payload[:len(payload)-1]...), key...)
	return append(append(body, facts...), '}')
}

// Time is a time in the facts: ISO 8601, UTC, always with milliseconds.
type Time struct{ time.Time }

// MarshalJSON writes the fixed form.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}

func timeOrNil(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{t}
}

func clip(s string) string     { return run.Clip(run.Plain(s), maxFactsText) }
func clipped(s string) *string { return known(clip(s)) }
