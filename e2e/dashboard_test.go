package e2e

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"runbell/internal/testkit"
)

const (
	adminEmail    = "ada@example.test"
	adminPassword = "correct horse battery"
)

// visit goes to a page of the server.
func (b *browser) visit(s *server, path string) {
	b.t.Helper()
	to, err := url.Parse(s.url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	b.host = to.Host
	b.mu.Unlock()
	b.do(chromedp.Navigate(s.url + path))
}

// fill types into the fields of the form with an action, by name, sends it and
// waits for the page it leads to.
func (b *browser) fill(action string, pairs ...string) {
	b.t.Helper()
	form := `form[action$="` + action + `"], form:not([action])`
	for i := 0; i < len(pairs); i += 2 {
		if !ask[bool](b, fmt.Sprintf(`(() => {
			const field = document.querySelector(%q)?.elements.namedItem(%q);
			if (field) field.value = %q;
			return !!field;
		})()`, form, pairs[i], pairs[i+1])) {
			b.t.Fatalf("%s has no field %s:\n%s", action, pairs[i], b.shows())
		}
	}
	ask[bool](b, fmt.Sprintf(`(() => { window.old = true; document.querySelector(%q).requestSubmit(); return true; })()`, form))
	b.until("the form leads to another page", func() bool {
		there, ok := look[bool](b, `!window.old && document.readyState === "complete"`)
		return there && ok
	})
}

// until asks until the answer is yes; between two documents there may be none.
func (b *browser) until(what string, ok func() bool) {
	b.t.Helper()
	eventually(b.t, 30*time.Second, what, ok)
}

func (b *browser) reads(what string) {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(b.shows(), what) {
		if time.Now().After(deadline) {
			b.t.Fatalf("the page does not show %q:\n%s", what, b.shows())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// accessible lets axe-core look at the page in both themes, and checks on a
// telephone and a large screen that nothing is wider than the window. All menus are open.
func (b *browser) accessible(axe string) {
	b.t.Helper()
	ask[bool](b, axe+`; document.querySelectorAll("details.menu").forEach(m => m.open = true); true`)
	violations := func(where, rules string) {
		// Nobody looks at what passes, nor at selectors: without them it takes two thirds of the time.
		options := `{resultTypes: ["violations"], selectors: false, ...` + rules + `}`
		found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](`axe.run(document, `+options+`).then(r =>
			r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 200) + " " + n.failureSummary).join("; ")))`, chromedp.EvalAwaitPromise))
		if err != nil {
			b.t.Fatal(err)
		}
		for _, v := range found {
			b.t.Errorf("%s, %s: %s", ask[string](b, `location.pathname`), where, v)
		}
	}
	// Of the rules, only that of contrast is about colors.
	for theme, rules := range map[string]string{"light": `{}`, "dark": `{runOnly: ["color-contrast"]}`} {
		if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}); err != nil {
			b.t.Fatal(err)
		}
		violations(theme, rules)
	}
	for _, width := range []int64{390, 2560, 1280} {
		b.do(chromedp.EmulateViewport(width, 844))
		if wide := ask[int64](b, `document.documentElement.scrollWidth`); wide > width {
			b.t.Errorf("%s is %d pixels wide in a window of %d", ask[string](b, `location.pathname`), wide, width)
		}
		if cut := ask[string](b, `[...document.querySelectorAll("details.menu")].filter(m => m.lastElementChild.getBoundingClientRect().left < 0).map(m => m.outerHTML.slice(0, 200)).join("; ")`); cut != "" {
			b.t.Errorf("%s: a window of %d pixels cuts off a menu: %s", ask[string](b, `location.pathname`), width, cut)
		}
	}
	b.do(chromedp.EmulateViewport(390, 844))
	violations("on a telephone", `{runOnly: ["scrollable-region-focusable"]}`) // more has to be scrolled there
	b.do(chromedp.EmulateViewport(1280, 844))
	ask[bool](b, `(() => { document.querySelectorAll("details.menu").forEach(m => m.open = false); return true; })()`)
}

