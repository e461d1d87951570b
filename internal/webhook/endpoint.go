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
	URL       string
	Headers   map[string]string // sent with every attempt; values are secret
	Events    []Kind            // none means it hears nothing
	Label     string            // "" if none
	Scope     run.Scope
	Enabled   bool
	// DisabledReason says why we disabled the endpoint, "" if a person did.
	DisabledReason string
	Secret         Secret
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// Wants says whether the endpoint takes an event.
func (e Endpoint) Wants(ev Event) bool {
	return e.Enabled && e.ProjectID == ev.ProjectID && e.Scope == ev.Scope && slices.Contains(e.Events, ev.Kind)
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
	// Held: its endpoint is disabled. Left when the endpoint is enabled.
	Held DeliveryState = "held"
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID         string // dlv_…
	EndpointID string
	EventID    string
	RunID      string
	Sequence   int64 // the event's
	State      DeliveryState
	Attempts   int       // recorded so far
	DueAt      time.Time // of the next attempt; zero unless waiting
	CreatedAt  time.Time
	FinishedAt time.Time // zero while waiting or held
}

// Class says what became of an attempt, in words a person can act on.
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
	RequestHeaders  map[string]string // secret values masked
	Class           Class
	Status          int // 0 without an answer
	ResponseHeaders map[string]string
	ResponseBody    []byte // its beginning
	Error           string // for people, "" if ok
}
