package api

import (
	"slices"
	"strings"

	"runbell/internal/run"
	"runbell/internal/store"
)

// byHandler are the routes whose handlers check keys of one project themselves:
// the project is in the body, or there can be any.
var byHandler = []string{"GET /v1/projects", "GET /v1/context", "POST /v1/signature/test",
	"PUT /v1/runs/cancel-ci/github"}

// noun is what a route is about.
func (rt route) noun() string { return strings.Split(rt.path, "/")[2] }

// ofProject says how the project is found that a route is about: by an id in the path, by
// the parameter projectId, or by the handler. The others are about the whole server.
func (rt route) ofProject() (byID, byParameter, handled bool) {
	_, known := owners[rt.noun()]
	byID = known && strings.Contains(rt.path, "{id}")
	byParameter = slices.ContainsFunc(rt.query, func(p param) bool { return p.name == inProject.name })
	return byID, byParameter, slices.Contains(byHandler, rt.method+" "+rt.path)
}

// within refuses what a key of one project must not see or do. Things of
// other projects are not there for it.
func (a *api) within(r *request, rt route) error {
	if r.by.ProjectID == "" {
		return nil
	}
	byID, byParameter, handled := rt.ofProject()
	switch {
	case handled:
		return nil
	case byParameter:
		return r.sees(r.query.Get(inProject.name))
	case !byID:
		return run.Errorf(run.Forbidden, "This API key can only be used for project %q, but this call is about the whole "+
			"server.", run.Clip(r.by.ProjectID, 60))
	}
	return a.DB.Read(r.Context(), func(tx *store.Tx) error {
		owner, err := owners[rt.noun()](tx, r)
		if err == nil && !r.by.Sees(owner) {
			err = run.Missing(strings.TrimSuffix(rt.noun(), "s"), r.id())
		}
		return err
	})
}

// owners find the project of what the id in a path names, by the noun in the path.
var owners = map[string]func(*store.Tx, *request) (string, error){
	"projects":   projectItself,
	"spec-files": projectItself,
	"tests":      projectItself,
	"errors":     projectItself,
	"runs": func(tx *store.Tx, r *request) (string, error) {
		v, err := tx.Run(r.Context(), r.id())
		return v.ProjectID, err
	},
	"instances": func(tx *store.Tx, r *request) (string, error) {
		i, err := tx.Instance(r.Context(), r.id())
		if err != nil {
			return "", err
		}
		v, err := tx.Run(r.Context(), i.RunID)
		return v.ProjectID, err
	},
	"test-results": func(tx *store.Tx, r *request) (string, error) {
		id, _, err := tx.TestOfSignature(r.Context(), r.id())
		return id, err
	},
	"record-keys": func(tx *store.Tx, r *request) (string, error) {
		k, err := tx.RecordKey(r.Context(), r.id())
		return k.ProjectID, err
	},
	"webhooks": func(tx *store.Tx, r *request) (string, error) {
		e, err := tx.Endpoint(r.Context(), r.id())
		return e.ProjectID, err
	},
	"deliveries": func(tx *store.Tx, r *request) (string, error) {
		d, err := tx.Delivery(r.Context(), r.id())
		if err != nil {
			return "", err
		}
		e, err := tx.Endpoint(r.Context(), d.EndpointID)
		return e.ProjectID, err
	},
}

func projectItself(_ *store.Tx, r *request) (string, error) { return r.id(), nil }

// sees is NotFound for a project that the key of a request cannot be used for.
func (r *request) sees(projectID string) error {
	if !r.by.Sees(projectID) {
		return run.Missing("project", projectID)
	}
	return nil
}
