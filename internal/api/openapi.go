package api

import (
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/endpoint"
	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// object is a JSON object of the OpenAPI document.
type object = map[string]any

// describe makes the OpenAPI document of the routes, and of the webhooks that
// are sent.
func describe(routes []route) object {
	s := schemas{}
	fail := content(s.of(reflect.TypeFor[failure](), answers))
	paths := object{}
	for _, rt := range routes {
		if paths[rt.path] == nil {
			paths[rt.path] = object{}
		}
		operation := object{
			"operationId": operationID(rt),
			"summary":     rt.summary,
			"parameters":  parameters(rt),
			"security":    security(rt.right),
			"responses":   responses(rt, content(s.envelope(rt.handler)), fail),
		}
		if rt.handler.body != nil {
			operation["requestBody"] = object{"required": !rt.handler.optional,
				"content": content(s.of(rt.handler.body, bodies))}
		}
		paths[rt.path].(object)[strings.ToLower(rt.method)] = operation
	}
	hooks := object{}
	for _, k := range webhook.AllKinds() {
		hooks[string(k)] = s.sends(k)
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title":       "Runbell REST API",
			"version":     "1",
			"description": "Lists are newest first. Calls that Currents also has are compatible, so its clients work.",
		},
		"servers":  []object{{"url": "/"}},
		"paths":    paths,
		"webhooks": hooks,
		"components": object{
			"schemas": object(s),
			"securitySchemes": object{"apiKey": object{
				"type": "http", "scheme": "bearer", "description": "An API key. A read-only key can GET everything except secrets.",
			}},
		},
	}
}

// responses describes every status that a route answers with.
func responses(rt route, success, fail object) object {
	out := object{strconv.Itoa(rt.handler.status): object{"description": "OK", "content": success}}
	if rt.maybeKept() {
		out["304"] = object{"description": "Not changed since the ETag in If-None-Match."}
	}
	for _, status := range failures(rt) {
		out[strconv.Itoa(status)] = object{"description": http.StatusText(status) + ". The error says what to do.",
			"content": fail}
	}
	return out
}

// failures lists the statuses of errors that a route answers with.
func failures(rt route) []int {
	list := []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusServiceUnavailable}
	about := rt.handler.body != nil || strings.Contains(rt.path, "{") ||
		slices.ContainsFunc(rt.query, func(p param) bool { return p.name == inProject.name || p.name == "run_id" })
	if about {
		list = append(list, http.StatusNotFound)
	}
	byID, byParameter, handled := rt.ofProject()
	if rt.right != auth.Anyone && (!auth.Read.May(rt.right) || !byID && !byParameter && !handled) {
		list = append(list, http.StatusForbidden)
	}
	if rt.method != http.MethodGet {
		list = append(list, http.StatusConflict, http.StatusUnprocessableEntity)
	}
	if rt.handler.body != nil {
		list = append(list, http.StatusRequestEntityTooLarge)
	}
	return list
}

func encodeDocument(document object) []byte {
	b, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		panic("api: the OpenAPI document does not encode: " + err.Error())
	}
	return b
}

func content(schema object) object {
	return object{"application/json": object{"schema": schema}}
}

func security(needed auth.Right) []object {
	if needed == auth.Anyone {
		return []object{}
	}
	return []object{{"apiKey": []string{}}}
}

// operationID is getProjectsRuns for GET /v1/projects/{id}/runs, and
// getProjectsById for GET /v1/projects/{id}.
func operationID(rt route) string {
	parts := strings.Split(strings.TrimPrefix(rt.path, "/v1/"), "/")
	id := strings.ToLower(rt.method)
	for i, part := range parts {
		switch {
		case !strings.HasPrefix(part, "{"):
			for word := range strings.SplitSeq(part, "-") {
				id += strings.ToUpper(word[:1]) + word[1:]
			}
		case i == len(parts)-1 && part == "{id}":
			id += "ById"
		}
	}
	return id
}

