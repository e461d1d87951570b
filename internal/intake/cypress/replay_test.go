package cypress_test

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// exchange is one request of a recording and the response it got.
type exchange struct {
	Request struct {
		Method  string
		Path    string
		Headers map[string]string
		Body    json.RawMessage
	}
	Response struct {
		Status int
		Body   json.RawMessage
	}
}

func isUpload(e exchange) bool { return strings.HasPrefix(e.Request.Path, "/upload/") }

// stage is a server in which a recording is played, request by request in the
// recorded order.
type stage struct {
	t       *testing.T
	handler http.Handler
	runs    *lifecycle.Service
	db      *store.DB
	ids     []string // recorded, ours, recorded, ours …
	runID   string
}

// play sends a recorded request with our ids in place of the recorded ones, and
// learns the new ids from the answer.
func (s *stage) play(e exchange) (int, map[string]any) {
	s.t.Helper()
	ids := strings.NewReplacer(s.ids...)
	body := ids.Replace(string(e.Request.Body))
	if isUpload(e) {
		body = uploaded(e.Request.Body)
	}
	r := httptest.NewRequest(e.Request.Method, ids.Replace(e.Request.Path), strings.NewReader(body))
	for name, value := range e.Request.Headers {
		if !strings.EqualFold(name, "content-length") { // of the compact body that was on the wire
			r.Header.Set(name, ids.Replace(value))
		}
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	var answer map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &answer) // stdout is answered with a string
	var recorded map[string]any
	_ = json.Unmarshal(e.Response.Body, &recorded)
	for _, key := range []string{"runId", "instanceId"} {
		was, _ := recorded[key].(string)
		is, _ := answer[key].(string)
		if was != "" && is != "" {
			s.ids = append(s.ids, was, is)
		}
	}
	// A machine id is short in one recording: replace it only where it stands alone.
	if was, _ := recorded["machineId"].(string); was != "" && answer["machineId"] != nil {
		s.ids = append(s.ids, `"machineId": "`+was+`"`, `"machineId": "`+answer["machineId"].(string)+`"`)
	}
	was, _ := recorded["specs"].([]any)
	is, _ := answer["specs"].([]any)
	for i := range min(len(was), len(is)) {
		s.ids = append(s.ids, was[i].(map[string]any)["instanceId"].(string), is[i].(map[string]any)["instanceId"].(string))
	}
	if id, _ := answer["runId"].(string); id != "" {
		s.runID = id
	}
	s.learnUploads(recorded, answer)
	return w.Code, answer
}

// learnUploads puts the addresses that the server gave out in the place of the
// recorded ones.
func (s *stage) learnUploads(recorded, answer map[string]any) {
	s.t.Helper()
	learn := func(was, is any) {
		old, _ := was.(string)
		if old == "" {
			return
		}
		address, ok := is.(string)
		if !ok {
			s.t.Errorf("there is no address for %s", old)
			return
		}
		s.ids = append([]string{strings.TrimPrefix(old, "http://127.0.0.1:22001"), address}, s.ids...) // before the id in it is replaced
	}
	learn(recorded["videoUploadUrl"], answer["videoUploadUrl"])
	was, _ := recorded["screenshotUploadUrls"].([]any)
	is, _ := answer["screenshotUploadUrls"].([]any)
	for i := range min(len(was), len(is)) {
		learn(was[i].(map[string]any)["uploadUrl"], is[i].(map[string]any)["uploadUrl"])
	}
}

// uploaded is a file like the recorded one, of which the recording has the size and
// the first bytes.
func uploaded(recorded json.RawMessage) string {
	var is struct {
		Bytes int    `json:"_bytes"`
		Head  string `json:"_head"`
	}
	_ = json.Unmarshal(recorded, &is)
	head, _ := hex.DecodeString(is.Head)
	return string(append(head, make([]byte, is.Bytes-len(head))...))
}

