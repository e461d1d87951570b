package ui

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
)

var tags = regexp.MustCompile(`<[^>]*>`)

// text is a page as a reader sees it: without tags, entities and spare space.
func text(page string) string {
	_, body, _ := strings.Cut(page, "<body>")
	body = tags.ReplaceAllString(body, " ")
	return strings.Join(strings.Fields(html.UnescapeString(body)), " ")
}

func wants(t testing.TB, page string, texts ...string) {
	t.Helper()
	seen := text(page)
	for _, want := range texts {
		if !strings.Contains(seen, want) {
			t.Errorf("the page lacks %q; it reads:\n%s", want, run.Clip(seen, 3000))
		}
	}
}

func lacks(t testing.TB, page string, texts ...string) {
	t.Helper()
	for _, no := range texts {
		if strings.Contains(page, no) {
			t.Errorf("the page has %q", no)
		}
	}
}

// voids are the elements without an end.
var voids = []string{"meta", "link", "input", "br", "img"}

// asXML adds to a page what HTML leaves out: the slash of elements without an end, and values of attributes.
func asXML(page string) string {
	var b strings.Builder
	attribute := func(text string) { // and the space before it, if any
		if b.WriteString(text); strings.HasPrefix(text, " ") && text != " " && !strings.Contains(text, "=") {
			b.WriteString(`=""`)
		}
	}
	for page != "" {
		text, rest, found := strings.Cut(page, "<")
		b.WriteString(text)
		if !found {
			break
		}
		b.WriteByte('<')
		name := rest[:max(0, strings.IndexAny(rest, " >"))]
		from, at, quoted := 0, 0, false
		for ; at < len(rest) && (quoted || rest[at] != '>'); at++ {
			if rest[at] == '"' {
				quoted = !quoted
			}
			if rest[at] == ' ' && !quoted {
				attribute(rest[from:at])
				from = at
			}
		}
		attribute(rest[from:at])
		if slices.Contains(voids, name) {
			b.WriteByte('/')
		}
		page = rest[at:]
	}
	return b.String()
}

// wellFormed checks that elements nest, that ids are unique, that links within
// the page have a target, and that headings do not skip a level.
func wellFormed(t *testing.T, page string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(asXML(page)))
	ids, links, level := map[string]bool{}, []string{}, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page is not well formed: %v", err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if name := e.Name.Local; len(name) == 2 && name[0] == 'h' && name[1] >= '1' && name[1] <= '6' {
			if now := int(name[1] - '0'); now > level+1 {
				t.Errorf("heading %s after level %d", name, level)
			} else {
				level = now
			}
		}
		for _, a := range e.Attr {
			switch {
			case a.Name.Local == "id" && ids[a.Value]:
				t.Errorf("two elements have the id %q", a.Value)
			case a.Name.Local == "id":
				ids[a.Value] = true
			case a.Name.Local == "href" && strings.HasPrefix(a.Value, "#"):
				links = append(links, a.Value[1:])
			case a.Name.Local == "style" || strings.HasPrefix(a.Name.Local, "on"):
				t.Errorf("the attribute %s is refused by the page's own policy", a.Name.Local)
			}
		}
	}
	for _, l := range links {
		if !ids[l] {
			t.Errorf("a link goes to #%s, which is not on the page", l)
		}
	}
}

const refreshTag = `data-live="2"`

