package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"runbell/internal/config"
)

// routesOf reads the tables of routes where they are written: {"GET", "/path", …}
// and "GET /path": ….
func routesOf(t *testing.T) []string {
	t.Helper()
	var routes []string
	for _, pattern := range []string{"../ui/*.go", "../api/*.go", "../intake/cypress/*.go", "../files/*.go", "*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CompositeLit:
					if len(n.Elts) > 2 && isMethod(text(n.Elts[0])) && strings.HasPrefix(text(n.Elts[1]), "/") {
						routes = append(routes, text(n.Elts[0])+" "+text(n.Elts[1]))
					}
				case *ast.BasicLit:
					if method, path, ok := strings.Cut(text(n), " "); ok && isMethod(method) && strings.HasPrefix(path, "/") && !strings.Contains(path, " ") {
						routes = append(routes, text(n))
					}
				}
				return true
			})
		}
	}
	slices.Sort(routes)
	routes = slices.Compact(routes)
	for _, known := range []string{"GET /run/{runId}", "POST /v1/runs/cancel", "PUT /instances/{id}/stdout", "POST /preflight", "GET /metrics"} {
		if len(routes) < 90 || !slices.Contains(routes, known) {
			t.Fatalf("%s is not among the %d routes that were found: are they written otherwise now?", known, len(routes))
		}
	}
	return routes
}

func isMethod(s string) bool {
	return slices.Contains([]string{"GET", "POST", "PUT", "DELETE", "PATCH"}, s)
}

// text is the value of a string literal, or "".
func text(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		s, _ := strconv.Unquote(l.Value)
		return s
	}
	return ""
}

// stranger makes requests that no program of ours would.
type stranger struct {
	*rand.Rand
	known []string // ids and names that exist
}

func (s *stranger) one(of ...string) string { return of[s.IntN(len(of))] }

// word is a text that somebody may get wrong, as the bytes that are meant.
func (s *stranger) word() string {
	switch s.IntN(4) {
	case 0:
		return s.one(s.known...)
	case 1:
		return s.one(s.known...) + s.one("\x00", "\xff", "/", "..", "%", "\n", "é", ".", "' OR 1=1 --")
	case 2:
		b := make([]byte, s.IntN(12))
		for i := range b {
			b[i] = byte(s.Uint32())
		}
		return string(b)
	default:
		return s.one("", "0", "-1", "null", "\x00", "\xff\xfe", "\xed\xa0\x80", "\xf0\x9f", "a\x00b", "..", "../../etc/passwd", "%00", "%", "{id}", "9223372036854775808",
			"1e999", "NaN", "2024-02-30", "\u202e", "\x1b[31m", "a\r\nb: c", strings.Repeat("a", 5000), strings.Repeat("é", 300), strings.Repeat("../", 200))
	}
}

// path fills in a route.
func (s *stranger) path(route string) string {
	var out []string
	for part := range strings.SplitSeq(route, "/") {
		switch {
		case part == "{$}":
			part = ""
		case strings.HasPrefix(part, "{"):
			part = url.PathEscape(s.word())
			if s.IntN(6) == 0 {
				part = s.one("%00", "%ff", "%2e%2e", "%2f", "a%00b", "%C0%80", "%ED%A0%80")
			}
		}
		out = append(out, part)
	}
	return strings.Join(out, "/")
}

func (s *stranger) values(names ...string) url.Values {
	v := url.Values{}
	for range s.IntN(5) {
		v.Add(s.one(names...), s.word())
	}
	if s.IntN(8) == 0 {
		v.Add(s.word(), s.word())
	}
	return v
}

