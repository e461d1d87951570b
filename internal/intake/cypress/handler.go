// Package cypress speaks the protocol of Cypress reporters: cypress-cloud, with
// single specs and in batches, and Cypress' own record mode up to 12.5.
//
// It translates what they send to package run at once, and knows nothing of
// their life beyond that. README.md lists the subset that is served; comments
// name the recordings in testdata it was learnt from.
package cypress

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"runbell/internal/auth"
	"runbell/internal/intake"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/web"
)

// Limits on bodies, before and after gzip. A results body holds a whole spec
// with the errors of all attempts.
const (
	maxRunBody     = 16 << 20
	maxClaimBody   = 1 << 20
	maxResultsBody = 64 << 20
	maxBatch       = 100

	// keepBody is how much memory of a body is kept for the next.
	keepBody = 64 << 10
)

// Options configure the adapter.
type Options struct {
	Runs *lifecycle.Service
	Keys *auth.Keys
	// Reporters makes and checks the ids that clients work with.
	Reporters *auth.Reporters
	Log       *slog.Logger
}

type handler struct {
	Options
	turns  turns
	bodies sync.Pool // of *[]byte
}

// Routes adds the routes reporters use, at the root as their clients expect.
func Routes(mux *http.ServeMux, o Options) {
	h := &handler{Options: o, turns: newTurns()}
	for pattern, f := range map[string]func(http.ResponseWriter, *http.Request) (any, error){
		"POST /runs":                      h.join,
		"POST /runs/{id}/instances":       h.claimOne,
		"POST /runs/{id}/cy/instances":    h.claimBatch,
		"POST /instances/{id}/tests":      h.tests,
		"POST /instances/{id}/results":    h.results,
		"POST /instances/{id}/cy/results": h.testsAndResults,
		"PUT /instances/{id}/stdout":      h.stdout,
	} {
		mux.Handle(pattern, h.answer(f))
	}
	for _, pattern := range []string{"POST /preflight", "POST /runs/", "PUT /runs/", "POST /instances/", "PUT /instances/"} {
		mux.Handle(pattern, h.answer(notServed))
	}
}

// notServed answers what other clients ask for. Cypress from 12.6 on starts with
// /preflight, and encrypts everything after that for its own cloud.
func notServed(_ http.ResponseWriter, r *http.Request) (any, error) {
	if r.URL.Path == "/preflight" {
		return nil, &run.Error{Kind: run.NotFound, Message: "Cypress 12.6 and newer cannot record here by itself: what it sends is encrypted.",
			Details: []string{"Use 'runbell cypress run', with any Cypress from 10 on; or cypress-cloud, with Cypress 10 to 12.17."}}
	}
	return nil, run.Errorf(run.NotFound, "%s %s is not served here.", r.Method, run.Clip(intake.Clean(strings.ToValidUTF8(r.URL.Path, "\uFFFD")), 100))
}

// answer writes what a route returns. Clients read message and errors of a 422
// and print them; of other errors they print the status (lib/httpClient of
// cypress-cloud; recording ccy-claim-422).
func (h *handler) answer(f func(http.ResponseWriter, *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := h.inTurn(f, w, r)
		if err != nil {
			web.LogInternal(h.Log, r, err)
			p := web.ProblemOf(err)
			details := p.Details
			if details == nil {
				details = []string{}
			}
			web.WriteJSON(w, p.Status, errorAnswer{Message: p.Message, Errors: details, Code: p.Code})
			return
		}
		web.WriteJSON(w, http.StatusOK, v)
	})
}

// inTurn lets a route read its body when there is room for it.
func (h *handler) inTurn(f func(http.ResponseWriter, *http.Request) (any, error), w http.ResponseWriter, r *http.Request) (any, error) {
	if isBig(r) {
		id, err := h.instance(r)
		if err != nil {
			return nil, err
		}
		if err := h.Runs.Known(r.Context(), id); err != nil {
			return nil, err
		}
	}
	done, err := h.turns.take(r)
	if err != nil {
		return nil, err
	}
	defer done()
	return f(w, r)
}

func (h *handler) join(w http.ResponseWriter, r *http.Request) (any, error) {
	body, err := read(w, r, maxRunBody, "A group has too many specs for one request: give fewer with --spec.", nil)
	if err != nil {
		return nil, err
	}
	var m runRequest
	if err := web.ParseJSON(body, &m, false); err != nil {
		return nil, err
	}
	j, err := m.join()
	if err != nil {
		return nil, err
	}
	if err := h.Keys.Record(r.Context(), j.ProjectID, string(m.RecordKey)); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	j.Fingerprint = hex.EncodeToString(sum[:])
	j.Attempt = intake.Attempt(r, "X-Cypress-Request-Attempt")
	j.Client = client(r)
	j.Late = bool(m.Late)
	// Other reporters share a group without asking for it; and what has been run
	// already is in nobody's way.
	j.Alone = j.Client.Name == recorder && !bool(m.Parallel) && !j.Late
	joined, err := h.Runs.Join(r.Context(), j)
	if err != nil {
		return nil, explainSpecs(err, j.Specs)
	}
	tags := j.Tags
	if tags == nil {
		tags = []string{}
	}
	a := runAnswer{RunID: joined.RunID, GroupID: joined.GroupName, MachineID: h.Reporters.MachineCredential(joined.RunID, joined.MachineID), RunURL: joined.RunURL,
		IsNewRun: joined.IsNew, Tags: tags, Warnings: []string{}}
	if j.Client.Name == recorder {
		a.InactivityTimeoutMS = joined.InactivityTimeout.Milliseconds()
		for _, s := range joined.Order {
			a.HandOutOrder = append(a.HandOutOrder, expectedSpec{Spec: s.Spec, DurationMS: s.Expected.Milliseconds()})
		}
	}
	return a, nil
}