func TestRunPageInEveryState(t *testing.T) {
	for _, c := range []struct {
		name   string
		play   func(*world) string // returns the run's id
		title  string
		reads  []string
		lives  bool
		unsaid []string
	}{
		{
			name:  "passed",
			title: "Passed · feat: change button colour · Runbell",
			play: func(w *world) string {
				s := []spec{passing("cypress/e2e/a.cy.js", "a > one")}
				return w.play(shopJoin("build-001", s...), s)
			},
			reads:  []string{"All tests passed.", "Passed 1", "Specs 1 /1", "a.cy.js 1 passed Passed 410 ms", "RUN_START", "RUN_FINISH"},
			unsaid: []string{"Failures"},
		},
		{
			name:  "passed, flaky",
			title: "Passed · feat: change button colour · Runbell",
			play: func(w *world) string {
				s := []spec{flaky("c.cy.js")}
				return w.play(shopJoin("build-001", s...), s)
			},
			reads: []string{"All tests passed; 1 was flaky.", "Flaky 1", "Retries 1", "2 attempts Flaky", "Attempt 1 Error: flake"},
		},
		{
			name:  "failed",
			title: "Failed · feat: change button colour · Runbell",
			play:  func(w *world) string { return w.play(shopJoin("build-001", fiveSpecs()...), fiveSpecs()) },
			reads: []string{"3 of 10 tests failed.", "Failed 3", "Passed 5", "Flaky 1", "Pending 1", "Skipped 1", "Retries 3", "Tests 10", "Specs 5 /5"},
		},
		{
			name:  "running",
			title: "Running · feat: change button colour · Runbell",
			lives: true,
			play: func(w *world) string {
				s := fiveSpecs()
				j := w.join(shopJoin("build-001", s...))
				time.Sleep(90 * time.Second)
				w.complete(w.claim(j, 1)[0], s[0])
				w.claim(j, 1)
				return j.RunID
			},
			reads: []string{"Running, no failures so far.", "1 of 5 specs done", "Running for 1 min 30 s", "b_fail.cy.js Running", "c_flaky.cy.js Queued",
				"Times out 1 Jan 2000, 00:31:30 UTC unless another report comes.", "Live . Pause"},
			unsaid: []string{"Ended", "RUN_FINISH"},
		},
		{
			name:  "failing, with tests announced before they run",
			title: "Failing · feat: change button colour · Runbell",
			lives: true,
			play: func(w *world) string {
				s := fiveSpecs()[1:]
				j := w.join(shopJoin("build-001", s...))
				w.complete(w.claim(j, 1)[0], s[0])
				_, err := w.runs.Announce(w.ctx, w.claim(j, 1)[0].ID, s[1].announcement)
				w.check(err)
				return j.RunID
			},
			reads: []string{"Running, 1 failed so far.", "Announced 1", "c_flaky.cy.js 1 announced Running", "Failures b › fails"},
		},
		{
			name:  "waiting for a late group",
			title: "Running · feat: change button colour · Runbell",
			lives: true,
			play: func(w *world) string {
				s := []spec{passing("a.cy.js", "a > one")}
				j := shopJoin("build-001", s...)
				j.Group = "chrome"
				return w.play(j, s)
			},
			reads: []string{"All groups are done. Finishing 1 Jan 2000, 00:01:00 UTC , unless another group joins.", "RUN_FINISH group chrome"},
		},
		{
			name:  "canceled",
			title: "Canceled · feat: change button colour · Runbell",
			play: func(w *world) string {
				s := fiveSpecs()
				j := w.join(shopJoin("build-001", s...))
				w.complete(w.claim(j, 1)[0], s[0])
				w.claim(j, 1)
				_, err := w.runs.Cancel(w.ctx, j.RunID, "Jane Roe", "superseded by build-002")
				w.check(err)
				return j.RunID
			},
			reads: []string{"Canceled before it finished.", "Canceled by Jane Roe 1 Jan 2000, 00:00:00 UTC : superseded by build-002", "b_fail.cy.js Never reported", "c_flaky.cy.js Not started", "RUN_CANCELED"},
		},
		{
			name:  "timed out",
			title: "Timed out · feat: change button colour · Runbell",
			play: func(w *world) string {
				s := fiveSpecs()
				j := w.join(shopJoin("build-001", s...))
				w.complete(w.claim(j, 1)[0], s[0])
				w.claim(j, 1)
				time.Sleep(run.DefaultInactivity)
				_, err := w.runs.Sweep(w.ctx)
				w.check(err)
				return j.RunID
			},
			reads: []string{"Timed out: no reports for 30 min since 1 Jan 2000, 00:00:00 UTC . 1 spec never reported back; 3 never started.", "Duration 0 ms", "RUN_TIMEOUT"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				url := "/run/" + c.play(w)
				w.catch()
				page := w.page(url)
				wellFormed(t, page)
				if !strings.Contains(page, "<title>"+c.title+"</title>") {
					t.Errorf("the title is not %q:\n%s", c.title, run.Clip(page, 800))
				}
				wants(t, page, c.reads...)
				for _, no := range c.unsaid {
					lacks(t, text(page), no)
				}
				if strings.Contains(page, refreshTag) != c.lives {
					t.Errorf("refreshes itself: %v, want %v", !c.lives, c.lives)
				}
				lacks(t, w.page(url+"?refresh=off"), refreshTag)
			})
		})
	}
}

