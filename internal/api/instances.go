package api

import (
	"time"

	"runbell/internal/artifact"
	"runbell/internal/run"
	"runbell/internal/store"
)

type specResults struct {
	Stats       specStats    `json:"stats"`
	Exception   *string      `json:"exception" doc:"Why the spec crashed."`
	Flaky       int          `json:"flaky" doc:"The number of tests that passed, but not at the first attempt."`
	VideoURL    *string      `json:"videoUrl" doc:"Signed URL of the video, valid for at least seven days; null if there is none."`
	Screenshots []screenshot `json:"screenshots"`
	Videos      []video      `json:"videos" doc:"The video, as a list; empty if there is none."`
	Attachments []attachment `json:"attachments" doc:"Other files, such as the coverage of the code."`
}

type video struct {
	VideoURL string `json:"videoUrl"`
}

type attachment struct {
	Name        string `json:"name"`
	ContentType string `json:"contentType"`
	ReadURL     string `json:"readUrl" doc:"Signed URL of the file, valid for at least seven days."`
}

type specStats struct {
	Tests             int   `json:"tests"`
	Passes            int   `json:"passes"`
	Failures          int   `json:"failures"`
	Pending           int   `json:"pending"`
	Skipped           int   `json:"skipped"`
	Retries           int   `json:"retries"`
	WallClockDuration int64 `json:"wallClockDuration" doc:"Milliseconds."`
}

// links are addresses of files that were uploaded, by the ids of their artifacts.
type links map[string]string

// links makes addresses of artifacts that need no session and no key. The same file has
// the same address all day, so that answers change only when something has happened.
func (a *api) links(list []run.Artifact) links {
	urls := links{}
	const day = 24 * time.Hour
	expires := a.DB.Now().Truncate(day).Add(day + artifact.LinkLife)
	for _, f := range list {
		if a.Artifacts != nil && f.Stored() {
			urls[f.ID] = a.Artifacts.Link(f.ID, expires)
		}
	}
	return urls
}

// of is the address of an artifact, nil if there is no file.
func (l links) of(instanceID string, kind run.ArtifactKind, name string) *string {
	return text(l[run.ArtifactID(instanceID, kind, name)])
}

func showResults(i run.Instance, shots []run.Screenshot, files links) specResults {
	c := i.Counts
	out := specResults{
		Stats:       specStats{c.Overall(), c.Passes, c.Failures, c.Pending, c.Skipped, c.Retries, i.Duration.Milliseconds()},
		Exception:   text(i.Exception),
		Flaky:       c.Flaky,
		VideoURL:    files.of(i.ID, run.VideoArtifact, ""),
		Screenshots: showScreenshots(i, shots, files),
		Videos:      []video{},
		Attachments: []attachment{},
	}
	if out.VideoURL != nil {
		out.Videos = append(out.Videos, video{*out.VideoURL})
	}
	if coverage := files.of(i.ID, run.CoverageArtifact, ""); coverage != nil {
		out.Attachments = append(out.Attachments,
			attachment{string(run.CoverageArtifact), run.CoverageArtifact.ContentType(), *coverage})
	}
	return out
}

type instance struct {
	InstanceID  string       `json:"instanceId"`
	RunID       string       `json:"runId"`
	ProjectID   string       `json:"projectId"`
	GroupID     string       `json:"groupId"`
	Spec        string       `json:"spec"`
	MachineID   string       `json:"machineId"`
	Platform    platform     `json:"platform"`
	ClaimedAt   timestamp    `json:"claimedAt"`
	CompletedAt *timestamp   `json:"completedAt"`
	Results     *specResults `json:"results" doc:"null until there are results."`
	Tests       []test       `json:"tests" doc:"In the order they were announced."`
}

type test struct {
	TestID       string         `json:"testId" doc:"The reporter's id of the test, unique within the spec."`
	Title        []string       `json:"title"`
	State        *run.TestState `json:"state" doc:"null until there is a result."`
	IsFlaky      bool           `json:"isFlaky"`
	DisplayError *string        `json:"displayError"`
	Attempts     []testAttempt  `json:"attempts"`
}

