package web_test

import (
	"bytes"
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
	// The person who repairs it needs to know where.
	if log := out.String(); strings.Count(log, "panic in a handler") != 1 || !strings.Contains(log, "the secret reason") || !strings.Contains(log, "web_test.go") {
		t.Errorf("the log: %s", log)
	}
}
