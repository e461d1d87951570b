package cypress

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"runbell/internal/intake"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// runRequest is POST /runs (recordings ccy-vs-sorrycypress-single-machine,
// ccy-ci-env-github). Optional keys are absent or null.
type runRequest struct {
	ProjectID         intake.Name  `json:"projectId"`
	RecordKey         intake.Name  `json:"recordKey"`
	CIBuildID         intake.Name  `json:"ciBuildId"`
	Group             intake.Name  `json:"group"`
	Specs             []string     `json:"specs"`
	Tags              intake.Texts `json:"tags"`
	ProvidedMachineID intake.Name  `json:"providedMachineId"`
	CI                intake.Object[struct {
		Provider intake.Text   `json:"provider"`
		Params   intake.Params `json:"params"`
	}] `json:"ci"`
	Commit intake.Object[struct {
		SHA           intake.Text `json:"sha"`
		Branch        intake.Text `json:"branch"`
		AuthorName    intake.Text `json:"authorName"`
		AuthorEmail   intake.Text `json:"authorEmail"`
		Message       intake.Text `json:"message"`
		RemoteOrigin  intake.Text `json:"remoteOrigin"`
		DefaultBranch intake.Text `json:"defaultBranch"`
		// GHAEventData is what cypress-cloud knows of a pull request on GitHub.
		GHAEventData intake.Object[ghaEventData] `json:"ghaEventData"`
	}] `json:"commit"`
	Platform intake.Object[platform] `json:"platform"`
	// The machine shares the specs of its group with others.
	Parallel intake.Flag `json:"parallel"`
	// From our recorder: the specs ran while the server was down.
	Late intake.Flag `json:"late"`
	// A number; false turns the project's limit off.
	AutoCancelAfterFailures jsontext.Value `json:"autoCancelAfterFailures"`
}

// ghaEventData is the head of a pull request on GitHub.
type ghaEventData struct {
	HeadRef       intake.Text `json:"headRef"`
	HeadSHA       intake.Text `json:"headSha"`
	HTMLURL       intake.Text `json:"htmlUrl"`
	PRTitle       intake.Text `json:"prTitle"`
	SenderHTMLURL intake.Text `json:"senderHtmlUrl"` // https://github.com/jane
}

func (e ghaEventData) translate() run.Head {
	_, author, _ := strings.Cut(strings.TrimPrefix(string(e.SenderHTMLURL), "https://"), "/")
	return run.Head{SHA: intake.Short(e.HeadSHA, 255), Branch: intake.Short(e.HeadRef, 1024), PullRequest: run.PullRequest{
		Title: intake.Short(e.PRTitle, 1024), URL: intake.Short(e.HTMLURL, 2048),
		Author: run.Clip(intake.Clean(author), 255)}}
}

type platform struct {
	OSName         intake.Text `json:"osName"`
	OSVersion      intake.Text `json:"osVersion"`
	BrowserName    intake.Text `json:"browserName"`
	BrowserVersion intake.Text `json:"browserVersion"`
}

type runAnswer struct {
	RunID     string    `json:"runId"`
	GroupID   string    `json:"groupId"`
	MachineID string    `json:"machineId"`
	RunURL    string    `json:"runUrl"`
	IsNewRun  bool      `json:"isNewRun"`
	Tags      []string  `json:"tags"` // read by native clients
	Warnings  []warning `json:"warnings"`

	// Only for our recorder: how often it must report, and what it can
	// print about the remaining time.
	InactivityTimeoutMS int64          `json:"inactivityTimeoutMs,omitzero"`
	HandOutOrder        []expectedSpec `json:"handOutOrder,omitempty"`
	Machines            int            `json:"machines,omitempty"` // that a group of the latest runs had
}

// warning is printed by clients with its message and every other key (recording
// ccy-uploads).
type warning struct {
	Message string `json:"message"`
	Code    string `json:"code"`
}

type expectedSpec struct {
	Spec       string `json:"spec"`
	DurationMS int64  `json:"durationMs"` // 0 if unknown
}

// claimRequest is POST /runs/{id}/instances and, with batchSize,
// /runs/{id}/cy/instances (recording ccy-batched-currents-mode).
type claimRequest struct {
	GroupID   intake.Name   `json:"groupId"`
	MachineID intake.Text   `json:"machineId"`
	Spec      intake.Text   `json:"spec"`
	BatchSize intake.Number `json:"batchSize"`
	// From our recorder: the spec ran while the server was down.
	Late intake.Flag `json:"late"`
}

