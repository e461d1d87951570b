package api

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/artifact"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// upload sends a file to an address of an artifact.
func (s *server) upload(t *testing.T, to string) {
	t.Helper()
	address, err := url.Parse(to)
	if err == nil {
		err = s.artifacts.Receive(t.Context(), artifact.Upload{ID: path.Base(address.Path), Query: address.Query(), Size: 4, Body: strings.NewReader("file")})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRun(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		s.data(t, "PUT", "/v1/projects/demo", object{"inactivityTimeoutSeconds": 90})
		joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-1", Specs: []string{"a.cy.js", "b.cy.js", "c.cy.js"}, Tags: []string{"smoke"},
			Commit:   run.Commit{SHA: "abc", Branch: "main", Message: "Fix <it>\n", RemoteOrigin: "https://u:p@git.example/x.git"},
			Client:   run.Client{Name: "cypress-cloud", Version: "1", Framework: run.Framework{Name: "cypress", Version: "13.2.0"}},
			Platform: run.Platform{OSName: "linux", BrowserName: "Electron"}})
		s.complete(t, s.claim(t, joined), run.Passed, run.Pending)
		s.complete(t, s.claim(t, joined), run.Failed, run.Skipped)

		got := s.data(t, "GET", "/v1/runs/"+joined.RunID, nil)
		meta := got["meta"].(object)
		for what, pair := range map[string][2]any{
			"runId":           {got["runId"], joined.RunID},
			"projectId":       {got["projectId"], "demo"},
			"runUrl":          {got["runUrl"], "https://runbell.example/run/" + joined.RunID},
			"completionState": {got["completionState"], "IN_PROGRESS"},
			"status":          {got["status"], "FAILING"},
			"cancellation":    {got["cancellation"], nil},
			"finishedAt":      {got["finishedAt"], nil},
			"tags":            {got["tags"], []any{"smoke"}},
			"timeout":         {got["timeout"], object{"isTimeout": false, "timeoutValueMs": 90000}},
			"ciBuildId":       {meta["ciBuildId"], "b-1"},
			"framework":       {meta["framework"], object{"name": "cypress", "version": "13.2.0"}},
			"commit": {meta["commit"], object{"sha": "abc", "branch": "main", "authorName": nil, "authorEmail": nil, "message": "Fix <it>\n",
				"remoteOrigin": "https://git.example/x.git", "defaultBranch": nil}},
			"groups": {got["groups"], []any{object{
				"groupId":   "b-1",
				"platform":  object{"osName": "linux", "osVersion": nil, "browserName": "Electron", "browserVersion": nil},
				"instances": object{"overall": 3, "claimed": 2, "complete": 2, "passes": 1, "failures": 1},
				"tests":     object{"overall": 4, "passes": 1, "failures": 1, "pending": 1, "skipped": 1, "retries": 0, "flaky": 0},
			}}},
		} {
			if fmt.Sprint(pair[0]) != fmt.Sprint(pair[1]) {
				t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
			}
		}
		specs := got["specs"].([]any)
		done, waiting := specs[1].(object), specs[2].(object)
		if done["spec"] != "b.cy.js" || done["groupId"] != "b-1" || done["instanceId"] == nil || done["machineId"] != joined.MachineID || done["completedAt"] == nil ||
			fmt.Sprint(done["results"].(object)["stats"].(object)["failures"]) != "1" {
			t.Errorf("a completed spec: %v", done)
		}
		for name, v := range waiting {
			if name != "spec" && name != "groupId" && v != nil {
				t.Errorf("%s of a spec nobody claimed is %v", name, v)
			}
		}

		s.complete(t, s.claim(t, joined), run.Passed)
		got = s.data(t, "GET", "/v1/runs/"+joined.RunID, nil)
		if got["completionState"] != "COMPLETE" || got["status"] != "FAILED" || got["finishedAt"] == nil {
			t.Errorf("finished: %v", got)
		}
		s.call(t, http.StatusNotFound, "GET", "/v1/runs/none", nil)
	})
}

