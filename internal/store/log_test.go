package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// TestLogOfDeliveries is about what a log says of deliveries, and finds them by.
func TestLogOfDeliveries(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		insertEndpoint(t, db, "hook")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.InsertRun(ctx, run.Run{ID: "r", ProjectID: "shop", CIBuildID: "build", CreatedAt: tx.Now, Commit: run.Commit{Message: "fix: it"}})
			return err
		})
		var begun time.Time
		for n, kind := range []webhook.Kind{webhook.RunStart, webhook.RunFinish} {
			at, _ := happen(t, db, "r", int64(n+1), kind)
			if n == 0 {
				begun = at
			}
		}
		n := newNode(t, db, "n")
		claims := n.claim(10)
		if len(claims) != 1 {
			t.Fatalf("%d deliveries may be sent, want the first of the run", len(claims))
		}
		first := claims[0].Delivery
		failure := webhook.Attempt{DeliveryID: first.ID, Number: 1, StartedAt: begun.Add(time.Second), Duration: 2 * time.Millisecond, Class: webhook.BadStatus, Status: 503, Error: "responded with 503 Busy"}
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.RecordAttempts(ctx, "n", []*store.Outcome{{Delivery: first, Attempt: failure, EndedAt: failure.StartedAt, Decision: webhook.Decision{State: webhook.Waiting, Wait: time.Hour, Quick: true}}})
			return err
		})
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, _, err := tx.Deliveries(ctx, store.DeliveryFilter{EndpointID: "hook"}, store.Page{Limit: 10})
			if err != nil || len(list) != 2 {
				return fmt.Errorf("%d deliveries: %w", len(list), err)
			}
			entries, err := tx.LogEntries(ctx, []string{list[0].ID, list[1].ID})
			if err != nil {
				return err
			}
			failure.DeliveryID = "" // the entry stands at its delivery
			want := map[string]store.LogEntry{
				first.ID:   {CIBuildID: "build", Commit: run.Commit{Message: "fix: it"}, Group: "r.1", Last: &failure},
				list[0].ID: {CIBuildID: "build", Commit: run.Commit{Message: "fix: it"}, Group: "r.2"},
			}
			if diff := cmp.Diff(want, entries); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
			last, err := tx.LastFailure(ctx, "hook")
			if diff := cmp.Diff(&failure, last); diff != "" || err != nil {
				t.Errorf("the last failure, %v (-want +got):\n%s", err, diff)
			}
			if last, err = tx.LastFailure(ctx, "another"); last != nil || err != nil {
				t.Errorf("the last failure of nothing is %+v, %v", last, err)
			}
			for response, want := range map[store.Response]int{store.Response5xx: 1, store.Response2xx: 0, store.NoResponse: 0} {
				found, _, err := tx.Deliveries(ctx, store.DeliveryFilter{EndpointID: "hook", Responses: []store.Response{response}}, store.Page{Limit: 10})
				if err != nil || len(found) != want {
					t.Errorf("%s finds %d, %v", response, len(found), err)
				}
			}
			hours, err := tx.Hours(ctx, "hook", begun.Add(-time.Hour), 10)
			pending := 0
			for _, h := range hours {
				pending += h.Pending
			}
			if err != nil || pending != 2 || !hours[0].At.Equal(begun.UTC().Truncate(time.Hour)) {
				t.Errorf("hours: %+v, %v", hours, err)
			}
			if hours, err = tx.Hours(ctx, "hook", begun.Add(time.Hour), 10); len(hours) != 0 || err != nil {
				t.Errorf("hours to come: %+v, %v", hours, err)
			}
			return nil
		})
	})
}

func TestProjectsByActivity(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		for _, id := range []string{"idle", "busy", "new_one"} {
			testkit.Project(t, db, id)
		}
		for n, project := range []string{"idle", "busy"} {
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				at := tx.Now.Add(time.Duration(n*2-3) * 24 * time.Hour)
				_, err := tx.InsertRun(ctx, run.Run{ID: project, ProjectID: project, CIBuildID: "b", CreatedAt: at})
				return err
			})
		}
		insertGroup(t, db, "busy", "chrome", 1)
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			for text, want := range map[string][]store.ActiveProject{
				"":     {{ID: "new_one"}, {ID: "busy", Running: 1}, {ID: "idle"}},
				"BUS":  {{ID: "busy", Running: 1}},
				"%":    nil,
				"new_": {{ID: "new_one"}},
			} {
				got, err := tx.ProjectsByActivity(ctx, text)
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("%q: %v (-want +got):\n%s", text, err, diff)
				}
			}
			return nil
		})
	})
}
