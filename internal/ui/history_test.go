package ui

import (
	"fmt"
	"html"
	"log/slog"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
)

// past plays a run of some days ago on a branch.
func (w *world) past(days int, branch string, specs ...spec) string {
	w.t.Helper()
	at := time.Now().UTC().AddDate(0, 0, -days).Truncate(time.Hour)
	j := shopJoin(fmt.Sprintf("build-%s-%d", branch, days), specs...)
	j.Commit.Branch, j.Commit.Message = branch, fmt.Sprintf("change of day %d", days)
	runs := w.runs.At(at)
	joined, err := runs.Join(w.ctx, j)
	w.check(err)
	for range specs {
		at = at.Add(30 * time.Second)
		c, err := w.runs.At(at).Claim(w.ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
		w.check(err)
		for _, s := range specs {
			if s.name == c.Instances[0].Spec {
				_, err = w.runs.At(at.Add(20*time.Second)).Complete(w.ctx, c.Instances[0].ID, &s.announcement, s.outcome)
				w.check(err)
			}
		}
	}
	return joined.RunID
}

// catch lets the history catch up.
func (w *world) catch() {
	w.t.Helper()
	w.check(history.NewWorker(w.db, slog.New(slog.DiscardHandler), prometheus.NewRegistry()).Catch(w.ctx))
}

// cart is a spec with a test that ended in some way, one that passes, and one that takes some time.
func cart(ended string, ms int64) spec {
	s := spec{name: "cypress/e2e/cart.cy.js"}
	switch ended {
	case "failed":
		s.test("cart > adds up", 700, assertion(), run.Failed, run.Failed)
	case "flaky":
		s.test("cart > adds up", 700, assertion(), run.Failed, run.Passed)
	default:
		s.test("cart > adds up", 700, nil, run.Passed)
	}
	s.test("cart > is empty at first", 200, nil, run.Passed)
	s.test("cart > loads", ms, nil, run.Passed)
	return s
}

func pay(ended string) spec {
	s := spec{name: "cypress/e2e/pay.cy.js"}
	if ended == "failed" {
		s.test("pay > takes a card", 900, assertion(), run.Failed)
	} else {
		s.test("pay > takes a card", 900, nil, run.Passed)
	}
	return s
}

var addsUp = run.Signature("shop", "cypress/e2e/cart.cy.js", []string{"cart", "adds up"})

// month plays a month in which a test breaks on main.
func (w *world) month() (ids []string) {
	w.t.Helper()
	for _, r := range []struct {
		days        int
		branch      string
		ended, paid string
	}{{20, "main", "passed", "passed"}, {9, "main", "flaky", "passed"}, {8, "main", "passed", "failed"}, {6, "feat/x", "flaky", "passed"},
		{5, "main", "failed", "passed"}, {4, "main", "failed", "passed"}, {3, "main", "failed", "passed"}} {
		ids = append(ids, w.past(r.days, r.branch, cart(r.ended, 300), pay(r.paid)))
	}
	w.catch()
	return ids
}

func TestPagesOfAHistory(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Viewer)
	ids := w.month()
	errorOf := "/projects/shop/errors/" + run.Fingerprint(assertion().Text())
	for _, c := range []struct {
		path  string
		wants []string
		links []string
	}{
		{"/insights", []string{"Runs passed 42%", "Tests flaky 7.1%", "Runs 7", "p50 duration 1 min 20 s", "Tests in the largest run 4",
			"Pass rate", "Duration of a run", "Suite size", "Runs per day",
			"Newest failures All errors cart › adds up cypress/e2e/cart.cy.js AssertionError: expected \"blue\" to equal \"green\" main",
			"Slowest specs All specs cypress/e2e/ cart.cy.js"},
			[]string{"/run/" + ids[6] + "/spec?file=cypress%2Fe2e%2Fcart.cy.js&group=build-main-3", "/projects/shop/tests/" + addsUp}},
		{"/insights?days=7&branch=feat%2Fx", []string{"Runs passed 100%", "Runs 1", "Nothing failed in the last 7 days.", "branch: feat/x"},
			[]string{"/projects/shop/tests?branch=feat%2Fx&days=7", "/projects/shop/insights?days=7"}},
		{"/tests", []string{"4 tests in the last 30 days", "Failed ↓", "cart › adds up cypress/e2e/cart.cy.js Broken 7 42% 3 28% 2"},
			[]string{"/projects/shop/tests?dir=asc", "/projects/shop/tests?order=duration", "/projects/shop/tests?health=flaky"}},
		{"/tests?health=broken&branch=main", []string{"1 test in the last 30 days", "Broken 6 50% 3 16% 1"}, nil},
		{"/tests?q=ADDS&order=durationDelta&days=7", []string{"1 test", "Change"}, nil},
		{"/tests?spec=pay.cy&min=3", []string{"1 test", "pay › takes a card", "spec: pay.cy", "min: 3"}, nil},
		{"/specs", []string{"2 specs in the last 30 days", "cart.cy.js", "42% 3", "28% 2"}, []string{"/projects/shop/tests?spec=cypress%2Fe2e%2Fcart.cy.js"}},
		{"/specs?q=PAY&order=failedExecutions&durations=all", []string{"1 spec in", "pay.cy.js 900 ms 7 14% 1 0 0 7 1"}, nil},
		{"/errors", []string{"1 error in the last 30 days", "AssertionError: expected", "6 2 2"}, []string{errorOf}},
		{"/errors?q=nothing", []string{"Nothing found in the last 30 days with this filter. Clear the filter or look at a longer period"}, nil},
		{"/tests/" + addsUp, []string{"Broken · cart › adds up", "Its latest 3 results failed. The rule", "Failed (3) 42%", "Flaky (2) 28%",
			"Results 7", "By branch", "3 of 6 failed", "0 of 1 failed", "AssertionError: expected", "5 times · also in 1 other test",
			"Duration where it passed"},
			[]string{"/run/" + ids[4] + "/spec?file=cypress%2Fe2e%2Fcart.cy.js&group=build-main-5", errorOf, "/docs/history#health",
				"/projects/shop/tests?spec=cypress%2Fe2e%2Fcart.cy.js", "/projects/shop/tests/" + addsUp + "?branch=feat%2Fx"}},
		{"/tests/" + addsUp + "?branch=feat/x", []string{"Healthy", "Only 1 of the latest 1 result was unstable; 2 make it flaky."}, nil},
		{"/errors/" + run.Fingerprint(assertion().Text()), []string{"Occurrences 6", "Tests 2", "Branches 2", "cart › adds up cypress/e2e/cart.cy.js 5 times",
			"pay › takes a card", "feat/x 1 time"}, []string{"/run/" + ids[2] + "/spec?file=cypress%2Fe2e%2Fpay.cy.js&group=build-main-8"}},
	} {
		page := w.page("/projects/shop" + c.path)
		wellFormed(t, page)
		wants(t, strings.ReplaceAll(page, "</span> <span>", "</span> · <span>"), c.wants...)
		for _, link := range c.links {
			if !strings.Contains(page, `href="`+html.EscapeString(link)+`"`) {
				t.Errorf("%s lacks a link to %s", c.path, link)
			}
		}
	}
	if !strings.Contains(w.page("/run/"+ids[0]+"/spec?file=cypress/e2e/cart.cy.js"), `href="/projects/shop/tests/`+addsUp+`"`) {
		t.Error("the page of a spec does not link to the history of a test")
	}
	for _, path := range []string{"/tests/" + strings.Repeat("0", 32), "/errors/" + strings.Repeat("0", 32)} {
		if rec := w.get("/projects/shop" + path); rec.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
	// A page that did not change is not sent again.
	rec := w.get("/projects/shop/tests")
	if rec = w.get("/projects/shop/tests", "If-None-Match", rec.Header().Get("ETag")); rec.Code != http.StatusNotModified {
		t.Errorf("an unchanged page is answered with %d", rec.Code)
	}
}

// TestPeriodOfAHistory: what makes no sense in an address is left out, and what does
// stays in the links.
func TestPeriodOfAHistory(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Viewer)
	w.past(40, "main", cart("passed", 300))
	w.catch()
	day := func(ago int) string { return time.Now().UTC().AddDate(0, 0, -ago).Format(time.DateOnly) }
	words := func(ago int) string { return time.Now().UTC().AddDate(0, 0, -ago).Format("2 Jan 2006") }
	for query, want := range map[string]string{
		"":                                 "Nothing found in the last 30 days.",
		"days=0":                           "Nothing found in the last 30 days.",
		"days=1000000":                     "Nothing found in the last 30 days.",
		"days=90":                          "3 tests in the last 90 days",
		"from=" + day(41):                  "3 tests from " + words(41) + " to " + words(0),
		"to=" + day(35):                    "3 tests from " + words(64) + " to " + words(35),
		"from=0001-01-01":                  "3 tests from " + words(365) + " to " + words(0),
		"from=yesterday":                   "Nothing found in the last 30 days.",
		"page=99&days=90":                  "3 tests in the last 90 days",
		"health=ill&dir=up":                "Nothing found in the last 30 days.",
		"from=" + day(3) + "&to=" + day(9): "Nothing found in the last 30 days.",
		"days=90&order=nothing&min=x":      "3 tests in the last 90 days",
		"days=90&min=2":                    "Nothing found in the last 90 days with this filter.",
		"days=90&group=firefox":            "Nothing found in the last 90 days with this filter.",
		"days=90&tag=smoke":                "3 tests in the last 90 days",
		"days=90&author=%00%FF":            "3 tests in the last 90 days",
	} {
		page := w.page("/projects/shop/tests?" + query)
		wellFormed(t, page)
		wants(t, page, want)
	}
	page := w.page("/projects/shop/tests?days=90&tag=smoke&order=title&q=cart")
	for _, link := range []string{"/projects/shop/insights?days=90&tag=smoke", "/projects/shop/errors?days=90&tag=smoke",
		"/projects/shop/tests?days=90&dir=desc&order=title&q=cart&tag=smoke", "/projects/shop/tests?days=90&order=title&q=cart",
		"/projects/shop/tests?days=7&order=title&q=cart&tag=smoke"} {
		if !strings.Contains(page, `href="`+html.EscapeString(link)+`"`) {
			t.Errorf("no link to %s", link)
		}
	}
	for _, hidden := range []string{`name="days" value="90"`} {
		if !strings.Contains(page, `type="hidden" `+hidden) {
			t.Errorf("the form does not keep %s", hidden)
		}
	}
}

