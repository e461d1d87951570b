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

// explained is a connection that tells how SQLite would run each query.
type explained struct {
	conn
	plans *[]string
}

func (e explained) QueryContext(ctx context.Context, query string, args ...any) (rows, error) {
	found, err := e.conn.QueryContext(ctx, "EXPLAIN QUERY PLAN "+query, args...)
	plan, err := all(found, err, func(r row) (string, error) {
		var id, parent, unused int
		var detail string
		err := r.Scan(&id, &parent, &unused, &detail)
		return detail, err
	})
	if err != nil {
		return nil, err
	}
	*e.plans = append(*e.plans, strings.Join(plan, "\n"))
	return e.conn.QueryContext(ctx, query, args...)
}

// TestListsUseTheirIndexes: what pages list is read in the order of an index,
// and never by looking at a whole table.
func TestListsUseTheirIndexes(t *testing.T) {
	sealer, err := webhook.NewSealer(make([]byte, webhook.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "runbell.db"), sealer)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	ctx := t.Context()
	page := Page{Limit: 50, After: &Position{At: time.Now(), ID: "x"}}
	for name, c := range map[string]struct {
		query func(*Tx) error
		index string
	}{
		"runs": {func(tx *Tx) error { _, _, err := tx.Runs(ctx, "p", RunFilter{}, page); return err }, "run_created"},
		"runs of a branch": {func(tx *Tx) error {
			_, _, err := tx.Runs(ctx, "p", RunFilter{Branches: []string{"b"}}, page)
			return err
		}, "run_branch"},
		"runs of an author": {func(tx *Tx) error {
			_, _, err := tx.Runs(ctx, "p", RunFilter{Authors: []string{"a"}}, page)
			return err
		}, "run_author"},
		"failed runs, bounded": {func(tx *Tx) error {
			_, _, err := tx.Runs(ctx, "p", RunFilter{Statuses: []run.Status{run.StatusFailed}, NotBefore: &Position{At: time.Now(), ID: "y"}}, page)
			return err
		}, "run_created"},
		"recent runs":             {func(tx *Tx) error { _, err := tx.RecentRuns(ctx, "p", "", 30); return err }, "run_created"},
		"recent runs of a branch": {func(tx *Tx) error { _, err := tx.RecentRuns(ctx, "p", "main", 30); return err }, "run_branch"},
		"what to choose from":     {func(tx *Tx) error { _, err := tx.RunChoices(ctx, "p"); return err }, "run_created"},
		"groups of runs":          {func(tx *Tx) error { _, err := tx.GroupsOf(ctx, []string{"a", "b"}); return err }, "run_group"},
		"specs of a run":          {func(tx *Tx) error { _, err := tx.Instances(ctx, "a"); return err }, "instance_position"},
		"deliveries":              {func(tx *Tx) error { _, _, err := tx.Deliveries(ctx, DeliveryFilter{EndpointID: "e"}, page); return err }, "delivery"},
		"deliveries of a run":     {func(tx *Tx) error { _, _, err := tx.Deliveries(ctx, DeliveryFilter{RunID: "r"}, page); return err }, "delivery_run"},
	} {
		var plans []string
		if err := db.Read(ctx, func(tx *Tx) error {
			tx.conn = explained{tx.conn, &plans}
			return c.query(tx)
		}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		plan := strings.Join(plans, "\n")
		if !strings.Contains(plan, "INDEX "+c.index) && !strings.Contains(plan, "INDEX sqlite_autoindex_"+c.index) {
			t.Errorf("%s does not use an index %s:\n%s", name, c.index, plan)
		}
		for _, slow := range []string{"SCAN run\n", "SCAN delivery", "SCAN instance"} {
			if strings.Contains(plan+"\n", slow) {
				t.Errorf("%s looks at a whole table:\n%s", name, plan)
			}
		}
	}
}
