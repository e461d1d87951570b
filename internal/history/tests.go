package history

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// TestOrder is what tests are ordered by.
type TestOrder string

// The orders of tests. A volume is a rate or a duration times the executions; a delta
// is the change since the period of the same length before, 0 where the test did not
// run in both.
const (
	ByTitle           TestOrder = "title"
	ByExecutions      TestOrder = "executions"
	ByFailures        TestOrder = "failures"
	ByPasses          TestOrder = "passes"
	ByFlakiness       TestOrder = "flakiness"
	ByDuration        TestOrder = "duration"
	ByFlakinessVolume TestOrder = "flakinessXSamples"
	ByFailureVolume   TestOrder = "failRateXSamples"
	ByDurationVolume  TestOrder = "durationXSamples"
	ByFlakinessDelta  TestOrder = "flakinessRateDelta"
	ByFailureDelta    TestOrder = "failureRateDelta"
	ByDurationDelta   TestOrder = "durationDelta"
)

// TestOrders lists them.
func TestOrders() []TestOrder {
	return []TestOrder{ByTitle, ByExecutions, ByFailures, ByPasses, ByFlakiness, ByDuration, ByFlakinessVolume,
		ByFailureVolume, ByDurationVolume, ByFlakinessDelta, ByFailureDelta, ByDurationDelta}
}

// States says which states of results each number counts.
type States struct {
	Executions, AvgDuration, FlakinessRate, FailureRate []run.TestState
}

// DefaultStates count tests that ran; durations are those of passes.
func DefaultStates() States {
	ran := []run.TestState{run.Passed, run.Failed}
	return States{Executions: ran, AvgDuration: []run.TestState{run.Passed}, FlakinessRate: ran, FailureRate: ran}
}

// TestQuery asks for tests.
type TestQuery struct {
	Filter        store.HistoryFilter
	Spec, Title   string // parts of them, in any case
	MinExecutions int
	Healths       []Health
	States        States
	Order         TestOrder
	Ascending     bool
	Page          int // from 0
	Limit         int
}

// TestMetrics are the numbers of a test. Rates are from 0 to 1.
type TestMetrics struct {
	Executions, Failures, Passes, Flaky            int
	Ignored                                        int // pending or skipped
	FlakinessRate, FailureRate                     float64
	AvgDuration                                    float64 // milliseconds
	FlakinessVolume, FailureVolume, DurationVolume float64
}

// Test is a test over a period.
type Test struct {
	Signature  string
	Spec       string
	Title      []string // from the outermost suite to the test
	Metrics    TestMetrics
	Health     Health
	LastSeen   time.Time // when the latest run with it was created
	LatestTags []string  // of that run
	// Change is the change that tests are ordered by, 0 in other orders.
	Change float64
}

// Name is the title in one line.
func (t Test) Name() string { return strings.Join(t.Title, " > ") }

// testTally counts the results of one test.
type testTally struct {
	duration [4]int64 // by state
	counts   [4]int32
	flaky    int32
	last     int32 // the latest run, in tests.runs
	recent   Recent
}

// tests counts the results of all tests of a project, by number.
type tests struct {
	tallies []testTally
	runs    []store.HistoryRun
}

// tallyBytes and runBytes are what a total takes, about, of a test and of a run.
const (
	tallyBytes = 72
	runBytes   = 300
)

func (x *Explorer) tallyTests(ctx context.Context, tx *store.Tx, projectID string,
	filter store.HistoryFilter) (*tests, error) {
	last, _, err := tx.LastNumbers(ctx, projectID)
	if err != nil {
		return nil, err
	}
	all := &tests{}
	err = sumDays(ctx, tx, x, "tests", projectID, filter, last[store.TestName]*tallyBytes,
		func(part store.HistoryFilter) (*tests, int, error) {
			t, err := scanTests(ctx, tx, projectID, part)
			return t, len(t.tallies)*tallyBytes + len(t.runs)*runBytes, err
		}, all.merge)
	return all, err
}

// merge adds the tests of later runs.
func (t *tests) merge(later *tests) {
	t.grow(len(later.tallies))
	for number := range later.tallies {
		if v := &later.tallies[number]; v.counts != [4]int32{} {
			t.tallies[number].merge(v, len(t.runs))
		}
	}
	t.runs = append(t.runs, later.runs...)
}

// merge adds the results of later runs. runs is how many came before these.
func (v *testTally) merge(later *testTally, runs int) {
	for state := range v.counts {
		v.counts[state] += later.counts[state]
		v.duration[state] += later.duration[state]
	}
	v.flaky += later.flaky
	v.last = later.last + int32(runs)
	v.recent.merge(later.recent)
}

