package api

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"runbell/internal/run"
)

func TestProjects(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		created := s.call(t, http.StatusCreated, "POST", "/v1/projects", object{"name": "Web Shop (EU)"})["data"].(object)
		if created["projectId"] != "web-shop-eu" || created["failFast"] != false || created["defaultBranchName"] != nil {
			t.Errorf("created %v", created)
		}
		if key := created["recordKey"].(string); !strings.HasPrefix(key, "rk_") {
			t.Errorf("record key %q", key)
		}
		if again := s.call(t, http.StatusCreated, "POST", "/v1/projects", object{"name": "Web shop EU"})["data"].(object); again["projectId"] != "web-shop-eu-2" {
			t.Errorf("the second project of the name has the id %v", again["projectId"])
		}
		s.refused(t, http.StatusConflict, "POST", "/v1/projects", object{"name": "x", "projectId": "web-shop-eu"}, "choose another projectId")

		path := "/v1/projects/web-shop-eu"
		changed := s.data(t, "PUT", path, object{"inactivityTimeoutSeconds": 1, "completionDelaySeconds": 0, "failFast": 3,
			"retentionDays": 3650, "defaultBranchName": "main", "name": " Shop "})
		got := s.data(t, "GET", path, nil)
		for name, want := range map[string]string{"name": "Shop", "inactivityTimeoutSeconds": "1", "completionDelaySeconds": "0", "failFast": "3",
			"retentionDays": "3650", "defaultBranchName": "main"} {
			if fmt.Sprint(changed[name]) != want || fmt.Sprint(got[name]) != want {
				t.Errorf("%s: answered %v, then %v, want %v", name, changed[name], got[name], want)
			}
		}
		if got["createdAt"] != created["createdAt"] {
			t.Errorf("createdAt went from %v to %v", created["createdAt"], got["createdAt"])
		}
		// What is not given stays; null clears what may be unknown.
		got = s.data(t, "PUT", path, object{"defaultBranchName": nil, "failFast": nil})
		if got["defaultBranchName"] != nil || got["failFast"] != false || got["name"] != "Shop" {
			t.Errorf("after clearing: %v", got)
		}
		for given, want := range map[any]string{true: "1", false: "false", 0: "false", 12: "12"} {
			if got := s.data(t, "PUT", path, object{"failFast": given}); fmt.Sprint(got["failFast"]) != want {
				t.Errorf("failFast %v shows as %v", given, got["failFast"])
			}
		}
		s.call(t, http.StatusNotFound, "PUT", "/v1/projects/none", object{})
		s.call(t, http.StatusNotFound, "GET", "/v1/projects/none", nil)
	})
}

func TestProjectLimits(t *testing.T) {
	s := sqliteServer(t)
	s.project(t, "demo")
	for _, c := range []struct {
		field string
		value any
		says  string
	}{
		{"inactivityTimeoutSeconds", 0, "1 to 43200"},
		{"inactivityTimeoutSeconds", 43201, "1 to 43200"},
		{"inactivityTimeoutSeconds", 1.5, "inactivityTimeoutSeconds must be a whole number"},
		{"inactivityTimeoutSeconds", "60", "inactivityTimeoutSeconds must be a whole number, not a JSON string"},
		{"completionDelaySeconds", -1, "0 to 900"},
		{"completionDelaySeconds", 901, "0 to 900"},
		{"retentionDays", 0, "1 to 3650"},
		{"retentionDays", 3651, "1 to 3650"},
		{"failFast", -1, "failFast must be a number from 0"},
		{"failFast", "yes", "failFast must not be a JSON string"},
		{"failFast", 2.5, "failFast must not be"},
		{"failFast", 1e9, "failFast must be a number from 0"},
		{"name", "", "1 to 255 characters"},
		{"name", "  ", "1 to 255 characters"},
		{"name", strings.Repeat("x", 256), "1 to 255 characters"},
		{"name", "a\x00b", "control characters"},
		{"defaultBranchName", strings.Repeat("x", 256), "at most 255"},
		{"defaultBranchName", 7, "defaultBranchName must be a string, not a JSON number"},
		{"createdAt", "2026-01-01", `Unknown field "createdAt"`},
		{"projectId", "other", `Unknown field "projectId"`},
	} {
		s.refused(t, http.StatusBadRequest, "PUT", "/v1/projects/demo", object{c.field: c.value}, c.says)
		if c.field != "projectId" {
			body := object{"projectId": "new", c.field: c.value}
			s.refused(t, http.StatusBadRequest, "POST", "/v1/projects", body, c.says)
		}
	}
	s.refused(t, http.StatusBadRequest, "POST", "/v1/projects", object{}, "name or projectId is required")
	for _, id := range []string{"", " a", "a/", "../a", strings.Repeat("a", 101), "a\n"} {
		s.refused(t, http.StatusBadRequest, "POST", "/v1/projects", object{"projectId": id}, "1 to 100 characters")
	}
	if list := s.items(t, "/v1/projects"); len(list) != 1 {
		t.Errorf("refused projects are there: %v", list)
	}
}

func TestSlugs(t *testing.T) {
	s := sqliteServer(t)
	for name, want := range map[string]string{
		"A":                       "^a$",
		"--Ünïcode--":             "^n-code$",
		"日本":                      "^[a-z0-9]{8}$",
		strings.Repeat("ab ", 80): "^(ab-)+ab?$",
	} {
		id := s.call(t, http.StatusCreated, "POST", "/v1/projects", object{"name": name})["data"].(object)["projectId"].(string)
		if !regexp.MustCompile(want).MatchString(id) || run.CheckProjectID(id) != nil {
			t.Errorf("%q has the id %q", name, id)
		}
	}
	for range 30 { // more than there are numbers to try
		s.call(t, http.StatusCreated, "POST", "/v1/projects", object{"name": "Same"})
	}
}

