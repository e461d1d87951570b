//go:build cypress

package e2e

import (
	"bytes"
	bigendian "encoding/binary" // binary is the one under test
	"fmt"
	"image/png"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// recorded is a spec of a run as the REST API has it, with its files.
type recorded struct {
	Results *struct {
		Exception   *string
		VideoURL    *string
		Screenshots []struct {
			Name          string
			TestID        *string
			Attempt       int `json:"testAttemptIndex"`
			Height, Width int
			URL           *string `json:"screenshotURL"`
		}
	}
	Tests []struct {
		TestID   string
		Title    []string
		State    string
		Attempts []struct {
			State          string
			VideoTimestamp *float64
		}
	}
}

// recordedSpecs are the specs of the only run, by the name of their file.
func recordedSpecs(t *testing.T, s *server) map[string]recorded {
	t.Helper()
	specs := map[string]recorded{}
	for _, spec := range s.theRun().Specs {
		var r recorded
		if spec.InstanceID == nil {
			t.Fatalf("%s did not run", spec.Spec)
		}
		s.call("GET", "/instances/"+*spec.InstanceID, nil, &r)
		if r.Results == nil {
			t.Fatalf("%s has no results", spec.Spec)
		}
		specs[filepath.Base(spec.Spec)] = r
	}
	return specs
}

// download reads a file as those do who have its address, and no key.
func download(t *testing.T, url string) (contentType string, content []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	content, err = io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return resp.Header.Get("Content-Type"), content
}

// shots says of each screenshot of a spec whose it is, as "test/attempt name", after a
// look at the picture.
func (r recorded) shots(t *testing.T) (list []string) {
	t.Helper()
	titles := map[string]string{}
	for _, test := range r.Tests {
		titles[test.TestID] = test.Title[len(test.Title)-1]
	}
	for _, s := range r.Results.Screenshots {
		whose := "nobody"
		if s.TestID != nil {
			whose = titles[*s.TestID]
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s/%d %s", whose, s.Attempt+1, s.Name)))
		if s.URL == nil {
			t.Errorf("%s was not uploaded", list[len(list)-1])
			continue
		}
		kind, content := download(t, *s.URL)
		picture, err := png.Decode(bytes.NewReader(content))
		if err != nil || kind != "image/png" {
			t.Errorf("%s: %s, %v", list[len(list)-1], kind, err)
		} else if size := picture.Bounds(); size.Dx() != s.Width || size.Dy() != s.Height || s.Width < 500 {
			t.Errorf("%s: %v, and the results say %d×%d", list[len(list)-1], size, s.Width, s.Height)
		}
	}
	slices.Sort(list)
	return list
}

// length is how long the video of a spec lasts, after a look at it; 0 if there is none.
func (r recorded) length(t *testing.T) time.Duration {
	t.Helper()
	if r.Results.VideoURL == nil {
		return 0
	}
	kind, content := download(t, *r.Results.VideoURL)
	if kind != "video/mp4" {
		t.Errorf("the video is %s", kind)
	}
	boxes := mp4Boxes(t, content)
	header := mp4Boxes(t, boxes["moov"])["mvhd"]
	if boxes["ftyp"] == nil || len(boxes["mdat"]) < 10_000 || len(header) < 20 || header[0] != 0 {
		t.Fatalf("the video is no MP4: %d bytes of content, header % x", len(boxes["mdat"]), header)
	}
	scale, units := bigendian.BigEndian.Uint32(header[12:]), bigendian.BigEndian.Uint32(header[16:])
	return time.Duration(units) * time.Second / time.Duration(scale)
}

// mp4Boxes are the boxes of an MP4 file, or of one of its boxes, by type.
func mp4Boxes(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	boxes := map[string][]byte{}
	for len(b) >= 8 {
		size := int(bigendian.BigEndian.Uint32(b))
		if size < 8 || size > len(b) {
			t.Fatalf("a box of %d bytes, %d are left", size, len(b))
		}
		boxes[string(b[4:8])] = b[8:size]
		b = b[size:]
	}
	return boxes
}

// inOrder checks that each attempt of a spec begins in the video, after the one before.
func (r recorded) inOrder(t *testing.T, video time.Duration) {
	t.Helper()
	before := 0.0
	for _, test := range r.Tests {
		for n, a := range test.Attempts {
			if test.State == "skipped" && a.VideoTimestamp == nil {
				continue
			}
			if a.VideoTimestamp == nil || *a.VideoTimestamp <= before || *a.VideoTimestamp >= float64(video.Milliseconds()) {
				t.Errorf("attempt %d of %q begins at %v of %v, the one before at %v", n+1, test.Title, a.VideoTimestamp, video, before)
				return
			}
			before = *a.VideoTimestamp
		}
	}
}

// TestRealCypressRecordsPictures: screenshots are real and belong to the attempts that
// took them, videos are real and say where each attempt begins; a project that wants
// no videos of specs that pass uploads none, and a spec that crashes costs no other file.
func TestRealCypressRecordsPictures(t *testing.T) {
	p := realCypress(t, map[string]string{
		"cypress.config.js": `module.exports = { retries: 1, video: true, videoUploadOnPasses: false, e2e: { supportFile: false, setupNodeEvents (on) {
  on('task', { crash () { process.kill(process.ppid, 'SIGKILL'); return null } }) } } }
`,
		"cypress/e2e/a.cy.js": `describe('shop', () => {
  it('fails', () => { cy.wait(1000).then(() => { throw new Error('no') }) })
  it('is "flaky"/slow: 50 %', () => { cy.wait(1000); cy.screenshot('mine'); cy.screenshot(); cy.wait(10).then(() => expect(Cypress.currentRetry).to.equal(1)) })
  it('passes', () => { cy.wait(1000); cy.screenshot('folder/of its own') })
  describe('inner', () => { beforeEach(() => { throw new Error('the hook broke') }); it('has no chance', () => {}); it('is skipped', () => {}) })
})
`,
		"cypress/e2e/b.cy.js": "it('passes', () => { cy.screenshot() })\n",
		"cypress/e2e/c.cy.js": "it('crashes', () => { cy.screenshot('before the crash'); cy.wait(500); cy.task('crash') })\n",
	})
	s := newServer(t)
	code, out := p.record(t, s.url, s.project("shop", map[string]any{"publicRunLinks": true})).waitFor(t, patience)
	if code != 3 { // two tests failed, and a spec crashed
		t.Errorf("exit code %d\n%s", code, out)
	}
	specs := recordedSpecs(t, s)
	a, b, c := specs["a.cy.js"], specs["b.cy.js"], specs["c.cy.js"]
	want := []string{`fails/1`, `fails/2`, `has no chance/1`, `has no chance/2`, `is "flaky"/slow: 50 %/1`, `is "flaky"/slow: 50 %/1`, `is "flaky"/slow: 50 %/1 mine`,
		`is "flaky"/slow: 50 %/2`, `is "flaky"/slow: 50 %/2 mine`, `passes/1 folder/of its own`}
	if got := a.shots(t); !slices.Equal(got, want) {
		t.Errorf("screenshots\n%q, want\n%q", got, want)
	}
	if video := a.length(t); video < 6*time.Second {
		t.Errorf("a video of %v shows tests of more than 6 s", video)
	} else {
		a.inOrder(t, video)
	}
	if got := b.shots(t); len(got) != 1 || b.Results.VideoURL != nil {
		t.Errorf("the spec that passes has screenshots %q and video %v", got, b.Results.VideoURL)
	}
	if c.Results.Exception == nil || c.Results.VideoURL != nil || len(c.Results.Screenshots) != 0 {
		t.Errorf("the spec that crashed: %+v", c.Results)
	}
	if n := len(filesBelow(t, filepath.Join(s.dir, "artifacts"))); n != len(want)+2 {
		t.Errorf("%d files are stored, want %d", n, len(want)+2)
	}
	a.shown(t, s.url+"/run/"+s.theRun().RunID, "a.cy.js", len(want))
}

// shown checks that Chromium shows all pictures of a spec, and plays its video from where each attempt begins.
func (r recorded) shown(t *testing.T, runURL, file string, pictures int) {
	t.Helper()
	b := newBrowser(t)
	is := func(what, script string) {
		t.Helper()
		b.until(what, func() bool { return ask[bool](b, script) })
	}
	b.do(chromedp.EmulateViewport(1280, 844), chromedp.Navigate(runURL))
	b.do(chromedp.Navigate(ask[string](b, fmt.Sprintf(`[...document.links].find(a => a.href.includes("/spec?") && a.href.includes(%q)).href`, file))))
	is("the player", `document.querySelector("video.player").readyState >= 1`)
	seconds := ask[float64](b, `document.querySelector("video.player").duration`)
	if want := r.length(t).Seconds(); math.Abs(seconds-want) > .5 {
		t.Errorf("the player has a video of %.2f s, and the file one of %.2f s", seconds, want)
	}
	ask[bool](b, `(() => { for (const i of document.images) i.loading = "eager"; for (const d of document.querySelectorAll("details")) d.open = true; return true; })()`)
	is("all pictures", fmt.Sprintf(`[...document.querySelectorAll("[data-view=picture] img")].filter(i => i.complete && i.naturalWidth >= 500).length === %d`, pictures))

	begins := ask[[]float64](b, `[...document.querySelectorAll("a[data-view=video]")].map(a => Number(a.hash.slice(3)))`)
	attempts := 0
	for _, test := range r.Tests {
		for _, a := range test.Attempts {
			if a.VideoTimestamp != nil && a.State == "failed" {
				attempts++
			}
		}
	}
	if len(begins) != attempts || attempts == 0 {
		t.Errorf("%d links lead into the video, want one for each of %d failed attempts: %v", len(begins), attempts, begins)
	}
	const video = `document.querySelector("#viewer .shown video")`
	for n, begin := range begins {
		ask[bool](b, fmt.Sprintf(`(() => { document.querySelectorAll("a[data-view=video]")[%d].click(); return true; })()`, n))
		is("the video where the attempt begins", fmt.Sprintf(`%[1]s.readyState >= 2 && !%[1]s.seeking && %[1]s.videoWidth > 0 && %[1]s.currentTime >= %[2]f - .1`, video, begin))
		// What was recorded is played, not only opened.
		ask[bool](b, `(() => { const v = `+video+`; v.muted = true; v.play(); return true; })()`)
		is("the video plays", fmt.Sprintf(`%[1]s.currentTime > Math.min(%[2]f + .2, %[1]s.duration - .1) && %[1]s.currentTime < %[2]f + 5`, video, begin))
		b.do(chromedp.KeyEvent(kb.Escape))
	}
}

// TestRealCypressRecordsCompressed: a video that Cypress compresses after the spec is
// uploaded as it is then; without screenshots of failures there are only those that tests take.
func TestRealCypressRecordsCompressed(t *testing.T) {
	p := realCypress(t, map[string]string{
		"cypress.config.js": `module.exports = { video: true, videoCompression: 32, screenshotOnRunFailure: false, e2e: { supportFile: false } }
`,
		"cypress/e2e/a.cy.js": "it('passes', () => { cy.wait(1500); cy.screenshot('mine') })\nit('fails', () => { cy.wait(1500).then(() => { throw new Error('no') }) })\n",
	})
	s := newServer(t)
	code, out := p.record(t, s.url, s.project("shop", nil)).waitFor(t, patience)
	if code != 1 || !strings.Contains(out, "Finished compressing") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	a := recordedSpecs(t, s)["a.cy.js"]
	if got := a.shots(t); !slices.Equal(got, []string{"passes/1 mine"}) {
		t.Errorf("screenshots %q", got)
	}
	if video := a.length(t); video < 3*time.Second {
		t.Errorf("a video of %v shows tests of more than 3 s", video)
	} else {
		a.inOrder(t, video)
	}
}
