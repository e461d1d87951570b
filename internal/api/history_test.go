package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// told is how the tests of one spec ended, by title.
type told map[string]run.Result

// report records a finished run of one spec, and packs it.
func (s *server) report(t *testing.T, branch, build string, results told, change ...func(*lifecycle.Join)) string {
	t.Helper()
	j := lifecycle.Join{ProjectID: "demo", CIBuildID: build, Specs: []string{"login.cy.js"}, Tags: []string{"smoke"},
		Commit: run.Commit{SHA: "abc", Branch: branch, AuthorName: "Ann", AuthorEmail: "ann@example.com"},
		Client: run.Client{Name: "cypress-cloud", Version: "1.13", Framework: run.Framework{Name: "cypress", Version: "13.2.0"}}}
	for _, c := range change {
		c(&j)
	}
	joined := s.join(t, j)
	var a run.Announcement
	var o run.Outcome
	for title, r := range results {
		r.ID = title
		a.Tests = append(a.Tests, run.Announced{ID: title, Title: []string{"login", title}})
		o.Results = append(o.Results, r)
	}
	o.Duration = 2 * time.Second
	if _, err := s.runs.Complete(t.Context(), s.claim(t, joined).ID, &a, o); err != nil {
		t.Fatal(err)
	}
	if err := history.NewWorker(s.db, slog.New(slog.DiscardHandler), prometheus.NewRegistry()).Catch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return joined.RunID
}

func pass(ms int64) run.Result {
	return run.Result{State: run.Passed, Attempts: []run.Attempt{{State: run.Passed, Duration: ms}}}
}

func fail(message string) run.Result {
	return run.Result{State: run.Failed, Error: message, Attempts: []run.Attempt{{State: run.Failed, Duration: 40, Error: &run.Failure{Name: "AssertionError", Message: message,
		Stack: "AssertionError: " + message + "\n    at x.js:3:4", Frame: &run.Frame{File: "x.js", Line: 3, Column: 4}}}}}
}

func flakes(message string) run.Result {
	r := fail(message)
	r.State, r.Error = run.Passed, ""
	r.Attempts = append(r.Attempts, run.Attempt{State: run.Passed, Duration: 60})
	return r
}

// now is a period around now, as @currents/mcp sends it.
func now() string {
	return "date_start=" + url.QueryEscape(time.Now().AddDate(0, 0, -30).UTC().Format(timeLayout)) + "&date_end=" + url.QueryEscape(time.Now().Add(time.Hour).UTC().Format(timeLayout))
}

