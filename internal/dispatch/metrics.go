package dispatch

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/store"
	"runbell/internal/webhook"
)

// metrics are the metrics of an engine. Every label has a fixed set of values:
// endpoints are counted by health, not named.
type metrics struct {
	attempts *prometheus.CounterVec
	duration prometheus.Histogram
	lag      prometheus.Histogram
	disabled prometheus.Counter
}

func newMetrics(e *Engine) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "runbell_webhook_attempts_total",
			Help: "Attempts by outcome: ok, status, dns, refused, reset, tls, timeout, blocked address, …"},
			[]string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "runbell_webhook_attempt_duration_seconds",
			Help:    "Duration of an attempt, from dial to the end of the response.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "runbell_webhook_first_attempt_lag_seconds",
			Help:    "Time from the commit of an event to the beginning of its first attempt.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 300}}),
		disabled: prometheus.NewCounter(prometheus.CounterOpts{Name: "runbell_webhook_endpoints_disabled_total",
			Help: "Endpoints that the server disabled: they responded with 410, or all attempts failed."}),
	}
	e.Metrics.MustRegister(m.attempts, m.duration, m.lag, m.disabled, queue{e.DB},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "runbell_webhook_requests_in_flight",
			Help: "Requests of this process that wait for the response of an endpoint."},
			func() float64 { return float64(e.inFlight.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "runbell_webhook_lanes",
			Help: "Endpoints that this process is sending to."},
			func() float64 { e.mu.Lock(); defer e.mu.Unlock(); return float64(len(e.byID)) }))
	return m
}

func (m *metrics) observe(d webhook.Delivery, a webhook.Attempt) {
	m.attempts.WithLabelValues(string(a.Class)).Inc()
	m.duration.Observe(a.Duration.Seconds())
	if a.Number == 1 {
		m.lag.Observe(a.StartedAt.Sub(d.CreatedAt).Seconds())
	}
}

// queue counts the pending deliveries in the database, of all processes.
type queue struct{ db *store.DB }

var (
	queueDepth = prometheus.NewDesc("runbell_webhook_deliveries",
		"Deliveries that wait: due now, scheduled for a retry, parked behind an earlier event or until the facts of their "+
			"event are complete, or held at a "+
			"disabled endpoint.", []string{"state"}, nil)
	queueAge = prometheus.NewDesc("runbell_webhook_oldest_due_seconds",
		"How long the oldest due delivery has been due; 0 if none is.", nil, nil)
	endpoints = prometheus.NewDesc("runbell_webhook_endpoints", "Endpoints by their health.", []string{"health"}, nil)
)

// Describe implements prometheus.Collector.
func (q queue) Describe(ch chan<- *prometheus.Desc) {
	ch <- queueDepth
	ch <- queueAge
	ch <- endpoints
}

// Collect implements prometheus.Collector.
func (q queue) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var depth store.Backlog
	var states map[webhook.HealthState]int64
	err := q.db.Read(ctx, func(tx *store.Tx) (err error) {
		if depth, err = tx.Backlog(ctx); err != nil {
			return err
		}
		states, err = tx.EndpointStates(ctx)
		return err
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(queueDepth, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(queueDepth, float64(depth.Due), "due")
	gauge(queueDepth, float64(depth.Scheduled), "scheduled")
	gauge(queueDepth, float64(depth.Parked), "parked")
	gauge(queueDepth, float64(depth.Held), "held")
	age := 0.0
	if !depth.OldestDue.IsZero() {
		age = max(0, q.db.Now().Sub(depth.OldestDue).Seconds())
	}
	gauge(queueAge, age)
	for state, n := range states {
		gauge(endpoints, float64(n), string(state))
	}
}
