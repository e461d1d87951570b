package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/endpoint"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/outbound"
	"runbell/internal/projects"
	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// server is the API on a real database, behind real HTTP.
type server struct {
	*httptest.Server
	db     *store.DB
	runs   *lifecycle.Service
	people *auth.People
	// What the API changes things with, too.
	endpoints *endpoint.Service
	projects  *projects.Service
	handler   http.Handler
	document  object
	kicks     atomic.Int32             // how often the engine was told
	kicked    atomic.Pointer[[]string] // of which endpoints, the last time
	writeKey  string
	readKey   string
	log       bytes.Buffer // what went wrong inside
	// artifacts are the files that answers link to.
	artifacts *artifact.Service
}

// reporters makes the credentials of reporters in these tests.
var reporters = auth.NewReporters(make([]byte, 32))

func sqliteServer(t *testing.T) *server {
	t.Helper()
	return startOn(t, testkit.MigratedFile(t, t.TempDir()))
}

// onEach runs a test on both databases.
func onEach(t *testing.T, test func(*testing.T, *server)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteServer(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, startOn(t, testkit.Migrated(t))) })
}

func startOn(t *testing.T, url string) *server {
	t.Helper()
	sealer, err := webhook.NewSealer(bytes.Repeat([]byte{7}, webhook.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), url, sealer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s := &server{db: db, people: auth.NewPeople(db, make([]byte, 32))}
	kick := func(ids ...string) {
		s.kicks.Add(1)
		s.kicked.Store(&ids)
	}
	s.runs = lifecycle.New(db, "https://runbell.example", kick)
	log := slog.New(slog.NewTextHandler(&s.log, nil))
	s.artifacts = artifact.New(artifact.Options{DB: db, Store: artifact.NewDisk(t.TempDir()), Secret: make([]byte, 32), PublicURL: "http://runbell.test",
		Max: 1 << 20, Log: log, Metrics: prometheus.NewRegistry()})
	// The recorded client has a webhook on loopback.
	s.endpoints = endpoint.New(db, "https://runbell.example/", outbound.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}).CheckURL, kick)
	sweeper := retention.New(db, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	s.projects = projects.New(db, s.endpoints, sweeper)
	s.handler = New(Options{
		DB:   db,
		Runs: s.runs,
		Keys: auth.New(db, auth.KeysOnly), Reporters: reporters,
		People: s.people, PublicURL: "http://runbell.test",
		Endpoints: s.endpoints,
		Explorer:  history.NewExplorer(),
		Artifacts: s.artifacts,
		Sweeper:   sweeper,
		Bodies:    body.NewPools(),
		Log:       log,
	})
	s.Server = httptest.NewServer(s.handler)
	t.Cleanup(func() {
		s.Close()
		if s.log.Len() > 0 {
			t.Errorf("the server logged:\n%s", s.log.String())
		}
	})
	s.writeKey, s.readKey = s.newKey(t, auth.Write), s.newKey(t, auth.Read)
	if err := json.Unmarshal([]byte(s.fetch(t, "GET", "/v1/openapi.json", "", nil).text), &s.document); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) newKey(t *testing.T, access auth.Access) string {
	t.Helper()
	_, key, err := auth.New(s.db, auth.KeysOnly).CreateAPIKey(t.Context(), "test", access, "")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// boundKey is a read-write key that is good for one project.
func (s *server) boundKey(t *testing.T, projectID string) string {
	t.Helper()
	return s.call(t, http.StatusCreated, "POST", "/v1/api-keys", object{"access": "write", "projectId": projectID})["data"].(object)["apiKey"].(string)
}

func (s *server) write(t *testing.T, f func(context.Context, *store.Tx) error) {
	t.Helper()
	if err := s.db.Write(t.Context(), func(tx *store.Tx) error { return f(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

// response is an answer as it came over the wire.
type response struct {
	status int
	header http.Header
	text   string
}

// fetch makes a request; body is nil, a string as it is, or something to encode.
func (s *server) fetch(t *testing.T, method, path, key string, body any) response {
	t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	return s.do(t, req)
}

func (s *server) do(t *testing.T, req *http.Request) response {
	t.Helper()
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header, string(text)}
}

// call makes a request with a read-write key and checks that the answer has the
// status, and the form that the OpenAPI document promises.
func (s *server) call(t *testing.T, status int, method, path string, body any) object {
	t.Helper()
	return s.callWith(t, s.writeKey, status, method, path, body)
}

func (s *server) callWith(t *testing.T, key string, status int, method, path string, body any) object {
	t.Helper()
	resp := s.fetch(t, method, path, key, body)
	if resp.status != status {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, resp.status, status, resp.text)
	}
	answer := parseAnswer(t, resp.text)
	s.checkForm(t, method, path, status, answer)
	return answer
}

func parseAnswer(t *testing.T, text string) object {
	t.Helper()
	var answer object
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&answer); err != nil {
		t.Fatalf("answer %q: %v", text, err)
	}
	return answer
}

// data is the data of a successful answer.
func (s *server) data(t *testing.T, method, path string, body any) object {
	t.Helper()
	return s.call(t, http.StatusOK, method, path, body)["data"].(object)
}

func (s *server) items(t *testing.T, path string) []object {
	t.Helper()
	return itemsOf(s.call(t, http.StatusOK, "GET", path, nil))
}

func itemsOf(answer object) []object {
	var out []object
	for _, v := range answer["data"].([]any) {
		out = append(out, v.(object))
	}
	return out
}

// refused makes a request that must fail, saying something.
func (s *server) refused(t *testing.T, status int, method, path string, body any, says string) {
	t.Helper()
	answer := s.call(t, status, method, path, body)
	if text := answer["error"].(string); !strings.Contains(text, says) {
		t.Errorf("%s %s: error %q does not say %q", method, path, text, says)
	}
}

// checkForm compares an answer with the OpenAPI document.
func (s *server) checkForm(t *testing.T, method, path string, status int, answer object) {
	t.Helper()
	schemas := s.document["components"].(object)["schemas"].(object)
	path, _, _ = strings.Cut(path, "?")
	var operation object
	for pattern, methods := range s.document["paths"].(object) {
		if o, found := methods.(object)[strings.ToLower(method)]; found && matches(pattern, path) && (operation == nil || !strings.Contains(pattern, "{")) {
			operation = o.(object)
		}
	}
	if operation == nil && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) {
		if problem := mismatch(schemas, schemas["Failure"].(object), answer, "answer"); problem != "" {
			t.Errorf("%s %s: %s", method, path, problem)
		}
		return
	}
	if operation == nil {
		t.Fatalf("%s %s is not in the OpenAPI document", method, path)
	}
	resp, found := operation["responses"].(object)[fmt.Sprint(status)].(object)
	if !found {
		t.Fatalf("%s %s: status %d is not in the OpenAPI document", method, path, status)
	}
	schema := resp["content"].(object)["application/json"].(object)["schema"].(object)
	if problem := mismatch(schemas, schema, answer, "answer"); problem != "" {
		t.Errorf("%s %s: %s", method, path, problem)
	}
}

func matches(pattern, path string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") })
}

// mismatch says where a value is not as its schema says, "" if nowhere. It knows
// as much of JSON Schema as the document uses, and takes no key for granted.
func mismatch(schemas, schema object, v any, at string) string {
	if ref, is := schema["$ref"].(string); is {
		return mismatch(schemas, schemas[strings.TrimPrefix(ref, "#/components/schemas/")].(object), v, at)
	}
	if any, is := schema["anyOf"].([]any); is {
		problems := ""
		for _, one := range any {
			problem := mismatch(schemas, one.(object), v, at)
			if problem == "" {
				return ""
			}
			problems += problem + "; "
		}
		return problems
	}
	if want, is := schema["const"]; is && v != want {
		return fmt.Sprintf("%s is %v, not %v", at, v, want)
	}
	if words, is := schema["enum"].([]any); is && !slices.Contains(words, v) {
		return fmt.Sprintf("%s is %v, not one of %v", at, v, words)
	}
	types, _ := schema["type"].([]any)
	if one, is := schema["type"].(string); is {
		types = []any{one}
	}
	if slices.Contains(types, any("number")) {
		types = append(types, "integer")
	}
	if len(types) > 0 && !slices.Contains(types, any(typeOf(v))) {
		return fmt.Sprintf("%s is %v (%s), not %v", at, v, typeOf(v), types)
	}
	if schema["format"] == "date-time" {
		if s := v.(string); len(s) != len("2006-01-02T15:04:05.000Z") || s[19] != '.' || s[23] != 'Z' {
			return fmt.Sprintf("%s is %q, not ISO 8601 in UTC with milliseconds", at, s)
		}
	}
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			if problem := mismatch(schemas, schema["items"].(object), item, fmt.Sprintf("%s[%d]", at, i)); problem != "" {
				return problem
			}
		}
	case object:
		if required, is := schema["required"].([]any); is {
			for _, name := range required {
				if _, found := v[name.(string)]; !found {
					return fmt.Sprintf("%s has no %s", at, name)
				}
			}
		}
		properties, _ := schema["properties"].(object)
		rest, _ := schema["additionalProperties"].(object)
		for name, value := range v {
			of, found := properties[name].(object)
			if !found {
				of = rest
			}
			if of == nil {
				return fmt.Sprintf("%s has %s, which is not described", at, name)
			}
			if problem := mismatch(schemas, of, value, at+"."+name); problem != "" {
				return problem
			}
		}
	}
	return ""
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "number"
		}
		return "integer"
	case []any:
		return "array"
	default:
		return "object"
	}
}

