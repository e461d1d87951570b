package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/body"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/projects"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// FuzzQueries: every query is read, or refused with an error for its sender. What was
// read is within limits.
func FuzzQueries(f *testing.F) {
	for _, s := range []string{"", "limit=5&starting_after=" + cursorOf(time.Unix(0, 0), "a"), "limit=0", "limit=1e9&page=-1", "tags[]=a&tags[]=b&tag_operator=OR",
		"date_start=2026-01-01&date_end=2026-01-02T00:00:00+01:00", "date_start=2026-01-02&date_end=2026-01-01", "date_start=-1&date_end=9999-12-31T23:59:59.999999999Z",
		"metric_settings=%7B%22executions%22%3A%5B%22failed%22%5D%7D", "test_state[]=passed&order=title&dir=asc&health=broken", "top_n=51&metric=test&order_by=count",
		"run_id=a&instance_id=b&test_id=c&attempt=1&detail=compact", "search=%00", "%", "status=PASSED&status=FAILED&completion_state=TIMEOUT", "ending_before=AAAA;a=b",
		"includeFailedInDuration=maybe&specNameFilter=\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		query, err := parseQuery(raw)
		errs := []error{err}
		r := &request{query: query}
		page, err := r.page()
		if errs = append(errs, err); err == nil && (page.Limit < 1 || page.Limit > maxLimit || page.After != nil && page.Before != nil) {
			t.Errorf("a page of %+v", page)
		}
		runs, err := r.runFilter()
		if errs = append(errs, err); err == nil && max(len(runs.Tags), len(runs.Branches), len(runs.Authors)) > maxFilters {
			t.Errorf("filters %+v", runs)
		}
		f, err := r.historyFilter("tag_operator", "AND")
		if errs = append(errs, err); err == nil && (!f.Since.Before(f.Until) || max(len(f.Tags), len(f.Branches), len(f.Authors), len(f.Groups)) > maxFilters) {
			t.Errorf("filters %+v", f)
		}
		tests, sheet, err := r.testQuery()
		if errs = append(errs, err); err == nil && (sheet.limit < 1 || sheet.limit > 100 || sheet.page < 0 || tests.Limit != sheet.limit || tests.MinExecutions < 0) {
			t.Errorf("tests %+v, %+v", tests, sheet)
		}
		found, sheet, err := r.errorQuery()
		if errs = append(errs, err); err == nil && (sheet.limit < 1 || sheet.limit > 100 || found.Top < 1 || found.Top > 50) {
			t.Errorf("errors %+v, %+v", found, sheet)
		}
		context, err := r.contextQuery()
		if errs = append(errs, err); err == nil && (context.sheet.limit < 1 || context.sheet.limit > maxContext || context.attempt < -1) {
			t.Errorf("context %+v", context)
		}
		for _, err := range errs {
			if err != nil && (run.KindOf(err) != run.Invalid || !utf8.ValidString(err.Error())) {
				t.Errorf("an error of kind %d: %v", run.KindOf(err), err)
			}
		}
	})
}

