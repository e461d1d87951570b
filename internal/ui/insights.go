package ui

import (
	"time"

	"runbell/internal/history"
	"runbell/internal/run"
)

// insightsPage shows a project over time.
type insightsPage struct {
	layout
	explorer
	Overall  history.Insight
	PassRate string // of the runs that ended, "" if none did
	Flaky    string // of the tests that ran, "" if none did
	Charts   []chart
	Since    time.Time // of the lists below; zero if they are about the whole period
	Failures []newFailure
	Slowest  []specRow
	// Links to the full lists.
	ErrorsURL, SpecsURL, FlakyURL, BrokenURL string
}

// newFailure is a failure in the list of the newest.
type newFailure struct {
	testName
	RunURL string
	At     time.Time
	Branch string
	Error  string
	More   int
}

// testName is the name of a test, with a link to its page.
type testName struct {
	URL   string // "" for a spec that could not run
	Spec  string
	Path  []string
	Title string
}

func (s *scope) testName(d history.TestDescription) testName {
	n := testName{Spec: run.Clip(d.Spec, 500), Title: crashed}
	if d.Signature != "" {
		n.Path, n.Title = titleOf(d.Title)
		n.URL = s.at("/tests/" + d.Signature)
	}
	return n
}

// shortList is how many failures and specs the page of insights lists.
const shortList = 8

func (u *ui) insights(r *request) error {
	return u.inHistory(r, "Insights", "insights", "/insights", func(s *scope, l layout, e explorer) ([]byte, error) {
		s.finish(&e)
		p := insightsPage{layout: l, explorer: e, ErrorsURL: s.at("/errors", "order", string(history.ByLastSeen)),
			SpecsURL: s.at("/specs"), FlakyURL: s.at("/tests", "health", string(history.Flaky)),
			BrokenURL: s.at("/tests", "health", string(history.Broken))}
		by := s.resolution()
		overall, steps, err := history.Insights(r.Context(), s.tx, s.project.ID, s.filter, by)
		if err != nil {
			return nil, err
		}
		p.Overall = overall
		if ended := overall.Passed + overall.Failed; ended > 0 {
			p.PassRate = percent(rateOf(overall.Passed, ended))
		}
		if ran := overall.Tests.Passes + overall.Tests.Failures; ran > 0 {
			p.Flaky = percent(rateOf(overall.Tests.Flaky, ran))
		}
		p.Charts = s.insightCharts(steps, by)
		latest, err := history.LatestOf(r.Context(), s.tx, s.project.ID, s.filter, shortList)
		if err != nil {
			return nil, err
		}
		p.Since = latest.Since
		for _, f := range latest.Failures {
			p.Failures = append(p.Failures, newFailure{s.testName(f.TestDescription), s.result(f.Run.ID, f.Group, f.Spec),
				f.Run.CreatedAt, f.Run.Branch, f.Error, f.More})
		}
		for _, v := range latest.Slowest {
			p.Slowest = append(p.Slowest, s.specRow(v, latest.Slowest[0].Metrics.AvgDuration))
		}
		return u.views.insights.render(p)
	})
}

// insightCharts draws the timeline.
func (s *scope) insightCharts(steps []history.Insight, by history.Resolution) []chart {
	places := make([]plotStep, len(steps))
	for n, step := range steps {
		places[n] = s.step(step.Start, by)
	}
	series := func(name, class string, value func(history.Insight) float64) plotSeries {
		v := plotSeries{name, class, make([]float64, len(steps))}
		for n, step := range steps {
			v.values[n] = value(step)
		}
		return v
	}
	ran := func(i history.Insight) int { return i.Tests.Passes + i.Tests.Failures }
	per := map[history.Resolution]string{history.Hourly: "hour", history.Daily: "day", history.Weekly: "week"}[by]
	return []chart{
		plot{id: "pass-rate", title: "Pass rate", steps: places, write: percent, top: wholeShare, series: []plotSeries{
			series("Runs", "main", func(i history.Insight) float64 { return rateOf(i.Passed, i.Passed+i.Failed) }),
			series("Tests", "second", func(i history.Insight) float64 { return rateOf(i.Tests.Passes, ran(i)) }),
		}}.draw(),
		plot{id: "duration", title: "Duration of a run", steps: places, write: writeSpan, top: spanTop, series: []plotSeries{
			series("p50", "main", func(i history.Insight) float64 { return known(i.DurationP50.Seconds(), i.Finished > 0) }),
			series("p95", "second", func(i history.Insight) float64 { return known(i.DurationP95.Seconds(), i.Finished > 0) }),
		}}.draw(),
		plot{id: "flaky", title: "Flaky and failed tests", steps: places, write: percent, top: smallShare,
			series: []plotSeries{
				series("Flaky", "flaky", func(i history.Insight) float64 { return rateOf(i.Tests.Flaky, ran(i)) }),
				series("Failed", "fail", func(i history.Insight) float64 { return rateOf(i.Tests.Failures, ran(i)) }),
			}}.draw(),
		plot{id: "size", title: "Suite size (tests in a run)", steps: places, write: writeCount, top: wholeTop,
			series: []plotSeries{
				series("Tests", "main", func(i history.Insight) float64 { return known(float64(i.SuiteSize), i.Finished > 0) }),
			}}.draw(),
		plot{id: "runs", title: "Runs per " + per, steps: places, write: writeCount, top: wholeTop, stacked: true,
			series: []plotSeries{
				series("Passed", "pass", func(i history.Insight) float64 { return float64(i.Passed) }),
				series("Failed", "fail", func(i history.Insight) float64 { return float64(i.Failed - i.TimedOut - i.Canceled) }),
				series("Timed out", "warn", func(i history.Insight) float64 { return float64(i.TimedOut) }),
				series("Canceled", "idle", func(i history.Insight) float64 { return float64(i.Canceled) }),
				series("Running", "run", func(i history.Insight) float64 { return float64(i.Runs - i.Passed - i.Failed) }),
			}}.draw(),
	}
}
