package notify

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/webhook"
)

// signed sends the event's documents as they are, signed.
type signed struct {
	userAgent string
	rotating  *webhook.Signer // until then; signs with the previous secret as well
	until     time.Time
	signer    *webhook.Signer
	custom    webhook.Headers
}

func newSigned(e webhook.Endpoint, userAgent string) (*signed, error) {
	s := &signed{userAgent: userAgent, until: e.PreviousUntil}
	var err error
	if s.rotating, err = e.Signer(time.Time{}); err != nil {
		return nil, err
	}
	if s.signer, err = e.Signer(e.PreviousUntil); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		h := webhook.Header{Name: http.CanonicalHeaderKey(name), Value: e.Headers[name], Secret: true}
		if strings.ContainsAny(h.Name+h.Value, "\r\n\x00") {
			return nil, fmt.Errorf("the custom header %q cannot be sent: change the headers of the webhook", name)
		}
		s.custom = append(s.custom, h)
	}
	return s, nil
}

// Request implements Sender.
func (s *signed) Request(m Message) Request {
	signer := s.signer
	if m.At.Before(s.until) {
		signer = s.rotating
	}
	body := m.Payload
	if m.Facts != nil {
		body = webhook.Extend(m.Payload, m.Facts)
	}
	signature := signer.Sign(make([]byte, 0, 256), m.EventID, m.At, body)
	headers := append(make(webhook.Headers, 0, 9+len(s.custom)),
		webhook.Header{Name: "Content-Type", Value: "application/json"},
		webhook.Header{Name: "User-Agent", Value: s.userAgent},
		webhook.Header{Name: "X-Timestamp", Value: strconv.FormatInt(m.At.UnixMilli(), 10)},
		webhook.Header{Name: webhook.HeaderID, Value: m.EventID},
		webhook.Header{Name: webhook.HeaderTimestamp, Value: strconv.FormatInt(m.At.Unix(), 10)},
		webhook.Header{Name: webhook.HeaderSignature, Value: string(signature)},
		webhook.Header{Name: "X-Runbell-Attempt", Value: strconv.Itoa(m.Attempt)},
		webhook.Header{Name: "X-Runbell-Sequence", Value: strconv.FormatInt(m.Sequence, 10)})
	if m.RunID == "" {
		headers = append(headers, webhook.Header{Name: "X-Runbell-Test", Value: "1"})
	}
	return Request{Headers: append(headers, s.custom...), Body: body}
}

// Accepted implements Sender: any 2xx.
func (*signed) Accepted(status int) bool { return status/100 == 2 }
