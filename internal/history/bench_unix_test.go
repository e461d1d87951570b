//go:build unix

package history

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

var (
	benchResults = flag.Int("results", 100_000, "how many results BenchmarkExplorers has, over 90 days")
	benchRuns    = flag.Int("runs", 0, "how many runs they are of; 0: each run has 10,000 results")
)

const (
	benchDays   = 90
	benchTests  = 10 // of a spec
	benchGroups = 2
	// documented is how many of the latest runs have the documents of their specs, for
	// what reads attempts.
	documented = 12
)

// generated is a random history, the same each time.
type generated struct {
	db     *store.DB
	rng    *rand.Rand
	worker *Worker
	until  time.Time
	specs  int
	// signatures are those of the tests, which every run has.
	signatures []string
	asked      int
	latest     run.Run
}

// test is another test for each question, because real questions differ.
func (g *generated) test() string {
	g.asked++
	return g.signatures[g.asked*577%len(g.signatures)]
}

// generate fills a project with history, a run in a transaction.
func generate(b *testing.B, db *store.DB) *generated {
	runs := *benchRuns
	if runs == 0 {
		runs = max(1, *benchResults/10_000)
	}
	g := &generated{db: db, worker: NewWorker(db, slog.New(slog.DiscardHandler), prometheus.NewRegistry()), rng: rand.New(rand.NewPCG(1, 2)), until: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), specs: max(1, *benchResults/runs/benchGroups/benchTests)}
	testkit.Project(b, db, "shop", func(p *run.Project) { p.DefaultBranch = "main" })
	var specNames, testNames, errorNames []store.HistoryName
	for s := range g.specs {
		specNames = append(specNames, store.HistoryName{Key: specPath(s)})
		for n := range benchTests {
			title, _ := json.Marshal(testTitle(s, n))
			signature := run.Signature("shop", specPath(s), testTitle(s, n))
			testNames = append(testNames, store.HistoryName{Key: signature, Spec: s + 1, Text: string(title)})
			g.signatures = append(g.signatures, signature)
		}
	}
	for n := range 500 {
		errorNames = append(errorNames, store.HistoryName{Key: fmt.Sprint("fingerprint", n), Text: fmt.Sprint("AssertionError: number ", n, " of many is not what the page shows")})
	}
	testkit.Write(b, db, func(ctx context.Context, tx *store.Tx) error {
		for kind, names := range map[store.NameKind][]store.HistoryName{store.SpecName: specNames, store.TestName: testNames, store.ErrorName: errorNames} {
			if _, err := tx.NumberNames(ctx, "shop", kind, names); err != nil {
				return err
			}
		}
		return nil
	})
	for n := range runs {
		g.run(b, n, runs)
	}
	g.catch(b)
	return g
}

