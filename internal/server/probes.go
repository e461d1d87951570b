package server

import (
	"context"
	"io"
	"net/http"
	"time"
)

// ready says whether this process should get requests: not while it stops, and
// not while its database does not answer.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	switch err := s.db.Ping(ctx); {
	case s.draining.Load():
		http.Error(w, "stopping", http.StatusServiceUnavailable)
	case err != nil:
		s.log.Error("the database does not answer", "error", err)
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
	default:
		_, _ = io.WriteString(w, "ready\n")
	}
}
