package recorder

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// moduleResult is the result of cypress.run() in Cypress 10 to 15, without the
// configuration. The types are in types/cypress-npm-api.d.ts of each version of the npm
// package: CypressRunResult, or CypressFailedRunResult, whose status is "failed". From
// 13 on, finished results have no status.
type moduleResult struct {
	Status         string      `json:"status"`
	Runs           []runResult `json:"runs"`
	TotalFailed    int         `json:"totalFailed"`
	BrowserName    string      `json:"browserName"`
	BrowserVersion string      `json:"browserVersion"`

	// Of a failed result.
	Failures int    `json:"failures"`
	Message  string `json:"message"`
}

type runResult struct {
	Stats struct {
		Duration          float64 `json:"duration"`
		WallClockDuration float64 `json:"wallClockDuration"`
		StartedAt         string  `json:"startedAt"`
		EndedAt           string  `json:"endedAt"`
		Failures          int     `json:"failures"`
	} `json:"stats"`
	Tests []testResult `json:"tests"` // null after a compile error
	Hooks []hookResult `json:"hooks"` // until 12
	Error *string      `json:"error"`
	Video *string      `json:"video"` // a path
	Spec  struct {
		Relative string `json:"relative"`
	} `json:"spec"`
	Screenshots []screenshotResult `json:"screenshots"` // from 13 on, for the spec (see place); before, with each attempt
}

type testResult struct {
	Title        []string        `json:"title"`
	State        string          `json:"state"`
	Body         string          `json:"body"` // until 12
	DisplayError *string         `json:"displayError"`
	Duration     float64         `json:"duration"` // from 13 on
	Attempts     []attemptResult `json:"attempts"` // from 13 on with a state only
}

type attemptResult struct {
	State string `json:"state"`
	Error *struct {
		Name      string          `json:"name"`
		Message   string          `json:"message"`
		Stack     string          `json:"stack"`
		CodeFrame json.RawMessage `json:"codeFrame,omitempty"` // present, but not declared
	} `json:"error"`
	// Declared in 10. Versions before 13 that omit it send startedAt and duration.
	WallClockStartedAt *string            `json:"wallClockStartedAt"`
	WallClockDuration  float64            `json:"wallClockDuration"`
	StartedAt          *string            `json:"startedAt"`
	Duration           float64            `json:"duration"`
	VideoTimestamp     float64            `json:"videoTimestamp"`
	Screenshots        []screenshotResult `json:"screenshots"`
}

type hookResult struct {
	HookName string   `json:"hookName"`
	Title    []string `json:"title"`
	Body     string   `json:"body"`
}

type screenshotResult struct {
	Name    *string `json:"name"`
	TakenAt string  `json:"takenAt"`
	Path    string  `json:"path"`
	Height  float64 `json:"height"`
	Width   float64 `json:"width"`
}

// report is the results of a spec on their way to the server: the body of
// POST /instances/{id}/cy/results, and the files that belong to it.
type report struct {
	Tests   wireTests   `json:"tests"`
	Results wireResults `json:"results"`
	// Not for the server.
	Video       string            `json:"-"`
	Screenshots map[string]string `json:"-"` // path by screenshotId
}

type wireTests struct {
	Config map[string]any  `json:"config"`
	Tests  []wireAnnounced `json:"tests"`
	Hooks  []wireHook      `json:"hooks"`
}

type wireAnnounced struct {
	ClientID string   `json:"clientId"`
	Title    []string `json:"title"`
	Body     string   `json:"body"`
}

type wireHook struct {
	HookID   string   `json:"hookId"`
	HookName string   `json:"hookName"`
	Title    []string `json:"title"`
}

type wireResults struct {
	Stats       wireStats        `json:"stats"`
	Tests       []wireResult     `json:"tests"`
	Exception   *string          `json:"exception"`
	Video       bool             `json:"video"`
	Screenshots []wireScreenshot `json:"screenshots"`
}

type wireStats struct {
	WallClockDuration float64 `json:"wallClockDuration"`
	Failures          int     `json:"failures"`
}

type wireResult struct {
	ClientID     string        `json:"clientId"`
	State        string        `json:"state"`
	DisplayError *string       `json:"displayError"`
	Duration     float64       `json:"duration"`
	Attempts     []wireAttempt `json:"attempts"`
	CodeFrame    *wireFrame    `json:"codeFrame,omitempty"` // of DisplayError
}

type wireAttempt struct {
	State              string     `json:"state"`
	Error              *wireError `json:"error"`
	WallClockStartedAt *string    `json:"wallClockStartedAt"`
	WallClockDuration  float64    `json:"wallClockDuration"`
	VideoTimestamp     float64    `json:"videoTimestamp"`
}

type wireError struct {
	Name      string          `json:"name"`
	Message   string          `json:"message"`
	Stack     string          `json:"stack"`
	CodeFrame json.RawMessage `json:"codeFrame,omitempty"`
}

