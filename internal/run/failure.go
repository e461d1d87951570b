package run

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// MaxHeadline is the most bytes of a headline, without the mark that says it was cut.
const MaxHeadline = 300

// Text is the error without its stack: its name and its message, each once.
func (f Failure) Text() string {
	switch {
	case f.Name == "" || strings.HasPrefix(f.Message, f.Name):
		return f.Message
	case f.Message == "":
		return f.Name
	default:
		return f.Name + ": " + f.Message
	}
}

// Trace is the stack as plain text, without the message that clients repeat at its top.
func (f Failure) Trace() string {
	message, stack := Plain(f.Message), Plain(f.Stack)
	for _, again := range []string{f.Name + ": " + message, message} {
		stack = strings.TrimPrefix(stack, again)
	}
	return stack
}

// ParseFailure reads an error as clients display it: a message, then the lines of its stack.
func ParseFailure(display string) Failure {
	if at := strings.Index(display, "\n    at "); at >= 0 {
		return Failure{Message: display[:at], Stack: display[at+1:]}
	}
	return Failure{Message: display}
}

// Position is where the frame points: file:line:column, as far as they are known.
func (f Frame) Position() string {
	at := Plain(f.File)
	for _, n := range []int{f.Line, f.Column} {
		if n <= 0 {
			break
		}
		at += ":" + strconv.Itoa(n)
	}
	return at
}

// Failure is the error of the last attempt that has one. It reports false for a
// test that never failed.
func (t Test) Failure() (Failure, bool) {
	for n := len(t.Result.Attempts) - 1; n >= 0; n-- {
		if e := t.Result.Attempts[n].Error; e != nil {
			return *e, true
		}
	}
	return t.Result.Displayed(), t.Result.Error != ""
}

// Displayed is the error as the client displays it, with its position if that is known.
func (r Result) Displayed() Failure {
	f := ParseFailure(r.Error)
	f.Frame = r.Frame
	return f
}

// Repeats says that a failed test only repeats why its spec could not run: clients
// make up such a test for a spec that does not compile.
func (t Test) Repeats(exception string) bool {
	if exception == "" || t.Result.State != Failed {
		return false
	}
	f, _ := t.Failure()
	return strings.Contains(Plain(exception), strings.TrimSpace(Plain(f.Message)))
}

// Signature identifies a test across runs: 32 hex characters that depend on the
// project, the path of the spec and the titles from the outermost suite to the test.
func Signature(projectID, spec string, title []string) string {
	h := sha256.New()
	for _, part := range append([]string{projectID, spec}, title...) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

var errorLine = regexp.MustCompile(`^\s*\w*(?:Error|Exception): .+$`)

// Headline is an error in one line of at most MaxHeadline bytes: the line that
// names the error, or else the first. A line that ends in a colon says nothing
// without the next one, so that one is added; the heading of a compilation error says
// nothing without the file and the reason below it.
func Headline(text string) string { return Clip(headline(text), MaxHeadline) }

func headline(text string) string {
	lines := strings.Split(Plain(text), "\n")
	first := 0
	for n, line := range lines {
		if errorLine.MatchString(line) {
			first = n
			break
		}
	}
	const most = 6 // lines
	var said []string
	missing := 1      // lines without which the headline says nothing
	compiled := false // after these two lines of a compilation error comes general advice
	for _, line := range lines[first:] {
		line = strings.TrimSpace(line)
		if len(said) > 0 {
			line = strings.TrimSpace(strings.TrimPrefix(line, ">")) // Cypress marks quotes so
		}
		if line == "" {
			continue
		}
		colon := strings.HasSuffix(line, ":")
		if len(said) == most || strings.HasPrefix(line, "at ") || missing == 0 && (!colon || compiled) {
			break
		}
		said = append(said, line)
		switch missing = max(missing-1, 0); {
		case colon:
			missing = max(missing, 1)
		case len(said) == 1 && strings.HasSuffix(line, "Compilation Error"):
			missing, compiled = 2, true
		case len(said) == 1:
			return strings.TrimRight(line, ": ")
		}
	}
	return strings.TrimRight(strings.Join(said, " "), ": ")
}

// Fingerprint identifies an error whatever values it names: 32 hex characters,
// the same for errors whose headlines differ only in numbers, ids, times,
// durations, paths, URLs and quoted values. It is "" for an error that says nothing.
func Fingerprint(text string) string {
	folded := fold(headline(Clip(text, maxFolded)))
	if folded == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(folded))
	return hex.EncodeToString(sum[:16])
}

// maxFolded is how many bytes of an error its fingerprint looks at.
const maxFolded = 8 << 10

// variable matches what differs between two errors of the same kind. The first
// alternative that matches wins: a URL has a path in it, and a time has numbers.
var variable = regexp.MustCompile(strings.Join([]string{
	`(?P<url>[A-Za-z][A-Za-z0-9+.-]*://[^\s"'` + "`" + `<>)\]]+)`,
	`(?P<time>\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s?Z|[+-]\d\d:?\d\d)?)?|\b\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s?[AaPp][Mm])?\b)`, //nolint:lll // regular expressions have no spaces to break at
	`(?P<id>\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|\b0[xX][0-9a-fA-F]+\b|\b[0-9a-f]*\d[0-9a-f]{7,}\b|\b[0-9a-f]{7,}\d[0-9a-f]*\b)`,     //nolint:lll // regular expressions have no spaces to break at
	`(?P<path>(?:\b[A-Za-z]:)?(?:\.{0,2}[\\/])[\w.@~+-]+(?:[\\/][\w.@~+-]+)+(?::\d+)*|\b[\w@~+-]+(?:/[\w.@~+-]+)+\.\w+(?::\d+)*)`,                        //nolint:lll // regular expressions have no spaces to break at
	`(?P<duration>\b\d+(?:[.,]\d+)*\s?(?:ms|milliseconds?|secs?|seconds?|mins?|minutes?|hours?|s|h)\b)`,
	`(?P<number>\d+(?:[.,]\d+)*)`,
}, "|"))

// fold replaces the values in a line by words that say what they were. What
// Cypress puts in backticks is a command or a selector and tells errors apart:
// it stays, but for numbers and the like in it.
func fold(line string) string {
	var b strings.Builder
	code := false
	for n := 0; n < len(line); {
		end := len(line)
		if at := strings.IndexByte(line[n:], '`'); at >= 0 {
			end = n + at
		}
		part := line[n:end]
		if !code {
			part = foldQuotes(part)
		}
		b.WriteString(foldValues(part))
		if end < len(line) {
			b.WriteByte('`')
		}
		n, code = end+1, !code
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func foldValues(s string) string {
	names := variable.SubexpNames()
	var b strings.Builder
	last := 0
	for _, m := range variable.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(s[last:m[0]])
		for n := 1; n < len(names); n++ {
			if m[2*n] >= 0 {
				b.WriteString("<" + names[n] + ">")
			}
		}
		last = m[1]
	}
	b.WriteString(s[last:])
	return b.String()
}

// quoted matches a value in quotes that stand at the edges of words: an
// apostrophe is no quote.
var quoted = regexp.MustCompile(`(^|[^\pL\pN])(?:"[^"]*"|'(?:\pL'\pL|[^'])*'|“[^”]*”|‘[^’]*’|«[^»]*»)`)

func foldQuotes(s string) string { return quoted.ReplaceAllString(s, "$1<value>") }
