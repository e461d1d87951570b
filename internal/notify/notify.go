// Package notify knows how each kind of endpoint is told of an event: it turns a
// delivery into a request, and says which answers are a success. It is pure: one
// file per kind, and nothing here sends.
package notify

import (
	"fmt"
	"time"

	"runbell/internal/webhook"
)

// Message is a delivery, at one attempt.
type Message struct {
	EventID  string
	RunID    string // "" is a test send
	Sequence int64  // position among the events of the run
	Attempt  int    // from 1
	At       time.Time
	Payload  []byte // the event's webhook.Payload, as it was frozen
	Facts    []byte // its webhook.Facts, likewise; nil if the delivery is told without them
}

// Request is what to POST to the endpoint's URL.
type Request struct {
	Headers webhook.Headers // in the order in which they are sent
	Body    []byte
}

// Sender makes the requests to one endpoint with the settings that it has. It may be
// used by any number of goroutines.
type Sender interface {
	// Request makes the request for a message.
	Request(Message) Request
	// Accepted reports whether an answer with this status means that the message
	// was delivered.
	Accepted(status int) bool
}

// New makes the sender of an endpoint, by its kind. userAgent is sent where the
// kind does not ask for another one. An error says what to change in the settings.
func New(e webhook.Endpoint, userAgent string) (Sender, error) {
	switch e.Kind {
	case webhook.PlainWebhook:
		return newSigned(e, userAgent)
	default:
		return nil, fmt.Errorf("this version of Runbell cannot send to endpoints of the kind %q", e.Kind)
	}
}
