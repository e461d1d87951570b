package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

const (
	// metricsRest is the time between two looks at the numbers, at least.
	metricsRest = 5 * time.Second
	// scrapeWithin is how long a scrape waits for the numbers.
	scrapeWithin = 10 * time.Second
)

// newRegistry has what every program tells Prometheus: its version, Go's
// numbers and the process's.
func newRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "runbell_build_info", Help: "1, with the version.",
		ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// metrics answers Prometheus. Counting what waits in the database takes longer
// the more that is, so the numbers are gathered once for all scrapes of a while.
// While the database is away, those that do not need it are still there.
func (s *Server) metrics() http.Handler {
	numbers := newRecent(metricsRest, s.registry.Gather)
	gather := func() ([]*dto.MetricFamily, error) {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeWithin)
		defer cancel()
		return numbers.get(ctx)
	}
	scrape := promhttp.HandlerFor(prometheus.GathererFunc(gather), promhttp.HandlerOpts{
		Timeout: scrapeWithin, ErrorHandling: promhttp.ContinueOnError,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)})
	if s.cfg.MetricsToken == "" {
		return scrape
	}
	token := sha256.Sum256([]byte(s.cfg.MetricsToken))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		// Hashes have one length, so the comparison tells nothing about the token's.
		given := sha256.Sum256([]byte(strings.TrimSpace(credentials)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(given[:], token[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "Metrics need a token: send the server's RUNBELL_METRICS_TOKEN as 'Authorization: Bearer TOKEN'.",
				http.StatusUnauthorized)
			return
		}
		scrape.ServeHTTP(w, r)
	})
}
