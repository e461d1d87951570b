package store_test

import (
	"context"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// due is the files that are to be deleted.
func due(t *testing.T, db *store.DB) (keys []string) {
	t.Helper()
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		list, err := tx.DueFiles(ctx, 10)
		for _, f := range list {
			keys = append(keys, f.Key)
		}
		return err
	})
	return keys
}

// The life of files: each is either that of an artifact or has a time at which it
// is deleted.
func TestFilesOfArtifacts(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		fill(t, db, stored())
		artifact := stored().Artifacts[1] // which was refused
		put := func(key string, want bool) {
			t.Helper()
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				a := artifact
				a.FileKey, a.Problem, a.Size = key, "", 5
				kept, err := tx.PutArtifact(ctx, a)
				if kept != want {
					t.Errorf("%s: kept = %v", key, kept)
				}
				return err
			})
		}
		file := func(key string, life time.Duration) {
			t.Helper()
			testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
				return tx.InsertFile(ctx, key, "shop", 100, tx.Now.Add(life))
			})
		}
		expect := func(when string, want ...string) {
			t.Helper()
			if got := due(t, db); len(got) != len(want) || (len(got) > 0 && got[0] != want[0]) {
				t.Errorf("%s: %q are due, want %q", when, got, want)
			}
		}
		file("first", time.Hour)
		expect("while it is uploaded")
		put("first", true)
		file("second", time.Hour)
		put("second", true)
		expect("replaced", "first")
		file("late", 0)
		put("late", false)
		put("unknown", false)
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			n, err := tx.DeleteFiles(ctx, []string{"first", "late", "unknown"})
			if n != 2 {
				t.Errorf("%d files were forgotten, not 2", n)
			}
			return err
		})
		expect("swept")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.RefuseArtifact(ctx, artifact) })
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			a, err := tx.Artifact(ctx, artifact.ID)
			if !a.Stored() || a.FileKey != "second" || a.Problem != "" || a.Size != 5 {
				t.Errorf("a file that was refused took the place of a good one: %+v", a)
			}
			return err
		})
		file("pending", time.Hour)
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.AbandonUploads(ctx, tx.Now) })
		expect("after a start", "pending")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			if _, err := tx.DeleteFiles(ctx, []string{"pending"}); err != nil {
				return err
			}
			_, _, err := tx.RemoveArtifacts(ctx, "r1", 10)
			return err
		})
		if got := due(t, db); len(got) != 2 {
			t.Errorf("without the artifacts of the run %q are due", got)
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Artifact(ctx, artifact.ID)
			if run.KindOf(err) != run.NotFound {
				t.Errorf("the artifact is still there: %v", err)
			}
			list, err := tx.RunArtifacts(ctx, "r1")
			if len(list) != 0 {
				t.Errorf("the run still has %+v", list)
			}
			return err
		})
	})
}
