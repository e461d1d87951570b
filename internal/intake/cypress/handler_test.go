package cypress_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/intake"
	"runbell/internal/intake/cypress"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// keep watches deadlines until the test ends.
func keep(t *testing.T, runs *lifecycle.Service) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		runs.Keep(ctx, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() { cancel(); <-done })
}

type answer struct {
	t    testing.TB
	Code int
	Body []byte
}

func (a answer) field(name string) string {
	a.t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.Body, &m); err != nil {
		a.t.Fatalf("answer %s: %v", a.Body, err)
	}
	s, _ := m[name].(string)
	return s
}

func send(t testing.TB, h http.Handler, method, path, body string, headers ...string) answer {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{t, w.Code, w.Body.Bytes()}
}

func start(t testing.TB, h http.Handler, body string) (runID, machineID string) {
	t.Helper()
	a := send(t, h, "POST", "/runs", body)
	if a.Code != http.StatusOK {
		t.Fatalf("POST /runs: %d %s", a.Code, a.Body)
	}
	return a.field("runId"), a.field("machineId")
}

func claim(t testing.TB, h http.Handler, runID, machineID string, headers ...string) answer {
	t.Helper()
	return send(t, h, "POST", "/runs/"+runID+"/instances", fmt.Sprintf(`{"machineId":%q}`, machineID), headers...)
}

