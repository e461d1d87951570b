package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

func load(t *testing.T, file string) *Recording {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dashboard hands out the specs of a recording and keeps what it is told.
type dashboard struct {
	mu       sync.Mutex
	machines int
	joins    []map[string]any
	specs    []string
	reports  map[string][]string // last part of the path, by instance id
	bodies   strings.Builder
}

func (d *dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var fields map[string]any
	_ = json.Unmarshal(body, &fields)
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var answer any = map[string]any{}
	switch {
	case r.URL.Path == "/runs":
		d.machines++
		d.joins = append(d.joins, fields)
		answer = map[string]any{"runId": "run-x", "groupId": "group-x", "machineId": fmt.Sprint("machine-", d.machines), "runUrl": "http://x/run/run-x"}
	case parts[len(parts)-1] == "instances":
		if fields["groupId"] != "group-x" || fields["runId"] != "run-x" || !strings.HasPrefix(fmt.Sprint(fields["machineId"]), "machine-") {
			http.Error(w, `{"message":"wrong ids","errors":["look"]}`, http.StatusUnprocessableEntity)
			return
		}
		size := 1
		if n, ok := fields["batchSize"].(float64); ok && parts[2] == "cy" {
			size = int(n)
		}
		var batch []Spec
		for range min(size, len(d.specs)) {
			batch = append(batch, Spec{Name: d.specs[0], InstanceID: "instance-" + d.specs[0][len("cypress/e2e/"):]})
			d.specs = d.specs[1:]
		}
		switch {
		case parts[2] == "cy":
			answer = map[string]any{"specs": batch}
		case len(batch) == 0:
			answer = map[string]any{"spec": nil, "instanceId": nil}
		default:
			answer = batch[0]
		}
	default:
		d.reports[parts[1]] = append(d.reports[parts[1]], strings.Join(parts[2:], "/"))
		d.bodies.Write(body)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func TestPlay(t *testing.T) {
	for _, c := range []struct {
		file    string
		reports []string // of each spec
	}{
		{"../app/demodata/run.json", []string{"tests", "results", "stdout"}},
		{"../intake/cypress/testdata/ccy-batched-currents-mode.json", []string{"cy/results", "stdout"}},
	} {
		t.Run(c.file, func(t *testing.T) {
			rec := load(t, c.file)
			if len(rec.Specs()) != 5 {
				t.Fatalf("the recording has the specs %q", rec.Specs())
			}
			d := &dashboard{specs: rec.Specs(), reports: map[string][]string{}}
			server := httptest.NewServer(d)
			defer server.Close()
			player := Player{Recording: rec, URL: server.URL + "/", Change: map[string]any{"ciBuildId": "mine", "providedMachineId": nil}}
			done := make(chan error, 2)
			for range 2 {
				m, err := player.Join(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				go func() { done <- m.Run(t.Context()) }()
			}
			if err := errors.Join(<-done, <-done); err != nil {
				t.Fatal(err)
			}
			for _, join := range d.joins {
				if _, there := join["providedMachineId"]; there || join["ciBuildId"] != "mine" || join["projectId"] != "demo" {
					t.Errorf("joined with %v", join)
				}
			}
			for _, spec := range rec.Specs() {
				id := "instance-" + spec[len("cypress/e2e/"):]
				if got := d.reports[id]; !slices.Equal(got, c.reports) {
					t.Errorf("%s was reported with %q, want %q", spec, got, c.reports)
				}
			}
			if sent := d.bodies.String(); strings.Contains(sent, rec.runID) || strings.Contains(sent, rec.runURL) {
				t.Error("an id of the recording was sent")
			}
		})
	}
}

func TestRefusalIsAnError(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"message":"Run is cancelled","errors":["by jane"]}`)
	}))
	defer server.Close()
	_, err := Player{Recording: load(t, "../app/demodata/run.json"), URL: server.URL}.Join(t.Context())
	refusal, ok := errors.AsType[*StatusError](err)
	if !ok || refusal.Status != 422 || refusal.Message != "Run is cancelled" || !slices.Equal(refusal.Details, []string{"by jane"}) {
		t.Errorf("got %#v", err)
	}
}

func TestLoadRefusesWhatIsNoRecording(t *testing.T) {
	for _, text := range []string{``, `{}`, `[]`, `[{"request":{"method":"POST","path":"/instances/x/tests","body":{}},"response":{"status":200}}]`} {
		if _, err := Load(strings.NewReader(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
