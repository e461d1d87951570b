// Package cypress speaks the protocol of Cypress reporters: cypress-cloud, with
// single specs and in batches, and Cypress' own record mode up to 12.5.
//
// It translates their requests to package run at once, and does nothing else. README.md lists the subset that is
// served; comments name the recordings in testdata it was learned from.
package cypress

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"

	"runbell/internal/body"
	"runbell/internal/intake"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// Limits on bodies. A results body holds a whole spec with the errors of all
// attempts; a body of tests also the resolved configuration.
var (
	runLimits = body.Limits{Bytes: 16 << 20, Values: 40_000, Groups: 5_000, Depth: 32, Text: 256 << 10, Ratio: 100,
		Advice: "A group has too many specs for one request: give fewer with --spec."}
	claimLimits = body.Limits{Bytes: 1 << 20, Values: 10_000, Groups: 2_000, Depth: 32, Text: 64 << 10}
	testsLimits = body.Limits{Bytes: 64 << 20, Values: 1_000_000, Groups: 200_000, Depth: 128, Text: 4 << 20,
		Advice: splitSpec}
	resultsLimits = body.Limits{Bytes: 64 << 20, Values: 2_000_000, Groups: 300_000, Depth: 128, Text: 4 << 20,
		Advice: splitSpec}
	uploadsLimits = body.Limits{Bytes: 8 << 20, Values: 50_000, Groups: 10_000, Depth: 32, Text: 64 << 10,
		Advice: splitSpec}
	stdoutLimits = body.Limits{Bytes: 64 << 20, Values: 100, Groups: 10, Depth: 8, Text: 64 << 20, Advice: splitSpec}
)

const (
	splitSpec = "Split the spec into smaller ones."
	maxBatch  = 100
)

type handler struct{ intake.Options }

// Routes adds the routes reporters use, at the root as their clients expect.
func Routes(mux *http.ServeMux, o intake.Options) {
	h := &handler{o}
	aRun := func(ctx context.Context, id string) (string, error) { return id, o.Runs.CheckRun(ctx, id) }
	instance := func(_ context.Context, credential string) (string, error) { return o.Reporters.Instance(credential) }
	intake.Handle(mux, o,
		intake.Route{Pattern: "POST /runs", Limits: runLimits, Serve: h.join},
		intake.Route{Pattern: "POST /runs/{id}/instances", Limits: claimLimits, Check: aRun, Serve: h.claimOne},
		intake.Route{Pattern: "POST /runs/{id}/cy/instances", Limits: claimLimits, Check: aRun, Serve: h.claimBatch},
		intake.Route{Pattern: "POST /instances/{id}/tests", Limits: testsLimits, Check: instance, Known: true,
			Serve: h.tests},
		intake.Route{Pattern: "POST /instances/{id}/results", Limits: resultsLimits, Check: instance, Known: true,
			Serve: h.results},
		intake.Route{Pattern: "POST /instances/{id}/cy/results", Limits: resultsLimits, Check: instance, Known: true,
			Serve: h.testsAndResults},
		intake.Route{Pattern: "PUT /instances/{id}/stdout", Limits: stdoutLimits, Check: instance, Known: true,
			Serve: h.stdout},
		intake.Route{Pattern: "PUT /instances/{id}/artifacts", Limits: uploadsLimits, Check: instance, Known: true,
			Serve: h.uploads})
	intake.NotServed(mux, o, notServed, "POST /preflight", "POST /runs/", "PUT /runs/", "POST /instances/",
		"PUT /instances/")
}

// notServed responds to requests of other clients. Cypress from 12.6 on starts with /preflight, and encrypts
// everything after that for its own cloud.
func notServed(r *http.Request) error {
	if r.URL.Path == "/preflight" {
		return &run.Error{Kind: run.NotFound,
			Message: "Cypress 12.6 and newer cannot record here by itself: what it sends is encrypted.",
			Details: []string{"Use 'runbell cypress run', with any Cypress from 10 on; or cypress-cloud, with Cypress " +
				"10 to 12.17."}}
	}
	return run.Errorf(run.NotFound, "There is no call %s %s.", r.Method,
		run.Clip(intake.Clean(strings.ToValidUTF8(r.URL.Path, "\uFFFD")), 100))
}

