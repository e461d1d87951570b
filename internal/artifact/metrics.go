package artifact

import "github.com/prometheus/client_golang/prometheus"

// The outcomes of an upload: the label of the metric.
const (
	stored  = "stored"
	refused = "refused" // the upload differs from what was agreed
	cut     = "cut"     // it was incomplete
	failed  = "failed"  // it could not be stored
)

type metrics struct {
	uploads  *prometheus.CounterVec
	bytes    prometheus.Counter
	running  prometheus.Gauge
	deleted  prometheus.Counter
	shrunken prometheus.Counter
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		uploads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "runbell_artifact_uploads_total",
			Help: "Uploads of screenshots, videos and coverage, by outcome."}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "runbell_artifact_stored_bytes_total",
			Help: "Bytes of uploads that were stored."}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{Name: "runbell_artifact_uploads_running",
			Help: "Uploads that are being received."}),
		deleted: prometheus.NewCounter(prometheus.CounterOpts{Name: "runbell_artifact_deleted_total",
			Help: "Files that were deleted from the store."}),
		shrunken: prometheus.NewCounter(prometheus.CounterOpts{Name: "runbell_artifact_deleted_bytes_total",
			Help: "Bytes of files that were deleted from the store."}),
	}
	for _, result := range []string{stored, refused, cut, failed} {
		m.uploads.WithLabelValues(result) // 0 until there is one
	}
	r.MustRegister(m.uploads, m.bytes, m.running, m.deleted, m.shrunken)
	return m
}
