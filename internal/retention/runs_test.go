package retention_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/artifact"
	"runbell/internal/lifecycle"
	"runbell/internal/retention"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// past is a run that ended some days ago.
type past struct {
	project string // "" is shop
	days    int    // ago; when it ended, too
	result  run.TestState
	flaky   bool
	running bool
	pinned  bool
	specs   int // 1 if 0
	shots   int // files of each spec
	size    int // bytes of each file; 10 if 0
}

// record records a run some days in the past, and returns its id.
func (w *world) record(build string, p past) string {
	w.Helper()
	p.specs, p.size = max(1, p.specs), max(p.size, 10)
	if p.project == "" {
		p.project = "shop"
	}
	if p.result == "" {
		p.result = run.Passed
	}
	ctx := w.Context()
	at := w.db.Now().Add(-time.Duration(p.days)*day - time.Minute)
	runs := lifecycle.New(w.db, "http://runbell.test", func(...string) {}).At(at)
	specs := []string{}
	for n := range p.specs {
		specs = append(specs, fmt.Sprintf("spec-%d.cy.js", n))
	}
	joined, err := runs.Join(ctx, lifecycle.Join{ProjectID: p.project, CIBuildID: build, Specs: specs})
	if err != nil {
		w.Fatal(err)
	}
	claimed, err := runs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 100})
	if err != nil {
		w.Fatal(err)
	}
	for n, i := range claimed.Instances {
		if p.running && n == p.specs-1 {
			break
		}
		attempts := []run.Attempt{{State: p.result}}
		if p.flaky {
			attempts = []run.Attempt{{State: run.Failed}, {State: run.Passed}}
		}
		_, err := runs.Complete(ctx, i.ID, &run.Announcement{}, run.Outcome{Results: []run.Result{{ID: "r1", State: p.result, Attempts: attempts}}})
		if err = errors.Join(err, runs.Output(ctx, i.ID, "output of "+build)); err != nil {
			w.Fatal(err)
		}
		var shots []run.Artifact
		for shot := range p.shots {
			shots = append(shots, run.Artifact{ID: run.ArtifactID(i.ID, run.ScreenshotArtifact, fmt.Sprint(shot)), ProjectID: p.project, RunID: joined.RunID,
				InstanceID: i.ID, Kind: run.ScreenshotArtifact, ContentType: "image/png", Size: int64(p.size), StoredAt: at})
		}
		w.store(shots)
	}
	if p.pinned {
		if _, err := runs.Pin(ctx, joined.RunID, "Ada"); err != nil {
			w.Fatal(err)
		}
	}
	return joined.RunID
}

