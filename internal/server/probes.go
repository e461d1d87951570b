package server

import (
	"context"
	"io"
	"net/http"
	"time"
)

const (
	// readyRest is how long the answer of the database to a probe holds.
	readyRest = 2 * time.Second
	// readyWithin is how long a probe waits for the database.
	readyWithin = 2 * time.Second
)

// live answers while the process serves requests.
func live(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "ok\n")
}

// readiness answers whether this process should get requests: not while it
// stops, and not while its database accepts no writes.
func (s *Server) readiness() http.HandlerFunc {
	writable := newRecent(readyRest, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
		defer cancel()
		return struct{}{}, s.writable(ctx)
	})
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyWithin)
		defer cancel()
		_, err := writable.get(ctx)
		switch {
		case s.draining.Load():
			http.Error(w, "stopping", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, "the database accepts no writes: the server's log says why", http.StatusServiceUnavailable)
		default:
			_, _ = io.WriteString(w, "ready\n")
		}
	}
}

// writable says whether the database accepts writes, and logs when that changes.
func (s *Server) writable(ctx context.Context) error {
	err := s.db.Writable(ctx)
	switch {
	case err != nil && !s.unwritable.Swap(true):
		s.log.Error("the database accepts no writes", "error", err)
	case err == nil && s.unwritable.Swap(false):
		s.log.Info("the database accepts writes again")
	}
	return err
}