func TestRunPageShowsWhatFailed(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	id := w.play(shopJoin("build-001", fiveSpecs()...), fiveSpecs())
	page := w.page("/run/" + id)
	wants(t, page,
		`b › fails cypress/e2e/b_fail.cy.js AssertionError: expected "blue" to equal "green"`,
		"d › broken hook › fails because of hook cypress/e2e/d_skips.cy.js Error: before hook broke",
		"Spec crashed cypress/e2e/e_compile_error.cy.js Error: Cannot find module './does-not-exist'",
		"3 attempts Failed 2.1 s", "Every attempt AssertionError:",
		"cypress/e2e/b_fail.cy.js:14:38", "> 14 | cy.get('.colour')",
		"Stack trace at Object.eq (/builds/acme/cycache/12.17.4/Cypress/Cypress:126:72)",
		"in the “before all” hook Error: before hook broke",
		"never runs Skipped",
		"Console output", "1) fails",
		"feat/button-colour", "1ea02a6", "feat: change button colour", "by Jane Roe", "The old one was hard to read.",
		"github.com/acme/shop", "smoke", "nightly", "GitHub Actions", "cypress-cloud 1.13.1, Cypress 12.17.4", "Electron 106.0.5249.51", "Debian 12",
	)
	// The client makes up a test for a spec that does not compile; the error is shown once.
	lacks(t, text(page), "Unknown")
	lacks(t, page, "\x1b", "[32m", "[39m")
	for _, link := range []string{
		`href="https://github.com/acme/shop/commit/1ea02a6664aaf4872b49b3bb8d99d556c07d2a54"`,
		`href="https://github.com/acme/shop/actions/runs/4242"`,
		`id="spec-1-2-2"`,
		`<time datetime="`,
	} {
		if !strings.Contains(page, link) {
			t.Errorf("the page lacks %s", link)
		}
	}
	// Failed, then flaky, then passed.
	last := -1
	for _, name := range []string{"spec-1-2", "spec-1-4", "spec-1-5", "spec-1-3", "spec-1-1"} {
		at := strings.Index(page, `id="`+name+`"`)
		if at < last {
			t.Errorf("%s is out of order", name)
		}
		last = at
	}
}

func TestGroups(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	specs := fiveSpecs()[:2]
	j := shopJoin("build-001", specs...)
	j.Group = "chrome & co"
	id := w.play(j, specs)
	j.Group, j.Platform = "firefox", run.Platform{OSName: "darwin", OSVersion: "23.1.0", BrowserName: "Firefox", BrowserVersion: "118.0"}
	w.join(j)
	page := w.page("/run/" + id)
	wellFormed(t, page)
	wants(t, page,
		"chrome & co Failed Electron 106.0.5249.51 Debian 12 2 of 2 specs", "1 failed 3 passed 2 retries",
		"firefox Running Firefox 118.0 macOS 23.1.0 0 of 2 specs", "unless another report comes.",
		"RUN_START run", "RUN_START group chrome & co", "RUN_FINISH group chrome & co", "RUN_START group firefox")

	// The same spec of two groups are two pages.
	for group, want := range map[string]string{"chrome+%26+co": "expected", "firefox": "Tests appear when"} {
		url := "/run/" + id + "/spec?file=cypress%2Fe2e%2Fb_fail.cy.js&group=" + group
		if !strings.Contains(html.UnescapeString(page), `href="`+url+`"`) {
			t.Errorf("no link to %s", url)
		}
		wants(t, w.page(url), want)
	}
}