func TestTimedOutRun(t *testing.T) {
	s := sqliteServer(t)
	s.project(t, "demo")
	s.data(t, "PUT", "/v1/projects/demo", object{"inactivityTimeoutSeconds": 1})
	joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b"})
	time.Sleep(1100 * time.Millisecond)
	if _, err := s.runs.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := s.data(t, "GET", "/v1/runs/"+joined.RunID, nil)
	if got["completionState"] != "TIMEOUT" || got["status"] != "FAILED" || fmt.Sprint(got["timeout"]) != "map[isTimeout:true timeoutValueMs:1000]" {
		t.Errorf("timed out: %v", got)
	}
	if list := s.items(t, "/v1/projects/demo/runs?completion_state=TIMEOUT"); len(list) != 1 {
		t.Errorf("timed out runs: %v", list)
	}
	if got := s.data(t, "PUT", "/v1/runs/"+joined.RunID+"/cancel", nil); got["cancelled"] != false || got["cancelledAt"] != nil || got["actor"] != nil || got["reason"] != nil {
		t.Errorf("canceling a run that timed out: %v", got)
	}
}

func TestListRuns(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		s.project(t, "other")
		join := func(build, branch, author string, tags ...string) lifecycle.Join {
			return lifecycle.Join{ProjectID: "demo", CIBuildID: build, Tags: tags, Commit: run.Commit{Branch: branch, AuthorName: author, Message: "message of " + build}}
		}
		s.finish(t, join("passed", "main", "Ann", "smoke", "night%ly"), run.Passed)
		s.finish(t, join("failed", "main", "Bob", "smoke"), run.Failed)
		canceled := s.join(t, join("canceled", "feature/x", "Ann"))
		s.data(t, "PUT", "/v1/runs/"+canceled.RunID+"/cancel", nil)
		s.join(t, join("running", "main", "Ann", "a \"quoted\" tag"))
		failing := join("failing", "release", "Bob", "smoke")
		failing.Specs = []string{"a.cy.js", "b.cy.js"}
		s.complete(t, s.claim(t, s.join(t, failing)), run.Failed)
		s.finish(t, lifecycle.Join{ProjectID: "other", CIBuildID: "elsewhere"}, run.Passed)
		lastDay := s.items(t, "/v1/projects/demo/runs")[0]["createdAt"].(string)[:len(time.DateOnly)]

		for query, want := range map[string]string{
			"":                               "failing running canceled failed passed",
			"tags[]=smoke":                   "failing failed passed",
			"tags[]=smoke&tags[]=night%25ly": "passed",
			"tags[]=night%25ly&tags[]=none&tag_operator=OR": "passed",
			"tags=smoke&tag_operator=AND":                   "failing failed passed",
			"tags[]=" + url.QueryEscape(`a "quoted" tag`):   "running",
			"tags[]=quoted":                      "",
			"tags[]=smok_":                       "",
			"branches[]=main":                    "running failed passed",
			"branches[]=main&branches[]=release": "failing running failed passed",
			"authors[]=Ann&branches[]=main":      "running passed",
			"search=PASS":                        "passed",
			"search=message+of+f":                "failing failed",
			"search=%25":                         "",
			"status=PASSED":                      "passed",
			"status=FAILED":                      "canceled failed",
			"status=failed":                      "canceled failed",
			"status=RUNNING&status=FAILING":      "failing running",
			"completion_state=COMPLETE":          "failed passed",
			"completion_state=IN_PROGRESS&completion_state=CANCELED": "failing running canceled",
			"status=FAILED&completion_state=CANCELED":                "canceled",
			"date_start=2026-01-01":                                  "failing running canceled failed passed",
			"date_end=2026-01-01":                                    "",
			"date_end=" + lastDay:                                    "failing running canceled failed passed",
		} {
			var got []string
			for _, r := range s.items(t, "/v1/projects/demo/runs?"+query) {
				got = append(got, r["meta"].(object)["ciBuildId"].(string))
				if _, found := r["specs"]; found || r["cursor"] == nil {
					t.Errorf("item: %v", r)
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("runs?%s: %v, want %s", query, got, want)
			}
		}
		s.call(t, http.StatusNotFound, "GET", "/v1/projects/none/runs", nil)
	})
}