// theHistory is the pages about the history of a project: a filter follows from one to the next,
// and a list is as it was left when one comes back to it.
func (b *browser) theHistory(s *server, axe string) {
	b.t.Helper()
	b.until("the results are in the history", func() bool {
		b.visit(s, "/projects/web-shop/tests")
		return !strings.Contains(b.shows(), "Still counting the results")
	})
	test := ask[string](b, `[...document.querySelectorAll("th a[data-row]")].find(a => a.textContent.includes("fails once then passes")).pathname`)
	b.visit(s, "/projects/web-shop/errors")
	failure := ask[string](b, `document.querySelector("th a[data-row]").pathname`)
	for _, page := range []struct{ path, reads string }{
		{"/projects/web-shop/insights", "Newest failures"},
		{"/projects/web-shop/tests?branch=" + strings.Repeat("no-such-branch-", 10), "Nothing found"},
		{"/projects/web-shop/tests", "Most failures"},
		{"/projects/web-shop/specs", "Fully reported"},
		{"/projects/web-shop/errors", "Occurrences"},
		{test, "By branch"},
		{failure, "Tests with this error"},
	} {
		b.visit(s, page.path)
		b.reads(page.reads)
		ask[bool](b, `(() => { document.querySelectorAll("details.as-table").forEach(d => d.open = true); return true; })()`)
		b.accessible(axe)
	}
	b.visit(s, "/projects/web-shop/tests")
	b.do(chromedp.KeyEvent("/"))
	if got := ask[string](b, `document.activeElement.name`); got != "q" {
		b.t.Errorf("/ goes to %q, want the search for a test", got)
	}
	b.fill("/projects/web-shop/tests", "q", "fails", "branch", "master")
	ask[bool](b, `(() => { const s = document.querySelector("select[name=order]"); s.value = "duration"; s.dispatchEvent(new Event("change", {bubbles: true})); return true; })()`)
	const filtered = "?branch=master&order=duration&q=fails"
	b.until("a list in another order", func() bool {
		search, ok := look[string](b, `document.readyState !== "complete" ? "" :
			[...new URLSearchParams(location.search)].sort().map(p => p.join("=")).join("&")`)
		return ok && "?"+search == filtered
	})
	for _, tab := range []string{"Specs", "Tests"} {
		if got := ask[string](b, fmt.Sprintf(`[...document.querySelectorAll("nav[aria-label=Project] a")].find(a => a.textContent === %q).search`, tab)); got != "?branch=master" {
			b.t.Errorf("the tab %s has the filter %q", tab, got)
		}
	}
	b.do(chromedp.KeyEvent("j"))
	b.click("th a[data-row]")
	b.reads("By branch")
	b.until("the way back to the tests has their filter", func() bool {
		got, ok := look[string](b, `document.querySelector(".crumbs a")?.search ?? ""`)
		return ok && strings.Contains(got, "q=fails") && strings.Contains(got, "order=duration")
	})
}

// theLook is the theme, the menus, the switch between projects, and the way back to
// a filtered list.
func (b *browser) theLook(s *server, run string) {
	b.t.Helper()
	for _, want := range []string{"dark", "light"} {
		b.visit(s, run+"?show=flaky")
		b.click(".theme button[value=" + want + "]")
		b.until("the theme is "+want, func() bool {
			got, ok := look[string](b, `document.readyState === "complete" ? getComputedStyle(document.body).colorScheme + location.search : ""`)
			return ok && got == want+"?show=flaky"
		})
	}
	b.click(".theme button[value=auto]")
	b.until("the theme is that of the browser", func() bool {
		got, ok := look[string](b, `document.readyState === "complete" ? getComputedStyle(document.body).colorScheme : ""`)
		return ok && got == "light dark"
	})

	// The switch lists projects and closes on Escape, and so does a click beside it.
	b.click("#switch > summary")
	b.until("the projects are listed", func() bool { return ask[bool](b, `document.querySelector(".choices a")?.textContent === "Web shop"`) })
	b.do(chromedp.KeyEvent("\x1b"))
	if ask[bool](b, `document.getElementById("switch").open`) {
		b.t.Error("Escape does not close the switch between projects")
	}
	b.click("#switch > summary")
	b.click("h1")
	if ask[bool](b, `document.getElementById("switch").open`) {
		b.t.Error("a click beside it does not close the switch between projects")
	}

	// Who came from a filtered list goes back to it.
	b.visit(s, "/projects/web-shop?status=failed")
	b.visit(s, run)
	if got := ask[string](b, `document.querySelector(".crumbs a").search`); got != "?status=failed" {
		b.t.Errorf("the way back leads to %q", got)
	}
}