func TestEmptyHistory(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Viewer)
	for _, path := range []string{"/insights", "/tests", "/specs", "/errors"} {
		page := w.page("/projects/shop" + path)
		wellFormed(t, page)
		wants(t, page, "No runs yet. This page has data after the first run. How to record a run")
	}
}

func TestPagesSayThatTheHistoryIsBehind(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Viewer)
	id := w.past(1, "main", cart("passed", 300))
	for _, path := range []string{"/insights", "/tests", "/specs", "/errors"} {
		page := w.page("/projects/shop" + path)
		wants(t, page, "Counting. Results since")
		if !strings.Contains(page, `data-live="5"`) {
			t.Errorf("%s does not update itself", path)
		}
	}
	wants(t, w.page("/projects/shop/tests"), "Still counting the results in the last 30 days.")
	before := w.get("/run/" + id)
	wants(t, before.Body.String(), "The latest results are still being counted.")
	w.catch()
	after := w.get("/run/"+id, "If-None-Match", before.Header().Get("ETag"))
	if after.Code != http.StatusOK {
		t.Errorf("the page of the run is answered with %d when its results are compared", after.Code)
	}
	lacks(t, after.Body.String(), "being counted", "data-live")
	lacks(t, w.page("/projects/shop/tests"), "Counting.", "data-live")
}

