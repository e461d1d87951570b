package server

import (
	"io"
	"net/http"

	"runbell/internal/api"
	"runbell/internal/intake/cypress"
	"runbell/internal/ui"
	"runbell/internal/web"
)

// handler answers every request that reaches the server.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	cypress.Routes(mux, cypress.Options{Runs: s.runs, Keys: s.keys, Reporters: s.reporters, Log: s.log})
	mux.Handle("/v1/", api.New(api.Options{DB: s.db, Runs: s.runs, Keys: s.keys, Reporters: s.reporters, People: s.people,
		PublicURL: s.PublicURL, Endpoints: s.endpoints, Log: s.log}))
	mux.Handle("/", ui.New(ui.Options{DB: s.db, Runs: s.runs, People: s.people, Endpoints: s.endpoints,
		Log: s.log, PublicURL: s.PublicURL}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", s.metrics())
	return web.Recover(s.log, s.closeWhileDraining(web.Behind(s.proxies, s.log, mux)))
}

// closeWhileDraining tells clients of a stopping server to close their connections.
func (s *Server) closeWhileDraining(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