// limit is how many specs a batched claim gets at most.
func (m claimRequest) limit() int { return min(max(1, m.BatchSize.Int()), maxBatch) }

type claimAnswer struct {
	Spec             *string `json:"spec"`
	InstanceID       *string `json:"instanceId"`
	ClaimedInstances int     `json:"claimedInstances"`
	TotalInstances   int     `json:"totalInstances"`
	// Read by native clients, to print how long a spec may take: milliseconds.
	EstimatedWallClockDuration *int `json:"estimatedWallClockDuration"`
}

type batchAnswer struct {
	Specs            []batchSpec `json:"specs"`
	ClaimedInstances int         `json:"claimedInstances"`
	TotalInstances   int         `json:"totalInstances"`
}

type batchSpec struct {
	Spec       string `json:"spec"`
	InstanceID string `json:"instanceId"`
}

// testsRequest is POST /instances/{id}/tests. Of config, the whole resolved
// Cypress configuration with the user's environment in it in three places, only
// these fields are read; nothing else of it is kept.
type testsRequest struct {
	Config intake.Object[struct {
		Video               *intake.Flag   `json:"video"`
		VideoUploadOnPasses *intake.Flag   `json:"videoUploadOnPasses"` // not in Cypress 13 and newer
		Retries             jsontext.Value `json:"retries"`
	}] `json:"config"`
	Tests []struct {
		ClientID intake.Text  `json:"clientId"`
		Title    intake.Texts `json:"title"`
		Body     intake.Text  `json:"body"`
	} `json:"tests"`
	Hooks intake.List[struct {
		HookID   intake.Text  `json:"hookId"`
		HookName intake.Text  `json:"hookName"`
		ClientID intake.Text  `json:"clientId"` // native for hookId
		Type     intake.Text  `json:"type"`     // native for hookName
		Title    intake.Texts `json:"title"`
	}] `json:"hooks"` // null after a compile error
}

type testsAnswer struct {
	Actions []action `json:"actions,omitempty"`
}

type action struct {
	Type   string `json:"type"`
	Action string `json:"action"`
}

// resultsRequest is POST /instances/{id}/results. Its stats do not count: they do
// not agree with the tests after a compile error or a crash. But where they say that
// a test failed, the spec has not passed.
type resultsRequest struct {
	Stats intake.Object[struct {
		Duration          intake.Number `json:"duration"`
		WallClockDuration intake.Number `json:"wallClockDuration"`
		Failures          intake.Number `json:"failures"`
	}] `json:"stats"`
	Tests []struct {
		ClientID     intake.Text         `json:"clientId"`
		State        intake.Text         `json:"state"`
		DisplayError intake.Text         `json:"displayError"`
		Attempts     intake.List[tryMsg] `json:"attempts"`
		// Of all attempts. Cypress 13 and newer say no more, through our recorder.
		Duration  intake.Number           `json:"duration"`
		CodeFrame intake.Object[frameMsg] `json:"codeFrame"`
	} `json:"tests"`
	Exception   intake.Problem `json:"exception"`
	Video       intake.Flag    `json:"video"`
	HasCoverage intake.Flag    `json:"hasCoverage"`
	Screenshots intake.List[struct {
		ScreenshotID     intake.Text   `json:"screenshotId"`
		Name             intake.Text   `json:"name"`
		TestID           intake.Text   `json:"testId"`
		TestAttemptIndex intake.Number `json:"testAttemptIndex"`
		TakenAt          intake.Moment `json:"takenAt"`
		Height           intake.Number `json:"height"`
		Width            intake.Number `json:"width"`
	}] `json:"screenshots"`
}

// tryMsg is an attempt of a test. Times are null for a test that did not run.
type tryMsg struct {
	State              intake.Text   `json:"state"`
	Error              errorMsg      `json:"error"`
	FailedFromHookID   intake.Text   `json:"failedFromHookId"`
	WallClockStartedAt intake.Moment `json:"wallClockStartedAt"`
	WallClockDuration  intake.Number `json:"wallClockDuration"`
	VideoTimestamp     intake.Number `json:"videoTimestamp"`
}

