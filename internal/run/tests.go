package run

import (
	"fmt"
	"slices"
	"time"
)

// TestState is how a test ended.
type TestState string

// The states of a test and of its attempts.
const (
	Passed  TestState = "passed"
	Failed  TestState = "failed"
	Pending TestState = "pending"
	Skipped TestState = "skipped"
)

// Known says that s is one of the four states.
func (s TestState) Known() bool {
	return s == Passed || s == Failed || s == Pending || s == Skipped
}

// WithMissing is o with the tests that were announced and have no result: those have
// no state, until Settle gives them an end.
func (o Outcome) WithMissing(a Announcement) Outcome {
	known := make(map[string]bool, len(o.Results))
	for _, r := range o.Results {
		known[r.ID] = true
	}
	o.Results = slices.Clone(o.Results)
	for _, t := range a.Tests {
		if len(o.Results) < len(a.Tests) && !known[t.ID] {
			o.Results = append(o.Results, Result{ID: t.ID})
		}
	}
	return o
}

// Counts counts the tests of the outcome. If none of them failed although the reporter
// counted failures, the results are incomplete: that is the exception of the spec.
func (o *Outcome) Counts() Counts {
	counts := Count(o.Results, o.Exception)
	if counts.Failures == 0 && o.Failures > 0 {
		o.Exception = fmt.Sprintf("The reporter counted %d failed tests in this spec, but sent no result that failed.",
			o.Failures)
		counts = Count(o.Results, o.Exception)
	}
	return counts
}

// Settle gives every test an end. After a crash the state of some tests is not one
// of the four. The first of them failed, with the text of the exception; those
// after it are skipped. Without an exception, each of them failed with an error that
// names its state. Settle changes results in place and returns what it changed, in
// words for people.
func Settle(results []Result, exception string) (changes []string) {
	crashed := slices.ContainsFunc(results, func(r Result) bool { return r.State == Failed && r.Error == exception })
	unended := 0
	note := func(change string) {
		if unended++; unended <= maxChanges {
			changes = append(changes, change)
		}
	}
	for i := range results {
		r := &results[i]
		if r.State.Known() {
			continue
		}
		was := fmt.Sprintf("Test %q has no result", Clip(r.ID, 60))
		why := "The reporter sent no result for this test."
		if r.State != "" {
			was = fmt.Sprintf("Test %q has the state %q, which is not a final state", Clip(r.ID, 60), Clip(string(r.State), 60))
			why = fmt.Sprintf("The reporter sent no result for this test, only the state %q.", Clip(string(r.State), 60))
		}
		switch {
		case exception == "":
			r.State, r.Error = Failed, why
			note(was + ": it counts as failed.")
		case !crashed:
			crashed = true
			r.State, r.Error = Failed, exception
			note(was + ": it counts as failed, because the spec ended with an exception.")
		default:
			r.State = Skipped
			note(was + ": it counts as skipped, because it did not run.")
		}
		settleAttempts(r)
	}
	if more := unended - maxChanges; more > 0 {
		changes = append(changes,
			fmt.Sprintf("%d more tests of this spec have no final state: they also count as failed or skipped.", more))
	}
	return changes
}

// maxChanges is how many tests of a spec are named that have no end.
const maxChanges = 5

// settleAttempts makes the last attempt of a test end as the test did, and those
// before it fail: otherwise there would have been no further one.
func settleAttempts(r *Result) {
	if r.State == Skipped {
		r.Attempts = nil
		return
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		if !a.State.Known() || i == len(r.Attempts)-1 {
			a.State = Failed
		}
		if i == len(r.Attempts)-1 && a.Error == nil {
			a.Error = &Failure{Message: r.Error}
		}
	}
}

// Announced is a test as a client announces it, before its result.
type Announced struct {
	ID    string   `json:"id"` // the client's, unique in the spec
	Title []string `json:"title"`
	Body  string   `json:"body,omitempty"` // source of the test function
}

// Result is how an announced test ended.
type Result struct {
	ID       string    `json:"id"`
	State    TestState `json:"state"`
	Error    string    `json:"error,omitempty"` // as the client displays it
	Frame    *Frame    `json:"frame,omitempty"` // of Error, where attempts have none
	Attempts []Attempt `json:"attempts,omitempty"`
	Duration int64     `json:"duration,omitempty"` // milliseconds, where attempts do not say theirs
}

