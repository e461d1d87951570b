package cypress_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"runbell/internal/store"
	"runbell/internal/testkit"
)

// TestTheLongestExpectedFirst: the averages of earlier runs decide the order, for every reporter and in batches too;
// specs of unknown duration come first.
func TestTheLongestExpectedFirst(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		h, _ := newServer(t, db)
		post := func(path, body string, headers ...string) answer { return send(t, h, "POST", path, body, headers...) }
		took := map[string][]int{"a": {10, 30}, "b": {500, 700}, "c": {40, 40}} // milliseconds, in two runs
		specs := `["a","b","c"]`
		for n := range 2 {
			runID, machineID := start(t, h, fmt.Sprintf(`{"projectId":"demo","ciBuildId":"b%d","specs":%s}`, n, specs))
			for range took {
				a := post("/runs/"+runID+"/instances", `{"machineId":"`+machineID+`"}`)
				post("/instances/"+a.field("instanceId")+"/results", fmt.Sprintf(`{"tests":[],"stats":{"duration":%d}}`, took[a.field("spec")][n]))
			}
		}
		specs = `["a","b","c","new"]`
		want := []string{"new", "b", "c", "a"}

		runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"single","specs":`+specs+`}`)
		var got []string
		for range want {
			got = append(got, post("/runs/"+runID+"/instances", `{"machineId":"`+machineID+`"}`).field("spec"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("handed out %q, want %q", got, want)
		}

		runID, machineID = start(t, h, `{"projectId":"demo","ciBuildId":"batched","specs":`+specs+`}`)
		var batch struct{ Specs []struct{ Spec string } }
		if err := json.Unmarshal(post("/runs/"+runID+"/cy/instances", `{"machineId":"`+machineID+`","batchSize":3}`).Body, &batch); err != nil {
			t.Fatal(err)
		}
		if len(batch.Specs) != 3 || batch.Specs[0].Spec != "new" || batch.Specs[1].Spec != "b" || batch.Specs[2].Spec != "c" {
			t.Errorf("a batch got %+v, want %q", batch, want[:3])
		}

		// The recorder gets the order, and the inactivity timeout.
		a := post("/runs", `{"projectId":"demo","ciBuildId":"ours","specs":`+specs+`}`, "X-Runbell-Version", "v1")
		var told struct {
			InactivityTimeoutMS int64
			HandOutOrder        []struct {
				Spec       string
				DurationMS int64
			}
		}
		if err := json.Unmarshal(a.Body, &told); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(told.HandOutOrder) != "[{new 0} {b 600} {c 40} {a 20}]" || told.InactivityTimeoutMS != 30*60*1000 {
			t.Errorf("the recorder is told %+v", told)
		}
	})
}

// TestSharingMachinesLearnTheirNumber: that of the latest runs, not of their own, so that the first machine can take
// its share.
func TestSharingMachinesLearnTheirNumber(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		h, _ := newServer(t, db)
		join := func(build, group string) (n int) {
			var told struct{ Machines int }
			a := send(t, h, "POST", "/runs", `{"projectId":"demo","ciBuildId":"`+build+`","group":"`+group+`","specs":["a"],"parallel":true}`, "X-Runbell-Version", "v1")
			if err := json.Unmarshal(a.Body, &told); err != nil {
				t.Fatal(err)
			}
			return told.Machines
		}
		for _, group := range []string{"chrome", "chrome", "firefox", "chrome"} {
			if n := join("first", group); n != 0 {
				t.Errorf("machines of the first run are told of %d", n)
			}
		}
		if n := join("second", "chrome"); n != 3 {
			t.Errorf("the second run is told of %d machines, want 3", n)
		}
	})
}

// TestSharingNeedsABuild: machines that share find each other by a build id.
func TestSharingNeedsABuild(t *testing.T) {
	h, _ := newServer(t, testkit.SQLite(t))
	for body, code := range map[string]int{
		`{"projectId":"demo","specs":["a"],"parallel":true,"ci":{"provider":"gitlab","params":{"ciJobId":"1"}}}`:             422,
		`{"projectId":"demo","specs":["a"],"parallel":true,"ci":{"provider":"gitlab","params":{"ciPipelineId":"1"}}}`:        200,
		`{"projectId":"demo","specs":["a"],"parallel":true,"ciBuildId":"b","ci":{"provider":"gitlab","params":{}}}`:          200,
		`{"projectId":"demo","specs":["a"],"parallel":false,"ci":{"provider":"gitlab","params":{"ciJobId":"1"}}}`:            200,
		`{"projectId":"demo","specs":["a"],"parallel":true,"late":true,"ci":{"provider":"gitlab","params":{"ciJobId":"1"}}}`: 200,
	} {
		a := send(t, h, "POST", "/runs", body, "X-Runbell-Version", "v1")
		if a.Code != code || code == 422 && a.field("code") != "INDETERMINATE_CI_BUILD_ID" {
			t.Errorf("%s: %d %s", body, a.Code, a.Body)
		}
	}
}

// TestAMachineThatWantsTheGroupForItself: machines share a group only if all of
// them say so. A retry is the same machine.
func TestAMachineThatWantsTheGroupForItself(t *testing.T) {
	h, _ := newServer(t, testkit.SQLite(t))
	ours := func(body string, attempt string) answer {
		return send(t, h, "POST", "/runs", body, "X-Runbell-Version", "v1", "X-Cypress-Request-Attempt", attempt)
	}
	alone := `{"projectId":"demo","ciBuildId":"b","specs":["a"],"parallel":false}`
	first := ours(alone, "0")
	if again := ours(alone, "1"); again.Code != 200 || again.field("machineId") != first.field("machineId") {
		t.Errorf("a retry: %d %s", again.Code, again.Body)
	}
	if second := ours(alone, "0"); second.Code != 422 || second.field("code") != "RUN_GROUP_NAME_NOT_UNIQUE" {
		t.Errorf("a second machine: %d %s", second.Code, second.Body)
	}
	if shared := ours(`{"projectId":"demo","ciBuildId":"b","specs":["a"],"parallel":true}`, "0"); shared.Code != 422 || shared.field("code") != "PARALLEL_DISALLOWED" {
		t.Errorf("a second machine, with --parallel: %d %s", shared.Code, shared.Body)
	}
	if other := send(t, h, "POST", "/runs", alone); other.Code != 422 || other.field("code") != "RUN_GROUP_NAME_NOT_UNIQUE" {
		t.Errorf("another reporter: %d %s", other.Code, other.Body)
	}
	if group := ours(strings.Replace(alone, `"specs"`, `"group":"g","specs"`, 1), "0"); group.Code != 200 {
		t.Errorf("another group: %d %s", group.Code, group.Body)
	}
	shared := `{"projectId":"demo","ciBuildId":"c","specs":["a"],"parallel":true}`
	if one, two := ours(shared, "0"), ours(shared, "0"); one.Code != 200 || two.Code != 200 || one.field("runId") != two.field("runId") {
		t.Errorf("two machines that share: %d %s, %d %s", one.Code, one.Body, two.Code, two.Body)
	}
	if second := ours(strings.Replace(shared, "true", "false", 1), "0"); second.Code != 422 || second.field("code") != "PARALLEL_REQUIRED" {
		t.Errorf("one that does not share: %d %s", second.Code, second.Body)
	}
}

// TestASpecThatRanWhileTheServerWasAway can be claimed for its results, even when the run is over; it changes the
// counts and no state.
func TestASpecThatRanWhileTheServerWasAway(t *testing.T) {
	h, runs := newServer(t, testkit.SQLite(t))
	runID, machineID := start(t, h, `{"projectId":"demo","ciBuildId":"b","specs":["a","b"]}`)
	if _, err := runs.Cancel(t.Context(), runID, "test", ""); err != nil {
		t.Fatal(err)
	}
	path := "/runs/" + runID + "/instances"
	if a := send(t, h, "POST", path, `{"machineId":"`+machineID+`","late":true}`); a.Code != 422 {
		t.Errorf("any spec: %d %s", a.Code, a.Body)
	}
	a := send(t, h, "POST", path, `{"machineId":"`+machineID+`","spec":"b","late":true}`)
	if a.Code != 200 || a.field("spec") != "b" {
		t.Fatalf("the spec that ran: %d %s", a.Code, a.Body)
	}
	if again := send(t, h, "POST", path, `{"machineId":"`+machineID+`","spec":"b","late":true}`); again.field("instanceId") != a.field("instanceId") {
		t.Errorf("again: %d %s", again.Code, again.Body)
	}
	if r := send(t, h, "POST", "/instances/"+a.field("instanceId")+"/results", `{"tests":[{"clientId":"r1","state":"passed"}]}`); r.Code != 200 {
		t.Errorf("its results: %d %s", r.Code, r.Body)
	}
}

// TestAMachineThatRanWhileTheServerWasAway joins for its results, even when the run is over, and does not affect
// other machines. The run and group must exist.
func TestAMachineThatRanWhileTheServerWasAway(t *testing.T) {
	h, runs := newServer(t, testkit.SQLite(t))
	late := func(body string) answer {
		return send(t, h, "POST", "/runs", `{"projectId":"demo","late":true,"parallel":false,`+body+`}`, "X-Runbell-Version", "v1")
	}
	runID, _ := start(t, h, `{"projectId":"demo","ciBuildId":"b","specs":["a","b"]}`)
	if a := late(`"ciBuildId":"b","specs":["a","b"]`); a.Code != 200 || a.field("runId") != runID {
		t.Errorf("while the run goes on: %d %s", a.Code, a.Body)
	}
	if _, err := runs.Cancel(t.Context(), runID, "test", ""); err != nil {
		t.Fatal(err)
	}
	a := late(`"ciBuildId":"b","specs":["a","b"]`)
	if a.Code != 200 || a.field("runId") != runID {
		t.Fatalf("after it: %d %s", a.Code, a.Body)
	}
	c := send(t, h, "POST", "/runs/"+runID+"/instances", `{"machineId":"`+a.field("machineId")+`","spec":"b","late":true}`)
	if c.Code != 200 || c.field("spec") != "b" {
		t.Errorf("a spec that it ran: %d %s", c.Code, c.Body)
	}
	if other := send(t, h, "POST", "/runs/"+runID+"/instances", `{"machineId":"`+a.field("machineId")+`"}`); other.Code != 422 {
		t.Errorf("another one: %d %s", other.Code, other.Body)
	}
	for _, body := range []string{`"ciBuildId":"b","specs":["a","c"]`, `"ciBuildId":"b","group":"g","specs":["a","b"]`} {
		if a := late(body); a.Code != 422 {
			t.Errorf("%s: %d %s", body, a.Code, a.Body)
		}
	}
	if a := late(`"ciBuildId":"new","specs":["a"]`); a.Code != 200 || a.field("runId") == runID {
		t.Errorf("a run that nobody has made: %d %s", a.Code, a.Body)
	}
}
