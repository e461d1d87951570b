// Package projects has the verbs of projects: create, change and delete.
package projects

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"

	"runbell/internal/auth"
	"runbell/internal/endpoint"
	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// namesAtOnce limits how many names of specs, tests and errors one transaction deletes.
const namesAtOnce = 500

// Service acts on projects. Its methods may be called from any goroutine.
type Service struct {
	db        *store.DB
	endpoints *endpoint.Service
	sweeper   *retention.Sweeper
}

// New makes the service. endpoints and sweeper remove the endpoints and the runs of
// a deleted project.
func New(db *store.DB, endpoints *endpoint.Service, sweeper *retention.Sweeper) *Service {
	return &Service{db, endpoints, sweeper}
}

// Create stores a project with its first record key. The key is returned only
// here. A project without an id gets the first free one that looks like its name.
func (s *Service) Create(ctx context.Context, p run.Project) (run.Project, string, error) {
	chooseID := p.ID == ""
	err := p.Check()
	if err == nil && !chooseID {
		err = run.CheckProjectID(p.ID)
	}
	if err != nil {
		return p, "", err
	}
	var key string
	err = s.db.Write(ctx, func(tx *store.Tx) error {
		p.CreatedAt = tx.Now
		err := insert(ctx, tx, &p, chooseID)
		if err == nil {
			_, key, err = auth.InsertRecordKey(ctx, tx, p.ID, "First key")
		}
		return err
	})
	return p, key, err
}

// Change changes the settings of a project. change gets the project as it is, and
// may be called twice.
func (s *Service) Change(ctx context.Context, id string, change func(*run.Project) error) (run.Project, error) {
	var p run.Project
	err := s.db.Write(ctx, func(tx *store.Tx) (err error) {
		if p, err = tx.LockProject(ctx, id); err != nil {
			return err
		}
		if err := change(&p); err != nil {
			return err
		}
		if err := p.Check(); err != nil {
			return err
		}
		return tx.UpdateProject(ctx, p)
	})
	return p, err
}

func insert(ctx context.Context, tx *store.Tx, p *run.Project, choose bool) error {
	if !choose {
		inserted, err := tx.InsertProject(ctx, *p)
		if err == nil && !inserted {
			return run.Errorf(run.Conflict, "There is already a project %q: choose another projectId.", p.ID)
		}
		return err
	}
	base := slug(p.Name)
	const tries = 20
	for n := 1; n <= tries; n++ {
		switch {
		case n == tries || base == "":
			p.ID = strings.TrimPrefix(base+"-"+strings.ToLower(rand.Text()[:8]), "-")
		case n == 1:
			p.ID = base
		default:
			p.ID = base + "-" + strconv.Itoa(n)
		}
		if inserted, err := tx.InsertProject(ctx, *p); err != nil || inserted {
			return err
		}
	}
	return run.Errorf(run.Conflict, "No projectId like the name %q is free: choose one.", run.Clip(p.Name, 60))
}

// slug makes a projectId of a name; "" if nothing of it can stand in one.
func slug(name string) string {
	const longest = 48 // leaves room for what makes it unique
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case b.Len() >= longest:
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return strings.TrimSuffix(b.String(), "-")
}

// Delete removes a project with its keys, webhooks and runs. What may add to it
// goes first. If it does not come to its end, it can be called again.
func (s *Service) Delete(ctx context.Context, id string) error {
	err := s.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockProject(ctx, id); err != nil {
			return err
		}
		return tx.DeleteKeys(ctx, id)
	})
	if err != nil {
		return err
	}
	var endpoints []webhook.Endpoint
	err = s.db.Read(ctx, func(tx *store.Tx) (err error) {
		endpoints, err = tx.Endpoints(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		// Someone else may have deleted it meanwhile.
		if _, err := s.endpoints.Delete(ctx, e.ID); err != nil && run.KindOf(err) != run.NotFound {
			return err
		}
	}
	if err := s.sweeper.DeleteRuns(ctx, id); err != nil {
		return err
	}
	for names := namesAtOnce; names == namesAtOnce; {
		if err := s.db.Write(ctx, func(tx *store.Tx) (err error) {
			names, err = tx.DeleteHistory(ctx, id, namesAtOnce)
			return err
		}); err != nil {
			return err
		}
	}
	return s.db.Write(ctx, func(tx *store.Tx) error { return tx.DeleteProject(ctx, id) })
}
