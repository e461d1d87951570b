package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// TestTheEngineUsesItsIndexes: what the delivery engine does for every delivery
// costs the same whatever the number of deliveries.
func TestTheEngineUsesItsIndexes(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { engineUsesIndexes(t, testkit.SQLite(t), sqlitePlan) })
	t.Run("postgres", func(t *testing.T) { engineUsesIndexes(t, testkit.Open(t, testkit.Migrated(t)), postgresPlan) })
}

// engineUsesIndexes plays what the engine does, and looks at the plan of each statement.
func engineUsesIndexes(t *testing.T, db *store.DB, explain explainer) {
	ctx := t.Context()
	event := func(runID string, sequence int64, kind webhook.Kind) webhook.Event {
		return webhook.Event{ID: webhook.NewID("evt_", db.Now()), ProjectID: "p", RunID: runID, Scope: run.GroupScope, Kind: kind, Sequence: sequence, Facts: []byte("{}")}
	}
	if err := db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.InsertProject(ctx, run.NewProject("p")); err != nil {
			return err
		}
		if _, err := tx.InsertRun(ctx, run.Run{ID: "r", ProjectID: "p", CIBuildID: "b"}); err != nil {
			return err
		}
		return tx.InsertEndpoint(ctx, webhook.Endpoint{ID: "e", ProjectID: "p", Kind: webhook.PlainWebhook, Payload: webhook.ExtendedForm, MaxInFlight: 1, URL: "http://receiver.test/", Events: webhook.Kinds(), Scope: run.GroupScope,
			Enabled: true, Filters: webhook.Filters{Result: webhook.Recovered}, Secret: webhook.NewSecret()})
	}); err != nil {
		t.Fatal(err)
	}
	queue := func(tx *store.Tx, e webhook.Event) error {
		err := tx.InsertEvent(ctx, e)
		if err != nil {
			return err
		}
		listeners, err := tx.Listeners(ctx, e.ProjectID, e.Scope)
		if err != nil || len(listeners) != 1 {
			return fmt.Errorf("%d endpoints listen: %w", len(listeners), err)
		}
		for _, track := range []*string{nil, new("g")} {
			if _, err := tx.LastFinished(ctx, e.ProjectID, "main", e.RunID, tx.Now, track); err != nil {
				return err
			}
		}
		if e.FactsDue {
			if err := tx.AwaitFacts(ctx, e, nil); err != nil {
				return err
			}
		}
		_, err = tx.QueueDelivery(ctx, listeners[0], e)
		return err
	}
	withFacts := event("r", 3, webhook.RunFinish)
	withFacts.FactsDue, withFacts.Group = true, "g"
	var work store.Work
	for _, step := range []struct {
		name string
		f    func(*store.Tx) error
	}{
		{"queue an event", func(tx *store.Tx) error { return queue(tx, event("r", 1, webhook.RunStart)) }},
		{"queue one behind it", func(tx *store.Tx) error { return queue(tx, event("r", 2, webhook.RunFinish)) }},
		{"work of a lane", func(tx *store.Tx) (err error) {
			work, err = tx.Work(ctx, "e", store.QueuePosition{}, 10, nil)
			return err
		}},
		{"record attempts", func(tx *store.Tx) error {
			var outcomes []*store.Outcome
			for _, c := range work.Claims {
				outcomes = append(outcomes, &store.Outcome{Delivery: c.Delivery, EndedAt: tx.Now, Attempt: webhook.Attempt{Number: 1, Class: webhook.OK}, Decision: webhook.Decision{State: webhook.Delivered}})
			}
			_, err := tx.RecordAttempts(ctx, "", outcomes)
			return err
		}},
		{"queue one whose facts are due", func(tx *store.Tx) error { return queue(tx, withFacts) }},
		{"facts that are due", func(tx *store.Tx) error {
			due, err := tx.FactsDue(ctx, 10)
			if err == nil && len(due) != 1 {
				t.Errorf("facts of %d events are due", len(due))
			}
			return err
		}},
		{"complete facts", func(tx *store.Tx) error {
			free, err := tx.CompleteFacts(ctx, withFacts)
			if err == nil && len(free) != 1 {
				t.Errorf("deliveries of %v go", free)
			}
			return err
		}},
		{"take a lane", func(tx *store.Tx) error { _, err := tx.TakeLane(ctx, "e", "node", tx.Now); return err }},
		{"health", func(tx *store.Tx) error { _, err := tx.Health(ctx, webhook.Endpoint{ID: "e"}); return err }},
		{"resume", func(tx *store.Tx) error { _, err := tx.ResumeDeliveries(ctx, "e", 10); return err }},
		{"redeliver", func(tx *store.Tx) error {
			_, err := tx.RequeueDeliveries(ctx, []string{work.Claims[0].ID})
			return err
		}},
		{"remove old ones", func(tx *store.Tx) error {
			_, err := tx.DeleteDeliveries(ctx, "e", time.Time{}, tx.Now, true, 10)
			return err
		}},
	} {
		explained := 0
		if err := db.Write(ctx, func(tx *store.Tx) error {
			return step.f(store.Watched(tx, func(ctx context.Context, query string, args []any) {
				explained++
				plan, whole := explain(ctx, t, tx, query, args)
				if step.name == "redeliver" && strings.Contains(plan, "delivery_log") {
					t.Errorf("%s looks through the log in a transaction that writes:\n%s", step.name, plan)
				}
				// Rows of facts_due go within moments, so there are few.
				if whole && !strings.Contains(query, "FROM facts_due ORDER BY") {
					t.Errorf("%s looks at a whole table: %s\n%s", step.name, query, plan)
				}
			}))
		}); err != nil {
			t.Fatal(step.name, err)
		}
		if explained == 0 {
			t.Errorf("%s: no plans", step.name)
		}
	}
}

