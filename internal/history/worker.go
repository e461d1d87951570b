package history

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	// every is the time between two looks for due results, so that results of one group are packed together.
	every = 2 * time.Second
	// lookAhead is how many due results one look finds the parts of.
	lookAhead = 1000
	// batch limits how many specs one transaction packs.
	batch = 64
	// namesAtOnce limits how many names one transaction gives numbers to.
	namesAtOnce = 128
)

// Worker packs results that are due in the history. Any number of processes may run one on the same database: the
// transaction that packs the results of a spec clears its mark, so each is packed once, even if a process dies.
type Worker struct {
	db     *store.DB
	log    *slog.Logger
	lag    prometheus.Gauge
	packed prometheus.Counter

	mu      sync.Mutex // one part is packed at a time
	numbers numbers
}

// NewWorker makes a worker, which registers its metrics.
func NewWorker(db *store.DB, log *slog.Logger, metrics prometheus.Registerer) *Worker {
	w := &Worker{db: db, log: log, numbers: numbers{},
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "runbell_history_lag_seconds",
			Help: "Age of the oldest results that are not in the history yet; 0 if there are none."}),
		packed: prometheus.NewCounter(prometheus.CounterOpts{Name: "runbell_history_specs_total",
			Help: "Specs whose results this process has added to the history."})}
	metrics.MustRegister(w.lag, w.packed)
	return w
}