func TestSpecPage(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	specs := fiveSpecs()
	specs[0].name = "../common/a b&c.cy.js" // a spec may lie outside the project
	id := w.play(shopJoin("build-001", specs...), specs)

	page := w.page("/run/" + id + "/spec?file=cypress%2Fe2e%2Fd_skips.cy.js")
	wellFormed(t, page)
	wants(t, page, "Runs / feat: change button colour Failed", "cypress/e2e/ d_skips.cy.js", "d › is pending Pending", "d › shot Passed 120 ms", "in the “before all” hook",
		"never runs Skipped", "Failures d › broken hook › fails because of hook", "Console output", "(2/5)")
	if !strings.Contains(page, "<title>failed · d_skips.cy.js · feat: change button colour · Runbell</title>") {
		t.Error("another title")
	}

	beside := func(page string) []string {
		var out []string
		for _, link := range regexp.MustCompile(`href="[^"]*file=([^"]*)" rel="(prev|next)"`).FindAllStringSubmatch(page, -1) {
			out = append(out, link[2]+" "+link[1])
		}
		return out
	}
	want := []string{"prev cypress%2Fe2e%2Fb_fail.cy.js", "next cypress%2Fe2e%2Fe_compile_error.cy.js"}
	if got := beside(page); !slices.Equal(got, want) {
		t.Errorf("failed specs beside: %q", got)
	}

	page = w.page("/run/" + id + "/spec?file=cypress%2Fe2e%2Fe_compile_error.cy.js")
	wellFormed(t, page)
	if got := beside(page); !slices.Equal(got, []string{"prev cypress%2Fe2e%2Fd_skips.cy.js"}) {
		t.Errorf("failed specs beside the last: %q", got)
	}
	wants(t, page, "Spec crashed Oops...we found an error preparing this test file: > cypress/e2e/e_compile_error.cy.js")

	link := regexp.MustCompile(`href="(/run/[^"]*common[^"]*)"`).FindStringSubmatch(w.page("/run/" + id))
	if link == nil {
		t.Fatal("no link to the spec outside the project")
	}
	wants(t, w.page(html.UnescapeString(link[1])), "a › adds two Passed")
}

func TestNobodySeesSecrets(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	specs := fiveSpecs()
	j := shopJoin("build-001", specs...)
	j.MachineID = "machine-7f3a"
	joined := w.join(j)
	secrets := []string{"machine-7f3a", "s3cr3t", "ci-token", "jane@example.test"}
	for n, i := range w.claim(joined, 3) {
		secrets = append(secrets, i.ID)
		w.complete(i, specs[n])
	}
	for _, url := range []string{"", "/specs", "/spec?file=cypress%2Fe2e%2Fb_fail.cy.js", "/spec?file=cypress%2Fe2e%2Fd_skips.cy.js"} {
		lacks(t, w.page("/run/"+joined.RunID+url), secrets...)
	}
}

