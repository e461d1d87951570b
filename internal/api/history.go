package api

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
)

// period reads the dates that calls about the past need. A date without a time is the
// midnight at which it begins; as the end, the one at which it ends.
func (r *request) period(f *store.HistoryFilter) (err error) {
	if f.Since, err = r.instant("date_start"); err != nil {
		return err
	}
	if f.Until, err = r.instant("date_end"); err != nil {
		return err
	}
	if _, err := time.Parse(time.DateOnly, r.query.Get("date_end")); err == nil {
		f.Until = f.Until.AddDate(0, 0, 1)
	}
	switch {
	case f.Since.IsZero():
		return run.Errorf(run.Invalid, "date_start is missing: give a time such as 2026-01-31T12:00:00Z, or a date.")
	case f.Until.IsZero():
		return run.Errorf(run.Invalid, "date_end is missing: give a time such as 2026-01-31T12:00:00Z, or a date.")
	case !f.Since.Before(f.Until):
		return run.Errorf(run.Invalid, "date_end must be after date_start.")
	}
	return nil
}

func period(more ...param) []param {
	return append([]param{
		{name: "date_start", doc: "Runs that were created at or after this time.", format: "date-time", required: true},
		{name: "date_end", doc: "Runs that were created before this time. A date without a time: up to its end.",
			format: "date-time", required: true},
		{name: "tags[]", doc: "A tag of the run.", repeats: true},
		{name: "branches[]", repeats: true},
		{name: "authors[]", doc: "The name of the commit's author.", repeats: true},
		{name: "groups[]", repeats: true},
	}, more...)
}

var tagOperator = param{name: "tag_operator", doc: "Whether all of tags[] are needed or one is enough; AND if absent.",
	enum: []string{"AND", "OR"}}

// historyFilter reads the parameters of period and the operator of tags.
func (r *request) historyFilter(operator, absent string) (f store.HistoryFilter, err error) {
	if err := r.period(&f); err != nil {
		return f, err
	}
	for _, p := range []struct {
		into  *[]string
		names []string // the others are older ones of Currents
	}{{&f.Tags, []string{"tags", "tag"}}, {&f.Branches, []string{"branches", "branch"}},
		{&f.Authors, []string{"authors", "git_author"}}, {&f.Groups, []string{"groups", "group"}}} {
		if *p.into, err = r.all(p.names...); err != nil {
			return f, err
		}
	}
	op, err := word(r, operator, []string{"AND", "OR"}, absent)
	f.AnyTag = op == "OR"
	return f, err
}

// word reads a parameter with known values.
func word[T ~string](r *request, name string, known []T, absent T) (T, error) {
	v := T(r.query.Get(name))
	switch {
	case v == "":
		return absent, nil
	case !slices.Contains(known, v):
		return "", run.Errorf(run.Invalid, "%s must be %s, not %q.", name, oneOf(known), run.Clip(string(v), 40))
	default:
		return v, nil
	}
}

// whole reads a parameter that is a number from least to most.
func (r *request) whole(name string, least, most, absent int) (int, error) {
	s := r.query.Get(name)
	if s == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, run.Errorf(run.Invalid, "%s must be a number from %d to %d.", name, least, most)
	}
	return n, nil
}

// yes reads a parameter that is true or false, nil if absent.
func (r *request) yes(name string) (*bool, error) {
	v, err := word(r, name, []string{"true", "false"}, "")
	if v == "" {
		return nil, err
	}
	return new(v == "true"), err
}

// text reads a parameter that is a part of something.
func (r *request) text(name string, most int) (string, error) {
	v := r.query.Get(name)
	return v, checkText(name, v, 0, most)
}

// sheet is a page with a number.
type sheet struct {
	page, limit int
	ascending   bool
}

const maxSheet = 1_000_000

func sheets(limit int) []param {
	return []param{
		{name: "page", doc: "The number of the page, from 0.", format: "integer"},
		{name: "limit", doc: "How many items at most, 1 to " + strconv.Itoa(limit) + "; 50 if absent.", format: "integer"},
		{name: "dir", doc: "desc if absent.", enum: []string{"asc", "desc"}},
	}
}