// TestBadInput: every invalid request gets a 4xx that says what to do, and changes nothing.
func TestBadInput(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		h, _ := newServer(t, db)
		runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b1","specs":["a.js","b.js"]}`)
		instance := claim(t, h, runID, machineID).field("instanceId")
		before := snapshot(t, db, runID)

		specs := func(n int) string {
			list := make([]string, n)
			for i := range list {
				list[i] = fmt.Sprintf("s%d.js", i)
			}
			b, _ := json.Marshal(list)
			return string(b)
		}
		tests := "[" + strings.TrimSuffix(strings.Repeat(`{"clientId":"r","state":"passed"},`, run.MaxTests+1), ",") + "]"
		for _, c := range []struct {
			name, method, path, body string
			code                     int
			says                     string
		}{
			{"another client's route", "POST", "/runs/v1", `{}`, 404, "There is no call"},
			{"another client's route of an instance", "PUT", "/instances/x/trace", `{}`, 404, "There is no call"},
			{"a Cypress that encrypts", "POST", "/preflight", `{}`, 404, "cypress-cloud"},
			{"no body", "POST", "/runs", ``, 400, "empty"},
			{"not JSON", "POST", "/runs", `specs=a`, 400, "not valid JSON"},
			{"cut short", "POST", "/runs", `{"projectId":"demo","specs":["a`, 400, "cut short"},
			{"two values", "POST", "/runs", `{} {}`, 400, "more text after"},
			{"a list", "POST", "/runs", `[]`, 400, "must not be a JSON array"},
			{"no project", "POST", "/runs", `{"specs":["a"]}`, 400, "projectId is missing"},
			{"project of the wrong form", "POST", "/runs", `{"projectId":"../x","specs":["a"]}`, 400, "projectId"},
			{"project of the wrong type", "POST", "/runs", `{"projectId":{},"specs":["a"]}`, 400, "projectId"},
			{"no specs", "POST", "/runs", `{"projectId":"demo"}`, 422, "specs is empty"},
			{"specs of the wrong type", "POST", "/runs", `{"projectId":"demo","specs":"a"}`, 400, "specs"},
			{"a spec of the wrong type", "POST", "/runs", `{"projectId":"demo","specs":[1]}`, 400, "specs.0"},
			{"an empty spec", "POST", "/runs", `{"projectId":"demo","specs":[""]}`, 422, "path of a spec"},
			{"too many specs", "POST", "/runs", `{"projectId":"demo","specs":` + specs(run.MaxSpecs+1) + `}`, 422, "--group"},
			{"a long group", "POST", "/runs", `{"projectId":"demo","specs":["a"],"group":"` + strings.Repeat("g", 256) + `"}`, 422, "group must have at most"},
			{"a NUL in a name", "POST", "/runs", `{"projectId":"demo","specs":["a"],"ciBuildId":"a\u0000b"}`, 422, "control characters"},
			{"a newline in a spec", "POST", "/runs", `{"projectId":"demo","specs":["a\nb"]}`, 422, "without control characters"},
			{"an escape in a spec", "POST", "/runs", `{"projectId":"demo","specs":["a\u001b[2Jb"]}`, 422, "without control characters"},
			{"an escape beyond ASCII in a spec", "POST", "/runs", `{"projectId":"demo","specs":["a\u009b2Jb"]}`, 422, "without control characters"},
			{"a NUL in a spec", "POST", "/runs", `{"projectId":"demo","specs":["a\u0000b"]}`, 422, "path of a spec"},
			{"too many tags", "POST", "/runs", `{"projectId":"demo","specs":["a"],"tags":` + specs(run.MaxTags+1) + `}`, 422, "tags are too many"},
			{"other specs", "POST", "/runs", `{"projectId":"demo","ciBuildId":"b1","specs":["a.js","c.js"]}`, 422, "Only on this machine: c.js"},
			{"huge run", "POST", "/runs", `{"x":"` + strings.Repeat("x", 16<<20) + `"}`, 413, "--spec"},
			{"unknown run", "POST", "/runs/0000/instances", `{"machineId":"m"}`, 404, "no run"},
			{"a NUL in a run", "POST", "/runs/%00/instances", `{"machineId":"m"}`, 404, "no run"},
			{"unknown machine", "POST", "/runs/" + runID + "/instances", `{"machineId":"m"}`, 404, "POST /runs first"},
			{"a NUL in a machine", "POST", "/runs/" + runID + "/instances", `{"machineId":"\u0000"}`, 404, "POST /runs first"},
			{"no machine", "POST", "/runs/" + runID + "/cy/instances", `{}`, 404, "POST /runs first"},
			{"another group", "POST", "/runs/" + runID + "/instances", `{"machineId":"` + machineID + `","groupId":"x"}`, 422, "has joined group"},
			{"an unknown spec", "POST", "/runs/" + runID + "/instances", `{"machineId":"` + machineID + `","spec":"z.js"}`, 404, "no spec"},
			{"unknown instance, tests", "POST", "/instances/x/tests", `{"tests":[]}`, 404, "no instance"},
			{"unknown instance, results", "POST", "/instances/x/results", `{"tests":[]}`, 404, "no instance"},
			{"unknown instance, stdout", "PUT", "/instances/x/stdout", `{"stdout":""}`, 404, "no instance"},
			{"unknown instance, uploads", "PUT", "/instances/x/artifacts", `{}`, 404, "no instance"},
			{"tests of the wrong type", "POST", "/instances/" + instance + "/tests", `{"tests":{}}`, 400, "tests"},
			{"no results, null", "POST", "/instances/" + instance + "/results", `null`, 400, "must not be null"},
			{"no results, empty", "POST", "/instances/" + instance + "/results", `{}`, 400, "tests is missing"},
			{"no results, something else", "POST", "/instances/" + instance + "/results", `{"foo":1,"tests":null,"exception":null}`, 400, "tests is missing"},
			{"no results, batched", "POST", "/instances/" + instance + "/cy/results", `{"results":{}}`, 400, "tests is missing"},
			{"no tests, null", "POST", "/instances/" + instance + "/tests", `null`, 400, "must not be null"},
			{"no tests, empty", "POST", "/instances/" + instance + "/tests", `{}`, 400, "tests is missing"},
			{"too many tests announced", "POST", "/instances/" + instance + "/tests", `{"tests":` + tests + `}`, 422, "Split the spec"},
			{"too many tests", "POST", "/instances/" + instance + "/results", `{"tests":` + tests + `}`, 422, "Split the spec"},
			{"a test of the wrong type", "POST", "/instances/" + instance + "/results", `{"tests":["r0"]}`, 400, "tests.0"},
			{"results missing", "POST", "/instances/" + instance + "/cy/results", `{"tests":{}}`, 400, "results is missing"},
			{"bad results after good tests", "POST", "/instances/" + instance + "/cy/results", `{"tests":{"tests":[{"clientId":"r0"}]},"results":{"tests":{}}}`, 400, "tests"},
			{"stdout missing", "PUT", "/instances/" + instance + "/stdout", `{}`, 400, "stdout is missing"},
			{"stdout of the wrong type", "PUT", "/instances/" + instance + "/stdout", `{"stdout":[1]}`, 400, "stdout"},
		} {
			a := send(t, h, c.method, c.path, c.body)
			var m struct {
				Message string
				Errors  []string
			}
			if err := json.Unmarshal(a.Body, &m); err != nil || m.Errors == nil {
				t.Errorf("%s: answer %s is not {message, errors[]}", c.name, a.Body)
			}
			if text := m.Message + " " + strings.Join(m.Errors, " "); a.Code != c.code || !strings.Contains(text, c.says) {
				t.Errorf("%s: %d %q; want %d and %q", c.name, a.Code, text, c.code, c.says)
			}
		}
		if after := snapshot(t, db, runID); after != before {
			t.Errorf("bad input changed the run\nbefore: %s\nafter:  %s", before, after)
		}
		// The refused requests do not affect a valid one.
		if a := send(t, h, "POST", "/instances/"+instance+"/results", `{"tests":[{"clientId":"r0","state":"passed","attempts":[]}]}`); a.Code != 200 {
			t.Errorf("good results after bad ones: %d %s", a.Code, a.Body)
		}
	})
}

