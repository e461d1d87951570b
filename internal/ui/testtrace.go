package ui

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"runbell/internal/history"
	"runbell/internal/run"
)

const (
	// The limits of a strip of the results of a test on a branch.
	traceBars     = 60
	traceBranches = 10
	// traceRows is how many results are listed, and traceErrors how many errors.
	traceRows   = 50
	traceErrors = 10
)

// testPage is one test over time.
type testPage struct {
	layout
	explorer
	TestsURL, SpecURL string
	Name              testName
	Health            healthView
	Reason            string // for the health
	Metrics           history.TestMetrics
	Failed, Flaky     rateCell
	P50, P95          time.Duration // of the results that passed
	First, Last       *tracedResult // failures; nil if there is none
	Branches          []traceStrip
	MoreBranches      int
	Chart             chart
	Results           []tracedResult // the latest first
	MoreResults       int
	Errors            []tracedError
	ErrorsSince       time.Time
}

// tracedResult is a result of the test.
type tracedResult struct {
	URL    string
	At     time.Time
	Branch string
	Group  string
	State  string
	Tone   tone
	Took   time.Duration
}

// tracedError is an error of the test.
type tracedError struct {
	URL, Headline string
	Count, Others int
	Last          tracedResult
}

// traceStrip draws the latest results on a branch.
type traceStrip struct {
	Branch, URL string
	Bars        []barRun
	Results     int
	Failed      int
	Last        time.Time
}

func (u *ui) test(r *request) error {
	signature := r.PathValue("signature")
	return u.inHistory(r, "Test", "tests", "/tests/"+signature, func(s *scope, l layout, e explorer) ([]byte, error) {
		trace, err := history.TraceTest(r.Context(), s.tx, s.project.ID, signature, s.filter)
		if err != nil {
			return nil, err
		}
		s.finish(&e)
		p := testPage{layout: l, explorer: e, TestsURL: s.at("/tests"), SpecURL: s.at("/tests", "spec", trace.Spec),
			Name: s.testName(trace.TestDescription), Health: healthOf(trace.Health), Reason: reasonFor(trace),
			Metrics: trace.Metrics, Failed: rateCell{trace.Metrics.Failures, trace.Metrics.FailureRate, toneFail},
			Flaky:       rateCell{trace.Metrics.Flaky, trace.Metrics.FlakinessRate, toneFlaky},
			ErrorsSince: trace.ErrorsSince}
		p.Title = run.Clip(p.Name.Title, 200) + " · " + l.Title
		p.Icon = p.Health.Tone
		p.addResults(s, trace)
		p.addStrips(s, trace)
		p.Chart = s.traceChart(trace)
		for _, v := range trace.Errors[:min(traceErrors, len(trace.Errors))] {
			p.Errors = append(p.Errors, tracedError{s.at("/errors/" + v.Fingerprint), v.Headline, v.Count, v.Others,
				s.traced(trace, v.Last)})
		}
		return u.views.test.render(p)
	})
}

// reasonFor says why a test has its health.
func reasonFor(t history.Trace) string {
	e := t.Evidence
	latest := "the latest " + count(e.Results, "result")
	failing := ""
	if e.Failed > 0 {
		failing = fmt.Sprintf(" It failed in the latest %s; 3 in a row make it broken.", count(e.Failed, "result"))
	}
	switch t.Health {
	case history.Broken:
		return fmt.Sprintf("Its latest %s failed.", count(e.Failed, "result"))
	case history.Flaky:
		var how []string
		if e.Retried > 0 {
			how = append(how, fmt.Sprintf("%d passed only after a retry", e.Retried))
		}
		if e.Alone > 0 {
			how = append(how, fmt.Sprintf("%d failed between two passes", e.Alone))
		}
		return fmt.Sprintf("%d of %s were unstable: %s.", e.Retried+e.Alone, latest, strings.Join(how, ", and "))
	case history.Unknown:
		if e.Results == 0 {
			return "It neither passed nor failed in this period."
		}
		return "It has not passed in this period." + failing
	default:
		unstable := "None"
		if e.Retried+e.Alone > 0 {
			unstable = "Only 1"
		}
		return fmt.Sprintf("%s of %s was unstable; 2 make it flaky.%s", unstable, latest, failing)
	}
}

func (s *scope) traced(t history.Trace, v history.TracedResult) tracedResult {
	out := tracedResult{URL: s.result(v.Run.ID, v.Group, t.Spec), At: v.Run.CreatedAt, Branch: v.Run.Branch,
		Group: v.Group, State: string(v.State), Took: v.Duration}
	switch {
	case v.Flaky:
		out.State, out.Tone = "flaky", toneFlaky
	case v.State == run.Passed:
		out.Tone = tonePass
	case v.State == run.Failed:
		out.Tone = toneFail
	case v.State == run.Skipped:
		out.Tone = toneSkip
	default:
		out.Tone = toneIdle
	}
	return out
}

// addResults adds the latest results, the first and the last failure, and how long passes took.
func (p *testPage) addResults(s *scope, t history.Trace) {
	var passes []time.Duration
	for _, v := range t.Results {
		switch v.State {
		case run.Failed:
			r := s.traced(t, v)
			if p.Last = &r; p.First == nil {
				p.First = &r
			}
		case run.Passed:
			passes = append(passes, v.Duration)
		case run.Pending, run.Skipped:
		}
	}
	slices.Sort(passes)
	p.P50, p.P95 = history.Percentile(passes, 50), history.Percentile(passes, 95)
	p.MoreResults = max(0, len(t.Results)-traceRows)
	for _, v := range slices.Backward(t.Results[p.MoreResults:]) {
		p.Results = append(p.Results, s.traced(t, v))
	}
}

