// Package projects makes and removes projects, for the REST API and the
// dashboard.
package projects

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
)

// Create stores a project with its first record key, which is returned: it is
// not to be seen again. With choose, the id is the first free one that looks
// like the name.
func Create(ctx context.Context, db *store.DB, p run.Project, choose bool) (run.Project, string, error) {
	var key string
	err := db.Write(ctx, func(tx *store.Tx) error {
		p.CreatedAt = tx.Now
		if err := insert(ctx, tx, &p, choose); err != nil {
			return err
		}
		var stored store.RecordKey
		stored, key = auth.NewRecordKey(p.ID, "First key")
		stored.CreatedAt = tx.Now
		return tx.InsertRecordKey(ctx, stored)
	})
	return p, key, err
}

func insert(ctx context.Context, tx *store.Tx, p *run.Project, choose bool) error {
	if !choose {
		inserted, err := tx.InsertProject(ctx, *p)
		if err == nil && !inserted {
			return run.Errorf(run.Conflict, "There is a project %q already: choose another projectId.", p.ID)
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
	return run.Errorf(run.Conflict, "No id is free that looks like the name %q: choose a projectId.", run.Clip(p.Name, 60))
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

// atOnce is how many runs are deleted in one transaction, so that others need
// not wait for long.
const atOnce = 20

// Delete removes a project with its keys, webhooks and runs. What may add to it
// goes first; if it does not come to its end, it can be called again.
func Delete(ctx context.Context, db *store.DB, id string) error {
	err := db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockProject(ctx, id); err != nil {
			return err
		}
		keys, err := tx.RecordKeys(ctx, id)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := tx.DeleteRecordKey(ctx, k.ID); err != nil {
				return err
			}
		}
		endpoints, err := tx.Endpoints(ctx, id)
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			if err := tx.DeleteEndpoint(ctx, e.ID); err != nil {
				return err
			}
		}
		return nil
	})
	for deleted := atOnce; err == nil && deleted == atOnce; {
		err = db.Write(ctx, func(tx *store.Tx) (err error) {
			deleted, err = tx.DeleteRuns(ctx, id, atOnce)
			return err
		})
	}
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *store.Tx) error { return tx.DeleteProject(ctx, id) })
}