// FuzzCalls: every call that has parameters answers, or refuses them with an error for its
// sender. It reads them where its handler does, and what it makes of them reaches the
// database.
func FuzzCalls(f *testing.F) {
	db := testkit.SQLite(f)
	testkit.Project(f, db, "demo")
	a := &api{Options: Options{DB: db, Runs: lifecycle.New(db, "http://runbell.test", func(...string) {}), PublicURL: "http://runbell.test", Explorer: history.NewExplorer()}}
	a.projects = projects.New(db, nil, nil)
	signature := packed(f, a)
	ids := map[string]string{"/v1/test-results/{id}": signature, "/v1/webhooks/{id}/deliveries": testkit.Endpoint(f, db, "demo").ID}
	var calls []route
	for _, rt := range a.routes() {
		if len(rt.query) > 0 && rt.method == "GET" {
			calls = append(calls, rt)
		}
	}
	dates := "date_start=2026-01-01&date_end=9000-12-31&"
	for n, rt := range calls {
		f.Add(uint8(n), "")
		f.Add(uint8(n), dates+"projectId=demo&branch=main&run_id=none")
		for _, p := range rt.query {
			for _, value := range append([]string{"", "1", "-1", "\xff", "%25_!%27", "2026-01-31", cursorOf(time.Unix(1, 0), "a"), walkCursor(time.Unix(1, 0), "a", time.Unix(2, 0))}, p.enum...) {
				f.Add(uint8(n), dates+p.name+"="+url.QueryEscape(value))
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, raw string) {
		rt := calls[int(which)%len(calls)]
		query, err := parseQuery(raw)
		if err != nil {
			return // FuzzQueries has it
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.SetPathValue("id", cmp.Or(ids[rt.path], "demo"))
		r.SetPathValue("term", string(store.Terms()[len(raw)%len(store.Terms())]))
		data, _, err := rt.handler.serve(&request{Request: r, query: query}, nil)
		if kind := run.KindOf(err); err != nil && kind != run.Invalid && kind != run.NotFound || err != nil && !utf8.ValidString(err.Error()) {
			t.Errorf("%s?%s: an error of kind %d: %v", rt.path, raw, kind, err)
		}
		if _, errJSON := json.Marshal(data); err == nil && errJSON != nil {
			t.Errorf("%s?%s: %v", rt.path, raw, errJSON)
		}
	})
}

// packed records a run with a test that fails, of a pull request, and returns the signature
// of the test.
func packed(t testing.TB, a *api) (signature string) {
	ctx := context.Background()
	joined, err := a.Runs.Join(ctx, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-1", Specs: []string{"a.cy.js"}, Tags: []string{"smoke"},
		Commit: run.Commit{Branch: "main", AuthorName: "Ann", PullRequest: &run.PullRequest{Number: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := a.Runs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	result := fail("no")
	result.ID = "r1"
	if _, err := a.Runs.Complete(ctx, claimed.Instances[0].ID, &run.Announcement{Tests: []run.Announced{{ID: "r1", Title: []string{"breaks"}}}},
		run.Outcome{Results: []run.Result{result}}); err != nil {
		t.Fatal(err)
	}
	if err := history.NewWorker(a.DB, slog.New(slog.DiscardHandler), prometheus.NewRegistry()).Catch(ctx); err != nil {
		t.Fatal(err)
	}
	return run.Signature("demo", "a.cy.js", []string{"breaks"})
}

// FuzzBodies: every body of the API is decoded, or refused with an error for its
// sender, at a cost that its size bounds.
func FuzzBodies(f *testing.F) {
	var bodies []reflect.Type
	for _, rt := range (&api{}).routes() {
		if rt.handler.body != nil {
			bodies = append(bodies, rt.handler.body)
		}
	}
	// Over the limits that are below.
	many := func(s string) string { return "[" + strings.Repeat(s+",", 10_000) + s + "]" }
	for i := range bodies {
		for _, s := range []string{``, `{}`, `null`, `[]`, `{"name":"a","projectId":"a"}`, `{"url":"https://a.test","hookEvents":["RUN_START"],"headers":"{}","label":null}`,
			`{"githubRunId":1,"githubRunAttempt":"1e999"}`, `{"filter":{"branches":["a","b"]}}`, `{"runId":"a","recordKey":"b"}`, `{"machineId":"\u0000"}`,
			`{"hookEvents":` + many(`""`) + `}`, `{"filter":{"branches":` + many(`"a"`) + `}}`, `{"defaultFilter":{"x":` + many(`{}`) + `}}`} {
			f.Add(uint8(i), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		kind := bodies[int(which)%len(bodies)]
		pool, limits := body.NewPools().Known, bodyLimits
		limits.Values, limits.Groups = 1000, 100 // so that a short body reaches them
		once := func() error {
			b, err := pool.Receive(httptest.NewRecorder(), httptest.NewRequest("POST", "/", bytes.NewReader(text)), limits)
			if err != nil {
				return err
			}
			defer b.Release()
			return b.Decode(reflect.New(kind).Interface(), true)
		}
		_ = once() // what is made once for all bodies
		var err error
		const perByte, perValue, perGroup, free = 6, 48, 320, 64 << 10
		most := uint64(perByte*len(text) + perValue*limits.Values + perGroup*limits.Groups + free)
		if cost := testkit.Allocated(func() { err = once() }); cost > most {
			t.Fatalf("%d bytes cost %d: more than %d", len(text), cost, most)
		}
		if kind := run.KindOf(err); err != nil && kind != run.Invalid && kind != run.TooLarge {
			t.Fatalf("an error of kind %d: %v", kind, err)
		}
	})
}