func TestARunComparedWithEarlierOnes(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
		p, err := tx.Project(w.ctx, "shop")
		p.DefaultBranch = "main"
		if err != nil {
			return err
		}
		return tx.UpdateProject(w.ctx, p)
	}))
	stranger := w.token
	ada := w.person("ada", store.Viewer)
	first := w.past(9, "main", cart("flaky", 300), pay("passed"))
	w.past(8, "main", cart("flaky", 300), pay("passed"))
	broken := w.past(7, "main", cart("failed", 300), pay("passed"))
	branch := w.past(6, "feat/x", cart("passed", 300), pay("passed"))
	more := pay("failed")
	more.test("pay > takes a voucher", 5, nil, run.Passed)
	last := w.past(5, "feat/x", cart("failed", 800), more)
	green := w.past(4, "main", cart("passed", 300), pay("passed"))
	w.catch()

	w.token = ada
	page := w.page("/run/" + last)
	wellFormed(t, page)
	wants(t, page, "Since the last run on feat/x", "2 newly failing", "1 slower", "300 ms → 800 ms", "1 new",
		"Compared with main", "1 still failing cart › adds up", "Flaky cypress/e2e/cart.cy.js", "New cypress/e2e/pay.cy.js", "History of this test")
	if !regexp.MustCompile(`Failing on <bdi>main</bdi>, first failed <time`).MatchString(page) {
		t.Error("a failure does not say that it is known on main")
	}
	for _, link := range []string{"/run/" + branch, "/run/" + broken, "/projects/shop/tests/" + addsUp} {
		if !strings.Contains(page, `href="`+link+`"`) {
			t.Errorf("no link to %s", link)
		}
	}
	wants(t, w.page("/run/"+green), "Since the last run on main", "1 fixed")
	lacks(t, w.page("/run/"+green), "Compared with")
	lacks(t, w.page("/run/"+first), "Since the last run", "being counted")

	// The link of a run is all that some people need to see it: they get no other links.
	w.token = stranger
	page = w.page("/run/" + last)
	wellFormed(t, page)
	wants(t, page, "2 newly failing", "1 still failing", "New cypress/e2e/pay.cy.js")
	lacks(t, page, branch, broken, "build-feat/x-6", "/projects/shop/")

	// A run that is gone is not compared with.
	w.token = ada
	before := w.get("/run/" + last)
	w.check(w.ui.sweeper.DeleteRun(w.ctx, branch))
	after := w.get("/run/"+last, "If-None-Match", before.Header().Get("ETag"))
	if after.Code != http.StatusOK {
		t.Fatalf("the page is answered with %d", after.Code)
	}
	wants(t, after.Body.String(), "Compared with main")
	lacks(t, after.Body.String(), "Since the last run")
}

