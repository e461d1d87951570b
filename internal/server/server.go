// Package server puts a Runbell server together: it opens the database, starts
// the workers, serves the handlers, and stops everything in order.
//
// [Start] is the wiring, routes.go says which handler has which path, probes.go
// answers health checks, and metrics.go answers Prometheus.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/config"
	"runbell/internal/dispatch"
	"runbell/internal/endpoint"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/outbound"
	"runbell/internal/retention"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	// stopWithin bounds how long a stop may take.
	stopWithin = 30 * time.Second
	// drainFor is how long a stopping server still answers on connections that
	// clients hold open, and tells them to close. Clients retry a refused
	// connection, but not one that is closed under their request.
	drainFor = time.Second
)

// Server is a running Runbell.
type Server struct {
	// PublicURL is where people reach the server, without a trailing slash.
	PublicURL string
	// SetupURL is where the first account is made. It is empty once there is one.
	SetupURL string
	// Empty says that there was no project when the server started.
	Empty bool

	version   string
	cfg       config.Serve
	log       *slog.Logger
	db        *store.DB
	registry  *prometheus.Registry
	proxies   []netip.Prefix // whose X-Forwarded-For is believed
	keys      *auth.Keys
	reporters *auth.Reporters
	people    *auth.People
	runs      *lifecycle.Service
	endpoints *endpoint.Service
	engine    *dispatch.Engine
	sweeper   *retention.Sweeper
	artifacts *artifact.Service // nil if they are off

	listener net.Listener
	http     *http.Server
	draining atomic.Bool
	// unwritable says that the database took no writes when last asked.
	unwritable atomic.Bool
	ctx        context.Context
	failed     chan error // has the error of an HTTP server that cannot go on
	workers    sync.WaitGroup
	stopWork   context.CancelFunc
}

// Start starts a server, which runs until ctx ends; call Wait then. version is
// what the server says it is, in metrics and to the receivers of webhooks.
func Start(ctx context.Context, cfg config.Serve, version string, log *slog.Logger) (_ *Server, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	schedule, err := dispatch.ParseSchedule(cfg.WebhookRetries)
	if err != nil {
		return nil, fmt.Errorf("RUNBELL_WEBHOOK_RETRIES: %w", err)
	}
	s := &Server{PublicURL: cfg.PublicURL, version: version, cfg: cfg, log: log, ctx: ctx, registry: newRegistry(version),
		failed: make(chan error, 1)}
	if s.proxies, err = cfg.Proxies(); err != nil {
		return nil, err
	}
	if s.db, err = OpenDatabase(ctx, cfg.Database); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.db.Close()
		}
	}()
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(s.keepArtifacts(ctx), s.connect(schedule, version)); err != nil {
		return nil, err
	}
	// The port is taken last, so that a server that answers is a server that works.
	s.listener, err = net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	s.serve()
	s.announce(version)
	return s, nil
}