func parameters(rt route) []object {
	list := []object{}
	for part := range strings.SplitSeq(rt.path, "/") {
		if name, is := strings.CutPrefix(part, "{"); is {
			schema := object{"type": "string"}
			if part == "{term}" {
				schema["enum"] = texts(store.Terms())
			}
			list = append(list, object{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": schema})
		}
	}
	for _, p := range rt.query {
		schema := object{"type": "string"}
		switch {
		case p.enum != nil:
			schema["enum"] = p.enum
		case p.format == "integer":
			schema["type"] = "integer"
		case p.format != "":
			schema["format"] = p.format
		}
		if p.repeats {
			schema = object{"type": "array", "items": schema}
		}
		described := object{"name": p.name, "in": "query", "required": p.required, "schema": schema}
		if p.doc != "" {
			described["description"] = p.doc
		}
		list = append(list, described)
	}
	if rt.takesOnce() {
		list = append(list, object{"name": idempotencyKey, "in": "header", "required": false,
			"schema": object{"type": "string", "maxLength": maxIdempotencyKey},
			"description": "Makes the request take effect once: for a day, the same request with the same key gets " +
				"the same way."})
	}
	return list
}

// sends describes the request that carries an event.
func (s schemas) sends(k webhook.Kind) object {
	body := object{"anyOf": []object{s.of(reflect.TypeFor[webhook.Payload](), answers),
		s.of(reflect.TypeFor[webhook.ExtendedPayload](), answers)},
		"description": "Payload, or ExtendedPayload if the webhook has payload: extended."}
	payload := object{"allOf": []object{body, {"properties": object{"event": object{"const": k}}}}}
	var headers []object
	for _, h := range []struct{ name, doc string }{
		{"X-Timestamp", "When this attempt was sent, in milliseconds since 1970."},
		{webhook.HeaderID, "The id of the event, the same on every attempt."},
		{webhook.HeaderTimestamp, "When this attempt was sent, in seconds since 1970."},
		{webhook.HeaderSignature, `"v1," and the base64 of the HMAC-SHA256 of "id.timestamp.body"; ` +
			`more, separated by spaces, while a secret is rotated.`},
		{"X-Runbell-Attempt", "1 for the first attempt, then one more each time."},
		{"X-Runbell-Sequence", "Grows with every event of the run."},
	} {
		headers = append(headers, object{"name": h.name, "in": "header", "required": true, "description": h.doc,
			"schema": object{"type": "string"}})
	}
	return object{"post": object{
		"operationId": "on" + string(k),
		"summary": map[webhook.Kind]string{webhook.RunStart: "A run or group started",
			webhook.RunFinish:  "Every spec of a run or group has results",
			webhook.RunTimeout: "No report for the inactivity timeout", webhook.RunCanceled: "A run or group was canceled",
			webhook.TestStatus: "Tests became flaky, broken or healthy; only for webhooks that ask for it"}[k],
		"parameters":  headers,
		"requestBody": object{"required": true, "content": content(payload)},
		"responses":   object{"2XX": object{"description": "Delivered. Any other response is retried."}},
	}}
}

// schemas are the schemas of named types, by name.
type schemas object

// direction says whether a schema is of what we read or of what we write: the
// same Go types mean different things there.
type direction int

const (
	answers direction = iota // a pointer may be null, and is there unless omitempty
	bodies                   // a pointer may be absent, and nothing unknown may be there
)

func (s schemas) envelope(h handler) object {
	properties := object{"status": object{"const": "OK"}, "data": s.of(h.data, answers)}
	required := []string{"status", "data"}
	if h.list {
		properties["has_more"] = object{"type": "boolean"}
		required = append(required, "has_more")
	}
	return object{"type": "object", "properties": properties, "required": required}
}

// enums are the types of words.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[webhook.Kind]():          texts(webhook.AllKinds()),
	reflect.TypeFor[webhook.DeliveryState](): texts(deliveryStates),
	reflect.TypeFor[run.Scope]():             texts(endpoint.Scopes()),
	reflect.TypeFor[run.Status]():            texts(statuses),
	reflect.TypeFor[run.Completion]():        texts(completions),
	reflect.TypeFor[run.TestState]():         texts([]run.TestState{run.Passed, run.Failed, run.Pending, run.Skipped}),
	reflect.TypeFor[history.Health]():        texts(history.Healths()),
	reflect.TypeFor[keyAccess]():             texts(keyAccesses),
	reflect.TypeFor[store.Role]():            texts(roles),
	reflect.TypeFor[webhook.Result]():        texts(webhook.Results()),
	reflect.TypeFor[webhook.Form]():          texts(webhook.Forms()),
	reflect.TypeFor[webhook.HealthState]():   texts(webhook.HealthStates()),
	reflect.TypeFor[webhook.HistoryKind]():   texts(webhook.HistoryKinds()),
}

// of is the schema of a type; named structs are referred to.
func (s schemas) of(t reflect.Type, d direction) object {
	if words, found := enums[t]; found {
		return object{"type": "string", "enum": words}
	}
	switch t {
	case reflect.TypeFor[timestamp](), reflect.TypeFor[webhook.Time](), reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[failFast]():
		return object{"type": []string{"integer", "boolean"}}
	case reflect.TypeFor[number]():
		return object{"type": []string{"string", "integer"}}
	case reflect.TypeFor[nextPage]():
		return object{"anyOf": []object{{"type": "integer"}, {"const": false}}}
	case reflect.TypeFor[titles]():
		return object{"anyOf": []object{{"type": "string"}, {"type": "array", "items": object{"type": "string"}}}}
	}
	if n, is := reflect.Zero(t).Interface().(interface{ element() reflect.Type }); is {
		return orNull(s.of(n.element(), d))
	}
	switch t.Kind() {
	case reflect.Pointer:
		if d == answers {
			return orNull(s.of(t.Elem(), d))
		}
		return s.of(t.Elem(), d)
	case reflect.Struct:
		name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
		if s[name] == nil {
			s[name] = s.structOf(t, d)
		}
		return object{"$ref": "#/components/schemas/" + name}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem(), d)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem(), d)}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	default:
		panic(fmt.Sprintf("api: %s has no schema", t))
	}
}

