package e2e

import (
	"bytes"
	"fmt"
	"image/png"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"runbell/internal/client"
)

// telephone is how wide the window of a telephone is.
const telephone = 390

// fits checks that the page, with its tables, does not scroll sideways, and that nothing that can be clicked
// is beyond the left edge, where no scrolling leads.
func (b *browser) fits() {
	b.t.Helper()
	at := ask[string](b, `(() => { document.querySelectorAll("details.as-table").forEach(d => d.open = true); return location.pathname; })()`)
	if wide := ask[int64](b, `document.scrollingElement.scrollWidth`); wide > telephone {
		b.t.Errorf("%s is %d pixels wide in a window of %d", at, wide, telephone)
	}
	for _, cut := range ask[[]string](b, `[...document.querySelectorAll("body > :not(.to-main) :is(a, button, summary, input, select)")]
		.filter(e => e.checkVisibility() && e.getBoundingClientRect().left < 0 && !e.closest(".sub nav, .hidden")).map(e => e.outerHTML.slice(0, 200))`) {
		b.t.Errorf("%s: the left edge cuts off %s", at, cut)
	}
}

// shadows says at which edges an element shows that there is more to scroll to: where its first pixels have
// another color than its middle.
func (b *browser) shadows(selector string) (left, right bool) {
	b.t.Helper()
	box := ask[[]int](b, fmt.Sprintf(`(() => {
		document.querySelector(%[1]q).scrollIntoView({block: "start"});
		const box = document.querySelector(%[1]q).getBoundingClientRect();
		return [box.left, box.right, box.top].map(Math.round);
	})()`, selector))
	file, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		b.t.Fatal(err)
	}
	y := box[2] + 2 // above all text
	middle := picture.At((box[0]+box[1])/2, y)
	return picture.At(box[0]+1, y) != middle, picture.At(box[1]-2, y) != middle
}

// refused visits a page that the server refuses with a status, which the browser notes as a fault of the page.
func (b *browser) refused(s *server, path string, status int, reads string) {
	b.t.Helper()
	b.mu.Lock()
	before := len(b.faults)
	b.mu.Unlock()
	b.visit(s, path)
	b.reads(reads)
	b.until("the browser has noted the status", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.faults) >= before+2
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	others := slices.DeleteFunc(b.faults[before:], func(fault string) bool {
		return strings.HasSuffix(fault, s.url+path) && strings.Contains(fault, fmt.Sprint(status))
	})
	b.faults = b.faults[:before+len(others)]
}

// TestATelephone walks through the pages of a project with long names on a narrow screen.
func TestATelephone(t *testing.T) {
	t.Parallel()
	s := newServer(t, "RUNBELL_ADMIN_EMAIL="+adminEmail, "RUNBELL_ADMIN_PASSWORD="+adminPassword)
	long := func(word string) string { return strings.Repeat(word+"-", 20) }
	key := s.project("shop", map[string]any{"name": strings.Repeat("A shop of many words ", 8), "publicRunLinks": true})
	m := recordedRunOf(t, s, "shop", key, map[string]any{"ciBuildId": long("build"), "group": long("chrome"),
		"tags": []string{long("smoke"), "nightly"}, "commit": map[string]any{"sha": strings.Repeat("c0ffee", 6),
			"branch": "feature/" + long("checkout"), "authorName": long("Jane"), "message": strings.Repeat("keep the session alive ", 8)}})
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	hook, _ := s.webhook("shop", client.WebhookSettings{URL: new("https://hooks.example.test/" + long("path")), Label: client.Set(long("chat"))})
	b := newBrowser(t)
	b.do(chromedp.EmulateViewport(telephone, 844))
	b.visit(s, "/signin")
	b.fits()
	b.fill("/signin", "email", adminEmail, "password", adminPassword)
	run := strings.TrimPrefix(m.RunURL, s.url)
	b.until("the results are in the history", func() bool {
		b.visit(s, "/projects/shop/errors")
		return ask[bool](b, `!!document.querySelector("th a[data-row]")`)
	})
	failure := ask[string](b, `document.querySelector("th a[data-row]").pathname`)
	b.visit(s, "/projects/shop/tests")
	test := ask[string](b, `document.querySelector("th a[data-row]").pathname`)
	spec := "/spec?" + url.Values{"file": {"cypress/e2e/b_fail.cy.js"}, "group": {long("chrome")}}.Encode()
	for _, path := range []string{"/", "/people", "/keys", "/deliveries", "/account", "/new-project", "/projects/shop",
		"/projects/shop?branch=feature%2F" + long("checkout"), run, run + "/specs", run + spec, "/projects/shop/insights", "/projects/shop/tests", test,
		"/projects/shop/specs", "/projects/shop/errors", failure, "/projects/shop/webhooks", "/projects/shop/webhooks/new",
		"/projects/shop/webhooks/events", "/projects/shop/webhooks/" + hook, "/projects/shop/webhooks/" + hook + "/edit",
		"/projects/shop/webhooks/" + hook + "/replay", "/projects/shop/settings", "/docs/", "/docs/configuration", "/docs/webhooks", "/v1/docs"} {
		b.visit(s, path)
		b.fits()
	}
	b.visit(s, run+spec)
	if high := ask[int64](b, `document.querySelector(".crumbs").offsetHeight`); high > 40 {
		t.Errorf("the way back to a run with a long title is %d pixels high, more than a line", high)
	}
	if at := ask[string](b, `document.querySelector("time[data-exact]").textContent`); !regexp.MustCompile(`, \d\d:\d\d$`).MatchString(at) {
		t.Errorf("an exact time reads %q, not as logs of CI write it", at)
	}
	b.theTabs(s)
	b.visit(s, "/docs/configuration")
	if left, right := b.shadows(".wide"); left || !right {
		t.Errorf("a wide table shows a shadow on the left: %v, on the right: %v", left, right)
	}
	ask[bool](b, `(() => { const wide = document.querySelector(".wide"); wide.scrollTo(wide.scrollWidth, 0); return true; })()`)
	if left, right := b.shadows(".wide"); !left || right {
		t.Errorf("at the end of a wide table there is a shadow on the left: %v, on the right: %v", left, right)
	}
}

