package notify_test

import (
	"slices"
	"testing"
	"time"

	"runbell/internal/notify"
	"runbell/internal/webhook"
)

// A signed webhook: the headers of the contract in their order, the payload as it
// is, and both signatures while a secret is being rotated.
func TestSignedWebhook(t *testing.T) {
	at := time.UnixMilli(1732350000123).UTC()
	e := webhook.Endpoint{Kind: webhook.PlainWebhook, Headers: map[string]string{"x-token": "t0ps3cret"}, Secret: webhook.NewSecret(), Previous: webhook.NewSecret(), PreviousUntil: at.Add(time.Minute)}
	sender, err := notify.New(e, "Runbell/test")
	if err != nil {
		t.Fatal(err)
	}
	m := notify.Message{EventID: "evt_1", RunID: "r1", Sequence: 7, Attempt: 2, At: at, Payload: []byte(`{"event":"RUN_START"}`)}
	for _, c := range []struct {
		at                time.Time
		previous, current bool // whose signature is there
	}{{at, true, true}, {at.Add(time.Minute), false, true}} {
		m.At = c.at
		r := sender.Request(m)
		var names []string
		values := map[string]string{}
		for _, h := range r.Headers {
			names, values[h.Name] = append(names, h.Name), h.Value
		}
		if want := []string{"Content-Type", "User-Agent", "X-Timestamp", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "X-Runbell-Attempt", "X-Runbell-Sequence", "X-Token"}; !slices.Equal(names, want) {
			t.Errorf("headers %v, want %v", names, want)
		}
		if string(r.Body) != string(m.Payload) || values["Webhook-Id"] != "evt_1" || values["X-Runbell-Attempt"] != "2" || values["X-Runbell-Sequence"] != "7" || values["User-Agent"] != "Runbell/test" {
			t.Errorf("sent %s with %v", r.Body, values)
		}
		for secret, want := range map[webhook.Secret]bool{e.Previous: c.previous, e.Secret: c.current} {
			key, err := secret.Key()
			if err != nil {
				t.Fatal(err)
			}
			if got := webhook.Verify("evt_1", c.at, r.Body, key, values["Webhook-Signature"]); got != want {
				t.Errorf("at %s: signed with a secret: %v, want %v", c.at, got, want)
			}
		}
	}
	m.RunID = ""
	if r := sender.Request(m); !slices.ContainsFunc(r.Headers, func(h webhook.Header) bool { return h.Name == "X-Runbell-Test" && h.Value == "1" }) {
		t.Errorf("a test send is not marked: %v", r.Headers)
	}
	for status, want := range map[int]bool{200: true, 204: true, 299: true, 199: false, 302: false, 404: false, 500: false, 0: false} {
		if sender.Accepted(status) != want {
			t.Errorf("status %d is accepted: %v", status, !want)
		}
	}
}

// The facts of an event are in the body, and signed with it.
func TestExtendedWebhook(t *testing.T) {
	e := webhook.NewEndpoint("e1", "shop")
	e.Secret = webhook.NewSecret()
	sender, err := notify.New(e, "Runbell/test")
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1732350000123).UTC()
	r := sender.Request(notify.Message{EventID: "evt_1", At: at, Payload: []byte(`{"event":"RUN_START"}`), Facts: []byte(`{"runId":"r1"}`)})
	if want := `{"event":"RUN_START","facts":{"runId":"r1"}}`; string(r.Body) != want {
		t.Errorf("sent %s, want %s", r.Body, want)
	}
	key, err := e.Secret.Key()
	if err != nil {
		t.Fatal(err)
	}
	signed := slices.ContainsFunc(r.Headers, func(h webhook.Header) bool {
		return h.Name == webhook.HeaderSignature && webhook.Verify("evt_1", at, r.Body, key, h.Value)
	})
	if !signed {
		t.Errorf("the body that is sent is not what is signed: %v", r.Headers)
	}
}

// What cannot be sent is an error that says what to change.
func TestSettingsThatCannotBeSent(t *testing.T) {
	for name, e := range map[string]webhook.Endpoint{
		"a kind that is not there": {Kind: webhook.Slack, Secret: webhook.NewSecret()},
		"no kind":                  {Secret: webhook.NewSecret()},
		"a header of two lines":    {Kind: webhook.PlainWebhook, Secret: webhook.NewSecret(), Headers: map[string]string{"x": "a\r\nb: c"}},
		"a secret that is none":    {Kind: webhook.PlainWebhook, Secret: "whsec_short"},
	} {
		if _, err := notify.New(e, "Runbell/test"); err == nil {
			t.Errorf("%s can be sent", name)
		}
	}
}