// store stores artifacts with their files.
func (w *world) store(list []run.Artifact) {
	w.Helper()
	w.before(0, func(ctx context.Context, tx *store.Tx) error {
		for _, a := range list {
			a.FileKey = artifact.NewKey(a.ID)
			if err := os.WriteFile(filepath.Join(w.dir, a.FileKey), make([]byte, a.Size), 0o600); err != nil {
				return err
			}
			if err := tx.InsertFile(ctx, a.FileKey, a.ProjectID, a.Size, tx.Now.Add(time.Hour)); err != nil {
				return err
			}
			if _, err := tx.PutArtifact(ctx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// sweep checks that a plan says what a sweep then removes.
func (w *world) sweep() retention.Report {
	w.Helper()
	planned, err := w.sweeper.Plan(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	report, ran, err := w.sweeper.Sweep(w.Context())
	if err != nil || !ran || report.More {
		w.Fatalf("swept %v: %+v, %v", ran, report, err)
	}
	if !maps.Equal(planned.Projects, report.Projects) || planned.Files != report.Files {
		w.Errorf("planned %+v, removed %+v", planned, report)
	}
	testkit.Whole(w, w.db, w.dir)
	return report
}

// kept says what is left of a run: run, artifacts, output; "" if it is gone.
func (w *world) kept(id string) string {
	w.Helper()
	var parts []string
	w.before(0, func(ctx context.Context, tx *store.Tx) error {
		r, err := tx.Run(ctx, id)
		if run.KindOf(err) == run.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		parts = append(parts, "run")
		if r.Artifacts > 0 {
			parts = append(parts, "artifacts")
		}
		list, err := tx.Instances(ctx, id)
		for _, i := range list {
			if text, errOut := tx.Output(ctx, i.ID); text != "" || errOut != nil {
				parts = append(parts, "output")
				return errOut
			}
		}
		if r.OutputRemovedAt.IsZero() {
			w.Errorf("run %s has no output, and does not say since when", id)
		}
		return err
	})
	return strings.Join(parts, " ")
}

// keep sets what the project keeps.
func (w *world) keep(change func(*run.Retention)) {
	w.Helper()
	w.before(0, func(ctx context.Context, tx *store.Tx) error {
		p, err := tx.LockProject(ctx, "shop")
		if err != nil {
			return err
		}
		p.Keep = run.Retention{Deliveries: 7} // the rest forever
		change(&p.Keep)
		return tx.UpdateProject(ctx, p)
	})
}

// shortest is the shortest retention.
var shortest = run.Retention{Runs: 1, FailedArtifacts: 1, PassedArtifacts: 1, Output: 1, Deliveries: 1, ArtifactBytes: 1}

// What is removed from a run, by the retention of its project.
func TestRuns(t *testing.T) {
	everything := "run artifacts output"
	for name, c := range map[string]struct {
		keep func(*run.Retention)
		run  past
		want string
	}{
		"all forever":                        {func(*run.Retention) {}, past{days: 3000}, everything},
		"a run before its day":               {func(k *run.Retention) { k.Runs = 10 }, past{days: 9}, everything},
		"a run after its day":                {func(k *run.Retention) { k.Runs = 10 }, past{days: 10}, ""},
		"a failed run after its day":         {func(k *run.Retention) { k.Runs = 10 }, past{days: 10, result: run.Failed}, ""},
		"a pinned run":                       {func(k *run.Retention) { *k = shortest }, past{days: 3000, pinned: true}, everything},
		"a running run":                      {func(k *run.Retention) { *k = shortest }, past{days: 3000, running: true, specs: 2}, everything},
		"artifacts of passed, after":         {func(k *run.Retention) { k.PassedArtifacts, k.FailedArtifacts = 7, 30 }, past{days: 8}, "run output"},
		"artifacts of passed, before":        {func(k *run.Retention) { k.PassedArtifacts, k.FailedArtifacts = 7, 30 }, past{days: 6}, everything},
		"artifacts of failed, before":        {func(k *run.Retention) { k.PassedArtifacts, k.FailedArtifacts = 7, 30 }, past{days: 8, result: run.Failed}, everything},
		"artifacts of failed, after":         {func(k *run.Retention) { k.PassedArtifacts, k.FailedArtifacts = 7, 30 }, past{days: 31, result: run.Failed}, "run output"},
		"artifacts of flaky, before":         {func(k *run.Retention) { k.PassedArtifacts, k.FailedArtifacts = 7, 30 }, past{days: 8, flaky: true}, everything},
		"artifacts of failed, passed longer": {func(k *run.Retention) { k.PassedArtifacts, k.FailedArtifacts = 30, 7 }, past{days: 8, result: run.Failed}, "run output"},
		"artifacts of failed, forever":       {func(k *run.Retention) { k.PassedArtifacts = 7 }, past{days: 3000, result: run.Failed}, everything},
		"output":                             {func(k *run.Retention) { k.Output = 5 }, past{days: 5}, "run artifacts"},
		"more than one batch":                {func(k *run.Retention) { k.Runs = 5 }, past{days: 6, specs: 90, shots: 7}, ""},
		"more artifacts than one batch":      {func(k *run.Retention) { k.PassedArtifacts = 5 }, past{days: 6, specs: 90, shots: 7}, "run output"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testkit.SQLite(t))
			w.keep(c.keep)
			c.run.shots = max(1, c.run.shots)
			id := w.record("build", c.run)
			w.sweep()
			if got := w.kept(id); got != c.want {
				t.Errorf("%q is left, want %q", got, c.want)
			}
			if again := w.sweep(); len(again.Projects) != 0 || again.Files != 0 {
				t.Errorf("a second sweep removes %+v", again)
			}
		})
	}
}

// Over the limit of bytes, the oldest artifacts are removed, and no more than necessary. Those of pinned and running
// runs stay.
func TestArtifactBytes(t *testing.T) {
	for _, limit := range []int64{0, 1, 250, 449, 450, 650, 1000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			w := newWorld(t, testkit.SQLite(t))
			w.keep(func(k *run.Retention) { k.ArtifactBytes, k.PassedArtifacts = limit, 50 })
			names := map[string]string{}
			for name, p := range map[string]past{
				"too old": {days: 60, size: 400}, "oldest": {days: 40, size: 200, result: run.Failed}, "pinned": {days: 30, size: 100, pinned: true},
				"running": {days: 20, size: 50, running: true, specs: 2}, "old": {days: 10, size: 200}, "new": {days: 1, size: 100},
			} {
				p.shots = 1
				names[name] = w.record(name, p)
			}
			w.sweep()
			var left []string
			for name, id := range names {
				if strings.Contains(w.kept(id), "artifacts") {
					left = append(left, name)
				}
			}
			slices.Sort(left)
			want := map[int64]string{0: "[new old oldest pinned running]", 1: "[pinned running]", 250: "[new pinned running]", 449: "[new pinned running]",
				450: "[new old pinned running]", 650: "[new old oldest pinned running]", 1000: "[new old oldest pinned running]"}[limit]
			if got := fmt.Sprint(left); got != want {
				t.Errorf("%s have artifacts, want %s", got, want)
			}
		})
	}
}

// A removed run leaves its deliveries: pending ones are sent, and the log has its own retention. Its events are
// removed with the last delivery.
func TestDeliveriesOutliveTheirRun(t *testing.T) {
	onEachWorld(t, func(t *testing.T, w *world) {
		w.keep(func(k *run.Retention) { k.Runs, k.Deliveries = 5, 20 })
		first := endpointOf(w)
		second := endpointOf(w)
		id := w.recordNow("build")
		w.deliver(first, 0)
		testkit.Age(w, w.db, id, 6*day)
		if n := w.sweep().Projects["shop"].Runs; n != 1 || w.kept(id) != "" {
			t.Fatalf("removed %d runs", n)
		}
		if a, b := w.deliveries(first), w.deliveries(second); a == 0 || a != b {
			t.Errorf("%d and %d deliveries are left", a, b)
		}
		w.before(0, func(ctx context.Context, tx *store.Tx) error {
			work, err := tx.Work(ctx, second, store.QueuePosition{}, 10, nil)
			if len(work.Claims) == 0 || len(work.Claims[0].Payload) == 0 {
				t.Errorf("what is pending cannot be sent: %+v", work.Claims)
			}
			list, _, errList := tx.Deliveries(ctx, store.DeliveryFilter{EndpointID: first}, store.Page{Limit: 10})
			ids := []string{}
			for _, d := range list {
				ids = append(ids, d.ID)
			}
			entries, errLog := tx.LogEntries(ctx, ids)
			if len(entries) != len(ids) {
				t.Errorf("the log has %d of %d", len(entries), len(ids))
			}
			return errors.Join(err, errList, errLog)
		})
		for range 2 { // the second waits for the first
			w.deliver(first, 0)
			w.deliver(second, 0)
		}
		testkit.Age(w, w.db, id, 21*day)
		w.sweep()
		if a, b := w.deliveries(first), w.deliveries(second); a+b != 0 {
			t.Errorf("%d and %d deliveries are left", a, b)
		}
	})
}

// A build that joins again after its run was removed is a new run.
func TestABuildAfterItsRun(t *testing.T) {
	onEachWorld(t, func(t *testing.T, w *world) {
		w.keep(func(k *run.Retention) { k.Runs = 5 })
		before := w.record("build", past{days: 6})
		w.sweep()
		if after := w.record("build", past{}); after == before || w.kept(after) == "" {
			t.Errorf("run %s after %s", after, before)
		}
	})
}

const noError run.Kind = -1

// A person deletes a run: at once, unless it runs or is pinned.
func TestDeleteRun(t *testing.T) {
	onEachWorld(t, func(t *testing.T, w *world) {
		w.keep(func(*run.Retention) {})
		ended, running, pinned := w.record("ended", past{shots: 2}), w.record("running", past{running: true, specs: 2}), w.record("pinned", past{pinned: true})
		for id, want := range map[string]run.Kind{ended: noError, running: run.Conflict, pinned: run.Conflict, "none": run.NotFound} {
			err := w.sweeper.DeleteRun(t.Context(), id)
			if kind := run.KindOf(err); err == nil && want != noError || err != nil && kind != want {
				t.Errorf("%s: %v, want kind %d", id, err, want)
			}
		}
		if got := w.kept(ended); got != "" {
			t.Errorf("%q is left", got)
		}
		w.sweep()
		if got := w.kept(running) + ", " + w.kept(pinned); got != "run output, run output" {
			t.Errorf("%q are left of the others", got)
		}
	})
}

// endpointOf is a new webhook of the shop.
func endpointOf(w *world) string { return testkit.Endpoint(w.T, w.db, "shop").ID }

// recordNow records a run that ends now, with its events.
func (w *world) recordNow(build string) string {
	w.Helper()
	ctx := w.Context()
	runs := lifecycle.New(w.db, "http://runbell.test", func(...string) {})
	joined, err := runs.Join(ctx, lifecycle.Join{ProjectID: "shop", CIBuildID: build, Specs: []string{"a.cy.js"}})
	if err != nil {
		w.Fatal(err)
	}
	claimed, err := runs.Claim(ctx, lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
	if err != nil {
		w.Fatal(err)
	}
	if _, err := runs.Complete(ctx, claimed.Instances[0].ID, &run.Announcement{}, run.Outcome{}); err != nil {
		w.Fatal(err)
	}
	return joined.RunID
}

func onEachWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	onEach(t, func(t *testing.T, db *store.DB) { f(t, newWorld(t, db)) })
}

// On virtual time: after runs were removed, SQLite's file gets shorter.
func TestTheFileShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const runs, output = 40, 1 << 20
		w := newWorld(t, testkit.SQLite(t))
		w.keep(func(k *run.Retention) { k.Runs = 5 })
		for n := range runs {
			w.record(fmt.Sprint("build-", n), past{days: 6})
		}
		last := w.record("last", past{})
		w.before(0, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE console_output SET text = $1`, strings.Repeat("x", output))
			return err
		})
		size := func() (bytes int) {
			w.before(0, func(ctx context.Context, tx *store.Tx) error {
				return tx.QueryRow(ctx, `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`).Scan(&bytes)
			})
			return bytes
		}
		before := size()
		w.sweep()
		time.Sleep(5 * time.Minute)
		if after := size(); before < runs*output || after > before/3 {
			t.Errorf("the file had %d bytes, and has %d after its runs were removed", before, after)
		}
		if w.kept(last) != "run output" {
			t.Error("the last run is gone, too")
		}
	})
}

// keptByMetrics is what the metrics say is kept of each project: runs, artifacts and bytes.
func (w *world) keptByMetrics() map[string][3]float64 {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	kept := map[string][3]float64{}
	for n, name := range []string{"runbell_project_runs", "runbell_project_artifacts", "runbell_project_artifact_bytes"} {
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name {
					project := m.GetLabel()[0].GetValue()
					values := kept[project]
					values[n] = m.GetGauge().GetValue()
					kept[project] = values
				}
			}
		}
	}
	return kept
}

// The files of a project that is deleted go with its runs, running and pinned ones too, and the
// metrics count what is kept.
func TestFilesOfADeletedProject(t *testing.T) {
	onEachWorld(t, func(t *testing.T, w *world) {
		testkit.Project(t, w.db, "other")
		w.record("ended", past{shots: 2, size: 20})
		w.record("running", past{shots: 1, running: true, specs: 2})
		w.record("pinned", past{shots: 3, pinned: true})
		w.record("kept", past{project: "other", shots: 2, size: 50})
		want := map[string][3]float64{"shop": {3, 6, 80}, "other": {1, 2, 100}}
		if got := w.keptByMetrics(); !maps.Equal(got, want) {
			t.Errorf("metrics say %v, want %v", got, want)
		}
		if err := w.sweeper.DeleteRuns(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		delete(want, "shop")
		if got := w.keptByMetrics(); !maps.Equal(got, want) {
			t.Errorf("after the deletion metrics say %v, want %v", got, want)
		}
		w.sweep()
		if left := testkit.Files(t, w.dir); len(left) != 2 {
			t.Errorf("these files are left: %v", left)
		}
	})
}
