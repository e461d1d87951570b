package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

func insertRun(t testing.TB, db *store.DB, project, id string) run.Run {
	t.Helper()
	r := testkit.Run(t, db, project, id, func(r *run.Run) {
		r.CIBuildID, r.Tags, r.Client = "build-"+id, []string{"a", "b_c"}, run.Client{Name: "cypress-cloud"}
		r.Commit = run.Commit{SHA: "abc", Branch: "main", Message: "50% _done_"}
		r.CI = run.CI{Provider: "gitlab", Params: map[string]string{"ciPipelineId": "7"}}
		r.FailFast, r.CompletionDelay, r.RunningGroups = 2, time.Minute, 1
	})
	r.State, r.Rev = run.Running, 1
	return r
}

func insertGroup(t testing.TB, db *store.DB, runID, name string, specs int) (run.Group, []run.Instance) {
	t.Helper()
	g := run.Group{RunID: runID, Name: name, Explicit: true, Platform: run.Platform{BrowserName: "Chrome"}, SpecHash: "h", Specs: specs,
		InactivityTimeout: time.Minute, State: run.Running}
	var list []run.Instance
	for i := range specs {
		list = append(list, run.Instance{ID: fmt.Sprintf("%s-%s-%d", runID, name, i), RunID: runID, GroupName: name, Spec: fmt.Sprintf("spec %d", i), Position: i})
	}
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		g.CreatedAt, g.HeardAt = tx.Now, tx.Now
		if err := tx.InsertGroup(ctx, g); err != nil {
			return err
		}
		return tx.InsertInstances(ctx, list)
	})
	return g, list
}

func TestProjects(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		p := testkit.Project(t, db, "shop")
		p.Name, p.FailFast, p.DefaultBranch = "The shop", 3, "main"
		p.InactivityTimeout, p.CompletionDelay, p.Keep.Deliveries = 90*time.Second, 0, 7
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.UpdateProject(ctx, p) })
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			got, err := tx.Project(ctx, "shop")
			if diff := cmp.Diff(p, got); diff != "" {
				t.Errorf("stored project differs (-want +got):\n%s", diff)
			}
			if _, missing := tx.Project(ctx, "none"); run.KindOf(missing) != run.NotFound {
				t.Errorf("a project that is not there: %v, want NotFound", missing)
			}
			return err
		})
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			if ok, err := tx.InsertProject(ctx, p); ok || err != nil {
				t.Errorf("inserting a taken id: %v, %v; want false, nil", ok, err)
			}
			return nil
		})
	})
}

func TestRunKeepsWhatItWasGiven(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		want := insertRun(t, db, "shop", "r1")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			locked, err := tx.LockBuild(ctx, "shop", want.CIBuildID)
			if err != nil {
				return err
			}
			lean := want
			lean.Rev, lean.CreatedAt, lean.Commit, lean.Tags, lean.CI, lean.Client = 0, time.Time{}, run.Commit{}, nil, run.CI{}, run.Client{}
			if diff := cmp.Diff(lean, locked); diff != "" {
				t.Errorf("locked run differs (-want +got):\n%s", diff)
			}
			got, err := tx.Run(ctx, want.ID)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("stored run differs (-want +got):\n%s", diff)
			}
			want.State, want.RunningGroups, want.FinishedAt = run.Canceled, 0, tx.Now
			want.Cancellation = &run.Cancellation{Actor: "api", Reason: "too slow", At: tx.Now}
			want.Sequence, want.Rev = 4, want.Rev+1
			if err == nil {
				err = tx.UpdateRun(ctx, want)
			}
			return err
		})
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			got, err := tx.Run(ctx, "r1")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("canceled run differs (-want +got):\n%s", diff)
			}
			return err
		})
	})
}