func TestRunPages(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		var want []string
		for i := range 23 {
			want = slices.Insert(want, 0, s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: fmt.Sprint(i)}).RunID)
		}
		if first := s.items(t, "/v1/projects/demo/runs"); len(first) != defaultLimit {
			t.Errorf("a page has %d runs, want %d", len(first), defaultLimit)
		}
		for _, limit := range []int{1, 4, 22, 23, 100} {
			checkPages(t, s, "/v1/projects/demo/runs?x=", "runId", want, limit)
		}
		// A run that starts meanwhile does not move the pages that follow.
		page := s.items(t, "/v1/projects/demo/runs?limit=5")
		s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "late"})
		next := s.items(t, "/v1/projects/demo/runs?limit=1&starting_after="+page[4]["cursor"].(string))
		if next[0]["runId"] != want[5] {
			t.Errorf("the page after moved")
		}
	})
}

func TestFindRun(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		s.project(t, "other")
		join := func(build, branch string, tags ...string) lifecycle.Join {
			return lifecycle.Join{ProjectID: "demo", CIBuildID: build, Tags: tags, Commit: run.Commit{Branch: branch}}
		}
		s.finish(t, join("1", "main", "a", "b"), run.Passed)
		s.finish(t, join("2", "main", "a"), run.Failed)
		s.finish(t, join("3", "feature", "b"), run.Failed)
		s.join(t, join("4", "main", "a", "b")) // runs
		canceled := s.join(t, join("5", "main", "a", "b"))
		s.data(t, "PUT", "/v1/runs/"+canceled.RunID+"/cancel", nil)

		for query, want := range map[string]string{
			"ciBuildId=1":                "1",
			"ciBuildId=4":                "4",
			"ciBuildId=5":                "5",
			"ciBuildId=1&branch=feature": "1",
			"branch=main":                "2",
			"branch=main&tags[]=b":       "1",
			"tags[]=a&tags[]=b":          "1",
			"tag[]=b":                    "3",
			"branch=main&pwLastRun=true": "2",
			"ciBuildId=none":             "",
			"branch=none":                "",
			"branch=feature&tags[]=a":    "",
		} {
			if want == "" {
				s.call(t, http.StatusNotFound, "GET", "/v1/runs/find?projectId=demo&"+query, nil)
				continue
			}
			got := s.data(t, "GET", "/v1/runs/find?projectId=demo&"+query, nil)
			if got["meta"].(object)["ciBuildId"] != want || len(got["specs"].([]any)) != 1 {
				t.Errorf("find?%s: %v, want %s", query, got, want)
			}
		}
		s.call(t, http.StatusNotFound, "GET", "/v1/runs/find?projectId=other&ciBuildId=1", nil)
		s.call(t, http.StatusNotFound, "GET", "/v1/runs/find?projectId=none&ciBuildId=1", nil)
	})
}

