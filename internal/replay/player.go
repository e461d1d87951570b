package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Player plays a recording into a server.
type Player struct {
	Recording *Recording
	// URL is the base URL of the server.
	URL string
	// Client sends the requests; nil is http.DefaultClient.
	Client *http.Client
	// Change sets fields of the recorded POST /runs body, such as ciBuildId,
	// projectId or recordKey; nil removes a field.
	Change map[string]any
	// Pace multiplies the recorded time that each spec ran. 0 reports at once.
	Pace float64
	// Ran, if not nil, is called when a spec has run, before it is reported.
	Ran func(*Machine, Spec)
	// Files, if not nil, has what a spec uploads: the file of a screenshot by its id,
	// and the video for "". What it does not have is not uploaded.
	Files func(spec, screenshotID string) []byte
}

// Machine is one that has joined a run.
type Machine struct {
	RunID, GroupID, MachineID, RunURL string

	player Player
}

// Spec is a spec that a machine was given to run.
type Spec struct {
	Name       string `json:"spec"`
	InstanceID string `json:"instanceId"`
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Method, Path string
	Status       int
	// Message and Details are what the reporter would print.
	Message string
	Details []string
}

func (e *StatusError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%s %s was answered with %d: %s", e.Method, e.Path, e.Status, e.Message), ": ")
}

// Join starts the run of the recording, or takes another machine into it.
func (p Player) Join(ctx context.Context) (*Machine, error) {
	body, err := edit(p.Recording.join.Request.Body, p.Change)
	if err != nil {
		return nil, err
	}
	answer, err := p.send(ctx, p.Recording.join, "/runs", "", body)
	if err != nil {
		return nil, err
	}
	var joined joinAnswer
	if err := json.Unmarshal(answer, &joined); err != nil {
		return nil, fmt.Errorf("the answer to POST /runs: %w", err)
	}
	return &Machine{RunID: joined.RunID, GroupID: joined.GroupID, MachineID: joined.MachineID, RunURL: joined.RunURL,
		player: p}, nil
}

// Claim asks for specs to run, one or a batch as recorded. None means that all
// were handed out.
func (m *Machine) Claim(ctx context.Context) ([]Spec, error) {
	rec := m.player.Recording
	body, err := edit(rec.claim.Request.Body,
		map[string]any{"runId": m.RunID, "groupId": m.GroupID, "machineId": m.MachineID})
	if err != nil {
		return nil, err
	}
	path := "/runs/" + m.RunID + "/instances"
	if rec.batched {
		path = "/runs/" + m.RunID + "/cy/instances"
	}
	answer, err := m.player.send(ctx, rec.claim, path, m.RunID, body)
	if err != nil {
		return nil, err
	}
	var claimed claimAnswer
	if err := json.Unmarshal(answer, &claimed); err != nil {
		return nil, fmt.Errorf("the answer to a claim: %w", err)
	}
	return claimed.list(), nil
}

// Report sends what was recorded of a spec: its tests, results and output.
func (m *Machine) Report(ctx context.Context, spec Spec) error {
	rec := m.player.Recording
	recorded, ok := rec.specs[spec.Name]
	if !ok {
		return fmt.Errorf("spec %q is not in the recording", spec.Name)
	}
	ids := strings.NewReplacer(recorded.instanceID, spec.InstanceID, rec.runURL, m.RunURL, rec.runID, m.RunID)
	for _, e := range recorded.reports {
		body := []byte(ids.Replace(string(e.Request.Body)))
		path := ids.Replace(e.Request.Path)
		answer, err := m.player.send(ctx, e, path, m.RunID, body)
		if err == nil && strings.HasSuffix(path, "/results") {
			err = m.upload(ctx, spec, answer)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// upload sends the files for which the answer to results has addresses: the video
// first, as cypress-cloud does.
func (m *Machine) upload(ctx context.Context, spec Spec, answer []byte) error {
	if m.player.Files == nil {
		return nil
	}
	var to resultsAnswer
	if err := json.Unmarshal(answer, &to); err != nil {
		return fmt.Errorf("the answer to results: %w", err)
	}
	if err := m.player.put(ctx, to.VideoUploadURL, "video/mp4", m.player.Files(spec.Name, "")); err != nil {
		return err
	}
	for _, shot := range to.ScreenshotUploadURLs {
		if err := m.player.put(ctx, shot.UploadURL, "image/png", m.player.Files(spec.Name, shot.ScreenshotID)); err != nil {
			return err
		}
	}
	return nil
}

// put uploads a file, if there is one and somebody wants it.
func (p Player) put(ctx context.Context, address, contentType string, file []byte) error {
	if address == "" || file == nil {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, address, bytes.NewReader(file))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	_, err = p.do(req)
	return err
}

// Run claims and reports until no specs are left. Each spec takes the time it
// was recorded with, times the pace.
func (m *Machine) Run(ctx context.Context) error {
	for {
		specs, err := m.Claim(ctx)
		if err != nil || len(specs) == 0 {
			return err
		}
		for _, spec := range specs {
			if err := m.wait(ctx, spec); err != nil {
				return err
			}
			if m.player.Ran != nil {
				m.player.Ran(m, spec)
			}
			if err := m.Report(ctx, spec); err != nil {
				return err
			}
		}
	}
}

// wait lasts as long as a spec would run.
func (m *Machine) wait(ctx context.Context, spec Spec) error {
	timer := time.NewTimer(time.Duration(float64(m.player.Recording.specs[spec.Name].ran) * m.player.Pace))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxAnswer bounds an answer; those of the protocol are small.
const maxAnswer = 1 << 20

// send repeats a recorded request with another path and body.
func (p Player) send(ctx context.Context, e exchange, path, runID string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, e.Request.Method, strings.TrimRight(p.URL, "/")+path,
		bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range e.Request.Headers {
		switch strings.ToLower(name) {
		case "host", "connection", "content-length", "accept-encoding": // the transport's own
		case "x-cypress-run-id":
			req.Header.Set(name, runID)
		default:
			req.Header.Set(name, value)
		}
	}
	return p.do(req)
}

// do sends a request and reads the answer.
func (p Player) do(req *http.Request) ([]byte, error) {
	client := p.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer to %s %s: %w", req.Method, req.URL.Path, err)
	}
	if resp.StatusCode/100 != 2 {
		failed := &StatusError{Method: req.Method, Path: req.URL.Path, Status: resp.StatusCode}
		var problem struct {
			Message string   `json:"message"`
			Errors  []string `json:"errors"`
		}
		if json.Unmarshal(answer, &problem) == nil {
			failed.Message, failed.Details = problem.Message, problem.Errors
		}
		return nil, failed
	}
	return answer, nil
}

// edit sets fields of a JSON object; nil removes one.
func edit(object []byte, change map[string]any) ([]byte, error) {
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.UseNumber() // memory sizes do not fit a float
	if err := dec.Decode(&fields); err != nil {
		return nil, fmt.Errorf("the recorded body: %w", err)
	}
	for name, value := range change {
		if value == nil {
			delete(fields, name)
		} else {
			fields[name] = value
		}
	}
	return json.Marshal(fields)
}
