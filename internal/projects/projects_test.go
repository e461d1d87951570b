package projects_test

import (
	"context"
	"errors"
	"testing"

	"runbell/internal/lifecycle"
	"runbell/internal/projects"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

func write(t *testing.T, db *store.DB, f func(context.Context, *store.Tx) error) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return f(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

// TestDelete: nothing of a project stays, and nothing of others goes.
func TestDelete(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		service := lifecycle.New(db, "http://runbell.test", func(...string) {})
		var runs, hooks []string
		for _, id := range []string{"shop", "other"} {
			p := run.NewProject(id)
			if _, _, err := projects.Create(ctx, db, p, false); err != nil {
				t.Fatal(err)
			}
			e := webhook.Endpoint{ID: "hook-of-" + id, ProjectID: id, URL: "http://example.test", Events: webhook.Kinds(), Scope: run.RunScope, Enabled: true, Secret: webhook.NewSecret()}
			write(t, db, func(ctx context.Context, tx *store.Tx) error {
				e.CreatedAt, e.UpdatedAt = tx.Now, tx.Now
				return tx.InsertEndpoint(ctx, e)
			})
			hooks = append(hooks, e.ID)
			for n := range 45 { // more than are deleted at once
				joined, err := service.Join(ctx, lifecycle.Join{ProjectID: id, CIBuildID: "build-" + string(rune('A'+n)), Specs: []string{"a.cy.js"}})
				if err != nil {
					t.Fatal(err)
				}
				claimed, err := service.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
				if err != nil {
					t.Fatal(err)
				}
				_, err = service.Complete(ctx, claimed.Instances[0].ID, &run.Announcement{}, run.Outcome{})
				if err = errors.Join(err, service.Output(ctx, claimed.Instances[0].ID, "out")); err != nil {
					t.Fatal(err)
				}
				runs = append(runs, joined.RunID)
			}
		}
		if err := projects.Delete(ctx, db, "shop"); err != nil {
			t.Fatal(err)
		}
		if err := projects.Delete(ctx, db, "shop"); run.KindOf(err) != run.NotFound {
			t.Errorf("again: %v", err)
		}
		left := map[string]int{}
		write(t, db, func(ctx context.Context, tx *store.Tx) error {
			for n, id := range runs {
				_, err := tx.Run(ctx, id)
				if gone := run.KindOf(err) == run.NotFound; gone != (n < 45) {
					t.Errorf("run %d: %v", n, err)
				}
				events, err := tx.Events(ctx, id)
				if err != nil {
					return err
				}
				left[map[bool]string{true: "shop", false: "other"}[n < 45]] += len(events)
			}
			for n, id := range hooks {
				list, _, err := tx.Deliveries(ctx, store.DeliveryFilter{EndpointID: id}, store.Page{Limit: 100})
				if err != nil || (len(list) == 0) != (n == 0) {
					t.Errorf("%s: %d deliveries, %v", id, len(list), err)
				}
			}
			return nil
		})
		if left["shop"] != 0 || left["other"] == 0 {
			t.Errorf("events left: %v", left)
		}
		// The id is free again.
		if _, _, err := projects.Create(ctx, db, run.NewProject("shop"), false); err != nil {
			t.Error(err)
		}
	})
}