func TestEscaping(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>'`
	w := newWorld(t)
	defer w.close()
	s := spec{name: "cypress/" + evil + ".cy.js", output: evil}
	failure := &run.Failure{Name: evil, Message: evil, Stack: evil, Frame: &run.Frame{File: evil, Line: 1, Text: evil}}
	s.test(evil+" > "+evil, 1, failure, run.Failed)
	s.announcement.Hooks = []run.Hook{{ID: "h", Name: evil}}
	s.outcome.Results[0].Attempts[0].Hook = "h"
	x := spec{name: "javascript:alert(1)", outcome: run.Outcome{Exception: evil}}
	j := lifecycle.Join{ProjectID: "shop", CIBuildID: evil, Group: evil, Tags: []string{evil},
		Commit:   run.Commit{SHA: evil, Branch: evil, AuthorName: evil, Message: evil + "\n" + evil, RemoteOrigin: "javascript://github.com/acme/shop%0aalert(1)"},
		CI:       run.CI{Provider: evil, Params: map[string]string{"buildUrl": "javascript:alert(1)"}},
		Client:   run.Client{Name: evil, Version: evil, Framework: run.Framework{Name: "cypress", Version: evil}},
		Platform: run.Platform{OSName: evil, BrowserName: evil},
		Specs:    []string{s.name, x.name},
	}
	id := w.play(j, []spec{s, x})
	_, err := w.runs.Cancel(w.ctx, id, evil, evil)
	w.check(err)
	page := w.page("/run/" + id)
	pages := []string{page, w.page("/run/" + id + "/specs"), w.get("/run/" + strings.ReplaceAll(evil, " ", "%20")).Body.String(), w.get("/nothing?" + "x=%3Cscript%3E").Body.String()}
	for _, m := range regexp.MustCompile(`href="(/run/[^"]*/spec\?[^"]*)"`).FindAllStringSubmatch(page, -1) {
		pages = append(pages, w.page(html.UnescapeString(m[1])))
	}
	if len(pages) < 6 {
		t.Errorf("only %d pages", len(pages))
	}
	for _, p := range pages {
		wellFormed(t, p)
		lacks(t, p, "<script>", "<img", `href="javascript:`)
	}
}

func TestLargeRunsHaveBoundedPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // pages for strangers wait
		w := newWorld(t)
		defer w.close()

		// More specs than a page lists, and more failures than it shows.
		j := shopJoin("many-specs")
		const specs, failed = 2*specsPerPage + 100, maxSpecs + 20
		for n := range specs {
			j.Specs = append(j.Specs, fmt.Sprintf("cypress/e2e/area-%d/spec-%05d.cy.js", n%50, n))
		}
		joined := w.join(j)
		instances := w.claim(joined, specs)
		long := &run.Failure{Name: "Error", Message: strings.Repeat("<&>", 2000), Stack: strings.Repeat("\n    at <anonymous>", 600)}
		var waiting sync.WaitGroup
		for n := range failed {
			waiting.Go(func() {
				s := spec{name: j.Specs[n], output: strings.Repeat("output <&>\n", 1000)}
				s.test("fails", 1, long, run.Failed)
				w.complete(instances[n], s)
			})
		}
		waiting.Wait()
		page := w.page("/run/" + joined.RunID)
		wellFormed(t, page)
		if limit := 5 << 20; len(page) > limit {
			t.Errorf("the page has %d bytes, want at most %d", len(page), limit)
		}
		wants(t, page, "Failed 120", "Specs 120 /1,100", "20 more failures in the failed specs", "1,000 more specs: show all")
		if n := strings.Count(page, `<li class="spec`); n != maxSpecs {
			t.Errorf("%d specs are listed, want %d", n, maxSpecs)
		}

		// The rest is on pages that lead from one to the next.
		seen := map[string]bool{}
		for _, c := range []struct{ page, next string }{{"", "2"}, {"?page=2", "3"}, {"?page=3", ""}} {
			url := "/run/" + joined.RunID + "/specs"
			page := w.page(url + c.page)
			wellFormed(t, page)
			wants(t, page, "1,100 specs", "of 3")
			for _, m := range regexp.MustCompile(`spec-\d{5}\.cy\.js</a>`).FindAllString(page, -1) {
				seen[m] = true
			}
			if strings.Contains(page, `rel="next"`) != (c.next != "") || !strings.Contains(page, `href="`+url+`?page=`+c.next) {
				t.Errorf("%s does not lead to page %q", c.page, c.next)
			}
		}
		if len(seen) != specs {
			t.Errorf("%d specs are on three pages of the list, want %d", len(seen), specs)
		}

		// One spec with more tests than a page shows.
		s := spec{name: "huge.cy.js"}
		const tests = 10 * testsPerPage
		for n := range tests {
			s.test(fmt.Sprintf("test number %05d", n), 1, &run.Failure{Name: "Error", Message: "x"}, run.Failed)
		}
		id := w.play(shopJoin("many-tests", s), []spec{s})
		page = w.page("/run/" + id)
		wellFormed(t, page)
		if limit := 1 << 20; len(page) > limit {
			t.Errorf("the page has %d bytes, want at most %d", len(page), limit)
		}
		wants(t, page, "Failed 5,000", "4,950 more tests like these.", "All tests and output of huge.cy.js", "4,900 more failures")
		page = w.page("/run/" + id + "/spec?file=huge.cy.js&page=10")
		wellFormed(t, page)
		if limit := 4 << 20; len(page) > limit {
			t.Errorf("the page has %d bytes, want at most %d", len(page), limit)
		}
		wants(t, page, "Page 10 of 10", "test number 04999", "4,900 more failures in the tests below")
		if !strings.Contains(page, `href="/run/`+id+`/spec?file=huge.cy.js#test-1"`) {
			t.Error("a failure on the first page is not linked to from the last")
		}
	})
}

