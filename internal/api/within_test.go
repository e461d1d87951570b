package api

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"runbell/internal/auth"
)

// A key that is good for one project sees and does nothing elsewhere, by any route.
func TestKeyOfOneProject(t *testing.T) {
	s := sqliteServer(t)
	c := &client{server: s, Rand: rand.New(rand.NewPCG(1, 2))}
	c.furnish(t, 0)
	theirs, secret := c.known, "demo-0"
	c.furnish(t, 1)
	key := s.boundKey(t, "demo-1")
	for _, rt := range (&api{}).routes() {
		if rt.right == auth.Anyone {
			continue
		}
		noun := rt.noun()
		path := func(known map[string][]string) string {
			path := strings.ReplaceAll(rt.path, "{term}", "branch")
			if list := known[noun+" id"]; len(list) > 0 {
				path = strings.ReplaceAll(path, "{id}", list[0])
			}
			query := "date_start=2026-01-01&date_end=2030-01-01"
			if _, byParameter, _ := rt.ofProject(); byParameter {
				query += "&ciBuildId=b-1&projectId=" + known["projectId"][0]
			}
			return path + "?" + query
		}
		var body any
		if rt.handler.body != nil {
			body = object{"projectId": "demo-0", "specFilePath": "a", "testTitle": "b", "githubRunId": 1, "githubRunAttempt": 1}
		}
		resp := s.fetch(t, rt.method, path(theirs), key, body)
		_, _, handled := rt.ofProject()
		allowed := handled && rt.handler.body == nil
		if denied := resp.status == http.StatusForbidden || resp.status == http.StatusNotFound || resp.status == http.StatusBadRequest && handled; denied == allowed {
			t.Errorf("%s %s of another project: %d %s", rt.method, rt.path, resp.status, resp.text)
		}
		if allowed && strings.Contains(resp.text, secret) {
			t.Errorf("%s %s tells of another project: %s", rt.method, rt.path, resp.text)
		}
		if byID, byParameter, _ := rt.ofProject(); rt.method == http.MethodGet && (byID || byParameter) && noun != "test-results" {
			if own := s.fetch(t, rt.method, path(c.known), key, nil); own.status != http.StatusOK {
				t.Errorf("%s %s of its own project: %d %s", rt.method, rt.path, own.status, own.text)
			}
		}
	}
	if list := itemsOf(s.callWith(t, key, http.StatusOK, "GET", "/v1/projects", nil)); len(list) != 1 || list[0]["projectId"] != "demo-1" {
		t.Errorf("projects %v", list)
	}
	s.callWith(t, key, http.StatusNotFound, "GET", "/v1/context?run_id="+theirs["runs id"][0], nil)
	s.callWith(t, key, http.StatusNotFound, "PUT", "/v1/runs/cancel-ci/github", object{"githubRunId": 1, "githubRunAttempt": 1, "projectId": "demo-0"})
	s.refused(t, http.StatusNotFound, "POST", "/v1/api-keys", object{"access": "read", "projectId": "nowhere"}, "nowhere")
	// It goes with its project.
	s.data(t, "DELETE", "/v1/projects/demo-1", nil)
	s.callWith(t, key, http.StatusUnauthorized, "GET", "/v1/projects", nil)
}
