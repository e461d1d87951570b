package webhook

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"runbell/internal/run"
)

// Kind is a kind of event.
type Kind string

// The four events in the life of a run or a group, and the one about tests, which only
// endpoints get that ask for it.
const (
	RunStart    Kind = "RUN_START"
	RunFinish   Kind = "RUN_FINISH"
	RunTimeout  Kind = "RUN_TIMEOUT"
	RunCanceled Kind = "RUN_CANCELED"
	TestStatus  Kind = "TEST_STATUS"
)

// Kinds lists the four events in the order of a run's life: what an endpoint gets unless
// it asks for others.
func Kinds() []Kind { return []Kind{RunStart, RunFinish, RunTimeout, RunCanceled} }

// AllKinds lists the events that an endpoint can ask for.
func AllKinds() []Kind { return append(Kinds(), TestStatus) }

// KindOf names the event that announces the arrival in a state.
func KindOf(s run.State) Kind {
	switch s {
	case run.Finished:
		return RunFinish
	case run.TimedOut:
		return RunTimeout
	case run.Canceled:
		return RunCanceled
	default:
		return RunStart
	}
}

// Event is something that happened once to a run or a group. Its documents are
// made in the transaction in which it happened and never again.
type Event struct {
	ID        string // evt_…, the Webhook-Id of every attempt
	ProjectID string
	RunID     string
	Group     string // "" at run scope
	Scope     run.Scope
	Kind      Kind
	Sequence  int64 // position among the events of the run
	Payload   []byte
	Facts     []byte // nil if no endpoint that got the event needs them
	// FactsDue says that the facts are not complete: deliveries with them wait.
	FactsDue  bool
	CreatedAt time.Time
}

// Scopes are those of the endpoints that an event is for. The health of tests is not about
// groups, so an endpoint gets it in either scope.
func (e Event) Scopes() []run.Scope {
	if e.Kind == TestStatus {
		return []run.Scope{run.GroupScope, run.RunScope}
	}
	return []run.Scope{e.Scope}
}

// Body is what a signed webhook carries: the payload, with the facts if the delivery has them.
func (e Event) Body(d Delivery) []byte {
	if d.WithFacts {
		return Extend(e.Payload, e.Facts)
	}
	return e.Payload
}

// Payload is the body of a webhook: exactly these keys. A pointer is null when
// the value is unknown.
type Payload struct {
	Event    Kind          `json:"event"`
	RunURL   string        `json:"runUrl"`
	BuildID  string        `json:"buildId"`
	GroupID  string        `json:"groupId,omitempty"`
	Tags     []string      `json:"tags"`
	Commit   PayloadCommit `json:"commit"`
	Overall  int           `json:"overall"`
	Passes   int           `json:"passes"`
	Failures int           `json:"failures"`
	Pending  int           `json:"pending"`
	Skipped  int           `json:"skipped"`
	Retries  int           `json:"retries"`
	Flaky    int           `json:"flaky"`
	// Changes are those of a TestStatus.
	Changes *TestChanges `json:"changes,omitempty" doc:"Tests whose health has changed. Only for TEST_STATUS."`
}

// MaxTestChanges limits how many tests a payload lists.
const MaxTestChanges = 100

// TestChanges are tests whose health has changed with a run.
type TestChanges struct {
	Total int          `json:"total"`
	Tests []TestChange `json:"tests" doc:"The first 100."`
}

// TestChange is a test whose health has changed.
type TestChange struct {
	Signature string   `json:"signature"`
	Spec      string   `json:"spec"`
	Title     []string `json:"title" doc:"From the outermost suite to the test."`
	From      string   `json:"from" doc:"healthy, flaky or broken."`
	To        string   `json:"to" doc:"healthy, flaky or broken."`
}

// PayloadCommit is the commit as webhooks carry it.
type PayloadCommit struct {
	SHA           *string `json:"sha"`
	Branch        *string `json:"branch"`
	AuthorName    *string `json:"authorName"`
	AuthorEmail   *string `json:"authorEmail"`
	Message       *string `json:"message"`
	RemoteOrigin  *string `json:"remoteOrigin"`
	DefaultBranch *string `json:"defaultBranch"`
}

// NewPayload says what happened to a run, or to its group where group is not
// nil. runURL is the page of the run; defaultBranch the project's.
func NewPayload(kind Kind, r run.Run, group *run.Group, counts run.Counts, runURL, defaultBranch string) Payload {
	p := Payload{
		Event:   kind,
		RunURL:  runURL,
		BuildID: r.CIBuildID,
		Tags:    r.Tags,
		Commit: PayloadCommit{
			SHA:           known(r.Commit.SHA),
			Branch:        known(r.Commit.Branch),
			AuthorName:    known(r.Commit.AuthorName),
			AuthorEmail:   known(r.Commit.AuthorEmail),
			Message:       known(strings.TrimRight(r.Commit.Message, "\r\n")),
			RemoteOrigin:  known(run.WithoutCredentials(r.Commit.RemoteOrigin)),
			DefaultBranch: known(r.Commit.DefaultBranch),
		},
		Overall:  counts.Overall(),
		Passes:   counts.Passes,
		Failures: counts.Failures,
		Pending:  counts.Pending,
		Skipped:  counts.Skipped,
		Retries:  counts.Retries,
		Flaky:    counts.Flaky,
	}
	if p.Tags == nil {
		p.Tags = []string{}
	}
	if p.Commit.DefaultBranch == nil {
		p.Commit.DefaultBranch = known(defaultBranch)
	}
	if group != nil && group.Explicit {
		p.GroupID = group.Name
	}
	return p
}

// Bytes is the body as it is signed and sent.
func (p Payload) Bytes() []byte { return encode(p) }

func encode(document any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // "fix <Button>" should read so in the receiver's log
	if err := enc.Encode(document); err != nil {
		panic("webhook: a document of strings and numbers does not encode: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func known(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
