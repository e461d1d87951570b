package testkit

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"runbell/internal/database"
	"runbell/internal/store"
)

// halves are the rows that are there although what they belong to is not, or the
// other way round.
var halves = []string{
	`artifact a WHERE NOT EXISTS (SELECT 1 FROM run r WHERE r.id = a.run_id)`,
	`instance a WHERE NOT EXISTS (SELECT 1 FROM run_group r WHERE r.run_id = a.run_id AND r.name = a.group_name)`,
	`machine a WHERE NOT EXISTS (SELECT 1 FROM run_group r WHERE r.run_id = a.run_id AND r.name = a.group_name)`,
	`event a WHERE run_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM run r WHERE r.id = a.run_id)
		AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.event_id = a.id)`,
	`delivery a WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.id = a.event_id)`,
	`removal`,
	`stored_file a WHERE NOT EXISTS (SELECT 1 FROM artifact b WHERE b.file_key = a.key)`,
	`run_group a WHERE specs <> (SELECT COUNT(*) FROM instance i WHERE i.run_id = a.run_id AND i.group_name = a.name)`,
	`run a WHERE artifacts <> (SELECT COUNT(*) FROM artifact b WHERE b.run_id = a.id AND b.file_key IS NOT NULL)
		OR artifact_bytes <>
			(SELECT COALESCE(SUM(size), 0) FROM artifact b WHERE b.run_id = a.id AND b.file_key IS NOT NULL)`,
	`run a WHERE has_output <> (SELECT COUNT(*) FROM (SELECT 1 FROM instance i
		JOIN console_output o ON o.instance_id = i.id WHERE i.run_id = a.id LIMIT 1) AS o)`,
}

// Whole checks, after a sweep, that nothing is half there: each file in a directory has
// an artifact and each artifact a file, no row belongs to a run that is not there, and
// the counts of runs are true.
func Whole(t testing.TB, db *store.DB, files string) {
	t.Helper()
	Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		for _, half := range halves {
			var n int
			if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM `+half).Scan(&n); err != nil {
				return err
			}
			if n != 0 {
				t.Errorf("%d rows of %s", n, half)
			}
		}
		return nil
	})
	known, there := ArtifactFiles(t, db), Files(t, files)
	for key := range known {
		if !there[key] {
			t.Errorf("an artifact has no file %s", key)
		}
	}
	for key := range there {
		if !known[key] {
			t.Errorf("no artifact has the file %s", key)
		}
	}
}

// ArtifactFiles are the keys of the files that artifacts have.
func ArtifactFiles(t testing.TB, db *store.DB) map[string]bool {
	t.Helper()
	keys := map[string]bool{}
	Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		for after := ""; ; {
			list, err := tx.ArtifactFiles(ctx, after, 1000)
			if err != nil || len(list) == 0 {
				return err
			}
			for _, f := range list {
				keys[f.Key], after = true, f.ArtifactID
			}
		}
	})
	return keys
}

// Files are the files below a directory, by their paths in it. There may be none.
func Files(t testing.TB, dir string) map[string]bool {
	t.Helper()
	files := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			path, err = filepath.Rel(dir, path)
			files[filepath.ToSlash(path)] = true
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

// Kept is what is left of a run.
type Kept struct {
	Files  int
	Output bool
}

// KeptRuns is what is left of each run, by id.
func KeptRuns(t testing.TB, db *store.DB) map[string]Kept {
	t.Helper()
	runs := map[string]Kept{}
	Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		rows, err := tx.Query(ctx, `SELECT id, artifacts, has_output FROM run`)
		_, err = database.All(rows, err, func(r database.Row) (string, error) {
			var id string
			var k Kept
			var output int
			err := r.Scan(&id, &k.Files, &output)
			k.Output = output == 1
			runs[id] = k
			return id, err
		})
		return err
	})
	return runs
}

// Age makes a run, with its deliveries, as much older as if time had passed.
func Age(t testing.TB, db *store.DB, runID string, by time.Duration) {
	t.Helper()
	Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		var failed []error
		for _, update := range []string{`run SET created_at = created_at - $2, finished_at = finished_at - $2 WHERE id = $1`,
			`delivery SET created_at = created_at - $2, finished_at = finished_at - $2 WHERE run_id = $1`} {
			_, err := tx.Exec(ctx, `UPDATE `+update, runID, by.Microseconds())
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	})
}
