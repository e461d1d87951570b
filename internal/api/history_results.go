package api

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
)

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
	out := testResult{Cursor: v.Position.Cursor(), Signature: signature, CreatedAt: timestamp(v.Run.CreatedAt),
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
	TestTitle    titles `json:"testTitle" doc:"The titles from the outermost suite to the test, or a single title."`
}

type signature struct {
	Signature string `json:"signature"`
}

func (a *api) signature(r *request, b signatureRequest) (signature, error) {
	if err := checkText("specFilePath", b.SpecFilePath, 1, run.MaxSpecLength); err != nil {
		return signature{}, err
	}
	if len(b.TestTitle) == 0 || len(b.TestTitle) > maxFilters {
		return signature{}, run.Errorf(run.Invalid, "testTitle must be a string, or an array of 1 to %d strings.", maxFilters)
	}
	if err := r.sees(b.ProjectID); err != nil {
		return signature{}, err
	}
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		_, err := tx.Project(r.Context(), b.ProjectID)
		return err
	})
	return signature{run.Signature(b.ProjectID, b.SpecFilePath, b.TestTitle)}, err
}
