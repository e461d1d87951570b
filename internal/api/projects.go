package api

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

type project struct {
	ProjectID                string    `json:"projectId"`
	Name                     string    `json:"name"`
	CreatedAt                timestamp `json:"createdAt"`
	FailFast                 failFast  `json:"failFast"`
	InactivityTimeoutSeconds int       `json:"inactivityTimeoutSeconds" doc:"Time a group out after this many seconds without a report."`
	CompletionDelaySeconds   int       `json:"completionDelaySeconds" doc:"How many seconds a run with named groups stays open for another group."`
	DefaultBranchName        *string   `json:"defaultBranchName"`
	RunDays                  int       `json:"runDays" doc:"Days to keep runs after they ended; 0 keeps them forever."`
	ArtifactsFailedDays      int       `json:"artifactsFailedDays" doc:"Days to keep the artifacts of failed and flaky runs; 0 keeps them as long as the run."`
	ArtifactsPassedDays      int       `json:"artifactsPassedDays" doc:"Days to keep the artifacts of other runs; 0 keeps them as long as the run."`
	OutputDays               int       `json:"outputDays" doc:"Days to keep console output; 0 keeps it as long as the run."`
	RetentionDays            int       `json:"retentionDays" doc:"Days to keep deliveries of webhooks."`
	ArtifactsMaxBytes        int64     `json:"artifactsMaxBytes" doc:"Maximum size of all artifacts; those of the oldest runs are removed first. 0 is no limit."`
	PublicRunLinks           bool      `json:"publicRunLinks" doc:"Whether anyone with a run's link can view it."`
	Cursor                   string    `json:"cursor,omitempty" doc:"In lists: for starting_after and ending_before."`
}

func showProject(p run.Project) project {
	return project{
		ProjectID:                p.ID,
		Name:                     p.Name,
		CreatedAt:                timestamp(p.CreatedAt),
		FailFast:                 failFast(p.FailFast),
		InactivityTimeoutSeconds: int(p.InactivityTimeout / time.Second),
		CompletionDelaySeconds:   int(p.CompletionDelay / time.Second),
		DefaultBranchName:        text(p.DefaultBranch),
		RunDays:                  p.Keep.Runs,
		ArtifactsFailedDays:      p.Keep.FailedArtifacts,
		ArtifactsPassedDays:      p.Keep.PassedArtifacts,
		OutputDays:               p.Keep.Output,
		RetentionDays:            p.Keep.Deliveries,
		ArtifactsMaxBytes:        p.Keep.ArtifactBytes,
		PublicRunLinks:           p.PublicRuns,
	}
}

// failFast is the number of failed or skipped tests that cancels a run. Currents
// has a boolean here: false is never, true is the first one. Never is written
// as false, so that a client that asks only whether it is on is answered.
type failFast int

// MarshalJSON writes false or the number.
func (f failFast) MarshalJSON() ([]byte, error) {
	if f == 0 {
		return []byte("false"), nil
	}
	return strconv.AppendInt(nil, int64(f), 10), nil
}

// UnmarshalJSON takes a boolean or a number.
func (f *failFast) UnmarshalJSON(b []byte) error {
	switch {
	case bytes.Equal(b, []byte("true")):
		*f = 1
	case bytes.Equal(b, []byte("false")):
		*f = 0
	default:
		var n int
		if err := json.Unmarshal(b, &n); err != nil {
			return err
		}
		*f = failFast(n)
	}
	return nil
}

// projectSettings are what may be set; absent ones stay as they are.
type projectSettings struct {
	Name                     *string            `json:"name" doc:"1 to 255 characters."`
	InactivityTimeoutSeconds *int               `json:"inactivityTimeoutSeconds" doc:"1 to 43200. Default: 1800."`
	CompletionDelaySeconds   *int               `json:"completionDelaySeconds" doc:"0 to 900. Default: 60."`
	DefaultBranchName        nullable[string]   `json:"defaultBranchName"`
	FailFast                 nullable[failFast] `json:"failFast" doc:"Cancel a run after this many failures. true is 1; false, 0 and null are off."`
	RunDays                  *int               `json:"runDays" doc:"0 to 3650; 0 is forever. Default: 180."`
	ArtifactsFailedDays      *int               `json:"artifactsFailedDays" doc:"0 to 3650; 0 is as long as the run. Default: 30."`
	ArtifactsPassedDays      *int               `json:"artifactsPassedDays" doc:"0 to 3650; 0 is as long as the run. Default: 7."`
	OutputDays               *int               `json:"outputDays" doc:"0 to 3650; 0 is as long as the run. Default: 30."`
	RetentionDays            *int               `json:"retentionDays" doc:"1 to 3650. Default: 30."`
	ArtifactsMaxBytes        *int64             `json:"artifactsMaxBytes" doc:"0 is no limit, the default."`
	PublicRunLinks           *bool              `json:"publicRunLinks" doc:"Anyone with a run's link can view it. Default: false."`
}