func TestProjectPages(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		var want []string // newest first
		for i := range 7 {
			id := fmt.Sprintf("p%d", i)
			s.project(t, id)
			want = slices.Insert(want, 0, id)
		}
		checkPages(t, s, "/v1/projects?x=", "projectId", want, 3)
	})
}

// checkPages walks a list forwards and backwards.
func checkPages(t *testing.T, s *server, path, id string, want []string, limit int) {
	t.Helper()
	var forwards []string
	var last object
	for after := ""; ; {
		answer := s.call(t, http.StatusOK, "GET", fmt.Sprintf("%s&limit=%d%s", path, limit, after), nil)
		page := itemsOf(answer)
		for _, item := range page {
			forwards = append(forwards, item[id].(string))
			last = item
		}
		more := len(forwards) < len(want)
		if answer["has_more"] != more {
			t.Fatalf("after %d of %d items has_more is %v", len(forwards), len(want), answer["has_more"])
		}
		if !more {
			break
		}
		after = "&starting_after=" + last["cursor"].(string)
	}
	if !slices.Equal(forwards, want) {
		t.Errorf("forwards %v, want %v", forwards, want)
	}
	backwards := []string{last[id].(string)}
	for first := last; ; {
		answer := s.call(t, http.StatusOK, "GET", fmt.Sprintf("%s&limit=%d&ending_before=%s", path, limit, first["cursor"]), nil)
		var page []string
		for _, item := range itemsOf(answer) {
			page = append(page, item[id].(string))
		}
		backwards = append(page, backwards...)
		more := len(backwards) < len(want)
		if answer["has_more"] != more {
			t.Fatalf("backwards: after %d of %d items has_more is %v", len(backwards), len(want), answer["has_more"])
		}
		if !more {
			break
		}
		first = itemsOf(answer)[0]
	}
	if !slices.Equal(backwards, want) {
		t.Errorf("backwards %v, want %v", backwards, want)
	}
}

func TestRecordKeys(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		first := s.project(t, "demo")
		s.project(t, "other")
		path := "/v1/projects/demo/record-keys"
		created := s.call(t, http.StatusCreated, "POST", path, object{"label": "CI"})["data"].(object)
		key := created["recordKey"].(string)
		if !strings.HasPrefix(key, "rk_") || !strings.HasSuffix(key, strings.TrimPrefix(created["hint"].(string), "…")) {
			t.Errorf("created %v", created)
		}
		s.call(t, http.StatusCreated, "POST", path, nil) // a label is not needed
		list := s.items(t, path)
		if len(list) != 3 || list[1]["label"] != "CI" || list[2]["label"] != nil || list[1]["projectId"] != "demo" {
			t.Errorf("keys: %v", list)
		}
		cancel := object{"recordKey": key, "projectId": "demo", "ciBuildId": "none"}
		s.callWith(t, "", http.StatusOK, "POST", "/v1/runs/cancel", cancel)
		if got := s.data(t, "DELETE", "/v1/record-keys/"+created["id"].(string), nil); got["id"] != created["id"] {
			t.Errorf("deleted %v", got)
		}
		s.call(t, http.StatusNotFound, "DELETE", "/v1/record-keys/"+created["id"].(string), nil)
		s.callWith(t, "", http.StatusUnauthorized, "POST", "/v1/runs/cancel", cancel)
		cancel["recordKey"] = first
		s.callWith(t, "", http.StatusOK, "POST", "/v1/runs/cancel", cancel)

		s.refused(t, http.StatusBadRequest, "POST", path, object{"label": strings.Repeat("x", 256)}, "at most 255")
		s.refused(t, http.StatusBadRequest, "POST", path, object{"key": "mine"}, `Unknown field "key"`)
		s.call(t, http.StatusNotFound, "POST", "/v1/projects/none/record-keys", object{})
		s.call(t, http.StatusNotFound, "GET", "/v1/projects/none/record-keys", nil)
	})
}

func TestAPIKeys(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		for access, status := range map[string]int{"read": http.StatusForbidden, "write": http.StatusCreated} {
			created := s.call(t, http.StatusCreated, "POST", "/v1/api-keys", object{"label": "script", "access": access})["data"].(object)
			key := created["apiKey"].(string)
			if !strings.HasPrefix(key, "ak_") || created["access"] != access || created["label"] != "script" {
				t.Errorf("created %v", created)
			}
			s.callWith(t, key, http.StatusOK, "GET", "/v1/projects", nil)
			s.callWith(t, key, status, "POST", "/v1/projects", object{"name": "by " + access})
			s.data(t, "DELETE", "/v1/api-keys/"+created["id"].(string), nil)
			s.callWith(t, key, http.StatusUnauthorized, "GET", "/v1/projects", nil)
			s.call(t, http.StatusNotFound, "DELETE", "/v1/api-keys/"+created["id"].(string), nil)
		}
		if list := s.items(t, "/v1/api-keys"); len(list) != 2 || list[0]["access"] != "write" || list[1]["access"] != "read" {
			t.Errorf("keys: %v", list)
		}
		s.refused(t, http.StatusBadRequest, "POST", "/v1/api-keys", object{"label": "x"}, "access must be read or write")
		s.refused(t, http.StatusBadRequest, "POST", "/v1/api-keys", object{"access": "admin"}, "access must be read or write")
		s.refused(t, http.StatusBadRequest, "POST", "/v1/api-keys", object{"access": "read", "label": strings.Repeat("x", 256)}, "at most 255")
	})
}