// Run works until ctx ends. Each time it has packed what was due, it calls then.
func (w *Worker) Run(ctx context.Context, then func(context.Context) error) {
	for {
		if err := w.Catch(ctx); err != nil && ctx.Err() == nil {
			w.log.Error("cannot add results to the history, trying again", "error", err)
		}
		if err := then(ctx); err != nil && ctx.Err() == nil {
			w.log.Error("cannot find out which tests have become flaky or broken, trying again", "error", err)
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
	}
}

// Catch packs everything that is due now.
func (w *Worker) Catch(ctx context.Context) error {
	for ctx.Err() == nil {
		var parts []store.HistoryPart
		err := w.db.Read(ctx, func(tx *store.Tx) (err error) {
			var oldest time.Time
			parts, oldest, err = tx.HistoryDue(ctx, lookAhead)
			w.lag.Set(0)
			if err == nil && !oldest.IsZero() {
				w.lag.Set(tx.Now.Sub(oldest).Seconds())
			}
			return err
		})
		if err != nil || len(parts) == 0 {
			return err
		}
		if w.db.Shared() { // other workers look at the same parts
			rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		}
		var failed []error // a part that fails does not delay the others
		for _, p := range parts {
			failed = append(failed, w.pack(ctx, p))
		}
		if err := errors.Join(failed...); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// CatchRun packs everything of a run that is due now, before that of others.
func (w *Worker) CatchRun(ctx context.Context, runID string) error {
	for ctx.Err() == nil {
		var parts []store.HistoryPart
		err := w.db.Read(ctx, func(tx *store.Tx) (err error) {
			parts, err = tx.HistoryDueOf(ctx, runID)
			return err
		})
		if err != nil || len(parts) == 0 {
			return err
		}
		for _, p := range parts {
			if err := w.pack(ctx, p); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// pack packs the next results of a part that are due. Documents are read, and names get
// their numbers, before the transaction that writes, so that others need not wait for it.
func (w *Worker) pack(ctx context.Context, p store.HistoryPart) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var due []store.DueResults
	var since time.Time
	err := w.db.Read(ctx, func(tx *store.Tx) (err error) {
		if due, err = tx.DueResults(ctx, p, batch); err == nil && len(due) > 0 {
			since, err = tx.NumbersSince(ctx, due[0].ProjectID)
		}
		return err
	})
	if err != nil || len(due) == 0 {
		return err
	}
	known := make(map[string]facts, len(due))
	for n, d := range due {
		known[d.InstanceID] = read(d)
		due[n].Announcement, due[n].Outcome = run.Announcement{}, run.Outcome{} // which may be large
	}
	packed := 0
	names, err := w.number(ctx, p.RunID, due[0].ProjectID, since, known)
	if err == nil {
		err = w.db.Write(ctx, func(tx *store.Tx) error {
			packed = 0
			if _, err := tx.LockRun(ctx, p.RunID); err != nil {
				return err
			}
			taken, err := tx.TakeDue(ctx, due)
			if err != nil || len(taken) == 0 {
				return err
			}
			packed = len(taken)
			return add(ctx, tx, p, taken, known, names)
		})
	}
	if run.KindOf(err) == run.NotFound {
		return nil // deleted meanwhile
	}
	if err == nil {
		w.packed.Add(float64(packed))
	}
	return err
}

// number gives numbers to the names of results, some at a time: the first results of a project name thousands of
// tests, and all other writers would wait for one transaction with all of them. As long as the run is there, so are
// the numbers.
func (w *Worker) number(ctx context.Context, runID, projectID string, since time.Time,
	results map[string]facts) (*projectNumbers, error) {
	names := w.numbers.of(projectID, since)
	err := names.learn(results, func(kind store.NameKind, unknown []store.HistoryName) error {
		for some := range slices.Chunk(unknown, namesAtOnce) {
			var given map[string]int
			if err := w.db.Write(ctx, func(tx *store.Tx) error {
				_, err := tx.LockRun(ctx, runID)
				if err != nil {
					return err
				}
				given, err = tx.NumberNames(ctx, projectID, kind, some)
				return err
			}); err != nil {
				return err
			}
			maps.Copy(names.byKind[kind], given)
		}
		return nil
	})
	if err == nil {
		w.numbers.keep(projectID, names)
	}
	return names, err
}

// facts are the results of a spec with names, before they have numbers.
type facts struct {
	Execution // without the numbers
	spec      string
	exception *store.HistoryName
	tests     []store.HistoryName
	errors    []*store.HistoryName // of each test, nil if it has none
}

// read extracts from the documents of a spec what the history keeps.
func read(d store.DueResults) facts {
	f := facts{spec: d.Spec, Execution: Execution{Summary: Summary{Position: d.Position,
		Duration: d.Duration.Milliseconds(), Complete: true}}}
	for _, t := range run.Tests(d.Announcement, d.Outcome) {
		if !t.Done {
			f.Complete = false
			continue
		}
		r := resultOf(t)
		var name *store.HistoryName
		if failure, any := t.Failure(); any && (r.State == failed || r.Flaky()) {
			name = errorName(failure.Text())
		}
		title, err := json.Marshal(t.Title)
		if err != nil {
			panic("history: titles do not encode: " + err.Error())
		}
		f.Results = append(f.Results, r)
		f.tests = append(f.tests, store.HistoryName{Key: run.Signature(d.ProjectID, d.Spec, t.Title), Text: string(title)})
		f.errors = append(f.errors, name)
	}
	if f.summarize(); d.Exception != "" && !f.Failed {
		f.Crashed, f.exception = true, errorName(d.Exception)
	}
	return f
}

// resultOf is a result without numbers.
func resultOf(t run.Test) Result {
	r := Result{State: stateOf(t.Result.State), Attempts: len(t.Result.Attempts), Duration: t.Result.Duration}
	if len(t.Result.Attempts) > 0 {
		r.Duration = 0
		for _, a := range t.Result.Attempts {
			r.Duration += a.Duration
		}
	}
	return r
}

// errorName is nil for an error that says nothing.
func errorName(text string) *store.HistoryName {
	print := run.Fingerprint(text)
	if print == "" {
		return nil
	}
	return &store.HistoryName{Key: print, Text: run.Headline(text)}
}

// add packs results. Results that were reset are removed.
func add(ctx context.Context, tx *store.Tx, p store.HistoryPart, taken []store.DueResults, known map[string]facts,
	names *projectNumbers) error {
	changes := map[int]*Execution{}
	for _, d := range taken {
		changes[d.Position] = nil
		if !d.CompletedAt.IsZero() {
			changes[d.Position] = known[d.InstanceID].numbered(names)
		}
	}
	packed, err := tx.HistoryResults(ctx, p)
	if err != nil {
		return err
	}
	if packed, err = repack(packed, changes); err != nil {
		return err
	}
	return setResults(ctx, tx, p, packed)
}

// setResults stores packed results.
func setResults(ctx context.Context, tx *store.Tx, p store.HistoryPart, packed []byte) error {
	contents, err := contentsOf(packed)
	if err != nil {
		return err
	}
	return tx.SetHistoryResults(ctx, p, packed, contents)
}

// numbered is the execution with the numbers of its names.
func (f facts) numbered(names *projectNumbers) *Execution {
	e := f.Execution
	e.Spec = names.byKind[store.SpecName][f.spec]
	if f.exception != nil {
		e.Error = names.byKind[store.ErrorName][f.exception.Key]
	}
	e.Results = make([]Result, len(f.Results))
	for i, r := range f.Results {
		r.Test = names.byKind[store.TestName][f.tests[i].Key]
		if f.errors[i] != nil {
			r.Error = names.byKind[store.ErrorName][f.errors[i].Key]
		}
		e.Results[i] = r
	}
	return &e
}