// The calls of @currents/mcp 2.4.2, with the parameters that its tools send.
func TestExplorers(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		s.report(t, "main", "b-1", told{"works": pass(100), "breaks": fail("expected 1 to equal 2"), "wavers": flakes("Timed out after 4000ms"), "waits": {State: run.Pending}})
		s.report(t, "fix", "b-2", told{"works": pass(300), "breaks": fail("expected 3 to equal 4"), "wavers": pass(100)})

		tests := s.data(t, "GET", "/v1/tests/demo?"+now()+"&order=failures&dir=desc&limit=2&page=0&spec=LOGIN&tags%5B%5D=smoke&branches%5B%5D=main&branches%5B%5D=fix&authors%5B%5D=Ann&min_executions=2&test_state%5B%5D=failed&test_state%5B%5D=passed", nil)
		list := tests["list"].([]any)
		worst := list[0].(object)
		same(t, worst["title"], "login > breaks")
		same(t, worst["metrics"].(object)["failureRate"], 1)
		same(t, worst["health"], "unknown") // it never passed, and two failures are not three
		same(t, worst["latestTag"], []any{"smoke"})
		same(t, []any{tests["total"], tests["count"], tests["nextPage"]}, []any{3, 2, 1})
		second := s.data(t, "GET", "/v1/tests/demo?"+now()+"&order=failures&limit=2&page=1&min_executions=2", nil)
		same(t, second["nextPage"], false)
		works := s.data(t, "GET", "/v1/tests/demo?"+now()+"&title=works", nil)["list"].([]any)[0].(object)
		same(t, works["metrics"].(object)["avgDurationMs"], 200)
		settings := url.QueryEscape(`{"executions":["pending"],"failureRate":["failed"]}`)
		waits := s.data(t, "GET", "/v1/tests/demo?"+now()+"&title=waits&metric_settings="+settings, nil)["list"].([]any)[0].(object)
		same(t, waits["metrics"].(object)["executions"], 1)

		signature := s.data(t, "POST", "/v1/signature/test", object{"projectId": "demo", "specFilePath": "login.cy.js", "testTitle": []string{"login", "breaks"}})["signature"]
		same(t, signature, worst["signature"])
		results := s.items(t, "/v1/test-results/"+signature.(string)+"?"+now()+"&limit=1&status%5B%5D=failed&flaky=false&tag%5B%5D=smoke&git_author%5B%5D=Ann")
		same(t, results[0]["commit"].(object)["branch"], "fix")
		same(t, results[0]["attempts"].([]any)[0].(object)["error"].(object)["location"], object{"file": "x.js", "line": 3, "column": 4})
		older := s.items(t, "/v1/test-results/"+signature.(string)+"?"+now()+"&starting_after="+results[0]["cursor"].(string))
		if len(older) != 1 || older[0]["commit"].(object)["branch"] != "main" {
			t.Errorf("older results: %v", older)
		}

		specs := s.data(t, "GET", "/v1/spec-files/demo?"+now()+"&order=failureRate&dir=desc&limit=50&page=0&includeFailedInDuration=true&specNameFilter=login", nil)
		m := specs["list"].([]any)[0].(object)["metrics"].(object)
		same(t, []any{m["overallExecutions"], m["failedExecutions"], m["flakyExecutions"], m["suiteSize"], m["avgDuration"]}, []any{2, 2, 1, 4, 2000})

		errs := s.data(t, "GET", "/v1/errors/demo?"+now()+"&page=0&limit=50&order_by=tests&dir=desc&group_by%5B%5D=message&metric=test&top_n=1&tags_logical_operator=AND&error_message=EXPECTED", nil)
		one := errs["list"].([]any)[0].(object)
		same(t, []any{errs["total"], one["count"], one["details"]}, []any{1, 2, object{"tests": object{"count": 1}, "branches": object{"count": 2}}})
		same(t, errs["timeline"].([]any)[0].(object)["count"], 2)

		in := s.data(t, "GET", "/v1/projects/demo/insights?"+now()+"&resolution=1w&tags%5B%5D=smoke&branches%5B%5D=main&authors%5B%5D=Ann", nil)["results"].(object)
		same(t, in["overall"].(object)["tests"], object{"total": 4, "failed": 1, "passed": 2, "pending": 1, "skipped": 0, "flaky": 1})
		same(t, in["overall"].(object)["runs"].(object)["failed"], 1)
		if n := len(in["timeline"].([]any)); n < 5 || n > 6 {
			t.Errorf("30 days have %d weeks", n)
		}
	})
}

func TestComparison(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		s.data(t, "PUT", "/v1/projects/demo", object{"defaultBranchName": "main"})
		first := s.report(t, "main", "b-1", told{"stays": fail("boom"), "comes": pass(100), "goes": fail("boom"), "slows": pass(1000)})
		second := s.report(t, "main", "b-2", told{"stays": fail("boom"), "comes": pass(100), "goes": fail("boom"), "slows": pass(1000)})
		third := s.report(t, "fix", "b-3", told{"stays": fail("boom"), "comes": fail("bang"), "goes": pass(100), "slows": pass(1400), "appears": flakes("hm")})

		same(t, s.data(t, "GET", "/v1/runs/"+first, nil)["comparison"], object{"complete": true, "branch": nil, "defaultBranch": nil})
		c := s.data(t, "GET", "/v1/runs/"+third, nil)["comparison"].(object)
		same(t, []any{c["complete"], c["branch"]}, []any{true, nil})
		with := c["defaultBranch"].(object)
		same(t, with["runId"], second)
		for list, want := range map[string]string{"newlyFailing": "comes", "stillFailing": "stays", "newlyFlaky": "appears", "fixed": "goes", "newTests": "appears", "slower": "slows"} {
			tests := with[list].(object)["tests"].([]any)
			if len(tests) != 1 || tests[0].(object)["title"].([]any)[1] != want {
				t.Errorf("%s: %v, want %s", list, tests, want)
			}
		}
		same(t, with["stillFailing"].(object)["tests"].([]any)[0].(object)["since"].(object)["runId"], first)
		slower := with["slower"].(object)["tests"].([]any)[0].(object)
		same(t, []any{slower["beforeMs"], slower["nowMs"]}, []any{1000, 1400})
	})
}

