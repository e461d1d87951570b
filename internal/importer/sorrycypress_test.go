package importer_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/bson"

	"runbell/internal/artifact"
	"runbell/internal/endpoint"
	"runbell/internal/importer"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// forms are those in which mongodump and mongoexport write a collection, made of
// the lines of mongoexport that are in testdata.
var forms = map[string]struct {
	file  string // of a collection, with * for its name
	write func(*testing.T, [][]byte) []byte
}{
	"mongoexport": {"*.json", func(_ *testing.T, docs [][]byte) []byte { return bytes.Join(docs, []byte("\n")) }},
	"mongoexport --jsonArray": {"*.json", func(_ *testing.T, docs [][]byte) []byte {
		return []byte("[" + string(bytes.Join(docs, []byte(",\n"))) + "]\n")
	}},
	"mongoexport --jsonFormat canonical": {"*.json", func(t *testing.T, docs [][]byte) []byte {
		var out []byte
		for _, doc := range docs {
			text, err := bson.MarshalExtJSON(document(t, doc), true, false)
			if err != nil {
				t.Fatal(err)
			}
			out = append(append(out, text...), '\n')
		}
		return out
	}},
	"mongodump": {"sorry-cypress/*.bson", dumped},
	"mongodump --gzip": {"sorry-cypress/*.bson.gz", func(t *testing.T, docs [][]byte) []byte {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := w.Write(dumped(t, docs)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return packed.Bytes()
	}},
}

func dumped(t *testing.T, docs [][]byte) (out []byte) {
	for _, doc := range docs {
		out = append(out, document(t, doc)...)
	}
	return out
}

// document is a line of mongoexport as BSON.
func document(t *testing.T, line []byte) bson.Raw {
	t.Helper()
	var fields bson.D
	if err := bson.UnmarshalExtJSON(line, false, &fields); err != nil {
		t.Fatal(err)
	}
	raw, err := bson.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// dump writes the collections of testdata in a form.
func dump(t *testing.T, form string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"projects", "runs", "instances"} {
		text, err := os.ReadFile("testdata/dump/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, strings.Replace(forms[form].file, "*", name, 1))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, forms[form].write(t, bytes.Split(bytes.TrimSpace(text), []byte("\n"))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func options(db *store.DB) importer.Options {
	return importer.Options{DB: db, Runs: lifecycle.New(db, "http://runbell.test", func(...string) {}),
		Endpoints: endpoint.New(db, "http://runbell.test", func(string) error { return nil }, func(...string) {}), Progress: func(importer.Report) {}}
}

// summary is what people see of the imported runs.
func summary(t *testing.T, db *store.DB) string {
	t.Helper()
	var out []map[string]any
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		runs, _, err := tx.Runs(ctx, "acme/shop", store.RunFilter{}, store.Page{Limit: 100})
		for _, r := range runs {
			counts, err := tx.RunCounts(ctx, r.ID)
			if err != nil {
				return err
			}
			groups, err := tx.Groups(ctx, r.ID)
			if err != nil {
				return err
			}
			names := []string{}
			for _, g := range groups {
				names = append(names, g.Name)
			}
			out = append(out, map[string]any{"id": r.ID, "build": r.CIBuildID, "branch": r.Commit.Branch, "state": r.State, "began": r.CreatedAt, "ended": r.FinishedAt,
				"passes": counts.Passes, "failures": counts.Failures, "skipped": counts.Skipped, "pending": counts.Pending, "flaky": counts.Flaky, "groups": names})
		}
		return err
	})
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSorryCypress: every form of the dump gives the same runs, with the times,
// results and ids of then.
func TestSorryCypress(t *testing.T) {
	want, err := os.ReadFile("testdata/runs.golden")
	if err != nil {
		t.Fatal(err)
	}
	for form := range forms {
		t.Run(form, func(t *testing.T) {
			db := testkit.SQLite(t)
			report, err := importer.SorryCypress(t.Context(), dump(t, form), options(db))
			if err != nil {
				t.Fatal(err)
			}
			if report.Projects != 1 || report.Runs != 3 || report.Specs != 11 || report.Before != 0 {
				t.Errorf("the report: %+v", report)
			}
			if got := summary(t, db); got != strings.TrimSpace(string(want)) {
				t.Errorf("the runs:\n%s", got)
			}
			if problems := strings.Join(report.Problems, "\n"); !strings.Contains(problems, "SLACK_HOOK") || len(report.Problems) != 1 {
				t.Errorf("the problems:\n%s", problems)
			}
		})
	}
}

// TestSorryCypressDetails: what a person looks for in an old run is there, and
// secrets are not.
func TestSorryCypressDetails(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		if _, err := importer.SorryCypress(t.Context(), dump(t, "mongodump"), options(db)); err != nil {
			t.Fatal(err)
		}
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			i, err := tx.SpecInstance(ctx, "9bfeb7cac38246087cf21492be358778", "chrome-e2e", "cypress/e2e/b_fail.cy.js")
			if err != nil {
				return err
			}
			if want := time.Date(2025, 3, 4, 9, 0, 0, 784e6, time.UTC); !i.CompletedAt.Equal(want) || i.Counts.Failures != 1 {
				t.Errorf("the spec was completed at %s with %d failures, want %s and 1", i.CompletedAt, i.Counts.Failures, want)
			}
			tests, outcome, err := tx.Tests(ctx, i.ID)
			if err != nil {
				return err
			}
			if len(tests.Tests) != 2 || tests.Tests[1].Title[1] != "fails" || tests.Settings.Video == nil || !*tests.Settings.Video {
				t.Errorf("the tests: %+v", tests)
			}
			if len(outcome.Results[1].Attempts) != 3 || outcome.Results[1].Attempts[0].Error.Message == "" || len(outcome.Screenshots) == 0 {
				t.Errorf("the results: %+v", outcome)
			}
			if text, _ := json.Marshal(tests); strings.Contains(string(text), "not-to-be-imported") {
				t.Error("a value of the environment is in the database")
			}
			if p, err := tx.Project(ctx, "acme/shop"); err != nil || p.Keep.Runs != 0 || p.Keep.FailedArtifacts != 0 || p.InactivityTimeout != 3*time.Minute {
				t.Errorf("the project: %+v, %v", p, err)
			}
			hooks, err := tx.Endpoints(ctx, "acme/shop")
			if len(hooks) != 1 || hooks[0].Enabled || hooks[0].Headers["x-team"] != "shop" || len(hooks[0].Events) != 2 {
				t.Errorf("the webhooks: %+v", hooks)
			}
			return err
		})
	})
}

