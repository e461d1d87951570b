package api

import (
	"net/http"
	"strings"
	"testing"
)

func TestUsers(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		invited := s.call(t, http.StatusCreated, "POST", "/v1/users", object{"email": " Jane@Example.test", "role": "admin"})["data"].(object)
		link, _ := invited["inviteUrl"].(string)
		if invited["email"] != "jane@example.test" || !strings.HasPrefix(link, "http://runbell.test/invite/") {
			t.Errorf("invited %v", invited)
		}
		jane, err := s.people.Accept(t.Context(), link[strings.LastIndex(link, "/")+1:], "", "Jane", "correct horse battery")
		if err != nil {
			t.Fatal(err)
		}
		path := "/v1/users/" + jane.ID
		s.refused(t, http.StatusUnprocessableEntity, "PUT", path, object{"role": "viewer"}, "only admin")
		s.refused(t, http.StatusUnprocessableEntity, "DELETE", path, nil, "only admin")
		s.refused(t, http.StatusBadRequest, "PUT", path, object{"role": "owner"}, "admin, member or viewer")
		s.refused(t, http.StatusBadRequest, "POST", "/v1/users", object{"email": "x", "role": "viewer"}, "not an email")
		if got := s.data(t, "PUT", path, object{"name": "Jane Roe"}); got["name"] != "Jane Roe" || got["role"] != "admin" {
			t.Errorf("renamed: %v", got)
		}
		joe, err := s.people.Accept(t.Context(), invite(t, s, "joe@example.test"), "", "Joe", "correct horse battery")
		if err != nil {
			t.Fatal(err)
		}
		s.data(t, "PUT", "/v1/users/"+joe.ID, object{"role": "admin"})
		s.data(t, "DELETE", path, nil)
		list := s.call(t, http.StatusOK, "GET", "/v1/users", nil)["data"].([]any)
		if len(list) != 1 || list[0].(object)["email"] != "joe@example.test" || list[0].(object)["lastSeenAt"] != nil {
			t.Errorf("left are %v", list)
		}
	})
}

// invite returns the token of a link.
func invite(t *testing.T, s *server, email string) string {
	t.Helper()
	invited := s.call(t, http.StatusCreated, "POST", "/v1/users", object{"email": email, "role": "member"})["data"].(object)
	link := invited["inviteUrl"].(string)
	return link[strings.LastIndex(link, "/")+1:]
}
