package api

import (
	"net/http"
	"strings"
	"testing"

	"runbell/internal/lifecycle"
)

func TestResetRun(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b", Specs: []string{"a.cy.js", "b.cy.js", "c.cy.js", "d.cy.js"}})
		path := "/v1/runs/" + joined.RunID + "/reset"
		s.complete(t, s.claim(t, joined), "passed")
		s.complete(t, s.claim(t, joined), "failed")
		lost := s.claim(t, joined)
		for body, says := range map[string]string{`{"machineId":[]}`: "1 to 63", `{"machineId":["` + strings.Repeat("m", 300) + `"]}`: "machineId", `{"machine":["a"]}`: "machine"} {
			s.refused(t, http.StatusBadRequest, "PUT", path, body, says)
		}
		s.refused(t, http.StatusNotFound, "PUT", path, object{"machineId": []string{"nobody"}}, "nobody")
		got := s.data(t, "PUT", path, object{"machineId": []string{joined.MachineID}, "isBatchedOr8n": true})
		spec := func(name string) object {
			return object{"spec": name, "groupId": joined.GroupName, "machineId": joined.MachineID}
		}
		same(t, got, object{"runId": joined.RunID, "specs": []any{spec("b.cy.js"), spec("c.cy.js")}})
		group := s.data(t, "GET", "/v1/runs/"+joined.RunID, nil)["groups"].([]any)[0].(object)
		same(t, group["instances"], object{"overall": 4, "claimed": 1, "complete": 1, "passes": 1, "failures": 0})
		s.call(t, http.StatusNotFound, "GET", "/v1/instances/"+lost.ID, nil)
		for range 3 {
			s.complete(t, s.claim(t, joined), "passed")
		}
		same(t, s.data(t, "GET", "/v1/runs/"+joined.RunID, nil)["status"], "PASSED")
		s.refused(t, http.StatusUnprocessableEntity, "PUT", path, object{"machineId": []string{joined.MachineID}}, "has ended")
	})
}
