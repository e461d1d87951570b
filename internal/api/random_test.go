package api

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/auth"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// client makes requests from the OpenAPI document and nothing else, but for some ids.
type client struct {
	*server
	*rand.Rand
	known   map[string][]string // values that some parameters have
	schemas object
}

// operation is a call of the document.
type operation struct {
	method, path string
	described    object
}

func (s *server) operations() (list []operation) {
	paths := s.document["paths"].(object)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		methods := paths[path].(object)
		for _, method := range slices.Sorted(maps.Keys(methods)) {
			list = append(list, operation{strings.ToUpper(method), path, methods[method].(object)})
		}
	}
	return list
}

// maybe is true n times of ten.
func (c *client) maybe(n int) bool { return c.IntN(10) < n }

func (c *client) word() string {
	return []string{"", "main", "a.cy.js", "ü", "a b/c?d=e", "%", strings.Repeat("x", 300), "2026-01-31", "-1", "1e9", "\x00"}[c.IntN(11)]
}

// value is a value of a schema, mostly.
func (c *client) value(name string, schema object) any {
	if ref, is := schema["$ref"].(string); is {
		schema = c.schemas[strings.TrimPrefix(ref, "#/components/schemas/")].(object)
	}
	if list, is := schema["anyOf"].([]any); is {
		return c.value(name, list[c.IntN(len(list))].(object))
	}
	if known := c.known[name]; len(known) > 0 && c.maybe(8) {
		return known[c.IntN(len(known))]
	}
	if words, is := schema["enum"].([]any); is && c.maybe(9) {
		return words[c.IntN(len(words))]
	}
	if c.IntN(30) == 0 {
		return []any{nil, true, -1, 1.5, c.word(), []any{c.word()}, object{"a": 1}}[c.IntN(7)]
	}
	kind, _ := schema["type"].(string)
	if list, is := schema["type"].([]any); is {
		kind = list[c.IntN(len(list))].(string)
	}
	switch {
	case kind == "integer":
		return []int{0, 1, 5, 60, -1, 1 << 40}[c.IntN(6)]
	case kind == "boolean":
		return c.maybe(5)
	case kind == "null":
		return nil
	case kind == "array":
		list := []any{}
		for range c.IntN(3) {
			list = append(list, c.value(name, schema["items"].(object)))
		}
		return list
	case kind == "object":
		out := object{}
		required, _ := schema["required"].([]any)
		for _, p := range slices.Sorted(maps.Keys(schema["properties"].(object))) {
			if c.maybe(4) || slices.Contains(required, any(p)) && c.maybe(9) {
				out[p] = c.value(p, schema["properties"].(object)[p].(object))
			}
		}
		return out
	case schema["format"] == "date-time" && c.maybe(9):
		return time.Now().AddDate(0, 0, c.IntN(40)-39).UTC().Format(timeLayout)
	default:
		return c.word()
	}
}

