package web_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
	"runbell/internal/web"
)

func packed(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unsized hides the length of a body, so that it is sent in chunks.
type unsized struct{ io.Reader }

func TestReadBody(t *testing.T) {
	const limit = 64 << 10
	text := strings.Repeat("text ", 1000)
	full, over := bytes.Repeat([]byte("x"), limit), bytes.Repeat([]byte("x"), limit+1)
	z := packed(t, []byte(text))
	for name, c := range map[string]struct {
		body     []byte
		encoding string
		want     string // read
		kind     run.Kind
		says     string
	}{
		"plain":                     {[]byte(text), "", text, 0, ""},
		"empty":                     {nil, "", "", 0, ""},
		"identity":                  {[]byte(text), "identity", text, 0, ""},
		"gzip":                      {z, "gzip", text, 0, ""},
		"gzip in upper case":        {z, " GZIP ", text, 0, ""},
		"x-gzip":                    {z, "x-gzip", text, 0, ""},
		"two gzip members":          {append(bytes.Clone(z), z...), "gzip", text + text, 0, ""},
		"just the limit":            {full, "", string(full), 0, ""},
		"the limit, packed":         {packed(t, full), "gzip", string(full), 0, ""},
		"one over the limit":        {over, "", "", run.TooLarge, "larger than 64 KiB"},
		"one over, packed":          {packed(t, over), "gzip", "", run.TooLarge, "larger than 64 KiB"},
		"a bomb":                    {packed(t, make([]byte, 4<<20)), "gzip", "", run.TooLarge, "larger than 64 KiB"},
		"nothing, packed too often": {bytes.Repeat(packed(t, nil), limit/16), "gzip", "", run.TooLarge, "larger than 64 KiB"},
		"packed but unmarked":       {z, "", string(z), 0, ""}, // its JSON is refused later
		"marked, not packed":        {[]byte(text), "gzip", "", run.Invalid, "not valid gzip"},
		"nothing, as gzip":          {nil, "gzip", "", run.Invalid, "cut short"},
		"gzip cut short":            {z[:len(z)-9], "gzip", "", run.Invalid, "cut short"},
		"gzip with garbage":         {append(bytes.Clone(z), "garbage"...), "gzip", "", run.Invalid, "not valid gzip"},
		"a broken checksum":         {append(bytes.Clone(z[:len(z)-8]), make([]byte, 8)...), "gzip", "", run.Invalid, "not valid gzip"},
		"brotli":                    {z, "br", "", run.Invalid, `"br"`},
		"packed twice":              {z, "gzip, gzip", "", run.Invalid, "gzip"},
	} {
		for _, sized := range []bool{true, false} {
			var got []byte
			var err error
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got, err = web.ReadBody(w, r, limit, nil) }))
			var body io.Reader = bytes.NewReader(c.body)
			if !sized {
				body = unsized{body}
			}
			req, errReq := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
			if errReq != nil {
				t.Fatal(errReq)
			}
			if c.encoding != "" {
				req.Header.Set("Content-Encoding", c.encoding)
			}
			// A body over the limit may be refused before all of it was sent: then there is no answer.
			if res, err := s.Client().Do(req); err == nil {
				res.Body.Close()
			}
			s.Close()
			switch {
			case c.says == "" && (err != nil || string(got) != c.want):
				t.Errorf("%s, length known %v: %d bytes, %v; want %d", name, sized, len(got), err, len(c.want))
			case c.says != "" && (run.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) || got != nil):
				t.Errorf("%s, length known %v: %d bytes, %v; want %q", name, sized, len(got), err, c.says)
			}
		}
	}
}

// counted says how much of a body was read.
type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// A bomb is left at the limit, not unpacked and then refused.
func TestABombIsNotUnpacked(t *testing.T) {
	bomb := packed(t, make([]byte, 8<<20))
	body := &counted{Reader: bytes.NewReader(bomb)}
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r.Header.Set("Content-Encoding", "gzip")
	if _, err := web.ReadBody(httptest.NewRecorder(), r, 128<<10, nil); run.KindOf(err) != run.TooLarge {
		t.Fatal(err)
	}
	if body.n > len(bomb)*3/4 {
		t.Errorf("%d bytes of %d were unpacked for a limit of a 64th of them", body.n, len(bomb))
	}
}