func TestETag(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	specs := fiveSpecs()
	j := w.join(shopJoin("build-001", specs...))
	i := w.claim(j, 1)[0]
	for _, url := range []string{"", "/specs", "/spec?file=cypress%2Fe2e%2Fa_pass.cy.js"} {
		url = "/run/" + j.RunID + url
		first := w.get(url, "Runbell-Live", "1")
		etag := first.Header().Get("ETag")
		if etag == "" || first.Header().Get("Cache-Control") != "private, no-cache" {
			t.Fatalf("%s: headers %v", url, first.Header())
		}
		for _, header := range []string{etag, strings.TrimPrefix(etag, "W/"), `"other", ` + etag, "*"} {
			again := w.get(url, "Runbell-Live", "1", "If-None-Match", header)
			if again.Code != http.StatusNotModified || again.Body.Len() > 0 || again.Header().Get("ETag") != etag {
				t.Errorf("%s, If-None-Match %s: %d with %d bytes", url, header, again.Code, again.Body.Len())
			}
		}
		if again := w.get(url, "If-None-Match", `W/"other"`); again.Code != http.StatusOK {
			t.Errorf("%s with another ETag: %d", url, again.Code)
		}
		if second := w.get(url, "Runbell-Live", "1"); second.Body.String() != first.Body.String() {
			t.Errorf("%s: the same revision makes another page", url)
		}
	}
	before := w.get("/run/"+j.RunID, "Runbell-Live", "1").Header().Get("ETag")
	w.complete(i, specs[0])
	if again := w.get("/run/"+j.RunID, "Runbell-Live", "1", "If-None-Match", before); again.Code != http.StatusOK {
		t.Errorf("after results: %d", again.Code)
	}
}

// TestTheTimeOfARun: a run takes as long as it works. The wait for a late group
// and the silence before a timeout do not count; while it works, it grows.
func TestTheTimeOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.token = w.person("vera", store.Viewer)
		specs := []spec{passing("a.cy.js", "a > one")}
		j := shopJoin("build-001", specs...)
		j.Group = "chrome"
		joined := w.join(j)
		tag := w.get("/run/" + joined.RunID).Header().Get("ETag")
		time.Sleep(70 * time.Second)
		if again := w.get("/run/"+joined.RunID, "If-None-Match", tag); again.Code != http.StatusOK {
			t.Errorf("a page of a run that goes on, asked for again, is answered %d", again.Code)
		}
		wants(t, w.page("/run/"+joined.RunID), "1 min 10 s")
		wants(t, w.page("/projects/shop"), "1 min 10 s")
		time.Sleep(10 * time.Second)
		w.complete(w.claim(joined, 1)[0], specs[0])
		for range 2 { // waiting for a late group, and when it is over
			for _, page := range []string{"/run/" + joined.RunID, "/projects/shop"} {
				wants(t, w.page(page), "1 min 20 s")
				lacks(t, w.page(page), "data-since")
			}
			time.Sleep(run.DefaultCompletion)
			_, err := w.runs.Sweep(w.ctx)
			w.check(err)
		}
		if page := w.page("/"); !strings.Contains(page, "feat: change button colour: Passed, 1 min 20 s") {
			t.Errorf("the bar of the project says something else:\n%s", page)
		}
	})
}