// explainer returns how a database runs a statement, and whether it looks at a whole table.
type explainer func(ctx context.Context, t *testing.T, tx *store.Tx, query string, args []any) (plan string, whole bool)

func sqlitePlan(ctx context.Context, t *testing.T, tx *store.Tx, query string, args []any) (plan string, whole bool) {
	t.Helper()
	lines, err := store.SQLitePlan(ctx, tx, query, args)
	if err != nil {
		t.Errorf("explain %s: %v", query, err)
	}
	for _, line := range lines {
		// The endpoints of a project are few, and so is what a statement brings along.
		whole = whole || strings.HasPrefix(line, "SCAN") && !slices.Contains([]string{"SCAN v", "SCAN CONSTANT ROW"}, line) &&
			!strings.Contains(line, "-ROW VALUES")
	}
	return strings.Join(lines, "\n"), whole
}

// postgresPlan forbids the scans of whole tables that PostgreSQL prefers while tables are small. What it does
// nevertheless, it would do with any number of rows.
func postgresPlan(ctx context.Context, t *testing.T, tx *store.Tx, query string, args []any) (plan string, whole bool) {
	t.Helper()
	if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
		t.Fatal(err)
	}
	rows, err := tx.Query(ctx, "EXPLAIN (COSTS OFF) "+query, args...)
	lines, err := database.All(rows, err, func(r database.Row) (string, error) {
		var line string
		err := r.Scan(&line)
		return line, err
	})
	if err != nil {
		t.Fatalf("explain %s: %v", query, err)
	}
	for n, line := range lines {
		scan := strings.Contains(line, "Index Scan") || strings.Contains(line, "Index Only Scan")
		byCondition := n+1 < len(lines) && strings.Contains(lines[n+1], "Index Cond")
		whole = whole || strings.Contains(line, "Seq Scan") || scan && !byCondition
	}
	return strings.Join(lines, "\n"), whole
}