func TestInstance(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b", Platform: run.Platform{OSName: "linux"}})
		i := s.claim(t, joined)
		started := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)
		announced := run.Announcement{Tests: []run.Announced{
			{ID: "r3", Title: []string{"login", "works"}}, {ID: "r4", Title: []string{"login", "later"}}, {ID: "r5", Title: []string{"login", "fails"}}}}
		if _, err := s.runs.Announce(t.Context(), i.ID, announced); err != nil {
			t.Fatal(err)
		}
		got := s.data(t, "GET", "/v1/instances/"+i.ID, nil)
		if got["results"] != nil || len(got["tests"].([]any)) != 3 || got["tests"].([]any)[0].(object)["state"] != nil || got["completedAt"] != nil {
			t.Errorf("before results: %v", got)
		}
		outcome := run.Outcome{
			Duration: 2500 * time.Millisecond,
			Results: []run.Result{
				{ID: "r3", State: run.Passed, Attempts: []run.Attempt{
					{State: run.Failed, StartedAt: &started, Duration: 30, Error: &run.Failure{Name: "AssertionError", Message: "no", Stack: "at a", Frame: &run.Frame{File: "a.cy.js", Line: 4, Column: 2, Text: "x"}}},
					{State: run.Passed, Duration: 31}}},
				{ID: "r4", State: run.Pending},
				{ID: "r5", State: run.Failed, Error: "AssertionError: no", Attempts: []run.Attempt{{State: run.Failed, Error: &run.Failure{Message: "no"}}}},
			},
			Screenshots: []run.Screenshot{{ID: "s1", Name: "fails", TestID: "r5", Attempt: 2, TakenAt: &started, Width: 1280, Height: 720}, {ID: "s2", TestID: "r5"}},
			Video:       true,
			Coverage:    true,
		}
		if _, err := s.runs.Complete(t.Context(), i.ID, nil, outcome); err != nil {
			t.Fatal(err)
		}
		to, err := s.artifacts.Expect(t.Context(), i.ID, outcome)
		if err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{to.Screenshots[0].UploadURL, to.Video, to.Coverage} {
			s.upload(t, address)
		}
		got = s.data(t, "GET", "/v1/instances/"+i.ID, nil)
		results, tests := got["results"].(object), got["tests"].([]any)
		flaky, failed := tests[0].(object), tests[2].(object)
		first, taken := flaky["attempts"].([]any)[0].(object), results["screenshots"].([]any)[0].(object)
		for _, link := range []any{taken["screenshotURL"], results["videoUrl"], results["attachments"].([]any)[0].(object)["readUrl"]} {
			address, err := url.Parse(fmt.Sprint(link))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.artifacts.CheckLink(path.Base(address.Path), address.Query()); err != nil {
				t.Errorf("%v: %v", link, err)
			}
		}
		for what, pair := range map[string][2]any{
			"ids":        {[]any{got["runId"], got["projectId"], got["groupId"], got["spec"], got["machineId"]}, []any{joined.RunID, "demo", "b", "a.cy.js", joined.MachineID}},
			"platform":   {got["platform"].(object)["osName"], "linux"},
			"stats":      {results["stats"], object{"tests": 3, "passes": 1, "failures": 1, "pending": 1, "skipped": 0, "retries": 1, "wallClockDuration": 2500}},
			"flaky":      {results["flaky"], 1},
			"exception":  {results["exception"], nil},
			"isFlaky":    {[]any{flaky["isFlaky"], failed["isFlaky"]}, []any{true, false}},
			"title":      {flaky["title"], []any{"login", "works"}},
			"startedAt":  {first["startedAt"], "2026-01-02T03:04:05.678Z"},
			"durationMs": {first["durationMs"], 30},
			"error":      {first["error"], object{"name": "AssertionError", "message": "no", "stack": "at a", "codeFrame": object{"file": "a.cy.js", "line": 4, "column": 2, "text": "x"}}},
			"displayed":  {failed["displayError"], "AssertionError: no"},
			"screenshot": {taken["takenAt"], "2026-01-02T03:04:05.678Z"},
			"attempt":    {taken["testAttemptIndex"], 2},
			"no file":    {results["screenshots"].([]any)[1].(object)["screenshotURL"], nil},
			"videos":     {results["videos"], []any{object{"videoUrl": results["videoUrl"]}}},
		} {
			if fmt.Sprint(pair[0]) != fmt.Sprint(pair[1]) {
				t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
			}
		}
		ofRun := s.data(t, "GET", "/v1/runs/"+joined.RunID, nil)["specs"].([]any)[0].(object)["results"]
		if fmt.Sprint(ofRun) != fmt.Sprint(results) {
			t.Errorf("the run says %v, the instance %v", ofRun, results)
		}
		held := s.data(t, "GET", "/v1/instances/"+reporters.InstanceCredential(i.ID), nil)
		if fmt.Sprint(held) != fmt.Sprint(got) {
			t.Errorf("by the id of its reporter the instance is %v, want %v", held, got)
		}
		s.call(t, http.StatusNotFound, "GET", "/v1/instances/none", nil)
		s.call(t, http.StatusNotFound, "GET", "/v1/instances/"+i.ID+"."+strings.Repeat("0", 32), nil)
	})
}