// project makes a project with an id and answers its record key.
func (s *server) project(t *testing.T, id string) string {
	t.Helper()
	answer := s.call(t, http.StatusCreated, "POST", "/v1/projects", object{"projectId": id})
	return answer["data"].(object)["recordKey"].(string)
}

// hook makes a webhook and answers its id.
func (s *server) hook(t *testing.T, projectID string, body object) string {
	t.Helper()
	if body["url"] == nil {
		body["url"] = "https://hooks.example/runs"
	}
	return s.call(t, http.StatusCreated, "POST", "/v1/webhooks?projectId="+projectID, body)["data"].(object)["hookId"].(string)
}

// join starts a run, or takes a machine into it.
func (s *server) join(t *testing.T, j lifecycle.Join) lifecycle.Joined {
	t.Helper()
	if j.Specs == nil {
		j.Specs = []string{"a.cy.js"}
	}
	joined, err := s.runs.Join(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	return joined
}

// claim takes the next spec of a machine's group.
func (s *server) claim(t *testing.T, joined lifecycle.Joined) run.Instance {
	t.Helper()
	claimed, err := s.runs.Claim(t.Context(), lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
	if err != nil || len(claimed.Instances) != 1 {
		t.Fatalf("claim: %+v, %v", claimed, err)
	}
	return claimed.Instances[0]
}

// finish plays a run with one spec to its end.
func (s *server) finish(t *testing.T, j lifecycle.Join, state run.TestState) lifecycle.Joined {
	t.Helper()
	joined := s.join(t, j)
	s.complete(t, s.claim(t, joined), state)
	return joined
}

func (s *server) complete(t *testing.T, i run.Instance, states ...run.TestState) {
	t.Helper()
	var announced run.Announcement
	var outcome run.Outcome
	for n, state := range states {
		id := fmt.Sprintf("r%d", n+2)
		announced.Tests = append(announced.Tests, run.Announced{ID: id, Title: []string{"suite", id}})
		outcome.Results = append(outcome.Results, run.Result{ID: id, State: state, Attempts: []run.Attempt{{State: state, Duration: 12}}})
	}
	if _, err := s.runs.Complete(t.Context(), i.ID, &announced, outcome); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	s := sqliteServer(t)
	s.refused(t, http.StatusNotFound, "GET", "/v1/nothing", nil, "/v1/docs")
	s.refused(t, http.StatusNotFound, "GET", "/v1/", nil, "/v1/docs")
	s.refused(t, http.StatusNotFound, "POST", "/v1/runs", object{}, "/v1/docs")
	for path, allow := range map[string]string{
		"/v1/projects":      "GET, HEAD, POST",
		"/v1/projects/x":    "DELETE, GET, HEAD, PUT",
		"/v1/runs/find":     "GET, HEAD",
		"/v1/runs/cancel":   "POST",
		"/v1/openapi.json":  "GET, HEAD",
		"/v1/runs/x/cancel": "PUT",
	} {
		resp := s.fetch(t, "PATCH", path, s.writeKey, nil)
		if got := resp.header.Get("Allow"); resp.status != http.StatusMethodNotAllowed || got != allow {
			t.Errorf("PATCH %s: status %d, Allow %q, want %q", path, resp.status, got, allow)
		}
		s.checkForm(t, "PATCH", path, resp.status, parseAnswer(t, resp.text))
	}
	if resp := s.fetch(t, "HEAD", "/v1/projects", s.readKey, nil); resp.status != http.StatusOK || resp.text != "" {
		t.Errorf("HEAD: status %d, body %q", resp.status, resp.text)
	}
}

func TestEveryRouteChecksTheKey(t *testing.T) {
	s := sqliteServer(t)
	routes := (&api{}).routes()
	for _, rt := range routes {
		path := strings.ReplaceAll(rt.path, "{id}", "x")
		for _, c := range []struct {
			name, key string
			refused   int // 0 if it is let in
		}{
			{"no key", "", http.StatusUnauthorized},
			{"an unknown key", "ak_unknown", http.StatusUnauthorized},
			{"a key that is too long", strings.Repeat("k", 600), http.StatusUnauthorized},
			{"a read-only key", s.readKey, map[bool]int{false: http.StatusForbidden}[auth.Read.May(rt.right)]},
			{"a read-write key", s.writeKey, 0},
		} {
			want := c.refused
			if rt.right == auth.Anyone {
				want = 0
			}
			resp := s.fetch(t, rt.method, path, c.key, nil)
			denied := resp.status == http.StatusUnauthorized || resp.status == http.StatusForbidden
			if denied != (want != 0) || denied && resp.status != want {
				t.Errorf("%s %s with %s: status %d, want %d", rt.method, path, c.name, resp.status, want)
			}
			if (resp.status == http.StatusUnauthorized) != (resp.header.Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("%s %s with %s: status %d, WWW-Authenticate %q", rt.method, path, c.name, resp.status, resp.header.Get("WWW-Authenticate"))
			}
			kept := "no-store"
			if rt.maybeKept() && resp.status == http.StatusOK {
				kept = "private, no-cache"
			}
			if resp.header.Get("Cache-Control") != kept {
				t.Errorf("%s %s: Cache-Control of an answer is %q", rt.method, path, resp.header.Get("Cache-Control"))
			}
		}
	}
	// A read-only key that tries to write changes nothing.
	s.callWith(t, s.readKey, http.StatusForbidden, "POST", "/v1/projects", object{"name": "Mine"})
	if list := s.items(t, "/v1/projects"); len(list) != 0 {
		t.Errorf("a read-only key made %v", list)
	}
	// The scheme is not case-sensitive; other schemes are not keys.
	for scheme, want := range map[string]int{"bearer": 200, "Basic": 401, "": 401} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/v1/projects", nil)
		req.Header.Set("Authorization", strings.TrimSpace(scheme+" "+s.readKey))
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("scheme %q: status %d, want %d", scheme, resp.StatusCode, want)
		}
	}
}

