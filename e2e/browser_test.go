package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"runbell/internal/replay"
)

// browser is a tab of a Chromium of its own, and what went wrong in it.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	faults []string
	host   string // the only one that pages may talk to, once it is known
}

// newBrowser starts Chromium. It ends with the test, and fails it if a page
// complained about anything.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Fatal("there is no Chromium to show pages in: apt-get install chromium, or run scripts/setup")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.NoSandbox, // it shows our own pages only, and tests may run as root
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-proxy-server", true), // the server is on this machine
		chromedp.UserDataDir(t.TempDir()),
	)
	end, limited := t.Deadline()
	if !limited {
		end = time.Now().Add(time.Hour)
	}
	ctx, cancel := context.WithDeadline(context.Background(), end.Add(-10*time.Second)) // in time to say what it waits for
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	ctx, closeTab := chromedp.NewContext(ctx)
	b := &browser{t: t, ctx: ctx}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil { // waits until it has ended
			t.Errorf("end Chromium: %v", err)
		}
		closeTab()
		stop()
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, f := range b.faults {
			t.Error("browser:", f)
		}
	})
	if err := chromedp.Listen(ctx, b.heard); err != nil {
		t.Fatal(err)
	}
	return b
}

// heard notes the errors in the developer tools.
func (b *browser) heard(event any) {
	fault := ""
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		to, err := url.Parse(e.Request.URL)
		b.mu.Lock()
		host := b.host
		b.mu.Unlock()
		if err != nil || host != "" && to.Host != "" && to.Host != host {
			fault = "a request to " + e.Request.URL
		}
	case *runtime.EventConsoleAPICalled:
		fault = fmt.Sprint("console: ", e.Type)
	case *runtime.EventExceptionThrown:
		fault = fmt.Sprint("exception: ", e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		fault = fmt.Sprint(e.Entry.Level, ": ", e.Entry.Text, " ", e.Entry.URL)
	case *network.EventLoadingFailed:
		if !e.Canceled {
			fault = fmt.Sprint("not loaded: ", e.Type, " ", e.ErrorText, " ", e.BlockedReason)
		}
	case *network.EventResponseReceived:
		if e.Response.Status >= 400 {
			fault = fmt.Sprint(e.Response.Status, " for ", e.Response.URL)
		}
	}
	if fault == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, fault)
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

// ask evaluates JavaScript.
func ask[T any](b *browser, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script))
	if err != nil {
		b.t.Fatalf("browser: %s: %v", script, err)
	}
	return v
}

// look is ask for scripts that only look. It answers false between two documents,
// when the one that was asked is gone.
func look[T any](b *browser, script string) (T, bool) {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script))
	if _, gone := errors.AsType[*cdproto.Error](err); gone {
		return v, false
	}
	if err != nil {
		b.t.Fatalf("browser: %s: %v", script, err)
	}
	return v, true
}

// click clicks on the first element that a selector finds, once the page is complete and has one.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.until("there is "+selector, func() bool {
		there, ok := look[bool](b, fmt.Sprintf(`(() => {
			const to = document.readyState === "complete" ? document.querySelector(%q) : null;
			to?.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
			return !!to;
		})()`, selector))
		return ok && there
	})
}

// shows is the text of the page that a reader sees: what is hidden or folded
// away is not in it.
func (b *browser) shows() (text string) {
	b.t.Helper()
	b.until("there is a page", func() (ok bool) {
		text, ok = look[string](b, `document.body?.innerText ?? ""`)
		return ok
	})
	return text
}

// recordedRun joins the run of a recording: five specs that pass, fail, flake,
// have a broken hook, and do not compile.
func recordedRun(t *testing.T, s *server, key, build string) *replay.Machine {
	t.Helper()
	return recordedRunOf(t, s, "shop", key, map[string]any{"ciBuildId": build})
}

