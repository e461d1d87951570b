package client

import (
	"context"
	"net/http"
	"time"
)

// Pin says who keeps a run from retention, and since when.
type Pin struct {
	Actor    string     `json:"actor"`
	PinnedAt *time.Time `json:"pinnedAt"`
}

// Pinned is a run that was pinned or unpinned.
type Pinned struct {
	RunID string `json:"runId"`
	Pin   *Pin   `json:"pin"`
}

// PinRun keeps a run from retention.
func (c *Client) PinRun(ctx context.Context, id string) (Result[Pinned], error) {
	return call[Pinned](ctx, c, http.MethodPut, "/runs"+segment(id)+"/pin", nil, nil)
}

// UnpinRun ends what PinRun began.
func (c *Client) UnpinRun(ctx context.Context, id string) (Result[Pinned], error) {
	return call[Pinned](ctx, c, http.MethodPut, "/runs"+segment(id)+"/unpin", nil, nil)
}

// DeletedRun names a run that was deleted.
type DeletedRun struct {
	RunID string `json:"runId"`
}

// DeleteRun deletes a run that has ended and is not pinned.
func (c *Client) DeleteRun(ctx context.Context, id string) (Result[DeletedRun], error) {
	return call[DeletedRun](ctx, c, http.MethodDelete, "/runs"+segment(id), nil, nil)
}

// Removed is what retention removes of a project.
type Removed struct {
	ProjectID      string `json:"projectId"`
	Runs           int    `json:"runs"`
	Artifacts      int    `json:"artifacts"`
	ArtifactBytes  int64  `json:"artifactBytes"`
	ConsoleOutputs int    `json:"consoleOutputs"`
	Deliveries     int    `json:"deliveries"`
}

// Removal is what retention removed last.
type Removal struct {
	At *time.Time `json:"at"`
	Removed
}

// Usage is what is kept of a project.
type Usage struct {
	Runs          int        `json:"runs"`
	PinnedRuns    int        `json:"pinnedRuns"`
	OldestRunAt   *time.Time `json:"oldestRunAt"`
	Artifacts     int        `json:"artifacts"`
	ArtifactBytes int64      `json:"artifactBytes"`
	LastRemoval   *Removal   `json:"lastRemoval"`
}

// Usage says what is kept of a project.
func (c *Client) Usage(ctx context.Context, projectID string) (Result[Usage], error) {
	return call[Usage](ctx, c, http.MethodGet, "/projects"+segment(projectID)+"/usage", nil, nil)
}

// GC is what is past its retention.
type GC struct {
	DryRun      bool      `json:"dryRun"`
	Projects    []Removed `json:"projects"`
	Files       int       `json:"files"`
	Sessions    int       `json:"sessions"`
	Invitations int       `json:"invitations"`
	More        bool      `json:"more"` // the server had not enough time: repeat the call
}

// GC removes what is past its retention, or says what that is.
func (c *Client) GC(ctx context.Context, dryRun bool) (Result[GC], error) {
	return call[GC](ctx, c, http.MethodPost, "/gc", nil, map[string]bool{"dryRun": dryRun})
}