// addStrips adds a strip for each branch: the default branch first, then the one with
// the latest result.
func (p *testPage) addStrips(s *scope, t history.Trace) {
	byBranch := map[string][]history.TracedResult{}
	var names []string // those with the latest result first
	for _, v := range slices.Backward(t.Results) {
		if byBranch[v.Run.Branch] == nil {
			names = append(names, v.Run.Branch)
		}
		byBranch[v.Run.Branch] = append(byBranch[v.Run.Branch], v)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		rank := map[bool]int{true: 0, false: 1}
		return rank[a == s.project.DefaultBranch] - rank[b == s.project.DefaultBranch]
	})
	p.MoreBranches = max(0, len(names)-traceBranches)
	for _, name := range names[:min(traceBranches, len(names))] {
		p.Branches = append(p.Branches, s.traceStrip(t, name, byBranch[name]))
	}
}

// traceStrip draws the results on a branch, of which the latest comes first.
func (s *scope) traceStrip(t history.Trace, branch string, latest []history.TracedResult) traceStrip {
	strip := traceStrip{Branch: branch, Results: len(latest), Last: latest[0].Run.CreatedAt}
	if branch != "" {
		strip.URL = s.link("branch", branch)
	}
	longest := time.Millisecond
	for _, v := range latest {
		if v.State == run.Failed {
			strip.Failed++
		}
	}
	latest = latest[:min(traceBars, len(latest))]
	for _, v := range latest {
		longest = max(longest, v.Duration)
	}
	for n, v := range latest {
		r := s.traced(t, v)
		h := max(4, int(barHeight*v.Duration/longest))
		strip.Bars = append(strip.Bars, barRun{Tone: r.Tone, X: 8 * (traceBars - 1 - n), Y: barHeight - h, H: h, URL: r.URL,
			Text: fmt.Sprintf("%s UTC: %s, %s", r.At.UTC().Format("2 Jan 15:04"), r.State, span(r.Took))})
	}
	return strip
}

// traceChart draws how long the test took where it passed.
func (s *scope) traceChart(t history.Trace) chart {
	by := s.resolution()
	first := by.Start(s.filter.Since)
	steps := make([][]time.Duration, by.Steps(s.filter.Since, s.filter.Until))
	for _, v := range t.Results {
		if v.State == run.Passed {
			n := v.Run.CreatedAt.Sub(first) / by.Length()
			steps[n] = append(steps[n], v.Duration)
		}
	}
	half, most := plotSeries{name: "p50", class: "main"}, plotSeries{name: "p95", class: "second"}
	p := plot{id: "duration", title: "Duration where it passed", write: writeSpan, top: spanTop}
	for n, took := range steps {
		p.steps = append(p.steps, s.step(first.Add(time.Duration(n)*by.Length()), by))
		slices.Sort(took)
		at := func(percent int) float64 {
			if len(took) == 0 {
				return math.NaN()
			}
			return history.Percentile(took, percent).Seconds()
		}
		half.values, most.values = append(half.values, at(50)), append(most.values, at(95))
	}
	p.series = []plotSeries{half, most}
	return p.draw()
}

// errorPage is one error over time.
type errorPage struct {
	layout
	explorer
	ErrorsURL    string
	Headline     string
	Count        int
	AllTests     int
	AllBranches  int
	First, Last  time.Time // zero if it did not occur in the period
	Chart        chart
	Tests        []errorPlace
	MoreTests    int
	Branches     []errorPlace
	MoreBranches int
}

// errorPlace is a test or a branch on which the error occurred.
type errorPlace struct {
	testName
	Branch string
	Count  int
	RunURL string // of the latest result with it
	At     time.Time
}

func (u *ui) error(r *request) error {
	fingerprint := r.PathValue("fingerprint")
	return u.inHistory(r, "Error", "errors", "/errors/"+fingerprint, func(s *scope, l layout, e explorer) ([]byte, error) {
		trace, err := u.explorer.TraceError(r.Context(), s.tx, s.project.ID, fingerprint, s.filter)
		if err != nil {
			return nil, err
		}
		s.finish(&e)
		p := errorPage{layout: l, explorer: e, ErrorsURL: s.at("/errors"), Headline: trace.Headline, Count: trace.Count,
			AllTests: trace.Tests, AllBranches: trace.Branches, First: trace.FirstSeen, Last: trace.LastSeen,
			Chart: s.errorChart(trace.Days), MoreTests: trace.Tests - len(trace.ByTest),
			MoreBranches: trace.Branches - len(trace.ByBranch)}
		p.Title = run.Clip(trace.Headline, 200) + " · " + l.Title
		place := func(v history.ErrorPlace) errorPlace {
			return errorPlace{testName: s.testName(v.TestDescription), Branch: v.Branch, Count: v.Count,
				RunURL: s.u.runURL(v.Last.ID), At: v.Last.CreatedAt}
		}
		for _, v := range trace.ByTest {
			shown := place(v)
			shown.RunURL = s.result(v.Last.ID, v.Group, v.Spec)
			p.Tests = append(p.Tests, shown)
		}
		for _, v := range trace.ByBranch {
			p.Branches = append(p.Branches, place(v))
		}
		return u.views.error.render(p)
	})
}