func (h *handler) join(r *http.Request, _ string, b *body.Body) (any, error) {
	var who struct {
		ProjectID intake.Name `json:"projectId"`
		RecordKey intake.Name `json:"recordKey"`
	}
	if err := b.Peek(&who); err != nil {
		return nil, err
	}
	if who.ProjectID == "" {
		return nil, run.Errorf(run.Invalid, "projectId is missing: set it in cypress.config.js or currents.config.js.")
	}
	if err := h.Keys.Record(r.Context(), string(who.ProjectID), string(who.RecordKey)); err != nil {
		return nil, err
	}
	sum, err := b.Sum()
	if err != nil {
		return nil, err
	}
	var m runRequest
	if err := b.Decode(&m, false); err != nil {
		return nil, err
	}
	j, err := m.join()
	if err != nil {
		return nil, err
	}
	j.Fingerprint = hex.EncodeToString(sum[:])
	j.Attempt = intake.Attempt(r, "X-Cypress-Request-Attempt")
	j.Client = client(r)
	j.Batches = j.Client.Name == recorder && j.Parallel
	if j.Batches && !j.Late && j.CIBuildID == "" && j.CI.BuildID(j.Commit) == "" {
		return nil, errNoBuild
	}
	joined, err := h.Runs.Join(r.Context(), j)
	if err != nil {
		return nil, explainSpecs(err, j.Specs)
	}
	tags := j.Tags
	if tags == nil {
		tags = []string{}
	}
	a := runAnswer{RunID: joined.RunID, GroupID: joined.GroupName,
		MachineID: h.Reporters.MachineCredential(joined.RunID, joined.MachineID), RunURL: joined.RunURL,
		IsNewRun: joined.IsNew, Tags: tags, Warnings: h.warnings(r, joined)}
	if j.Client.Name == recorder {
		a.Machines = joined.Machines
		a.InactivityTimeoutMS = joined.InactivityTimeout.Milliseconds()
		for _, s := range joined.Order {
			a.HandOutOrder = append(a.HandOutOrder, expectedSpec{Spec: s.Spec, DurationMS: s.Expected.Milliseconds()})
		}
	}
	return a, nil
}

// errNoBuild refuses a machine that wants to share specs but has no build id: each machine would run all specs in a
// run of its own.
var errNoBuild = &run.Error{Kind: run.Refused, Code: "INDETERMINATE_CI_BUILD_ID",
	Message: "--parallel needs --ci-build-id here: the variables of this CI service do not name the build, and machines " +
		"find each other by it.",
	Details: []string{"Pass the same value on every machine of this build, and a new one for each build."}}

// warnings are printed by the client, and logged for the operator.
func (h *handler) warnings(r *http.Request, j lifecycle.Joined) []warning {
	out := []warning{}
	for _, w := range j.Warnings {
		out = append(out, warning{w.Message, w.Code})
		h.Log.WarnContext(r.Context(), "a machine joined with a warning", "run", j.RunID, "code", w.Code, "warning",
			w.Message)
	}
	return out
}

func (h *handler) claimOne(r *http.Request, id string, b *body.Body) (any, error) {
	c, err := h.claim(r, id, b, false)
	if err != nil {
		return nil, err
	}
	a := claimAnswer{ClaimedInstances: c.Claimed, TotalInstances: c.Total}
	if len(c.Instances) > 0 {
		id := h.Reporters.InstanceCredential(c.Instances[0].ID)
		a.Spec, a.InstanceID = &c.Instances[0].Spec, &id
	}
	return a, nil
}

func (h *handler) claimBatch(r *http.Request, id string, b *body.Body) (any, error) {
	c, err := h.claim(r, id, b, true)
	if err != nil {
		return nil, err
	}
	a := batchAnswer{Specs: []batchSpec{}, ClaimedInstances: c.Claimed, TotalInstances: c.Total}
	for _, i := range c.Instances {
		a.Specs = append(a.Specs, batchSpec{Spec: i.Spec, InstanceID: h.Reporters.InstanceCredential(i.ID)})
	}
	return a, nil
}

func (h *handler) claim(r *http.Request, runID string, b *body.Body, batch bool) (lifecycle.Claimed, error) {
	var m claimRequest
	if err := b.Decode(&m, false); err != nil {
		return lifecycle.Claimed{}, err
	}
	machineID, err := h.Reporters.Machine(runID, intake.Clean(string(m.MachineID)))
	if err != nil {
		return lifecycle.Claimed{}, err
	}
	c := lifecycle.Claim{RunID: runID, GroupName: intake.Clean(string(m.GroupID)), MachineID: machineID,
		Attempt: intake.Attempt(r, "X-Cypress-Request-Attempt"), Limit: 1}
	if batch {
		c.Limit = m.limit()
	} else {
		c.Spec = intake.Clean(string(m.Spec)) // a native client that runs its specs in its own order
		c.Late = bool(m.Late)
	}
	claimed, err := h.Runs.Claim(r.Context(), c)
	if err == nil && r.Context().Err() != nil && len(claimed.Instances) > 0 {
		// The client left before it got the response.
		if err := h.Runs.Unanswered(context.WithoutCancel(r.Context()), c.RunID, c.MachineID); err != nil {
			return claimed, err
		}
	}
	return claimed, err
}