// names are those of parameters, fields and keys that the server reads.
var names = []string{"projectId", "branch", "tags", "tags[]", "tag", "author", "q", "search", "status", "state", "completion", "from", "to", "date_start", "date_end", "after", "before",
	"cursor", "starting_after", "ending_before", "limit", "ciBuildId", "spec", "group", "instance", "show", "outcome", "run", "kind", "email", "password", "name", "next", "role", "url",
	"events", "secret", "headers", "label", "enabled", "scope", "recordKey", "groupId", "machineId", "providedMachineId", "specs", "autoCancelAfterFailures", "parallel", "late",
	"ci", "params", "provider", "commit", "sha", "message", "authorName", "authorEmail", "remoteOrigin", "defaultBranch", "platform", "osName", "browserName", "browserVersion",
	"batchSize", "tests", "hooks", "config", "retries", "video", "clientId", "title", "body", "hookId", "hookName", "stats", "passes", "failures", "wallClockDuration", "exception",
	"reporterStats", "screenshots", "attempts", "error", "stack", "codeFrame", "stdout", "cypressConfig", "results", "reason", "githubRunId", "githubRunAttempt"}

// literal is JSON, more or less: values of every kind in any place.
func (s *stranger) literal(depth int) string {
	switch n := s.IntN(10); {
	case n < 3:
		b, _ := json.Marshal(s.word())
		return string(b)
	case n == 3:
		return s.one(`"\ud800"`, `"\u0000"`, `"a\u0000b"`, `"\udfff\ud800"`, "\"\xff\"", `"\u001b[2J"`, `"\n"`)
	case n == 4:
		return s.one("0", "-1", "1.5", "1e400", "-0", "9223372036854775807", "18446744073709551616", "1e18", "2")
	case n == 5:
		return s.one("null", "true", "false", "", "{", "]", "tru", "'", "NaN")
	case n < 8 && depth > 0:
		return s.object(depth - 1)
	case depth > 0:
		var list []string
		for range s.IntN(4) {
			list = append(list, s.literal(depth-1))
		}
		return "[" + strings.Join(list, ",") + "]"
	default:
		return strings.Repeat(s.one("[", `{"a":`, `[{"tests":`), s.IntN(400))
	}
}

func (s *stranger) object(depth int) string {
	var members []string
	for range s.IntN(6) {
		members = append(members, strconv.Quote(s.one(names...))+":"+s.literal(depth))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// body is one that a route would take, with something in it that it would not.
func (s *stranger) body() string {
	join := `{"projectId":"shop","recordKey":"wrong","ciBuildId":"b","specs":["a.cy.js"],"group":"g","tags":["t"],"ci":{"provider":"github","params":{"a":"b"}},` +
		`"commit":{"sha":"1","branch":"main","message":"m","remoteOrigin":"https://u:p@h/r.git"},"platform":{"osName":"linux"},"providedMachineId":"m"}`
	results := `{"stats":{"passes":1,"failures":0},"tests":[{"clientId":"r1","state":"passed","attempts":[{"state":"passed","error":null}]}],"exception":null,"hooks":[]}`
	switch s.IntN(5) {
	case 0:
		return s.object(4)
	case 1:
		return s.literal(6)
	case 2:
		return s.values(names...).Encode()
	default:
		return s.spoil(s.one(join, join, results))
	}
}

// spoil makes one value of a JSON object another.
func (s *stranger) spoil(good string) string {
	values := strings.Count(good, `":`)
	if values == 0 {
		return s.object(3)
	}
	at := 0
	for range 1 + s.IntN(values) {
		at += strings.Index(good[at:], `":`) + 2
	}
	end := at + strings.IndexAny(good[at:]+",", ",}]")
	return good[:at] + s.literal(3) + good[end:]
}

func (s *stranger) request(base, route string) *http.Request {
	method, pattern, _ := strings.Cut(route, " ")
	if s.IntN(12) == 0 {
		method = s.one("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO")
	}
	var body io.Reader
	if method != http.MethodGet {
		b := s.body()
		body = strings.NewReader(b)
	}
	req, err := http.NewRequest(method, base, body)
	if err != nil {
		panic(err) // the base is good
	}
	req.URL.Opaque = "//" + req.URL.Host + s.path(pattern)
	req.URL.RawQuery = s.values(names...).Encode()
	if s.IntN(6) == 0 {
		req.URL.RawQuery += s.one("&%00=%00", "&q=%ff", "&a;b", "&%zz", "&projectId=%00", "&after=%ff%00")
	}
	header := strings.NewReplacer("\r", "", "\n", "", "\x00", "", "\x1b", "", "\x7f", "")
	for range s.IntN(4) {
		name := s.one("Authorization", "Cookie", "If-None-Match", "User-Agent", "Content-Type", "Content-Encoding", "Accept-Encoding", "X-Forwarded-For", "Origin", "Sec-Fetch-Site",
			"X-Cypress-Request-Attempt", "X-Cypress-Version", "X-Cypress-Run-Id", "X-Runbell-Version", "X-Os-Name", "Referer", "Range", "Accept", "Last-Event-Id")
		value := map[string]string{"Authorization": "Bearer ", "Cookie": "runbell_session="}[name] + printable(header.Replace(s.word()))
		if s.IntN(2) == 0 {
			value = map[string]string{"Content-Encoding": s.one("gzip", "br", "identity"), "Content-Type": s.one("application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
				"Accept-Encoding": "gzip"}[name]
		}
		req.Header.Set(name, value)
	}
	return req
}

// printable leaves out what the client, not the server, refuses in a header.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' {
			return -1
		}
		return r
	}, s)
}

