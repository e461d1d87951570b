package cypress_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// reported plays a run with one spec that reports these results, and returns the
// group and the warnings of the run.
func reported(t *testing.T, results string) (run.Group, []run.Warning) {
	t.Helper()
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b","specs":["a.js"]}`)
	instance := claim(t, h, runID, machineID).field("instanceId")
	if a := send(t, h, "POST", "/instances/"+instance+"/results", results); a.Code != 200 {
		t.Fatalf("results: %d %s", a.Code, a.Body)
	}
	return groupAndWarnings(t, db, runID)
}

func groupAndWarnings(t *testing.T, db *store.DB, runID string) (g run.Group, warnings []run.Warning) {
	t.Helper()
	err := db.Read(t.Context(), func(tx *store.Tx) error {
		groups, err := tx.Groups(t.Context(), runID)
		if err != nil {
			return err
		}
		g = groups[0]
		warnings, err = tx.Warnings(t.Context(), runID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return g, warnings
}

func TestOddResultsAreCorrected(t *testing.T) {
	for name, c := range map[string]struct {
		results  string
		want     run.Counts
		warnings int
	}{
		"a browser that crashed": {`{"stats":{"tests":4},"exception":"The browser crashed","tests":[
			{"clientId":"r1","state":"passed","attempts":[{"state":"passed"}]},
			{"clientId":"r2","state":"processing","attempts":[]},
			{"clientId":"r3","state":null,"attempts":null},
			{"clientId":"r4","state":"active"}]}`, run.Counts{Passes: 1, Failures: 1, Skipped: 2}, 3},
		"no end and no exception": {`{"tests":[{"clientId":"r1","state":"processing"},{"clientId":"r2"}]}`, run.Counts{Failures: 2}, 2},
		"an exception after all tests passed": {`{"exception":"It broke at the end","tests":[{"clientId":"r1","state":"passed"}]}`,
			run.Counts{Passes: 1, Failures: 1}, 0},
		"an exception and no tests": {`{"exception":"It does not compile","tests":null,"stats":{}}`, run.Counts{Failures: 1}, 0},
		"an exception that is an object": {`{"stats":{},"exception":{"message":"It broke","stack":"at x"},"tests":[{"clientId":"r1","state":"passed"}]}`,
			run.Counts{Passes: 1, Failures: 1}, 0},
		"an exception that is a list":  {`{"stats":{},"exception":["a"],"tests":[{"clientId":"r1","state":"passed"}]}`, run.Counts{Passes: 1, Failures: 1}, 0},
		"an exception that is true":    {`{"stats":{},"exception":true,"tests":[{"clientId":"r1","state":"passed"}]}`, run.Counts{Passes: 1, Failures: 1}, 0},
		"no exception":                 {`{"stats":{},"exception":false,"tests":[{"clientId":"r1","state":"passed"}]}`, run.Counts{Passes: 1}, 0},
		"failures without tests":       {`{"stats":{"tests":3,"failures":3},"tests":null}`, run.Counts{Failures: 1}, 0},
		"failures beside passed tests": {`{"stats":{"failures":1},"tests":[{"clientId":"r1","state":"passed"}]}`, run.Counts{Passes: 1, Failures: 1}, 0},
		"failures that were reported":  {`{"stats":{"failures":7},"tests":[{"clientId":"r1","state":"failed"}]}`, run.Counts{Failures: 1}, 0},
		"fields of other types": {`{"stats":"none","exception":null,"video":"yes","screenshots":{"a":1},"tests":[
			{"clientId":7,"state":"failed","displayError":{"a":1},"duration":"12","attempts":[null,"x",
				{"state":"failed","error":"only a text","wallClockDuration":"5","videoTimestamp":null,"wallClockStartedAt":5},
				{"state":"failed","error":{"message":["a"],"codeFrame":"none","stack":3},"failedFromHookId":{}}]}]}`, run.Counts{Failures: 1, Retries: 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g, warnings := reported(t, c.results)
			if diff := cmp.Diff(c.want, g.Counts); diff != "" || g.State != run.Finished {
				t.Errorf("the group is %s (-want +got):\n%s", g.State, diff)
			}
			if len(warnings) != c.warnings {
				t.Errorf("the warnings are %+v, want %d", warnings, c.warnings)
			}
		})
	}
}

// Tests that were announced before the spec ran and have no results did not pass.
func TestAnnouncedTestsWithoutResults(t *testing.T) {
	for name, c := range map[string]struct {
		results string
		want    run.Counts
	}{
		"one is left out": {`{"tests":[{"clientId":"r1","state":"passed"},{"clientId":"r3","state":"passed"}]}`, run.Counts{Passes: 2, Failures: 1}},
		"a crash":         {`{"exception":"It crashed","tests":[{"clientId":"r1","state":"passed"}]}`, run.Counts{Passes: 1, Failures: 1, Skipped: 1}},
		"a crash in one":  {`{"exception":"It crashed","tests":[{"clientId":"r1","state":"passed"},{"clientId":"r2","state":"active"}]}`, run.Counts{Passes: 1, Failures: 1, Skipped: 1}},
		"none at all":     {`{"tests":[]}`, run.Counts{Failures: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.OnEach(t, func(t *testing.T, db *store.DB) {
				h, _ := newServer(t, db)
				runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b","specs":["a.js"]}`)
				instance := "/instances/" + claim(t, h, runID, machineID).field("instanceId")
				if a := send(t, h, "POST", instance+"/tests", `{"tests":[{"clientId":"r1","title":["1"]},{"clientId":"r2","title":["2"]},{"clientId":"r3","title":["3"]}]}`); a.Code != 200 {
					t.Fatalf("tests: %d %s", a.Code, a.Body)
				}
				if a := send(t, h, "POST", instance+"/results", c.results); a.Code != 200 {
					t.Fatalf("results: %d %s", a.Code, a.Body)
				}
				g, warnings := groupAndWarnings(t, db, runID)
				if diff := cmp.Diff(c.want, g.Counts); diff != "" || len(warnings) == 0 {
					t.Errorf("%+v (-want +got):\n%s", warnings, diff)
				}
			})
		})
	}
}

// A POST /runs with odd values starts a run all the same.
func TestAnOddJoinIsCorrected(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	a := send(t, h, "POST", "/runs", `{"projectId":"demo","ciBuildId":12,"specs":["a.js"],"tags":["x",null,7,{"a":1}],"commit":"none","ci":[1],
		"platform":null,"autoCancelAfterFailures":"soon","parallel":"yes","group":null}`)
	var answer struct {
		RunID    string
		Tags     []string
		Warnings []struct{ Message, Code string }
	}
	if err := json.Unmarshal(a.Body, &answer); err != nil || a.Code != 200 {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	if !slices.Equal(answer.Tags, []string{"x", "7"}) || len(answer.Warnings) != 1 || answer.Warnings[0].Code != run.WarnMended {
		t.Errorf("the answer is %+v", answer)
	}
	if _, warnings := groupAndWarnings(t, db, answer.RunID); len(warnings) != 1 || !strings.Contains(warnings[0].Message, "autoCancelAfterFailures") {
		t.Errorf("the warnings of the run are %+v", warnings)
	}
}

// What a shell did not replace names every build, and would merge them.
func TestABuildIDThatIsAVariable(t *testing.T) {
	h, _ := newServer(t, testkit.SQLite(t))
	join := func(id, run string) answer {
		t.Helper()
		a := send(t, h, "POST", "/runs", `{"projectId":"demo","ciBuildId":"`+id+`","specs":["a.js"],"ci":{"provider":"githubActions",
			"params":{"githubRepository":"acme/shop","githubRunId":"`+run+`"}}}`)
		if a.Code != 200 {
			t.Fatalf("%s: %d %s", id, a.Code, a.Body)
		}
		return a
	}
	for n, id := range []string{"$BUILD_ID", "${BUILD}", "${{ github.run_id }}", "%BUILD_ID%", "$CI_PIPELINE_ID-1", "undefined", "null"} {
		one, two := join(id, fmt.Sprint(2*n)), join(id, fmt.Sprint(2*n+1))
		if one.field("runId") == two.field("runId") || !strings.Contains(string(one.Body), run.WarnMended) {
			t.Errorf("%s: two builds are one run, or there is no warning: %s", id, one.Body)
		}
	}
	for _, id := range []string{"price-5$", "100%", "undefined-1", "a$1", "nightly-%C3%A4pfel-7", "PR$feature-7"} {
		if a := join(id, "9"); strings.Contains(string(a.Body), run.WarnMended) {
			t.Errorf("%s: %s", id, a.Body)
		}
	}
}

// A group that comes after the completion delay is told about the delay, a second attempt
// of the group that ended is not.
func TestAGroupThatComesTooLate(t *testing.T) {
	h, _ := newServer(t, testkit.SQLite(t))
	body := `{"projectId":"demo","ciBuildId":"b1","specs":["a.js"]}`
	runID, machineID := start(t, h, body)
	instance := claim(t, h, runID, machineID).field("instanceId")
	if a := send(t, h, "POST", "/instances/"+instance+"/results", `{"tests":[{"clientId":"r1","state":"passed"}]}`); a.Code != 200 {
		t.Fatalf("results: %d %s", a.Code, a.Body)
	}
	for body, told := range map[string]bool{body: false, strings.Replace(body, `"specs"`, `"group":"firefox","specs"`, 1): true} {
		a := send(t, h, "POST", "/runs", body)
		if a.Code != 422 || a.field("code") != "ALREADY_COMPLETE" || strings.Contains(string(a.Body), "completion delay") != told {
			t.Errorf("%s: %d %s", body, a.Code, a.Body)
		}
	}
}

func TestSpaceAroundNames(t *testing.T) {
	h, _ := newServer(t, testkit.SQLite(t))
	runID, _ := start(t, h, `{"projectId":" demo\r\n","ciBuildId":"b1","group":"chrome","parallel":true,"specs":["a.js"]}`)
	if again, _ := start(t, h, `{"projectId":"demo","ciBuildId":" b1\n","group":"chrome ","parallel":true,"specs":["a.js"]}`); again != runID {
		t.Errorf("space made another run")
	}
}

func TestMachinesThatDisagree(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	jenkins := func(branch, url string) answer {
		return send(t, h, "POST", "/runs", `{"projectId":"demo","specs":["a","b"],"parallel":true,"commit":{"sha":"s-`+branch+`","branch":"`+branch+`"},
			"ci":{"provider":"jenkins","params":{"buildNumber":"12","buildUrl":"`+url+`"}}}`)
	}
	a, b := jenkins("main", ""), jenkins("next", "")
	if a.field("runId") == b.field("runId") {
		t.Error("two branches with one build number are one run")
	}
	if again := jenkins("main", ""); again.field("runId") != a.field("runId") {
		t.Errorf("the second machine of a branch is in another run: %s", again.Body)
	}
	const url = "https://ci.test/job/shop/12/"
	a, b = jenkins("main", url), jenkins("next", url)
	c := jenkins("next", url)
	if a.field("runId") == b.field("runId") || b.field("runId") != c.field("runId") {
		t.Errorf("with one derived id, the runs of main, next, next are %s, %s, %s", a.field("runId"), b.field("runId"), c.field("runId"))
	}

	named := func(branch string) answer {
		return send(t, h, "POST", "/runs", `{"projectId":"demo","ciBuildId":"b1","specs":["a","b"],"parallel":true,"commit":{"branch":"`+branch+`"}}`)
	}
	a, b = named("main"), named("next")
	if a.field("runId") != b.field("runId") || !strings.Contains(string(b.Body), run.WarnDisagree) || strings.Contains(string(a.Body), run.WarnDisagree) {
		t.Errorf("the client's own id: %s, then %s", a.Body, b.Body)
	}
	if _, warnings := groupAndWarnings(t, db, a.field("runId")); len(warnings) != 1 || warnings[0].Code != run.WarnDisagree {
		t.Errorf("the warnings of the run are %+v", warnings)
	}
	if third := named("origin/main"); strings.Contains(string(third.Body), run.WarnDisagree) {
		t.Errorf("origin/main is not main: %s", third.Body)
	}
}

func TestPlatformsOfAGroup(t *testing.T) {
	h, _ := newServer(t, testkit.SQLite(t))
	join := func(platform string) answer {
		return send(t, h, "POST", "/runs", `{"projectId":"demo","ciBuildId":"b1","specs":["a"],"parallel":true,"platform":{`+platform+`}}`)
	}
	for _, c := range []struct {
		platform string
		code     int
		says     string
	}{
		{`"osName":"linux","osVersion":"Debian - 12.1","browserName":"Chrome","browserVersion":"120.0.1"`, 200, `"warnings":[]`},
		{`"osName":"linux","osVersion":"Debian - 12.1","browserName":"Firefox","browserVersion":"120.0.1"`, 422, "browser"},
		{`"osName":"darwin","osVersion":"22","browserName":"Chrome","browserVersion":"120.0.1"`, 422, "operating system"},
		{`"osName":"linux","osVersion":"Debian - 12.1","browserName":"Chrome","browserVersion":"121.0.1"`, 422, "browser version"},
		{`"osName":"linux","osVersion":"Debian - 12.4","browserName":"Chrome","browserVersion":"120.0.1"`, 200, run.WarnPlatform},
		{`"osName":"linux","osVersion":"Debian - 12.1","browserName":"Chrome","browserVersion":"120.0.9"`, 200, run.WarnPlatform},
		{``, 200, `"warnings":[]`},
	} {
		a := join(c.platform)
		if a.Code != c.code || !strings.Contains(string(a.Body), c.says) || c.code == 422 && a.field("code") != "PARALLEL_GROUP_PARAMS_MISMATCH" {
			t.Errorf("%s: %d %s, want %d and %q", c.platform, a.Code, a.Body, c.code, c.says)
		}
	}
}

// A machine that comes when all is done and green is no re-run.
func TestALateMachine(t *testing.T) {
	for name, c := range map[string]struct {
		state  string // of the only test
		change func(body string) string
		code   int
	}{
		"green":            {"passed", func(b string) string { return b }, 200},
		"failed":           {"failed", func(b string) string { return b }, 422},
		"another commit":   {"passed", func(b string) string { return strings.Replace(b, `"s1"`, `"s2"`, 1) }, 422},
		"other specs":      {"passed", func(b string) string { return strings.Replace(b, `["a"]`, `["a","b"]`, 1) }, 422},
		"without parallel": {"passed", func(b string) string { return strings.Replace(b, "true", "false", 1) }, 422},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.OnEach(t, func(t *testing.T, db *store.DB) {
				h, _ := newServer(t, db)
				body := `{"projectId":"demo","ciBuildId":"b1","specs":["a"],"parallel":true,"commit":{"sha":"s1","branch":"main"}}`
				runID, machineID := start(t, h, body)
				instance := claim(t, h, runID, machineID).field("instanceId")
				if a := send(t, h, "POST", "/instances/"+instance+"/results", `{"tests":[{"clientId":"r1","state":"`+c.state+`"}]}`); a.Code != 200 {
					t.Fatalf("results: %d %s", a.Code, a.Body)
				}
				before := snapshot(t, db, runID)
				a := send(t, h, "POST", "/runs", c.change(body))
				if a.Code != c.code {
					t.Fatalf("a late machine: %d %s, want %d", a.Code, a.Body, c.code)
				}
				if c.code == 200 {
					if a.field("runId") != runID || !strings.Contains(string(a.Body), run.WarnNothingToDo) {
						t.Errorf("it is answered %s", a.Body)
					}
					if spec := claim(t, h, runID, a.field("machineId")); spec.Code != 200 || !strings.Contains(string(spec.Body), `"spec":null`) {
						t.Errorf("its claim: %d %s", spec.Code, spec.Body)
					}
				}
				if after := snapshot(t, db, runID); after != before {
					t.Errorf("it changed the run\nbefore: %s\nafter:  %s", before, after)
				}
			})
		})
	}
}

// The commit of a run is the head of the pull request, with any reporter.
func TestThePullRequestOfARun(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	runID, _ := start(t, h, `{"projectId":"demo","ciBuildId":"b","specs":["a"],"commit":{"sha":"merge","branch":"refs/pull/7/merge","message":"Merge x into y\n",
		"authorName":"Jane","defaultBranch":"origin/main","ghaEventData":{"headRef":"fix","headSha":"head","baseRef":"main","htmlUrl":"https://github.com/acme/shop/pull/7",
		"prTitle":"Fix the cart","senderHtmlUrl":"https://github.com/jane"}}}`)
	var got run.Commit
	err := db.Read(t.Context(), func(tx *store.Tx) error {
		r, err := tx.Run(context.Background(), runID)
		got = r.Commit
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := run.Commit{SHA: "head", MergeSHA: "merge", Branch: "fix", Message: "Fix the cart", AuthorName: "Jane", DefaultBranch: "main",
		PullRequest: &run.PullRequest{Number: 7, Title: "Fix the cart", URL: "https://github.com/acme/shop/pull/7", Author: "jane"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProjectIDsOfOtherDashboards(t *testing.T) {
	h, _ := newServer(t, testkit.SQLite(t))
	for _, id := range []string{"owner/my-project", "my shop", "Łódź"} {
		body, err := json.Marshal(map[string]any{"projectId": id, "specs": []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		if a := send(t, h, "POST", "/runs", string(body)); a.Code != 200 {
			t.Errorf("%q: %d %s", id, a.Code, a.Body)
		}
	}
}