// TestTheDashboard is the way of an admin from the first sign-in to a run that
// plays while it is watched, in a real browser that must have nothing to
// complain about.
func TestTheDashboard(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile("axe/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("%v: run scripts/setup", err)
	}
	s := newServer(t, "RUNBELL_ADMIN_EMAIL="+adminEmail, "RUNBELL_ADMIN_PASSWORD="+adminPassword)
	b := newBrowser(t)

	// After signing in, people come back to where they wanted to go.
	b.visit(s, "/new-project")
	b.reads("Sign in")
	b.accessible(string(axe))
	b.fill("/signin", "email", adminEmail, "password", adminPassword)
	b.reads("New project")
	b.accessible(string(axe))
	b.fill("/new-project", "name", "Web shop", "branch", "master")
	b.reads("Record key.")
	b.accessible(string(axe))
	key := ask[string](b, `document.getElementById("record-key").textContent`)
	if !ask[bool](b, `[...document.querySelectorAll("[data-copy]")].every(b => !b.hidden)`) {
		t.Error("what can be copied has no button")
	}

	// The feed waits for the first run, and shows it without being asked.
	b.visit(s, "/projects/web-shop")
	b.reads("No runs yet.")
	b.accessible(string(axe))
	const evil = `<img src=x onerror="window.pwned=1">`
	m := recordedRunOf(t, s, "web-shop", key, map[string]any{"ciBuildId": "build-1 " + evil, "tags": []string{evil, "مرحبا", "🚀 rocket"}})
	b.reads("feat: change button colour")
	b.accessible(string(axe))
	if ask[bool](b, `!!window.pwned`) {
		t.Error("what a reporter sent was run")
	}

	// The page follows a running run; what the reader unfolded stays.
	path := strings.TrimPrefix(m.RunURL, s.url)
	b.visit(s, path)
	b.reads("Live")
	ask[bool](b, `(() => { window.here = true; document.getElementById("cancel").open = true; return true; })()`)
	b.accessible(string(axe))
	played := make(chan error, 1)
	go func() { played <- m.Run(t.Context()) }()
	b.reads("before hook broke")
	if err := <-played; err != nil {
		t.Fatal(err)
	}
	b.until("the run ends on the page", func() bool {
		return ask[bool](b, `/failed/i.test(document.querySelector("h1 .pill").textContent) && !document.getElementById("main").dataset.live`)
	})
	if !ask[bool](b, `window.here === true && document.title.startsWith("Failed")`) {
		t.Error("the page was loaded again instead of updated")
	}
	if !ask[bool](b, `[...document.querySelectorAll("time:not([data-since], [data-day])")].every(t => t.title && !t.textContent.includes("UTC"))`) {
		t.Error("times are not told as the reader's clock does")
	}
	b.accessible(string(axe))
	b.visit(s, path+"#as-text")
	b.until("a link to something folded unfolds it", func() bool { return ask[bool](b, `document.getElementById("as-text").open`) })
	if n := ask[int64](b, `document.querySelectorAll(".failure [data-copy]:not([hidden])").length`); n < 3 {
		t.Errorf("%d errors can be copied", n)
	}

	// A webhook: its form shows what it would have sent, a test shows what is answered.
	r := testkit.NewReceiver(t)
	b.visit(s, "/projects/web-shop/webhooks")
	b.reads("No webhooks yet.")
	b.accessible(string(axe))
	b.visit(s, "/projects/web-shop/webhooks/new")
	b.reads("RUN_FINISH")
	ask[bool](b, `(() => {
		const field = document.querySelector("[name=branches]");
		field.value = "nothing-like-it";
		field.dispatchEvent(new Event("input", {bubbles: true}));
		return true;
	})()`)
	b.reads("No deliveries for the latest 1 run.")
	b.accessible(string(axe))
	b.fill("/webhooks/new", "url", r.URL+"/"+strings.Repeat("a-long-path/", 100), "branches", strings.Repeat("no-such-branch-", 10))
	b.reads("Signing secret:")
	b.visit(s, "/projects/web-shop/webhooks/new")
	b.fill("/webhooks/new", "url", r.URL+"/chat", "label", "chat", "branches", "")
	b.reads("Signing secret:")
	b.accessible(string(axe))
	r.Expect("/chat", ask[string](b, `document.getElementById("secret").textContent`))
	b.fill("/test", "event", "RUN_FINISH")
	b.reads("Response 200")
	b.accessible(string(axe))
	if got := ask[string](b, `document.querySelector("h1 .pill").textContent.trim()`); got != "Delivered" {
		t.Errorf("the test is %q", got)
	}
	hook := ask[string](b, `new URL(document.querySelector(".crumbs .of-hook").href).pathname`)
	for _, page := range []struct{ path, reads string }{
		{hook, "Created by ada."},
		{hook + "/edit", "Save"},
		{hook + "/replay", "Preview count"},
		{"/projects/web-shop/webhooks", "chat"},
		{"/deliveries", "1 not used yet"},
		{"/projects/web-shop/webhooks/events", "Event catalog"},
		{"/docs/", "Changelog"},
		{"/docs/webhooks", "Webhooks"},
	} {
		b.visit(s, page.path)
		b.reads(page.reads)
		b.accessible(string(axe))
	}

	// Cancel another one, with a reason.
	second := recordedRunOf(t, s, "web-shop", key, map[string]any{"ciBuildId": "build-2"})
	b.visit(s, strings.TrimPrefix(second.RunURL, s.url))
	b.fill("/cancel", "reason", "wrong branch")
	b.reads("wrong branch")

	for _, page := range []struct{ path, reads string }{
		{"/", "0% of 2 runs passed"},
		{"/projects/web-shop?branch=master&status=Canceled", "build-2"},
		{"/projects/web-shop/settings", "Record keys"},
		{path + "/specs", "5 specs"},
		{path + "/spec?file=cypress%2Fe2e%2Fd_skips.cy.js", "before hook broke"},
		{"/people", "Invite someone"},
		{"/keys", "New key"},
		{"/account", "Sign out everywhere else"},
	} {
		b.visit(s, page.path)
		b.reads(page.reads)
		b.accessible(string(axe))
	}

	b.theHistory(s, string(axe))
	b.theLook(s, path)

	// Keys: / to search, j for the next run.
	b.visit(s, "/projects/web-shop")
	b.do(chromedp.KeyEvent("j"))
	if !ask[bool](b, `document.activeElement.matches("[data-row]")`) {
		t.Error("j does not go to a run")
	}
	// The driver would also type the slash. Escape would then clear the field, which loads the page again.
	ask[bool](b, `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "/", bubbles: true}))`)
	if !ask[bool](b, `document.activeElement.matches("input[type=search]")`) {
		t.Error("/ does not go to the search")
	}
	b.do(chromedp.KeyEvent("\x1b"))
	if ask[bool](b, `document.activeElement.matches("input")`) {
		t.Error("Escape does not leave the search")
	}
	b.fill("/projects/web-shop", "q", "build-2")
	b.reads("build-2")
	if got := ask[string](b, `location.search`); got != "?q=build-2" {
		t.Errorf("the filter stands in the address as %q", got)
	}

	// Without scripts, pages reload themselves.
	b.fill("/signout")
	b.reads("Forgot your password?")
}
