package server

import (
	"net/http"

	"runbell/internal/api"
	"runbell/internal/body"
	"runbell/internal/files"
	"runbell/internal/history"
	"runbell/internal/intake"
	"runbell/internal/intake/cypress"
	"runbell/internal/ui"
	"runbell/internal/web"
)

// handler answers every request that reaches the server.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	bodies := body.NewPools()
	cypress.Routes(mux, intake.Options{Bodies: bodies, Runs: s.runs, Keys: s.keys, Reporters: s.reporters,
		Artifacts: s.artifacts, Log: s.log})
	explorer := history.NewExplorer()
	pages := ui.New(ui.Options{DB: s.db, Runs: s.runs, People: s.people, Keys: s.keys, Endpoints: s.endpoints,
		Explorer: explorer, Sweeper: s.sweeper, Log: s.log, PublicURL: s.PublicURL, Artifacts: s.artifacts,
		Version: s.version})
	files.Routes(mux, files.Options{DB: s.db, Artifacts: s.artifacts, People: s.people, Keys: s.keys,
		PublicURL: s.PublicURL, Problem: pages.Problem, Log: s.log})
	mux.Handle("/v1/", api.New(api.Options{DB: s.db, Runs: s.runs, Keys: s.keys, Reporters: s.reporters, People: s.people,
		PublicURL: s.PublicURL, Endpoints: s.endpoints, Explorer: explorer, Artifacts: s.artifacts, Sweeper: s.sweeper,
		Bodies: bodies, Log: s.log}))
	mux.Handle("/", pages)
	mux.HandleFunc("GET /healthz", live)
	mux.HandleFunc("GET /readyz", s.readiness())
	mux.Handle("GET /metrics", s.metrics())
	return web.Recover(s.log, s.everyAnswer(web.ValidText(web.Behind(s.proxies, s.log, mux))))
}

// everyAnswer sets the headers that every answer has: no browser guesses what an
// answer is, and a stopping server tells clients to close their connections.
func (s *Server) everyAnswer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
