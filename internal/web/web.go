// Package web is what the HTTP adapters share: how a kind of error becomes a
// status, and how answers are written.
package web

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-json-experiment/json"

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
	Wait    time.Duration // before the next try; zero if unknown
}

// ProblemOf translates an error. The text of errors that are not meant for
// people stays inside; log them.
func ProblemOf(err error) Problem {
	e, ok := errors.AsType[*run.Error](err)
	if !ok || e.Kind == run.Internal {
		return Problem{Status: http.StatusInternalServerError,
			Message: "Something went wrong on the server. Its log says what; try again."}
	}
	return Problem{Status: statuses[e.Kind], Code: e.Code, Message: e.Message, Details: e.Details, Wait: e.Wait}
}

// LogInternal logs an error that is our fault.
func LogInternal(log *slog.Logger, r *http.Request, err error) {
	if run.KindOf(err) == run.Internal && r.Context().Err() == nil {
		log.Error("request failed", "method", r.Method, "route", r.Pattern, "error", err)
	}
}

// Encode is an answer as WriteJSON writes it.
func Encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, json.Deterministic(true))
	return append(b, '\n'), err
}

// WriteJSON writes an answer.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	b, err := Encode(v)
	if err != nil {
		http.Error(w, "the response cannot be encoded", http.StatusInternalServerError)
		return
	}
	WriteEncoded(w, status, b)
}

// WriteEncoded writes an answer that is encoded.
func WriteEncoded(w http.ResponseWriter, status int, b []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5") // seconds
	}
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that went away gets no answer
}

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
			WriteJSON(w, http.StatusInternalServerError,
				map[string]any{"status": "FAILED", "error": "Something went wrong on the server.",
					"message": "Something went wrong on the server.", "errors": []string{}})
		}()
		next.ServeHTTP(w, r)
	})
}