// TestListsOfAHistoryAreBounded: a spec with more tests, and a run with more changes, than a page shows.
func TestListsOfAHistoryAreBounded(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Viewer)
	many := spec{name: "many.cy.js"}
	for n := range 2*historyRows + 10 {
		many.test(fmt.Sprintf("test %03d", n), 10, nil, run.Passed)
	}
	w.past(2, "main", pay("passed"))
	id := w.past(1, "main", pay("passed"), many)
	w.catch()
	seen := map[string]bool{}
	for _, query := range []string{"", "&page=2", "&page=3", "&page=9"} {
		page := w.page("/projects/shop/tests?order=title" + query)
		wellFormed(t, page)
		for _, m := range regexp.MustCompile(`test \d{3}`).FindAllString(text(page), -1) {
			seen[m] = true
		}
		wants(t, page, "111 tests", "of 3")
	}
	if len(seen) != 2*historyRows+10 {
		t.Errorf("%d tests are on three pages", len(seen))
	}
	wants(t, w.page("/run/"+id), "110 new", "90 more tests.")
}

func TestCharts(t *testing.T) {
	steps := []plotStep{{"Mon", "/1"}, {"Tue", "/2"}, {"Wed", "/3"}}
	p := plot{id: "x", title: "X", steps: steps, write: percent, top: wholeShare,
		series: []plotSeries{{"Runs", "main", []float64{1, math.NaN(), 0.5}}}}
	c := p.draw()
	if c.Empty || c.Series[0].Line != "M166 3L833 81" || c.Series[0].Dots != "M166 3h0M833 81h0" {
		t.Errorf("a gap is drawn as %+v", c.Series)
	}
	if c.Steps[1].Text != "Tue: – runs" || c.Steps[2].Text != "Wed: 50% runs" || c.Steps[1].X != 333 || c.Steps[1].W != 333 {
		t.Errorf("steps are %+v", c.Steps)
	}
	p = plot{steps: steps, write: writeCount, top: wholeTop, stacked: true,
		series: []plotSeries{{"Passed", "pass", []float64{1, 0, 2}}, {"Failed", "fail", []float64{3, 0, 0}}}}
	if c = p.draw(); c.Scale[0] != "4" || c.Series[1].Bars != "M55 121h223V3h-223z" {
		t.Errorf("bars are %q up to %s", c.Series[1].Bars, c.Scale[0])
	}
	for _, none := range []float64{math.NaN(), 0} {
		p = plot{steps: steps[:1], write: writeCount, stacked: none == 0, series: []plotSeries{{"Passed", "pass", []float64{none}}}}
		if c = p.draw(); !c.Empty {
			t.Errorf("a chart of %v is not empty", none)
		}
	}
	for _, c := range []struct {
		top        func(float64) float64
		most, want float64
	}{{wholeTop, 0, 2}, {wholeTop, 3, 4}, {wholeTop, 2001, 4000}, {smallShare, 0, .002}, {smallShare, .013, .02}, {smallShare, 1, 1},
		{spanTop, 0, .02}, {spanTop, 61, 120}, {spanTop, 24*3600 + 1, 48 * 3600}} {
		if got := c.top(c.most); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("the scale for %v ends at %v, want %v", c.most, got, c.want)
		}
	}
	for rate, want := range map[float64]string{0: "0%", .0004: "<0.1%", .014: "1.4%", .05: "5%", .428: "42%", .999: "99%", 1: "100%"} {
		if got := percent(rate); got != want {
			t.Errorf("%v is %q, want %q", rate, got, want)
		}
	}
}

