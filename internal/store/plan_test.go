package store

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

// explained returns a transaction that appends to plans how SQLite runs each of
// its queries.
func explained(t *testing.T, tx *Tx, plans *[]string) *Tx {
	t.Helper()
	return Watched(tx, func(ctx context.Context, query string, args []any) {
		plan, err := SQLitePlan(ctx, tx, query, args)
		if err != nil {
			t.Errorf("explain %s: %v", query, err)
		}
		*plans = append(*plans, strings.Join(plan, "\n"))
	})
}

// empty is a SQLite database with nothing in it.
func empty(t *testing.T) *DB {
	t.Helper()
	sealer, err := webhook.NewSealer(make([]byte, webhook.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "runbell.db"), sealer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestListsUseTheirIndexes: what pages list is read in the order of an index,
// and never by looking at a whole table.
func TestListsUseTheirIndexes(t *testing.T) {
	db := empty(t)
	ctx := t.Context()
	page := Page{Limit: 50, After: &Position{At: time.Now(), ID: "x"}}
	for name, c := range map[string]struct {
		query func(*Tx) error
		index string
	}{
		"runs": {func(tx *Tx) error { _, _, err := tx.Runs(ctx, "p", RunFilter{}, page); return err }, "run_created"},
		"failed specs beside one": {func(tx *Tx) error {
			_, _, err := tx.FailedBeside(ctx, run.Instance{RunID: "r", GroupName: "g", Position: 3})
			return err
		}, "instance_failed"},
		"runs of a branch": {func(tx *Tx) error {
			_, _, err := tx.Runs(ctx, "p", RunFilter{Branches: []string{"b"}}, page)
			return err
		}, "run_branch"},
		"runs of an author": {func(tx *Tx) error {
			_, _, err := tx.Runs(ctx, "p", RunFilter{Authors: []string{"a"}}, page)
			return err
		}, "run_author"},
		"runs of a branch by an author": {func(tx *Tx) error {
			_, _, err := tx.Runs(ctx, "p", RunFilter{Branches: []string{"b"}, Authors: []string{"a"}, Limit: page.After}, page)
			return err
		}, "run_branch"},
		"how far a search goes": {func(tx *Tx) error {
			_, _, err := tx.SearchLimit(ctx, "p", RunFilter{Branches: []string{"b"}, Authors: []string{"a"}}, page, 10)
			return err
		}, "run_branch"},
		"failed runs of an author, bounded": {func(tx *Tx) error {
			_, _, err := tx.Runs(ctx, "p", RunFilter{Authors: []string{"a"}, Statuses: []run.Status{run.StatusFailed}, Limit: page.After}, page)
			return err
		}, "run_author"},
		"failed runs, bounded": {func(tx *Tx) error {
			_, _, err := tx.Runs(ctx, "p", RunFilter{Statuses: []run.Status{run.StatusFailed}, Limit: &Position{At: time.Now(), ID: "y"}}, page)
			return err
		}, "run_created"},
		"recent runs":             {func(tx *Tx) error { _, err := tx.RecentRuns(ctx, "p", "", 30); return err }, "run_created"},
		"recent runs of a branch": {func(tx *Tx) error { _, err := tx.RecentRuns(ctx, "p", "main", 30); return err }, "run_branch"},
		"what to choose from":     {func(tx *Tx) error { _, err := tx.RunChoices(ctx, "p"); return err }, "run_created"},
		"groups of runs":          {func(tx *Tx) error { _, err := tx.GroupsOf(ctx, []string{"a", "b"}); return err }, "run_group"},
		"specs of a run":          {func(tx *Tx) error { _, err := tx.Instances(ctx, "a"); return err }, "instance_position"},
		"failed specs of a run":   {func(tx *Tx) error { _, err := tx.FailedSpecs(ctx, "a", "", 10); return err }, "instance_failed"},
		"failed specs of a group": {func(tx *Tx) error { _, err := tx.FailedSpecs(ctx, "a", "g", 10); return err }, "instance_failed"},
		"deliveries":              {func(tx *Tx) error { _, _, err := tx.Deliveries(ctx, DeliveryFilter{EndpointID: "e"}, page); return err }, "delivery"},
		"how far a search of a log goes": {func(tx *Tx) error {
			_, _, err := tx.LogLimit(ctx, DeliveryFilter{EndpointID: "e"}, page, 10)
			return err
		}, "delivery_log"},
		"failed deliveries, bounded": {func(tx *Tx) error {
			_, _, err := tx.Deliveries(ctx, DeliveryFilter{EndpointID: "e", States: []webhook.DeliveryState{webhook.Failed}, Limit: page.After}, page)
			return err
		}, "delivery_log"},
		"projects by activity":     {func(tx *Tx) error { _, err := tx.ProjectsByActivity(ctx, ""); return err }, "run_group_look"},
		"runs of a CI job":         {func(tx *Tx) error { _, err := tx.RunningOf(ctx, run.CI{Provider: "githubActions"}); return err }, "run_closing"},
		"groups to choose from":    {func(tx *Tx) error { _, err := tx.GroupChoices(ctx, "p"); return err }, "run_created"},
		"whether a run is counted": {func(tx *Tx) error { _, err := tx.HistoryComplete(ctx, "r"); return err }, "instance_"},
		"numbers of tests":         {func(tx *Tx) error { _, err := tx.HistoryNumbers(ctx, "p", TestName, []string{"s"}); return err }, "history_name"},
		"runs to compare with": {func(tx *Tx) error {
			_, err := tx.FinishedBefore(ctx, run.Run{ID: "r", ProjectID: "p"}, "main", 20)
			return err
		}, "run_branch"},
		"what is due in the history": {func(tx *Tx) error { _, _, err := tx.HistoryDue(ctx, 10); return err }, "instance_history"},
		"results that are due":       {func(tx *Tx) error { _, err := tx.DueResults(ctx, HistoryPart{}, 10); return err }, "instance_position"},
		"what is due of a run":       {func(tx *Tx) error { _, err := tx.HistoryDueOf(ctx, "r"); return err }, "instance_position"},
		"specs that did not pass":    {func(tx *Tx) error { _, err := tx.NotPassed(ctx, run.Machine{RunID: "r"}); return err }, "instance_position"},
		"runs to look at tests of":   {func(tx *Tx) error { _, err := tx.StatusesDue(ctx, 10); return err }, "instance_"},
		"history of all runs, the latest": {func(tx *Tx) error {
			return tx.FirstHistoryParts(ctx, "p", HistoryFilter{}, NewestFirst, nil)
		}, "run_created"},
		"history of all runs of a branch, the latest": {func(tx *Tx) error {
			return tx.FirstHistoryParts(ctx, "p", HistoryFilter{Branches: []string{"main"}}, NewestFirst, nil)
		}, "run_branch_created"},
		"history of all runs": {func(tx *Tx) error {
			return tx.EachHistoryPart(ctx, "p", HistoryFilter{Since: time.Now()}, OldestFirst, nil)
		}, "run_created"},
		"history of a branch": {func(tx *Tx) error {
			return tx.EachHistoryPart(ctx, "p", HistoryFilter{Branches: []string{"main"}, Groups: []string{"a"}, Since: time.Now()}, OldestFirst, nil)
		}, "run_"},
		"specs that timed out": {func(tx *Tx) error { _, err := tx.TimedOutSpecs(ctx, "p", HistoryFilter{Since: time.Now()}); return err }, "run_created"},
		"runs of insights":     {func(tx *Tx) error { _, err := tx.InsightRuns(ctx, "p", HistoryFilter{Since: time.Now()}); return err }, "run_created"},
		"a test by signature":  {func(tx *Tx) error { _, _, err := tx.TestOfSignature(ctx, "s"); return ignoreMissing(err) }, "history_name_signature"},
		"deliveries of a run":  {func(tx *Tx) error { _, _, err := tx.Deliveries(ctx, DeliveryFilter{RunID: "r"}, page); return err }, "delivery_run"},
	} {
		var plans []string
		if err := db.Read(ctx, func(tx *Tx) error {
			return c.query(explained(t, tx, &plans))
		}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		plan := strings.Join(plans, "\n")
		if !strings.Contains(plan, "INDEX "+c.index) && !strings.Contains(plan, "INDEX sqlite_autoindex_"+c.index) {
			t.Errorf("%s does not use an index %s:\n%s", name, c.index, plan)
		}
		for _, slow := range []string{"SCAN run\n", "SCAN run USING INDEX sqlite_autoindex", "SCAN run_group", "SCAN p\n", "SCAN i\n", "SCAN delivery", "SCAN instance\n", "SCAN history"} {
			if strings.Contains(plan+"\n", slow) || strings.HasPrefix(name, "history of all") && strings.Contains(plan, "B-TREE") {
				t.Errorf("%s looks at a whole table:\n%s", name, plan)
			}
		}
	}
}

func ignoreMissing(err error) error {
	if run.KindOf(err) == run.NotFound {
		return nil
	}
	return err
}
