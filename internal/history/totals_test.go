package history

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// TestTotalsTakeWhatIsCounted: the bytes that an explorer counts are at least those that it holds.
func TestTotalsTakeWhatIsCounted(t *testing.T) {
	const days, specs, tests = 12, 150, 20
	ctx := context.Background()
	db := testkit.SQLite(t)
	testkit.Project(t, db, "p")
	at := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for n := range days {
		id := fmt.Sprint("r", n)
		if err := db.Write(ctx, func(tx *store.Tx) error {
			if _, err := tx.InsertRun(ctx, run.Run{ID: id, ProjectID: "p", CIBuildID: id, State: run.Running, RunningGroups: 1, CreatedAt: at.AddDate(0, 0, n)}); err != nil {
				return err
			}
			var packed []byte
			for s := range specs {
				e := Execution{Summary: Summary{Position: s, Spec: s + 1}}
				for i := range tests {
					e.Results = append(e.Results, Result{Test: s*tests + i + 1, State: failed, Attempts: 1, Error: i + 1})
				}
				packed = pack(packed, e)
			}
			return setResults(ctx, tx, store.HistoryPart{RunID: id, Group: "g"}, packed)
		}); err != nil {
			t.Fatal(err)
		}
	}
	filter := store.HistoryFilter{Since: at, Until: at.AddDate(0, 0, days)}
	for name, ask := range map[string]func(*Explorer, *store.Tx) error{
		"tests": func(x *Explorer, tx *store.Tx) error { _, err := x.tallyTests(ctx, tx, "p", filter); return err },
		"specs": func(x *Explorer, tx *store.Tx) error {
			_, err := x.tallySpecs(ctx, tx, "p", SpecQuery{Filter: filter})
			return err
		},
		"errors": func(x *Explorer, tx *store.Tx) error {
			return x.eachErrorDay(ctx, tx, "p", filter, func(*occurrences) {})
		},
	} {
		x := NewExplorer().RememberFrom(1)
		if err := db.Read(ctx, func(tx *store.Tx) error { return ask(NewExplorer(), tx) }); err != nil { // what the first question leaves elsewhere
			t.Fatal(err)
		}
		before := inUse()
		if err := db.Read(ctx, func(tx *store.Tx) error { return ask(x, tx) }); err != nil {
			t.Fatal(err)
		}
		held := inUse() - before
		if len(x.totals) != days || held > int64(x.bytes)*11/10 {
			t.Errorf("%d totals of %s take %d bytes, and are counted as %d", len(x.totals), name, held, x.bytes)
		}
		runtime.KeepAlive(x)
	}
}

// inUse is how many bytes are in use.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
