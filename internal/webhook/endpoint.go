package webhook

import (
	"slices"
	"time"

	"runbell/internal/run"
)

// Endpoint is a URL that wants to hear about a project's runs.
type Endpoint struct {
	ID        string // UUID, hookId in the REST API
	ProjectID string
	Kind      EndpointKind
	Payload   Form // of a PlainWebhook; other kinds always need facts
	URL       string
	Headers   map[string]string // sent with every attempt; values are secret
	Events    []Kind            // none means it hears nothing
	Label     string            // "" if none
	Scope     run.Scope
	Filters   Filters
	Enabled   bool
	// DisabledReason says why we disabled the endpoint, "" if a person did.
	DisabledReason string
	// MaxInFlight bounds requests at the same time.
	MaxInFlight int
	// RatePerMinute bounds how many attempts begin in a minute; 0 does not.
	RatePerMinute int
	Secret        Secret
	// Previous is the secret before the last rotation. It signs too, until
	// PreviousUntil.
	Previous      Secret
	PreviousUntil time.Time
	// Private signs with ed25519 as well; "" unless the endpoint asks for it.
	Private   PrivateKey
	CreatedAt time.Time
	UpdatedAt time.Time
}

// EndpointKind decides how an endpoint is told of events.
type EndpointKind string

// The kinds of endpoints. Only PlainWebhook can be sent to so far.
const (
	PlainWebhook EndpointKind = "webhook"
	Slack        EndpointKind = "slack"
	Teams        EndpointKind = "teams"
	GoogleChat   EndpointKind = "googlechat"
	Discord      EndpointKind = "discord"
	GitHub       EndpointKind = "github"
	GitLab       EndpointKind = "gitlab"
	Bitbucket    EndpointKind = "bitbucket"
)

// EndpointKinds lists the kinds of endpoints.
func EndpointKinds() []EndpointKind {
	return []EndpointKind{PlainWebhook, Slack, Teams, GoogleChat, Discord, GitHub, GitLab, Bitbucket}
}

// MaxEndpoints is how many endpoints a project can have: an event queues a delivery at each of them
// in one transaction.
const MaxEndpoints = 50

// DefaultInFlight and MaxInFlight bound how many requests an endpoint gets at
// the same time; MaxRate how many a minute can be asked for.
const (
	DefaultInFlight = 16
	MaxInFlight     = 256
	MaxRate         = 60_000
)

// NewEndpoint is an enabled endpoint with the defaults, without an URL and secrets.
func NewEndpoint(id, projectID string) Endpoint {
	return Endpoint{ID: id, ProjectID: projectID, Kind: PlainWebhook, Payload: DefaultForm, Events: Kinds(),
		Scope: run.GroupScope, Filters: Filters{Result: AnyResult}, Enabled: true, MaxInFlight: DefaultInFlight}
}

// NeedsFacts says whether the endpoint is told of events with their [Facts].
func (e Endpoint) NeedsFacts() bool { return e.Kind != PlainWebhook || e.Payload == ExtendedForm }

// Wants says whether the endpoint takes an event about this subject.
func (e Endpoint) Wants(ev Event, subject Subject) bool {
	return e.Enabled && e.ProjectID == ev.ProjectID && slices.Contains(ev.Scopes(), e.Scope) &&
		slices.Contains(e.Events, ev.Kind) && e.Filters.Match(subject)
}

// Signer signs for the endpoint at an instant: with the previous secret too
// while a rotation lasts.
func (e Endpoint) Signer(now time.Time) (*Signer, error) {
	secrets := []Secret{e.Secret}
	if e.Previous != "" && now.Before(e.PreviousUntil) {
		secrets = append(secrets, e.Previous)
	}
	return NewSigner(e.Private, secrets...)
}

// Health is how an endpoint does.
type Health struct {
	State         HealthState
	LastSuccessAt time.Time // zero if there was none
	LastFailureAt time.Time // zero if there was none
	FailingSince  time.Time // the first failure after the last success
	HoldUntil     time.Time // rate limited by the receiver until then (Retry-After)
	Pending       int64     // deliveries that wait
	Failed24h     int64     // deliveries that failed in the last 24 hours
}

// HealthState is the health of an endpoint in a word.
type HealthState string

