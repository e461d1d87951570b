package history

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"runbell/internal/run"
	"runbell/internal/store"
)

// SpecOrder is what specs are ordered by.
type SpecOrder string

// The orders of specs.
const (
	ByAvgDuration       SpecOrder = "avgDuration"
	ByFailedExecutions  SpecOrder = "failedExecutions"
	ByFailureRate       SpecOrder = "failureRate"
	ByFlakeRate         SpecOrder = "flakeRate"
	ByFlakyExecutions   SpecOrder = "flakyExecutions"
	ByFullyReported     SpecOrder = "fullyReported"
	ByOverallExecutions SpecOrder = "overallExecutions"
	BySuiteSize         SpecOrder = "suiteSize"
	ByTimeoutExecutions SpecOrder = "timeoutExecutions"
	ByTimeoutRate       SpecOrder = "timeoutRate"
)

// SpecOrders lists them.
func SpecOrders() []SpecOrder {
	return []SpecOrder{ByAvgDuration, ByFailedExecutions, ByFailureRate, ByFlakeRate, ByFlakyExecutions, ByFullyReported,
		ByOverallExecutions, BySuiteSize, ByTimeoutExecutions, ByTimeoutRate}
}

// SpecQuery asks for specs.
type SpecQuery struct {
	Filter store.HistoryFilter
	Spec   string // a part of its path, in any case
	// FailedInDuration includes failed executions in the duration.
	FailedInDuration bool
	Order            SpecOrder
	Ascending        bool
	Page             int // from 0
	Limit            int
}

// SpecMetrics are the numbers of a spec. Rates are from 0 to 1.
type SpecMetrics struct {
	Overall       int // executions with results, and those that timed out
	Failed        int // with a failed test, or that could not run
	Flaky         int // with a flaky test
	TimedOut      int // claimed, but without results when the group timed out
	FullyReported int // every announced test has a result
	SuiteSize     int // the most tests in one execution
	AvgDuration   float64
	FailureRate   float64
	FlakeRate     float64
	TimeoutRate   float64
}

// Spec is a spec over a period.
type Spec struct {
	Signature string // of the spec as if it were a test without a title
	Path      string
	Metrics   SpecMetrics
}

// specTally counts the executions of one spec.
type specTally struct {
	SpecMetrics
	timed    int // executions whose duration counts
	duration int64
}

func (v *specTally) add(e *Summary, failedToo bool) {
	v.Overall++
	if e.Complete {
		v.FullyReported++
	}
	if e.Flaky {
		v.Flaky++
	}
	if e.Failed {
		v.Failed++
	}
	if !e.Failed || failedToo {
		v.timed++
		v.duration += e.Duration
	}
	v.SuiteSize = max(v.SuiteSize, e.Tests)
}

func (v *specTally) metrics() SpecMetrics {
	m := v.SpecMetrics
	m.AvgDuration = ratio(float64(v.duration), v.timed)
	m.FailureRate, m.FlakeRate, m.TimeoutRate = ratio(float64(m.Failed), m.Overall), ratio(float64(m.Flaky), m.Overall),
		ratio(float64(m.TimedOut), m.Overall)
	return m
}

func (o SpecOrder) value(m SpecMetrics) float64 {
	switch o {
	case ByFailedExecutions:
		return float64(m.Failed)
	case ByFailureRate:
		return m.FailureRate
	case ByFlakeRate:
		return m.FlakeRate
	case ByFlakyExecutions:
		return float64(m.Flaky)
	case ByFullyReported:
		return float64(m.FullyReported)
	case ByOverallExecutions:
		return float64(m.Overall)
	case BySuiteSize:
		return float64(m.SuiteSize)
	case ByTimeoutExecutions:
		return float64(m.TimedOut)
	case ByTimeoutRate:
		return m.TimeoutRate
	default:
		return m.AvgDuration
	}
}

// Specs lists a page of the specs of a project, and says how many there are.
func (x *Explorer) Specs(ctx context.Context, tx *store.Tx, projectID string, q SpecQuery) ([]Spec, int, error) {
	byPath, err := x.tallySpecs(ctx, tx, projectID, q)
	if err != nil {
		return nil, 0, err
	}
	part := strings.ToLower(q.Spec)
	var list []Spec
	for path, v := range byPath {
		if strings.Contains(strings.ToLower(path), part) {
			list = append(list, Spec{Path: path, Metrics: v.metrics()})
		}
	}
	slices.SortFunc(list, func(a, b Spec) int {
		order := cmp.Or(cmp.Compare(q.Order.value(a.Metrics), q.Order.value(b.Metrics)), cmp.Compare(a.Path, b.Path))
		if !q.Ascending {
			order = -order
		}
		return order
	})
	total := len(list)
	list = page(list, q.Page, q.Limit)
	for i := range list {
		list[i].Signature = run.Signature(projectID, list[i].Path, nil)
	}
	return list, total, nil
}

// specTallies are those of specs, by number.
type specTallies map[int]*specTally

func (t specTallies) of(number int) *specTally {
	v := t[number]
	if v == nil {
		v = &specTally{}
		t[number] = v
	}
	return v
}

// specBytes is what a total takes, about, of a spec.
const specBytes = 200

func scanSpecs(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter,
	failedInDuration bool) (specTallies, error) {
	t := specTallies{}
	_, err := scan(ctx, tx, projectID, filter, []scanner{{look: func(e *Summary) bool {
		t.of(e.Spec).add(e, failedInDuration)
		return false // the results say nothing more
	}}})
	return t, err
}

// merge adds other executions.
func (v *specTally) merge(o *specTally) {
	v.Overall, v.Failed, v.Flaky = v.Overall+o.Overall, v.Failed+o.Failed, v.Flaky+o.Flaky
	v.FullyReported, v.SuiteSize = v.FullyReported+o.FullyReported, max(v.SuiteSize, o.SuiteSize)
	v.timed, v.duration = v.timed+o.timed, v.duration+o.duration
}

func (x *Explorer) tallySpecs(ctx context.Context, tx *store.Tx, projectID string,
	q SpecQuery) (map[string]*specTally, error) {
	last, _, err := tx.LastNumbers(ctx, projectID)
	if err != nil {
		return nil, err
	}
	byNumber, kind := specTallies{}, "specs"
	if q.FailedInDuration {
		kind = "specs with the duration of failed executions"
	}
	err = sumDays(ctx, tx, x, kind, projectID, q.Filter, last[store.SpecName]*specBytes,
		func(part store.HistoryFilter) (specTallies, int, error) {
			t, err := scanSpecs(ctx, tx, projectID, part, q.FailedInDuration)
			return t, len(t) * specBytes, err
		}, func(part specTallies) {
			for number, v := range part {
				byNumber.of(number).merge(v)
			}
		})
	if err != nil {
		return nil, err
	}
	names, err := tx.HistoryNames(ctx, projectID, store.SpecName, nil)
	if err != nil {
		return nil, err
	}
	byPath := make(map[string]*specTally, len(byNumber))
	for number, v := range byNumber {
		byPath[names[number].Key] = v
	}
	silent, err := tx.TimedOutSpecs(ctx, projectID, q.Filter)
	for path, n := range silent {
		v := byPath[path]
		if v == nil {
			v = &specTally{}
			byPath[path] = v
		}
		v.TimedOut, v.Overall = v.TimedOut+n, v.Overall+n
	}
	return byPath, err
}
