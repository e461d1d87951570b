package ui

import (
	"math"
	"path"
	"strconv"
	"time"

	"runbell/internal/history"
	"runbell/internal/run"
)

// testsPage lists the tests of a project.
type testsPage struct {
	layout
	explorer
	Healths []preset
	Columns []column
	Tests   []testRow
	Total   int
	Pager   pager
}

// testRow is a test in the list.
type testRow struct {
	testName
	SpecURL    string // the tests of its spec
	Health     healthView
	Executions int
	Failed     rateCell
	Flaky      rateCell
	Duration   time.Duration
	Change     string // in an order by changes
	LastSeen   time.Time
}

// healthView is a health with its mark.
type healthView struct {
	Word string
	Tone tone
}

func healthOf(h history.Health) healthView {
	return healthView{string(h), map[history.Health]tone{history.Broken: toneFail, history.Flaky: toneFlaky,
		history.Healthy: tonePass, history.Unknown: toneIdle}[h]}
}

// The orders of tests, the first of a page without one.
var testOrders = []choice{{Value: string(history.ByFailures), Text: "Most failures"},
	{Value: string(history.ByFlakiness), Text: "Flakiest"}, {Value: string(history.ByDuration), Text: "Slowest"},
	{Value: string(history.ByExecutions), Text: "Most results"}, {Value: string(history.ByPasses), Text: "Most passes"},
	{Value: string(history.ByTitle), Text: "Title"},
	{Value: string(history.ByFailureVolume), Text: "Failure rate × results"},
	{Value: string(history.ByFlakinessVolume), Text: "Flaky rate × results"},
	{Value: string(history.ByDurationVolume), Text: "Duration × results"},
	{Value: string(history.ByFailureDelta), Text: "Change of failure rate"},
	{Value: string(history.ByFlakinessDelta), Text: "Change of flaky rate"},
	{Value: string(history.ByDurationDelta), Text: "Change of duration"}}

var healthChoices = []choice{{Value: "", Text: "All"}, {Value: string(history.Broken), Text: "Broken"},
	{Value: string(history.Flaky), Text: "Flaky"}, {Value: string(history.Healthy), Text: "Healthy"}}

func (u *ui) tests(r *request) error {
	return u.inHistory(r, "Tests", "tests", "/tests", func(s *scope, l layout, e explorer) ([]byte, error) {
		p := testsPage{layout: l}
		q := history.TestQuery{Filter: s.filter, States: history.DefaultStates(), Limit: historyRows,
			Title: s.value(s.own, "q"), Spec: s.value(s.own, "spec"), MinExecutions: s.number("min")}
		_, health := s.word("health", healthChoices)
		if health != "" {
			q.Healths = []history.Health{history.Health(health)}
		}
		o := s.ordering(&e.Filter, string(history.ByTitle), testOrders)
		q.Order, q.Ascending = history.TestOrder(o.order), o.ascending
		e.Filter.Search = &textField{Name: "q", Value: q.Title, Label: "Find a test"}
		e.Filter.Fields = []textField{{Name: "spec", Value: q.Spec, Label: "Spec"},
			{Name: "min", Value: s.own.Get("min"), Label: "Results at least", Number: true}}
		s.finish(&e)
		p.explorer = e
		for _, c := range healthChoices {
			p.Healths = append(p.Healths, preset{c.Text, s.link("health", c.Value), c.Value == health})
		}
		p.Columns = s.testColumns(o, q.Order)
		list, total, pages, err := paged(s, func(page int) ([]history.Test, int, error) {
			q.Page = page
			return s.u.explorer.Tests(r.Context(), s.tx, s.project.ID, q)
		})
		if err != nil {
			return nil, err
		}
		p.Total, p.Pager = total, pages
		for _, t := range list {
			p.Tests = append(p.Tests, s.testRow(t, q.Order))
		}
		return u.views.tests.render(p)
	})
}

func (s *scope) testColumns(o ordering, order history.TestOrder) []column {
	list := []column{s.column("Test", string(history.ByTitle), o, false), {Name: "Health"},
		s.column("Results", string(history.ByExecutions), o, true), s.column("Failed", string(history.ByFailures), o, true),
		s.column("Flaky", string(history.ByFlakiness), o, true), s.column("Duration", string(history.ByDuration), o, true)}
	if order.Delta() {
		list = append(list, s.column("Change", string(order), o, true))
	}
	return append(list, column{Name: "Last run", Number: true})
}