// The states of health.
const (
	Unused  HealthState = "unused"   // nothing was sent yet
	Healthy HealthState = "healthy"  // the last attempt succeeded
	Failing HealthState = "failing"  // all attempts failed since FailingSince
	IsOff   HealthState = "disabled" // by a person or by us
)

// HealthStates lists the states of health.
func HealthStates() []HealthState { return []HealthState{Unused, Healthy, Failing, IsOff} }

const (
	warnAfter = 24 * time.Hour
	stopAfter = 5 * 24 * time.Hour
)

// WarnAt and StopAt say when people are warned of an endpoint whose attempts all
// fail, and when it is disabled.
func WarnAt(failingSince time.Time) time.Time { return failingSince.Add(warnAfter) }

// StopAt is described at WarnAt.
func StopAt(failingSince time.Time) time.Time { return failingSince.Add(stopAfter) }

// HistoryKind is what a line of an endpoint's history is about.
type HistoryKind string

// What happens to endpoints.
const (
	WasCreated  HistoryKind = "created"
	WasEnabled  HistoryKind = "enabled"
	WasDisabled HistoryKind = "disabled"
	WasFailing  HistoryKind = "failing" // the warning
	WasRotated  HistoryKind = "rotated"
	WasReplayed HistoryKind = "replayed"
)

// HistoryKinds lists what happens to endpoints.
func HistoryKinds() []HistoryKind {
	return []HistoryKind{WasCreated, WasEnabled, WasDisabled, WasFailing, WasRotated, WasReplayed}
}

// MaxHistory is how many lines of an endpoint's history are kept.
const MaxHistory = 100

// History is a line of an endpoint's history, for people.
type History struct {
	ID   string // starts with the time
	At   time.Time
	Kind HistoryKind
	Text string
}

// DeliveryState is where a delivery is in its life.
type DeliveryState string

const (
	// Waiting for its first or next attempt, or in flight.
	Waiting DeliveryState = "pending"
	// Delivered: an attempt was answered with 2xx. Terminal.
	Delivered DeliveryState = "delivered"
	// Failed: the last attempt of the schedule failed. Left only by hand.
	Failed DeliveryState = "failed"
	// Held: waiting, and its endpoint is disabled. This is how a list shows it; it
	// is stored as Waiting.
	Held DeliveryState = "held"
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID         string // dlv_…
	EndpointID string
	EventID    string
	RunID      string // "" is a test send
	Kind       Kind   // the event's
	Sequence   int64  // the event's
	WithFacts  bool   // whether it is told with the facts: as the endpoint was set when the event happened
	State      DeliveryState
	Attempts   int       // recorded so far
	Earlier    int       // those before it was last queued by hand: they do not count for the schedule
	DueAt      time.Time // of the next attempt; zero if it waits for an earlier event, for facts, or for nothing
	CreatedAt  time.Time
	FinishedAt time.Time // zero while waiting or held
}

// Class is the outcome of an attempt, in words that a person can act on.
type Class string

// The classes of attempts.
const (
	OK         Class = "ok"
	BadStatus  Class = "status"  // answered, but not with 2xx
	DNS        Class = "dns"     // the host name has no address
	RefusedTCP Class = "refused" // nothing listens there
	Reset      Class = "reset"   // the connection broke
	TLS        Class = "tls"
	Timeout    Class = "timeout"
	Blocked    Class = "blocked address" // an address we do not call
	Proxy      Class = "proxy"           // the operator's proxy did not connect
	BadRequest Class = "request"         // the stored URL or header cannot be sent
	OtherError Class = "error"
)

// Attempt is one try of a delivery, as the log keeps it.
type Attempt struct {
	DeliveryID      string
	Number          int // from 1
	StartedAt       time.Time
	Duration        time.Duration
	RequestHeaders  Headers
	Class           Class
	Status          int // 0 without an answer
	ResponseHeaders Headers
	ResponseBody    []byte // its beginning
	Error           string // for people, "" if ok
}

// Decision is what an attempt means for its delivery and its endpoint.
type Decision struct {
	State DeliveryState // Waiting: there is another attempt, after Wait
	Wait  time.Duration
	Quick bool          // later events of the run go on waiting
	Hold  time.Duration // how long nothing is sent to the endpoint
	Gone  bool          // the endpoint wants nothing ever again
}
