package app

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"

	"runbell/internal/client"
)

// People name things as they see them in lists: by label, or by the beginning of
// an id. A whole id needs no search.
var (
	wholeUUID = regexp.MustCompile(`^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$`)
	wholeRun  = regexp.MustCompile(`^[0-9a-f]{32}$`)

	wholeDelivery = regexp.MustCompile(`^dlv_[0-9a-z]{26}$`)
)

// shortest is how much of an id names it.
const shortest = 4

// named is something that a list shows.
type named struct{ id, label, where string }

// pick finds the one thing that a reference names.
func pick(kind, ref string, list []named) (string, error) {
	var found []named
	for _, n := range list {
		if n.id == ref {
			return n.id, nil
		}
		if n.label != "" && strings.EqualFold(n.label, ref) ||
			len(ref) >= shortest && strings.HasPrefix(n.id, strings.ToLower(ref)) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("there is no %s %q", kind, ref)
	case 1:
		return found[0].id, nil
	default:
		text := fmt.Sprintf("%q matches %d of them; give more of the id:", ref, len(found))
		for _, n := range found[:min(len(found), 10)] {
			text += "\n  " + strings.TrimSpace(n.id+"  "+printable(n.label)+"  "+n.where)
		}
		return "", fmt.Errorf("%s", text)
	}
}

// inAll lists things of every project.
func inAll(ctx context.Context, s *session, of func(projectID string) ([]named, error)) ([]named, error) {
	projects, err := s.Projects(ctx)
	if err != nil {
		return nil, err
	}
	var all []named
	for _, p := range projects.Value {
		some, err := of(p.ProjectID)
		if client.IsNotFound(err) {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// findWebhook is the id of a webhook by id, its beginning, or label.
func (s *session) findWebhook(ctx context.Context, ref string) (string, error) {
	if wholeUUID.MatchString(ref) {
		return ref, nil
	}
	all, err := inAll(ctx, s, func(project string) ([]named, error) {
		list, err := s.Webhooks(ctx, project)
		var out []named
		for _, h := range list.Value {
			out = append(out, named{h.HookID, orEmpty(h.Label), project})
		}
		return out, err
	})
	if err != nil {
		return "", err
	}
	return pick("webhook", ref, all)
}

// searchedRuns is how many of a project's latest runs are looked through for the
// beginning of an id or a build.
const searchedRuns = 100

// searchedDeliveries is how many of a webhook's latest deliveries are.
const searchedDeliveries = 100

// findRun is the id of a run by id, its beginning, or build.
func (s *session) findRun(ctx context.Context, ref string) (string, error) {
	if wholeRun.MatchString(ref) {
		return ref, nil
	}
	all, err := inAll(ctx, s, func(project string) ([]named, error) {
		list, err := s.Runs(ctx, project, client.RunFilter{Limit: searchedRuns})
		var out []named
		for _, r := range list.Value {
			out = append(out, named{r.RunID, r.Meta.CIBuildID, project})
		}
		return out, err
	})
	if err != nil {
		return "", err
	}
	return pick("run", ref, all)
}

// findDelivery is the id of a delivery by id or its beginning.
func (s *session) findDelivery(ctx context.Context, ref string) (string, error) {
	if wholeDelivery.MatchString(ref) {
		return ref, nil
	}
	all, err := inAll(ctx, s, func(project string) (out []named, err error) {
		hooks, err := s.Webhooks(ctx, project)
		for _, h := range hooks.Value {
			list, err := s.Deliveries(ctx, h.HookID, client.DeliveryFilter{Limit: searchedDeliveries})
			if err != nil {
				return nil, err
			}
			for _, d := range list.Value {
				out = append(out, named{id: d.DeliveryID, where: d.Event + " to " + cmp.Or(orEmpty(h.Label), h.URL)})
			}
		}
		return out, err
	})
	if err != nil {
		return "", err
	}
	return pick("delivery", ref, all)
}

// findKey is the id of a record key or an API key by id, its beginning, or label.
func (s *session) findKey(ctx context.Context, ref string) (string, error) {
	if wholeUUID.MatchString(ref) {
		return ref, nil
	}
	keys := func(list client.Result[[]client.Key], where string) (out []named) {
		for _, k := range list.Value {
			out = append(out, named{k.ID, orEmpty(k.Label), where})
		}
		return out
	}
	all, err := inAll(ctx, s, func(project string) ([]named, error) {
		list, err := s.RecordKeys(ctx, project)
		return keys(list, "record key of "+project), err
	})
	if err != nil {
		return "", err
	}
	list, err := s.APIKeys(ctx)
	if err != nil {
		return "", err
	}
	return pick("record key and no API key", ref, append(all, keys(list, "API key")...))
}

// findUser is the id of a person by id, its beginning, or email.
func (s *session) findUser(ctx context.Context, ref string) (string, error) {
	if wholeUUID.MatchString(ref) {
		return ref, nil
	}
	list, err := s.Users(ctx)
	if err != nil {
		return "", err
	}
	var all []named
	for _, u := range list.Value {
		all = append(all, named{u.UserID, u.Email, u.Name})
	}
	return pick("person", ref, all)
}