func TestAnswers(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	id := w.play(shopJoin("build-001", fiveSpecs()...), fiveSpecs())
	w.token = w.person("ada", store.Viewer)
	unknown := strings.Repeat("0", 32)
	for _, c := range []struct {
		method, path string
		status       int
		reads        string
	}{
		{"GET", "/", 200, "Projects Search shop"},
		{"HEAD", "/", 200, ""},
		{"GET", "/run/" + id, 200, "build-001"},
		{"HEAD", "/run/" + id, 200, ""},
		{"GET", "/run/" + unknown, 404, `There is no run "` + unknown + `".`},
		{"GET", "/run/" + unknown + "/specs", 404, "There is no run"},
		{"GET", "/run/" + unknown + "/spec?file=a", 404, "There is no run"},
		{"GET", "/run/" + id + "/spec", 404, "There is no spec"},
		{"GET", "/run/" + id + "/spec?file=nope.cy.js", 404, "There is no spec"},
		{"GET", "/run/" + id + "/spec?file=cypress%2Fe2e%2Fa_pass.cy.js&group=nope", 404, "There is no spec"},
		{"GET", "/run/" + id + "/specs?page=99", 200, "5 specs"},
		{"GET", "/run/" + id + "/specs?page=-1", 200, "5 specs"},
		{"GET", "/run/", 404, "There is no page at this address."},
		{"GET", "/nothing/here", 404, "There is no page at this address."},
		{"GET", "/static/style.css", 404, "No such file"},
		{"GET", "/static/..%2f..%2f..%2fetc%2fpasswd", 404, "No such file"},
		{"GET", "/static/..%5c..%5ctemplates%5crun.html", 404, "No such file"},
		{"GET", "/run/..%2f..%2fetc%2fpasswd", 404, "There is no run"},
		{"GET", "/run/" + id + "/spec?file=..%2f..%2f..%2fetc%2fpasswd", 404, "There is no spec"},
		{"POST", "/run/" + id, 405, "does not accept"},
		{"POST", "/", 405, "does not accept"},
		{"DELETE", "/nothing", 405, "does not accept DELETE"},
	} {
		rec := w.send(c.method, c.path, nil)
		if rec.Code != c.status {
			t.Errorf("%s %s = %d, want %d", c.method, c.path, rec.Code, c.status)
		}
		h := rec.Header()
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; media-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "same-origin",
			"X-Robots-Tag":            "noindex",
			"Content-Type":            "text/html; charset=utf-8",
		} {
			if !strings.HasPrefix(h.Get(name), want) {
				t.Errorf("%s %s: %s is %q", c.method, c.path, name, h.Get(name))
			}
		}
		if c.status == 405 && h.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, h.Get("Allow"))
		}
		if c.reads != "" {
			wants(t, rec.Body.String(), c.reads)
			wellFormed(t, rec.Body.String())
		}
		lacks(t, rec.Body.String(), "<script>")
	}
	if w.log.Len() > 0 {
		t.Errorf("logged: %s", w.log.String())
	}
}

func TestStylesheet(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	link := regexp.MustCompile(`<link rel="stylesheet" href="([^"]+)">`).FindStringSubmatch(w.page("/signin"))
	if link == nil {
		t.Fatal("no stylesheet")
	}
	rec := w.get(link[1])
	if rec.Code != http.StatusOK || rec.Header().Get("Content-Type") != "text/css; charset=utf-8" || !strings.Contains(rec.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("%s: %d %v", link[1], rec.Code, rec.Header())
	}
	lacks(t, rec.Body.String(), "@import", "url(")
}

func TestLinksCarryThePathOfThePublicURL(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.serve("https://ci.example.test/runbell/")
	id := w.play(shopJoin("build-001", fiveSpecs()...), fiveSpecs())
	w.token = w.person("ada", store.Admin)
	for _, page := range []string{w.page("/"), w.page("/people"), w.page("/run/" + id), w.page("/run/" + id + "/specs")} {
		for _, m := range regexp.MustCompile(`href="(/[^"]*)"`).FindAllStringSubmatch(page, -1) {
			if !strings.HasPrefix(m[1], "/runbell/") {
				t.Errorf("link to %s", m[1])
			}
		}
	}
}

