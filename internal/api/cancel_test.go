package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

func TestCancelRun(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		hook := s.hook(t, "demo", object{"hookEvents": []string{"RUN_CANCELED"}})
		joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b"})
		path := "/v1/runs/" + joined.RunID + "/cancel"
		first := s.data(t, "PUT", path, object{"reason": "not needed"})
		if first["runId"] != joined.RunID || first["cancelled"] != true || first["cancelledAt"] == nil || first["actor"] != "api" || first["reason"] != "not needed" {
			t.Errorf("canceled: %v", first)
		}
		// Again, by somebody else with another reason: nothing changes.
		if again := s.data(t, "PUT", path, object{"reason": "other"}); fmt.Sprint(again) != fmt.Sprint(first) {
			t.Errorf("canceled again: %v, want %v", again, first)
		}
		if list := s.items(t, "/v1/webhooks/"+hook+"/deliveries"); len(list) != 1 {
			t.Errorf("%d deliveries for one cancellation", len(list))
		}
		got := s.data(t, "GET", "/v1/runs/"+joined.RunID, nil)
		want := object{"actor": "api", "canceledAt": first["cancelledAt"], "reason": "not needed"}
		if got["completionState"] != "CANCELED" || fmt.Sprint(got["cancellation"]) != fmt.Sprint(want) {
			t.Errorf("run: %v", got)
		}

		finished := s.finish(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "done"}, run.Passed)
		if got := s.data(t, "PUT", "/v1/runs/"+finished.RunID+"/cancel", nil); got["cancelled"] != false || got["cancelledAt"] != nil {
			t.Errorf("canceling a finished run: %v", got)
		}
		other := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "c"})
		path = "/v1/runs/" + other.RunID + "/cancel"
		s.refused(t, http.StatusBadRequest, "PUT", path, object{"reason": strings.Repeat("x", 501)}, "at most 500")
		s.refused(t, http.StatusBadRequest, "PUT", path, object{"reason": "a\x00"}, "control characters")
		s.refused(t, http.StatusBadRequest, "PUT", path, object{"actor": "me"}, `Unknown field "actor"`)
		if got := s.data(t, "PUT", path, nil); got["cancelled"] != true || got["reason"] != "" {
			t.Errorf("canceled without a body: %v", got)
		}
		s.call(t, http.StatusNotFound, "PUT", "/v1/runs/none/cancel", nil)
	})
}

func TestCancelWithRecordKey(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		key := s.project(t, "demo")
		otherKey := s.project(t, "other")
		const path = "/v1/runs/cancel"
		cancel := func(body object) object {
			return s.callWith(t, "", http.StatusOK, "POST", path, body)["data"].(object)
		}
		byBuild := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-1"})
		byID := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-2"})
		elsewhere := s.join(t, lifecycle.Join{ProjectID: "other", CIBuildID: "b-1"})
		finished := s.finish(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "done"}, run.Passed)

		first := cancel(object{"recordKey": key, "projectId": "demo", "ciBuildId": "b-1"})
		c := first["cancellation"].(object)
		if first["runId"] != byBuild.RunID || c["actor"] != "record-key" || c["reason"] != "api" || c["canceledAt"] == nil {
			t.Errorf("canceled: %v", first)
		}
		if again := cancel(object{"recordKey": key, "projectId": "demo", "ciBuildId": "b-1"}); fmt.Sprint(again) != fmt.Sprint(first) {
			t.Errorf("canceled again: %v, want %v", again, first)
		}
		// runId wins.
		if got := cancel(object{"recordKey": key, "projectId": "demo", "ciBuildId": "b-1", "runId": byID.RunID}); got["runId"] != byID.RunID {
			t.Errorf("canceled %v, want %v", got, byID.RunID)
		}
		for name, body := range map[string]object{
			"no such build":            {"ciBuildId": "none"},
			"no such run":              {"runId": "none"},
			"a run of another project": {"runId": elsewhere.RunID},
			"a finished run":           {"runId": finished.RunID},
		} {
			body["recordKey"], body["projectId"] = key, "demo"
			if got := cancel(body); got["runId"] != nil || got["cancellation"] != nil {
				t.Errorf("%s: %v", name, got)
			}
		}
		if got := s.data(t, "GET", "/v1/runs/"+elsewhere.RunID, nil); got["completionState"] != "IN_PROGRESS" {
			t.Errorf("the run of another project: %v", got)
		}

		for _, wrong := range []string{"", "rk_wrong", otherKey, s.writeKey} {
			s.callWith(t, "", http.StatusUnauthorized, "POST", path, object{"recordKey": wrong, "projectId": "demo", "ciBuildId": "b-1"})
		}
		s.callWith(t, "", http.StatusUnauthorized, "POST", path, object{"recordKey": key, "projectId": "none", "ciBuildId": "b-1"})
		for _, body := range []object{
			{"recordKey": key, "ciBuildId": "b-1"},
			{"recordKey": key, "projectId": "demo"},
			{"recordKey": key, "projectId": "demo", "ciBuildId": "a\x00"},
			{"recordKey": key, "projectId": "demo", "ciBuildId": strings.Repeat("x", 256)},
			{"recordKey": key, "projectId": "demo", "ciBuildId": "b-1", "force": true},
		} {
			s.callWith(t, "", http.StatusBadRequest, "POST", path, body)
		}
	})
}

