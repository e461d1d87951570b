package client_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"runbell/internal/client"
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
		{"no key", 401, `{"status":"FAILED","error":"…"}`, "", "requires an API key"},
		{"wrong key", 401, `{"status":"FAILED","error":"…"}`, "k", "rejected the API key"},
		{"a proxy's error", 502, `<html>Bad Gateway</html>`, "k", "does not respond like a Runbell server (502 Bad Gateway)"},
		{"another server", 200, `<html>Hello</html>`, "k", "check the URL"},
		{"no data", 200, `{"status":"OK"}`, "k", "check the URL"},
		{"a project", 200, `{"status":"OK","data":{"projectId":"x"}}`, "k", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			defer server.Close()
			api, err := client.New(server.URL+"/", c.key)
			if err != nil {
				t.Fatal(err)
			}
			_, err = api.Project(t.Context(), "x")
			if got := fmt.Sprint(err); !strings.Contains(got, c.want) || (c.want == "") != (err == nil) {
				t.Errorf("error %q, want %q in it", got, c.want)
			}
		})
	}
}

// A server that says that there were too many requests is asked again when it says so,
// with the same body, and not forever.
func TestTooManyRequests(t *testing.T) {
	for refused, want := range map[int]string{1: "", 9: "", 10: "Too many requests"} {
		var bodies []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(body))
			if len(bodies) <= refused {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusTooManyRequests)
				fmt.Fprint(w, `{"status":"FAILED","error":"Too many requests with this API key."}`)
				return
			}
			fmt.Fprint(w, `{"status":"OK","data":{"projectId":"x"}}`)
		}))
		api, err := client.New(server.URL, "k")
		if err != nil {
			t.Fatal(err)
		}
		name := "y"
		_, err = api.UpdateProject(t.Context(), "x", client.ProjectSettings{Name: &name})
		if got := fmt.Sprint(err); !strings.Contains(got, want) || (want == "") != (err == nil) {
			t.Errorf("refused %d times: %v, want %q in it", refused, err, want)
		}
		if len(bodies) != min(refused+1, 10) || len(slices.Compact(bodies)) != 1 || bodies[0] == "" {
			t.Errorf("refused %d times: the server was sent %q", refused, bodies)
		}
		server.Close()
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
			page = append(page, map[string]any{"runId": strconv.Itoa(n), "cursor": fmt.Sprint(n)})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "OK", "has_more": after+limit < total, "data": page})
	}))
	defer server.Close()
	api, err := client.New(server.URL, "k")
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
		list, err := api.Runs(t.Context(), "shop", client.RunFilter{Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		items := list.Value
		if len(items) != want.items || items[len(items)-1].RunID != strconv.Itoa(want.items) {
			t.Errorf("limit %d: %d items", limit, len(items))
		}
		if !slices.Equal(asked, want.asked) {
			t.Errorf("limit %d: asked %q, want %q", limit, asked, want.asked)
		}
	}
}

// A password in the address of the server stays there.
func TestPasswordsStayInTheAddress(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	address := strings.Replace(server.URL, "//", "//user:t0ps3cret@", 1)
	check := func(what, text string) {
		t.Helper()
		if text == "" || strings.Contains(text, "t0ps3cret") {
			t.Errorf("%s: %q", what, text)
		}
	}
	api, err := client.New(address, "k")
	if err != nil {
		t.Fatal(err)
	}
	check("URL", api.URL())
	_, err = api.Projects(t.Context())
	check("another server", fmt.Sprint(err))
	server.Close()
	_, err = api.Projects(t.Context())
	check("nothing there", fmt.Sprint(err))
	for _, bad := range []string{"ftp://user:t0ps3cret@host", "user:t0ps3cret@host", "http://user:t0ps3cret@ho st", "http://user:t0ps3cret@host:port", "http://user:t0ps3cret@"} {
		_, err := client.New(bad, "k")
		check(bad, fmt.Sprint(err))
	}
}

// A setting that is left out, set, or set to null.
func TestSettings(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = string(b)
		fmt.Fprint(w, `{"status":"OK","data":{}}`)
	}))
	defer server.Close()
	api, err := client.New(server.URL, "k")
	if err != nil {
		t.Fatal(err)
	}
	for want, settings := range map[string]client.WebhookSettings{
		`{}`:                           {},
		`{"label":null}`:               {Label: client.Null[string]()},
		`{"label":"chat"}`:             {Label: client.Set("chat")},
		`{"ratePerMinute":5}`:          {RatePerMinute: client.Set(5)},
		`{"filters":{"branches":[]}}`:  {Filters: &client.FilterSettings{Branches: &[]string{}}},
		`{"filters":{"result":"any"}}`: {Filters: &client.FilterSettings{Result: "any"}},
	} {
		if _, err := api.UpdateWebhook(t.Context(), "x", settings); err != nil || got != want {
			t.Errorf("sent %s, want %s (%v)", got, want, err)
		}
	}
}