func TestInternalErrorsStayInside(t *testing.T) {
	w := newWorld(t)
	w.close()
	rec := w.get("/run/" + strings.Repeat("0", 32))
	if rec.Code != http.StatusInternalServerError {
		t.Errorf("status %d", rec.Code)
	}
	wants(t, rec.Body.String(), "Something went wrong on the server.")
	lacks(t, rec.Body.String(), "sql", "closed")
	if !strings.Contains(w.log.String(), "closed") {
		t.Errorf("the log does not say why: %q", w.log.String())
	}

	// A reader who went away is no error.
	w = newWorld(t)
	defer w.close()
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	w.pages.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/run/x", nil).WithContext(ctx))
	if w.log.Len() > 0 {
		t.Errorf("logged: %s", w.log.String())
	}
}

func TestLateResultsAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		specs := fiveSpecs()
		j := w.join(shopJoin("build-001", specs...))
		i := w.claim(j, 1)[0]
		time.Sleep(run.DefaultInactivity)
		_, err := w.runs.Sweep(w.ctx)
		w.check(err)
		w.complete(i, specs[0])
		page := w.page("/run/" + j.RunID)
		wants(t, page, "Timed out", "Passed 2", "a_pass.cy.js 2 passed Passed", "4 specs never started.")
		lacks(t, text(page), "had started and never reported")
	})
}

func TestRunWithoutAnythingKnown(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	joined := w.join(lifecycle.Join{ProjectID: "shop", Specs: []string{"a.cy.js"}})
	i := w.claim(joined, 1)[0]
	_, err := w.runs.Complete(w.ctx, i.ID, nil, run.Outcome{Results: []run.Result{{ID: "r0", State: run.Failed, Error: "Error: boom\n    at x (y.js:1:1)"}}})
	w.check(err)
	page := w.page("/run/" + joined.RunID)
	wellFormed(t, page)
	wants(t, page, "r0 a.cy.js Error: boom", "Stack trace at x (y.js:1:1)")
	lacks(t, text(page), "Repository", "by Tags", "Browser")
}

// TestPagesOfARunChangeWithTheirProject: what is not of the run itself is in the
// ETag, too.
func TestPagesOfARunChangeWithTheirProject(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	id := w.play(shopJoin("build-001", fiveSpecs()...), fiveSpecs())
	before := w.get("/run/" + id).Header().Get("ETag")
	w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
		p, err := tx.Project(w.ctx, "shop")
		if err != nil {
			return err
		}
		p.Name = "Renamed"
		return tx.UpdateProject(w.ctx, p)
	}))
	again := w.get("/run/"+id, "If-None-Match", before)
	if again.Code != http.StatusOK {
		t.Errorf("after the project was renamed: %d", again.Code)
	}
	wants(t, again.Body.String(), "Renamed")
}

func TestAttemptsThatFailedInDifferentWays(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	s := spec{name: "cypress/e2e/checkout/pay.cy.js"}
	s.test("Checkout > pays with a card", 8210, timeout(), run.Failed, run.Failed, run.Failed)
	s.outcome.Results[0].Attempts[0].Error = assertion()
	page := w.page("/run/" + w.play(shopJoin("build-001", s), []spec{s}))
	wants(t, page,
		"Failures Checkout › pays with a card cypress/e2e/checkout/pay.cy.js AssertionError: Timed out retrying after 4000ms", // as it ended
		`Attempt 1 AssertionError: expected "blue" to equal "green" Copy cypress/e2e/b_fail.cy.js:14:38`,
		"Attempts 2, 3 AssertionError: Timed out retrying after 4000ms: Expected to find element: `[data-test=\"order-number\"]`, but never found it. Copy cypress/e2e/checkout/pay.cy.js:41:8")
}