// recordedRunOf is recordedRun in a project, with fields of the join changed.
func recordedRunOf(t *testing.T, s *server, project, key string, change map[string]any) *replay.Machine {
	t.Helper()
	f, err := os.Open("../internal/intake/cypress/testdata/ccy-vs-sorrycypress-single-machine.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	recording, err := replay.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{"projectId": project, "recordKey": key, "group": nil}
	maps.Copy(all, change)
	m, err := replay.Player{Recording: recording, URL: s.url, Change: all}.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestThePageOfARun shows a failed run to a browser: what failed and why can be
// read at once, on a telephone too.
func TestThePageOfARun(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	m := recordedRun(t, s, s.project("shop", map[string]any{"publicRunLinks": true}), "build-1")
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	b.do(chromedp.Navigate(m.RunURL))
	page := b.shows()
	for _, want := range []string{"build-1", "fails because of hook", "before hook broke", `expected "blue" to equal "green"`,
		"Cannot find module", "cypress/e2e/b_fail.cy.js"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not show %q:\n%s", want, page)
		}
	}
	for _, width := range []int64{390, 1280} {
		b.do(chromedp.EmulateViewport(width, 844), chromedp.Navigate(m.RunURL))
		if wide := ask[int64](b, `document.documentElement.scrollWidth`); wide > width {
			t.Errorf("the page is %d pixels wide in a window of %d: it scrolls sideways", wide, width)
		}
	}
	b.theTimesOfARun()
	b.theKeysOfARun(m.RunURL)
	// Every link leads somewhere; the browser notes what does not load.
	for _, link := range ask[[]string](b, `[...document.links].filter(a => a.origin === location.origin).map(a => a.href)`) {
		b.do(chromedp.Navigate(link))
		if title := ask[string](b, `document.title`); title == "" {
			t.Errorf("%s has no title", link)
		}
	}
}

// theTimesOfARun are written with 24 hours and the month as a word, as the server does.
func (b *browser) theTimesOfARun() {
	b.t.Helper()
	times := ask[[]string](b, `[...document.querySelectorAll("time[data-exact]")].map(t => t.textContent)`)
	if len(times) == 0 {
		b.t.Error("the page has no exact time")
	}
	for _, text := range times {
		if !regexp.MustCompile(`^\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d$`).MatchString(text) {
			b.t.Errorf("a time is written as %q", text)
		}
	}
}

// theKeysOfARun goes through the failures of the recorded run by keys, filters by
// a number, finds a spec, and copies what failed.
func (b *browser) theKeysOfARun(runURL string) {
	b.t.Helper()
	b.do(chromedp.Navigate(runURL))
	focused := func() string { return ask[string](b, `document.activeElement.innerText ?? ""`) }
	for _, step := range []struct{ key, want string }{
		{"n", "b › fails"}, {"n", "fails because of hook"}, {"]", "Spec crashed"}, {"p", "fails because of hook"}, {"[", "b › fails"},
		{"j", "fails because of hook"}, {"k", "b › fails"},
	} {
		b.do(chromedp.KeyEvent(step.key))
		if got := focused(); !strings.Contains(got, step.want) {
			b.t.Errorf("%s goes to %q, want %q", step.key, got, step.want)
		}
	}
	open := `document.activeElement.closest("details").open`
	was := ask[bool](b, open)
	b.do(chromedp.KeyEvent("o"))
	if ask[bool](b, open) == was {
		b.t.Error("o does not open or close a failure")
	}
	b.do(chromedp.KeyEvent("?"))
	if !ask[bool](b, `document.getElementById("shortcuts").open`) {
		b.t.Error("? does not list the shortcuts")
	}
	ask[bool](b, `(() => { document.getElementById("shortcuts").close(); return true; })()`)
	b.do(chromedp.KeyEvent("/"))
	if got := ask[string](b, `document.activeElement.name`); got != "q" {
		b.t.Errorf("/ goes to %q, want the search for a spec", got)
	}
	b.fill("#specs", "q", "FLAKY")
	if n := ask[int64](b, `document.querySelectorAll(".specs > .spec").length`); n != 1 {
		b.t.Errorf("a search finds %d specs, want 1", n)
	}
	b.do(chromedp.Navigate(runURL))
	b.click(".numbers .flaky a")
	b.until("the list has the flaky specs only", func() bool {
		n, ok := look[int64](b, `document.querySelectorAll(".specs > .spec").length`)
		return ok && n == 1
	})
	if !strings.Contains(b.shows(), "b › fails") {
		b.t.Error("the failures are gone where only flaky specs are listed")
	}
	b.do(chromedp.Navigate(runURL))
	// What is served without https has no clipboard; copying works there, too.
	ask[bool](b, `(() => {
		Object.defineProperty(navigator, "clipboard", {value: undefined});
		document.querySelector(".run-head [data-copy]").click();
		return true;
	})()`)
	b.until("the failures are copied", func() bool {
		return ask[bool](b, `document.querySelector(".run-head [data-copy]").textContent === "Copied" && getSelection().toString().includes("before hook broke")`)
	})
}

// TestThePageOfARunningRun: the page of a run shows its end by itself.
func TestThePageOfARunningRun(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	m := recordedRun(t, s, s.project("shop", map[string]any{"publicRunLinks": true}), "build-1")
	b := newBrowser(t)
	b.do(chromedp.Navigate(m.RunURL))
	verdict := func() string {
		// The page may be between two documents.
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.querySelector("h1 .pill")?.textContent.trim() ?? ""`))
		if err != nil {
			return ""
		}
		return text
	}
	if got := verdict(); !strings.EqualFold(got, "running") {
		t.Fatalf("a run that has begun is %q", got)
	}
	const ticks = `document.querySelector("time[data-since]").textContent`
	first := ask[string](b, ticks)
	eventually(t, 20*time.Second, "the time of a run goes on", func() bool {
		text, ok := look[string](b, ticks)
		return ok && text != first
	})
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the page says that the run failed", func() bool { return strings.EqualFold(verdict(), "failed") })
	if page := b.shows(); !strings.Contains(page, "before hook broke") || strings.Contains(page, "Live") {
		t.Errorf("the page has not changed as a whole:\n%s", page)
	}
}