// errorMsg is the error of an attempt: an object, or only its message.
type errorMsg struct {
	Name      intake.Text             `json:"name"`
	Message   intake.Text             `json:"message"`
	Stack     intake.Text             `json:"stack"`
	CodeFrame intake.Object[frameMsg] `json:"codeFrame"`
}

// frameMsg is where an error was thrown. RelativeFile is from the root of the repository
// (in Cypress since September 2022), OriginalFile from the project.
type frameMsg struct {
	Line         intake.Number `json:"line"`
	Column       intake.Number `json:"column"`
	RelativeFile intake.Text   `json:"relativeFile"`
	OriginalFile intake.Text   `json:"originalFile"`
	Frame        intake.Text   `json:"frame"`
}

func (m frameMsg) translate() *run.Frame {
	return &run.Frame{File: cmp.Or(string(m.RelativeFile), string(m.OriginalFile)), Line: m.Line.Int(),
		Column: m.Column.Int(), Text: string(m.Frame)}
}

// UnmarshalJSONFrom takes any value.
func (m *errorMsg) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		*m = errorMsg{}
		return m.Message.UnmarshalJSONFrom(d)
	}
	type fields errorMsg // without this method
	return json.UnmarshalDecode(d, (*fields)(m))
}

// resultsAnswer: screenshotUploadUrls must be an array, or clients throw. Clients
// upload what there is an address for (recording ccy-uploads).
type resultsAnswer struct {
	ScreenshotUploadURLs []screenshotUpload `json:"screenshotUploadUrls"`
	VideoUploadURL       *string            `json:"videoUploadUrl"`
	CoverageUploadURL    *string            `json:"coverageUploadUrl"`
	Cloud                struct {
		ShouldCancel any `json:"shouldCancel"` // false, or the reason
	} `json:"cloud"`
}

type screenshotUpload struct {
	ScreenshotID string `json:"screenshotId"`
	UploadURL    string `json:"uploadUrl"`
	ReadURL      string `json:"readUrl"`
}

// uploadsRequest is PUT /instances/{id}/artifacts: the outcome of the uploads of Cypress 13 and newer.
type uploadsRequest struct {
	Screenshots intake.List[uploadMsg]   `json:"screenshots"`
	Video       intake.Object[uploadMsg] `json:"video"`
}

type uploadMsg struct {
	URL     intake.Text  `json:"url"`
	Success *intake.Flag `json:"success"`
	Error   intake.Text  `json:"error"`
}

type batchResultsRequest struct {
	Tests   *testsRequest   `json:"tests"`
	Results *resultsRequest `json:"results"`
}

type stdoutRequest struct {
	Stdout *string `json:"stdout"`
}

// join checks and translates POST /runs.
func (m runRequest) join() (lifecycle.Join, error) {
	var none lifecycle.Join
	for _, f := range []struct{ name, value string }{
		{"projectId", string(m.ProjectID)}, {"ciBuildId", string(m.CIBuildID)}, {"group", string(m.Group)},
		{"providedMachineId", string(m.ProvidedMachineID)},
	} {
		if err := intake.CheckName(f.name, f.value); err != nil {
			return none, err
		}
	}
	if m.ProjectID == "" {
		return none, run.Errorf(run.Invalid, "projectId is missing: set it in cypress.config.js or currents.config.js.")
	}
	specs, err := checkSpecs(m.Specs)
	if err != nil {
		return none, err
	}
	m.Tags = slices.DeleteFunc(m.Tags,
		func(t string) bool { return t == "" }) // native Cypress sends one when there are none
	if err := intake.CheckTags(m.Tags); err != nil {
		return none, err
	}
	var warnings []run.Warning
	failFast, ok := parseFailFast(m.AutoCancelAfterFailures)
	if !ok {
		warnings = append(warnings, run.Warning{Code: run.WarnMended,
			Message: "autoCancelAfterFailures is neither a whole number above 0 nor false: the setting of the project applies."})
	}
	if notReplaced.MatchString(string(m.CIBuildID)) {
		warnings = append(warnings, run.Warning{Code: run.WarnMended, Message: fmt.Sprintf(
			"The build id %q is a variable that was not replaced by its value, so builds would share it: it is ignored.",
			run.Clip(string(m.CIBuildID), 80))})
		m.CIBuildID = ""
	}
	c := m.Commit.Value
	ci := run.CI{Provider: intake.Short(m.CI.Value.Provider, 100), Params: m.CI.Value.Params}
	return lifecycle.Join{
		ProjectID: string(m.ProjectID),
		CIBuildID: string(m.CIBuildID),
		Group:     string(m.Group),
		MachineID: string(m.ProvidedMachineID),
		Specs:     specs,
		SpecHash:  hashSpecs(specs),
		Commit: run.Commit{
			SHA:           intake.Short(c.SHA, 255),
			Branch:        intake.Short(c.Branch, 1024),
			AuthorName:    intake.Short(c.AuthorName, 1024),
			AuthorEmail:   intake.Short(c.AuthorEmail, 1024),
			Message:       strings.TrimRight(intake.Short(c.Message, 16<<10), "\r\n"),
			RemoteOrigin:  intake.Short(intake.Text(run.WithoutCredentials(string(c.RemoteOrigin))), 2048),
			DefaultBranch: run.Branch(intake.Short(c.DefaultBranch, 1024)),
		}.Resolve(ci, c.GHAEventData.Value.translate()),
		Tags:     m.Tags,
		CI:       ci,
		Platform: m.Platform.Value.translate(),
		FailFast: failFast,
		Parallel: bool(m.Parallel),
		Late:     bool(m.Late),
		Warnings: warnings,
	}, nil
}