func (s *scope) testRow(t history.Test, order history.TestOrder) testRow {
	m := t.Metrics
	row := testRow{testName: s.testName(history.TestDescription{Signature: t.Signature, Spec: t.Spec, Title: t.Title}),
		SpecURL: s.at("/tests", "spec", t.Spec), Health: healthOf(t.Health), Executions: m.Executions,
		Failed: rateCell{m.Failures, m.FailureRate, toneFail}, Flaky: rateCell{m.Flaky, m.FlakinessRate, toneFlaky},
		Duration: milliseconds(m.AvgDuration), LastSeen: t.LastSeen}
	if order.Delta() {
		row.Change = changeOf(t.Change, order == history.ByDurationDelta)
	}
	return row
}

// changeOf writes a change of a rate in percentage points, or of a duration in milliseconds, with its sign.
func changeOf(change float64, duration bool) string {
	sign := "+"
	if change < 0 {
		sign, change = "−", -change
	}
	write := points
	if duration {
		write = func(ms float64) string { return span(milliseconds(ms).Round(time.Millisecond)) }
	}
	text := write(change)
	if text == write(0) {
		return text
	}
	return sign + text
}

// points writes the difference between two rates in percentage points: "%" would read as a share of the rate before.
func points(difference float64) string {
	text := strconv.FormatFloat(math.Round(difference*1000)/10, 'f', -1, 64)
	if text == "1" {
		return "1 point"
	}
	return text + " points"
}

// specFilesPage lists the specs of a project.
type specFilesPage struct {
	layout
	explorer
	Columns []column
	Specs   []specRow
	Total   int
	Pager   pager
}

// specRow is a spec in the list.
type specRow struct {
	URL       string // its tests
	Dir, File string
	Duration  time.Duration
	Length    int // of its bar, in thousandths
	Overall   int
	Failed    rateCell
	Flaky     rateCell
	TimedOut  rateCell
	Reported  int
	SuiteSize int
}

var specOrders = []choice{{Value: string(history.ByAvgDuration), Text: "Slowest"},
	{Value: string(history.ByFailedExecutions), Text: "Most failures"},
	{Value: string(history.ByFailureRate), Text: "Failure rate"},
	{Value: string(history.ByFlakyExecutions), Text: "Most flaky"},
	{Value: string(history.ByFlakeRate), Text: "Flaky rate"},
	{Value: string(history.ByTimeoutExecutions), Text: "Most timeouts"},
	{Value: string(history.ByTimeoutRate), Text: "Timeout rate"},
	{Value: string(history.ByOverallExecutions), Text: "Most executions"},
	{Value: string(history.BySuiteSize), Text: "Most tests"},
	{Value: string(history.ByFullyReported), Text: "Fully reported"}}

var failedToo = []choice{{Value: "", Text: "Duration of passed executions"}, {Value: "all", Text: "Duration of all"}}

func (u *ui) specFiles(r *request) error {
	return u.inHistory(r, "Specs", "specs", "/specs", func(s *scope, l layout, e explorer) ([]byte, error) {
		p := specFilesPage{layout: l}
		q := history.SpecQuery{Filter: s.filter, Limit: historyRows, Spec: s.value(s.own, "q")}
		o := s.ordering(&e.Filter, "", specOrders)
		q.Order, q.Ascending = history.SpecOrder(o.order), o.ascending
		durations, which := s.word("durations", failedToo)
		q.FailedInDuration = which != ""
		e.Filter.Selects = append(e.Filter.Selects, selectField{"durations", "Durations", durations})
		e.Filter.Search = &textField{Name: "q", Value: q.Spec, Label: "Find a spec"}
		s.finish(&e)
		p.explorer = e
		for _, c := range []struct {
			name  string
			order history.SpecOrder
		}{{"Spec", ""}, {"Duration", history.ByAvgDuration}, {"Executions", history.ByOverallExecutions},
			{"Failed", history.ByFailedExecutions}, {"Flaky", history.ByFlakyExecutions},
			{"Timed out", history.ByTimeoutExecutions}, {"Fully reported", history.ByFullyReported},
			{"Tests", history.BySuiteSize}} {
			p.Columns = append(p.Columns, s.column(c.name, string(c.order), o, c.order != ""))
		}
		list, total, pages, err := paged(s, func(page int) ([]history.Spec, int, error) {
			q.Page = page
			return s.u.explorer.Specs(r.Context(), s.tx, s.project.ID, q)
		})
		if err != nil {
			return nil, err
		}
		p.Total, p.Pager = total, pages
		longest := 0.0
		for _, v := range list {
			longest = max(longest, v.Metrics.AvgDuration)
		}
		for _, v := range list {
			p.Specs = append(p.Specs, s.specRow(v, longest))
		}
		return u.views.specFiles.render(p)
	})
}