// theTabs are more than fit: the bar scrolls to the tab of the page, and a shadow says where there are more.
func (b *browser) theTabs(s *server) {
	b.t.Helper()
	for _, tab := range []struct {
		path        string
		left, right bool
	}{{"", false, true}, {"/settings", true, false}} {
		b.visit(s, "/projects/shop"+tab.path)
		b.until("the tab of "+tab.path+" is in view", func() bool {
			return ask[bool](b, `(() => {
				const bar = document.querySelector(".sub nav"), outer = bar.getBoundingClientRect();
				const inner = bar.querySelector("[aria-current]").getBoundingClientRect();
				return bar.scrollWidth > bar.clientWidth && inner.left >= outer.left && inner.right <= outer.right + 1;
			})()`)
		})
		if left, right := b.shadows(".sub nav"); left != tab.left || right != tab.right {
			b.t.Errorf("%s: the bar of tabs has a shadow on the left: %v, on the right: %v", tab.path, left, right)
		}
	}
}

// TestTheFirstPages are those of people who are not in yet, or not allowed.
func TestTheFirstPages(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile("axe/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("%v: run scripts/setup", err)
	}
	s := newServer(t)
	s.project("shop", nil)
	b := newBrowser(t)
	page := func(path, reads string) {
		t.Helper()
		b.visit(s, path)
		b.reads(reads)
		b.accessible(string(axe))
	}
	refused := func(path string, status int, reads string) {
		t.Helper()
		b.refused(s, path, status, reads)
		b.accessible(string(axe))
	}
	page("/signin", "There are no accounts yet.")
	link := regexp.MustCompile(regexp.QuoteMeta(s.url) + `(/invite/\w+)`)
	eventually(t, 10*time.Second, "the server prints a link", func() bool { return link.MatchString(s.log.String()) })
	setup := link.FindStringSubmatch(s.log.String())[1]
	page(setup, "Set up Runbell")
	b.fill("", "email", adminEmail, "name", "Ada", "password", adminPassword)
	b.reads("Projects")
	b.fill("/signout")
	refused(setup, 404, "ask for a new link")

	var invited struct{ InviteURL string }
	s.call("POST", "/users", map[string]any{"email": "vera@example.test", "role": "viewer"}, &invited)
	page(strings.TrimPrefix(invited.InviteURL, s.url), "invited as a viewer")
	b.fill("", "name", "Vera", "password", adminPassword)
	b.reads("Projects")
	refused("/people", 403, "This page is for admins. You are signed in as Vera (viewer).")
	refused("/projects/shop/settings", 403, "This page is for admins.")
	refused("/nothing-here", 404, "There is no page at this address.")
	s.call("POST", "/users", map[string]any{"email": "vera@example.test", "role": "viewer"}, &invited)
	page(strings.TrimPrefix(invited.InviteURL, s.url), "Reset your password")
	b.fill("/signout")
	page("/projects/shop", "Sign in")
}