func scanTests(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter) (*tests, error) {
	parts := make([]tests, cores())
	scanners := make([]scanner, len(parts))
	for n := range parts {
		scanners[n] = scanner{everything, parts[n].add}
	}
	runs, err := scan(ctx, tx, projectID, filter, scanners)
	t := &parts[0]
	for _, part := range parts[1:] {
		t.take(part.tallies)
	}
	// Copies, because the lists grew beyond what they need, and the others are not needed any more.
	return &tests{slices.Clone(t.tallies), slices.Clone(runs)}, err
}

// take adds tallies of other tests.
func (t *tests) take(tallies []testTally) {
	t.grow(len(tallies))
	for number, v := range tallies {
		if v.counts != [4]int32{} {
			t.tallies[number] = v
		}
	}
}

func (t *tests) grow(size int) {
	if size > len(t.tallies) {
		t.tallies = slices.Grow(t.tallies, max(size, 2*len(t.tallies))-len(t.tallies))[:size]
	}
}

func (t *tests) add(run int, _ string, e *Execution) {
	for i := range e.Results {
		r := &e.Results[i]
		if r.Test >= len(t.tallies) {
			t.grow(r.Test + 1)
		}
		v := &t.tallies[r.Test]
		v.add(r)
		v.last = int32(run)
	}
}

func (v *testTally) add(r *Result) {
	state := r.State & 3
	v.counts[state]++
	v.duration[state] += r.Duration
	if r.Flaky() {
		v.flaky++
	}
	v.recent.Add(r)
}

// of is the tally of a test; nil if it has no result.
func (t *tests) of(number int) *testTally {
	if number >= len(t.tallies) || t.tallies[number].counts == [4]int32{} {
		return nil
	}
	return &t.tallies[number]
}

func (v *testTally) count(states []run.TestState) (n int, duration int64) {
	for _, s := range states {
		n += int(v.counts[stateOf(s)])
		duration += v.duration[stateOf(s)]
	}
	return n, duration
}

func (v *testTally) metrics(s States) TestMetrics {
	m := TestMetrics{Failures: int(v.counts[failed]), Passes: int(v.counts[passed]), Flaky: int(v.flaky),
		Ignored: int(v.counts[pending] + v.counts[skipped])}
	m.Executions, _ = v.count(s.Executions)
	n, duration := v.count(s.AvgDuration)
	m.AvgDuration = ratio(float64(duration), n)
	n, _ = v.count(s.FlakinessRate)
	m.FlakinessRate = ratio(float64(m.Flaky), n)
	n, _ = v.count(s.FailureRate)
	m.FailureRate = ratio(float64(m.Failures), n)
	samples := float64(m.Executions)
	m.FlakinessVolume, m.FailureVolume, m.DurationVolume = m.FlakinessRate*samples, m.FailureRate*samples,
		m.AvgDuration*samples
	return m
}

// ratio is 0 where there is nothing to divide by.
func ratio(part float64, n int) float64 {
	if n == 0 {
		return 0
	}
	return part / float64(n)
}

// value is the number by which a test is ordered. before is nil if it did not run before.
func (o TestOrder) value(m TestMetrics, before *TestMetrics) float64 {
	if before == nil || before.Executions == 0 || m.Executions == 0 {
		before = &m
	}
	switch o {
	case ByExecutions:
		return float64(m.Executions)
	case ByFailures:
		return float64(m.Failures)
	case ByPasses:
		return float64(m.Passes)
	case ByFlakiness:
		return m.FlakinessRate
	case ByDuration:
		return m.AvgDuration
	case ByFlakinessVolume:
		return m.FlakinessVolume
	case ByFailureVolume:
		return m.FailureVolume
	case ByDurationVolume:
		return m.DurationVolume
	case ByFlakinessDelta:
		return m.FlakinessRate - before.FlakinessRate
	case ByFailureDelta:
		return m.FailureRate - before.FailureRate
	case ByDurationDelta:
		return m.AvgDuration - before.AvgDuration
	default:
		return 0
	}
}

// Delta reports whether tests are ordered by the change since the period before.
func (o TestOrder) Delta() bool {
	return o == ByFlakinessDelta || o == ByFailureDelta || o == ByDurationDelta
}

// Tests lists a page of the tests of a project, and says how many there are.
func (x *Explorer) Tests(ctx context.Context, tx *store.Tx, projectID string, q TestQuery) ([]Test, int, error) {
	now, err := x.tallyTests(ctx, tx, projectID, q.Filter)
	if err != nil {
		return nil, 0, err
	}
	before := &tests{}
	if q.Order.Delta() {
		if before, err = x.tallyTests(ctx, tx, projectID, periodBefore(q.Filter)); err != nil {
			return nil, 0, err
		}
	}
	names, err := testNames(ctx, tx, projectID, q)
	if err != nil {
		return nil, 0, err
	}
	rows := q.rows(now, before, names)
	slices.SortFunc(rows, func(a, b testRow) int {
		order := cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.name, b.name), cmp.Compare(a.number, b.number))
		if !q.Ascending {
			order = -order
		}
		return order
	})
	total := len(rows)
	rows = page(rows, q.Page, q.Limit)
	list, err := describe(ctx, tx, projectID, now, rows)
	for i := range list {
		if q.Order.Delta() {
			list[i].Change = rows[i].value
		}
	}
	return list, total, err
}

