package recorder

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// server is the other side of the reporter protocol.
type server struct {
	base     string // without a trailing slash
	http     *http.Client
	version  string
	patience time.Duration // how long requests wait for a server that is unreachable
	warn     func(format string, args ...any)

	mu        sync.Mutex
	cypress   string // version
	runID     string
	upAt      time.Time // when it last responded
	downSince time.Time // the start of the current outage, zero if there is none
	told      bool      // the outage was reported
}

func newServer(base, version string, patience time.Duration, warn func(string, ...any)) *server {
	return &server{base: strings.TrimRight(base, "/"), version: version, patience: patience, warn: warn,
		http: &http.Client{
			Timeout: slow,
			// A redirected POST would arrive as a GET, without its body.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}
}

// refusal is a response that a retry would not change.
type refusal struct {
	Status  int
	Message string
	Details []string
	Code    string
}

func (e *refusal) Error() string {
	message := e.Message
	switch {
	case message != "":
	case e.Status == http.StatusUnauthorized:
		message = "The record key is not the project's."
	default:
		message = fmt.Sprintf("The server responded with %d %s.", e.Status, http.StatusText(e.Status))
	}
	return strings.Join(append([]string{message}, e.Details...), "\n")
}

// refused reports whether the server refused the request.
func refused(err error) (*refusal, bool) { return errors.AsType[*refusal](err) }

// unreachable is a server that gave no valid response for as long as the recorder waits.
type unreachable struct{ err error }

func (e *unreachable) Error() string { return e.err.Error() }
func (e *unreachable) Unwrap() error { return e.err }

const maxAnswer = 8 << 20

// call sends a request and decodes the response. It retries while the server is
// unreachable. It returns a *refusal, an *unreachable, or the cause of ctx.
func (s *server) call(ctx context.Context, method, path string, body, into any) error {
	encoded, err := encode(body)
	if err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		began := time.Now()
		wait, err := s.tryFor(ctx, method, path, encoded, attempt, into)
		if err == nil {
			s.up()
			return nil
		}
		if r, ok := refused(err); ok && !s.strange(r) {
			s.up()
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		left := s.down(began, err)
		if left <= 0 {
			return &unreachable{err}
		}
		select {
		case <-time.After(min(left, max(wait, backoff(attempt)))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// backoff grows from a quarter of a second to ten seconds. Its jitter prevents machines
// that lost a server at the same time from coming back at the same time.
func backoff(attempt int) time.Duration {
	d := min(10*time.Second, 250*time.Millisecond<<min(attempt, 10))
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// up notes that the server has responded.
func (s *server) up() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told {
		s.warn("The server responds again.")
	}
	s.upAt, s.downSince, s.told = time.Now(), time.Time{}, false
}

// strange reports whether a refusal comes from something else than the server, which
// responded before: a proxy in front of it may refuse requests while it is down.
func (s *server) strange(r *refusal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.Message == "" && s.runID != ""
}

// How long one request may take, at least and at most, for any patience.
const hasty, slow = 5 * time.Second, time.Minute

// tryFor sends a request once. A server that accepts it and does not respond counts as
// unreachable, like one that refuses the connection.
func (s *server) tryFor(ctx context.Context, method, path string, body []byte, attempt int,
	into any) (time.Duration, error) {
	s.mu.Lock()
	left := s.patience
	if !s.downSince.IsZero() {
		left -= time.Since(s.downSince)
	}
	s.mu.Unlock()
	limit := min(max(left, hasty), slow)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no response within %s", short(limit)))
	defer cancel()
	wait, err := s.try(ctx, method, path, body, attempt, into)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return wait, err
}

// down notes that the server has not responded since a request began, and returns how
// much patience is left.
func (s *server) down(since time.Time, err error) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.downSince.IsZero() {
		if s.downSince = since; since.Before(s.upAt) {
			s.downSince = s.upAt
		}
	}
	left := s.patience - time.Since(s.downSince)
	if !s.told && time.Since(s.downSince) > time.Second && left > 0 {
		s.told = true
		s.warn("The server does not respond as it should: %s. Trying again for %s.", strings.TrimSuffix(err.Error(), "."),
			s.patience)
	}
	return left
}

// patient gives the server a new patience until f returns.
func (s *server) patient(d time.Duration, f func()) {
	s.mu.Lock()
	before := s.patience
	s.patience, s.downSince = d, time.Time{}
	s.mu.Unlock()
	f()
	s.mu.Lock()
	s.patience = before
	s.mu.Unlock()
}

// try sends a request once. wait is the pause that the server asked for.
func (s *server) try(ctx context.Context, method, path string, body []byte, attempt int,
	into any) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	h := req.Header
	h.Set("X-Cypress-Version", s.cypress)
	if s.runID != "" {
		h.Set("X-Cypress-Run-Id", s.runID)
	}
	s.mu.Unlock()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Encoding", "gzip")
	h.Set("User-Agent", "runbell/"+s.version)
	h.Set("X-Runbell-Version", s.version)
	h.Set("X-Cypress-Request-Attempt", strconv.Itoa(attempt))
	resp, err := s.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // its text would repeat method and URL
		}
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("the response was cut short: %w", err)
	}
	return judge(resp, answer, into)
}

// judge distinguishes a refusal from an outage.
func judge(resp *http.Response, answer []byte, into any) (wait time.Duration, err error) {
	status := resp.StatusCode
	switch {
	case status/100 == 2:
		if into == nil {
			return 0, nil
		}
		if err := json.Unmarshal(answer, into); err != nil {
			return 0, fmt.Errorf("it does not respond like a Runbell server (%s)",
				cmp.Or(resp.Header.Get("Content-Type"), "of no type"))
		}
		return 0, nil
	case status/100 == 3:
		to := resp.Header.Get("Location")
		if absolute, err := resp.Location(); err == nil {
			to = absolute.String()
		}
		return 0, &refusal{Status: status,
			Message: fmt.Sprintf("The server redirects to %s: if Runbell is there, use its address as --url.", to)}
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests:
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
			wait = time.Duration(min(n, 60)) * time.Second
		}
		return wait, fmt.Errorf("it responded with %s", resp.Status)
	}
	refused := &refusal{Status: status}
	var problem struct {
		Message string   `json:"message"`
		Errors  []string `json:"errors"`
		Code    string   `json:"code"`
		Error   string   `json:"error"` // of the REST API
	}
	if json.Unmarshal(answer, &problem) == nil {
		refused.Message, refused.Details, refused.Code = cmp.Or(problem.Message, problem.Error), problem.Errors, problem.Code
	}
	return 0, refused
}

// encode makes the compressed body of a request.
func encode(body any) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	e := json.NewEncoder(z)
	e.SetEscapeHTML(false)
	if err := errors.Join(e.Encode(body), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// joinRequest is POST /runs. It is kept in the journal, without the key.
type joinRequest struct {
	ProjectID  string       `json:"projectId"`
	RecordKey  string       `json:"recordKey,omitempty"`
	CIBuildID  string       `json:"ciBuildId,omitempty"`
	Group      string       `json:"group,omitempty"`
	Parallel   bool         `json:"parallel"`
	Specs      []string     `json:"specs"`
	Tags       []string     `json:"tags"`
	CI         ciFacts      `json:"ci"`
	Commit     wireCommit   `json:"commit"`
	Platform   wirePlatform `json:"platform"`
	Pattern    []string     `json:"specPattern"`
	Type       string       `json:"testingType"`
	BatchSize  int          `json:"batchSize"`
	AutoCancel any          `json:"autoCancelAfterFailures,omitempty"`
	Late       bool         `json:"late,omitempty"` // the specs already ran
}

type wireCommit struct {
	SHA           *string `json:"sha"`
	Branch        *string `json:"branch"`
	AuthorName    *string `json:"authorName"`
	AuthorEmail   *string `json:"authorEmail"`
	Message       *string `json:"message"`
	RemoteOrigin  *string `json:"remoteOrigin"`
	DefaultBranch *string `json:"defaultBranch"`
}

func (c commit) wire() wireCommit {
	known := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return wireCommit{known(c.SHA), known(c.Branch), known(c.AuthorName), known(c.AuthorEmail), known(c.Message),
		known(c.RemoteOrigin), known(c.DefaultBranch)}
}

type wirePlatform struct {
	OSName         string          `json:"osName"`
	OSVersion      string          `json:"osVersion"`
	OSCPUs         json.RawMessage `json:"osCpus,omitempty"`
	OSMemory       json.RawMessage `json:"osMemory,omitempty"`
	BrowserName    string          `json:"browserName"`
	BrowserVersion string          `json:"browserVersion,omitempty"`
}

// joined is the response to POST /runs.
type joined struct {
	RunID               string            `json:"runId"`
	GroupID             string            `json:"groupId"`
	MachineID           string            `json:"machineId"`
	RunURL              string            `json:"runUrl"`
	Warnings            []json.RawMessage `json:"warnings,omitempty"`
	InactivityTimeoutMS int64             `json:"inactivityTimeoutMs,omitempty"`
	HandOutOrder        []expectedSpec    `json:"handOutOrder,omitempty"`
	Machines            int               `json:"machines,omitempty"` // of a group in the project's latest runs
}

type expectedSpec struct {
	Spec       string `json:"spec"`
	DurationMS int64  `json:"durationMs"`
}

// UnmarshalJSON refuses a response without ids: it is not from Runbell.
func (j *joined) UnmarshalJSON(b []byte) error {
	type plain joined
	if err := json.Unmarshal(b, (*plain)(j)); err != nil {
		return err
	}
	if j.RunID == "" || j.MachineID == "" {
		return errors.New("ids are missing")
	}
	return nil
}

// join takes this machine into the run.
func (s *server) join(ctx context.Context, r joinRequest, key string) (joined, error) {
	r.RecordKey = key
	var j joined
	err := s.call(ctx, http.MethodPost, "/runs", r, &j)
	if err == nil {
		s.mu.Lock()
		s.runID = j.RunID
		s.mu.Unlock()
	}
	return j, err
}

// claimed is the response to a claim.
type claimed struct {
	Specs   []claimedSpec `json:"specs"`
	Claimed int           `json:"claimedInstances"` // by all machines
	Total   int           `json:"totalInstances"`
}

type claimedSpec struct {
	Spec       string `json:"spec"`
	InstanceID string `json:"instanceId"`
}

// UnmarshalJSON refuses a response without specs: it is not from Runbell, and does not
// mean that none are left.
func (c *claimed) UnmarshalJSON(b []byte) error {
	type plain claimed
	if err := json.Unmarshal(b, (*plain)(c)); err != nil {
		return err
	}
	if c.Specs == nil {
		return errors.New("specs are missing")
	}
	return nil
}

// claim requests specs to run.
func (s *server) claim(ctx context.Context, j joined, batch int) (claimed, error) {
	var c claimed
	err := s.call(ctx, http.MethodPost, "/runs/"+url.PathEscape(j.RunID)+"/cy/instances",
		map[string]any{"runId": j.RunID, "groupId": j.GroupID, "machineId": j.MachineID, "batchSize": batch}, &c)
	return c, err
}

// claimedByName is the response to a claim of one spec. It has no instance if another
// machine has the spec.
type claimedByName struct {
	claimedSpec
	Claimed int `json:"claimedInstances"` // by all machines
}

// claimSpec requests a spec by its name; late means that it already ran.
func (s *server) claimSpec(ctx context.Context, j joined, spec string, late bool) (claimedByName, error) {
	var c claimedByName
	err := s.call(ctx, http.MethodPost, "/runs/"+url.PathEscape(j.RunID)+"/instances",
		map[string]any{"runId": j.RunID, "groupId": j.GroupID, "machineId": j.MachineID, "spec": spec, "late": late}, &c)
	return c, err
}

// resultsAnswer says where to upload artifacts, and whether to continue.
type resultsAnswer struct {
	Screenshots []struct {
		ScreenshotID string `json:"screenshotId"`
		UploadURL    string `json:"uploadUrl"`
	} `json:"screenshotUploadUrls"`
	VideoUploadURL *string `json:"videoUploadUrl"`
	Cloud          struct {
		ShouldCancel any `json:"shouldCancel"` // false, or the reason
	} `json:"cloud"`
}

// UnmarshalJSON refuses a response that is not from Runbell: it does not mean that the
// results are stored.
func (a *resultsAnswer) UnmarshalJSON(b []byte) error {
	type plain resultsAnswer
	if err := json.Unmarshal(b, (*plain)(a)); err != nil {
		return err
	}
	if a.Screenshots == nil {
		return errors.New("screenshotUploadUrls are missing")
	}
	return nil
}

func (s *server) results(ctx context.Context, instanceID string, r json.RawMessage) (resultsAnswer, error) {
	var a resultsAnswer
	err := s.call(ctx, http.MethodPost, "/instances/"+url.PathEscape(instanceID)+"/cy/results", r, &a)
	return a, err
}

func (s *server) output(ctx context.Context, instanceID, text string) error {
	return s.call(ctx, http.MethodPut, "/instances/"+url.PathEscape(instanceID)+"/stdout",
		map[string]string{"stdout": text}, nil)
}

// heartbeat tells the server once that this machine is alive. It returns the reason to
// stop, if there is one.
func (s *server) heartbeat(ctx context.Context, j joined) (cancelled bool, reason string, err error) {
	body, err := encode(map[string]string{"machineId": j.MachineID})
	if err != nil {
		return false, "", err
	}
	var a struct {
		Data struct {
			Cancelled bool
			Reason    *string
		}
	}
	_, err = s.try(ctx, http.MethodPost, "/v1/runs/"+url.PathEscape(j.RunID)+"/heartbeat", body, 0, &a)
	if a.Data.Reason != nil {
		reason = *a.Data.Reason
	}
	return a.Data.Cancelled, reason, err
}

// cancel ends the run for all machines.
func (s *server) cancel(ctx context.Context, projectID, key, runID, buildID, reason string) error {
	body := map[string]any{"projectId": projectID, "recordKey": key, "reason": reason}
	if runID != "" {
		body["runId"] = runID
	} else {
		body["ciBuildId"] = buildID
	}
	return s.call(ctx, http.MethodPost, "/v1/runs/cancel", body, nil)
}