func TestTheDatabaseRefusesStatesThatCannotBe(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		r := insertRun(t, db, "shop", "r1")
		for name, change := range map[string]func(*run.Run){
			"terminal without an end":  func(r *run.Run) { r.State, r.RunningGroups = run.Finished, 0 },
			"running with an end":      func(r *run.Run) { r.FinishedAt = r.CreatedAt },
			"canceled by nobody":       func(r *run.Run) { r.State, r.RunningGroups, r.FinishedAt = run.Canceled, 0, r.CreatedAt },
			"over with running groups": func(r *run.Run) { r.State, r.FinishedAt = run.Finished, r.CreatedAt },
			"an unknown state":         func(r *run.Run) { r.State, r.RunningGroups, r.FinishedAt = "lost", 0, r.CreatedAt },
		} {
			bad := r
			change(&bad)
			err := db.Write(context.Background(), func(tx *store.Tx) error { return tx.UpdateRun(context.Background(), bad) })
			if err == nil {
				t.Errorf("%s was stored", name)
			}
		}
	})
}

func TestEventsHappenOnce(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		insertRun(t, db, "shop", "r1")
		insert := func(id string, kind webhook.Kind, group string, seq int64) error {
			return db.Write(context.Background(), func(tx *store.Tx) error {
				return tx.InsertEvent(context.Background(), webhook.Event{ID: id, ProjectID: "shop", RunID: "r1", Group: group, Scope: run.GroupScope,
					Kind: kind, Sequence: seq, Payload: []byte("{}"), CreatedAt: tx.Now})
			})
		}
		if err := insert("e1", webhook.RunStart, "g", 1); err != nil {
			t.Fatal(err)
		}
		if err := insert("e2", webhook.RunFinish, "g", 2); err != nil {
			t.Fatal(err)
		}
		if insert("e3", webhook.RunTimeout, "g", 3) == nil {
			t.Error("a group ended twice")
		}
		if insert("e4", webhook.RunStart, "g", 4) == nil {
			t.Error("a group started twice")
		}
		if err := insert("e5", webhook.RunStart, "h", 5); err != nil {
			t.Errorf("another group: %v", err)
		}
	})
}

func TestAFailedTransactionLeavesNothing(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		no := errors.New("no")
		// Many at once, so that on SQLite good and bad ones share a commit.
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				p := run.NewProject(fmt.Sprintf("p%d", i))
				err := db.Write(ctx, func(tx *store.Tx) error {
					p.CreatedAt = tx.Now
					if _, err := tx.InsertProject(ctx, p); err != nil {
						return err
					}
					switch i % 3 {
					case 0:
						return no
					case 1:
						if i%2 == 0 && db.Shared() {
							return no // a panic on PostgreSQL is the caller's own
						}
						if !db.Shared() {
							panic("in the middle")
						}
						return no
					}
					return nil
				})
				if (err == nil) != (i%3 == 2) {
					t.Errorf("transaction %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			for i := range 200 {
				_, err := tx.Project(ctx, fmt.Sprintf("p%d", i))
				if (err == nil) != (i%3 == 2) {
					t.Errorf("project %d: %v", i, err)
				}
			}
			return nil
		})
	})
}

func TestACanceledCallerWritesNothing(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		ran := false
		if err := db.Write(ctx, func(*store.Tx) error { ran = true; return nil }); err == nil || ran {
			t.Errorf("Write with a canceled context: error %v, ran %v", err, ran)
		}
	})
}

func TestInstancesInAnyNumber(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		insertRun(t, db, "shop", "r1")
		// More than one statement's worth, and a rest of each size.
		insertGroup(t, db, "r1", "g", 64+8+3)
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, err := tx.Instances(ctx, "r1")
			if len(list) != 75 || list[74].Spec != "spec 74" {
				t.Errorf("got %d instances", len(list))
			}
			return err
		})
	})
}

