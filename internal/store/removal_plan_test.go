package store_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
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

// filled are the rows of a database that has many of everything that is ever removed. Each statement
// follows the name of a table and its columns, and i counts the rows.
var filled = []struct{ into, values string }{
	{`run (id, project_id, ci_build_id, rev, sequence, commit_info, branch, tags, ci, client, fail_fast, completion_delay, state,
		running_groups, timed_out_groups, explicit, created_at, finished_at, artifacts, has_output)`,
		`'r' || i, 'p', 'b' || i, 1, 1, '{}', 'main', '[]', '{}', '{}', 0, 0, 'finished', 0, 0, 0, i, i, 1, 1`},
	{`run_group (run_id, name, explicit, parallel, platform, spec_hash, specs, claimed, completed, announced, passes, failures, pending,
		skipped, retries, flaky, rev, state, inactivity_timeout, heard_at, created_at, finished_at)`,
		`'r' || i, 'g', 0, 0, '{}', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'finished', 1, i, i, i`},
	{`run_warning (run_id, number, code, message, at)`, `'r' || i, 1, 'c', 'm', i`},
	{`status_due (run_id, project_id, at)`, `'r' || i, 'p', i`},
	{`machine (run_id, id, group_name, fingerprint, platform, joined_at, unanswered)`, `'r' || i, 'm' || i, 'g', 'f', '{}', i, 0`},
	{`instance (id, run_id, group_name, spec, position, claim, announced, passes, failures, pending, skipped, retries, flaky, duration,
		exception)`, `'i' || i, 'r' || i, 'g', 's', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ''`},
	{`announcement (instance_id, document)`, `'i' || i, '{}'`},
	{`outcome (instance_id, document)`, `'i' || i, '{}'`},
	{`console_output (instance_id, text)`, `'i' || i, ''`},
	{`history_part (run_id, group_name, part, digest, contents, results)`, `'r' || i, 'g', 0, 0, '', ''`},
	{`history_name (project_id, kind, number, key, spec, text)`, `'p', 'test', i, 'k' || i, 1, '[]'`},
	{`stored_file (key, project_id, size, delete_at)`, `'f' || i, 'p', 1, i`},
	{`artifact (id, project_id, run_id, instance_id, kind, content_type, encoding, size, sha256, file_key, awaited_until, problem,
		stored_at)`, `'a' || i, 'p', 'r' || i, 'i' || i, 'video', 'video/mp4', '', 1, '', 'f' || i, i, '', i`},
	{`event (id, project_id, run_id, group_name, scope, kind, phase, sequence, payload, created_at)`,
		`'e' || i, 'p', 'r' || i, 'g', 'run', 'RUN_START', 'start', 1, '{}', i`},
	{`delivery (id, endpoint_id, event_id, run_id, kind, sequence, with_facts, state, attempts, earlier, blocks, parked, created_at,
		finished_at)`, `'d' || i, 'w' || (i % 7), 'e' || i, 'r' || i, 'RUN_START', 1, 0, 'delivered', 1, 0, 0, 0, i, i`},
	{`attempt (delivery_id, number, started_at, duration, request_headers, class, status, response_headers, response_body, error)`,
		`'d' || i, 1, i, 1, '{}', 'ok', 200, '{}', '', ''`},
	{`removal (run_id, project_id, at)`, `'gone' || i, 'p', i`},
	{`account (id, email, name, role, password, created_at)`, `'u' || i, 'u' || i, '', 'viewer', '', i`},
	{`session (hash, account_id, created_at, seen_at)`, `'h' || i, 'u' || i, i, i`},
	{`invitation (id, hash, email, role, created_by, created_at, expires_at)`, `'v' || i, 'h' || i, '', 'viewer', '', i, i`},
	{`once (api_key_id, key, request, created_at)`, `'k', 'o' || i, '', i`},
	{`record_key (id, project_id, label, hash, hint, created_at)`, `'rk' || i, CASE WHEN i < 5 THEN 'q' ELSE 'p' END, '', 'h' || i, '', i`},
	{`api_key (id, label, access, project_id, hash, hint, created_at)`, `'ak' || i, '', 'read', CASE WHEN i < 5 THEN 'q' ELSE 'p' END, 'h' || i, '', i`},
}

