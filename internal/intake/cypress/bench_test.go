package cypress_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/files"
	"runbell/internal/intake"
	"runbell/internal/intake/cypress"
	"runbell/internal/lifecycle"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// newServer is the adapter on a store, with project "demo" open to any key.
func newServer(t testing.TB, db *store.DB) (http.Handler, *lifecycle.Service) {
	t.Helper()
	runs := lifecycle.New(db, "http://runbell.test", func(...string) {})
	mux := http.NewServeMux()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	disk := artifact.NewDisk(t.TempDir())
	t.Cleanup(func() { _ = disk.Close() })
	artifacts := artifact.New(artifact.Options{DB: db, Store: disk, Secret: make([]byte, 32), PublicURL: "http://runbell.test", Max: 1 << 20, Log: log, Metrics: prometheus.NewRegistry()})
	cypress.Routes(mux, intake.Options{Bodies: body.NewPools(), Runs: runs, Keys: auth.New(db, auth.Open), Reporters: auth.NewReporters(make([]byte, 32)), Artifacts: artifacts, Log: log})
	files.Routes(mux, files.Options{DB: db, Artifacts: artifacts, Log: log})
	return mux, runs
}

// BenchmarkLifeCycle is what bench/ingest measures, without the network: one
// client, one spec at a time.
func BenchmarkLifeCycle(b *testing.B) {
	h, _ := newServer(b, testkit.SQLite(b))
	send := func(method, path, body string, into any) {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		if into != nil {
			if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
				b.Fatal(err)
			}
		}
	}
	var tests, results bytes.Buffer
	for i := range 10 {
		fmt.Fprintf(&tests, `,{"clientId":"r%d","title":["a page","shows %d"],"body":"() => {}","hookIds":[]}`, i, i)
		fmt.Fprintf(&results, `,{"clientId":"r%d","state":"passed","attempts":[{"state":"passed","wallClockDuration":3}]}`, i)
	}
	testsBody := `{"config":{"video":true,"x":"` + strings.Repeat("x", 8<<10) + `"},"hooks":[],"tests":[` + tests.String()[1:] + `]}`
	resultsBody := `{"stats":{},"exception":null,"tests":[` + results.String()[1:] + `]}`
	stdout := `{"stdout":"` + strings.Repeat("a line\\n", 256) + `"}`
	n := 0
	for b.Loop() {
		n++
		var run struct{ RunID, GroupID, MachineID string }
		send("POST", "/runs", fmt.Sprintf(`{"projectId":"demo","recordKey":"k","ciBuildId":"b%d","specs":["a","b","c","d","e"]}`, n), &run)
		claim := fmt.Sprintf(`{"groupId":%q,"machineId":%q}`, run.GroupID, run.MachineID)
		for range 5 {
			var c struct{ InstanceID string }
			send("POST", "/runs/"+run.RunID+"/instances", claim, &c)
			send("POST", "/instances/"+c.InstanceID+"/tests", testsBody, nil)
			send("POST", "/instances/"+c.InstanceID+"/results", resultsBody, nil)
			send("PUT", "/instances/"+c.InstanceID+"/stdout", stdout, nil)
		}
		send("POST", "/runs/"+run.RunID+"/instances", claim, nil)
	}
}
