package testkit

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// Write runs f in a transaction, and fails the test if it fails.
func Write(t testing.TB, db *store.DB, f func(context.Context, *store.Tx) error) {
	t.Helper()
	ctx := context.Background() // not the test's, which has ended when cleanups run
	if err := db.Write(ctx, func(tx *store.Tx) error { return f(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
}

// Read runs f in a transaction that only reads, and fails the test if it fails.
func Read(t testing.TB, db *store.DB, f func(context.Context, *store.Tx) error) {
	t.Helper()
	ctx := context.Background()
	if err := db.Read(ctx, func(tx *store.Tx) error { return f(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
}

// Project stores a project with the settings a new one has, after the changes.
func Project(t testing.TB, db *store.DB, id string, changes ...func(*run.Project)) run.Project {
	t.Helper()
	p := run.NewProject(id)
	Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		p.CreatedAt = tx.Now
		apply(&p, changes)
		inserted, err := tx.InsertProject(ctx, p)
		if err == nil && !inserted {
			t.Errorf("there is a project %s already", id)
		}
		return err
	})
	return p
}

// Run stores a run, without groups, of a project. Its build has the id of the run.
func Run(t testing.TB, db *store.DB, projectID, id string, changes ...func(*run.Run)) run.Run {
	t.Helper()
	r := run.Run{ID: id, ProjectID: projectID, CIBuildID: id}
	Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		r.CreatedAt = tx.Now
		apply(&r, changes)
		inserted, err := tx.InsertRun(ctx, r)
		if err == nil && !inserted {
			t.Errorf("there is a run of build %s already", r.CIBuildID)
		}
		return err
	})
	return r
}

// Endpoint stores an endpoint that wants every event of the groups of a project.
// Nothing checks its URL.
func Endpoint(t testing.TB, db *store.DB, projectID string, changes ...func(*webhook.Endpoint)) webhook.Endpoint {
	t.Helper()
	e := webhook.NewEndpoint(uuid.NewString(), projectID)
	e.URL, e.Secret = "https://receiver.example/hook", webhook.NewSecret()
	Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		e.CreatedAt, e.UpdatedAt = tx.Now, tx.Now
		apply(&e, changes)
		return tx.InsertEndpoint(ctx, e)
	})
	return e
}

func apply[T any](to *T, changes []func(*T)) {
	for _, change := range changes {
		change(to)
	}
}
