package recorder

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"
)

// progress prints the recorder's own lines between those of Cypress. It has no spinner and
// moves no cursor, so that a log looks the same.
type progress struct {
	mu    sync.Mutex
	to    io.Writer
	color bool
}

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := printable(fmt.Sprintf(format, args...))
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintln(p.to, p.paint("1;36", "runbell:"), line)
	}
}

// warn prints something that people should notice.
func (p *progress) warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := printable(fmt.Sprintf(format, args...))
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) != "" { // Cypress' own messages have many
			fmt.Fprintln(p.to, p.paint("1;33", "runbell: warning:"), line)
		}
	}
}

// loud prints something that nobody should miss.
func (p *progress) loud(lines ...string) {
	bar := strings.Repeat("!", 78)
	p.warn("%s\n%s\n%s", bar, strings.Join(lines, "\n"), bar)
}

func (p *progress) paint(code, text string) string {
	if !p.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// printable removes control characters that could move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// outcome is a spec that has run, for the summary.
type outcome struct {
	spec    string
	took    time.Duration
	tally   tally
	problem bool // Cypress could not run it to its end
}

// counts lists the numbers that are not zero, in words.
func (t tally) String() string {
	var parts []string
	for _, c := range []struct {
		n    int
		word string
	}{{t.passed, "passed"}, {t.failed, "failed"}, {t.pending, "pending"}, {t.skipped, "skipped"}, {t.flaky, "flaky"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.word))
		}
	}
	if len(parts) == 0 {
		return "no tests"
	}
	return strings.Join(parts, ", ")
}

func (t tally) tests() int { return t.passed + t.failed + t.pending + t.skipped }

// plural is "1 spec", "2 specs".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// summary is the table at the end.
func (p *progress) summary(list []outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(p.to)
	t := tabwriter.NewWriter(p.to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  \tSPEC\tTIME\tTESTS\tPASSED\tFAILED\tPENDING\tSKIPPED\tFLAKY")
	row := func(mark, name string, took time.Duration, c tally) {
		fmt.Fprintf(t, "  %s\t%s\t%s", mark, printable(strings.ReplaceAll(name, "\n", " ")), short(took))
		for _, n := range []int{c.tests(), c.passed, c.failed, c.pending, c.skipped, c.flaky} {
			if n == 0 {
				fmt.Fprint(t, "\t-")
			} else {
				fmt.Fprintf(t, "\t%d", n)
			}
		}
		fmt.Fprintln(t)
	}
	var all tally
	var took time.Duration
	for _, o := range list {
		mark := "ok"
		if o.tally.failed+o.tally.skipped > 0 || o.problem {
			mark = "FAIL"
		}
		row(mark, o.spec, o.took, o.tally)
		all, took = all.plus(o.tally), took+o.took
	}
	row("", fmt.Sprintf("%d on this machine", len(list)), took, all)
	_ = t.Flush()
	fmt.Fprintln(p.to)
}

// maxFailed is how many failed tests are listed at the end.
const maxFailed = 20

// failed lists the tests that failed.
func (p *progress) failed(list []string) {
	if len(list) == 0 {
		return
	}
	text := "Failed:"
	for _, test := range list[:min(len(list), maxFailed)] {
		text += "\n  " + strings.ReplaceAll(test, "\n", " ")
	}
	if more := len(list) - maxFailed; more > 0 {
		text += fmt.Sprintf("\n  and %d more", more)
	}
	p.say("%s", text)
}

// short is a duration with as much precision as people need.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

// clock estimates the time that is left. It knows how long the specs took in earlier
// runs, how long Cypress takes to start here, and how fast the machines of the group
// are.
type clock struct {
	order  []expectedSpec // as they are handed out
	before int            // claimed by others when this machine joined
	mine   int            // claimed by this machine
	// Measured on this machine.
	ran    int           // specs
	beside time.Duration // their time in addition to their own durations
}

// claimed notes that this machine got this many specs, and all machines have.
func (c *clock) claimed(specs, all int) {
	if c.mine == 0 {
		c.before = all - specs
	}
	c.mine += specs
}

// ranFor notes that specs, whose durations sum up to own, took this long.
func (c *clock) ranFor(specs int, took, own time.Duration) {
	c.ran += specs
	c.beside += max(0, took-own)
}

// each is the time of a spec in addition to its own duration.
func (c *clock) each() time.Duration {
	if c.ran == 0 {
		return 0
	}
	return c.beside / time.Duration(c.ran)
}

// left estimates how long the group still needs. current is the time that this machine
// needs for its specs, and claimed counts the specs of all machines. It reports false if
// nothing is known about the specs.
func (c *clock) left(claimed, total int, current time.Duration) (time.Duration, bool) {
	var known, sum time.Duration
	for _, e := range c.order {
		if e.DurationMS > 0 {
			known++
			sum += time.Duration(e.DurationMS) * time.Millisecond
		}
	}
	if known == 0 || len(c.order) != total || c.mine == 0 {
		return 0, false
	}
	mean := sum / known
	var rest time.Duration
	for _, e := range c.order[min(claimed, total):] {
		if e.DurationMS > 0 {
			rest += time.Duration(e.DurationMS) * time.Millisecond
		} else {
			rest += mean
		}
		rest += c.each()
	}
	machines := max(1, (claimed-c.before+c.mine/2)/c.mine)
	return max(current, (rest+current*time.Duration(machines))/time.Duration(machines)), true
}

// expected is how long specs took in earlier runs.
func (c *clock) expected(specs []string) time.Duration {
	var sum time.Duration
	for _, spec := range specs {
		for _, e := range c.order {
			if e.Spec == spec {
				sum += time.Duration(e.DurationMS) * time.Millisecond
			}
		}
	}
	if sum == 0 {
		return 0
	}
	return sum + c.each()*time.Duration(len(specs))
}