// catch packs what the runs with documents left for the worker.
func (g *generated) catch(b *testing.B) {
	if err := g.worker.Catch(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkWorker measures what the worker takes for a spec with 10 tests.
func BenchmarkWorker(b *testing.B) {
	g := generate(b, testkit.SQLite(b))
	runs, specs := 0, 0
	var busy time.Duration
	for b.Loop() {
		runs++
		g.run(b, 1000+runs, 0)
		specs += g.specs * benchGroups
		before := processors(b)
		g.catch(b)
		busy += processors(b) - before
	}
	b.ReportMetric(float64(busy.Microseconds())/float64(specs), "cpu-µs/spec")
}

func specPath(s int) string { return fmt.Sprintf("cypress/e2e/area-%d/feature-%d.cy.ts", s%20, s) }

func testTitle(s, n int) []string {
	return []string{fmt.Sprintf("feature %d", s), fmt.Sprintf("does what people expect in case %d", n)}
}

func (g *generated) run(b *testing.B, n, of int) {
	branch := "main"
	if g.rng.IntN(10) < 6 {
		branch = fmt.Sprint("feature/", g.rng.IntN(200))
	}
	at := g.until.Add(-time.Duration(of-n) * (benchDays * 24 * time.Hour / time.Duration(max(1, of))))
	r := run.Run{ID: fmt.Sprintf("%032x", n), ProjectID: "shop", CIBuildID: fmt.Sprint("build-", n), CreatedAt: at, RunningGroups: benchGroups,
		Tags: []string{fmt.Sprint("tag-", g.rng.IntN(5)), "e2e"}, Commit: run.Commit{SHA: fmt.Sprintf("%040x", n), Branch: branch, AuthorName: fmt.Sprint("Author ", g.rng.IntN(20)), Message: "Change something"}}
	testkit.Write(b, g.db, func(ctx context.Context, tx *store.Tx) error {
		tx.Now = at
		if _, err := tx.InsertRun(ctx, r); err != nil {
			return err
		}
		for group := range benchGroups {
			if err := g.group(ctx, tx, r, fmt.Sprint("browser-", group), n >= of-documented); err != nil {
				return err
			}
		}
		r.State, r.RunningGroups, r.FinishedAt = run.Finished, 0, at.Add(10*time.Minute)
		return tx.UpdateRun(ctx, r)
	})
	g.latest = r
}

// group stores a group with its packed results, and with documents if they are wanted.
func (g *generated) group(ctx context.Context, tx *store.Tx, r run.Run, name string, documents bool) error {
	group := run.Group{RunID: r.ID, Name: name, Explicit: true, Specs: g.specs, CreatedAt: r.CreatedAt, HeardAt: r.CreatedAt, InactivityTimeout: time.Hour}
	if err := tx.InsertGroup(ctx, group); err != nil {
		return err
	}
	parts := map[int][]byte{}
	var instances []run.Instance
	for s := range g.specs {
		e := Execution{Summary: Summary{Position: s, Spec: s + 1, Duration: int64(5000 + g.rng.IntN(60_000)), Complete: true}}
		for n := range benchTests {
			e.Results = append(e.Results, g.result(s*benchTests+n+1))
		}
		part := s / store.HistoryPartSpecs
		parts[part] = pack(parts[part], e)
		instances = append(instances, run.Instance{ID: fmt.Sprint(r.ID, name, s), RunID: r.ID, GroupName: name, Spec: specPath(s), Position: s})
	}
	for part, packed := range parts {
		if err := setResults(ctx, tx, store.HistoryPart{RunID: r.ID, Group: name, Part: part}, packed); err != nil {
			return err
		}
	}
	group.State, group.FinishedAt, group.Completed, group.Claimed = run.Finished, r.CreatedAt.Add(10*time.Minute), g.specs, g.specs
	group.Counts = run.Counts{Passes: g.specs * benchTests * 97 / 100, Failures: g.specs * benchTests * 3 / 100}
	if err := tx.UpdateGroup(ctx, group); err != nil || !documents {
		return err
	}
	return g.documents(ctx, tx, name, instances)
}

func (g *generated) result(test int) Result {
	r := Result{Test: test, Attempts: 1, Duration: int64(200 + g.rng.IntN(5000))}
	switch n := g.rng.IntN(1000); {
	case n < 20:
		r.State, r.Attempts, r.Error = failed, 3, 1+g.rng.IntN(500)
	case n < 30:
		r.Attempts, r.Error = 2, 1+g.rng.IntN(500)
	case n < 40:
		r.State, r.Attempts = pending, 0
	}
	return r
}

func (g *generated) documents(ctx context.Context, tx *store.Tx, group string, instances []run.Instance) error {
	if err := tx.InsertInstances(ctx, instances); err != nil {
		return err
	}
	machine := run.Machine{ID: group, RunID: instances[0].RunID, GroupName: group, JoinedAt: tx.Now}
	if err := tx.InsertMachine(ctx, machine); err != nil {
		return err
	}
	for s, i := range instances {
		var a run.Announcement
		var o run.Outcome
		for n := range benchTests {
			id := fmt.Sprint("r", n)
			a.Tests = append(a.Tests, run.Announced{ID: id, Title: testTitle(s, n), Body: "() => { cy.visit('/'); cy.contains('Welcome') }"})
			o.Results = append(o.Results, run.Result{ID: id, State: run.Passed, Attempts: []run.Attempt{{State: run.Passed, Duration: 900}}})
		}
		announcement, _ := json.Marshal(a)
		outcome, _ := json.Marshal(o)
		i.AnnouncedAt, i.CompletedAt = tx.Now, tx.Now
		if err := tx.ClaimInstance(ctx, machine, 1, i); err != nil {
			return err
		}
		if err := tx.AnnounceInstance(ctx, i, string(announcement)); err != nil {
			return err
		}
		if err := tx.CompleteInstance(ctx, i, string(outcome)); err != nil {
			return err
		}
	}
	return nil
}

// processors is how long the process has kept processors busy. On a busy machine it tells more than the clock does.
// It does not include PostgreSQL.
func processors(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sizes says how large the database is.
func (g *generated) sizes(b *testing.B) {
	question := `SELECT 'all tables', page_count * page_size FROM pragma_page_count(), pragma_page_size()`
	if g.db.Shared() {
		question = `SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
			ORDER BY 2 DESC LIMIT 6`
	}
	testkit.Read(b, g.db, func(ctx context.Context, tx *store.Tx) error {
		rows, err := tx.Query(ctx, question)
		_, err = database.All(rows, err, func(r database.Row) (table string, err error) {
			var size int64
			err = r.Scan(&table, &size)
			b.Logf("%s: %.1f MB", table, float64(size)/1e6)
			return table, err
		})
		return err
	})
	b.Logf("of which the latest %d runs have documents, with %d results", documented, documented*g.specs*benchTests*benchGroups)
}

// BenchmarkExplorers measures each call over 30 of 90 days, and reports how long the first
// one took, and the 95th percentile. With -results 10000000 it takes minutes to prepare.
func BenchmarkExplorers(b *testing.B) {
	for _, kind := range []struct {
		name string
		open func(testing.TB) *store.DB
	}{
		{"sqlite", testkit.SQLite},
		{"postgres", func(t testing.TB) *store.DB { return testkit.Open(t, testkit.Migrated(t)) }},
	} {
		b.Run(kind.name, func(b *testing.B) {
			g := generate(b, kind.open(b))
			g.sizes(b)
			x := NewExplorer()
			month := store.HistoryFilter{Since: g.until.AddDate(0, 0, -30), Until: g.until}
			onMain, narrow := month, month
			onMain.Branches = []string{"main"}
			narrow.Branches, narrow.Groups, narrow.Tags = []string{"main"}, []string{"browser-1"}, []string{"tag-1"}
			tagged, all := month, month
			tagged.Tags, all.Since = []string{"e2e"}, g.until.AddDate(-1, 0, 0)
			tests := func(q TestQuery) func(context.Context, *store.Tx) error {
				q.States, q.Limit = DefaultStates(), 50
				return func(ctx context.Context, tx *store.Tx) error {
					_, _, err := x.Tests(ctx, tx, "shop", q)
					return err
				}
			}
			for _, call := range []struct {
				name string
				f    func(context.Context, *store.Tx) error
			}{
				{"tests", tests(TestQuery{Filter: month, Order: ByTitle})},
				{"tests-flakiest-of-main", tests(TestQuery{Filter: onMain, Order: ByFlakinessVolume})},
				{"tests-by-delta", tests(TestQuery{Filter: month, Order: ByFailureDelta})},
				{"tests-three-filters", tests(TestQuery{Filter: narrow, Order: ByFailures})},
				{"tests-of-a-tag-of-all", tests(TestQuery{Filter: tagged, Order: ByFailures})},
				{"tests-over-90-days", tests(TestQuery{Filter: all, Order: ByFailures})},
				{"specs", func(ctx context.Context, tx *store.Tx) error {
					_, _, err := x.Specs(ctx, tx, "shop", SpecQuery{Filter: month, Order: ByAvgDuration, Limit: 50})
					return err
				}},
				{"errors", func(ctx context.Context, tx *store.Tx) error {
					_, err := x.Errors(ctx, tx, "shop", ErrorQuery{Filter: month, Order: ByCount, TopBy: ByCount, Top: 5, Limit: 50})
					return err
				}},
				{"insights", func(ctx context.Context, tx *store.Tx) error {
					_, _, err := Insights(ctx, tx, "shop", month, Daily)
					return err
				}},
				{"results-of-a-test", func(ctx context.Context, tx *store.Tx) error {
					_, _, err := Results(ctx, tx, g.test(), ResultQuery{Filter: month}, store.Page{Limit: 20})
					return err
				}},
				{"page-of-a-test", func(ctx context.Context, tx *store.Tx) error {
					_, err := TraceTest(ctx, tx, "shop", g.test(), month)
					return err
				}},
				{"page-of-an-error", func(ctx context.Context, tx *store.Tx) error {
					g.asked++
					_, err := x.TraceError(ctx, tx, "shop", fmt.Sprint("fingerprint", g.asked%500), month)
					return err
				}},
				{"newest-failures", func(ctx context.Context, tx *store.Tx) error {
					_, err := LatestOf(ctx, tx, "shop", month, 10)
					return err
				}},
				{"comparison", func(ctx context.Context, tx *store.Tx) error {
					_, err := CompareRun(ctx, tx, g.latest, "main")
					return err
				}},
			} {
				b.Run(call.name, func(b *testing.B) {
					var times []time.Duration
					busy := processors(b)
					for b.Loop() {
						began := time.Now()
						testkit.Read(b, g.db, call.f)
						times = append(times, time.Since(began))
					}
					b.ReportMetric(float64((processors(b)-busy).Microseconds())/1000/float64(len(times)), "cpu-ms/op")
					b.ReportMetric(float64(times[0].Microseconds())/1000, "first-ms")
					slices.Sort(times)
					b.ReportMetric(float64(times[len(times)*95/100].Microseconds())/1000, "p95-ms")
				})
			}
		})
	}
}