func TestChanges(t *testing.T) {
	for _, c := range []struct {
		change   float64
		duration bool
		want     string
	}{{.123, false, "+12.3 points"}, {-.05, false, "−5 points"}, {.01, false, "+1 point"}, {.0004, false, "0 points"},
		{-.0006, false, "−0.1 points"}, {0, false, "0 points"}, {1200, true, "+1.2 s"}, {-80, true, "−80 ms"}, {-.2, true, "0 ms"}} {
		if got := changeOf(c.change, c.duration); got != c.want {
			t.Errorf("a change of %v is %q, want %q", c.change, got, c.want)
		}
	}
}

func TestWhyATestHasItsHealth(t *testing.T) {
	for _, c := range []struct {
		health history.Health
		e      history.Evidence
		want   string
	}{
		{history.Broken, history.Evidence{Results: 20, Failed: 5}, "Its latest 5 results failed."},
		{history.Flaky, history.Evidence{Results: 20, Retried: 2, Alone: 1}, "3 of the latest 20 results were unstable: 2 passed only after a retry, and 1 failed between two passes."},
		{history.Flaky, history.Evidence{Results: 9, Retried: 2}, "2 of the latest 9 results were unstable: 2 passed only after a retry."},
		{history.Healthy, history.Evidence{Results: 4}, "None of the latest 4 results was unstable; 2 make it flaky."},
		{history.Healthy, history.Evidence{Results: 4, Failed: 2}, "None of the latest 4 results was unstable; 2 make it flaky. It failed in the latest 2 results; 3 in a row make it broken."},
		{history.Unknown, history.Evidence{}, "It neither passed nor failed in this period."},
		{history.Unknown, history.Evidence{Results: 2, Failed: 2}, "It has not passed in this period. It failed in the latest 2 results; 3 in a row make it broken."},
	} {
		if got := reasonFor(history.Trace{Health: c.health, Evidence: c.e}); got != c.want {
			t.Errorf("%s: %q, want %q", c.health, got, c.want)
		}
	}
}
