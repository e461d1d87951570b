package projects_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/endpoint"
	"runbell/internal/lifecycle"
	"runbell/internal/projects"
	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// TestDelete: nothing of a project stays, and nothing of others goes.
func TestDelete(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		var told []string
		endpoints := endpoint.New(db, "http://runbell.test", func(string) error { return nil }, func(ids ...string) { told = append(told, ids...) })
		sweeper := retention.New(db, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		projects := projects.New(db, endpoints, sweeper)
		service := lifecycle.New(db, "http://runbell.test", func(...string) {})
		var runs, hooks []string
		for _, id := range []string{"shop", "other"} {
			p := run.NewProject(id)
			if _, _, err := projects.Create(ctx, p); err != nil {
				t.Fatal(err)
			}
			e := testkit.Endpoint(t, db, id, func(e *webhook.Endpoint) { e.ID, e.Scope = "hook-of-"+id, run.RunScope })
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
		if err := projects.Delete(ctx, "shop"); err != nil {
			t.Fatal(err)
		}
		if err := projects.Delete(ctx, "shop"); run.KindOf(err) != run.NotFound {
			t.Errorf("again: %v", err)
		}
		if _, _, err := sweeper.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(told) != "[hook-of-shop]" {
			t.Errorf("the engine was told of %v", told)
		}
		left := map[string]int{}
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
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
		if _, _, err := projects.Create(ctx, run.NewProject("shop")); err != nil {
			t.Error(err)
		}
	})
}

// TestChange: the rules of settings hold for everybody, and what is refused
// changes nothing.
func TestChange(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		endpoints := endpoint.New(db, "http://runbell.test", func(string) error { return nil }, func(...string) {})
		sweeper := retention.New(db, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		projects := projects.New(db, endpoints, sweeper)
		if _, _, err := projects.Create(t.Context(), run.NewProject("shop")); err != nil {
			t.Fatal(err)
		}
		for says, wrong := range map[string]func(*run.Project){
			"name must have 1 to 255":                 func(p *run.Project) { p.Name = "" },
			"name must not contain control":           func(p *run.Project) { p.Name = "a\x00b" },
			"defaultBranchName must have at most 255": func(p *run.Project) { p.DefaultBranch = strings.Repeat("x", 256) },
			"inactivityTimeoutSeconds must be":        func(p *run.Project) { p.InactivityTimeout = 13 * time.Hour },
			"completionDelaySeconds must be":          func(p *run.Project) { p.CompletionDelay = -time.Second },
			"failFast must be":                        func(p *run.Project) { p.FailFast = -1 },
			"retentionDays must be":                   func(p *run.Project) { p.Keep.Deliveries = 0 },
		} {
			_, err := projects.Change(t.Context(), "shop", func(p *run.Project) error {
				wrong(p)
				return nil
			})
			if run.KindOf(err) != run.Invalid || !strings.Contains(err.Error(), says) {
				t.Errorf("%v, want that it says %q", err, says)
			}
			p := run.NewProject("other")
			wrong(&p)
			if _, _, err := projects.Create(t.Context(), p); run.KindOf(err) != run.Invalid {
				t.Errorf("created with what is wrong: %v", err)
			}
		}
		refusal := run.Errorf(run.Conflict, "not now")
		if _, err := projects.Change(t.Context(), "shop", func(p *run.Project) error {
			p.Name = "refused"
			return refusal
		}); !errors.Is(err, refusal) {
			t.Errorf("refused by the caller: %v", err)
		}
		changed, err := projects.Change(t.Context(), "shop", func(p *run.Project) error {
			if p.Name != "shop" || p.Keep.Deliveries != run.DefaultRetention().Deliveries {
				t.Errorf("what was refused has changed %+v", p)
			}
			p.Keep.Deliveries = 7
			return nil
		})
		if err != nil || changed.Keep.Deliveries != 7 {
			t.Errorf("changed to %+v, %v", changed, err)
		}
		_, err = projects.Change(t.Context(), "none", func(*run.Project) error { return nil })
		if run.KindOf(err) != run.NotFound {
			t.Errorf("a project that is not there: %v", err)
		}
	})
}
