package retention

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/store"
)

// usage counts the stored runs and artifacts, for all processes.
type usage struct{ db *store.DB }

// mostProjects limits the series: the projects that use least are counted together.
const mostProjects = 100

// otherProjects is the name for the rest. No project has this id.
const otherProjects = ""

var (
	keptRuns = prometheus.NewDesc("runbell_project_runs",
		"Stored runs. The project without a name is all projects but the 100 that use most.", []string{"project"}, nil)
	keptArtifacts = prometheus.NewDesc("runbell_project_artifacts", "Stored artifacts.", []string{"project"}, nil)
	keptBytes     = prometheus.NewDesc("runbell_project_artifact_bytes", "Bytes of the stored artifacts.",
		[]string{"project"}, nil)
)

// Describe implements prometheus.Collector.
func (u usage) Describe(ch chan<- *prometheus.Desc) {
	ch <- keptRuns
	ch <- keptArtifacts
	ch <- keptBytes
}

// Collect implements prometheus.Collector.
func (u usage) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var list []store.ProjectUsage
	err := u.db.Read(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.Usages(ctx)
		return err
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(keptRuns, err)
		return
	}
	for _, p := range most(list) {
		ch <- prometheus.MustNewConstMetric(keptRuns, prometheus.GaugeValue, float64(p.Runs), p.ProjectID)
		ch <- prometheus.MustNewConstMetric(keptArtifacts, prometheus.GaugeValue, float64(p.Artifacts), p.ProjectID)
		ch <- prometheus.MustNewConstMetric(keptBytes, prometheus.GaugeValue, float64(p.ArtifactBytes), p.ProjectID)
	}
}

// most keeps the projects that use most, and adds up the others.
func most(list []store.ProjectUsage) []store.ProjectUsage {
	if len(list) <= mostProjects {
		return list
	}
	slices.SortStableFunc(list, func(a, b store.ProjectUsage) int {
		return cmp.Or(cmp.Compare(b.ArtifactBytes, a.ArtifactBytes), cmp.Compare(b.Runs, a.Runs))
	})
	others := store.ProjectUsage{ProjectID: otherProjects}
	for _, p := range list[mostProjects:] {
		others.Runs, others.Artifacts, others.ArtifactBytes = others.Runs+p.Runs, others.Artifacts+p.Artifacts,
			others.ArtifactBytes+p.ArtifactBytes
	}
	return append(list[:mostProjects], others)
}