func (h *handler) claimOne(w http.ResponseWriter, r *http.Request) (any, error) {
	c, err := h.claim(w, r, false)
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

func (h *handler) claimBatch(w http.ResponseWriter, r *http.Request) (any, error) {
	c, err := h.claim(w, r, true)
	if err != nil {
		return nil, err
	}
	a := batchAnswer{Specs: []batchSpec{}, ClaimedInstances: c.Claimed, TotalInstances: c.Total}
	for _, i := range c.Instances {
		a.Specs = append(a.Specs, batchSpec{Spec: i.Spec, InstanceID: h.Reporters.InstanceCredential(i.ID)})
	}
	return a, nil
}

func (h *handler) claim(w http.ResponseWriter, r *http.Request, batch bool) (lifecycle.Claimed, error) {
	var m claimRequest
	if err := h.readJSON(w, r, maxClaimBody, "", &m); err != nil {
		return lifecycle.Claimed{}, err
	}
	runID := intake.PathID(r)
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
		// The client left before it was told what it got.
		if err := h.Runs.Unanswered(context.WithoutCancel(r.Context()), c.RunID, c.MachineID); err != nil {
			return claimed, err
		}
	}
	return claimed, err
}

const splitSpec = "Split the spec into smaller ones."

func (h *handler) tests(w http.ResponseWriter, r *http.Request) (any, error) {
	var m testsRequest
	if err := h.readJSON(w, r, maxResultsBody, splitSpec, &m); err != nil {
		return nil, err
	}
	a, err := m.announcement()
	if err != nil {
		return nil, err
	}
	id, err := h.instance(r)
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

func (h *handler) results(w http.ResponseWriter, r *http.Request) (any, error) {
	var m resultsRequest
	if err := h.readJSON(w, r, maxResultsBody, splitSpec, &m); err != nil {
		return nil, err
	}
	return h.complete(r, nil, m)
}

func (h *handler) testsAndResults(w http.ResponseWriter, r *http.Request) (any, error) {
	var m batchResultsRequest
	if err := h.readJSON(w, r, maxResultsBody, splitSpec, &m); err != nil {
		return nil, err
	}
	if m.Results == nil {
		return nil, run.Errorf(run.Invalid, "results is missing.")
	}
	if m.Tests == nil {
		return h.complete(r, nil, *m.Results)
	}
	a, err := m.Tests.announcement()
	if err != nil {
		return nil, err
	}
	return h.complete(r, &a, *m.Results)
}

func (h *handler) complete(r *http.Request, a *run.Announcement, m resultsRequest) (any, error) {
	o, err := m.outcome()
	if err != nil {
		return nil, err
	}
	id, err := h.instance(r)
	if err != nil {
		return nil, err
	}
	heard, err := h.Runs.Complete(r.Context(), id, a, o)
	if err != nil {
		return nil, err
	}
	answer := resultsAnswer{ScreenshotUploadURLs: []string{}}
	answer.Cloud.ShouldCancel = false
	if heard.Cancelled {
		answer.Cloud.ShouldCancel = heard.Reason // recording ccy-cancel-shouldCancel
	}
	return answer, nil
}

func (h *handler) stdout(w http.ResponseWriter, r *http.Request) (any, error) {
	var m stdoutRequest
	if err := h.readJSON(w, r, maxResultsBody, splitSpec, &m); err != nil {
		return nil, err
	}
	if m.Stdout == nil {
		return nil, run.Errorf(run.Invalid, "stdout is missing.")
	}
	id, err := h.instance(r)
	if err != nil {
		return nil, err
	}
	return "OK", h.Runs.Output(r.Context(), id, intake.Clean(string(*m.Stdout)))
}

func read(w http.ResponseWriter, r *http.Request, limit int64, advice string, kept []byte) ([]byte, error) {
	body, err := web.ReadBody(w, r, limit, kept)
	if e, ok := errors.AsType[*run.Error](err); ok && e.Kind == run.TooLarge && advice != "" {
		e.Details = []string{advice}
	}
	return body, err
}

// readJSON decodes a body. What is decoded shares no memory with it, so the memory
// of one that is not large is kept for another.
func (h *handler) readJSON(w http.ResponseWriter, r *http.Request, limit int64, advice string, v any) error {
	kept, _ := h.bodies.Get().(*[]byte)
	if kept == nil {
		kept = new([]byte)
	}
	body, err := read(w, r, limit, advice, *kept)
	if err != nil {
		return err
	}
	err = web.ParseJSON(body, v, false)
	if cap(body) <= keepBody {
		*kept = body
		h.bodies.Put(kept)
	}
	return err
}

// instance is the public id of the instance whose credential is in the path.
func (h *handler) instance(r *http.Request) (string, error) {
	return h.Reporters.Instance(intake.PathID(r))
}

// recorder is our own reporter, 'runbell cypress run'.
const recorder = "runbell"

func client(r *http.Request) run.Client {
	c := run.Client{Name: "cypress", Framework: run.Framework{Name: "cypress", Version: run.Clip(intake.Clean(r.Header.Get("X-Cypress-Version")), 40)}}
	if v := r.Header.Get("X-Ccy-Version"); v != "" {
		c.Name, c.Version = "cypress-cloud", run.Clip(intake.Clean(v), 40)
	}
	if v := r.Header.Get("X-Runbell-Version"); v != "" {
		c.Name, c.Version = recorder, run.Clip(intake.Clean(v), 40)
	}
	return c
}