func TestTermsAndPullRequests(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		pull := func(number int) func(*lifecycle.Join) {
			return func(j *lifecycle.Join) {
				j.Group, j.Tags = "chrome", append(j.Tags, fmt.Sprint("t", number))
				j.Commit.PullRequest = &run.PullRequest{Number: number, Title: "Fix it"}
			}
		}
		s.report(t, "main", "b-1", told{"a": pass(1)})
		s.report(t, "one", "b-2", told{"a": pass(1)}, pull(1))
		s.report(t, "two", "b-3", told{"a": fail("x")}, pull(2))
		latest := s.report(t, "one", "b-4", told{"a": pass(1)}, pull(1))

		for term, want := range map[string]string{"tag": "[smoke t1 t2]", "group": "[chrome]", "branch": "[one two main]", "authorName": "[Ann]",
			"authorEmail": "[ann@example.com]", "framework": "[cypress]", "frameworkVersion": "[13.2.0]", "clientVersion": "[1.13]"} {
			var got []any
			next := ""
			for more := true; more; {
				answer := s.call(t, http.StatusOK, "GET", "/v1/projects/demo/terms/"+term+"?limit=1"+next, nil)
				for _, v := range itemsOf(answer) {
					got = append(got, v["value"])
					next = "&starting_after=" + v["cursor"].(string)
				}
				more = answer["has_more"].(bool)
			}
			if term == "tag" { // smoke and t1 were last seen at the same time
				got[0], got[1] = "smoke", "t1"
			}
			if fmt.Sprint(got) != want {
				t.Errorf("%s: %v, want %s", term, got, want)
			}
		}
		same(t, s.items(t, "/v1/projects/demo/terms/branch?search=TW")[0]["value"], "two")
		same(t, s.items(t, "/v1/projects/demo/terms/branch?dir=asc")[0]["value"], "main")

		pulls := s.items(t, "/v1/projects/demo/pull-requests?runs_per_pr=5")
		same(t, []any{len(pulls), pulls[0]["pr_id"], pulls[0]["title"], len(pulls[0]["runs"].([]any))}, []any{2, 1, "Fix it", 2})
		same(t, pulls[0]["runs"].([]any)[0].(object)["runId"], latest)
		same(t, s.items(t, "/v1/projects/demo/pull-requests?status=FAILING")[0]["pr_id"], 2)
		same(t, s.items(t, "/v1/projects/demo/pull-requests?limit=1&starting_after="+pulls[0]["cursor"].(string))[0]["pr_id"], 2)
		same(t, s.data(t, "GET", "/v1/runs/"+latest, nil)["pr_id"], 1)
	})
}