// notReplaced matches a build id that a shell, a CI service or a script should have
// filled in: $BUILD, ${{ github.run_id }}, %BUILD%, undefined.
var notReplaced = regexp.MustCompile(
	`\$\{\{?\s*[A-Za-z_]|(?:^|\W)\$[A-Za-z_]\w*|(?:^|\W)%[A-Za-z_]\w{2,}%(?:\W|$)|^(?:%\w+%|undefined|null)$`)

func (p platform) translate() run.Platform {
	return run.Platform{OSName: intake.Short(p.OSName, 100), OSVersion: intake.Short(p.OSVersion, 100),
		BrowserName: intake.Short(p.BrowserName, 100), BrowserVersion: intake.Short(p.BrowserVersion, 100)}
}

// checkSpecs drops repetitions and refuses what cannot be a spec.
func checkSpecs(list []string) ([]string, error) {
	if len(list) == 0 {
		return nil, run.Errorf(run.Refused, "specs is empty, so there is nothing to run: check --spec and specPattern.")
	}
	if len(list) > run.MaxSpecs {
		return nil, run.Errorf(run.Refused,
			"%d specs are too many for one group: the limit is %d. Split them into several groups with --group and --spec.",
			len(list), run.MaxSpecs)
	}
	seen := make(map[string]bool, len(list))
	specs := make([]string, 0, len(list))
	for _, s := range list {
		// The control characters of terminals (ESC and, beyond ASCII, CSI) would reach logs and shells.
		if s == "" || len(s) > run.MaxSpecLength || strings.ContainsFunc(s, unicode.IsControl) {
			return nil, run.Errorf(run.Refused, "%q is not the path of a spec: 1 to %d characters, without control characters.",
				run.Clip(s, 80), run.MaxSpecLength)
		}
		if !seen[s] {
			seen[s] = true
			specs = append(specs, s)
		}
	}
	return specs, nil
}

// parseFailFast reads a number or false; nil is the project's own limit. It reports
// false for anything else.
func parseFailFast(raw jsontext.Value) (limit *int, ok bool) {
	n := 0
	switch raw.Kind() {
	case 0, 'n':
		return nil, true
	case 'f':
	case 't':
		n = 1
	case '0':
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || f < 1 || f != math.Trunc(f) || f > run.MaxFailFast {
			return nil, false
		}
		n = int(f)
	default:
		return nil, false
	}
	return &n, true
}

