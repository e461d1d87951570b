package ui

import (
	"fmt"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// verdict summarizes a state and its counts.
type verdict struct {
	Word     string
	Tone     tone
	Sentence string
}

func verdictOf(state run.State, c run.Counts) verdict {
	switch status := run.StatusOf(state, c); {
	case state == run.Canceled:
		return verdict{"Canceled", toneIdle, "Canceled before it finished."}
	case state == run.TimedOut:
		return verdict{"Timed out", toneWarn, "Timed out: reports stopped coming."}
	case status == run.StatusRunning:
		return verdict{"Running", toneRun, "Running, no failures so far."}
	case status == run.StatusFailing:
		return verdict{"Failing", toneFail, fmt.Sprintf("Running, %s so far.", failed(c))}
	case status == run.StatusPassed && !c.Ran():
		return verdict{"No tests", toneIdle, "Finished, but no test ran."}
	case status == run.StatusPassed && c.Flaky > 0:
		return verdict{"Passed", tonePass, fmt.Sprintf("All tests passed; %s flaky.", were(c.Flaky))}
	case status == run.StatusPassed:
		return verdict{"Passed", tonePass, "All tests passed."}
	case c.Failures == 0:
		return verdict{"Failed", toneFail, fmt.Sprintf("A hook failed: %s skipped.", were(c.Skipped))}
	default:
		return verdict{"Failed", toneFail, fmt.Sprintf("%s of %s failed.", number(c.Failures), count(c.Overall(), "test"))}
	}
}

func failed(c run.Counts) string {
	if c.Failures == 0 {
		return number(c.Skipped) + " skipped"
	}
	return number(c.Failures) + " failed"
}

func were(n int) string {
	if n == 1 {
		return "1 was"
	}
	return number(n) + " were"
}

// segment is a part of the bar under the numbers, in thousandths of its width.
type segment struct {
	Tone tone
	X, W int
}

// barOf draws the counts of completed specs in proportion. The rest of its width is the specs that have not
// completed.
func barOf(c run.Counts, completed, specs int) []segment {
	c.Announced = 0
	tests := c.Overall()
	if tests == 0 || specs == 0 {
		return nil
	}
	width := 1000 * completed / specs
	var out []segment
	done := 0
	for _, part := range []struct {
		tone tone
		n    int
	}{{toneFail, c.Failures}, {toneSkip, c.Skipped}, {toneFlaky, c.Flaky}, {tonePass, c.Passes - c.Flaky},
		{toneIdle, c.Pending}} {
		if part.n <= 0 {
			continue
		}
		x := done * width / tests
		done += part.n
		out = append(out, segment{part.tone, x, max(3, done*width/tests-x)}) // thin, but visible
	}
	return out
}

// elapsed is how long something has been running.
type elapsed struct {
	Took  time.Duration
	Since time.Time // the start of something that is still running; the page counts from there
}

func elapsedOf(r run.Run, lastReport, now time.Time) elapsed {
	e := elapsed{Took: r.Elapsed(lastReport, now)}
	if r.State == run.Running && r.RunningGroups > 0 {
		e.Since = r.CreatedAt
	}
	return e
}

// now is the instant of a page. A page that updates itself knows the time: what it gets must differ only when
// something has happened.
func (r *request) now(tx *store.Tx) time.Time {
	if r.live() {
		return time.Time{}
	}
	return tx.Now
}

// live says that a page is updating itself, see static/runbell.js.
func (r *request) live() bool { return r.Header.Get("Runbell-Live") != "" }

// figure is a number of a run, with the address that shows what it counts.
type figure struct {
	Label, Tone string
	N, Of       int
	URL         string // "" where there is nothing to show
	Current     bool
}

// figures are the numbers of a run: first the one that matters most, which is
// shown large.
func figures(state run.State, c run.Counts, completed, specs int, f specFilter) (lead figure, rest []figure) {
	all := []figure{{Label: "Failed", Tone: "fail", N: c.Failures, URL: f.show("failed")},
		{Label: "Passed", Tone: "pass", N: c.Passes, URL: f.show("passed")},
		{Label: "Flaky", Tone: "flaky", N: c.Flaky, URL: f.show("flaky")},
		{Label: "Pending", N: c.Pending, URL: f.show("pending")},
		{Label: "Skipped", Tone: "skip", N: c.Skipped, URL: f.show("skipped")}}
	for n := range all {
		all[n].Current = f.Show != "" && all[n].URL == f.show(f.Show)
		if all[n].N == 0 {
			all[n].URL, all[n].Tone = "", "none"
		}
	}
	if c.Announced > 0 {
		all = append(all, figure{Label: "Announced", N: c.Announced})
	}
	all = append(all, figure{Label: "Tests", N: c.Overall()},
		figure{Label: "Specs", N: completed, Of: specs, URL: f.show("")})
	at := 1
	switch {
	case c.Failures > 0:
		at = 0
	case state == run.Running:
		at = len(all) - 1
	}
	lead = all[at]
	return lead, append(all[:at:at], all[at+1:]...)
}