// TestSorryCypressAgain: an import that was stopped anywhere, and repeated, gives
// the same as one that was not.
func TestSorryCypressAgain(t *testing.T) {
	want, err := os.ReadFile("testdata/runs.golden")
	if err != nil {
		t.Fatal(err)
	}
	db, dir := testkit.SQLite(t), dump(t, "mongodump")
	for range 3 { // while the others are at work, the first that is done stops all
		ctx, cancel := context.WithCancel(t.Context())
		o := options(db)
		o.Progress = func(r importer.Report) {
			if r.Runs > 0 {
				cancel()
			}
		}
		_, err := importer.SorryCypress(ctx, dir, o)
		if stopped := ctx.Err() != nil; stopped != (err != nil) {
			t.Fatalf("stopped: %v, error: %v", stopped, err)
		}
		cancel()
	}
	if _, err := importer.SorryCypress(t.Context(), dir, options(db)); err != nil {
		t.Fatal(err)
	}
	report, err := importer.SorryCypress(t.Context(), dir, options(db))
	if err != nil || report.Before != 3 || report.Runs != 0 {
		t.Errorf("once more: %+v, %v", report, err)
	}
	if got := summary(t, db); got != strings.TrimSpace(string(want)) {
		t.Errorf("the runs:\n%s", got)
	}
}

