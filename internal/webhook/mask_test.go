package webhook_test

import (
	"fmt"
	"testing"

	"runbell/internal/webhook"
)

func TestMaskURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://hooks.example.com/services/T0/B0/secret?token=x#y": "https://hooks.example.com/…",
		"http://user:secret@10.0.0.1:9000/":                         "http://10.0.0.1:9000/…",
		"https://[2001:db8::1]:8443/secret":                         "https://[2001:db8::1]:8443/…",
		"secret":                                                    "…",
		"http://%zz/secret":                                         "…",
		"":                                                          "…",
	} {
		if got := webhook.MaskURL(url); got != want {
			t.Errorf("%s is shown as %s, want %s", url, got, want)
		}
	}
}

func TestMaskAttempt(t *testing.T) {
	a := webhook.Attempt{Status: 500, Error: "responded with 500 Internal Server Error",
		RequestHeaders:  webhook.Headers{{Name: "X-Timestamp", Value: "1"}, {Name: webhook.HeaderSignature, Value: "v1,secret"}},
		ResponseHeaders: webhook.Headers{{Name: "Location", Value: "https://hooks.example.com/secret"}},
		ResponseBody:    []byte("you sent Authorization: secret")}
	before := fmt.Sprintf("%+v", a)
	masked := webhook.MaskAttempt(a)
	if got := masked.RequestHeaders.Get("X-Timestamp") + masked.RequestHeaders.Get(webhook.HeaderSignature) + masked.ResponseHeaders.Get("Location") + string(masked.ResponseBody); got != "1………" {
		t.Errorf("masked: %s", got)
	}
	if masked.Status != 500 || masked.Error != a.Error {
		t.Errorf("the outcome of the attempt is masked: %+v", masked)
	}
	if after := fmt.Sprintf("%+v", a); after != before {
		t.Errorf("masking changed the attempt to %s", after)
	}
	if empty := webhook.MaskAttempt(webhook.Attempt{}); len(empty.ResponseBody) > 0 {
		t.Errorf("no answer is shown as %q", empty.ResponseBody)
	}
}