func (h *handler) tests(r *http.Request, id string, b *body.Body) (any, error) {
	var m testsRequest
	if err := b.Decode(&m, false); err != nil {
		return nil, err
	}
	a, err := m.announcement()
	if err != nil {
		return nil, err
	}
	heard, err := h.Runs.Announce(r.Context(), id, a)
	if err != nil {
		return nil, err
	}
	// A native client asks before it runs the spec, and can still skip it.
	if heard.Cancelled {
		return testsAnswer{Actions: []action{{Type: "SPEC", Action: "SKIP"}}}, nil
	}
	return testsAnswer{}, nil
}

func (h *handler) results(r *http.Request, id string, b *body.Body) (any, error) {
	var m resultsRequest
	if err := b.Decode(&m, false); err != nil {
		return nil, err
	}
	return h.complete(r, id, nil, m)
}

func (h *handler) testsAndResults(r *http.Request, id string, b *body.Body) (any, error) {
	var m batchResultsRequest
	if err := b.Decode(&m, false); err != nil {
		return nil, err
	}
	if m.Results == nil {
		return nil, run.Errorf(run.Invalid, "results is missing.")
	}
	if m.Tests == nil {
		return h.complete(r, id, nil, *m.Results)
	}
	a, err := m.Tests.announcement()
	if err != nil {
		return nil, err
	}
	return h.complete(r, id, &a, *m.Results)
}

func (h *handler) complete(r *http.Request, id string, a *run.Announcement, m resultsRequest) (any, error) {
	o, err := m.outcome()
	if err != nil {
		return nil, err
	}
	heard, err := h.Runs.Complete(r.Context(), id, a, o)
	if err != nil {
		return nil, err
	}
	uploads, err := h.Artifacts.Expect(r.Context(), id, o)
	if err != nil {
		return nil, err
	}
	answer := resultsAnswer{ScreenshotUploadURLs: []screenshotUpload{}}
	for _, u := range uploads.Screenshots {
		answer.ScreenshotUploadURLs = append(answer.ScreenshotUploadURLs, screenshotUpload(u))
	}
	if uploads.Video != "" {
		answer.VideoUploadURL = &uploads.Video
	}
	if uploads.Coverage != "" {
		answer.CoverageUploadURL = &uploads.Coverage
	}
	answer.Cloud.ShouldCancel = false
	if heard.Cancelled {
		answer.Cloud.ShouldCancel = heard.Reason // recording ccy-cancel-shouldCancel
	}
	return answer, nil
}

func (h *handler) stdout(r *http.Request, id string, b *body.Body) (any, error) {
	var m stdoutRequest
	if err := b.Decode(&m, false); err != nil {
		return nil, err
	}
	if m.Stdout == nil {
		return nil, run.Errorf(run.Invalid, "stdout is missing.")
	}
	return "OK", h.Runs.Output(r.Context(), id, intake.Clean(*m.Stdout))
}

// uploads is a client's report of its uploads: why some failed, and which it believes arrived.
func (h *handler) uploads(r *http.Request, id string, b *body.Body) (any, error) {
	var m uploadsRequest
	if err := b.Decode(&m, false); err != nil {
		return nil, err
	}
	if err := h.Runs.Hear(r.Context(), id); err != nil {
		return nil, err
	}
	var reports []run.UploadReport
	for _, u := range append(m.Screenshots[:min(len(m.Screenshots), run.MaxScreenshots)], m.Video.Value) {
		if u.Success != nil {
			reports = append(reports,
				run.UploadReport{Address: string(u.URL), Uploaded: bool(*u.Success), Why: intake.Clean(string(u.Error))})
		}
	}
	return struct{}{}, h.Artifacts.Reported(r.Context(), id, reports)
}

// recorder is our own reporter, 'runbell cypress run'.
const recorder = "runbell"

func client(r *http.Request) run.Client {
	c := run.Client{Name: "cypress",
		Framework: run.Framework{Name: "cypress", Version: run.Clip(intake.Clean(r.Header.Get("X-Cypress-Version")), 40)}}
	if v := r.Header.Get("X-Ccy-Version"); v != "" {
		c.Name, c.Version = "cypress-cloud", run.Clip(intake.Clean(v), 40)
	}
	if v := r.Header.Get("X-Runbell-Version"); v != "" {
		c.Name, c.Version = recorder, run.Clip(intake.Clean(v), 40)
	}
	return c
}
