package ui

import (
	"context"
	"net/url"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/artifact"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// filmed is a spec whose test failed three times, in two ways, with a screenshot of each
// attempt, a video, and pictures of another test and of none.
func filmed(name string) spec {
	s := failing(name)
	tries := s.outcome.Results[1].Attempts
	tries[0].Error = timeout()
	for n := range tries {
		tries[n].VideoAt = int64(1500 + 61_000*n)
		s.outcome.Screenshots = append(s.outcome.Screenshots, run.Screenshot{ID: string(rune('a' + n)), Name: "screenshot", TestID: "r1", Attempt: n, Width: 1000, Height: 660})
	}
	s.outcome.Screenshots = append(s.outcome.Screenshots, run.Screenshot{ID: "mine", Name: `my "<b>shot</b>"`, TestID: "r0"}, run.Screenshot{ID: "none", Name: "of no test"})
	s.outcome.Video = true
	return s
}

// upload sends a file to an address.
func (w *world) upload(to, file string) {
	w.t.Helper()
	address, err := url.Parse(to)
	w.check(err)
	w.check(w.artifacts.Receive(w.ctx, artifact.Upload{ID: path.Base(address.Path), Query: address.Query(), Size: int64(len(file)), Body: strings.NewReader(file)}))
}

// film plays a run of one spec and returns the addresses for what it has.
func (w *world) film(s spec) (id string, i run.Instance, to artifact.Uploads) {
	w.t.Helper()
	joined := w.join(shopJoin("build-001", s))
	i = w.claim(joined, 1)[0]
	w.complete(i, s)
	to, err := w.artifacts.Expect(w.ctx, i.ID, s.outcome)
	w.check(err)
	return joined.RunID, i, to
}

func TestPicturesAndVideoOfAFailure(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	withCoverage := filmed("cypress/e2e/b_fail.cy.js")
	withCoverage.outcome.Coverage = true
	id, i, to := w.film(withCoverage)
	for _, s := range to.Screenshots {
		w.upload(s.UploadURL, "picture")
	}
	w.upload(to.Video, "video")
	wants(t, w.page("/run/"+id+"/spec?file=cypress%2Fe2e%2Fb_fail.cy.js"), "Code coverage Not uploaded yet.")
	w.upload(to.Coverage, "{}")
	shot := func(name string) string {
		return "/files/" + run.ArtifactID(i.ID, run.ScreenshotArtifact, name)
	}
	film := "/files/" + run.ArtifactID(i.ID, run.VideoArtifact, "")
	page := w.page("/run/" + id)
	wellFormed(t, page)
	for _, want := range []string{
		`<a href="` + shot("a") + `" data-view="picture" data-caption="b › fails, attempt 1"><img src="` + shot("a") + `" alt="Screenshot: b › fails, attempt 1" width="1000" height="660" loading="lazy" decoding="async"></a>`,
		`<a href="` + film + `#t=1.500" data-view="video" data-caption="b › fails, attempt 1"><span aria-hidden="true">▶</span> Attempt 1 at 0:01</a>`,
		`<a href="` + film + `#t=62.500" data-view="video" data-caption="b › fails, attempt 2"><span aria-hidden="true">▶</span> Attempt 2 at 1:02</a>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if first, second := strings.Index(page, `src="`+shot("a")), strings.Index(page, `src="`+shot("b")); second < strings.Index(page, `Attempts 2, 3`) || first > strings.Index(page, `Attempts 2, 3`) {
		t.Error("the pictures are not beside the errors of their attempts")
	}
	lacks(t, page, shot("mine"), "<video", i.ID)
	spec := w.page("/run/" + id + "/spec?file=cypress%2Fe2e%2Fb_fail.cy.js")
	wellFormed(t, spec)
	for _, want := range []string{shot("c"), shot("mine"), shot("none"), `<video class="player" src="` + film + `"`, `my &#34;&lt;b&gt;shot&lt;/b&gt;&#34;`, `<a href="/files/` + run.ArtifactID(i.ID, run.CoverageArtifact, "") + `">Open the report</a>`, `href="/run/` + id + `/output?file=`} {
		if !strings.Contains(spec, want) {
			t.Errorf("the page of the spec lacks %s", want)
		}
	}
	lacks(t, spec, i.ID)
	w.token = ""
	out := w.get("/run/" + id + "/output?file=cypress%2Fe2e%2Fb_fail.cy.js")
	if h := out.Header(); out.Code != 200 || out.Body.String() != console || h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("Content-Disposition") != "attachment; filename=b_fail.cy.js.txt" {
		t.Errorf("%d %v %q", out.Code, h, out.Body)
	}
	if none := w.get("/run/" + id + "/output?file=nope"); none.Code != 404 || !strings.Contains(none.Body.String(), "<h1>") {
		t.Errorf("%d %s", none.Code, none.Body)
	}
}

// TestVideoWithoutErrorsOfAttempts: Cypress 13 and later say what a test failed with, and not which attempt did. Its
// videos begin where its attempts do all the same.
func TestVideoWithoutErrorsOfAttempts(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	const place = "/spec?file=cypress%2Fe2e%2Fb_fail.cy.js"
	for _, state := range []run.TestState{run.Failed, run.Passed} {
		s := filmed("cypress/e2e/b_fail.cy.js")
		r := &s.outcome.Results[1]
		for n := range r.Attempts {
			r.Attempts[n].State, r.Attempts[n].Error = run.Failed, nil
		}
		r.State, r.Attempts[len(r.Attempts)-1].State, r.Error = state, state, ""
		if state == run.Failed {
			r.Error = "AssertionError: no"
		}
		joined := w.join(shopJoin("build-"+string(state), s))
		i := w.claim(joined, 1)[0]
		w.complete(i, s)
		to, err := w.artifacts.Expect(w.ctx, i.ID, s.outcome)
		w.check(err)
		w.upload(to.Video, "video")
		page := w.page("/run/" + joined.RunID + place)
		wants(t, page, "Attempt 1 at 0:01", "Attempt 2 at 1:02")
		if film := run.ArtifactID(i.ID, run.VideoArtifact, "") + "#t=1.500"; !strings.Contains(page, film) {
			t.Errorf("%s: the page lacks %s", state, film)
		}
	}
}

// TestLargePicturesAreLinks: no page loads megabytes that nobody asked for.
func TestLargePicturesAreLinks(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.artifacts.Max = 8 << 20
	id, _, to := w.film(filmed("cypress/e2e/b_fail.cy.js"))
	for n, s := range to.Screenshots {
		w.upload(s.UploadURL, strings.Repeat("x", 1<<20*(1+n)))
	}
	page := w.page("/run/" + id)
	if n := strings.Count(page, "<img"); n != 2 || !strings.Contains(page, ">Show picture (3.1 MB)</a>") {
		t.Errorf("%d pictures\n%s", n, text(page))
	}
}

// TestWhyThereIsNoFile says of each file that is missing why it is.
func TestWhyThereIsNoFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		id, i, to := w.film(filmed("cypress/e2e/b_fail.cy.js"))
		page := "/run/" + id
		wants(t, w.page(page), "Not uploaded yet. 2 screenshots", "No video: Not uploaded yet.")
		w.check(w.artifacts.Reported(w.ctx, i.ID, []run.UploadReport{{Address: to.Screenshots[0].UploadURL, Why: "PUT " + to.Screenshots[0].UploadURL + ": ECONNRESET"}}))
		w.upload(to.Screenshots[1].UploadURL, "picture")
		refused := w.page(page)
		wants(t, refused, "The reporter could not upload it: PUT "+publicURL, "…: ECONNRESET")
		lacks(t, refused, "signature=")
		time.Sleep(uploading)
		wants(t, w.page(page), "The reporter did not upload it. Attempt 3", "No video: The reporter did not upload it.")
		testkit.Write(t, w.db, func(ctx context.Context, tx *store.Tx) error {
			_, _, err := tx.RemoveArtifacts(ctx, id, 100)
			return err
		})
		wants(t, w.page(page), "Removed on "+time.Now().UTC().Format("2 Jan 2006")+" by the project’s retention settings. 2 screenshots")
		w.check(w.artifacts.Reported(w.ctx, i.ID, []run.UploadReport{{Address: to.Video, Uploaded: true}}))
		wants(t, w.page(page), "No video: The reporter says that it uploaded it, but it did not arrive")
		w.artifacts = nil
		w.serve(publicURL)
		wants(t, w.page(page), "This server does not store artifacts. 2 screenshots")
	})
}

// TestNoVideoOfASpecThatPassed: the reporter was told not to upload it.
func TestNoVideoOfASpecThatPassed(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	s := passing("a.cy.js", "a > adds")
	s.outcome.Video, s.announcement.Settings.VideoUploadOnPasses = true, new(bool)
	id, _, _ := w.film(s)
	wants(t, w.page("/run/"+id+"/spec?file=a.cy.js"), "because the spec passed and videoUploadOnPasses is false")
}