func TestALimitIsSaidInItsUnit(t *testing.T) {
	for limit, says := range map[int64]string{1 << 10: "1 KiB", 64 << 10: "64 KiB", 1 << 20: "1 MiB", 50 << 20: "50 MiB"} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.ContentLength = limit + 1 // refused before anything is read
		if _, err := web.ReadBody(httptest.NewRecorder(), r, limit, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%d: %v, want %s", limit, err, says)
		}
	}
}

type input struct {
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Small uint8             `json:"small"`
	On    bool              `json:"on"`
	Tags  []string          `json:"tags"`
	Deep  struct{ A []int } `json:"deep"`
	Maybe *string           `json:"maybe"`
}

func TestParseJSON(t *testing.T) {
	for _, c := range []struct {
		body   string
		strict bool
		says   string // "" when it is read
	}{
		{`{"name":"x","count":3,"on":true,"tags":["a"],"deep":{"A":[1]},"maybe":null}`, true, ""},
		{" \n{}\t ", true, ""},
		{`{"extra":1}`, false, ""},
		{`{"extra":1}`, true, `Unknown field "extra".`},
		{`{"deep":{"B":1}}`, true, `Unknown field "deep.B".`},
		{`{"name":"first","name":"x"}`, true, ""}, // as JavaScript reads it: the last one
		{"{\"name\":\"\xff\"}", true, ""},
		{``, true, "The request body is empty: send JSON."},
		{"  \n", true, "The request body is empty: send JSON."},
		{`{`, true, "The request body is cut short: its JSON does not end."},
		{`{"name":"x`, true, "The request body is cut short: its JSON does not end."},
		{`{"name":"x"} {}`, true, "The request body has something after its JSON value."},
		{`{"name":"x"}x`, true, "The request body has something after its JSON value."},
		{`{name:"x"}`, true, "The request body is not valid JSON (at byte 2)."},
		{`{"name":'x'}`, true, "The request body is not valid JSON (at byte 8)."},
		{`name=x`, true, "The request body is not valid JSON (at byte 1)."},
		{`{"name":5}`, true, "name must not be a JSON number."},
		{`{"name":{}}`, true, "name must not be a JSON object."},
		{`{"count":"3"}`, true, "count must not be a JSON string."},
		{`{"count":true}`, true, "count must not be true."},
		{`{"on":0}`, true, "on must not be a JSON number."},
		{`{"tags":"a"}`, true, "tags must not be a JSON string."},
		{`{"tags":["a",2]}`, true, "tags.1 must not be a JSON number."},
		{`{"deep":{"A":[1,"x"]}}`, true, "deep.A.1 must not be a JSON string."},
		{`[]`, true, "the body must not be a JSON array."},
		{`"x"`, true, "the body must not be a JSON string."},
		// It is a number; which one would do must be said.
		{`{"count":1.5}`, true, "count must be a whole number."},
		{`{"count":1e400}`, true, "count must be a whole number."},
		{`{"count":99999999999999999999}`, true, "count is too large or too small a number."},
		{`{"small":256}`, true, "small is too large or too small a number."},
		{`{"extra":` + strings.Repeat("[", 20_000), false, "The request body is not valid JSON (at byte "},
	} {
		var v input
		err := web.ParseJSON([]byte(c.body), &v, c.strict)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%.60s: %v", c.body, err)
		case c.says != "" && (run.KindOf(err) != run.Invalid || !strings.HasPrefix(err.Error(), c.says)):
			t.Errorf("%.60s: %v, want %s", c.body, err, c.says)
		}
		if c.says == "" && strings.Contains(c.body, `"first"`) && v.Name != "x" {
			t.Errorf("%s: the name is %q", c.body, v.Name)
		}
	}
}

