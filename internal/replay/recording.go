// Package replay plays the recorded traffic of a Cypress reporter into a
// server, over HTTP, as the reporter itself would: it joins a run, claims specs
// until none are left, and reports each with the requests that were recorded
// for it. Only ids differ from the recording, because the server chooses them.
//
// Any number of machines can play one recording at once and share its specs.
package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Recording is what one machine sent in one run, in the order of its specs.
// It can be shared by any number of players.
type Recording struct {
	join    exchange
	claim   exchange
	specs   map[string]recordedSpec
	order   []string
	runID   string
	runURL  string
	batched bool // claims are answered with several specs
}

// recordedSpec is how one spec was reported.
type recordedSpec struct {
	instanceID string
	reports    []exchange
	// ran is the time between the claim and the first report.
	ran time.Duration
}

// exchange is a request and its answer. A recording is a JSON array of them.
type exchange struct {
	AtMS    int64 `json:"t_ms"`
	Request struct {
		Method  string            `json:"method"`
		Path    string            `json:"path"`
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"`
	} `json:"request"`
	Response struct {
		Status int             `json:"status"`
		Body   json.RawMessage `json:"body"`
	} `json:"response"`
}

// resultsAnswer has the addresses for uploads; "" where none is wanted.
type resultsAnswer struct {
	ScreenshotUploadURLs []struct {
		ScreenshotID string `json:"screenshotId"`
		UploadURL    string `json:"uploadUrl"`
	} `json:"screenshotUploadUrls"`
	VideoUploadURL string `json:"videoUploadUrl"`
}

// Load reads a recording of one machine that joined a run and claimed specs.
// Uploads of files are left out: recordings have their names only, see [Player.Files].
func Load(r io.Reader) (*Recording, error) {
	var exchanges []exchange
	if err := json.NewDecoder(r).Decode(&exchanges); err != nil {
		return nil, fmt.Errorf("read the recording: %w", err)
	}
	rec := &Recording{specs: map[string]recordedSpec{}}
	specOf := map[string]string{} // instance id -> spec
	claimedAt := map[string]int64{}
	for _, e := range exchanges {
		if e.Response.Status >= 300 {
			continue // retried, or the end of the recording
		}
		if len(e.Request.Body) > 0 {
			// The wire had no spaces; the file has them to be read.
			var b bytes.Buffer
			if err := json.Compact(&b, e.Request.Body); err != nil {
				return nil, fmt.Errorf("read the recording: %w", err)
			}
			e.Request.Body = b.Bytes()
		}
		switch parts := strings.Split(strings.TrimPrefix(e.Request.Path, "/"), "/"); {
		case e.Request.Path == "/runs":
			var answer joinAnswer
			if err := json.Unmarshal(e.Response.Body, &answer); err != nil {
				return nil, fmt.Errorf("read the recorded answer to %s: %w", e.Request.Path, err)
			}
			rec.join, rec.runID, rec.runURL = e, answer.RunID, answer.RunURL
		case parts[0] == "runs" && parts[len(parts)-1] == "instances":
			var answer claimAnswer
			if err := json.Unmarshal(e.Response.Body, &answer); err != nil {
				return nil, fmt.Errorf("read the recorded answer to %s: %w", e.Request.Path, err)
			}
			if rec.claim.Request.Method == "" {
				rec.claim, rec.batched = e, len(parts) == 4
			}
			for _, s := range answer.list() {
				specOf[s.InstanceID], claimedAt[s.InstanceID] = s.Name, e.AtMS
				rec.order = append(rec.order, s.Name)
			}
		case parts[0] == "instances" && len(parts) >= 3:
			name, ok := specOf[parts[1]]
			if !ok {
				return nil, fmt.Errorf("the recording reports an instance that it did not claim: %s", e.Request.Path)
			}
			s := rec.specs[name]
			if s.instanceID == "" {
				s.instanceID, s.ran = parts[1], time.Duration(e.AtMS-claimedAt[parts[1]])*time.Millisecond
			}
			s.reports = append(s.reports, e)
			rec.specs[name] = s
		}
	}
	if rec.runID == "" || rec.claim.Request.Method == "" {
		return nil, errors.New("the recording has no machine that joins a run and claims specs")
	}
	return rec, nil
}

// Specs are the recorded specs, in the order they were claimed.
func (r *Recording) Specs() []string { return append([]string(nil), r.order...) }

// joinAnswer is the answer to POST /runs.
type joinAnswer struct {
	RunID     string `json:"runId"`
	GroupID   string `json:"groupId"`
	MachineID string `json:"machineId"`
	RunURL    string `json:"runUrl"`
}

// claimAnswer is the answer to a claim, single or batched.
type claimAnswer struct {
	Spec       *string `json:"spec"`
	InstanceID string  `json:"instanceId"`
	Specs      []Spec  `json:"specs"`
}

func (c claimAnswer) list() []Spec {
	if c.Spec != nil {
		return []Spec{{Name: *c.Spec, InstanceID: c.InstanceID}}
	}
	return c.Specs
}