func (r *request) sheet(limit int) (s sheet, err error) {
	if s.page, err = r.whole("page", 0, maxSheet, 0); err != nil {
		return s, err
	}
	if s.limit, err = r.whole("limit", 1, limit, 50); err != nil {
		return s, err
	}
	dir, err := word(r, "dir", []string{"asc", "desc"}, "desc")
	s.ascending = dir == "asc"
	return s, err
}

// nextPage is the number of the next page, and false in JSON if it is 0.
type nextPage int

// MarshalJSON writes the number or false.
func (n nextPage) MarshalJSON() ([]byte, error) {
	if n == 0 {
		return []byte("false"), nil
	}
	return strconv.AppendInt(nil, int64(n), 10), nil
}

func (s sheet) next(total int) nextPage {
	if (s.page+1)*s.limit >= total {
		return 0
	}
	return nextPage(s.page + 1)
}

// inHistory runs f on a project that exists, and answers up to when the history is
// complete.
func (a *api) inHistory(r *request, f func(*store.Tx) error) (upTo timestamp, err error) {
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), r.id()); err != nil {
			return err
		}
		at, err := tx.HistoryCompleteUpTo(r.Context())
		if err != nil {
			return err
		}
		upTo = timestamp(at)
		return f(tx)
	})
	return upTo, err
}

// Insights.

type projectInsights struct {
	ProjectID  string         `json:"projectId"`
	DateStart  timestamp      `json:"dateStart"`
	DateEnd    timestamp      `json:"dateEnd"`
	Resolution string         `json:"resolution"`
	Tags       []string       `json:"tags"`
	Branches   []string       `json:"branches"`
	Authors    []string       `json:"authors"`
	Groups     []string       `json:"groups"`
	Results    insightResults `json:"results"`
}

type insightResults struct {
	Overall  insight              `json:"overall"`
	Timeline []map[string]insight `json:"timeline" doc:"Oldest first. Each has one key, when the step begins; weeks begin on Monday, all in UTC."`
}

type insight struct {
	Runs  runMetrics    `json:"runs"`
	Tests resultMetrics `json:"tests"`
}

type runMetrics struct {
	Total              int     `json:"total"`
	Cancelled          int     `json:"cancelled"`
	Timeouts           int     `json:"timeouts"`
	Completed          int     `json:"completed" doc:"Every spec has results."`
	Failed             int     `json:"failed" doc:"Also those that were canceled or timed out."`
	Passed             int     `json:"passed"`
	AvgDurationSeconds float64 `json:"avgDurationSeconds" doc:"Of completed runs."`
	AvgSuccessRate     float64 `json:"avgSuccessRate" doc:"How many of the tests that ran passed in a run that ended, on average: 0 to 1."`
}

type resultMetrics struct {
	Total   int `json:"total"`
	Failed  int `json:"failed"`
	Passed  int `json:"passed"`
	Pending int `json:"pending"`
	Skipped int `json:"skipped"`
	Flaky   int `json:"flaky"`
}

func showInsight(i history.Insight) insight {
	c := i.Tests
	return insight{
		runMetrics{i.Runs, i.Canceled, i.TimedOut, i.Finished, i.Failed, i.Passed, i.AvgDuration.Seconds(), i.SuccessRate},
		resultMetrics{c.Overall(), c.Failures, c.Passes, c.Pending, c.Skipped, c.Flaky},
	}
}

func (a *api) insights(r *request) (projectInsights, error) {
	f, err := r.historyFilter("tag_operator", "AND")
	if err != nil {
		return projectInsights{}, err
	}
	by, err := word(r, "resolution", history.Resolutions(), history.Daily)
	if err != nil {
		return projectInsights{}, err
	}
	if by.Steps(f.Since, f.Until) > history.MaxSteps {
		return projectInsights{}, run.Errorf(run.Invalid,
			"resolution %s has more than %d steps in this period: take a coarser one.", by, history.MaxSteps)
	}
	list := func(v []string) []string { return append([]string{}, v...) }
	out := projectInsights{ProjectID: r.id(), DateStart: timestamp(f.Since), DateEnd: timestamp(f.Until),
		Resolution: string(by), Tags: list(f.Tags), Branches: list(f.Branches), Authors: list(f.Authors),
		Groups: list(f.Groups)}
	_, err = a.inHistory(r, func(tx *store.Tx) error {
		overall, timeline, err := history.Insights(r.Context(), tx, r.id(), f, by)
		out.Results = insightResults{showInsight(overall), make([]map[string]insight, len(timeline))}
		for n, step := range timeline {
			out.Results.Timeline[n] = map[string]insight{step.Start.Format(timeLayout): showInsight(step)}
		}
		return err
	})
	return out, err
}