func TestRunFilters(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		insertRun(t, db, "shop", "r1")
		insertGroup(t, db, "r1", "g", 1)
		for name, c := range map[string]struct {
			filter store.RunFilter
			want   int
		}{
			"none":                {store.RunFilter{}, 1},
			"a tag":               {store.RunFilter{Tags: []string{"b_c"}}, 1},
			"part of a tag":       {store.RunFilter{Tags: []string{"b"}}, 0},
			"a wildcard is plain": {store.RunFilter{Tags: []string{"b%"}}, 0},
			"all tags":            {store.RunFilter{Tags: []string{"a", "x"}}, 0},
			"any tag":             {store.RunFilter{Tags: []string{"a", "x"}, AnyTag: true}, 1},
			"a branch":            {store.RunFilter{Branches: []string{"dev", "main"}}, 1},
			"another branch":      {store.RunFilter{Branches: []string{"mai"}}, 0},
			"message":             {store.RunFilter{Search: "50% _DONE_"}, 1},
			"build":               {store.RunFilter{Search: "BUILD-r"}, 1},
			"not in sha":          {store.RunFilter{Search: "abc"}, 0},
			"running":             {store.RunFilter{Statuses: []run.Status{run.StatusRunning}}, 1},
			"passed":              {store.RunFilter{Statuses: []run.Status{run.StatusPassed, run.StatusFailed}}, 0},
			"state":               {store.RunFilter{States: []run.State{run.Finished, run.TimedOut}}, 0},
			"since":               {store.RunFilter{Since: time.Now().Add(time.Hour)}, 0},
		} {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				list, _, err := tx.Runs(ctx, "shop", c.filter, store.Page{Limit: 10})
				if len(list) != c.want {
					t.Errorf("%s: %d runs, want %d", name, len(list), c.want)
				}
				return err
			})
		}
	})
}

func TestPaging(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		for i := range 7 {
			insertRun(t, db, "shop", fmt.Sprintf("r%d", i))
		}
		ids := func(page store.Page) (out []string, more bool) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				list, m, err := tx.Runs(ctx, "shop", store.RunFilter{}, page)
				for _, r := range list {
					out = append(out, r.ID)
				}
				more = m
				return err
			})
			return out, more
		}
		position := func(id string) (p *store.Position) {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				r, err := tx.Run(ctx, id)
				p = &store.Position{At: r.CreatedAt, ID: r.ID}
				return err
			})
			return p
		}
		for _, c := range []struct {
			page store.Page
			want []string
			more bool
		}{
			{store.Page{Limit: 3}, []string{"r6", "r5", "r4"}, true},
			{store.Page{Limit: 3, After: position("r4")}, []string{"r3", "r2", "r1"}, true},
			{store.Page{Limit: 3, After: position("r1")}, []string{"r0"}, false},
			{store.Page{Limit: 2, Before: position("r2")}, []string{"r4", "r3"}, true},
			{store.Page{Limit: 9, Before: position("r4")}, []string{"r6", "r5"}, false},
		} {
			got, more := ids(c.page)
			if diff := cmp.Diff(c.want, got); diff != "" || more != c.more {
				t.Errorf("page %+v: more %v, want %v; %s", c.page, more, c.more, diff)
			}
		}
	})
}

func TestKeys(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			if err := tx.InsertRecordKey(ctx, store.RecordKey{ID: "k1", ProjectID: "shop", Label: "ci", Hash: "h1", CreatedAt: tx.Now}); err != nil {
				return err
			}
			for range 2 { // the second changes nothing
				if err := tx.InsertAPIKey(ctx, store.APIKey{ID: "a1", Label: "l", Write: true, Hash: "h2", CreatedAt: tx.Now}); err != nil {
					return err
				}
			}
			return nil
		})
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			if k, err := tx.RecordKeyByHash(ctx, "h1"); err != nil || k.ProjectID != "shop" {
				t.Errorf("record key: %+v, %v", k, err)
			}
			if k, err := tx.APIKeyByHash(ctx, "h2"); err != nil || !k.Write {
				t.Errorf("API key: %+v, %v", k, err)
			}
			if err := tx.DeleteRecordKey(ctx, "k1"); err != nil {
				return err
			}
			if err := tx.DeleteRecordKey(ctx, "k1"); run.KindOf(err) != run.NotFound {
				t.Errorf("deleting a key that is gone: %v", err)
			}
			return tx.DeleteAPIKey(ctx, "a1")
		})
	})
}

// What comes after the end is told so, and does not wait.
func TestAClosedDatabase(t *testing.T) {
	for kind, url := range map[string]string{"sqlite": "sqlite:" + t.TempDir() + "/runbell.db", "postgres": testkit.Migrated(t)} {
		db, err := store.Open(t.Context(), url, testkit.Sealer(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		for what, do := range map[string]func(context.Context, func(*store.Tx) error) error{"read": db.Read, "write": db.Write} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			err := do(ctx, func(*store.Tx) error { return nil })
			if err == nil || ctx.Err() != nil {
				t.Errorf("%s: a %s after the end: %v", kind, what, err)
			}
			cancel()
		}
	}
}