// What no database takes as text must be refused before it gets there.
func TestIDsThatCannotBe(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		for _, id := range []string{"x", "%00", "%ff", "a%2Fb", "%0A", strings.Repeat("x", 3000), "00000000-0000-0000-0000-000000000000", "'%20OR%201=1--"} {
			for _, rt := range (&api{}).routes() {
				if !strings.Contains(rt.path, "{id}") {
					continue
				}
				var body any
				if rt.handler.body != nil && !rt.handler.optional {
					body = object{}
				}
				switch _, verb, _ := strings.Cut(rt.path, "{id}"); verb {
				case "/heartbeat":
					body = object{"machineId": "m"}
				case "/test":
					body = object{"event": "RUN_START"}
				case "/replay":
					body = object{"runId": "r"}
				}
				path := strings.ReplaceAll(strings.ReplaceAll(rt.path, "{id}", id), "{term}", "tag")
				if slices.ContainsFunc(rt.query, func(p param) bool { return p.name == "date_start" && p.required }) {
					path += "?date_start=2026-01-01&date_end=2026-01-31"
				}
				s.call(t, http.StatusNotFound, rt.method, path, body)
			}
		}
	})
}

func TestBodies(t *testing.T) {
	s := sqliteServer(t)
	for _, c := range []struct {
		body   string
		status int
		says   string
	}{
		{"", 400, "empty"},
		{"{", 400, "cut short"},
		{"nonsense", 400, "not valid JSON"},
		{"[]", 400, "must not be a JSON array"},
		{"{} {}", 400, "more text after"},
		{`{"name":"A","color":"red"}`, 400, `"color"`},
		{`{"name":7}`, 400, "name must be a string, not a JSON number"},
		{`{"name":"` + strings.Repeat("x", bodyLimits.Bytes) + `"}`, 413, "1 MiB"},
	} {
		s.refused(t, c.status, "POST", "/v1/projects", c.body, c.says)
	}
}

