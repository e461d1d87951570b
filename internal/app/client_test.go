package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What else may listen where the server should be, or stand before it.
func TestClientSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		key    string
		want   string
	}{
		{"refused", 404, `{"status":"FAILED","error":"There is no project \"x\"."}`, "k", `There is no project "x".`},
		{"no key", 401, `{"status":"FAILED","error":"…"}`, "", "set RUNBELL_API_KEY"},
		{"wrong key", 401, `{"status":"FAILED","error":"…"}`, "k", "check RUNBELL_API_KEY"},
		{"a proxy's error", 502, `<html>Bad Gateway</html>`, "k", "does not answer like a Runbell server (502 Bad Gateway)"},
		{"another server", 200, `<html>Hello</html>`, "k", "check RUNBELL_URL"},
		{"no body", 204, ``, "k", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			defer server.Close()
			api, err := newClient(server.URL+"/", c.key)
			if err != nil {
				t.Fatal(err)
			}
			_, err = api.do(t.Context(), http.MethodGet, "/projects/x", nil, nil)
			if got := fmt.Sprint(err); !strings.Contains(got, c.want) || (c.want == "") != (err == nil) {
				t.Errorf("error %q, want %q in it", got, c.want)
			}
		})
	}
}

// A password in the server's address reaches the server and no message.
func TestPasswordInTheAddressIsNotPrinted(t *testing.T) {
	answers := map[string]string{
		"/v1/projects/none":  `{"status":"FAILED","error":"no key"}`,
		"/v1/projects/other": `<html>Hello</html>`,
		"/v1/projects":       `{"status":"OK","data":{"projectId":"shop","name":"Shop","recordKey":"rk"}}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); r.Header.Get("Authorization") != "Bearer key" && password != "hush" {
			t.Errorf("%s came without the password", r.URL)
		}
		if r.URL.Path == "/v1/projects/none" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprint(w, answers[r.URL.Path])
	}))
	defer server.Close()
	address := strings.Replace(server.URL, "//", "//user:hush@", 1)
	for _, args := range [][]string{
		{"project", "show", "none", "--server", address},
		{"project", "show", "none", "--server", address, "--api-key", "key"},
		{"project", "show", "other", "--server", address},
		{"project", "create", "Shop", "--server", address},
		{"project", "list", "--server", "http://user:hush@127.0.0.1:1"},
		{"project", "list", "--server", "http://user:hush@host.invalid"},
		{"project", "list", "--server", "user:hush@host"},
		{"project", "list", "--server", "http://user:hush@ho st"},
		{"cypress", "run", "--url", "ftp://user:hush@host", "--key", "k", "--project", "p"},
	} {
		_, out, err := run(t, nil, args...)
		if out+err == "" || strings.Contains(out+err, "hush") {
			t.Errorf("%q prints %q and %q", args, out, err)
		}
	}
}

func TestListFollowsPages(t *testing.T) {
	const total = 250
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		after, _ := strconv.Atoi(r.URL.Query().Get("starting_after")) // 0 at first
		page := []map[string]any{}
		for n := after + 1; n <= min(after+limit, total); n++ {
			page = append(page, map[string]any{"n": n, "cursor": fmt.Sprint(n)})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "OK", "has_more": after+limit < total, "data": page})
	}))
	defer server.Close()
	api, err := newClient(server.URL, "k")
	if err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int]struct {
		items int
		asked []string
	}{
		0:   {250, []string{"limit=100", "limit=100&starting_after=100", "limit=100&starting_after=200"}},
		120: {120, []string{"limit=100", "limit=20&starting_after=100"}},
		7:   {7, []string{"limit=7"}},
	} {
		asked = nil
		data, err := api.list(t.Context(), "/projects", nil, limit)
		if err != nil {
			t.Fatal(err)
		}
		var items []struct{ N int }
		if err := json.Unmarshal(data, &items); err != nil {
			t.Fatal(err)
		}
		if len(items) != want.items || items[len(items)-1].N != want.items {
			t.Errorf("limit %d: %d items", limit, len(items))
		}
		if !slices.Equal(asked, want.asked) {
			t.Errorf("limit %d: asked %q, want %q", limit, asked, want.asked)
		}
	}
}