func TestContext(t *testing.T) {
	s := sqliteServer(t)
	s.project(t, "demo")
	id := s.report(t, "main", "b-1", told{"works": pass(1), "breaks": fail("expected 1 to equal 2"), "falls": fail("expected 1 to equal 3"), "wavers": flakes("hm")})
	mine := s.callWith(t, s.readKey, http.StatusOK, "GET", "/v1/context", nil)["data"].(object)
	same(t, []any{mine["access"], mine["projects"]}, []any{"read", []any{object{"projectId": "demo", "name": "demo"}}})

	c := s.data(t, "GET", "/v1/context?run_id="+id+"&format=json&detail=default&limit=1&page=0", nil)
	failed := c["failedTests"].(object)
	same(t, []any{failed["total"], failed["nextPage"], len(failed["list"].([]any))}, []any{2, 1, 1})
	one := failed["list"].([]any)[0].(object)
	if at := one["attempts"].([]any); len(at) != 1 || !strings.HasPrefix(one["message"].(string), "AssertionError: expected 1") {
		t.Errorf("a failed test: %v", one)
	}
	same(t, s.data(t, "GET", "/v1/context?run_id="+id+"&limit=1&page=1", nil)["failedTests"].(object)["nextPage"], false)
	test := s.data(t, "GET", "/v1/context?instance_id="+one["instanceId"].(string)+"&test_id=wavers&attempt=1", nil)["test"].(object)
	same(t, []any{test["state"], test["attempts"].([]any)[0].(object)["state"]}, []any{"passed", "passed"})
	for _, path := range []string{"?run_id=none", "?instance_id=none", "?run_id=other&instance_id=" + one["instanceId"].(string), "?instance_id=" + one["instanceId"].(string) + "&test_id=none"} {
		s.call(t, http.StatusNotFound, "GET", "/v1/context"+path, nil)
	}
}

func TestHistoryQueriesAreChecked(t *testing.T) {
	s := sqliteServer(t)
	s.project(t, "demo")
	for _, path := range []string{"/v1/tests/demo?", "/v1/spec-files/demo?", "/v1/errors/demo?", "/v1/projects/demo/insights?", "/v1/test-results/x?"} {
		for _, c := range []struct{ query, says string }{
			{"", "date_start is missing"},
			{"date_start=2026-01-01", "date_end is missing"},
			{"date_start=2026-01-02&date_end=2026-01-01", "date_end must be after date_start"},
			{"date_start=never&date_end=2026-01-01", "date_start must be a time"},
			{"date_start=2026-01-01&date_end=2026-01-01&tags[]=%00", "tags[]"},
		} {
			s.refused(t, http.StatusBadRequest, "GET", path+c.query, nil, c.says)
		}
	}
	dates := "date_start=2026-01-01&date_end=2026-01-31&"
	for path, queries := range map[string]map[string]string{
		"/v1/tests/demo?": {"order=size": "order must be title, executions", "dir=up": "dir must be asc or desc", "limit=101": "limit must be a number from 1 to 100", "page=-1": "page must be",
			"min_executions=0": "min_executions must be", "test_state[]=broken": "test_state must be", "metric_settings=[]": "metric_settings must be a JSON object",
			"metric_settings=%7B%22x%22:[]%7D": "metric_settings", "health[]=ill": "health must be unknown", "tag_operator=NOT": "tag_operator must be AND or OR", "annotations=[]": "annotations",
			"title=" + strings.Repeat("x", 201): "title must have at most 200", "spec=" + strings.Repeat("x", 201): "spec must have"},
		"/v1/spec-files/demo?": {"order=title": "order must be avgDuration", "limit=51": "limit must be a number from 1 to 50", "includeFailedInDuration=1": "includeFailedInDuration must be true or false",
			"specNameFilter=" + strings.Repeat("x", 201): "specNameFilter"},
		"/v1/errors/demo?": {"order_by=size": "order_by must be", "metric=size": "metric must be", "top_n=51": "top_n must be", "group_by[]=target": "group_by must be message",
			"error_category=x": "error_category is not supported", "tags_logical_operator=x": "tags_logical_operator must be"},
		"/v1/projects/demo/insights?": {"resolution=1m": "resolution must be 1h, 1d or 1w", "resolution=1h&date_start=2020-01-01": "" /* the first date counts */},
		"/v1/test-results/x?":         {"status[]=x": "status must be", "flaky=x": "flaky must be", "starting_after=x": "starting_after must be the cursor", "limit=0": "limit must be"},
	} {
		for query, says := range queries {
			if says == "" {
				query, says = "resolution=1h&date_start=2020-01-01&date_end=2026-01-01", "use a coarser one"
				s.refused(t, http.StatusBadRequest, "GET", path+query, nil, says)
				continue
			}
			s.refused(t, http.StatusBadRequest, "GET", path+dates+query, nil, says)
		}
	}
	for path, says := range map[string]string{
		"/v1/projects/demo/pull-requests?limit=51":                       "limit must be a number from 1 to 50",
		"/v1/projects/demo/pull-requests?runs_per_pr=11":                 "runs_per_pr must be a number from 1 to 10",
		"/v1/projects/demo/terms/tag?dir=x":                              "dir must be",
		"/v1/projects/demo/terms/tag?search=" + strings.Repeat("x", 129): "search must have at most 128",
		"/v1/context?test_id=x":                                          "instance_id is missing",
		"/v1/context?attempt=1":                                          "attempt requires test_id",
		"/v1/context?format=md":                                          "format must be json",
		"/v1/context?detail=all":                                         "detail must be default, compact or summary",
		"/v1/context?limit=51":                                           "limit must be",
	} {
		s.refused(t, http.StatusBadRequest, "GET", path, nil, says)
	}
	s.call(t, http.StatusNotFound, "GET", "/v1/projects/demo/terms/color", nil)
	for _, body := range []object{{}, {"projectId": "demo", "specFilePath": "a", "testTitle": []string{}}, {"projectId": "demo", "specFilePath": "", "testTitle": "a"}, {"projectId": "demo", "specFilePath": "a", "testTitle": 7}} {
		s.call(t, http.StatusBadRequest, "POST", "/v1/signature/test", body)
	}
}