func (s schemas) structOf(t reflect.Type, d direction) object {
	properties, required := object{}, []string{}
	var add func(reflect.Type)
	add = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous {
				add(f.Type)
				continue
			}
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			schema := s.of(f.Type, d)
			_, mayBeNull := reflect.Zero(f.Type).Interface().(interface{ element() reflect.Type })
			optional := options == "omitempty"
			if d == bodies {
				optional = mayBeNull || f.Type.Kind() == reflect.Pointer
			}
			if optional && d == answers && f.Type.Kind() == reflect.Pointer {
				schema = s.of(f.Type.Elem(), d) // left out instead of null
			}
			if doc := f.Tag.Get("doc"); doc != "" {
				schema = described(schema, doc)
			}
			properties[name] = schema
			if !optional {
				required = append(required, name)
			}
		}
	}
	add(t)
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	if d == bodies {
		out["additionalProperties"] = false
	}
	return out
}

// described adds a description: beside a $ref, which OpenAPI 3.1 allows.
func described(schema object, doc string) object {
	out := object{"description": doc}
	for k, v := range schema {
		out[k] = v
	}
	return out
}

func orNull(schema object) object {
	return object{"anyOf": []object{schema, {"type": "null"}}}
}

var docsTemplate = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runbell REST API</title>
<style>
html { color-scheme: light dark; scroll-padding-top: 1rem; }
body { max-width: 60rem; margin: 2rem auto 4rem; padding: 0 1rem; background: light-dark(#f8f7fa, #131217);
color: light-dark(#1d1a23, #e9e7ee); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
a { color: light-dark(#6a2bb8, #c3a2ff); }
h1, h2 { line-height: 1.25; }
h2 { margin: 2.5rem 0 .75rem; }
code { font: .8125rem/1.5 ui-monospace, monospace; }
nav a { display: inline-block; margin-right: .75rem; padding: .1875rem 0; }
section > div { padding: .625rem .875rem; border: 1px solid light-dark(#e3e1e8, #302d38);
background: light-dark(#fff, #1a191f); }
section > div + div { border-top: 0; }
h3 { margin: 0; font: 600 .875rem/1.5 ui-monospace, monospace; }
p { margin: 0 0 .75rem; }
section p, h4 { margin: .25rem 0 0; }
h4, .needs { color: light-dark(#5d5968, #a39dae); font-size: .8125rem; font-weight: 400; }
ul { margin: 0; padding-left: 1.25rem; font-size: .875rem; }
</style>
<main>
<p><a href="../">Runbell</a> / <a href="../docs/">Docs</a></p>
<h1>REST API</h1>
<p>Send an API key as <code>Authorization: Bearer KEY</code>. <a href="../docs/api">How to use the API</a> explains
lists, errors and limits; <a href="openapi.json">openapi.json</a> has the whole description.</p>
<nav aria-label="Sections">{{range .}}<a href="#{{.Name}}">{{.Name}}</a>
{{end}}</nav>
{{range .}}<section aria-labelledby="{{.Name}}">
<h2 id="{{.Name}}">{{.Name}}</h2>
{{range .Entries}}<div><h3>{{.Method}} {{.Path}}</h3>
<p>{{.Summary}}.{{with .Needs}} <span class="needs">{{.}}</span>{{end}}</p>
{{with .Query}}<h4>Query</h4>{{template "fields" .}}{{end -}}
{{with .Body}}<h4>Body</h4>{{template "fields" .}}{{end}}</div>
{{end}}</section>
{{end}}</main>
</html>
{{define "fields"}}<ul>
{{range .}}<li><code>{{.Name}}</code>{{with .Doc}}: {{.}}{{end}}</li>
{{end}}</ul>
{{end}}`))

// field is a parameter, or a field of a body, for people.
type field struct{ Name, Doc string }

// fields lists what the body of a request has, in order.
func fields(rt route) (list []field) {
	if rt.handler.body == nil {
		return nil
	}
	described := schemas{}.structOf(rt.handler.body, bodies)
	properties := described["properties"].(object)
	required, _ := described["required"].([]string)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		doc, _ := properties[name].(object)["description"].(string)
		if !slices.Contains(required, name) {
			doc = strings.TrimSpace(doc + " Optional.")
		}
		list = append(list, field{name, doc})
	}
	return list
}

// docsEntry is a route for people.
type docsEntry struct {
	Method, Path, Summary, Needs string
	Query, Body                  []field
}

// docsSection is the routes whose paths begin with the same word.
type docsSection struct {
	Name    string
	Entries []docsEntry
}

// docsPage lists the routes for people.
func docsPage(routes []route) []byte {
	var sections []docsSection
	for _, rt := range routes {
		e := docsEntry{Method: rt.method, Path: rt.path, Summary: rt.summary}
		switch {
		case rt.right == auth.Anyone:
			e.Needs = "Needs no API key."
		case !auth.Read.May(rt.right):
			e.Needs = "Needs a read-write key."
		}
		for _, p := range rt.query {
			doc := p.doc
			if p.enum != nil {
				doc = strings.TrimSpace(doc + " One of " + strings.Join(p.enum, ", ") + ".")
			}
			e.Query = append(e.Query, field{p.name, doc})
		}
		e.Body = fields(rt)
		name, _, _ := strings.Cut(strings.TrimPrefix(rt.path, "/v1/"), "/")
		at := slices.IndexFunc(sections, func(s docsSection) bool { return s.Name == name })
		if at < 0 {
			at, sections = len(sections), append(sections, docsSection{Name: name})
		}
		sections[at].Entries = append(sections[at].Entries, e)
	}
	var b strings.Builder
	if err := docsTemplate.Execute(&b, sections); err != nil {
		panic("api: the page of the routes does not render: " + err.Error())
	}
	return []byte(b.String())
}