// OpenDatabase opens the database and brings its schema up to date.
func OpenDatabase(ctx context.Context, cfg config.Database) (*store.DB, error) {
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

// prepare checks what is in the database and adds what the configuration says
// must be there: the API key and the first admin.
func (s *Server) prepare(ctx context.Context) error {
	// With another key, webhooks cannot be signed, and reporters of other nodes are not known.
	err := s.db.Write(ctx, func(tx *store.Tx) error {
		anyProject, err := tx.AnyProject(ctx)
		s.Empty = !anyProject
		return errors.Join(err, tx.CheckKey(ctx))
	})
	if err != nil {
		return err
	}
	secret, err := s.cfg.Key()
	if err != nil {
		return err
	}
	s.reporters = auth.NewReporters(secret)
	s.keys = auth.New(s.db, auth.Recording(s.cfg.Recording))
	if s.cfg.APIKey != "" {
		if err := s.keys.Bootstrap(ctx, s.cfg.APIKey); err != nil {
			return err
		}
	}
	s.people = auth.NewPeople(s.db, secret)
	if s.cfg.AdminEmail != "" {
		if err := s.people.FirstAdmin(ctx, s.cfg.AdminEmail, s.cfg.AdminPassword); err != nil {
			return fmt.Errorf("RUNBELL_ADMIN_EMAIL, RUNBELL_ADMIN_PASSWORD: %w", err)
		}
	}
	setup, err := s.people.Setup(ctx)
	if err == nil && setup != "" {
		s.SetupURL = s.PublicURL + "/invite/" + setup
	}
	return err
}

// connect makes the delivery engine and the services that feed it.
func (s *Server) connect(schedule dispatch.Schedule, version string) error {
	allow, err := s.cfg.Allow()
	if err != nil {
		return err
	}
	proxy, err := s.cfg.Proxy()
	if err != nil {
		return err
	}
	roots, err := s.cfg.Roots()
	if err != nil {
		return err
	}
	if proxy != nil {
		s.log.Info("webhooks go through a proxy", "proxy", proxy.Scheme+"://"+proxy.Host) // without its password
	}
	guard := outbound.NewGuard(allow)
	poster := guard.Poster(outbound.Options{Timeout: s.cfg.WebhookTimeout, Proxy: proxy, Roots: roots})
	s.engine = dispatch.New(dispatch.Options{DB: s.db, Poster: poster, Schedule: schedule, Version: version, Log: s.log,
		Metrics: s.registry})
	s.runs = lifecycle.New(s.db, s.PublicURL, s.engine.Kick)
	if s.artifacts != nil {
		s.runs.LinkFiles(func(id string, at time.Time) string { return s.artifacts.Link(id, at.Add(artifact.LinkLife)) })
	}
	s.endpoints = endpoint.New(s.db, s.PublicURL, guard.CheckURL, s.engine.Changed)
	s.sweeper = retention.New(s.db, s.artifacts, s.log, s.registry)
	return nil
}

// serve starts the workers and answers requests.
func (s *Server) serve() {
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * time.Minute, // 64 MiB over a slow line
		WriteTimeout:      3 * time.Minute,
		IdleTimeout:       2 * time.Minute, // longer than clients keep connections, so that they close first
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         newConnections(maxConnections).changed,
		// OPTIONS * is answered like everything else.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	work, stopWork := context.WithCancel(context.WithoutCancel(s.ctx))
	s.stopWork = stopWork
	s.workers.Go(func() { s.engine.Run(work) })
	s.workers.Go(func() { s.runs.Keep(work, s.log) })
	if s.artifacts != nil {
		s.workers.Go(func() { s.checkArtifacts(work) })
	}
	if s.cfg.S3.Presign == "on" {
		s.workers.Go(func() { s.artifacts.Look(work) })
	}
	worker := history.NewWorker(s.db, s.log, s.registry)
	s.workers.Go(func() { worker.Run(work, s.runs.TellStatuses) })
	s.workers.Go(func() { s.runs.TellFacts(work, s.log, worker.CatchRun) })
	s.workers.Go(func() { s.sweeper.Run(work) })
	go func() {
		if err := s.http.Serve(headerLimit{s.listener}); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
}

// announce logs that the server is there, and what its operator should know.
func (s *Server) announce(version string) {
	if s.cfg.Recording == string(auth.Open) {
		s.log.Warn("RUNBELL_RECORDING=open: anyone who can reach this server can record runs and create projects; use it " +
			"locally only")
	}
	if s.SetupURL != "" {
		s.log.Warn("nobody can sign in yet: open this link, which works once, to make the first account", "url", s.SetupURL)
	}
	s.log.Info("serving", "url", s.URL(), "public_url", s.PublicURL, "version", version)
}

// URL is where the server listens.
func (s *Server) URL() string {
	host, port, err := net.SplitHostPort(s.listener.Addr().String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Wait returns when the context given to Start has ended and all requests and
// attempts in flight are done, or when the server cannot go on.
func (s *Server) Wait() error {
	select {
	case err := <-s.failed:
		return errors.Join(err, s.Stop())
	case <-s.ctx.Done():
		return s.Stop()
	}
}

// Stop claims no more deliveries, drains connections, refuses new ones, and
// waits for what is in flight, at most 30 seconds.
func (s *Server) Stop() error {
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
		// What was not recorded is still due: the next start, or another node, sends it.
		s.log.Warn("some webhook attempts did not end in time; they will be repeated")
		return nil
	}
	err := s.db.Close()
	s.log.Info("stopped")
	return err
}