func TestQueries(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		hook := s.hook(t, "demo", object{})
		runs, deliveries := "/v1/projects/demo/runs", "/v1/webhooks/"+hook+"/deliveries"
		for _, c := range []struct{ path, says string }{
			{runs + "?limit=0", "limit must be a number from 1 to 100"},
			{runs + "?limit=101", "limit"},
			{runs + "?limit=ten", "limit"},
			{runs + "?starting_after=!", "starting_after must be the cursor"},
			{runs + "?ending_before=AAAA", "ending_before must be the cursor"},
			{runs + "?starting_after=" + cursorOf(run.NewProject("x").CreatedAt, "\x00"), "starting_after"},
			{runs + "?starting_after=MS5h&ending_before=MS5h", "not both"},
			{runs + "?status=BROKEN", "PASSED, FAILED, RUNNING or FAILING"},
			{runs + "?completion_state=OVER", "completion_state must be"},
			{runs + "?tag_operator=XOR", "AND or OR"},
			{runs + "?date_start=yesterday", "2026-01-31T12:00:00Z"},
			{runs + "?date_end=2026-13-01", "date_end"},
			{runs + "?date_start=2026-01-02T00:00:00Z&date_end=2026-01-01", "date_end must be after date_start"},
			{runs + "?search=" + strings.Repeat("x", 201), "at most 200 characters"},
			{runs + "?search=%00", "control characters"},
			{runs + "?tags[]=%FF", "UTF-8"},
			{runs + "?tags[]=%zz", "percent-encode"},
			{runs + "?" + strings.Repeat("&tags[]=x", 1) + manyTags(101), "at most 100 times"},
			{deliveries + "?status=lost", "pending, delivered, failed or held"},
			{deliveries + "?event=RUN_END", "RUN_START, RUN_FINISH, RUN_TIMEOUT, RUN_CANCELED or TEST_STATUS"},
			{deliveries + "?since=1", "since must be a time"},
			{deliveries + "?until=1", "until must be a time"},
			{deliveries + "?since=2026-01-02&until=2026-01-01", "until must be after since"},
			{"/v1/webhooks", "projectId"},
			{"/v1/runs/find?ciBuildId=1", "projectId"},
			{"/v1/runs/find?projectId=demo", "ciBuildId, or branch"},
		} {
			s.refused(t, http.StatusBadRequest, "GET", c.path, nil, c.says)
		}
		for _, path := range []string{
			runs + manyQuery(),
			runs + "?date_start=2026-01-01T00:00:00+02:00&date_end=2026-01-02",
			runs + "?limit=100&tag_operator=or&tags[]=a&tags[]=b&branches[]=main&authors[]=J&search=%25_!'\"&status=PASSED&status=FAILED",
			deliveries + "?status=pending&status=failed&event=RUN_START&runId=x&since=2026-01-01&until=2026-01-02T00:00:00.5Z",
		} {
			if list := s.items(t, path); len(list) != 0 {
				t.Errorf("%s: %v", path, list)
			}
		}
	})
}

func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "&tags[]=t%d", i)
	}
	return b.String()
}

func manyQuery() string { return "?x=" + manyTags(100) }