// FuzzHistoryQueries: every query is read to values within their limits, or refused
// with an error for its sender.
func FuzzHistoryQueries(f *testing.F) {
	dates := "date_start=2026-01-01&date_end=2026-01-31"
	for _, q := range []string{"", dates, dates + "&order=title&dir=asc&page=3&limit=7&spec=a&title=b&min_executions=4&test_state[]=passed&health[]=flaky",
		dates + `&metric_settings={"executions":["failed","failed"]}`, dates + "&order_by=tests&metric=branch&top_n=9&group_by[]=message", dates + "&resolution=1H&tag_operator=or&tags[]=a",
		"run_id=a&instance_id=b&test_id=c&attempt=0&detail=compact", "date_start=0001-01-01&date_end=9999-12-31&page=1000000&limit=100", dates + "&starting_after=MS5hLzEvMi9i"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		values, err := parseQuery(raw)
		if err != nil {
			return
		}
		r := &request{Request: httptest.NewRequest("GET", "/", nil), query: values}
		refused := func(err error) bool {
			if err != nil && run.KindOf(err) != run.Invalid {
				t.Fatalf("an error of kind %d: %v", run.KindOf(err), err)
			}
			return err != nil
		}
		if q, s, err := r.testQuery(); !refused(err) {
			if !q.Filter.Since.Before(q.Filter.Until) || s.limit < 1 || s.limit > 100 || s.page < 0 || len(q.Filter.Tags) > maxFilters || len(q.States.Executions) > len(testStates) {
				t.Errorf("%+v of %q", q, raw)
			}
		}
		if q, _, err := r.errorQuery(); !refused(err) && (q.Top < 1 || q.Top > 50) {
			t.Errorf("%+v of %q", q, raw)
		}
		if q, err := r.contextQuery(); !refused(err) && (q.sheet.limit < 1 || q.sheet.limit > maxContext || q.testID != "" && q.instanceID == "") {
			t.Errorf("%+v of %q", q, raw)
		}
		if filter, err := r.historyFilter("tag_operator", "AND"); !refused(err) {
			for _, by := range history.Resolutions() {
				if n := by.Steps(filter.Since, filter.Until); n < 1 {
					t.Errorf("%d steps of %s in %q", n, by, raw)
				}
			}
		}
	})
}
