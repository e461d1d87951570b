package recorder

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The same spec as Cypress 10, 12 and 13 declare its results: what is known of
// it arrives, and what is not known is not made up.
func TestResultsOfEachVersion(t *testing.T) {
	stats := `"stats":{"suites":1,"tests":2,"passes":1,"pending":0,"skipped":0,"failures":1,"startedAt":"2026-01-02T03:04:05.000Z","endedAt":"2026-01-02T03:04:06.000Z","duration":1000}`
	detailed := func(started, duration string) string {
		return `{"status":"finished","totalFailed":1,"runs":[{` + stats + `,"reporter":"spec","reporterStats":{},"hooks":[{"hookName":"before each","title":["\"before each\" hook"],"body":"() => {}"}],
			"tests":[{"title":["a","passes"],"state":"passed","body":"() => {}","displayError":null,"attempts":[
				{"state":"failed","error":{"name":"E","message":"m","stack":"s"},"` + started + `":"2026-01-02T03:04:05.000Z","` + duration + `":7,"videoTimestamp":1,"screenshots":[{"name":null,"takenAt":"2026-01-02T03:04:05.000Z","path":"/p.png","height":1,"width":2}]},
				{"state":"passed","error":null,"` + started + `":"2026-01-02T03:04:05.500Z","` + duration + `":3,"videoTimestamp":2,"screenshots":[]}]},
				{"title":["a","fails"],"state":"failed","body":"","displayError":"E: m","attempts":[{"state":"failed","error":null,"` + started + `":"2026-01-02T03:04:05.600Z","` + duration + `":4}]}],
			"error":null,"video":"/v.mp4","spec":{"name":"a.cy.js","relative":"cypress/e2e/a.cy.js","absolute":"/p/cypress/e2e/a.cy.js"},"shouldUploadVideo":true}],"config":{"env":{"secret":"x"}}}`
	}
	from13 := `{"totalFailed":1,"runs":[{` + stats + `,"reporter":"spec","reporterStats":{},"error":null,"video":"/v.mp4","screenshots":[{"name":null,"takenAt":"2026-01-02T03:04:05.000Z","path":"/p.png","height":1,"width":2}],
			"spec":{"relative":"cypress\\e2e\\a.cy.js","absolute":"C:\\p\\cypress\\e2e\\a.cy.js","fileExtension":".js","fileName":"a","name":"a.cy.js"},
			"tests":[{"title":["a","passes"],"state":"passed","displayError":null,"duration":10,"attempts":[{"state":"failed"},{"state":"passed"}]},
				{"title":["a","fails"],"state":"failed","displayError":"E: m","duration":4,"attempts":[{"state":"failed"}]}]}]}`

	at := func(s string) *string { return &s }
	failed := wireResult{ClientID: "r2", State: "failed", DisplayError: at("E: m")}
	for name, c := range map[string]struct {
		result string
		tests  []wireResult
		shot   wireScreenshot
		hooks  int
	}{
		"10": {result: detailed("startedAt", "duration"), hooks: 1, shot: wireScreenshot{TestID: "r1", TakenAt: "2026-01-02T03:04:05.000Z", Height: 1, Width: 2}},
		"12": {result: detailed("wallClockStartedAt", "wallClockDuration"), hooks: 1, shot: wireScreenshot{TestID: "r1", TakenAt: "2026-01-02T03:04:05.000Z", Height: 1, Width: 2}},
		"13": {result: from13, shot: wireScreenshot{TakenAt: "2026-01-02T03:04:05.000Z", Height: 1, Width: 2}, tests: []wireResult{
			{ClientID: "r1", State: "passed", Duration: 10, Attempts: []wireAttempt{{State: "failed"}, {State: "passed"}}},
			func() wireResult {
				r := failed
				r.Duration, r.Attempts = 4, []wireAttempt{{State: "failed"}}
				return r
			}(),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.tests == nil {
				last := failed
				last.Attempts = []wireAttempt{{State: "failed", WallClockStartedAt: at("2026-01-02T03:04:05.600Z"), WallClockDuration: 4}}
				c.tests = []wireResult{{ClientID: "r1", State: "passed", Attempts: []wireAttempt{
					{State: "failed", Error: &wireError{Name: "E", Message: "m", Stack: "s"}, WallClockStartedAt: at("2026-01-02T03:04:05.000Z"), WallClockDuration: 7, VideoTimestamp: 1},
					{State: "passed", WallClockStartedAt: at("2026-01-02T03:04:05.500Z"), WallClockDuration: 3, VideoTimestamp: 2}}}, last}
			}
			var m moduleResult
			if err := json.Unmarshal([]byte(c.result), &m); err != nil {
				t.Fatal(err)
			}
			run, ok := m.of("cypress/e2e/a.cy.js")
			if !ok {
				t.Fatal("the spec is not found")
			}
			r, counts := newReport(run)
			if diff := cmp.Diff(c.tests, r.Results.Tests); diff != "" {
				t.Errorf("tests (-want +got):\n%s", diff)
			}
			if want := (tally{passed: 1, failed: 1, flaky: 1}); counts != want {
				t.Errorf("counts %+v, want %+v", counts, want)
			}
			if len(r.Tests.Hooks) != c.hooks || len(r.Tests.Tests) != 2 || r.Tests.Tests[0].Title[1] != "passes" || r.Results.Stats.WallClockDuration != 1000 {
				t.Errorf("announced %+v, %+v", r.Tests, r.Results.Stats)
			}
			if len(r.Results.Screenshots) != 1 || r.Screenshots[r.Results.Screenshots[0].ScreenshotID] != "/p.png" || r.Video != "/v.mp4" || !r.Results.Video {
				t.Fatalf("artifacts %+v, %+v", r.Screenshots, r.Results.Screenshots)
			}
			c.shot.ScreenshotID = r.Results.Screenshots[0].ScreenshotID
			if diff := cmp.Diff(c.shot, r.Results.Screenshots[0]); diff != "" {
				t.Errorf("screenshot (-want +got):\n%s", diff)
			}
		})
	}
}