func TestProblemOfHidesWhatIsOurs(t *testing.T) {
	const ours = "Something went wrong on the server. Its log says what; try again."
	internal := errors.New("pq: password authentication failed for user runbell")
	for name, c := range map[string]struct {
		err  error
		want web.Problem
	}{
		"foreign":       {internal, web.Problem{Status: 500, Message: ours}},
		"internal":      {&run.Error{Kind: run.Internal, Code: "X", Message: internal.Error(), Details: []string{"secret"}}, web.Problem{Status: 500, Message: ours}},
		"invalid":       {run.Errorf(run.Invalid, "m"), web.Problem{Status: 400, Message: "m"}},
		"unauthorized":  {run.Errorf(run.Unauthorized, "m"), web.Problem{Status: 401, Message: "m"}},
		"forbidden":     {run.Errorf(run.Forbidden, "m"), web.Problem{Status: 403, Message: "m"}},
		"not found":     {run.Errorf(run.NotFound, "m"), web.Problem{Status: 404, Message: "m"}},
		"conflict":      {run.Errorf(run.Conflict, "m"), web.Problem{Status: 409, Message: "m"}},
		"too large":     {run.Errorf(run.TooLarge, "m"), web.Problem{Status: 413, Message: "m"}},
		"refused":       {&run.Error{Kind: run.Refused, Code: "C", Message: "m", Details: []string{"d"}}, web.Problem{Status: 422, Code: "C", Message: "m", Details: []string{"d"}}},
		"unavailable":   {run.Errorf(run.Unavailable, "m"), web.Problem{Status: 503, Message: "m"}},
		"wrapped":       {fmt.Errorf("while reading %w", run.Errorf(run.NotFound, "m")), web.Problem{Status: 404, Message: "m"}},
		"a closed call": {context.Canceled, web.Problem{Status: 500, Message: ours}},
	} {
		if diff := cmp.Diff(c.want, web.ProblemOf(c.err)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOnlyOurFaultsAreLogged(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		err  error
		want bool
	}{
		"ours":                      {t.Context(), io.ErrUnexpectedEOF, true},
		"theirs":                    {t.Context(), run.Errorf(run.Invalid, "m"), false},
		"the client has gone":       {gone, io.ErrUnexpectedEOF, false},
		"theirs, and they are gone": {gone, run.Errorf(run.Invalid, "m"), false},
	} {
		var out bytes.Buffer
		r := httptest.NewRequest(http.MethodGet, "/x", nil).WithContext(c.ctx)
		web.LogInternal(slog.New(slog.NewTextHandler(&out, nil)), r, c.err)
		if got := strings.Contains(out.String(), io.ErrUnexpectedEOF.Error()); got != c.want || (out.Len() > 0) != c.want {
			t.Errorf("%s: the log says %q", name, out.String())
		}
	}
}

func TestWriteJSON(t *testing.T) {
	w := httptest.NewRecorder()
	web.WriteJSON(w, http.StatusCreated, map[string]any{"b": 1, "a": "<x>"})
	if w.Code != 201 || w.Body.String() != "{\"a\":\"<x>\",\"b\":1}\n" || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") ||
		w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	w = httptest.NewRecorder()
	web.WriteJSON(w, http.StatusOK, make(chan int))
	if w.Code != 500 || strings.Contains(w.Body.String(), "chan") {
		t.Errorf("what cannot be encoded: %d %s", w.Code, w.Body)
	}
}

// A panic ends its request and nothing else, and shows its text to nobody but the log.
func TestRecover(t *testing.T) {
	var out bytes.Buffer
	mux := http.NewServeMux()
	mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("the secret reason") })
	mux.HandleFunc("GET /abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("GET /fine", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	s := httptest.NewUnstartedServer(web.Recover(slog.New(slog.NewTextHandler(&out, nil)), mux))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	get := func(path string) (int, string) {
		res, err := s.Client().Get(s.URL + path)
		if err != nil {
			return 0, ""
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return res.StatusCode, string(b)
	}
	if status, body := get("/panic"); status != 500 || strings.Contains(body, "secret") || !strings.Contains(body, `"status":"FAILED"`) || !strings.Contains(body, `"message":`) {
		t.Errorf("a panic: %d %s", status, body)
	}
	if status, body := get("/abort"); status != 0 {
		t.Errorf("an aborted answer: %d %s", status, body)
	}
	if status, body := get("/fine"); status != 200 || body != "fine" {
		t.Errorf("after a panic: %d %s", status, body)
	}
	s.Close()
	// Whoever repairs it needs to know where.
	if log := out.String(); strings.Count(log, "panic in a handler") != 1 || !strings.Contains(log, "the secret reason") || !strings.Contains(log, "web_test.go") {
		t.Errorf("the log: %s", log)
	}
}