// apply changes p. What is wrong with it is for the verb to say.
func (s projectSettings) apply(p *run.Project) {
	if s.Name != nil {
		p.Name = strings.TrimSpace(*s.Name)
	}
	setSeconds(&p.InactivityTimeout, s.InactivityTimeoutSeconds)
	setSeconds(&p.CompletionDelay, s.CompletionDelaySeconds)
	if s.DefaultBranchName.given {
		p.DefaultBranch = s.DefaultBranchName.or("")
	}
	if s.FailFast.given {
		p.FailFast = int(s.FailFast.or(0))
	}
	set(&p.Keep.Runs, s.RunDays)
	set(&p.Keep.FailedArtifacts, s.ArtifactsFailedDays)
	set(&p.Keep.PassedArtifacts, s.ArtifactsPassedDays)
	set(&p.Keep.Output, s.OutputDays)
	set(&p.Keep.Deliveries, s.RetentionDays)
	set(&p.Keep.ArtifactBytes, s.ArtifactsMaxBytes)
	set(&p.PublicRuns, s.PublicRunLinks)
}

// set sets a value, if it is given.
func set[T any](value, given *T) {
	if given != nil {
		*value = *given
	}
}

// setSeconds sets a duration, if it is given. A number that no duration holds
// becomes the nearest one, which is out of every range.
func setSeconds(d *time.Duration, given *int) {
	if given != nil {
		*d = time.Duration(min(max(int64(*given), math.MinInt64/int64(time.Second)),
			math.MaxInt64/int64(time.Second))) * time.Second
	}
}

func (a *api) listProjects(r *request) ([]project, bool, error) {
	page, err := r.page()
	if err != nil {
		return nil, false, err
	}
	var out []project
	var more bool
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		list, m, err := r.visible(tx, page)
		for _, p := range list {
			shown := showProject(p)
			shown.Cursor = cursorOf(p.CreatedAt, p.ID)
			out = append(out, shown)
		}
		more = m
		return err
	})
	return out, more, err
}

// visible lists the projects that the key of a request is good for.
func (r *request) visible(tx *store.Tx, page store.Page) ([]run.Project, bool, error) {
	if r.by.ProjectID == "" {
		return tx.Projects(r.Context(), page)
	}
	if page.After != nil || page.Before != nil { // there is one
		return nil, false, nil
	}
	p, err := tx.Project(r.Context(), r.by.ProjectID)
	return []run.Project{p}, false, err
}

func (a *api) project(r *request) (project, error) {
	var out project
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		p, err := tx.Project(r.Context(), r.id())
		out = showProject(p)
		return err
	})
	return out, err
}

type newProject struct {
	projectSettings
	ProjectID *string `json:"projectId" doc:"1 to 100 characters, such as my-shop or owner/my-shop; derived from the name by default."`
}

type createdProject struct {
	project
	RecordKey string `json:"recordKey" doc:"The first record key. It is shown only in this response."`
}

func (a *api) createProject(r *request, b newProject) (createdProject, error) {
	if b.Name == nil && b.ProjectID == nil {
		return createdProject{}, run.Errorf(run.Invalid, "name or projectId is required.")
	}
	p := run.NewProject("")
	if b.ProjectID != nil {
		if err := run.CheckProjectID(*b.ProjectID); err != nil {
			return createdProject{}, err
		}
		p.ID, p.Name = *b.ProjectID, *b.ProjectID
	}
	b.apply(&p)
	p, key, err := a.projects.Create(r.Context(), p)
	return createdProject{showProject(p), key}, err
}

func (a *api) updateProject(r *request, b projectSettings) (project, error) {
	p, err := a.projects.Change(r.Context(), r.id(), func(p *run.Project) error {
		b.apply(p)
		return nil
	})
	return showProject(p), err
}

func (a *api) deleteProject(r *request) (deleted, error) {
	return deleted{r.id()}, a.projects.Delete(r.Context(), r.id())
}