// Spec files.

type specPage struct {
	List         []specFile `json:"list"`
	Total        int        `json:"total"`
	NextPage     nextPage   `json:"nextPage"`
	CompleteUpTo timestamp  `json:"completeUpTo" doc:"Results that came in before are counted."`
}

type specFile struct {
	Signature string      `json:"signature"`
	Spec      string      `json:"spec"`
	Metrics   specMetrics `json:"metrics"`
}

type specMetrics struct {
	AvgDuration       float64 `json:"avgDuration" doc:"Milliseconds, of executions that did not fail."`
	FailedExecutions  int     `json:"failedExecutions"`
	FailureRate       float64 `json:"failureRate"`
	FlakeRate         float64 `json:"flakeRate"`
	FlakyExecutions   int     `json:"flakyExecutions"`
	FullyReported     int     `json:"fullyReported" doc:"Executions in which every announced test has a result."`
	OverallExecutions int     `json:"overallExecutions"`
	SuiteSize         int     `json:"suiteSize" doc:"The most tests in one execution."`
	TimeoutExecutions int     `json:"timeoutExecutions"`
	TimeoutRate       float64 `json:"timeoutRate"`
}

const maxPart = 200 // characters of what is searched for

func specFilters() []param {
	return period(slices.Concat([]param{tagOperator,
		{name: "specNameFilter", doc: "Part of the path, in any case; at most 200 characters."},
		{name: "includeFailedInDuration", doc: "Whether executions that failed count in avgDuration; false if absent.",
			enum: []string{"true", "false"}},
		{name: "order", doc: "avgDuration if absent.", enum: texts(history.SpecOrders())}}, sheets(50))...)
}

func (a *api) specFiles(r *request) (specPage, error) {
	var q history.SpecQuery
	var err error
	if q.Filter, err = r.historyFilter("tag_operator", "AND"); err != nil {
		return specPage{}, err
	}
	s, err := r.sheet(50)
	if err != nil {
		return specPage{}, err
	}
	if q.Order, err = word(r, "order", history.SpecOrders(), history.ByAvgDuration); err != nil {
		return specPage{}, err
	}
	if q.Spec, err = r.text("specNameFilter", maxPart); err != nil {
		return specPage{}, err
	}
	all, err := r.yes("includeFailedInDuration")
	if err != nil {
		return specPage{}, err
	}
	q.FailedInDuration, q.Page, q.Limit, q.Ascending = all != nil && *all, s.page, s.limit, s.ascending
	out := specPage{List: []specFile{}}
	out.CompleteUpTo, err = a.inHistory(r, func(tx *store.Tx) error {
		list, total, err := history.Specs(r.Context(), tx, r.id(), q)
		for _, v := range list {
			m := v.Metrics
			out.List = append(out.List, specFile{v.Signature, v.Path,
				specMetrics{m.AvgDuration, m.Failed, m.FailureRate, m.FlakeRate, m.Flaky, m.FullyReported, m.Overall, m.SuiteSize,
					m.TimedOut, m.TimeoutRate}})
		}
		out.Total, out.NextPage = total, s.next(total)
		return err
	})
	return out, err
}

// Tests.

type testPage struct {
	List         []testFile `json:"list"`
	Count        int        `json:"count" doc:"On this page."`
	Total        int        `json:"total"`
	NextPage     nextPage   `json:"nextPage"`
	CompleteUpTo timestamp  `json:"completeUpTo" doc:"Results that came in before are counted."`
}

