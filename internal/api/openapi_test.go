package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/webhook"
)

// Whether answers have the described form is checked with every call of the
// other tests.
func TestOpenAPI(t *testing.T) {
	s := sqliteServer(t)
	resp := s.fetch(t, "GET", "/v1/openapi.json", "", nil)
	if resp.status != http.StatusOK || !strings.HasPrefix(resp.header.Get("Content-Type"), "application/json") {
		t.Fatalf("status %d, %v", resp.status, resp.header)
	}
	if s.document["openapi"] != "3.1.0" {
		t.Errorf("openapi is %v", s.document["openapi"])
	}

	// The document has exactly the routes of the table.
	var want, got []string
	for _, rt := range (&api{}).routes() {
		want = append(want, rt.method+" "+rt.path)
	}
	ids := map[any]bool{}
	for path, methods := range s.document["paths"].(object) {
		for method, operation := range methods.(object) {
			got = append(got, strings.ToUpper(method)+" "+path)
			o := operation.(object)
			if ids[o["operationId"]] || o["summary"] == "" {
				t.Errorf("%s %s: operationId %v, summary %q", method, path, o["operationId"], o["summary"])
			}
			ids[o["operationId"]] = true
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("described: %v\nserved: %v", got, want)
	}

	// Each reference leads somewhere, and each schema is referred to.
	schemas := s.document["components"].(object)["schemas"].(object)
	used := map[string]bool{}
	for _, part := range strings.Split(resp.text, `"$ref": "#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		used[name] = true
	}
	for name := range used {
		if schemas[name] == nil {
			t.Errorf("nothing is called %s", name)
		}
	}
	for name := range schemas {
		if !used[name] {
			t.Errorf("nobody refers to %s", name)
		}
	}
}

// One name must not stand for two Go types, nor for what is read and what is
// written, which are described differently.
func TestSchemaNamesAreUnique(t *testing.T) {
	type use struct {
		typ reflect.Type
		of  direction
	}
	uses := map[string]use{}
	var visit func(reflect.Type, direction)
	visit = func(typ reflect.Type, of direction) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			visit(typ.Elem(), of)
		case reflect.Struct:
			name := strings.ToLower(typ.Name())
			if other, found := uses[name]; found {
				if other != (use{typ, of}) {
					t.Errorf("%s and %s have one name", other.typ, typ)
				}
				return
			}
			if typ == reflect.TypeFor[timestamp]() || strings.HasPrefix(typ.Name(), "nullable[") {
				return // described where they are used
			}
			uses[name] = use{typ, of}
			for i := range typ.NumField() {
				if f := typ.Field(i); f.Anonymous {
					for j := range f.Type.NumField() {
						visit(f.Type.Field(j).Type, of)
					}
				} else {
					visit(f.Type, of)
				}
			}
		default:
		}
	}
	for _, rt := range (&api{}).routes() {
		visit(rt.handler.data, answers)
		if rt.handler.body != nil {
			visit(rt.handler.body, bodies)
		}
	}
	if len(uses) < 20 {
		t.Errorf("only %d types were looked at", len(uses))
	}
}

func TestOpenAPIDescribesTheWebhooks(t *testing.T) {
	s := sqliteServer(t)
	schemas := s.document["components"].(object)["schemas"].(object)
	hooks := s.document["webhooks"].(object)
	if len(hooks) != len(webhook.AllKinds()) {
		t.Errorf("%d webhooks are described", len(hooks))
	}
	for _, k := range webhook.AllKinds() {
		post := hooks[string(k)].(object)["post"].(object)
		schema := post["requestBody"].(object)["content"].(object)["application/json"].(object)["schema"].(object)
		if schema["allOf"].([]any)[1].(object)["properties"].(object)["event"].(object)["const"] != string(k) {
			t.Errorf("%s is described as %v", k, schema)
		}
		for _, group := range []string{"", "e2e"} {
			body := parseAnswer(t, string(webhook.Payload{Event: k, Tags: []string{"a"}, GroupID: group}.Bytes()))
			forms := schema["allOf"].([]any)[0].(object)["anyOf"].([]any)
			if problem := mismatch(schemas, forms[0].(object), body, "payload"); problem != "" {
				t.Error(problem)
			}
			body["facts"] = parseAnswer(t, string(endpoint.Sample(k, run.NewProject("shop"), "https://runbell.test", time.Now()).Facts.Bytes()))
			if problem := mismatch(schemas, forms[1].(object), body, "payload"); problem != "" {
				t.Error(problem)
			}
		}
	}
	var headers []string
	for _, h := range hooks["RUN_START"].(object)["post"].(object)["parameters"].([]any) {
		headers = append(headers, h.(object)["name"].(string))
	}
	if want := "X-Timestamp Webhook-Id Webhook-Timestamp Webhook-Signature X-Runbell-Attempt X-Runbell-Sequence"; strings.Join(headers, " ") != want {
		t.Errorf("headers %v, want %s", headers, want)
	}
}

// The bodies that are described as strict are read strictly: each described
// field is known to the decoder, and no other.
func TestBodiesAreAsDescribed(t *testing.T) {
	s := sqliteServer(t)
	for _, rt := range (&api{}).routes() {
		if rt.handler.body == nil {
			continue
		}
		operation := s.document["paths"].(object)[rt.path].(object)[strings.ToLower(rt.method)].(object)
		ref := operation["requestBody"].(object)["content"].(object)["application/json"].(object)["schema"].(object)["$ref"].(string)
		schema := s.document["components"].(object)["schemas"].(object)[strings.TrimPrefix(ref, "#/components/schemas/")].(object)
		if schema["additionalProperties"] != false {
			t.Errorf("%s: unknown fields are not ruled out", ref)
		}
		for name := range schema["properties"].(object) {
			body, _ := json.Marshal(object{name: nil})
			dec := json.NewDecoder(strings.NewReader(string(body)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(reflect.New(rt.handler.body).Interface()); err != nil {
				t.Errorf("%s %s: %s is described but %v", rt.method, rt.path, name, err)
			}
		}
	}
}

func TestDocs(t *testing.T) {
	s := sqliteServer(t)
	resp := s.fetch(t, "GET", "/v1/docs", "", nil)
	if resp.status != http.StatusOK || !strings.HasPrefix(resp.header.Get("Content-Type"), "text/html") || strings.Contains(resp.text, "http") {
		t.Errorf("status %d, %v", resp.status, resp.header)
	}
	if !strings.Contains(resp.text, "<code>machineId</code>: 1 to 63 machines of the run") {
		t.Error("fields of bodies are not on the page")
	}
	for _, section := range []string{"projects", "runs", "webhooks"} {
		if strings.Count(resp.text, `<h2 id="`+section+`">`) != 1 || !strings.Contains(resp.text, `<a href="#`+section+`">`) {
			t.Errorf("the page has not one section %s with a link to it", section)
		}
	}
	for _, rt := range (&api{}).routes() {
		if !strings.Contains(resp.text, rt.method+" "+rt.path+"<") {
			t.Errorf("%s %s is not on the page", rt.method, rt.path)
		}
	}
}