// snapshot is what a client can change of a run.
func snapshot(t testing.TB, db *store.DB, runID string) string {
	t.Helper()
	var out string
	if err := db.Read(context.Background(), func(tx *store.Tx) error {
		r, err := tx.Run(context.Background(), runID)
		if err != nil {
			return err
		}
		groups, err := tx.Groups(context.Background(), runID)
		if err != nil {
			return err
		}
		for i := range groups {
			groups[i].HeardAt = r.CreatedAt
		}
		instances, err := tx.Instances(context.Background(), runID)
		if err != nil {
			return err
		}
		r.Rev = 0
		out = fmt.Sprintf("%+v %+v", groups, instances)
		for _, i := range instances {
			a, o, err := tx.Tests(context.Background(), i.ID)
			if err != nil {
				return err
			}
			out += fmt.Sprintf("%+v %+v", a, o)
		}
		projects, _, err := tx.Projects(context.Background(), store.Page{Limit: 100})
		out += fmt.Sprint(len(projects))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestResultsBodyLimit: 64 MiB, before and after gzip.
func TestResultsBodyLimit(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b1","specs":["a.js"]}`)
	instance := claim(t, h, runID, machineID).field("instanceId")
	path := "/instances/" + instance + "/results"

	big := `{"tests":[],"x":"` + strings.Repeat("x", 64<<20) + `"}`
	if a := send(t, h, "POST", path, big); a.Code != http.StatusRequestEntityTooLarge || !strings.Contains(string(a.Body), "Split the spec") {
		t.Errorf("a plain body over the limit: %d %.200s", a.Code, a.Body)
	}
	if a := send(t, h, "POST", path, zip(t, big), "Content-Encoding", "gzip"); a.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that gzip makes small: %d %.200s", a.Code, a.Body)
	}
	if a := send(t, h, "POST", path, zip(t, `{"tests":[]}`)[:20], "Content-Encoding", "gzip"); a.Code != http.StatusBadRequest {
		t.Errorf("gzip that is cut short: %d %s", a.Code, a.Body)
	}
	if a := send(t, h, "POST", path, "{}", "Content-Encoding", "br"); a.Code != http.StatusBadRequest || !strings.Contains(string(a.Body), "gzip") {
		t.Errorf("an encoding we do not know: %d %s", a.Code, a.Body)
	}
	if a := send(t, h, "POST", path, zip(t, `{"tests":[{"clientId":"r0","state":"failed","attempts":[{},{}]}]}`), "Content-Encoding", "gzip"); a.Code != http.StatusOK {
		t.Errorf("gzip: %d %s", a.Code, a.Body)
	}
}

// A body that ends before its Content-Length writes nothing.
func TestABodyCutShortOnTheWire(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b1","specs":["a.js"]}`)
	instance := claim(t, h, runID, machineID).field("instanceId")
	r := httptest.NewRequest("POST", "/instances/"+instance+"/results", io.MultiReader(strings.NewReader(`{"tests":[]`), broken{}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest {
		t.Errorf("a broken body: %d %s", w.Code, w.Body)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func zip(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestSecretsAreNotStored: the resolved configuration holds the user's
// environment in three places, remotes hold tokens, CI parameters could.
func TestSecretsAreNotStored(t *testing.T) {
	const secret = "s3cret-do-not-store"
	url := testkit.MigratedFile(t, t.TempDir())
	db := testkit.Open(t, url)
	h, _ := newServer(t, db)
	runID, machineID := start(t, h, `{"projectId":"demo","recordKey":"`+secret+`","ciBuildId":"b1","specs":["a.js"],
		"commit":{"remoteOrigin":"https://x-access-token:`+secret+`@github.com/acme/shop.git","message":"m"},
		"ci":{"provider":"gitlab","params":{"ciJobToken":"`+secret+`","ciPipelineId":"77","ciRepositoryUrl":"https://gitlab-ci-token:`+secret+`@gitlab.test/acme/shop.git"}}}`)
	instance := claim(t, h, runID, machineID).field("instanceId")
	config := `{"env":{"password":"` + secret + `"},"rawJson":{"env":{"password":"` + secret + `"}},"resolved":{"env":{"password":{"value":"` + secret + `"}}},"projectRoot":"/` + secret + `","video":true,"retries":{"runMode":2}}`
	if a := send(t, h, "POST", "/instances/"+instance+"/tests", `{"config":`+config+`,"tests":[{"clientId":"r0","title":["t"]}],"hooks":null}`); a.Code != 200 {
		t.Fatalf("tests: %d %s", a.Code, a.Body)
	}
	if got := snapshot(t, db, runID); strings.Contains(got, secret) {
		t.Errorf("stored: %s", got)
	}
	if err := db.Read(t.Context(), func(tx *store.Tx) error {
		r, err := tx.Run(t.Context(), runID)
		if r.Commit.RemoteOrigin != "https://github.com/acme/shop.git" || r.CI.Params["ciPipelineId"] != "77" || len(r.CI.Params) != 2 {
			t.Errorf("stored commit %+v and CI %+v", r.Commit, r.CI)
		}
		instances, errInstances := tx.Instances(t.Context(), runID)
		a, errTests := tx.Announcement(t.Context(), instances[0].ID)
		if s := a.Settings; s.Video == nil || !*s.Video || s.VideoUploadOnPasses != nil || s.Retries != 2 {
			t.Errorf("stored settings %+v", s)
		}
		return errors.Join(err, errInstances, errTests)
	}); err != nil {
		t.Fatal(err)
	}
	assertNoFileHas(t, strings.TrimPrefix(url, "sqlite:"), secret)
}

// TestNativeCypress: its own record mode up to 12.5 sends the same with a few
// more headers, its tests before the spec runs, and hooks of another form.
func TestNativeCypress(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		h, runs := newServer(t, db)
		headers := []string{"x-os-name", "linux", "x-cypress-version", "12.5.1", "x-cypress-request-attempt", "0", "x-route-version", "4"}
		body := `{"projectId":"demo","recordKey":"k","ciBuildId":"b1","group":null,"parallel":false,"specs":["a.js","b.js"],"specPattern":"**","tags":[""],
			"autoCancelAfterFailures":null,"ci":{"params":null,"provider":null},"platform":{"osName":"linux","browserName":"Electron"},
			"commit":{"sha":null,"branch":null,"authorName":null,"authorEmail":null,"message":null,"remoteOrigin":null,"defaultBranch":null},
			"runnerCapabilities":{"dynamicSpecsInSerialMode":true,"skipSpecAction":true},"testingType":"e2e"}`
		a := send(t, h, "POST", "/runs", body, headers...)
		for _, key := range []string{"runId", "groupId", "machineId", "runUrl"} {
			if a.field(key) == "" {
				t.Fatalf("POST /runs answers no %s: %s", key, a.Body)
			}
		}
		runID, machineID := a.field("runId"), a.field("machineId")
		if !strings.Contains(string(a.Body), `"tags":[]`) {
			t.Errorf("one empty tag is none: %s", a.Body)
		}
		// In serial mode the client says which spec it wants.
		c := send(t, h, "POST", "/runs/"+runID+"/instances", `{"spec":"b.js","groupId":"b1","machineId":"`+machineID+`"}`, headers...)
		if c.field("spec") != "b.js" {
			t.Fatalf("a claim for b.js: %s", c.Body)
		}
		instance := c.field("instanceId")
		again := send(t, h, "POST", "/runs/"+runID+"/instances", `{"spec":"b.js","groupId":"b1","machineId":"`+machineID+`"}`, headers...)
		if again.field("instanceId") != instance {
			t.Errorf("the same spec again: %s", again.Body)
		}
		tests := `{"config":{},"tests":[{"clientId":"r3","title":["x","y"],"body":"","config":null,"hookIds":["h1"]}],"hooks":[{"clientId":"h1","type":"before each","title":["t"],"body":""}]}`
		if a := send(t, h, "POST", "/instances/"+instance+"/tests", tests, headers...); a.Code != 200 || strings.Contains(string(a.Body), "SKIP") {
			t.Errorf("tests: %d %s", a.Code, a.Body)
		}
		if _, err := runs.Cancel(t.Context(), runID, "jane", ""); err != nil {
			t.Fatal(err)
		}
		if a := send(t, h, "POST", "/instances/"+instance+"/tests", tests, headers...); !strings.Contains(string(a.Body), `"actions":[{"type":"SPEC","action":"SKIP"}]`) {
			t.Errorf("tests of a canceled run: %s", a.Body)
		}
		results := `{"stats":{"tests":1},"tests":[{"clientId":"r3","state":"passed","attempts":[{"state":"passed","error":null,"timings":null,"wallClockDuration":null,"wallClockStartedAt":null,"videoTimestamp":null}]}],
			"exception":null,"video":false,"screenshots":[],"reporterStats":{},"metadata":{"studioCreated":0}}`
		if a := send(t, h, "POST", "/instances/"+instance+"/results", results, headers...); a.Code != 200 || !strings.Contains(string(a.Body), `"screenshotUploadUrls":[]`) {
			t.Errorf("results: %d %s", a.Code, a.Body)
		}
	})
}

// TestRecordKeys: a run needs the key of its project.
func TestRecordKeys(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		for _, id := range []string{"demo", "other"} {
			testkit.Project(t, db, id)
		}
		keys := auth.New(db, auth.KeysOnly)
		stored, key, err := keys.CreateRecordKey(t.Context(), "demo", "ci")
		if err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		cypress.Routes(mux, intake.Options{Bodies: body.NewPools(), Runs: lifecycle.New(db, "http://runbell.test", func(...string) {}), Keys: keys, Reporters: auth.NewReporters(make([]byte, 32)), Log: slog.New(slog.DiscardHandler)})
		for _, c := range []struct {
			project, key string
			code         int
		}{
			{"demo", key, 200}, {"demo", key + "x", 401}, {"demo", "", 401}, {"other", key, 401}, {"nobody", key, 401}, {"demo", stored.Hash, 401},
			{"demo", strings.Repeat("k", 10_000), 401},
		} {
			a := send(t, mux, "POST", "/runs", fmt.Sprintf(`{"projectId":%q,"recordKey":%q,"ciBuildId":"b","specs":["a"]}`, c.project, c.key))
			if a.Code != c.code {
				t.Errorf("project %s with key %.20q: %d %s, want %d", c.project, c.key, a.Code, a.Body, c.code)
			}
		}
	})
}

// TestPublicIDsReportNothing: the ids that readers see, and the name that a client
// chose for its machine, are no credentials.
func TestPublicIDsReportNothing(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		h, _ := newServer(t, db)
		runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b1","specs":["a.js","b.js"],"providedMachineId":"machine-1"}`)
		credential := claim(t, h, runID, machineID).field("instanceId")
		before := snapshot(t, db, runID)
		var seen run.Instance
		if err := db.Read(t.Context(), func(tx *store.Tx) error {
			list, err := tx.Instances(t.Context(), runID)
			for _, i := range list {
				if i.MachineID != "" {
					seen = i
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if seen.MachineID != "machine-1" || seen.ID == "" || seen.ID == credential {
			t.Fatalf("readers see instance %q of machine %q; the reporter got %q", seen.ID, seen.MachineID, credential)
		}
		for path, body := range map[string]string{
			"POST /runs/" + runID + "/instances":         `{"machineId":"` + seen.MachineID + `"}`,
			"POST /runs/" + runID + "/cy/instances":      `{"machineId":"` + seen.MachineID + `","batchSize":2}`,
			"POST /instances/" + seen.ID + "/tests":      `{"tests":[]}`,
			"POST /instances/" + seen.ID + "/results":    `{"tests":[]}`,
			"POST /instances/" + seen.ID + "/cy/results": `{"results":{"tests":[]}}`,
			"PUT /instances/" + seen.ID + "/stdout":      `{"stdout":"x"}`,
		} {
			method, path, _ := strings.Cut(path, " ")
			if a := send(t, h, method, path, body); a.Code != 404 {
				t.Errorf("%s %s with public ids: %d %s", method, path, a.Code, a.Body)
			}
		}
		if after := snapshot(t, db, runID); after != before {
			t.Errorf("public ids changed the run from %s to %s", before, after)
		}
		if a := send(t, h, "POST", "/instances/"+credential+"/results", `{"tests":[]}`); a.Code != 200 {
			t.Errorf("the reporter itself: %d %s", a.Code, a.Body)
		}
	})
}

// TestAMachineThatNamesItself may join again, but not a group that is over, nor with other specs.
func TestAMachineThatNamesItself(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		h, _ := newServer(t, db)
		body := `{"projectId":"demo","ciBuildId":"b1","specs":["a.js"],"providedMachineId":"m-7"}`
		runID, machineID := start(t, h, body)
		if _, again := start(t, h, body); again != machineID {
			t.Errorf("the machine is called %q and %q", machineID, again)
		}
		if a := claim(t, h, runID, "m-7"); a.Code != 404 {
			t.Errorf("a claim with the name that the client chose: %d %s", a.Code, a.Body)
		}
		if a := send(t, h, "POST", "/runs", strings.Replace(body, "a.js", "z.js", 1)); a.Code != 422 || a.field("code") != "PARALLEL_GROUP_PARAMS_MISMATCH" {
			t.Errorf("the same machine with other specs: %d %s", a.Code, a.Body)
		}
		instance := claim(t, h, runID, machineID).field("instanceId")
		if a := send(t, h, "POST", "/instances/"+instance+"/results", `{"tests":[{"clientId":"r0","state":"failed"}]}`); a.Code != 200 {
			t.Fatalf("results: %d %s", a.Code, a.Body)
		}
		if a := send(t, h, "POST", "/runs", body); a.Code != 422 || a.field("code") != "ALREADY_COMPLETE" {
			t.Errorf("the same machine in a run that is over: %d %s", a.Code, a.Body)
		}
		if a := send(t, h, "POST", "/runs", body, "x-cypress-request-attempt", "1"); a.Code != 200 {
			t.Errorf("a late retry of its join: %d %s", a.Code, a.Body)
		}
	})
}

// A machine that died and joins again with its id gets its unreported specs, and later reports from before the
// restart are refused.
func TestAMachineThatComesBack(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		h, _ := newServer(t, db)
		body := `{"projectId":"demo","ciBuildId":"b1","specs":["a.js","b.js","c.js"],"providedMachineId":"m-7"}`
		passed := `{"tests":[{"clientId":"r0","state":"passed"}]}`
		runID, machineID := start(t, h, body)
		first, lost := claim(t, h, runID, machineID), claim(t, h, runID, machineID)
		if a := send(t, h, "POST", "/instances/"+first.field("instanceId")+"/results", passed); a.Code != 200 {
			t.Fatalf("results: %d %s", a.Code, a.Body)
		}
		send(t, h, "POST", "/instances/"+lost.field("instanceId")+"/tests", `{"tests":[{"clientId":"r0"},{"clientId":"r1"}]}`)
		start(t, h, body)
		if a := send(t, h, "POST", "/instances/"+lost.field("instanceId")+"/results", passed); a.Code != 404 {
			t.Errorf("results of the first life: %d %s; want 404", a.Code, a.Body)
		}
		var again []string
		for c := claim(t, h, runID, machineID); c.field("spec") != ""; c = claim(t, h, runID, machineID) {
			again = append(again, c.field("spec"))
			send(t, h, "POST", "/instances/"+c.field("instanceId")+"/results", passed)
		}
		slices.Sort(again)
		g, warnings := groupAndWarnings(t, db, runID)
		if !strings.Contains(fmt.Sprint(warnings), "before it had reported 1 of its specs") {
			t.Errorf("warnings: %v", warnings)
		}
		if want := (run.Counts{Passes: 3}); g.State != run.Finished || g.Counts != want || !slices.Equal(again, []string{"b.js", "c.js"}) {
			t.Errorf("after %v the group is %s with %+v", again, g.State, g.Counts)
		}
	})
}

// TestBuildIDs: derived from CI, otherwise a run of its own, and a retry finds it.
func TestBuildIDs(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	github := `{"projectId":"demo","specs":["a"],"ci":{"provider":"githubActions","params":{"githubRepository":"acme/shop","githubRunId":"4242","githubRunAttempt":"%s"}},"parallel":true}`
	first := send(t, h, "POST", "/runs", fmt.Sprintf(github, "1"))
	if first.field("groupId") != "acme/shop-4242-1" {
		t.Errorf("GitHub Actions: %s", first.Body)
	}
	if a := send(t, h, "POST", "/runs", fmt.Sprintf(github, "1")); a.field("runId") != first.field("runId") {
		t.Error("a second machine of the same attempt is in another run")
	}
	if a := send(t, h, "POST", "/runs", fmt.Sprintf(github, "2")); a.field("runId") == first.field("runId") {
		t.Error("a second attempt is in the first one's run")
	}
	if a := send(t, h, "POST", "/runs", `{"projectId":"demo","specs":["a"],"ci":{"provider":"githubActions","params":{"githubRepository":"acme/shop","githubRunId":6812345678,"githubRunAttempt":1}}}`); a.field("groupId") != "acme/shop-6812345678-1" {
		t.Errorf("numbers: %s", a.Body)
	}
	for _, long := range []string{strings.Repeat("x", 6000), `o/r\n\u0007`} {
		if a := send(t, h, "POST", "/runs", `{"projectId":"demo","specs":["a"],"ci":{"provider":"gitlab","params":{"ciPipelineId":"`+long+`"}}}`); len(a.field("groupId")) != 16 {
			t.Errorf("a pipeline id that cannot be a name: %.200s", a.Body)
		}
	}
	unknown := `{"projectId":"demo","specs":["a"],"ci":{"provider":null,"params":{}}}`
	one := send(t, h, "POST", "/runs", unknown)
	if a := send(t, h, "POST", "/runs", unknown); a.field("runId") == one.field("runId") {
		t.Error("two builds without a name became one run")
	}
	retried := `{"projectId":"demo","specs":["a","b"],"ci":{"provider":null,"params":{}}}`
	one = send(t, h, "POST", "/runs", retried, "x-cypress-request-attempt", "0")
	if a := send(t, h, "POST", "/runs", retried, "x-cypress-request-attempt", "1"); a.field("runId") != one.field("runId") || a.field("machineId") != one.field("machineId") {
		t.Errorf("a retry started another run or machine: %s, first %s", a.Body, one.Body)
	}
}

func assertNoFileHas(t *testing.T, db, secret string) {
	t.Helper()
	for _, path := range []string{db, db + "-wal"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s holds the secret", path)
		}
	}
}

