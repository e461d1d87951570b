package ui

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

func TestCancelFromThePage(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	j := w.join(shopJoin("build-001", fiveSpecs()...))
	w.token = w.person("vera", store.Viewer)
	lacks(t, w.page("/run/"+j.RunID), "/cancel")
	w.refused(403, "This page is for members and admins", "/run/"+j.RunID+"/cancel")
	w.token = w.person("mia", store.Member)
	page := w.page("/run/" + j.RunID)
	wellFormed(t, page)
	wants(t, page, "Cancel run…")
	w.refused(400, "at most 500 characters", "/run/"+j.RunID+"/cancel", "reason", strings.Repeat("ä", 501))
	if to := w.post("/run/"+j.RunID+"/cancel", "reason", " wrong branch "); to != "/run/"+j.RunID {
		t.Errorf("leads to %s", to)
	}
	page = w.page("/run/" + j.RunID)
	wants(t, page, "Canceled by mia", ": wrong branch")
	lacks(t, page, "/cancel")
	w.post("/run/"+j.RunID+"/cancel", "reason", "again") // changes nothing
	wants(t, w.page("/run/"+j.RunID), ": wrong branch")
}

func TestFailuresAsText(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	id := w.play(shopJoin("build-001", fiveSpecs()...), fiveSpecs())
	page := w.page("/run/" + id)
	want := "3 of 10 tests failed: feat: change button colour (feat/button-colour)\n" + publicURL + "/run/" + id + "\n\n" +
		"- cypress/e2e/b_fail.cy.js: b › fails\n  AssertionError: expected &#34;blue&#34; to equal &#34;green&#34;\n" +
		"- cypress/e2e/d_skips.cy.js: d › broken hook › fails because of hook\n  Error: before hook broke\n" +
		"- cypress/e2e/e_compile_error.cy.js: Spec crashed\n  Error: Cannot find module &#39;./does-not-exist&#39;<"
	if !strings.Contains(page, want) {
		t.Errorf("the page lacks the text\n%s", want)
	}
	id = "failure-" + run.Signature("shop", "cypress/e2e/b_fail.cy.js", []string{"b", "fails"})[:12]
	for _, anchor := range []string{`id="` + id + `" open`, `href="#` + id + `-1-attempt-1">Every attempt`, `href="#` + id + `">Link to this failure`, `<a class="quiet" href="#` + id + `">`, `href="#spec-1-2-2" aria-label="Link to this test"`} {
		if !strings.Contains(page, anchor) {
			t.Errorf("no %s", anchor)
		}
	}
}

// TestTimeline: machines in the order of their first spec, specs where their time was.
func TestTimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		specs := []spec{passing("a.cy.js", "one"), failing("b.cy.js"), flaky("c.cy.js"), passing("d.cy.js", "one")}
		j := shopJoin("build-001", specs...)
		j.Parallel = true
		first := w.join(j)
		j.MachineID = "second"
		second := w.join(j)
		a := w.claim(first, 1)[0]
		time.Sleep(10 * time.Second)
		w.complete(a, specs[0])
		both := w.claim(second, 2)
		time.Sleep(20 * time.Second)
		w.complete(both[0], specs[1])
		time.Sleep(10 * time.Second)
		w.complete(both[1], specs[2])
		page := w.page("/run/" + first.RunID)
		wellFormed(t, page)
		wants(t, page, "Timeline Machine 1 a.cy.js: passed, 10 s 1 spec, 100% busy Machine 2 b.cy.js: failed, 20 s c.cy.js: flaky, 10 s 2 specs, 100% busy 0 ms 10 s 20 s 30 s 40 s")
		for _, rect := range []string{`href="#spec-1-1" tabindex="-1"><title>a.cy.js: passed, 10 s</title><rect class="pass" x="0" width="250"`,
			`<rect class="fail" x="250" width="500"`, `<rect class="flaky" x="750" width="250"`} {
			if !strings.Contains(page, rect) {
				t.Errorf("no %s", rect)
			}
		}
		wants(t, page, "b.cy.js machine 2 1 failed 1 passed Failed", "a.cy.js machine 1 1 passed Passed")
		wants(t, w.page("/run/"+first.RunID+"/specs"), "c.cy.js machine 2 1 flaky")
		wants(t, w.page("/run/"+first.RunID+"/spec?file=c.cy.js"), "Machine 2 Browser")
		lacks(t, page, "second")

		// What runs is drawn up to the last report.
		w.claim(first, 1)
		time.Sleep(time.Minute)
		_, err := w.runs.Heartbeat(w.ctx, first.RunID, first.MachineID)
		w.check(err)
		wants(t, w.page("/run/"+first.RunID), "d.cy.js: running, 1 min")
	})
}

func TestTimelineIsBounded(t *testing.T) {
	r := run.Run{CreatedAt: time.Unix(0, 0)}
	for _, machines := range []int{1, 30, 99} {
		var list []specRef
		for n := range run.MaxSpecs {
			at := r.CreatedAt.Add(time.Duration(n/machines) * time.Second)
			list = append(list, specRef{Instance: &run.Instance{ID: strconv.Itoa(n), ClaimedAt: at, CompletedAt: at.Add(time.Second)}, machine: n%machines + 1,
				state: specState{Tone: []tone{toneFail, tonePass}[n%2]}})
		}
		drawn := timelineOf(r, list, time.Time{}, false, func(specRef) string { return "#" })
		specs, links, bytes := 0, 0, 0
		for _, m := range drawn.Machines {
			specs, links = specs+m.Specs, links+len(m.Spans)
			for _, thin := range m.Thin {
				bytes += len(thin.Path)
			}
		}
		if len(drawn.Machines) != min(machines, maxMachines) || drawn.More != max(0, machines-maxMachines) || links > maxLinked || bytes > 200<<10 {
			t.Errorf("%d machines: %d lines, %d more, %d links, %d bytes", machines, len(drawn.Machines), drawn.More, links, bytes)
		}
		if drawn.More == 0 && specs != run.MaxSpecs {
			t.Errorf("%d machines: the timeline has %d specs", machines, specs)
		}
	}
	if timelineOf(r, nil, time.Time{}, false, nil) != nil {
		t.Error("a run without specs has a timeline")
	}
}

// TestDeliveriesOfARun: who has signed in sees where its webhooks went, others
// do not.
func TestDeliveriesOfARun(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	testkit.Endpoint(t, w.db, "shop", func(e *webhook.Endpoint) { e.URL, e.Label = "https://chat.example.test/secret-path", "ops-room" })
	id := w.play(shopJoin("build-001", fiveSpecs()...), fiveSpecs())
	lacks(t, w.page("/run/"+id), "ops-room", "secret-path")
	w.token = w.person("vera", store.Viewer)
	page := w.page("/run/" + id)
	wellFormed(t, page)
	wants(t, page, "RUN_START", "→ ops-room Pending next")
}
