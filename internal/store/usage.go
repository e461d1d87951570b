package store

import (
	"context"
	"time"

	"runbell/internal/database"
)

// Usage is the amount of data that a project has.
type Usage struct {
	Runs          int
	Pinned        int       // of Runs
	OldestRun     time.Time // when the oldest run began; zero if there is none
	Artifacts     int
	ArtifactBytes int64
}

// Usage counts the data of a project. It takes time in proportion to the number of runs,
// not to the size of their data.
func (tx *Tx) Usage(ctx context.Context, projectID string) (Usage, error) {
	var u Usage
	var oldest database.NullInt64
	err := tx.QueryRow(ctx, `SELECT COUNT(*), MIN(created_at) FROM run WHERE project_id = $1`, projectID).Scan(&u.Runs,
		&oldest)
	if err != nil {
		return u, err
	}
	u.OldestRun = timeOrZero(oldest)
	if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM run WHERE project_id = $1 AND pinned_at IS NOT NULL`,
		projectID).Scan(&u.Pinned); err != nil {
		return u, err
	}
	err = tx.QueryRow(ctx, `SELECT CAST(COALESCE(SUM(artifacts), 0) AS BIGINT),
		CAST(COALESCE(SUM(artifact_bytes), 0) AS BIGINT)
		FROM run WHERE project_id = $1 AND artifacts > 0`, projectID).Scan(&u.Artifacts, &u.ArtifactBytes)
	return u, err
}

// ProjectUsage is the usage of one project among all.
type ProjectUsage struct {
	ProjectID     string
	Runs          int
	Artifacts     int
	ArtifactBytes int64
}

// Usages counts the data of every project that has runs.
func (tx *Tx) Usages(ctx context.Context) ([]ProjectUsage, error) {
	rows, err := tx.Query(ctx, `SELECT project_id, COUNT(*) FROM run GROUP BY project_id ORDER BY project_id`)
	list, err := database.All(rows, err, func(r database.Row) (ProjectUsage, error) {
		var u ProjectUsage
		return u, r.Scan(&u.ProjectID, &u.Runs)
	})
	if err != nil {
		return nil, err
	}
	held := map[string]ProjectUsage{}
	rows, err = tx.Query(ctx, `SELECT project_id, CAST(SUM(artifacts) AS BIGINT), CAST(SUM(artifact_bytes) AS BIGINT)
		FROM run WHERE artifacts > 0 GROUP BY project_id`)
	if _, err := database.All(rows, err, func(r database.Row) (string, error) {
		var u ProjectUsage
		err := r.Scan(&u.ProjectID, &u.Artifacts, &u.ArtifactBytes)
		held[u.ProjectID] = u
		return u.ProjectID, err
	}); err != nil {
		return nil, err
	}
	for n, u := range list {
		list[n].Artifacts, list[n].ArtifactBytes = held[u.ProjectID].Artifacts, held[u.ProjectID].ArtifactBytes
	}
	return list, nil
}
