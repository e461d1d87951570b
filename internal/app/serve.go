package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"runbell/internal/api"
	"runbell/internal/auth"
	"runbell/internal/config"
	"runbell/internal/cypress"
	"runbell/internal/dispatch"
	"runbell/internal/endpoint"
	"runbell/internal/lifecycle"
	"runbell/internal/outbound"
	"runbell/internal/store"
	"runbell/internal/ui"
	"runbell/internal/web"
	"runbell/internal/webhook"
)

const (
	// stopWithin bounds how long a stop may take, see the contract.
	stopWithin = 30 * time.Second
	// drainFor is how long a stopping server still answers on connections that
	// clients hold open, telling them to close: a client retries a refused
	// connection, but not one that is closed under its request.
	drainFor = time.Second
)

type serveCmd struct {
	config.Serve
}

// Help is shown below the usage.
func (serveCmd) Help() string {
	return "Dashboard, REST API, reporter API and webhook delivery in one process. Stops cleanly on SIGTERM or Ctrl-C."
}

// Run serves until ctx ends.
func (c *serveCmd) Run(ctx context.Context, s *streams, version versionText) error {
	log := c.Logger(s.Err)
	// The heap is small and requests make much garbage: collecting less often
	// is half again as fast and costs some 30 MB. The operator's own wish wins.
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(400)
	}
	srv, err := startServer(ctx, c.Serve, string(version), log)
	if err != nil {
		return err
	}
	// A commit of SQLite waits for the disk, for milliseconds, and keeps the
	// processor it runs on from other goroutines meanwhile: one more makes up for it.
	// From then on Go no longer follows a container's limit that changes.
	if _, set := os.LookupEnv("GOMAXPROCS"); !set && !srv.db.Shared() {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
	// Starting leaves some 10 MB of garbage, and five times that would be waited
	// for before the next collection. What is pooled survives one.
	for range 2 {
		runtime.GC()
	}
	if err := srv.welcome(s.Out); err != nil {
		return errors.Join(err, srv.stop())
	}
	return srv.Wait()
}

// server is a running Runbell.
type server struct {
	cfg      config.Serve
	log      *slog.Logger
	db       *store.DB
	listener net.Listener
	http     *http.Server
	draining atomic.Bool
	ctx      context.Context
	failed   chan error // the HTTP server's, when it could not go on
	setupURL string     // of the first account, "" if there are accounts
	empty    bool       // there is no project yet
	workers  sync.WaitGroup
	stopWork context.CancelFunc
}

// startServer starts serving. It runs until ctx ends; then Wait returns.
func startServer(ctx context.Context, cfg config.Serve, version string, log *slog.Logger) (_ *server, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	schedule, err := webhook.ParseSchedule(cfg.WebhookRetries)
	if err != nil {
		return nil, fmt.Errorf("RUNBELL_WEBHOOK_RETRIES: %w", err)
	}
	allow, err := cfg.Allow()
	if err != nil {
		return nil, err
	}
	proxy, err := cfg.Proxy()
	if err != nil {
		return nil, err
	}
	roots, err := cfg.Roots()
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, cfg.Database)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = db.Close()
		}
	}()
	// Better no start than webhooks that cannot be signed.
	if err := db.Read(ctx, func(tx *store.Tx) error { return tx.CheckSecrets(ctx) }); err != nil {
		return nil, err
	}
	keys := auth.New(db, auth.Recording(cfg.Recording))
	if cfg.APIKey != "" {
		if err := keys.Bootstrap(ctx, cfg.APIKey); err != nil {
			return nil, err
		}
	}
	people := auth.NewPeople(db)
	if cfg.AdminEmail != "" {
		if err := people.FirstAdmin(ctx, cfg.AdminEmail, cfg.AdminPassword); err != nil {
			return nil, fmt.Errorf("RUNBELL_ADMIN_EMAIL, RUNBELL_ADMIN_PASSWORD: %w", err)
		}
	}
	setup, err := people.Setup(ctx)
	if err != nil {
		return nil, err
	}
	var anyProject bool
	if err := db.Read(ctx, func(tx *store.Tx) (err error) {
		anyProject, err = tx.AnyProject(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	guard := outbound.NewGuard(allow)
	registry := newRegistry(version)
	engine := dispatch.New(dispatch.Options{DB: db, Poster: guard.Poster(outbound.Options{Timeout: cfg.WebhookTimeout, Proxy: proxy, Roots: roots}),
		Schedule: schedule, Version: version, Log: log, Metrics: registry})
	verbs := lifecycle.New(db, cfg.PublicURL, engine.Kick)
	endpoints := endpoint.New(db, cfg.PublicURL, guard.CheckURL, engine.Changed)

	// The port is taken last, so that a server that answers is a server that
	// works: whatever its database does from here on does not end it.
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Addr, err)
	}
	s := &server{cfg: cfg, log: log, db: db, listener: listener, ctx: ctx, failed: make(chan error, 1), empty: !anyProject}
	s.http = &http.Server{
		Handler:           web.Recover(log, s.closeWhileDraining(s.routes(verbs, keys, people, endpoints, registry))),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * time.Minute, // 64 MiB over a slow line
		WriteTimeout:      3 * time.Minute,
		IdleTimeout:       2 * time.Minute, // longer than clients keep connections, so that they close first
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	s.stopWork = stopWork
	s.workers.Go(func() { engine.Run(work) })
	s.workers.Go(func() { verbs.Keep(work, log) })
	s.workers.Go(func() { endpoints.Keep(work, log) })
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	if cfg.Recording == string(auth.Open) {
		log.Warn("RUNBELL_RECORDING=open: whoever can reach this server can record runs and create projects; use it locally only")
	}
	if proxy != nil {
		log.Info("webhooks go through a proxy", "proxy", proxy.Scheme+"://"+proxy.Host) // without its password
	}
	if _, port, err := net.SplitHostPort(listener.Addr().String()); err == nil && cfg.PublicURL == "http://localhost:8484" && port != "8484" {
		log.Warn("links to runs point to " + cfg.PublicURL + ", but the server listens on another port: set RUNBELL_PUBLIC_URL")
	}
	if setup != "" {
		s.setupURL = cfg.PublicURL + "/invite/" + setup
		log.Warn("nobody can sign in yet: open this link, which works once, to make the first account", "url", s.setupURL)
	}
	log.Info("serving", "url", s.URL(), "public_url", cfg.PublicURL, "version", version)
	return s, nil
}

// newRegistry has what every program tells: this one's version, Go, the process.
func newRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "runbell_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func openDatabase(ctx context.Context, cfg config.Database) (*store.DB, error) {
	key, err := cfg.Key()
	if err != nil {
		return nil, err
	}
	sealer, err := webhook.NewSealer(key)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, cfg.URL(), sealer)
}

