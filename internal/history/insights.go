package history

import (
	"context"
	"slices"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Resolution is how long a step of a timeline is.
type Resolution string

// The resolutions of a timeline. Weeks begin on Monday, all in UTC.
const (
	Hourly Resolution = "1h"
	Daily  Resolution = "1d"
	Weekly Resolution = "1w"
)

// Resolutions lists them.
func Resolutions() []Resolution { return []Resolution{Hourly, Daily, Weekly} }

// MaxSteps is the most steps of a timeline.
const MaxSteps = 2000

// Start is when the step of an instant begins.
func (r Resolution) Start(t time.Time) time.Time {
	switch r {
	case Hourly:
		return t.Truncate(time.Hour)
	case Weekly:
		return t.Truncate(7 * 24 * time.Hour) // counted from the year 1, which began on a Monday
	default:
		return t.Truncate(24 * time.Hour)
	}
}

// Length is how long a step is.
func (r Resolution) Length() time.Duration {
	return map[Resolution]time.Duration{Hourly: time.Hour, Daily: 24 * time.Hour, Weekly: 7 * 24 * time.Hour}[r]
}

// Steps is how many steps a period has.
func (r Resolution) Steps(since, until time.Time) int {
	return int(until.Add(-1).Sub(r.Start(since))/r.Length()) + 1
}

// Insight counts runs and their tests.
type Insight struct {
	Start    time.Time // of the step
	Runs     int
	Canceled int
	TimedOut int
	Finished int
	Passed   int
	Failed   int // including those that did not finish
	Tests    run.Counts
	// AvgDuration is the average over finished runs.
	AvgDuration time.Duration
	// SuccessRate averages, over the runs that ended and had a test that ran, how many
	// of those tests passed: 0 to 1.
	SuccessRate float64
	// DurationP50 and DurationP95 are percentiles of the duration of finished runs: half of them, and 95 of 100, took
	// no longer.
	DurationP50, DurationP95 time.Duration
	// SuiteSize is the number of results of the largest finished run.
	SuiteSize int

	duration  time.Duration
	durations []time.Duration
	rated     int
	rates     float64
}

func (i *Insight) add(r store.InsightRun) {
	i.Runs++
	switch r.State {
	case run.Canceled:
		i.Canceled++
	case run.TimedOut:
		i.TimedOut++
	case run.Finished:
		i.Finished++
		took := r.LastReport.Sub(r.CreatedAt)
		i.durations = append(i.durations, took)
		i.duration += took
		i.AvgDuration = i.duration / time.Duration(i.Finished)
		i.SuiteSize = max(i.SuiteSize, r.Counts.Overall())
	case run.Running:
	}
	switch run.StatusOf(r.State, r.Counts) {
	case run.StatusPassed:
		i.Passed++
	case run.StatusFailed:
		i.Failed++
	case run.StatusRunning, run.StatusFailing:
	}
	c := r.Counts
	c.Announced = 0 // they have no results
	i.Tests = i.Tests.Plus(c)
	if r.State.Terminal() && c.Ran() {
		i.rated++
		i.rates += float64(c.Passes) / float64(c.Passes+c.Failures)
		i.SuccessRate = i.rates / float64(i.rated)
	}
}

// settle calculates the percentiles after all runs are counted.
func (i *Insight) settle() {
	slices.Sort(i.durations)
	i.DurationP50, i.DurationP95 = Percentile(i.durations, 50), Percentile(i.durations, 95)
	i.durations = nil
}

// Percentile is the least of sorted values that a share of them, in percent, does not
// exceed; zero if there are none.
func Percentile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

// Insights counts the runs of a project in a period, as a whole and step by step. It uses the counters of the runs,
// so it is never behind.
func Insights(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter,
	by Resolution) (overall Insight, timeline []Insight, err error) {
	runs, err := tx.InsightRuns(ctx, projectID, filter)
	if err != nil {
		return overall, nil, err
	}
	overall.Start = filter.Since
	first := by.Start(filter.Since)
	timeline = make([]Insight, by.Steps(filter.Since, filter.Until))
	for n := range timeline {
		timeline[n].Start = first.Add(time.Duration(n) * by.Length())
	}
	for _, r := range runs {
		overall.add(r)
		timeline[r.CreatedAt.Sub(first)/by.Length()].add(r)
	}
	overall.settle()
	for n := range timeline {
		timeline[n].settle()
	}
	return overall, timeline, nil
}