type testFile struct {
	Title     string         `json:"title" doc:"From the outermost suite to the test, with \" > \" between."`
	Signature string         `json:"signature"`
	Spec      string         `json:"spec"`
	Metrics   testMetrics    `json:"metrics"`
	Health    history.Health `json:"health" doc:"By its latest 20 results that ran, of those the filters match."`
	LatestTag []string       `json:"latestTag" doc:"The tags of the latest run with it."`
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
	FlakinessVolume float64 `json:"flakinessVolume" doc:"The rate times the executions, as in the other volumes."`
	FailureVolume   float64 `json:"failureVolume"`
	DurationVolume  float64 `json:"durationVolume"`
}

var testStates = []run.TestState{run.Passed, run.Failed, run.Pending, run.Skipped}

func testFilters() []param {
	return period(slices.Concat([]param{tagOperator,
		{name: "spec", doc: "Part of the path, in any case; at most 200 characters."},
		{name: "title", doc: "Part of the title, in any case; at most 200 characters."},
		{name: "min_executions", doc: "How many executions a test has at least.", format: "integer"},
		{name: "test_state[]", doc: "Results that executions and avgDurationMs count: executions passed and failed ones if " +
			"absent, avgDurationMs passed ones.", enum: texts(testStates), repeats: true},
		{name: "metric_settings", doc: `Results that each number counts, as JSON: {"executions":["failed","passed"],` +
			`"avgDuration":["passed"],"flakinessRate":["passed","failed"],"failureRate":["passed","failed"]}.`},
		{name: "health[]", doc: "Tests of this health.", enum: texts(history.Healths()), repeats: true},
		{name: "order", doc: "title if absent. XSamples is the volume; a delta is the change since the period of the same " +
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
			"annotations cannot be filtered by, because tests of Cypress have none: leave the parameter out.")
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
		list, total, err := history.Tests(r.Context(), tx, r.id(), q)
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
	if q.Order, err = word(r, "order", history.TestOrders(), history.ByTitle); err != nil {
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

type errorPage struct {
	List         []errorItem `json:"list"`
	Timeline     []errorDay  `json:"timeline" doc:"Days with an error, oldest first."`
	Count        int         `json:"count" doc:"On this page."`
	Total        int         `json:"total"`
	NextPage     nextPage    `json:"nextPage"`
	CompleteUpTo timestamp   `json:"completeUpTo" doc:"Results that came in before are counted."`
}

type errorItem struct {
	Fingerprint string       `json:"fingerprint" doc:"The same for errors that differ only in numbers, ids, times, paths and quoted values."`
	Message     string       `json:"message" doc:"The headline of one of them."`
	Category    *string      `json:"error_category" doc:"Always null, as the next two: Runbell groups errors by message only."`
	Action      *string      `json:"error_action"`
	Target      *string      `json:"error_target"`
	Count       int          `json:"count" doc:"Results that failed or were flaky with it, and specs that could not run."`
	Details     errorDetails `json:"details"`
	FirstSeen   timestamp    `json:"firstSeen"`
	LastSeen    timestamp    `json:"lastSeen"`
}

type errorDetails struct {
	Tests    counted `json:"tests"`
	Branches counted `json:"branches"`
}

type counted struct {
	Count int `json:"count"`
}

type errorDay struct {
	Date  timestamp   `json:"date"`
	Count int         `json:"count"`
	Items []errorItem `json:"items" doc:"The top errors of the day."`
}

func showErrors(list []history.Error) []errorItem {
	out := make([]errorItem, len(list))
	for n, e := range list {
		out[n] = errorItem{Fingerprint: e.Fingerprint, Message: e.Headline, Count: e.Count,
			Details: errorDetails{counted{e.Tests}, counted{e.Branches}}, FirstSeen: timestamp(e.FirstSeen),
			LastSeen: timestamp(e.LastSeen)}
	}
	return out
}

var errorMetrics = map[string]history.ErrorOrder{"occurrence": history.ByCount, "test": history.ByTests,
	"branch": history.ByBranches}

func errorFilters() []param {
	return period(slices.Concat([]param{
		{name: "tags_logical_operator", doc: "Whether all of tags[] are needed or one is enough; OR if absent.",
			enum: []string{"AND", "OR"}},
		{name: "error_message", doc: "Part of the message, in any case; at most 200 characters."},
		{name: "order_by", doc: "count if absent.", enum: texts(history.ErrorOrders())},
		{name: "group_by[]", enum: []string{"message"}, repeats: true},
		{name: "metric", doc: "What the items of a day are chosen by; occurrence if absent.",
			enum: []string{"occurrence", "test", "branch"}},
		{name: "top_n", doc: "How many items a day has at most, 1 to 50; 5 if absent.", format: "integer"}}, sheets(100))...)
}

func (r *request) errorQuery() (q history.ErrorQuery, s sheet, err error) {
	for _, name := range []string{"error_target", "error_category", "error_action"} {
		if r.query.Get(name) != "" {
			return q, s, run.Errorf(run.Invalid,
				"%s cannot be filtered by, because Runbell groups errors by message only: use error_message.", name)
		}
	}
	if q.Filter, err = r.historyFilter("tags_logical_operator", "OR"); err != nil {
		return q, s, err
	}
	if s, err = r.sheet(100); err != nil {
		return q, s, err
	}
	if q.Message, err = r.text("error_message", maxPart); err != nil {
		return q, s, err
	}
	if q.Order, err = word(r, "order_by", history.ErrorOrders(), history.ByCount); err != nil {
		return q, s, err
	}
	if _, err := choices(r, "group_by", []string{"message"}); err != nil {
		return q, s, err
	}
	metric, err := word(r, "metric", []string{"occurrence", "test", "branch"}, "occurrence")
	if err != nil {
		return q, s, err
	}
	q.TopBy, q.Page, q.Limit, q.Ascending = errorMetrics[metric], s.page, s.limit, s.ascending
	q.Top, err = r.whole("top_n", 1, 50, 5)
	return q, s, err
}

func (a *api) errors(r *request) (errorPage, error) {
	q, s, err := r.errorQuery()
	if err != nil {
		return errorPage{}, err
	}
	var out errorPage
	out.CompleteUpTo, err = a.inHistory(r, func(tx *store.Tx) error {
		found, err := history.Errors(r.Context(), tx, r.id(), q)
		out.List, out.Timeline = showErrors(found.List), make([]errorDay, len(found.Timeline))
		for n, d := range found.Timeline {
			out.Timeline[n] = errorDay{timestamp(d.Day), d.Count, showErrors(d.Top)}
		}
		out.Count, out.Total, out.NextPage = len(found.List), found.Total, s.next(found.Total)
		return err
	})
	return out, err
}

// Results of a test.

type testResult struct {
	Cursor       string          `json:"cursor"`
	Signature    string          `json:"signature"`
	CreatedAt    timestamp       `json:"createdAt" doc:"When the run was created."`
	ProjectID    string          `json:"projectId"`
	RunID        string          `json:"runId"`
	RunURL       string          `json:"runUrl"`
	GroupID      string          `json:"groupId"`
	InstanceID   string          `json:"instanceId"`
	MachineID    string          `json:"machineId"`
	Spec         string          `json:"spec"`
	Tags         []string        `json:"tags"`
	Title        []string        `json:"title"`
	TestID       string          `json:"testId"`
	DisplayError *string         `json:"displayError"`
	Commit       commit          `json:"commit"`
	Framework    resultFramework `json:"framework"`
	Duration     int64           `json:"duration" doc:"Milliseconds, of all attempts."`
	Flaky        bool            `json:"flaky"`
	Status       run.TestState   `json:"status"`
	Attempts     []resultAttempt `json:"attempts"`
}

type resultFramework struct {
	Type          string  `json:"type"`
	Version       *string `json:"version"`
	ClientVersion *string `json:"clientVersion"`
}

type resultAttempt struct {
	AttemptID string        `json:"attemptId"`
	State     run.TestState `json:"state"`
	Error     *resultError  `json:"error"`
	StartedAt *timestamp    `json:"startedAt"`
	Duration  int64         `json:"duration" doc:"Milliseconds."`
}

type resultError struct {
	Message  string          `json:"message"`
	Stack    string          `json:"stack"`
	Location *resultLocation `json:"location"`
}

type resultLocation struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

func resultFilters() []param {
	return period(slices.Concat([]param{tagOperator,
		{name: "status[]", enum: texts(testStates), repeats: true},
		{name: "flaky", doc: "Only flaky results, or only others.", enum: []string{"true", "false"}}}, cursors())...)
}

func (a *api) testResults(r *request) ([]testResult, bool, error) {
	if err := r.noAnnotations(); err != nil {
		return nil, false, err
	}
	page, err := r.page()
	if err != nil {
		return nil, false, err
	}
	var q history.ResultQuery
	if q.Filter, err = r.historyFilter("tag_operator", "AND"); err != nil {
		return nil, false, err
	}
	if q.States, err = choices(r, "status", testStates); err != nil {
		return nil, false, err
	}
	if q.Flaky, err = r.yes("flaky"); err != nil {
		return nil, false, err
	}
	var out []testResult
	var more bool
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		list, m, err := history.Results(r.Context(), tx, r.id(), q, page)
		more = m
		for _, v := range list {
			out = append(out, a.showResult(r.id(), v))
		}
		return err
	})
	return out, more, err
}

func (a *api) showResult(signature string, v history.TestResult) testResult {
	client := v.Run.Client
	out := testResult{Cursor: v.Place.Cursor(), Signature: signature, CreatedAt: timestamp(v.Run.CreatedAt),
		ProjectID: v.Run.ProjectID, RunID: v.Run.ID, RunURL: a.Runs.RunURL(v.Run.ID), GroupID: v.Instance.GroupName,
		InstanceID: v.Instance.ID, MachineID: v.Instance.MachineID, Spec: v.Instance.Spec,
		Tags: append([]string{}, v.Run.Tags...), Title: append([]string{}, v.Test.Title...), TestID: v.Test.ID,
		DisplayError: text(v.Test.Result.Error), Commit: showCommit(v.Run.Commit),
		Framework: resultFramework{client.Framework.Name, text(client.Framework.Version), text(client.Version)},
		Duration:  v.Duration.Milliseconds(), Flaky: v.Flaky, Status: v.Test.Result.State, Attempts: []resultAttempt{}}
	for n, tried := range v.Test.Result.Attempts {
		shown := resultAttempt{AttemptID: v.Instance.ID + "-" + v.Test.ID + "-" + strconv.Itoa(n), State: tried.State,
			StartedAt: knownAt(tried.StartedAt), Duration: tried.Duration}
		if e := tried.Error; e != nil {
			shown.Error = &resultError{Message: e.Text(), Stack: e.Stack}
			if e.Frame != nil {
				shown.Error.Location = &resultLocation{e.Frame.File, e.Frame.Line, e.Frame.Column}
			}
		}
		out.Attempts = append(out.Attempts, shown)
	}
	return out
}

// Signatures.

// titles is a field that clients send as a text or as a list of texts.
type titles []string

// UnmarshalJSON takes both forms.
func (t *titles) UnmarshalJSON(b []byte) error {
	if strings.HasPrefix(string(b), `"`) {
		*t = make(titles, 1)
		return json.Unmarshal(b, &(*t)[0])
	}
	return json.Unmarshal(b, (*[]string)(t))
}

type signatureRequest struct {
	ProjectID    string `json:"projectId"`
	SpecFilePath string `json:"specFilePath"`
	TestTitle    titles `json:"testTitle" doc:"The titles from the outermost suite to the test, or the one title."`
}

type signature struct {
	Signature string `json:"signature"`
}

func (a *api) signature(r *request, b signatureRequest) (signature, error) {
	if err := checkText("specFilePath", b.SpecFilePath, 1, run.MaxSpecLength); err != nil {
		return signature{}, err
	}
	if len(b.TestTitle) == 0 || len(b.TestTitle) > maxFilters {
		return signature{}, run.Errorf(run.Invalid, "testTitle must be a text, or a list of 1 to %d texts.", maxFilters)
	}
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		_, err := tx.Project(r.Context(), b.ProjectID)
		return err
	})
	return signature{run.Signature(b.ProjectID, b.SpecFilePath, b.TestTitle)}, err
}
