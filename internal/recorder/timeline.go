package recorder

import (
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// From Cypress 13 on, results say neither when a test began nor of which test a
// screenshot is. What follows works it out: tests run one after the other, Cypress
// says how long each took, and it names the file of a screenshot by test and attempt.

// maxGap is the most that is taken for the time between two attempts: what is left
// over may be a hook.
const maxGap = 250 * time.Millisecond

// span is when a test ran, about.
type span struct{ begin, end time.Time }

// place moves the screenshots of a spec to the attempts of its tests, and says of each
// attempt where it begins in the video. videoBegan is in milliseconds since 1970, 0 if
// it is not known.
func (r *runResult) place(videoBegan int64) {
	spans := r.spans()
	if spans == nil {
		return
	}
	var rest []screenshotResult
	for _, s := range r.Screenshots {
		if test, attempt := r.taker(s, spans); test >= 0 {
			a := &r.Tests[test].Attempts[attempt]
			a.Screenshots = append(a.Screenshots, s)
		} else {
			rest = append(rest, s)
		}
	}
	r.Screenshots = rest
	if r.Video == nil || videoBegan == 0 {
		return
	}
	for i, t := range r.Tests {
		if t.Duration == 0 { // it did not run
			continue
		}
		for n, at := range t.beginnings(spans[i]) {
			t.Attempts[n].VideoTimestamp = float64(max(1, at.UnixMilli()-videoBegan))
		}
	}
}

// spans is when each test ran. It is nil where Cypress says that itself.
func (r *runResult) spans() []span {
	begin, err := time.Parse(time.RFC3339, r.Stats.StartedAt)
	end, errEnd := time.Parse(time.RFC3339, r.Stats.EndedAt)
	if err != nil || errEnd != nil {
		return nil
	}
	gaps, attempts := end.Sub(begin), 0
	for _, t := range r.Tests {
		for _, a := range t.Attempts {
			if a.WallClockStartedAt != nil || a.StartedAt != nil {
				return nil
			}
		}
		if t.Duration > 0 {
			gaps, attempts = gaps-t.took(), attempts+len(t.Attempts)
		}
	}
	gap := min(maxGap, max(0, gaps)/time.Duration(max(1, attempts)))
	spans := make([]span, len(r.Tests))
	for i, t := range r.Tests {
		spans[i].begin = begin
		if t.Duration > 0 {
			begin = begin.Add(t.took() + gap*time.Duration(len(t.Attempts)))
		}
		spans[i].end = begin
	}
	return spans
}

func (t testResult) took() time.Duration {
	return time.Duration(t.Duration * float64(time.Millisecond))
}

// What Cypress adds to the name of a screenshot's file: the hook that failed, that it
// is of a failure, the attempt, and a number if there was such a file.
var shotSuffix = regexp.MustCompile(`(?: -- (?:before|after) (?:all|each) hook)?` +
	`(?: \(failed\))?(?: \(attempt (\d+)\))?(?: \(\d+\))?$`)

// taker finds the test and the attempt of a screenshot: by the titles in the name of
// its file, or if the test gave it a name, by the time. test is -1 if none fits.
func (r *runResult) taker(s screenshotResult, spans []span) (test, attempt int) {
	name := strings.TrimSuffix(path.Base(slashed(s.Path)), ".png")
	suffix := shotSuffix.FindStringSubmatchIndex(name)
	if suffix[2] >= 0 {
		number, _ := strconv.Atoi(name[suffix[2]:suffix[3]])
		attempt = max(0, number-1)
	}
	name = letters(name[:suffix[0]])
	at, err := time.Parse(time.RFC3339, s.TakenAt)
	test = -1
	var off time.Duration
	for i, t := range r.Tests {
		if attempt >= len(t.Attempts) {
			continue
		}
		distance := max(0, spans[i].begin.Sub(at), at.Sub(spans[i].end))
		fits := err == nil && distance == 0 && t.Duration > 0
		if s.Name == nil {
			fits = titled(letters(strings.Join(t.Title, "")), name)
		}
		if fits && (test < 0 || distance < off) {
			test, off = i, distance
		}
	}
	return test, attempt
}

// titled says whether a screenshot's name is a title. Cypress cuts long ones.
func titled(title, name string) bool {
	const long = 100
	return name != "" && (title == name || len(name) > long && strings.HasPrefix(title, name))
}

// letters is what Cypress keeps of a title in the name of a file, and not more than
// both have.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f && r < 0xa0 || strings.ContainsRune(`/?<>\:*|"-.`, r) {
			return -1
		}
		return r
	}, s)
}

// beginnings is when each attempt began: the first with the test, and another when the
// one before had failed, which its screenshot tells, else after an equal share.
func (t testResult) beginnings(of span) []time.Time {
	begin := make([]time.Time, len(t.Attempts))
	for n := range t.Attempts {
		begin[n] = of.begin.Add(of.end.Sub(of.begin) / time.Duration(len(t.Attempts)) * time.Duration(n))
		if n == 0 {
			continue
		}
		for _, s := range t.Attempts[n-1].Screenshots {
			if at, err := time.Parse(time.RFC3339, s.TakenAt); err == nil && s.Name == nil && at.After(begin[n-1]) {
				begin[n] = at
			}
		}
	}
	return begin
}
