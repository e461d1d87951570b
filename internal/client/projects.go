package client

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Project is a project with its settings.
type Project struct {
	ProjectID                string     `json:"projectId"`
	Name                     string     `json:"name"`
	CreatedAt                *time.Time `json:"createdAt"`
	InactivityTimeoutSeconds int64      `json:"inactivityTimeoutSeconds"`
	CompletionDelaySeconds   int64      `json:"completionDelaySeconds"`
	DefaultBranchName        *string    `json:"defaultBranchName"`
	FailFast                 FailFast   `json:"failFast"`
	RunDays                  int        `json:"runDays"`             // 0 is forever, as below
	ArtifactsFailedDays      int        `json:"artifactsFailedDays"` // of failed and flaky runs
	ArtifactsPassedDays      int        `json:"artifactsPassedDays"`
	OutputDays               int        `json:"outputDays"`
	RetentionDays            int        `json:"retentionDays"` // of deliveries
	ArtifactsMaxBytes        int64      `json:"artifactsMaxBytes"`
	PublicRunLinks           bool       `json:"publicRunLinks"`
	RecordKey                string     `json:"recordKey"` // only of one that was just created
}

// FailFast is after how many failed tests a run is canceled; 0 is never.
type FailFast int

// UnmarshalJSON takes a number, or false for never.
func (f *FailFast) UnmarshalJSON(b []byte) error {
	if string(b) == "false" {
		*f = 0
		return nil
	}
	return json.Unmarshal(b, (*int)(f))
}

// ProjectSettings are what may be set. Fields that are left out stay as they are.
type ProjectSettings struct {
	ProjectID                string  `json:"projectId,omitempty"` // of a new project; made from the name if empty
	Name                     *string `json:"name,omitempty"`
	InactivityTimeoutSeconds *int64  `json:"inactivityTimeoutSeconds,omitempty"`
	CompletionDelaySeconds   *int64  `json:"completionDelaySeconds,omitempty"`
	DefaultBranchName        *string `json:"defaultBranchName,omitempty"`
	FailFast                 *int    `json:"failFast,omitempty"`
	RunDays                  *int    `json:"runDays,omitempty"`
	ArtifactsFailedDays      *int    `json:"artifactsFailedDays,omitempty"`
	ArtifactsPassedDays      *int    `json:"artifactsPassedDays,omitempty"`
	OutputDays               *int    `json:"outputDays,omitempty"`
	RetentionDays            *int    `json:"retentionDays,omitempty"`
	ArtifactsMaxBytes        *int64  `json:"artifactsMaxBytes,omitempty"`
	PublicRunLinks           *bool   `json:"publicRunLinks,omitempty"`
}

// Projects lists all projects, newest first.
func (c *Client) Projects(ctx context.Context) (Result[[]Project], error) {
	return list[Project](ctx, c, "/projects", nil, 0)
}

// Project finds a project.
func (c *Client) Project(ctx context.Context, id string) (Result[Project], error) {
	return call[Project](ctx, c, http.MethodGet, "/projects"+segment(id), nil, nil)
}

// CreateProject creates a project. The result has its first record key.
func (c *Client) CreateProject(ctx context.Context, s ProjectSettings) (Result[Project], error) {
	return call[Project](ctx, c, http.MethodPost, "/projects", nil, s)
}

// UpdateProject changes the settings that are given.
func (c *Client) UpdateProject(ctx context.Context, id string, s ProjectSettings) (Result[Project], error) {
	return call[Project](ctx, c, http.MethodPut, "/projects"+segment(id), nil, s)
}

// Key is a record key or an API key. Only a new one has the key itself.
type Key struct {
	ID        string     `json:"id"`
	Label     *string    `json:"label"`
	Access    string     `json:"access"`    // of API keys: read or write
	ProjectID *string    `json:"projectId"` // of API keys: nil is all projects
	Hint      string     `json:"hint"`      // the end of the key
	RecordKey string     `json:"recordKey"`
	APIKey    string     `json:"apiKey"`
	CreatedAt *time.Time `json:"createdAt"`
	LastUsed  *time.Time `json:"lastUsedAt"`
}

