package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"runbell/internal/replay"
)

// demoFile is a file of the demo's recording, see [replay.Player.Files].
func demoFile(spec, screenshotID string) []byte {
	name := screenshotID + ".png"
	if screenshotID == "" {
		name = path.Base(spec) + ".mp4"
	}
	file, err := os.ReadFile("../internal/app/demodata/" + name)
	if err != nil {
		return nil
	}
	return file
}

// TestPicturesAndVideosAreShown: a browser shows what was uploaded, keys lead from one
// failure's picture to the next, and a video begins where the test does.
func TestPicturesAndVideosAreShown(t *testing.T) {
	t.Parallel()
	s := newServer(t, "RUNBELL_ADMIN_EMAIL="+adminEmail, "RUNBELL_ADMIN_PASSWORD="+adminPassword)
	key := s.project("shop", map[string]any{"publicRunLinks": true})
	file, err := os.ReadFile("../internal/app/demodata/run.json")
	if err != nil {
		t.Fatal(err)
	}
	recording, err := replay.Load(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	m, err := replay.Player{Recording: recording, URL: s.url, Files: demoFile,
		Change: map[string]any{"projectId": "shop", "recordKey": key, "ciBuildId": "build-1", "group": nil}}.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	b.do(chromedp.EmulateViewport(1280, 844), chromedp.Navigate(m.RunURL))
	is := func(what, script string) {
		t.Helper()
		b.until(what, func() bool { return ask[bool](b, script) })
	}
	const shown = `document.querySelector("#viewer .shown > *")`
	titled := func(title string) {
		t.Helper()
		is(title, fmt.Sprintf(`document.getElementById("viewer").open && document.getElementById("viewer-title").textContent === %q`, title))
	}
	is("the pictures of the open failure", `[...document.querySelectorAll(".failed-test[open] img")].filter(i => i.complete && i.naturalWidth === 1000).length === 3`)
	axe, err := os.ReadFile("axe/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	b.accessible(string(axe))
	b.do(chromedp.Navigate(m.RunURL), chromedp.KeyEvent("n"), chromedp.KeyEvent("s"))
	titled("b › fails, attempt 1")
	is("a large picture", shown+`.complete && `+shown+`.naturalWidth === 1000`)
	b.accessible(string(axe))
	if ask[bool](b, `!!document.querySelector("[data-share]")`) {
		t.Error("a stranger may share")
	}
	b.do(chromedp.KeyEvent(kb.ArrowRight))
	titled("b › fails, attempt 2")
	b.do(chromedp.KeyEvent("n"))
	titled("d › broken hook › fails because of hook")
	b.do(chromedp.KeyEvent(kb.Escape))
	is("the failure of the picture", `!document.getElementById("viewer").open && document.activeElement.closest("details.failed-test[open]").textContent.includes("before hook broke")`)
	b.do(chromedp.KeyEvent("v"))
	titled("d › broken hook › fails because of hook")
	is("the video, from where the test begins", shown+`.localName === "video" && `+shown+`.readyState >= 2 && `+shown+`.currentTime >= 2.5 && `+shown+`.videoWidth > 0`)
	b.do(chromedp.KeyEvent(kb.Escape))
	for _, name := range []string{"b_fail", "d_skips"} {
		b.do(chromedp.Navigate(ask[string](b, fmt.Sprintf(`[...document.links].find(a => a.href.includes("/spec?") && a.href.includes(%q)).href`, name))))
		is("a player", `document.querySelector("video.player").readyState >= 1 && document.querySelector("video.player").duration > 3`)
		b.click(`[data-view=video][href*="#t=2"]`)
		is("the video at the time of the test", shown+`.readyState >= 2 && `+shown+`.currentTime > 2`)
		if strings.Contains(b.shows(), "No video") {
			t.Error("a video is missing")
		}
		// The event that the viewer was closed comes after it is open again.
		ask[bool](b, `(() => {
			const viewer = document.getElementById("viewer");
			viewer.addEventListener("close", () => (viewer.dataset.heard = "close"));
			viewer.close();
			document.querySelector("[data-view=video]").click();
			return true;
		})()`)
		is("the event", `document.getElementById("viewer").dataset.heard === "close"`)
		if !ask[bool](b, `!!`+shown) {
			t.Error("a viewer that was closed and opened at once is empty")
		}
		b.do(chromedp.Navigate(m.RunURL))
	}
	// A person who has signed in gets a link for people who cannot.
	b.visit(s, "/signin")
	b.fill("/signin", "email", adminEmail, "password", adminPassword)
	b.do(chromedp.Navigate(m.RunURL), chromedp.KeyEvent("n"), chromedp.KeyEvent("s"))
	titled("b › fails, attempt 1")
	b.click("[data-share]")
	is("a link to share", `document.getElementById("shared").textContent.includes("signature=") && document.querySelector("#viewer .share").innerText.startsWith("Anyone with this link sees the file until ")`)
	b.accessible(string(axe))
	resp, err := http.Get(ask[string](b, `document.getElementById("shared").textContent`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "image/png" {
		t.Errorf("the link that is shared: %s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
}