// removals are all statements that remove something, or look for what is to be removed.
var removals = map[string]func(context.Context, *store.Tx) error{
	"runs that are over": func(ctx context.Context, tx *store.Tx) error {
		ids, err := tx.RunsEndedBefore(ctx, "p", tx.Now, 2)
		for _, id := range ids {
			_, errRun := tx.RemoveRun(ctx, id)
			err = errors.Join(err, errRun)
		}
		return err
	},
	"runs of a project": func(ctx context.Context, tx *store.Tx) error { _, err := tx.RunsToDelete(ctx, "p", 2); return err },
	"the rest of runs": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.RemoveRun(ctx, "r30")
		_, errRest := tx.RemoveRest(ctx, 8)
		return errors.Join(err, errRest)
	},
	"artifacts": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Holdings(ctx, "p", store.Position{}, 20)
		_, _, errFiles := tx.RemoveArtifacts(ctx, "r31", 20)
		return errors.Join(err, errFiles)
	},
	"artifacts that nobody uploaded": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.OverdueArtifacts(ctx, 20)
		_, errOf := tx.AwaitedArtifacts(ctx, "r32")
		return errors.Join(err, errOf)
	},
	"files": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.DueFiles(ctx, 20)
		_, errFiles := tx.DeleteFiles(ctx, []string{"x", "y"})
		return errors.Join(err, errFiles, tx.PostponeFiles(ctx, []string{"f3", "f4"}, tx.Now), tx.AbandonFile(ctx, "f5", tx.Now),
			tx.AbandonUploads(ctx, tx.Now))
	},
	"console output": func(ctx context.Context, tx *store.Tx) error {
		ids, err := tx.RunsWithOutput(ctx, "p", tx.Now, 2)
		for _, id := range ids {
			_, errOutput := tx.RemoveOutput(ctx, id, 10)
			err = errors.Join(err, errOutput)
		}
		return err
	},
	"deliveries": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.NextDeliveryLog(ctx, "w1")
		_, errLog := tx.DeleteDeliveries(ctx, "w1", time.Time{}, tx.Now, false, 20)
		_, errAll := tx.DeleteDeliveries(ctx, "w2", time.Time{}, tx.Now, true, 20)
		return errors.Join(err, errLog, errAll)
	},
	"sessions": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.DeleteSessions(ctx, time.UnixMicro(100), 20)
		return err
	},
	"invitations": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.DeleteInvitations(ctx, time.UnixMicro(100), 20)
		return err
	},
	"idempotency keys": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.DeleteOnce(ctx, time.UnixMicro(100), 20)
		return err
	},
	"names": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.NamesAfter(ctx, "p", store.TestName, 100, 20)
		errMark := tx.MarkNames(ctx, "p", store.TestName, []int{1, 2}, true)
		_, errNames := tx.DeleteNames(ctx, "p", store.TestName, []int{1, 2}, tx.Now)
		return errors.Join(err, errMark, errNames)
	},
	"a project": func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.DeleteHistory(ctx, "p", 20)
		return errors.Join(err, tx.DeleteKeys(ctx, "q"), tx.DeleteProject(ctx, "q"))
	},
	"a webhook": func(ctx context.Context, tx *store.Tx) error { return tx.DeleteEndpoint(ctx, "w") },
	"a person": func(ctx context.Context, tx *store.Tx) error {
		return tx.DeleteAccount(ctx, "u9")
	},
	"instances that are reset": func(ctx context.Context, tx *store.Tx) error {
		n := 0
		return tx.ReplaceInstances(ctx, "r40", []run.Instance{{ID: "i40", RunID: "r40", GroupName: "g", Spec: "s"}}, func() string { n++; return fmt.Sprint("new", n) })
	},
}

// TestRemovalsUseIndexes: with many rows of everything, no statement that removes looks at a whole table.
func TestRemovalsUseIndexes(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		testkit.Project(t, db, "p")
		testkit.Project(t, db, "q")
		testkit.Endpoint(t, db, "p", func(e *webhook.Endpoint) { e.ID = "w" })
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			for _, f := range filled {
				if _, err := tx.Exec(ctx, `INSERT INTO `+f.into+` WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
					SELECT `+f.values+` FROM n`); err != nil {
					return fmt.Errorf("%s: %w", f.into, err)
				}
			}
			if db.Shared() {
				_, err := tx.Exec(ctx, `ANALYZE`)
				return err
			}
			return nil
		})
		whole := regexp.MustCompile(`Seq Scan on (\w+)`)
		explain := `EXPLAIN `
		if !db.Shared() {
			explain, whole = `EXPLAIN QUERY PLAN `, regexp.MustCompile(`(?m)SCAN (\w+)( USING INDEX| USING COVERING INDEX)?`)
		}
		for name, remove := range removals {
			seen := 0
			if err := db.Write(ctx, func(tx *store.Tx) error {
				return remove(ctx, &store.Tx{Tx: tx.Watched(func(ctx context.Context, query string, args []any) {
					seen++
					plan := planOf(t, tx, explain+query, args)
					for _, scan := range whole.FindAllStringSubmatch(plan, -1) {
						if scan[len(scan)-1] != scan[1] && strings.Contains(query, "LIMIT") && !strings.Contains(plan, "B-TREE") {
							continue // it reads from one end of an index
						}
						if !slices.Contains([]string{"project", "endpoint", "lane", "history", "sweep", "endpoint_history", "test_status", "v", "CONSTANT", "n", "d", "r"}, scan[1]) {
							t.Errorf("%s looks at all of %s:\n%s\n%s", name, scan[1], query, plan)
						}
					}
				})})
			}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if seen == 0 {
				t.Errorf("%s: no statement was seen", name)
			}
		}
	})
}

// planOf is how the database runs a statement.
func planOf(t *testing.T, tx *store.Tx, statement string, args []any) string {
	t.Helper()
	rows, err := tx.Query(t.Context(), statement, args...)
	lines, err := database.All(rows, err, func(r database.Row) (line string, err error) {
		if strings.HasPrefix(statement, `EXPLAIN QUERY`) {
			var id, parent, unused int
			err = r.Scan(&id, &parent, &unused, &line)
			return line, err
		}
		err = r.Scan(&line)
		return line, err
	})
	if err != nil {
		t.Errorf("%s: %v", statement, err)
	}
	return strings.Join(lines, "\n")
}

// TestForeignKeysHaveIndexes: who removes a row looks for those that refer to it.
func TestForeignKeysHaveIndexes(t *testing.T) {
	testkit.Read(t, testkit.Open(t, testkit.Migrated(t)), func(ctx context.Context, tx *store.Tx) error {
		rows, err := tx.Query(ctx, `SELECT conname FROM pg_constraint c WHERE contype = 'f' AND NOT EXISTS (
			SELECT 1 FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])`)
		missing, err := database.All(rows, err, func(r database.Row) (name string, err error) { err = r.Scan(&name); return name, err })
		if len(missing) > 0 {
			t.Errorf("no index begins with the column of %s", strings.Join(missing, ", "))
		}
		return err
	})
}
