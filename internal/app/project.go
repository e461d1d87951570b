package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

type projectCmd struct {
	remote

	Create projectCreateCmd `cmd:"" help:"Create a project; prints its record key, once."`
	List   projectListCmd   `cmd:"" help:"List all projects."`
	Show   projectShowCmd   `cmd:"" help:"Show a project."`
	Update projectUpdateCmd `cmd:"" help:"Change a project."`
}

// projectSettings are the flags of create and update; nil leaves a setting as
// it is.
type projectSettings struct {
	InactivityTimeout *time.Duration `help:"A run is timed out when nothing was heard for this long (1s to 12h; 30m unless set)." placeholder:"30m"`
	CompletionDelay   *time.Duration `help:"How long a run with named groups waits for a late group before it is finished (0s to 15m; 60s unless set)." placeholder:"60s"`
	DefaultBranch     *string        `help:"In webhooks of runs that do not say which branch is the default." placeholder:"main"`
	FailFast          *int           `help:"Cancel a run after this many failed tests; 0 never does." placeholder:"N"`
	PublicRunLinks    *bool          `help:"Open the pages of runs to whoever has a run's link." negatable:""`
}

func (p projectSettings) body() (map[string]any, error) {
	body := map[string]any{}
	if p.InactivityTimeout != nil {
		n, err := wholeSeconds("--inactivity-timeout", *p.InactivityTimeout)
		if err != nil {
			return nil, err
		}
		body["inactivityTimeoutSeconds"] = n
	}
	if p.CompletionDelay != nil {
		n, err := wholeSeconds("--completion-delay", *p.CompletionDelay)
		if err != nil {
			return nil, err
		}
		body["completionDelaySeconds"] = n
	}
	if p.DefaultBranch != nil {
		body["defaultBranchName"] = *p.DefaultBranch
	}
	if p.FailFast != nil {
		body["failFast"] = *p.FailFast
	}
	if p.PublicRunLinks != nil {
		body["publicRunLinks"] = *p.PublicRunLinks
	}
	return body, nil
}

// project is what the commands print of a project of the API.
type project struct {
	ProjectID         string     `json:"projectId"`
	Name              string     `json:"name"`
	CreatedAt         *time.Time `json:"createdAt"`
	InactivityTimeout int64      `json:"inactivityTimeoutSeconds"`
	CompletionDelay   int64      `json:"completionDelaySeconds"`
	DefaultBranch     *string    `json:"defaultBranchName"`
	FailFast          any        `json:"failFast"` // a number, or false
	PublicRunLinks    bool       `json:"publicRunLinks"`
	RecordKey         string     `json:"recordKey"`
}

func (p project) failFast() string {
	if n, ok := p.FailFast.(float64); ok && n > 0 {
		return strconv.Itoa(int(n))
	}
	return "off"
}

func (p project) print(w io.Writer) error {
	return fields(w, "Project", p.ProjectID, "Name", p.Name, "Created", when(p.CreatedAt),
		"Inactivity timeout", seconds(p.InactivityTimeout), "Completion delay", seconds(p.CompletionDelay),
		"Default branch", orEmpty(p.DefaultBranch), "Fail fast", p.failFast(),
		"Public run links", map[bool]string{true: "on", false: "off"}[p.PublicRunLinks])
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

type projectCreateCmd struct {
	Name string `arg:"" help:"What people call it."`
	ID   string `name:"id" help:"What reporters call it: the projectId in the Cypress configuration. Made from the name unless given." placeholder:"ID"`
	projectSettings
}

func (projectCreateCmd) Help() string {
	return `Examples:

    runbell project create "My shop" --id my-shop
    runbell project create Nightly --inactivity-timeout 2h --fail-fast 5`
}

// Run creates a project and says how to record its first run.
func (c *projectCreateCmd) Run(ctx context.Context, s *session) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	body["name"] = c.Name
	if c.ID != "" {
		body["projectId"] = c.ID
	}
	a, err := s.do(ctx, http.MethodPost, "/projects", nil, body)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var p project
		if err := a.into(&p); err != nil {
			return err
		}
		if err := fields(w, "Project", p.ProjectID, "Record key", p.RecordKey); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, `
The record key is not shown again; 'runbell key create --project %[1]s' makes another one.

To record, in the directory of a project with Cypress 10 or newer:

    RUNBELL_RECORD_KEY=%[2]s runbell cypress run --url %[3]s --project %[1]s

To be told about runs:

    runbell webhook create --project %[1]s https://example.com/hooks/cypress
`, p.ProjectID, p.RecordKey, s.name)
		return err
	})
}

type projectListCmd struct{}

func (projectListCmd) Help() string {
	return `Examples:

    runbell project list
    runbell project list --json | jq -r '.[].projectId'`
}

// Run lists projects.
func (projectListCmd) Run(ctx context.Context, s *session) error {
	data, err := s.list(ctx, "/projects", nil, 0)
	if err != nil {
		return err
	}
	return s.show(data, func(w io.Writer) error {
		var list []project
		if err := (answer{Data: data}).into(&list); err != nil {
			return err
		}
		var rows [][]string
		for _, p := range list {
			rows = append(rows, []string{p.ProjectID, p.Name, seconds(p.InactivityTimeout), p.failFast(), when(p.CreatedAt)})
		}
		return table(w, "No projects yet: create one with 'runbell project create NAME'.",
			[]string{"PROJECT", "NAME", "TIMEOUT", "FAIL FAST", "CREATED"}, rows)
	})
}

type projectShowCmd struct {
	ID string `arg:"" help:"The projectId."`
}

func (projectShowCmd) Help() string {
	return `Examples:

    runbell project show my-shop`
}

// Run shows a project.
func (c *projectShowCmd) Run(ctx context.Context, s *session) error {
	return s.showProject(ctx, http.MethodGet, c.ID, nil)
}

type projectUpdateCmd struct {
	ID   string  `arg:"" help:"The projectId."`
	Name *string `help:"What people call it." placeholder:"NAME"`
	projectSettings
}

func (projectUpdateCmd) Help() string {
	return `Timeouts hold for groups that start from now on.

Examples:

    runbell project update my-shop --inactivity-timeout 1h
    runbell project update my-shop --fail-fast 0`
}

// Run changes what was given.
func (c *projectUpdateCmd) Run(ctx context.Context, s *session) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	if c.Name != nil {
		body["name"] = *c.Name
	}
	if len(body) == 0 {
		return usagef("there is nothing to change: give at least one setting")
	}
	return s.showProject(ctx, http.MethodPut, c.ID, body)
}

// showProject sends a request about one project and shows the answer.
func (s *session) showProject(ctx context.Context, method, id string, body any) error {
	a, err := s.do(ctx, method, "/projects/"+url.PathEscape(id), nil, body)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var p project
		if err := a.into(&p); err != nil {
			return err
		}
		return p.print(w)
	})
}