// TestStrangersCauseNoErrors sends what nobody should to every route, without a
// key: nothing of it is the server's fault, and nothing of it stays.
func TestStrangersCauseNoErrors(t *testing.T) {
	routes := routesOf(t)
	onEach(t, func(t *testing.T, databaseURL string) {
		s, log := start(t, databaseURL, func(c *config.Serve) { c.APIKey, c.LogLevel = "0123456789abcdef", "error" })
		one := &stranger{rand.New(rand.NewPCG(1, 2)), append([]string{"shop", "b", "main"}, record(t, s)...)}
		before := settledHeap()
		for _, route := range routes {
			for range 20 {
				req := one.request(s.URL(), route)
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					t.Errorf("%s %s: %v", req.Method, req.URL, err)
					continue
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode >= 500 {
					t.Errorf("%s %s %v: %d, %v: %s", req.Method, req.URL, req.Header, resp.StatusCode, err, body[:min(len(body), 200)])
				}
			}
		}
		for _, line := range log.lines(slog.LevelError) {
			t.Errorf("the log has %s", line)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if after := settledHeap(); after > before+16<<20 {
			t.Errorf("the heap grew from %d to %d bytes", before, after)
		}
	})
}

// spoiled is a request to a route as a caller makes it, but for one thing.
func (w *things) spoiled(one *stranger, caller, route string) *http.Request {
	method, pattern, _ := strings.Cut(route, " ")
	path, query, body, kind := w.path(caller, route, one.one("", "public ")), "", "", "application/json"
	switch {
	case method == http.MethodGet:
		query = one.values(names...).Encode()
	case takesJSON(pattern):
		good, err := json.Marshal(w.json(caller, route))
		w.check(err)
		body = one.spoil(string(good))
	default:
		form := w.form(pattern)
		for name := range one.values(slices.Collect(maps.Keys(form))...) {
			form.Set(name, one.word())
		}
		body, kind = form.Encode(), "application/x-www-form-urlencoded"
	}
	if method == http.MethodGet && one.IntN(4) == 0 {
		path = one.path(pattern)
	}
	req := httptest.NewRequestWithContext(w.Context(), method, "/", strings.NewReader(body))
	req.URL = &url.URL{RawPath: path, RawQuery: query}
	req.URL.Path, _ = url.PathUnescape(path)
	req.Header.Set("Content-Type", kind)
	w.sign(req, caller)
	return req
}

// ends are the routes after which things or sessions are gone.
var ends = regexp.MustCompile(`^DELETE|delete|signout|remove|revoke|password|role`)

// TestKeysCauseNoErrors sends the requests of those who may, each with something
// wrong in it: nothing of it is the server's fault.
func TestKeysCauseNoErrors(t *testing.T) {
	routes := routesOf(t)
	onEach(t, func(t *testing.T, databaseURL string) {
		s, log := start(t, databaseURL, func(c *config.Serve) { c.LogLevel = "error" })
		w := &things{T: t, s: s, receiver: "https://hooks.example.test/", style: "/static/style.css"}
		w.renew()
		one := &stranger{rand.New(rand.NewPCG(3, 4)), slices.Collect(maps.Values(w.ids))}
		statuses := map[int]int{}
		for _, route := range routes {
			may := []string{"admin"}
			if _, pattern, _ := strings.Cut(route, " "); takesJSON(pattern) {
				may = []string{"read", "write", "record", "reporter"}
			}
			for n := range 8 {
				caller := may[n%len(may)]
				req := w.spoiled(one, caller, route)
				rec := httptest.NewRecorder()
				s.http.Handler.ServeHTTP(rec, req)
				if statuses[rec.Code]++; rec.Code >= 500 {
					t.Errorf("%s, %s %s: %d %.200s", caller, req.Method, req.URL, rec.Code, rec.Body)
				}
				if ends.MatchString(route) && rec.Code < 400 {
					w.renew()
				}
			}
		}
		for _, line := range log.lines(slog.LevelError) {
			t.Errorf("the log has %s", line)
		}
		if statuses[200] < 100 || statuses[400] < 50 {
			t.Errorf("few requests got anywhere: %v", statuses)
		}
	})
}

// Inputs that were once the server's fault, no matter who sent them.
func TestStrangersKnownInputs(t *testing.T) {
	onEach(t, func(t *testing.T, databaseURL string) {
		s, log := start(t, databaseURL, nil)
		for _, c := range []struct {
			method, path, body string
			want               int
		}{
			{"GET", "/run/%00", "", 303},
			{"GET", "/run/%ff", "", 303},
			{"GET", "/run/x/spec?instance=%00", "", 303},
			{"POST", "/runs", `{"projectId":"shop","recordKey":"wrong","ciBuildId":"b","specs":["a"],"autoCancelAfterFailures":"\ud800"}`, 401},
			{"POST", "/runs", `{"projectId":"shop","recordKey":"wrong","ciBuildId":"b","specs":["a"],"autoCancelAfterFailures":1e400}`, 401},
			{"POST", "/runs", `{"projectId":"\u0000","recordKey":"\u0000","ciBuildId":"b","specs":["a"]}`, 401},
			{"POST", "/instances/%00/results", `{"tests":[]}`, 404},
			{"POST", "/v1/runs/cancel", `{"projectId":"\u0000","recordKey":"\u0000","ciBuildId":"\u0000"}`, 400},
		} {
			req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL()+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("%s %s %s: %d, want %d: %.300s", c.method, c.path, c.body, resp.StatusCode, c.want, body)
			}
		}
		for _, line := range log.lines(slog.LevelError) {
			t.Errorf("the log has %s", line)
		}
	})
}

// record makes a project with public runs and a run in it, and returns their ids.
func record(t *testing.T, s *Server) []string {
	t.Helper()
	post := func(path, body string, into any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer 0123456789abcdef")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode/100 != 2 || json.Unmarshal(b, into) != nil {
			t.Fatalf("%s: %d %v %s", path, resp.StatusCode, err, b)
		}
	}
	var project struct{ Data struct{ RecordKey string } }
	post("/v1/projects", `{"projectId":"shop","name":"Shop","publicRunLinks":true}`, &project)
	var joined struct{ RunID, MachineID, GroupID string }
	post("/runs", fmt.Sprintf(`{"projectId":"shop","recordKey":%q,"ciBuildId":"b","specs":["a.cy.js","b.cy.js"],"commit":{"branch":"main"}}`, project.Data.RecordKey), &joined)
	var claimed struct{ InstanceID string }
	post("/runs/"+joined.RunID+"/instances", fmt.Sprintf(`{"groupId":%q,"machineId":%q}`, joined.GroupID, joined.MachineID), &claimed)
	return []string{joined.RunID, joined.GroupID, claimed.InstanceID}
}

// settledHeap is what is in use after what nobody needs any more is gone.
func settledHeap() uint64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