// A compile error has no tests before 13 (null) and none from then on; what
// Cypress could not run at all has only a message. Each is one failure.
func TestResultsWithoutTests(t *testing.T) {
	for name, text := range map[string]string{
		"until 12": `{"error":"it does not compile","tests":null,"hooks":null,"video":null,"spec":{"relative":"a"},"stats":{"failures":1}}`,
		"from 13":  `{"error":"it does not compile","tests":[],"video":null,"screenshots":[],"spec":{"relative":"a"},"stats":{"failures":1}}`,
	} {
		var r runResult
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		rep, counts := newReport(r)
		if counts != (tally{failed: 1}) || rep.Results.Exception == nil || *rep.Results.Exception != "it does not compile" || rep.Results.Tests == nil {
			t.Errorf("%s: %+v %+v", name, counts, rep.Results)
		}
	}
	rep, counts := failedReport("no binary")
	if counts != (tally{failed: 1}) || *rep.Results.Exception != "no binary" {
		t.Errorf("%+v %+v", counts, rep.Results)
	}
}

// TestLongTexts: what a test has written has no end, and a body has.
func TestLongTexts(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	var r runResult
	err := json.Unmarshal([]byte(`{"error":"`+long+`","tests":[{"body":"`+long+`","displayError":"`+long+`","attempts":[{"error":{"message":"`+long+`","stack":"é"}}]}]}`), &r)
	if err != nil {
		t.Fatal(err)
	}
	rep, _ := newReport(r)
	body, err := json.Marshal(rep)
	if err != nil || len(body) > 5*maxText {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if e := rep.Results.Tests[0].Attempts[0].Error; !strings.HasPrefix(long, e.Message[:maxText]) || !strings.HasSuffix(e.Message, "bytes left out]") || e.Stack != "é" {
		t.Errorf("%.20q … %q, %q", e.Message, e.Message[maxText-10:], e.Stack)
	}
}