type testAttempt struct {
	State      run.TestState `json:"state"`
	StartedAt  *timestamp    `json:"startedAt"`
	DurationMs int64         `json:"durationMs"`
	Error      *testError    `json:"error"`
	VideoAt    *int64        `json:"videoTimestamp" doc:"Milliseconds from the beginning of the video; null if that is not known."`
}

type testError struct {
	Name    string     `json:"name"`
	Message string     `json:"message"`
	Stack   string     `json:"stack"`
	Frame   *codeFrame `json:"codeFrame"`
}

type codeFrame struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Text   string `json:"text"`
}

type screenshot struct {
	ScreenshotID  string     `json:"screenshotId"`
	Name          string     `json:"name"`
	TestID        *string    `json:"testId"`
	Attempt       int        `json:"testAttemptIndex" doc:"The attempt of the test, from 0."`
	TakenAt       *timestamp `json:"takenAt"`
	Height        int        `json:"height" doc:"Pixels."`
	Width         int        `json:"width" doc:"Pixels."`
	ScreenshotURL *string    `json:"screenshotURL" doc:"Signed URL of the screenshot, valid for at least seven days; null if it was not uploaded."`
}

func (a *api) instance(r *request) (instance, error) {
	id := r.id()
	if public, err := a.Reporters.Instance(id); err == nil {
		id = public // scripts around a reporter know no other id
	}
	var out instance
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		i, err := tx.Instance(r.Context(), id)
		if err != nil {
			return err
		}
		if i.MachineID == "" {
			return run.Missing("instance", r.id()) // nobody was told this id
		}
		owner, err := tx.Run(r.Context(), i.RunID)
		if err != nil {
			return err
		}
		m, err := tx.Machine(r.Context(), i.RunID, i.MachineID)
		if err != nil {
			return err
		}
		announcement, outcome, err := tx.Tests(r.Context(), i.ID)
		if err != nil {
			return err
		}
		out = instance{
			InstanceID:  i.ID,
			RunID:       i.RunID,
			ProjectID:   owner.ProjectID,
			GroupID:     i.GroupName,
			Spec:        i.Spec,
			MachineID:   i.MachineID,
			Platform:    showPlatform(m.Platform),
			ClaimedAt:   timestamp(i.ClaimedAt),
			CompletedAt: known(i.CompletedAt),
			Tests:       showTests(run.Tests(announcement, outcome)),
		}
		if !i.CompletedAt.IsZero() {
			files, err := tx.Artifacts(r.Context(), i.RunID, i.ID)
			if err != nil {
				return err
			}
			a.Artifacts.Shown(i.RunID)
			results := showResults(i, outcome.Screenshots, a.links(files))
			out.Results = &results
		}
		return nil
	})
	return out, err
}

func showTests(list []run.Test) []test {
	out := make([]test, len(list))
	for n, t := range list {
		shown := test{TestID: t.ID, Title: append([]string{}, t.Title...), DisplayError: text(t.Result.Error),
			Attempts: []testAttempt{}}
		if t.Done {
			shown.State = &t.Result.State
			shown.IsFlaky = t.Result.State == run.Passed && len(t.Result.Attempts) > 1
		}
		for _, tried := range t.Result.Attempts {
			a := testAttempt{tried.State, knownAt(tried.StartedAt), tried.Duration, showError(tried.Error), nil}
			if tried.VideoAt > 0 {
				a.VideoAt = &tried.VideoAt
			}
			shown.Attempts = append(shown.Attempts, a)
		}
		out[n] = shown
	}
	return out
}

func showError(f *run.Failure) *testError {
	if f == nil {
		return nil
	}
	out := &testError{Name: f.Name, Message: f.Message, Stack: f.Stack}
	if f.Frame != nil {
		out.Frame = &codeFrame{f.Frame.File, f.Frame.Line, f.Frame.Column, f.Frame.Text}
	}
	return out
}

func showScreenshots(i run.Instance, list []run.Screenshot, files links) []screenshot {
	out := make([]screenshot, len(list))
	for n, s := range list {
		out[n] = screenshot{s.ID, s.Name, text(s.TestID), s.Attempt, knownAt(s.TakenAt), s.Height, s.Width,
			files.of(i.ID, run.ScreenshotArtifact, s.ID)}
	}
	return out
}

func knownAt(t *time.Time) *timestamp {
	if t == nil {
		return nil
	}
	return known(*t)
}