// announcement checks and translates POST /instances/{id}/tests.
func (m testsRequest) announcement() (run.Announcement, error) {
	a := run.Announcement{Tests: make([]run.Announced, 0, len(m.Tests))}
	if m.Tests == nil && !m.Config.Valid {
		return a, run.Errorf(run.Invalid, "tests is missing.")
	}
	if err := checkTests(len(m.Tests)); err != nil {
		return a, err
	}
	for _, t := range m.Tests {
		a.Tests = append(a.Tests, run.Announced{ID: string(t.ClientID), Title: t.Title, Body: string(t.Body)})
	}
	for _, h := range m.Hooks {
		hook := run.Hook{ID: string(h.HookID), Name: string(h.HookName), Title: h.Title}
		if hook.ID == "" {
			hook.ID, hook.Name = string(h.ClientID), string(h.Type)
		}
		a.Hooks = append(a.Hooks, hook)
	}
	if c := m.Config.Value; m.Config.Valid {
		a.Settings = run.Settings{Video: (*bool)(c.Video), VideoUploadOnPasses: (*bool)(c.VideoUploadOnPasses),
			Retries: runRetries(c.Retries)}
	}
	return a, nil
}

func checkTests(n int) error {
	if n > run.MaxTests {
		return run.Errorf(run.Refused, "%d tests are too many for one spec: the limit is %d. Split the spec into smaller "+
			"ones.", n, run.MaxTests)
	}
	return nil
}

// runRetries reads Cypress' retries: a number, or {runMode, openMode}.
func runRetries(raw jsontext.Value) int {
	var n float64
	if json.Unmarshal(raw, &n) == nil {
		return int(n)
	}
	var modes struct {
		RunMode float64 `json:"runMode"`
	}
	_ = json.Unmarshal(raw, &modes) // anything else is no retries
	return int(modes.RunMode)
}

// outcome checks and translates POST /instances/{id}/results.
func (m resultsRequest) outcome() (run.Outcome, error) {
	o := run.Outcome{
		Results:   make([]run.Result, 0, len(m.Tests)),
		Video:     bool(m.Video),
		Coverage:  bool(m.HasCoverage),
		Failures:  m.Stats.Value.Failures.Int(),
		Exception: intake.Clean(string(m.Exception)),
	}
	switch {
	case m.Stats.Valid:
		o.Duration = intake.Milliseconds(float64(max(m.Stats.Value.WallClockDuration, m.Stats.Value.Duration)))
	case m.Tests == nil && o.Exception == "":
		// Only the first results of a spec count, so a body without any is refused.
		return o, run.Errorf(run.Invalid, "tests is missing.")
	}
	if err := checkTests(len(m.Tests)); err != nil {
		return o, err
	}
	for _, t := range m.Tests {
		res := run.Result{ID: string(t.ClientID), State: run.TestState(t.State), Error: string(t.DisplayError),
			Duration: intake.Milliseconds(float64(t.Duration)).Milliseconds()}
		if t.CodeFrame.Valid {
			res.Frame = t.CodeFrame.Value.translate()
		}
		for _, try := range t.Attempts {
			res.Attempts = append(res.Attempts, try.translate())
		}
		o.Results = append(o.Results, res)
	}
	o.Warnings = run.Settle(o.Results, o.Exception)
	if n := len(m.Screenshots); n > run.MaxScreenshots {
		m.Screenshots = m.Screenshots[:run.MaxScreenshots]
		o.Warnings = append(o.Warnings,
			fmt.Sprintf("A spec has %d screenshots: only the first %d are kept.", n, run.MaxScreenshots))
	}
	for _, s := range m.Screenshots {
		o.Screenshots = append(o.Screenshots,
			run.Screenshot{ID: string(s.ScreenshotID), Name: string(s.Name), TestID: string(s.TestID),
				Attempt: s.TestAttemptIndex.Int(), TakenAt: s.TakenAt.Time, Width: s.Width.Int(), Height: s.Height.Int()})
	}
	return o, nil
}

func (m tryMsg) translate() run.Attempt {
	a := run.Attempt{State: run.TestState(m.State), StartedAt: m.WallClockStartedAt.Time,
		Duration: intake.Milliseconds(float64(m.WallClockDuration)).Milliseconds(), Hook: string(m.FailedFromHookID),
		VideoAt: intake.Milliseconds(float64(m.VideoTimestamp)).Milliseconds()}
	e := m.Error
	if e.Name == "" && e.Message == "" && e.Stack == "" && !e.CodeFrame.Valid {
		return a
	}
	a.Error = &run.Failure{Name: string(e.Name), Message: string(e.Message), Stack: string(e.Stack)}
	if e.CodeFrame.Valid {
		a.Error.Frame = e.CodeFrame.Value.translate()
	}
	return a
}
