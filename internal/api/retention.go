package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
)

type pin struct {
	Actor    string    `json:"actor"`
	PinnedAt timestamp `json:"pinnedAt"`
}

func showPin(v run.Run) *pin {
	if v.PinnedAt.IsZero() {
		return nil
	}
	return &pin{v.PinnedBy, timestamp(v.PinnedAt)}
}

type pinnedRun struct {
	RunID string `json:"runId"`
	Pin   *pin   `json:"pin"`
}

func (a *api) pinRun(r *request) (pinnedRun, error) {
	v, err := a.Runs.Pin(r.Context(), r.id(), "api")
	return pinnedRun{v.ID, showPin(v)}, err
}

func (a *api) unpinRun(r *request) (pinnedRun, error) {
	v, err := a.Runs.Unpin(r.Context(), r.id())
	return pinnedRun{v.ID, showPin(v)}, err
}

type deletedRun struct {
	RunID string `json:"runId"`
}

func (a *api) deleteRun(r *request) (deletedRun, error) {
	return deletedRun{r.id()}, a.Sweeper.DeleteRun(r.Context(), r.id())
}

type projectUsage struct {
	ProjectID     string     `json:"projectId"`
	Runs          int        `json:"runs"`
	PinnedRuns    int        `json:"pinnedRuns"`
	OldestRunAt   *timestamp `json:"oldestRunAt"`
	Artifacts     int        `json:"artifacts" doc:"Stored screenshots, videos and coverage."`
	ArtifactBytes int64      `json:"artifactBytes"`
	LastRemoval   *removal   `json:"lastRemoval" doc:"What the last removal removed; null if nothing was removed yet."`
}

type removal struct {
	At timestamp `json:"at"`
	removed
}

type removed struct {
	Runs           int   `json:"runs"`
	Artifacts      int   `json:"artifacts"`
	ArtifactBytes  int64 `json:"artifactBytes"`
	ConsoleOutputs int   `json:"consoleOutputs" doc:"Runs whose console output was removed."`
	Deliveries     int   `json:"deliveries"`
}

func showRemoved(n store.Removed) removed {
	return removed{n.Runs, n.Artifacts, n.ArtifactBytes, n.Outputs, n.Deliveries}
}

func (a *api) projectUsage(r *request) (projectUsage, error) {
	var out projectUsage
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), r.id()); err != nil {
			return err
		}
		u, err := tx.Usage(r.Context(), r.id())
		if err != nil {
			return err
		}
		out = projectUsage{ProjectID: r.id(), Runs: u.Runs, PinnedRuns: u.Pinned, OldestRunAt: known(u.OldestRun),
			Artifacts: u.Artifacts, ArtifactBytes: u.ArtifactBytes}
		last, err := tx.LastSweep(r.Context(), r.id())
		if err == nil && !last.At.IsZero() {
			out.LastRemoval = &removal{timestamp(last.At), showRemoved(last.Removed)}
		}
		return err
	})
	return out, err
}

type gcRequest struct {
	DryRun *bool `json:"dryRun" doc:"Return what would be removed, without removing it."`
}

type gcReport struct {
	DryRun      bool               `json:"dryRun"`
	Projects    []removedOfProject `json:"projects" doc:"Projects with removed data."`
	Files       int                `json:"files" doc:"Removed files of artifacts, including those of deleted projects and failed uploads."`
	Sessions    int                `json:"sessions"`
	Invitations int                `json:"invitations"`
	More        bool               `json:"more" doc:"Not everything was removed yet: repeat the request."`
}

type removedOfProject struct {
	ProjectID string `json:"projectId"`
	removed
}

const (
	// gcWithin is how long one request removes: less than clients and proxies wait.
	gcWithin = 50 * time.Second
	// gcRetry is the time between two tries while another sweep is under way.
	gcRetry = time.Second
)

func (a *api) gc(r *request, b gcRequest) (gcReport, error) {
	dry := b.DryRun != nil && *b.DryRun
	sweep := a.sweep
	if dry {
		sweep = a.Sweeper.Plan
	}
	report, err := sweep(r.Context())
	out := gcReport{DryRun: dry, Projects: []removedOfProject{}, Files: report.Files, Sessions: report.Sessions,
		Invitations: report.Invitations, More: report.More}
	for id, n := range report.Projects {
		out.Projects = append(out.Projects, removedOfProject{id, showRemoved(n)})
	}
	slices.SortFunc(out.Projects, func(a, b removedOfProject) int { return cmp.Compare(a.ProjectID, b.ProjectID) })
	return out, err
}

// sweep waits for its turn, and sweeps.
func (a *api) sweep(ctx context.Context) (retention.Report, error) {
	within, cancel := context.WithTimeout(ctx, gcWithin)
	defer cancel()
	for {
		report, ran, err := a.Sweeper.Sweep(within)
		if ran || err != nil {
			return report, err
		}
		select {
		case <-time.After(gcRetry):
		case <-within.Done():
			return report, errors.Join(ctx.Err(), run.Errorf(run.Conflict,
				"The server is already removing old data: try again later."))
		}
	}
}
