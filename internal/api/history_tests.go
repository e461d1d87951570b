package api

import (
	"encoding/json"
	"slices"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
)

type testPage struct {
	List         []testFile `json:"list"`
	Count        int        `json:"count" doc:"On this page."`
	Total        int        `json:"total"`
	NextPage     nextPage   `json:"nextPage"`
	CompleteUpTo timestamp  `json:"completeUpTo" doc:"Results that arrived before this time are counted."`
}

type testFile struct {
	Title     string         `json:"title" doc:"From the outermost suite to the test, with \" > \" between."`
	Signature string         `json:"signature"`
	Spec      string         `json:"spec"`
	Metrics   testMetrics    `json:"metrics"`
	Health    history.Health `json:"health" doc:"Based on its latest 20 results that match the filters and ran."`
	LatestTag []string       `json:"latestTag" doc:"The tags of its latest run."`
	LastSeen  timestamp      `json:"lastSeen"`
}

type testMetrics struct {
	Executions      int     `json:"executions"`
	Failures        int     `json:"failures"`
	Ignored         int     `json:"ignored" doc:"Pending or skipped."`
	Passes          int     `json:"passes"`
	Flaky           int     `json:"flaky"`
	FlakinessRate   float64 `json:"flakinessRate"`
	FailureRate     float64 `json:"failureRate"`
	AvgDurationMs   float64 `json:"avgDurationMs"`
	FlakinessVolume float64 `json:"flakinessVolume" doc:"The rate times the number of executions, like the other volumes."`
	FailureVolume   float64 `json:"failureVolume"`
	DurationVolume  float64 `json:"durationVolume"`
}

var testStates = []run.TestState{run.Passed, run.Failed, run.Pending, run.Skipped}

func testFilters() []param {
	return period(slices.Concat([]param{tagOperator,
		{name: "spec", doc: "Part of the path, in any case; at most 200 characters."},
		{name: "title", doc: "Part of the title, in any case; at most 200 characters."},
		{name: "min_executions", doc: "Minimum number of executions of a test.", format: "integer"},
		{name: "test_state[]", doc: "Results that executions and avgDurationMs count: executions passed and failed ones if " +
			"absent, avgDurationMs passed ones.", enum: texts(testStates), repeats: true},
		{name: "metric_settings", doc: `Results that each number counts, as JSON: {"executions":["failed","passed"],` +
			`"avgDuration":["passed"],"flakinessRate":["passed","failed"],"failureRate":["passed","failed"]}.`},
		{name: "health[]", doc: "Tests of this health.", enum: texts(history.Healths()), repeats: true},
		{name: "order", doc: "Default: title. XSamples is the volume; a delta is the change since the period of the same " +
			"length before.", enum: texts(history.TestOrders())}}, sheets(100))...)
}

// states reads which results each number of a test counts.
func (r *request) states() (history.States, error) {
	s := history.DefaultStates()
	given, err := choices(r, "test_state", testStates)
	if err != nil {
		return s, err
	}
	if len(given) > 0 {
		s.Executions, s.AvgDuration = given, given
	}
	text := r.query.Get("metric_settings")
	if text == "" {
		return s, nil
	}
	return s, readSettings(text, &s)
}

func readSettings(text string, s *history.States) error {
	wrong := run.Errorf(run.Invalid,
		"metric_settings must be a JSON object with executions, avgDuration, flakinessRate and failureRate, "+
			"of which each is a list of %s.", oneOf(testStates))
	var settings map[string][]run.TestState
	if len(text) > 1000 || json.Unmarshal([]byte(text), &settings) != nil {
		return wrong
	}
	known := map[string]*[]run.TestState{"executions": &s.Executions, "avgDuration": &s.AvgDuration,
		"flakinessRate": &s.FlakinessRate, "failureRate": &s.FailureRate}
	for name, states := range settings {
		slices.Sort(states)
		states = slices.Compact(states) // each is counted once
		if known[name] == nil || slices.ContainsFunc(states, func(v run.TestState) bool { return !v.Known() }) {
			return wrong
		}
		*known[name] = states
	}
	return nil
}

// noAnnotations refuses a filter that nothing could match.
func (r *request) noAnnotations() error {
	if r.query.Get("annotations") != "" {
		return run.Errorf(run.Invalid,
			"annotations is not supported, because Cypress tests have none: remove the parameter.")
	}
	return nil
}

func (a *api) tests(r *request) (testPage, error) {
	q, s, err := r.testQuery()
	if err != nil {
		return testPage{}, err
	}
	out := testPage{List: []testFile{}}
	out.CompleteUpTo, err = a.inHistory(r, func(tx *store.Tx) error {
		list, total, err := a.Explorer.Tests(r.Context(), tx, r.id(), q)
		for _, t := range list {
			m := t.Metrics
			out.List = append(out.List, testFile{t.Name(), t.Signature, t.Spec,
				testMetrics{m.Executions, m.Failures, m.Ignored, m.Passes, m.Flaky, m.FlakinessRate, m.FailureRate, m.AvgDuration,
					m.FlakinessVolume, m.FailureVolume, m.DurationVolume}, t.Health, t.LatestTags, timestamp(t.LastSeen)})
		}
		out.Count, out.Total, out.NextPage = len(list), total, s.next(total)
		return err
	})
	return out, err
}

func (r *request) testQuery() (q history.TestQuery, s sheet, err error) {
	if err := r.noAnnotations(); err != nil {
		return q, s, err
	}
	if q.Filter, err = r.historyFilter("tag_operator", "AND"); err != nil {
		return q, s, err
	}
	if s, err = r.sheet(100); err != nil {
		return q, s, err
	}
	if q.Order, err = choice(r, "order", history.TestOrders(), history.ByTitle); err != nil {
		return q, s, err
	}
	if q.Spec, err = r.text("spec", maxPart); err != nil {
		return q, s, err
	}
	if q.Title, err = r.text("title", maxPart); err != nil {
		return q, s, err
	}
	if q.MinExecutions, err = r.whole("min_executions", 1, 1_000_000_000, 0); err != nil {
		return q, s, err
	}
	if q.Healths, err = choices(r, "health", history.Healths()); err != nil {
		return q, s, err
	}
	q.Page, q.Limit, q.Ascending = s.page, s.limit, s.ascending
	q.States, err = r.states()
	return q, s, err
}

// Errors.
