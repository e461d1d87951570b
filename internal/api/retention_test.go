package api

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
)

// aged makes the runs of a project end some days earlier.
func (s *server) aged(t *testing.T, projectID string, days int) {
	t.Helper()
	s.write(t, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE run SET created_at = created_at - $2, finished_at = finished_at - $2 WHERE project_id = $1`,
			projectID, (time.Duration(days) * 24 * time.Hour).Microseconds())
		return err
	})
}

func TestRetentionSettings(t *testing.T) {
	s := sqliteServer(t)
	s.project(t, "demo")
	got := s.data(t, "GET", "/v1/projects/demo", nil)
	settings := []string{"runDays", "artifactsFailedDays", "artifactsPassedDays", "outputDays", "retentionDays", "artifactsMaxBytes"}
	for n, want := range []string{"180", "30", "7", "30", "30", "0"} {
		if fmt.Sprint(got[settings[n]]) != want {
			t.Errorf("%s is %v at first, want %s", settings[n], got[settings[n]], want)
		}
	}
	for n, name := range settings {
		s.data(t, "PUT", "/v1/projects/demo", object{name: n + 1})
	}
	got = s.data(t, "GET", "/v1/projects/demo", nil)
	for n, name := range settings {
		if fmt.Sprint(got[name]) != fmt.Sprint(n+1) {
			t.Errorf("%s is %v, want %d", name, got[name], n+1)
		}
		s.refused(t, http.StatusBadRequest, "PUT", "/v1/projects/demo", object{name: -1}, name+" must be a number from")
	}
}

func TestPinAndDeleteRun(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		joined := s.finish(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b"}, run.Passed)
		path := "/v1/runs/" + joined.RunID
		pinned := s.data(t, "PUT", path+"/pin", nil)
		if by := pinned["pin"].(object); by["actor"] != "api" || by["pinnedAt"] == nil {
			t.Errorf("pinned: %v", pinned)
		}
		if again, got := s.data(t, "PUT", path+"/pin", nil), s.data(t, "GET", path, nil); fmt.Sprint(again) != fmt.Sprint(pinned) || fmt.Sprint(got["pin"]) != fmt.Sprint(pinned["pin"]) {
			t.Errorf("pinned again: %v; the run: %v", again, got["pin"])
		}
		s.refused(t, http.StatusConflict, "DELETE", path, nil, "unpin it first")
		if unpinned := s.data(t, "PUT", path+"/unpin", nil); unpinned["pin"] != nil {
			t.Errorf("unpinned: %v", unpinned)
		}
		running := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "c"})
		s.refused(t, http.StatusConflict, "DELETE", "/v1/runs/"+running.RunID, nil, "cancel it first")
		if deleted := s.data(t, "DELETE", path, nil); deleted["runId"] != joined.RunID {
			t.Errorf("deleted: %v", deleted)
		}
		for _, method := range []string{"GET", "DELETE"} {
			s.call(t, http.StatusNotFound, method, path, nil)
		}
		s.call(t, http.StatusNotFound, "PUT", path+"/pin", nil)
		if list := s.items(t, "/v1/projects/demo/runs"); len(list) != 1 {
			t.Errorf("%d runs are listed", len(list))
		}
	})
}

func TestGCAndUsage(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		s.project(t, "other")
		for _, build := range []string{"a", "b", "kept"} {
			joined := s.finish(t, lifecycle.Join{ProjectID: "demo", CIBuildID: build}, run.Passed)
			if build == "kept" {
				s.data(t, "PUT", "/v1/runs/"+joined.RunID+"/pin", nil)
			}
		}
		s.finish(t, lifecycle.Join{ProjectID: "other", CIBuildID: "new"}, run.Passed)
		s.aged(t, "demo", 181)
		usage := func(want string) object {
			t.Helper()
			u := s.data(t, "GET", "/v1/projects/demo/usage", nil)
			if got := fmt.Sprint([]any{u["runs"], u["pinnedRuns"], u["artifacts"], u["artifactBytes"]}); got != want || u["oldestRunAt"] == nil {
				t.Errorf("usage %v, want %s", u, want)
			}
			return u
		}
		if u := usage("[3 1 0 0]"); u["lastRemoval"] != nil {
			t.Errorf("removed before anything was: %v", u["lastRemoval"])
		}
		planned := s.data(t, "POST", "/v1/gc", object{"dryRun": true})
		usage("[3 1 0 0]")
		done := s.data(t, "POST", "/v1/gc", nil)
		want := "[map[artifactBytes:0 artifacts:0 consoleOutputs:0 deliveries:0 projectId:demo runs:2]]"
		if got := fmt.Sprint(done["projects"]); got != want || fmt.Sprint(planned["projects"]) != want || done["more"] != false || done["dryRun"] != false || planned["dryRun"] != true {
			t.Errorf("planned %v, done %v", planned, done)
		}
		if u := usage("[1 1 0 0]"); fmt.Sprint(u["lastRemoval"].(object)["runs"]) != "2" {
			t.Errorf("last removal: %v", u["lastRemoval"])
		}
		s.call(t, http.StatusNotFound, "GET", "/v1/projects/none/usage", nil)
	})
}