// Attempt is one execution of a test; more than one means it was retried.
type Attempt struct {
	State     TestState  `json:"state"`
	StartedAt *time.Time `json:"startedAt,omitempty"`
	Duration  int64      `json:"duration,omitempty"` // milliseconds
	Error     *Failure   `json:"error,omitempty"`
	Hook      string     `json:"hook,omitempty"`    // id of the hook that failed
	VideoAt   int64      `json:"videoAt,omitempty"` // milliseconds into the video
}

// Failure is the error of an attempt.
type Failure struct {
	Name    string `json:"name,omitempty"`
	Message string `json:"message,omitempty"`
	Stack   string `json:"stack,omitempty"`
	Frame   *Frame `json:"frame,omitempty"`
}

// Frame is the piece of source code a failure points at.
type Frame struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Text   string `json:"text,omitempty"`
}

// Hook is a before, after, beforeEach or afterEach of a spec.
type Hook struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Title []string `json:"title,omitempty"`
}

// Screenshot is a picture a client took and may upload.
type Screenshot struct {
	ID      string     `json:"id"`
	Name    string     `json:"name,omitempty"`
	TestID  string     `json:"testId,omitempty"`
	Attempt int        `json:"attempt,omitempty"`
	TakenAt *time.Time `json:"takenAt,omitempty"`
	Width   int        `json:"width,omitempty"`
	Height  int        `json:"height,omitempty"`
}

// Announcement is everything a client says about a spec's tests before their
// results. Of the resolved configuration only Settings are kept: the rest holds
// paths and secrets.
type Announcement struct {
	Tests    []Announced `json:"tests"`
	Hooks    []Hook      `json:"hooks,omitempty"`
	Settings Settings    `json:"settings,omitzero"`
}

// Settings are the parts of the resolved Cypress configuration that matter for
// reading results.
type Settings struct {
	// Video and VideoUploadOnPasses are nil if the client did not say: not every
	// version of Cypress has both.
	Video               *bool `json:"video,omitempty"`
	VideoUploadOnPasses *bool `json:"videoUploadOnPasses,omitempty"`
	Retries             int   `json:"retries,omitempty"` // in run mode
}

// WantsVideo says whether the video of a spec is to be kept.
func (s Settings) WantsVideo(failed bool) bool {
	return (s.Video == nil || *s.Video) && (failed || s.VideoUploadOnPasses == nil || *s.VideoUploadOnPasses)
}

// Outcome is the results of a spec.
type Outcome struct {
	Results     []Result     `json:"results"`
	Screenshots []Screenshot `json:"screenshots,omitempty"`
	Video       bool         `json:"video,omitempty"`    // there is one
	Coverage    bool         `json:"coverage,omitempty"` // of the code, there is some
	// The rest is kept in columns of the instance.
	Exception string `json:"-"`
	Failures  int    `json:"-"` // as the reporter counted them itself
	// Warnings say what was corrected in the report. They are kept with the run.
	Warnings []string      `json:"-"`
	Duration time.Duration `json:"-"`
}

// LastScreenshot is the id of the last screenshot of the last attempt of a test, "" if it
// has none.
func (o Outcome) LastScreenshot(testID string) (id string) {
	attempt := 0
	for _, s := range o.Screenshots {
		if testID != "" && s.TestID == testID && s.Attempt >= attempt {
			id, attempt = s.ID, s.Attempt
		}
	}
	return id
}

// Test is an announced test and its result, as people see it.
type Test struct {
	Announced
	Result Result
	Done   bool // the result is in
}

// Tests joins what was announced with what was reported, in the announced
// order; results of tests that were never announced follow.
func Tests(a Announcement, r Outcome) []Test {
	results := make(map[string]Result, len(r.Results))
	for _, res := range r.Results {
		results[res.ID] = res
	}
	tests := make([]Test, 0, max(len(a.Tests), len(r.Results)))
	for _, t := range a.Tests {
		res, ok := results[t.ID]
		delete(results, t.ID)
		tests = append(tests, Test{Announced: t, Result: res, Done: ok})
	}
	for _, res := range r.Results {
		if last, ok := results[res.ID]; ok {
			tests = append(tests, Test{Announced: Announced{ID: res.ID, Title: []string{res.ID}}, Result: last, Done: true})
			delete(results, res.ID)
		}
	}
	return tests
}