// TestRecordings plays each recording of cypress-cloud unchanged, into a server on virtual time, and compares the
// payloads of all events with golden files.
func TestRecordings(t *testing.T) {
	for name, script := range map[string]struct {
		file   string                                        // "" is the name
		edit   func(body string) string                      // of every request
		last   int                                           // the request after which nothing is played, 0 is all
		before map[int]func(*stage)                          // index of a request: what happens first
		want   map[int]func(*testing.T, int, map[string]any) // its answer, else 200
		after  func(*stage)
	}{
		"ccy-vs-sorrycypress-single-machine": {},
		// The client asked to cancel after two failures. The server it was recorded
		// with did not; ours does, and the next claim is refused.
		"ccy-batched-currents-mode": {last: 11, want: map[int]func(*testing.T, int, map[string]any){
			10: func(*testing.T, int, map[string]any) {},
			11: func(t *testing.T, code int, answer map[string]any) {
				if code != http.StatusUnprocessableEntity || answer["code"] != "RUN_CANCELLED" {
					t.Errorf("a claim after too many failures: %d %v", code, answer)
				}
			}}},
		"batched-to-the-end": {file: "ccy-batched-currents-mode", edit: func(body string) string {
			return strings.ReplaceAll(body, `"autoCancelAfterFailures": 2`, `"autoCancelAfterFailures": false`)
		}},
		"ccy-uploads":       {},
		"ccy-ci-env-github": {},
		// The responses in the recording made the client repeat: 503 twice, 500 three times. Here the first try
		// succeeds and the others are repetitions.
		"ccy-createrun-503-retry": {},
		"ccy-results-500-giveup":  {},
		"ccy-cancel-shouldCancel": {
			before: map[int]func(*stage){3: func(s *stage) { s.cancel() }},
			want: map[int]func(*testing.T, int, map[string]any){3: func(t *testing.T, code int, answer map[string]any) {
				cloud, _ := answer["cloud"].(map[string]any)
				if code != http.StatusOK || cloud["shouldCancel"] != "Canceled by jane: enough" {
					t.Errorf("results of a canceled run: %d %v", code, answer)
				}
			}},
		},
		"ccy-claim-422": {
			before: map[int]func(*stage){5: func(s *stage) { s.cancel() }},
			want: map[int]func(*testing.T, int, map[string]any){5: func(t *testing.T, code int, answer map[string]any) {
				if code != http.StatusUnprocessableEntity || answer["message"] != "Run is cancelled" || answer["code"] != "RUN_CANCELLED" {
					t.Errorf("claim of a canceled run: %d %v", code, answer)
				}
			}},
		},
		"ccy-sigterm-midspec": {after: func(*stage) { time.Sleep(run.DefaultInactivity + time.Second) }},
	} {
		t.Run(name, func(t *testing.T) {
			exchanges := load(t, cmp.Or(script.file, name))
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				db := testkit.Open(t, testkit.MigratedFile(t, dir))
				h, runs := newServer(t, db)
				s := &stage{t: t, handler: h, runs: runs, db: db}
				keep(t, runs)
				n := -1
				for _, e := range exchanges {
					if !isUpload(e) {
						n++
					}
					if f := script.before[n]; f != nil {
						f(s)
					}
					if script.edit != nil {
						e.Request.Body = json.RawMessage(script.edit(string(e.Request.Body)))
					}
					time.Sleep(time.Second)
					code, answer := s.play(e)
					if f := script.want[n]; f != nil && !isUpload(e) {
						f(t, code, answer)
					} else if code != http.StatusOK {
						t.Fatalf("request %d, %s %s: %d %v", n, e.Request.Method, e.Request.Path, code, answer)
					}
					if n > 0 && n == script.last {
						break
					}
				}
				if script.after != nil {
					script.after(s)
				}
				time.Sleep(run.DefaultCompletion + time.Second) // of runs with a named group
				synctest.Wait()
				golden(t, filepath.Join("testdata", name+".golden"), s.events())
			})
		})
	}
}

func (s *stage) cancel() {
	s.t.Helper()
	if _, err := s.runs.Cancel(s.t.Context(), s.runID, "jane", "enough"); err != nil {
		s.t.Fatal(err)
	}
}

// events is every payload of the run in order, each checked against the
// published schema, with the random part of the run's URL taken out.
func (s *stage) events() []byte {
	s.t.Helper()
	var out bytes.Buffer
	err := s.db.Read(s.t.Context(), func(tx *store.Tx) error {
		events, err := tx.Events(s.t.Context(), s.runID)
		for _, e := range events {
			if err := testkit.CheckPayload(e.Payload); err != nil {
				s.t.Errorf("payload %s: %v", e.Payload, err)
			}
			out.WriteString("# scope " + string(e.Scope) + "\n")
			out.Write(bytes.ReplaceAll(e.Payload, []byte(s.runID), []byte("RUN-ID")))
			out.WriteByte('\n')
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.Bytes()
}

func load(t testing.TB, name string) []exchange {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var exchanges []exchange
	if err := json.Unmarshal(text, &exchanges); err != nil {
		t.Fatal(err)
	}
	return exchanges
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; if the new one is right, run with -update\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}