// request is a call with parameters.
func (c *client) request(o operation) (path string, body any) {
	path, query := o.path, url.Values{}
	for _, p := range o.described["parameters"].([]any) {
		p := p.(object)
		name := p["name"].(string)
		value := func() string { return fmt.Sprint(c.value(name, p["schema"].(object))) }
		switch {
		case p["in"] == "path":
			noun := strings.Split(o.path, "/")[2] + " id"
			v := value()
			if known := c.known[noun]; name == "id" && len(known) > 0 && c.maybe(9) {
				v = known[c.IntN(len(known))]
			}
			path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(cmp.Or(v, "none")))
		case p["in"] == "query" && (p["required"] == true && c.maybe(9) || c.maybe(3)):
			if items, is := p["schema"].(object)["items"].(object); is {
				for range c.IntN(3) {
					query.Add(name, fmt.Sprint(c.value(name, items)))
				}
			} else {
				query.Set(name, value())
			}
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if in, is := o.described["requestBody"].(object); is && c.maybe(9) {
		body = c.value("", in["content"].(object)["application/json"].(object)["schema"].(object))
	}
	return path, body
}

// TestRandomRequests makes 1,000 requests that the OpenAPI document allows, more or less.
// The document must allow every answer: its status and its form.
func TestRandomRequests(t *testing.T) {
	s := sqliteServer(t)
	seed := rand.Uint64()
	c := &client{server: s, Rand: rand.New(rand.NewPCG(seed, 0)), schemas: s.document["components"].(object)["schemas"].(object)}
	keys := []string{s.writeKey, s.newKey(t, auth.Write), s.newKey(t, auth.Write), s.newKey(t, auth.Write), s.readKey}
	list := s.operations()
	done := map[int]int{}
	for n := range 1000 {
		if n%20 == 0 { // random requests delete what they can
			c.furnish(t, n)
		}
		o := list[c.IntN(len(list))]
		path, body := c.request(o)
		key := keys[c.IntN(len(keys))]
		if c.IntN(30) == 0 {
			key = "nobody's"
		}
		resp := s.fetch(t, o.method, path, key, body)
		done[resp.status]++
		if resp.status >= 500 {
			t.Errorf("seed %d: %s %s %v: %d %s", seed, o.method, path, body, resp.status, resp.text)
			continue
		}
		if _, described := o.described["responses"].(object)[fmt.Sprint(resp.status)]; !described && !strings.Contains(resp.text, "/v1/docs") {
			t.Errorf("seed %d: %s %s %v: status %d is not described: %s", seed, o.method, path, body, resp.status, resp.text)
			continue
		}
		plain, _, _ := strings.Cut(path, "?")
		s.checkForm(t, o.method, plain, resp.status, parseAnswer(t, resp.text))
		if t.Failed() {
			t.Fatalf("seed %d: %s %s %v", seed, o.method, path, body)
		}
	}
	if done[200]+done[201] < 200 || done[400] < 50 || done[404] < 20 || done[401] < 5 || done[403] < 5 {
		t.Errorf("seed %d: the answers were %v", seed, done)
	}
	t.Logf("answers by status: %v", done)
}

// furnish makes things, and remembers their ids.
func (c *client) furnish(t *testing.T, n int) {
	t.Helper()
	id := fmt.Sprint("demo-", n)
	recordKey := c.project(t, id)
	flaky := run.Result{State: run.Passed, Attempts: []run.Attempt{{State: run.Failed, Error: &run.Failure{Message: "x"}}, {State: run.Passed}}}
	joined := c.join(t, lifecycle.Join{ProjectID: id, CIBuildID: "b-1", Commit: run.Commit{Branch: "main"}, Tags: []string{"smoke"}})
	instance := c.claim(t, joined)
	if _, err := c.runs.Complete(t.Context(), instance.ID, &run.Announcement{Tests: []run.Announced{{Title: []string{"works"}}}}, run.Outcome{Results: []run.Result{flaky}}); err != nil {
		t.Fatal(err)
	}
	running := c.join(t, lifecycle.Join{ProjectID: id, CIBuildID: "b-2", Specs: []string{"a.cy.js", "b.cy.js"}, Commit: run.Commit{Branch: "main"}})
	claimed := c.claim(t, running)
	hook := c.hook(t, id, object{})
	delivery := c.data(t, "POST", "/v1/webhooks/"+hook+"/test", object{"event": "RUN_FINISH"})["deliveryId"].(string)
	label := c.call(t, http.StatusCreated, "POST", "/v1/projects/"+id+"/record-keys", object{})["data"].(object)["id"].(string)
	api := c.call(t, http.StatusCreated, "POST", "/v1/api-keys", object{"access": "read"})["data"].(object)["id"].(string)
	runs := []string{joined.RunID, running.RunID}
	c.known = map[string][]string{
		"projectId": {id}, "projects id": {id}, "spec-files id": {id}, "tests id": {id}, "errors id": {id},
		"runs id": runs, "run_id": runs, "runId": runs, "instances id": {instance.ID, claimed.ID}, "instance_id": {instance.ID},
		"webhooks id": {hook}, "deliveries id": {delivery}, "record-keys id": {label}, "api-keys id": {api},
		"machineId": {running.MachineID, reporters.MachineCredential(running.RunID, running.MachineID)}, "recordKey": {recordKey}, "ciBuildId": {"b-1", "b-2"}, "url": {"https://hooks.example/x"},
		"test-results id": {run.Signature(id, "a.cy.js", []string{"works"})}, "limit": {"1", "10"}, "page": {"0"}, "branch": {"main"},
		"headers": {`{"a":"b"}`}, "label": {"x"}, "event": {"RUN_START", "RUN_FINISH"}, "email": {"a@example.com"},
	}
}

// TestEveryParameterIsChecked sends a value that each parameter cannot have: the answer
// is 400, and names the parameter.
func TestEveryParameterIsChecked(t *testing.T) {
	s := sqliteServer(t)
	c := &client{server: s, Rand: rand.New(rand.NewPCG(1, 2))}
	c.furnish(t, 0)
	checked := 0
	for _, o := range s.operations() {
		if o.method != http.MethodGet {
			continue // their parameters are in the body
		}
		good := url.Values{}
		parameters := o.described["parameters"].([]any)
		path := o.path
		for _, p := range parameters {
			p := p.(object)
			name := p["name"].(string)
			switch {
			case p["in"] == "path" && name == "id":
				path = strings.Replace(path, "{id}", url.PathEscape(c.known[strings.Split(path, "/")[2]+" id"][0]), 1)
			case p["in"] == "path":
				path = strings.Replace(path, "{"+name+"}", p["schema"].(object)["enum"].([]any)[0].(string), 1)
			case p["required"] == true && name == inProject.name:
				good.Set(name, "demo-0")
			case p["required"] == true:
				good.Set(name, time.Now().Add(map[string]time.Duration{"date_start": -time.Hour}[name]).UTC().Format(timeLayout))
			}
		}
		for _, p := range parameters {
			p := p.(object)
			name, schema := p["name"].(string), p["schema"].(object)
			if p["in"] != "query" {
				continue
			}
			if items, is := schema["items"].(object); is {
				schema = items
			}
			wrong := "\x01"
			if schema["enum"] != nil || schema["type"] == "integer" || schema["format"] == "date-time" || strings.HasPrefix(name, "starting") || strings.HasPrefix(name, "ending") {
				wrong = "-nonsense-"
			}
			query := maps.Clone(good)
			query.Set(name, wrong)
			resp := s.fetch(t, o.method, path+"?"+query.Encode(), s.writeKey, nil)
			if plain := strings.TrimSuffix(name, "[]"); resp.status != http.StatusBadRequest || !strings.Contains(resp.text, plain) {
				t.Errorf("%s %s=%q: %d %s", o.path, name, wrong, resp.status, resp.text)
			}
			checked++
		}
		for name := range good {
			query := maps.Clone(good)
			query.Del(name)
			if resp := s.fetch(t, o.method, path+"?"+query.Encode(), s.writeKey, nil); resp.status != http.StatusBadRequest || !strings.Contains(resp.text, name) {
				t.Errorf("%s without %s: %d %s", o.path, name, resp.status, resp.text)
			}
		}
	}
	if checked < 80 {
		t.Errorf("only %d parameters were checked", checked)
	}
}
