package ui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

// TestFailuresAreGrouped: a test that failed in several groups is one line, and tests
// with one error are one group, whatever values it names.
func TestFailuresAreGrouped(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	timedOut := func(ms string) *run.Failure {
		return &run.Failure{Name: "AssertionError", Message: "Timed out retrying after " + ms + "ms: Expected to find element: `.order`, but never found it."}
	}
	a, b := spec{name: "a.cy.js"}, spec{name: "b.cy.js"}
	a.test("Cart > adds", 1, timedOut("4000"), run.Failed)
	a.test("Cart > removes", 1, &run.Failure{Name: "Error", Message: "boom"}, run.Failed)
	b.test("Pay > pays", 1, timedOut("10000"), run.Failed)
	j := shopJoin("build-001", a, b)
	var id string
	for _, group := range []string{"chrome", "firefox"} {
		j.Group = group
		joined := w.join(j)
		id = joined.RunID
		for _, i := range w.claim(joined, 2) {
			s := a
			if i.Spec == b.name {
				s = b
			}
			if group == "firefox" && s.name == "a.cy.js" {
				s = spec{name: "a.cy.js"}
				s.test("Cart > adds", 1, timedOut("4000"), run.Failed)
				s.test("Cart > removes", 1, &run.Failure{Name: "Error", Message: "another way"}, run.Failed)
			}
			w.complete(i, s)
		}
	}
	page := w.page("/run/" + id)
	wellFormed(t, page)
	wants(t, page, "Failures 2 tests: AssertionError: Timed out retrying after 4000ms: Expected to find element: `.order`, but never found it. Cart › adds chrome firefox a.cy.js",
		"Pay › pays chrome firefox b.cy.js", "Cart › removes chrome firefox a.cy.js Error: boom", "Error: boom Copy", "firefox Error: another way Copy")
	if n := strings.Count(page, `<details class="failed-test"`); n != 3 {
		t.Errorf("%d lines of failures, want one for each of the 3 tests", n)
	}

	// Numbers and the search filter the specs, and leave the failures alone.
	for query, want := range map[string]int{"?show=failed": 4, "?show=flaky": 0, "?q=B.CY": 2, "?show=passed&q=b": 0, "?sort=name": 4, "?show=unreported": 0, "?show=nonsense": 4} {
		page := w.page("/run/" + id + query)
		if n := strings.Count(page, `<li class="spec"`); n != want {
			t.Errorf("%s lists %d specs, want %d", query, n, want)
		}
		if n := strings.Count(page, `<details class="failed-test"`); n != 3 {
			t.Errorf("%s lists %d failures", query, n)
		}
	}
	wants(t, w.page("/run/"+id+"/specs?q=a.cy"), "2 of 4 specs")
}

// TestManyFailuresAreFolded: of many tests with one error, five have their details.
func TestManyFailuresAreFolded(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	a := spec{name: "a.cy.js"}
	for n := range maxAlike + 2 {
		a.test(fmt.Sprint("Cart > step ", n), 1, &run.Failure{Name: "Error", Message: "boom", Stack: "Error: boom\n    at here"}, run.Failed)
	}
	joined := w.join(shopJoin("build-001", a))
	w.complete(w.claim(joined, 1)[0], a)
	page := w.page("/run/" + joined.RunID)
	wellFormed(t, page)
	wants(t, page, "7 tests: Error: boom", "2 more tests with this error Cart › step 5 a.cy.js Cart › step 6 a.cy.js Failures as text")
	if n := strings.Count(page, `<details class="failed-test"`); n != maxAlike {
		t.Errorf("%d failures have details, want %d", n, maxAlike)
	}
	if n := strings.Count(page, `<a class="failed-test"`); n != 2 {
		t.Errorf("%d failures are links, want 2", n)
	}
}

func TestWhyADeliveryWaits(t *testing.T) {
	now := time.Unix(1e9, 0)
	overdue := webhook.Delivery{State: webhook.Waiting, DueAt: now.Add(-time.Minute)}
	for want, c := range map[string]struct {
		delivery webhook.Delivery
		endpoint webhook.Endpoint
		health   webhook.Health
	}{
		"until the webhook is enabled":                                {delivery: webhook.Delivery{State: webhook.Held}},
		"after an earlier event of the run":                           {delivery: webhook.Delivery{State: webhook.Waiting}},
		"the receiver asked Runbell to wait":                          {overdue, webhook.Endpoint{}, webhook.Health{HoldUntil: now.Add(time.Hour), State: webhook.Failing}},
		"the receiver is failing, so deliveries go out one at a time": {overdue, webhook.Endpoint{RatePerMinute: 60}, webhook.Health{State: webhook.Failing}},
		"limited to 60 requests a minute":                             {overdue, webhook.Endpoint{RatePerMinute: 60}, webhook.Health{}},
		"at most 1 request at a time":                                 {overdue, webhook.Endpoint{MaxInFlight: 1}, webhook.Health{}},
		"":                                                            {delivery: webhook.Delivery{State: webhook.Waiting, DueAt: now.Add(time.Minute)}},
	} {
		got := statusOf(c.delivery, nil, c.endpoint, c.health, now)
		if got.Why != want || got.Overdue != c.delivery.DueAt.Equal(overdue.DueAt) {
			t.Errorf("%+v: %q, overdue %v, want %q", c, got.Why, got.Overdue, want)
		}
	}
}

// TestDocs: the documents of this version are pages.
func TestDocs(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	for _, c := range []struct{ path, reads string }{{"/docs/", "Changelog"}, {"/docs/webhooks", "Webhooks"}, {"/docs/webhooks.md", "Webhooks"}, {"/docs/changelog", "Changelog"}} {
		page := w.page(c.path)
		wellFormed(t, page)
		wants(t, page, c.reads)
		lacks(t, page, "<img", ".md\"")
	}
	if rec := w.get("/docs/nothing"); rec.Code != 404 {
		t.Errorf("a document that is not there: %d", rec.Code)
	}
	if rec := w.get("/docs/webhook.schema.json"); rec.Code != 200 || !strings.Contains(rec.Body.String(), "RUN_FINISH") {
		t.Errorf("the schema: %d", rec.Code)
	}
}
