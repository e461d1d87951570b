// Package web is what the HTTP adapters share: how a kind of error becomes a
// status, how bodies are read within limits, and how answers are written.
package web

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"runbell/internal/run"
)

// statuses is the one table from kinds of error to HTTP.
var statuses = map[run.Kind]int{
	run.Internal:     http.StatusInternalServerError,
	run.Invalid:      http.StatusBadRequest,
	run.Unauthorized: http.StatusUnauthorized,
	run.Forbidden:    http.StatusForbidden,
	run.NotFound:     http.StatusNotFound,
	run.Conflict:     http.StatusConflict,
	run.TooLarge:     http.StatusRequestEntityTooLarge,
	run.Refused:      http.StatusUnprocessableEntity,
	run.TooMany:      http.StatusTooManyRequests,
	run.Unavailable:  http.StatusServiceUnavailable,
}

// Problem is an error as its receiver may see it.
type Problem struct {
	Status  int
	Code    string
	Message string
	Details []string
}

// ProblemOf translates an error. The text of errors that are not meant for
// people stays inside; log them.
func ProblemOf(err error) Problem {
	e, ok := errors.AsType[*run.Error](err)
	if !ok || e.Kind == run.Internal {
		return Problem{Status: http.StatusInternalServerError, Message: "Something went wrong on the server. Its log says what; try again."}
	}
	return Problem{Status: statuses[e.Kind], Code: e.Code, Message: e.Message, Details: e.Details}
}

// LogInternal logs an error that is our fault.
func LogInternal(log *slog.Logger, r *http.Request, err error) {
	if run.KindOf(err) == run.Internal && r.Context().Err() == nil {
		log.Error("request failed", "method", r.Method, "route", r.Pattern, "error", err)
	}
}

// WriteJSON writes an answer.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that went away gets no answer
}

// ReadBody reads a body of at most limit bytes, before and after gzip, into the
// memory of kept if it has room.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64, kept []byte) ([]byte, error) {
	tooLarge := func() error {
		return run.Errorf(run.TooLarge, "The request body is larger than %s.", size(limit))
	}
	if r.ContentLength > limit {
		return nil, tooLarge()
	}
	var in io.Reader = http.MaxBytesReader(w, r.Body, limit)
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, bodyError(err, tooLarge)
		}
		in = z
	default:
		return nil, run.Errorf(run.Invalid, "Content-Encoding %q is not understood: send gzip or none.", run.Clip(encoding, 40))
	}
	b := bytes.NewBuffer(kept[:0])
	if r.ContentLength > 0 && r.Header.Get("Content-Encoding") == "" {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(io.LimitReader(in, limit+1)); err != nil {
		return nil, bodyError(err, tooLarge)
	}
	if int64(b.Len()) > limit {
		return nil, tooLarge()
	}
	return b.Bytes(), nil
}

func bodyError(err error, tooLarge func() error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge()
	}
	return run.Errorf(run.Invalid, "The request body was cut short or is not valid gzip: send it again.")
}

func size(n int64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// What clients send is read as JavaScript would: the last of two equal names
// counts, and text that is not UTF-8 is mended.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// ParseJSON decodes a whole body. strict refuses fields that v does not have.
func ParseJSON(body []byte, v any, strict bool) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return run.Errorf(run.Invalid, "The request body is empty: send JSON.")
	}
	if string(bytes.TrimSpace(body)) == "null" {
		return run.Errorf(run.Invalid, "the body must not be null.")
	}
	err := json.Unmarshal(body, v, lenient, json.RejectUnknownMembers(strict))
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		field := strings.ReplaceAll(strings.Trim(string(e.JSONPointer), "/"), "/", ".")
		if errors.Is(e.Err, json.ErrUnknownName) {
			return run.Errorf(run.Invalid, "Unknown field %q.", run.Clip(field, 100))
		}
		if field == "" {
			field = "the body"
		}
		switch kind := jsonKinds[e.JSONKind]; {
		case errors.Is(e.Err, strconv.ErrRange):
			return run.Errorf(run.Invalid, "%s is too large or too small a number.", run.Clip(field, 100))
		case errors.Is(e.Err, strconv.ErrSyntax) && e.JSONKind == '0':
			return run.Errorf(run.Invalid, "%s must be a whole number.", run.Clip(field, 100))
		case kind != "":
			return run.Errorf(run.Invalid, "%s must not be %s.", run.Clip(field, 100), kind)
		}
		return run.Errorf(run.Invalid, "%s is not of the expected type.", run.Clip(field, 100))
	}
	if strings.Contains(err.Error(), "after top-level value") {
		return run.Errorf(run.Invalid, "The request body has something after its JSON value.")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return run.Errorf(run.Invalid, "The request body is cut short: its JSON does not end.")
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return run.Errorf(run.Invalid, "The request body is not valid JSON (at byte %d).", e.ByteOffset)
	}
	return run.Errorf(run.Invalid, "The request body is not valid JSON.")
}

var jsonKinds = map[jsontext.Kind]string{'n': "null", 'f': "false", 't': "true", '"': "a JSON string", '0': "a JSON number", '{': "a JSON object", '[': "a JSON array"}

// Recover answers 500 when a handler panics, and keeps the server running.
func Recover(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			log.Error("panic in a handler", "method", r.Method, "route", r.Pattern, "panic", p, "stack", string(debug.Stack()))
			WriteJSON(w, http.StatusInternalServerError, map[string]any{"status": "FAILED", "error": "Something went wrong on the server.", "message": "Something went wrong on the server.", "errors": []string{}})
		}()
		next.ServeHTTP(w, r)
	})
}