func (s *scope) specRow(v history.Spec, longest float64) specRow {
	m := v.Metrics
	row := specRow{URL: s.at("/tests", "spec", v.Path), Duration: milliseconds(m.AvgDuration), Overall: m.Overall,
		Failed: rateCell{m.Failed, m.FailureRate, toneFail}, Flaky: rateCell{m.Flaky, m.FlakeRate, toneFlaky},
		TimedOut: rateCell{m.TimedOut, m.TimeoutRate, toneWarn}, Reported: m.FullyReported, SuiteSize: m.SuiteSize}
	row.Dir, row.File = path.Split(run.Clip(v.Path, 500))
	if longest > 0 {
		row.Length = int(1000 * m.AvgDuration / longest)
	}
	return row
}

// errorsPage lists the errors of a project.
type errorsPage struct {
	layout
	explorer
	Columns []column
	Chart   chart
	Errors  []errorRow
	Total   int
	Pager   pager
}

// errorRow is an error in the list.
type errorRow struct {
	URL, Headline          string
	Count, Tests, Branches int
	First, Last            time.Time
	New                    bool // it was first seen in the last days of the period
}

var errorOrders = []choice{{Value: string(history.ByCount), Text: "Most frequent"},
	{Value: string(history.ByTests), Text: "Most tests"}, {Value: string(history.ByBranches), Text: "Most branches"},
	{Value: string(history.ByFirstSeen), Text: "Newest"}, {Value: string(history.ByLastSeen), Text: "Latest"},
	{Value: string(history.ByError), Text: "Message"}}

func (u *ui) errors(r *request) error {
	return u.inHistory(r, "Errors", "errors", "/errors", func(s *scope, l layout, e explorer) ([]byte, error) {
		p := errorsPage{layout: l}
		q := history.ErrorQuery{Filter: s.filter, Limit: historyRows, Message: s.value(s.own, "q"),
			TopBy: history.ByCount}
		o := s.ordering(&e.Filter, string(history.ByError), errorOrders)
		q.Order, q.Ascending = history.ErrorOrder(o.order), o.ascending
		e.Filter.Search = &textField{Name: "q", Value: q.Message, Label: "Find an error"}
		s.finish(&e)
		p.explorer = e
		for _, c := range []struct {
			name  string
			order history.ErrorOrder
		}{{"Error", history.ByError}, {"Occurrences", history.ByCount}, {"Tests", history.ByTests},
			{"Branches", history.ByBranches}, {"First seen", history.ByFirstSeen}, {"Last seen", history.ByLastSeen}} {
			p.Columns = append(p.Columns, s.column(c.name, string(c.order), o, c.order != history.ByError))
		}
		list, total, pages, err := paged(s, func(page int) ([]history.Error, int, error) {
			q.Page = page
			found, err := s.u.explorer.Errors(r.Context(), s.tx, s.project.ID, q)
			if err == nil {
				p.Chart = s.errorChart(found.Timeline)
			}
			return found.List, found.Total, err
		})
		if err != nil {
			return nil, err
		}
		p.Total, p.Pager = total, pages
		for _, v := range list {
			p.Errors = append(p.Errors, errorRow{URL: s.at("/errors/" + v.Fingerprint), Headline: v.Headline, Count: v.Count,
				Tests: v.Tests, Branches: v.Branches, First: v.FirstSeen, Last: v.LastSeen,
				New: v.FirstSeen.After(s.tx.Now.AddDate(0, 0, -3)) && v.FirstSeen.After(s.filter.Since.AddDate(0, 0, 3))})
		}
		return u.views.errors.render(p)
	})
}

// errorChart draws how many errors there were each day, or each week.
func (s *scope) errorChart(days []history.ErrorDay) chart {
	by := s.resolution()
	if by == history.Hourly {
		by = history.Daily // there are no hours
	}
	first := by.Start(s.filter.Since)
	p := plot{id: "occurrences", title: "Occurrences", write: writeCount, top: wholeTop, stacked: true,
		series: []plotSeries{{"Errors", "fail", make([]float64, by.Steps(s.filter.Since, s.filter.Until))}}}
	for n := range p.series[0].values {
		p.steps = append(p.steps, s.step(first.Add(time.Duration(n)*by.Length()), by))
	}
	for _, d := range days {
		p.series[0].values[d.Day.Sub(first)/by.Length()] += float64(d.Count)
	}
	return p.draw()
}