// TestManyLargeBodies: many clients may send large bodies at the same time.
func TestManyLargeBodies(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b1","specs":["a.js"]}`)
	instance := claim(t, h, runID, machineID).field("instanceId")
	large := zip(t, `{"stdout":"`+strings.Repeat("x", 2<<20)+`"}`)
	var clients sync.WaitGroup
	for range 6 {
		clients.Go(func() {
			if a := send(t, h, "PUT", "/instances/"+instance+"/stdout", large, "Content-Encoding", "gzip"); a.Code != http.StatusOK {
				t.Errorf("a large body: %d %s", a.Code, a.Body)
			}
		})
	}
	clients.Wait()
}

// TestUploads: what a client may upload, and its report when it is done.
func TestUploads(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b1","specs":["a.js"]}`)
	instance := claim(t, h, runID, machineID).field("instanceId")
	public, _, _ := strings.Cut(instance, ".")
	shots := strings.TrimSuffix(strings.Repeat(`{"screenshotId":"s1","testId":"r0"},`, run.MaxScreenshots+1), ",")
	results := `{"tests":[{"clientId":"r0","state":"failed"}],"video":true,"hasCoverage":true,"screenshots":[` + shots + `]}`
	var first map[string]json.RawMessage
	for range 2 { // the same addresses again
		a := send(t, h, "POST", "/instances/"+instance+"/results", results)
		var got struct {
			ScreenshotUploadURLs []struct{ ScreenshotID, UploadURL, ReadURL string }
			VideoUploadURL       string
			CoverageUploadURL    string
		}
		if err := json.Unmarshal(a.Body, &got); err != nil || len(got.ScreenshotUploadURLs) != run.MaxScreenshots {
			t.Fatalf("%d screenshots, %v", len(got.ScreenshotUploadURLs), err)
		}
		for address, id := range map[string]string{
			got.ScreenshotUploadURLs[0].UploadURL: run.ArtifactID(public, run.ScreenshotArtifact, "s1"),
			got.VideoUploadURL:                    run.ArtifactID(public, run.VideoArtifact, ""), got.CoverageUploadURL: run.ArtifactID(public, run.CoverageArtifact, ""),
		} {
			if !strings.HasPrefix(address, "http://runbell.test/files/"+id+"?") {
				t.Errorf("the address is %s", address)
			}
		}
		if got.ScreenshotUploadURLs[0].ScreenshotID != "s1" || strings.Contains(got.ScreenshotUploadURLs[0].ReadURL, "signature") {
			t.Errorf("%+v", got.ScreenshotUploadURLs[0])
		}
		if err := json.Unmarshal(a.Body, &first); err != nil {
			t.Fatal(err)
		}
	}
	told := `{"screenshots":[{"url":"http://elsewhere.test/","success":false,"error":"x"},{"url":7},null],"video":{"url":` + string(first["videoUploadUrl"]) + `,"success":false,"error":"socket hang up","fileSize":7}}`
	if a := send(t, h, "PUT", "/instances/"+instance+"/artifacts", told); a.Code != 200 {
		t.Errorf("uploads: %d %s", a.Code, a.Body)
	}
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		list, err := tx.RunArtifacts(ctx, runID)
		if len(list) != 1 || list[0].ID != run.ArtifactID(public, run.VideoArtifact, "") || !strings.HasSuffix(list[0].Problem, "socket hang up") {
			t.Errorf("artifacts: %+v", list)
		}
		return err
	})
}