// NewKey describes a key to create.
type NewKey struct {
	Label  string `json:"label,omitempty"`
	Access string `json:"access,omitempty"` // of API keys: read or write
	// ProjectID is, of API keys, the project that the key is good for; "" is all.
	ProjectID string `json:"projectId,omitempty"`
}

// Deleted names what was deleted.
type Deleted struct {
	ID string `json:"id"`
}

// RecordKeys lists the record keys of a project.
func (c *Client) RecordKeys(ctx context.Context, projectID string) (Result[[]Key], error) {
	return call[[]Key](ctx, c, http.MethodGet, "/projects"+segment(projectID)+"/record-keys", nil, nil)
}

// CreateRecordKey creates a record key of a project.
func (c *Client) CreateRecordKey(ctx context.Context, projectID string, k NewKey) (Result[Key], error) {
	return call[Key](ctx, c, http.MethodPost, "/projects"+segment(projectID)+"/record-keys", nil, k)
}

// DeleteRecordKey revokes a record key.
func (c *Client) DeleteRecordKey(ctx context.Context, id string) (Result[Deleted], error) {
	return call[Deleted](ctx, c, http.MethodDelete, "/record-keys"+segment(id), nil, nil)
}

// APIKeys lists the API keys.
func (c *Client) APIKeys(ctx context.Context) (Result[[]Key], error) {
	return call[[]Key](ctx, c, http.MethodGet, "/api-keys", nil, nil)
}

// CreateAPIKey creates an API key.
func (c *Client) CreateAPIKey(ctx context.Context, k NewKey) (Result[Key], error) {
	return call[Key](ctx, c, http.MethodPost, "/api-keys", nil, k)
}

// DeleteAPIKey revokes an API key.
func (c *Client) DeleteAPIKey(ctx context.Context, id string) (Result[Deleted], error) {
	return call[Deleted](ctx, c, http.MethodDelete, "/api-keys"+segment(id), nil, nil)
}

// User is a person who may sign in to the dashboard.
type User struct {
	UserID     string     `json:"userId"`
	Email      string     `json:"email"`
	Name       string     `json:"name"`
	Role       string     `json:"role"` // admin, member or viewer
	CreatedAt  *time.Time `json:"createdAt"`
	LastSeenAt *time.Time `json:"lastSeenAt"`
}

// UserSettings are what may be changed.
type UserSettings struct {
	Name *string `json:"name,omitempty"`
	Role *string `json:"role,omitempty"`
}

// Invitation is a link with which a person sets a password, once.
type Invitation struct {
	Email     string     `json:"email"`
	Role      string     `json:"role"`
	InviteURL string     `json:"inviteUrl"`
	ExpiresAt *time.Time `json:"expiresAt"`
}

// Users lists the people, oldest first.
func (c *Client) Users(ctx context.Context) (Result[[]User], error) {
	return call[[]User](ctx, c, http.MethodGet, "/users", nil, nil)
}

// Invite makes the link with which a person sets a password. Somebody who has an
// account keeps the role.
func (c *Client) Invite(ctx context.Context, email, role string) (Result[Invitation], error) {
	return call[Invitation](ctx, c, http.MethodPost, "/users", nil, map[string]string{"email": email, "role": role})
}

// UpdateUser changes what is given.
func (c *Client) UpdateUser(ctx context.Context, id string, s UserSettings) (Result[User], error) {
	return call[User](ctx, c, http.MethodPut, "/users"+segment(id), nil, s)
}

// DeleteUser removes a person, who is signed out at once.
func (c *Client) DeleteUser(ctx context.Context, id string) (Result[Deleted], error) {
	return call[Deleted](ctx, c, http.MethodDelete, "/users"+segment(id), nil, nil)
}
