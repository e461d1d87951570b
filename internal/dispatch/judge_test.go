package dispatch_test

import (
	"testing"
	"time"

	"runbell/internal/dispatch"
	"runbell/internal/webhook"
)

// What each response means, without jitter: random is 0.5.
func TestJudge(t *testing.T) {
	const status = webhook.BadStatus
	s := dispatch.Schedule{5 * time.Second, 30 * time.Second, 5 * time.Minute}
	again := func(wait time.Duration, quick bool) webhook.Decision {
		return webhook.Decision{State: webhook.Waiting, Wait: wait, Quick: quick}
	}
	held := func(wait, hold time.Duration) webhook.Decision {
		return webhook.Decision{State: webhook.Waiting, Wait: wait, Quick: true, Hold: hold}
	}
	for _, c := range []struct {
		name  string
		try   int
		class webhook.Class
		code  int
		after time.Duration
		want  webhook.Decision
	}{
		{"200", 1, webhook.OK, 200, 0, webhook.Decision{State: webhook.Delivered}},
		{"204 with Retry-After", 1, webhook.OK, 204, time.Hour, webhook.Decision{State: webhook.Delivered}},
		{"200 at last", 4, webhook.OK, 200, 0, webhook.Decision{State: webhook.Delivered}},
		{"301", 1, status, 301, 0, again(5*time.Second, true)},
		{"302", 1, status, 302, 0, again(5*time.Second, true)},
		{"303", 1, status, 303, 0, again(5*time.Second, true)},
		{"304", 1, status, 304, 0, again(5*time.Second, true)},
		{"307", 1, status, 307, 0, again(5*time.Second, true)},
		{"308", 1, status, 308, 0, again(5*time.Second, true)},
		{"400", 1, status, 400, 0, again(5*time.Second, true)},
		{"401", 1, status, 401, 0, again(5*time.Second, true)},
		{"404", 1, status, 404, 0, again(5*time.Second, true)},
		{"408", 1, status, 408, 0, again(5*time.Second, true)},
		{"409", 1, status, 409, 0, again(5*time.Second, true)},
		{"413", 1, status, 413, 0, again(5*time.Second, true)},
		{"425", 1, status, 425, 0, again(5*time.Second, true)},
		{"500", 1, status, 500, 0, again(5*time.Second, true)},
		{"500 with Retry-After", 1, status, 500, time.Hour, again(5*time.Second, true)},
		{"404 with Retry-After", 1, status, 404, time.Hour, again(5*time.Second, true)},
		{"429", 1, status, 429, 0, again(5*time.Second, true)},
		{"429 for 7s", 1, status, 429, 7 * time.Second, held(7*time.Second, 7*time.Second)},
		{"429 for less than the wait", 1, status, 429, 2 * time.Second, held(5*time.Second, 2*time.Second)},
		{"429 for a day", 1, status, 429, 24 * time.Hour, held(time.Hour, time.Hour)},
		{"429 for the past", 1, status, 429, -time.Hour, again(5*time.Second, true)},
		{"503", 1, status, 503, 0, again(5*time.Second, true)},
		{"503 for 1m", 2, status, 503, time.Minute, held(time.Minute, time.Minute)},
		{"503 at last", 4, status, 503, time.Minute, webhook.Decision{State: webhook.Failed, Hold: time.Minute}},
		{"410", 1, status, 410, 0, webhook.Decision{State: webhook.Waiting, Wait: 5 * time.Second, Quick: true, Gone: true}},
		{"410 at last", 4, status, 410, 0, webhook.Decision{State: webhook.Failed, Gone: true}},
		{"no answer", 1, webhook.Timeout, 0, 0, again(5*time.Second, true)},
		{"reset", 1, webhook.Reset, 0, 0, again(5*time.Second, true)},
		{"refused", 1, webhook.RefusedTCP, 0, 0, again(5*time.Second, true)},
		{"TLS", 1, webhook.TLS, 0, 0, again(5*time.Second, true)},
		{"DNS", 1, webhook.DNS, 0, 0, again(5*time.Second, true)},
		{"blocked", 1, webhook.Blocked, 0, 0, again(5*time.Second, true)},
		{"cannot be sent", 1, webhook.BadRequest, 0, 0, again(5*time.Second, true)},
		{"an answer that broke off", 1, webhook.Reset, 200, 0, again(5*time.Second, true)},
		{"the second", 2, status, 500, 0, again(30*time.Second, true)},
		{"the third is slow", 3, status, 500, 0, again(5*time.Minute, false)},
		{"the last", 4, status, 500, 0, webhook.Decision{State: webhook.Failed}},
		{"beyond it", 9, status, 500, 0, webhook.Decision{State: webhook.Failed}},
	} {
		if got := s.Judge(c.try, c.class, c.code, c.after, 0.5); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	// Jitter does not make a quick retry slow, nor a slow one quick; nor does it cut what the receiver asked for.
	for _, random := range []float64{0, 0.999999} {
		if d := s.Judge(2, status, 500, 0, random); !d.Quick || d.Wait == 30*time.Second {
			t.Errorf("with %v: %+v", random, d)
		}
		if d := s.Judge(1, status, 429, time.Minute, random); d.Wait != time.Minute {
			t.Errorf("with %v: %+v", random, d)
		}
	}
	if d := (dispatch.Schedule)(nil).Judge(1, status, 500, 0, 0.5); d != (webhook.Decision{State: webhook.Failed}) {
		t.Errorf("without retries: %+v", d)
	}
}

func TestSigner(t *testing.T) {
	now := time.Unix(1_764_000_000, 0)
	old, fresh := webhook.NewSecret(), webhook.NewSecret()
	body := []byte("{}")
	for name, c := range map[string]struct {
		endpoint webhook.Endpoint
		old      bool
	}{
		"without a rotation":  {webhook.Endpoint{Secret: fresh}, false},
		"during it":           {webhook.Endpoint{Secret: fresh, Previous: old, PreviousUntil: now.Add(time.Second)}, true},
		"at its end":          {webhook.Endpoint{Secret: fresh, Previous: old, PreviousUntil: now}, false},
		"after it":            {webhook.Endpoint{Secret: fresh, Previous: old, PreviousUntil: now.Add(-time.Second)}, false},
		"with ed25519 beside": {webhook.Endpoint{Secret: fresh, Previous: old, PreviousUntil: now.Add(time.Second), Private: webhook.NewPrivateKey()}, true},
	} {
		signer, err := c.endpoint.Signer(now)
		if err != nil {
			t.Fatal(err)
		}
		signatures := string(signer.Sign(nil, "evt_1", now, body))
		verify := func(s webhook.Secret) bool {
			key, err := s.Key()
			return err == nil && webhook.Verify("evt_1", now, body, key, signatures)
		}
		if !verify(fresh) || verify(old) != c.old {
			t.Errorf("%s: the new secret %v, the old one %v", name, verify(fresh), verify(old))
		}
		if c.endpoint.Private != "" {
			public, _ := c.endpoint.Private.Public()
			key, err := public.Key()
			if err != nil || !webhook.VerifyEd25519("evt_1", now, body, key, signatures) {
				t.Errorf("%s: ed25519 does not verify, %v", name, err)
			}
		}
	}
	if _, err := (webhook.Endpoint{Secret: "whsec_short"}).Signer(now); err == nil {
		t.Error("a secret that is none signs")
	}
}