func TestCancelGitHub(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		s.project(t, "other")
		start := func(project, build, runID, attempt string) string {
			return s.join(t, lifecycle.Join{ProjectID: project, CIBuildID: build, CI: run.CI{Provider: "githubActions",
				Params: map[string]string{"githubRunId": runID, "githubRunAttempt": attempt, "githubRepository": "o/r"}}}).RunID
		}
		cancel := func(body object) string {
			var ids []string
			for _, r := range s.data(t, "PUT", "/v1/runs/cancel-ci/github", body)["runs"].([]any) {
				if r.(object)["cancelled"] != true || r.(object)["actor"] != "api" {
					t.Errorf("canceled: %v", r)
				}
				ids = append(ids, r.(object)["runId"].(string))
			}
			return strings.Join(ids, " ")
		}
		one, two := start("demo", "one", "12345678901234567890", "1"), start("demo", "two", "12345678901234567890", "1")
		there := start("other", "one", "12345678901234567890", "1")
		second := start("demo", "second", "12345678901234567890", "2")
		start("demo", "longer", "123456789012345678901", "1")

		if got := cancel(object{"githubRunId": "1", "githubRunAttempt": 1}); got != "" {
			t.Errorf("canceled %s", got)
		}
		if got := cancel(object{"githubRunId": json.Number("12345678901234567890"), "githubRunAttempt": "1", "projectId": "demo", "ciBuildId": "two"}); got != two {
			t.Errorf("by build: canceled %s, want %s", got, two)
		}
		if got := cancel(object{"githubRunId": "12345678901234567890", "githubRunAttempt": 1, "projectId": "demo"}); got != one {
			t.Errorf("by project: canceled %s, want %s", got, one)
		}
		if got := cancel(object{"githubRunId": "12345678901234567890", "githubRunAttempt": 1}); got != there {
			t.Errorf("canceled %s, want %s", got, there)
		}
		if got := cancel(object{"githubRunId": "12345678901234567890", "githubRunAttempt": 1}); got != "" {
			t.Errorf("canceled again: %s", got)
		}
		if got := cancel(object{"githubRunId": "12345678901234567890", "githubRunAttempt": 2}); got != second {
			t.Errorf("canceled %s, want %s", got, second)
		}
		for _, body := range []object{
			{"githubRunId": "1"}, {"githubRunAttempt": 1}, {"githubRunId": true, "githubRunAttempt": 1}, {"githubRunId": "a\x00", "githubRunAttempt": 1},
			{"githubRunId": "1", "githubRunAttempt": 1, "repository": "o/r"},
		} {
			s.call(t, http.StatusBadRequest, "PUT", "/v1/runs/cancel-ci/github", body)
		}
		s.call(t, http.StatusNotFound, "PUT", "/v1/runs/cancel-ci/github", object{"githubRunId": "1", "githubRunAttempt": 1, "projectId": "none"})
	})
}

func TestHeartbeat(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b"})
		path := "/v1/runs/" + joined.RunID + "/heartbeat"
		credential := reporters.MachineCredential(joined.RunID, joined.MachineID)
		beat := func() object {
			return s.callWith(t, "", http.StatusOK, "POST", path, object{"machineId": credential})["data"].(object)
		}
		if got := beat(); got["cancelled"] != false || got["reason"] != nil {
			t.Errorf("heartbeat: %v", got)
		}
		s.data(t, "PUT", "/v1/runs/"+joined.RunID+"/cancel", object{"reason": "enough"})
		if got := beat(); got["cancelled"] != true || got["reason"] != "Canceled by api: enough" {
			t.Errorf("heartbeat of a canceled run: %v", got)
		}
		s.refused(t, http.StatusNotFound, "POST", path, object{"machineId": "other"}, "machineId")
		s.refused(t, http.StatusNotFound, "POST", path, object{"machineId": joined.MachineID}, "machineId")
		s.refused(t, http.StatusNotFound, "POST", "/v1/runs/none/heartbeat", object{"machineId": credential}, "run")
		s.refused(t, http.StatusBadRequest, "POST", path, object{}, "machineId must have 1 to 510")
		s.refused(t, http.StatusBadRequest, "POST", path, object{"machineId": "a\x00"}, "control characters")
		s.refused(t, http.StatusBadRequest, "POST", path, object{"machineId": credential, "x": 1}, `Unknown field "x"`)
	})
}