// periodBefore is the period of the same length before.
func periodBefore(f store.HistoryFilter) store.HistoryFilter {
	f.Since, f.Until = f.Since.Add(-f.Until.Sub(f.Since)), f.Since
	return f
}

// page is the part of a list that a page shows.
func page[T any](list []T, number, limit int) []T {
	first := min(number*limit, len(list))
	return list[first:min(first+limit, len(list))]
}

type testRow struct {
	number  int
	name    string // lower case; "" where names are not needed
	value   float64
	metrics TestMetrics
}

// testName is the text by which tests are found and ordered, in lower case.
type testName struct{ title, spec string }

// testNames are nil where the query does not need them.
func testNames(ctx context.Context, tx *store.Tx, projectID string, q TestQuery) (map[int]testName, error) {
	if q.Order != ByTitle && q.Spec == "" && q.Title == "" {
		return nil, nil
	}
	found, err := tx.HistoryNames(ctx, projectID, store.TestName, nil)
	if err != nil {
		return nil, err
	}
	var specs map[int]store.HistoryName
	if q.Spec != "" {
		if specs, err = tx.HistoryNames(ctx, projectID, store.SpecName, nil); err != nil {
			return nil, err
		}
	}
	names := make(map[int]testName, len(found))
	for number, n := range found {
		title, err := titleOf(n)
		if err != nil {
			return nil, err
		}
		names[number] = testName{strings.ToLower(strings.Join(title, " > ")), strings.ToLower(specs[n.Spec].Key)}
	}
	return names, nil
}

func titleOf(n store.HistoryName) (title []string, err error) {
	if inner, plain := strings.CutPrefix(n.Text, `["`); plain && strings.HasSuffix(inner, `"]`) &&
		!strings.Contains(inner, `\`) {
		return strings.Split(inner[:len(inner)-2], `","`), nil // nothing is escaped: a list of all tests reads thousands
	}
	err = json.Unmarshal([]byte(n.Text), &title)
	return title, err
}

// rows are the tests that match the query.
func (q TestQuery) rows(now, before *tests, names map[int]testName) []testRow {
	spec, title := strings.ToLower(q.Spec), strings.ToLower(q.Title)
	var rows []testRow
	for number := range now.tallies {
		v := now.of(number)
		if v == nil || len(q.Healths) > 0 && !slices.Contains(q.Healths, v.recent.Health()) {
			continue
		}
		r := testRow{number: number, metrics: v.metrics(q.States)}
		if names != nil {
			n := names[number]
			if !strings.Contains(n.spec, spec) || !strings.Contains(n.title, title) {
				continue
			}
			r.name = n.title
		}
		if r.metrics.Executions < q.MinExecutions {
			continue
		}
		var earlier *TestMetrics
		if b := before.of(number); b != nil {
			m := b.metrics(q.States)
			earlier = &m
		}
		r.value = q.Order.value(r.metrics, earlier)
		rows = append(rows, r)
	}
	return rows
}

// describe reads the names of tests.
func describe(ctx context.Context, tx *store.Tx, projectID string, now *tests, rows []testRow) ([]Test, error) {
	numbers := make([]int, len(rows))
	for i, r := range rows {
		numbers[i] = r.number
	}
	names, err := tx.HistoryNames(ctx, projectID, store.TestName, numbers)
	if err != nil {
		return nil, err
	}
	specs, err := specsOf(ctx, tx, projectID, names)
	if err != nil {
		return nil, err
	}
	list := make([]Test, len(rows))
	for i, r := range rows {
		v, n := now.of(r.number), names[r.number]
		last := now.runs[v.last]
		t := Test{Signature: n.Key, Spec: specs[n.Spec].Key, Metrics: r.metrics, Health: v.recent.Health(),
			LastSeen: last.CreatedAt}
		if t.Title, err = titleOf(n); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(last.Tags), &t.LatestTags); err != nil {
			return nil, err
		}
		list[i] = t
	}
	return list, nil
}

// specsOf reads the names of the specs of tests.
func specsOf(ctx context.Context, tx *store.Tx, projectID string,
	tests map[int]store.HistoryName) (map[int]store.HistoryName, error) {
	numbers := []int{}
	for _, n := range tests {
		numbers = append(numbers, n.Spec)
	}
	slices.Sort(numbers)
	return tx.HistoryNames(ctx, projectID, store.SpecName, slices.Compact(numbers))
}