type wireScreenshot struct {
	ScreenshotID     string  `json:"screenshotId"`
	Name             *string `json:"name"`
	TestID           string  `json:"testId,omitempty"`
	TestAttemptIndex int     `json:"testAttemptIndex"`
	TakenAt          string  `json:"takenAt"`
	Height           float64 `json:"height"`
	Width            float64 `json:"width"`
}

// tally is how the tests of a spec ended, as the server counts them.
type tally struct{ passed, failed, pending, skipped, flaky int }

func (t tally) plus(o tally) tally {
	return tally{t.passed + o.passed, t.failed + o.failed, t.pending + o.pending, t.skipped + o.skipped, t.flaky + o.flaky}
}

// maxText limits each text from Cypress or a test: an error may contain the whole
// response of a page, and the server limits the body.
const maxText = 64 << 10

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + fmt.Sprintf("\n[… %d bytes left out]", len(s)-maxText)
}

func clipped(s *string) *string {
	if s == nil {
		return nil
	}
	text := clip(*s)
	return &text
}

// newReport translates the result of a spec.
func newReport(r runResult) (report, tally) {
	out := report{Screenshots: map[string]string{},
		Tests: wireTests{Config: map[string]any{"video": r.Video != nil}, Tests: []wireAnnounced{}},
		Results: wireResults{Stats: wireStats{max(r.Stats.Duration, r.Stats.WallClockDuration), r.Stats.Failures},
			Exception: clipped(r.Error), Tests: []wireResult{}, Screenshots: []wireScreenshot{}}}
	var t tally
	for i, h := range r.Hooks {
		out.Tests.Hooks = append(out.Tests.Hooks, wireHook{fmt.Sprint("h", i+1), h.HookName, h.Title})
	}
	for i, test := range r.Tests {
		id := fmt.Sprint("r", i+1)
		out.Tests.Tests = append(out.Tests.Tests, wireAnnounced{id, test.Title, clip(test.Body)})
		out.Results.Tests = append(out.Results.Tests, newResult(id, test))
		for n, a := range test.Attempts {
			for _, s := range a.Screenshots {
				out.addScreenshot(s, id, n)
			}
		}
		t = t.plus(tallyOf(test))
	}
	for _, s := range r.Screenshots {
		out.addScreenshot(s, "", 0)
	}
	if len(r.Tests) == 0 && r.Error != nil {
		t.failed++ // as the server counts a spec that could not run
	}
	if r.Video != nil {
		out.Video, out.Results.Video = *r.Video, true
	}
	return out, t
}

// failed lists the tests that failed, by spec and title.
func (r report) failed(spec string) []string {
	var list []string
	for i, test := range r.Results.Tests {
		if test.State == "failed" {
			list = append(list, spec+": "+strings.Join(r.Tests.Tests[i].Title, " › "))
		}
	}
	if len(list) == 0 && r.Results.Exception != nil {
		list = append(list, spec+": Spec crashed")
	}
	return list
}

// failedReport is for a spec for which Cypress gave only a message.
func failedReport(message string) (report, tally) {
	r := runResult{Error: &message}
	return newReport(r)
}

func newResult(id string, t testResult) wireResult {
	out := wireResult{ClientID: id, State: t.State, DisplayError: clipped(t.DisplayError), Duration: t.Duration,
		Attempts: []wireAttempt{}}
	for _, a := range t.Attempts {
		w := wireAttempt{State: a.State, WallClockStartedAt: a.WallClockStartedAt,
			WallClockDuration: max(a.WallClockDuration, a.Duration), VideoTimestamp: a.VideoTimestamp}
		if w.WallClockStartedAt == nil {
			w.WallClockStartedAt = a.StartedAt
		}
		if e := a.Error; e != nil {
			w.Error = &wireError{e.Name, clip(e.Message), clip(e.Stack), e.CodeFrame}
		}
		out.Attempts = append(out.Attempts, w)
	}
	return out
}

func tallyOf(t testResult) tally {
	switch t.State {
	case "passed":
		if len(t.Attempts) > 1 {
			return tally{passed: 1, flaky: 1}
		}
		return tally{passed: 1}
	case "failed":
		return tally{failed: 1}
	case "pending":
		return tally{pending: 1}
	default:
		return tally{skipped: 1}
	}
}

func (r *report) addScreenshot(s screenshotResult, testID string, attempt int) {
	id := rand.Text()
	r.Screenshots[id] = s.Path
	r.Results.Screenshots = append(r.Results.Screenshots,
		wireScreenshot{id, s.Name, testID, attempt, s.TakenAt, s.Height, s.Width})
}

// slashed is a path of this system in the form that the server stores.
func slashed(p string) string { return path.Clean(strings.ReplaceAll(p, `\`, "/")) }

// of finds the result of a spec.
func (m moduleResult) of(spec string) (runResult, bool) {
	for _, r := range m.Runs {
		if slashed(r.Spec.Relative) == slashed(spec) {
			return r, true
		}
	}
	return runResult{}, false
}

// running matches the line with which Cypress begins a spec.
var running = regexp.MustCompile(`(?m)^.*Running: .*\((\d+) of \d+\).*$`)