// TestSorryCypressFiles: screenshots and videos are copied by the ends of their
// addresses, once, and what is missing is named.
func TestSorryCypressFiles(t *testing.T) {
	db, dir, bucket := testkit.SQLite(t), dump(t, "mongodump"), t.TempDir()
	o := options(db)
	files := artifact.NewDisk(filepath.Join(t.TempDir(), "artifacts"))
	o.Artifacts = artifact.New(artifact.Options{DB: db, Store: files, Secret: make([]byte, 32), PublicURL: "http://runbell.test", Max: 1 << 20,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	o.Files = artifact.NewDisk(bucket)
	first, err := importer.SorryCypress(t.Context(), dir, o)
	if err != nil || first.Files != 0 {
		t.Fatalf("without the files: %+v, %v", first, err)
	}
	named := regexp.MustCompile(`https://\S+/sorry-cypress/(\S+)`).FindAllStringSubmatch(strings.Join(first.Problems, "\n"), -1)
	if len(named) < 2 {
		t.Fatalf("the problems do not name the files: %q", first.Problems)
	}
	for i, name := range named[1:] {
		if err := os.WriteFile(filepath.Join(bucket, name[1]), fmt.Appendf(nil, "file %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second, err := importer.SorryCypress(t.Context(), dir, o)
	if err != nil || second.Files != len(named)-1 || second.Before != 3 || len(second.Problems) != 1 {
		t.Fatalf("with %d of them: %+v, %v", len(named)-1, second, err)
	}
	if third, err := importer.SorryCypress(t.Context(), dir, o); err != nil || third.Files != 0 {
		t.Errorf("again: %+v, %v", third, err)
	}
	kinds := map[run.ArtifactKind]int{}
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		for _, id := range []string{"9bfeb7cac38246087cf21492be358778", "124acc30d69fe18ee9e6e5a854ce5b6d"} {
			list, err := tx.RunArtifacts(ctx, id)
			if err != nil {
				return err
			}
			for _, a := range list {
				if a.FileKey != "" {
					kinds[a.Kind]++
				}
			}
			r, err := tx.Run(ctx, id)
			if err != nil || r.State != run.Finished || r.FinishedAt.Year() != 2025 {
				t.Errorf("run %s is %s since %s, %v", id, r.State, r.FinishedAt, err)
			}
		}
		return nil
	})
	if kinds[run.ScreenshotArtifact]+kinds[run.VideoArtifact] != len(named)-1 || kinds[run.VideoArtifact] == 0 {
		t.Errorf("artifacts: %v", kinds)
	}
}

// TestRunsThatWillBeRemoved: where a project exists that keeps runs for less long
// than the history goes back, the import says so.
func TestRunsThatWillBeRemoved(t *testing.T) {
	db := testkit.SQLite(t)
	testkit.Project(t, db, "acme/shop")
	report, err := importer.SorryCypress(t.Context(), dump(t, "mongodump"), options(db))
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) != 1 || !strings.Contains(report.Problems[0], "raise runDays first") {
		t.Errorf("the problems: %q", report.Problems)
	}
}

func TestNoDump(t *testing.T) {
	text := t.TempDir()
	if err := os.WriteFile(filepath.Join(text, "runs.bson"), []byte("this is a text, and no BSON at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	cut := dump(t, "mongodump")
	runs := filepath.Join(cut, "sorry-cypress", "runs.bson")
	info, err := os.Stat(runs)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(runs, info.Size()-10); err != nil {
		t.Fatal(err)
	}
	twice := dump(t, "mongodump")
	if err := os.WriteFile(filepath.Join(twice, "runs.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := t.TempDir()
	if err := os.WriteFile(filepath.Join(list, "runs.json"), []byte("[1, 2]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, dir := range map[string]string{
		"no runs.bson or runs.json": t.TempDir(),
		"not BSON":                  text,
		"middle of a document":      cut,
		"both there":                twice,
		"not a list of documents":   list,
	} {
		_, err := importer.SorryCypress(t.Context(), dir, options(testkit.SQLite(t)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestOddRuns: what cannot be imported is named, and the rest is imported.
func TestOddRuns(t *testing.T) {
	dir := t.TempDir()
	runs := `{"runId":"` + strings.Repeat("a", 32) + `","createdAt":"2025-03-04T09:00:00.000Z","meta":{"ciBuildId":"b","projectId":"shop"},"specs":[{"spec":"a.cy.js","groupId":"b","instanceId":"i1","claimedAt":"2025-03-04T09:00:01.000Z","completedAt":"2025-03-04T09:00:02.000Z"}]}
{"runId":"no-time","meta":{"ciBuildId":"c","projectId":"shop"},"specs":[]}
{"runId":"no-project","createdAt":"2025-03-04T09:00:00.000Z","meta":{"ciBuildId":"c"},"specs":[]}
{"runId":7,"specs":{}}
{"runId":"no-specs","createdAt":"2025-03-04T09:00:00.000Z","meta":{"ciBuildId":"d","projectId":"shop"},"specs":[]}
`
	if err := os.WriteFile(filepath.Join(dir, "runs.json"), []byte(runs), 0o600); err != nil {
		t.Fatal(err)
	}
	db := testkit.SQLite(t)
	report, err := importer.SorryCypress(t.Context(), dir, options(db))
	if err != nil {
		t.Fatal(err)
	}
	if report.Runs != 1 || len(report.Problems) != 4 {
		t.Errorf("%d runs, problems:\n%s", report.Runs, strings.Join(report.Problems, "\n"))
	}
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		r, err := tx.Run(ctx, strings.Repeat("a", 32))
		if r.State != run.Finished {
			t.Errorf("the run is %s", r.State)
		}
		warnings, err2 := tx.Warnings(ctx, r.ID)
		if len(warnings) != 1 || !strings.Contains(warnings[0].Message, "a.cy.js") {
			t.Errorf("the warnings: %+v, %v", warnings, err2)
		}
		return err
	})
}