// routes is everything the outside can reach.
func (s *server) routes(verbs *lifecycle.Verbs, keys *auth.Keys, people *auth.People, endpoints *endpoint.Verbs, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	cypress.Routes(mux, cypress.Options{Verbs: verbs, Keys: keys, Log: s.log})
	mux.Handle("/v1/", api.New(api.Options{DB: s.db, Verbs: verbs, Keys: keys, People: people, PublicURL: s.cfg.PublicURL, Endpoints: endpoints, Log: s.log}))
	mux.Handle("/", ui.New(ui.Options{DB: s.db, Verbs: verbs, People: people, Endpoints: endpoints, Log: s.log, PublicURL: s.cfg.PublicURL}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Timeout: 10 * time.Second}))
	return mux
}

// ready says whether this process should get requests: not while it drains, nor
// while its database does not answer.
func (s *server) ready(w http.ResponseWriter, r *http.Request) {
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

func (s *server) closeWhileDraining(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// URL is where the server listens.
func (s *server) URL() string {
	host, port, err := net.SplitHostPort(s.listener.Addr().String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Wait returns when the context of startServer has ended and everything in
// flight is done, or when the server cannot go on.
func (s *server) Wait() error {
	select {
	case err := <-s.failed:
		return errors.Join(err, s.stop())
	case <-s.ctx.Done():
		return s.stop()
	}
}

// stop claims no more deliveries, then drains connections, refuses new ones,
// and waits for what is in flight.
func (s *server) stop() error {
	s.log.Info("stopping")
	deadline, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), stopWithin)
	defer cancel()
	s.stopWork()
	s.draining.Store(true)
	select {
	case <-time.After(drainFor):
	case <-deadline.Done():
	}
	if err := s.http.Shutdown(deadline); err != nil {
		s.log.Warn("some requests did not end in time", "error", err)
		_ = s.http.Close()
	}
	done := make(chan struct{})
	go func() {
		s.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-deadline.Done():
		// Not recorded, they are still due: the next start, or another node, sends them.
		s.log.Warn("some webhook attempts did not end in time; they will be repeated")
		return nil
	}
	err := s.db.Close()
	s.log.Info("stopped")
	return err
}

// reporterURL is where a reporter on this machine finds the server. Node before
// 20 tries IPv6 for localhost and stops there; the server listens on IPv4.
func reporterURL(publicURL string) string {
	return strings.Replace(publicURL, "//localhost:", "//127.0.0.1:", 1)
}

// welcome says what to do next while there is nothing to see.
func (s *server) welcome(out io.Writer) error {
	if !s.empty {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nRunbell is running at %s, and has no project yet.\n\n", s.cfg.PublicURL)
	if s.setupURL != "" {
		fmt.Fprintf(&b, "  Make the first account of the dashboard with this link, which works once:\n\n    %s\n\n"+
			"  Projects, keys and webhooks can be made there, or with the commands below.\n\n", s.setupURL)
	}
	if s.cfg.APIKey == "" {
		b.WriteString("  Restart it with an API key of your choice, which the commands below need too:\n\n" +
			"    export RUNBELL_API_KEY=$(openssl rand -hex 24)\n    runbell serve\n\n  Then, in a terminal with the same RUNBELL_API_KEY:\n\n")
	} else {
		b.WriteString("  In another terminal, with the same RUNBELL_API_KEY:\n\n")
	}
	url := ""
	if s.cfg.PublicURL != "http://localhost:8484" {
		url = "    export RUNBELL_URL=" + s.cfg.PublicURL + "\n"
	}
	b.WriteString(url + `    runbell project create "My shop" --id my-shop      prints the record key
    runbell webhook create --project my-shop https://example.com/hooks/cypress
                                                       prints the signing secret

  To try webhooks on this machine: start with RUNBELL_WEBHOOK_ALLOW=127.0.0.0/8,
  run 'runbell listen --secret whsec_…', and create a webhook for http://127.0.0.1:9000.

  Record, in the directory of a project with Cypress 10 or newer:

    runbell cypress run --url ` + reporterURL(s.cfg.PublicURL) + ` --project my-shop --key RECORD_KEY

`)
	_, err := io.WriteString(out, b.String())
	return err
}
