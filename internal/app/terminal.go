package app

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"

	"runbell/internal/webhook"
)

// style colors text on a terminal, unless NO_COLOR is set.
type style bool

func styleFor(w io.Writer, env *environment) style {
	return style(isTerminal(w) && env.values["NO_COLOR"] == "" && env.values["TERM"] != "dumb")
}

// isTerminal says whether a stream belongs to a person.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

func (s style) paint(code, text string) string {
	if !s || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) bold(text string) string  { return s.paint("1", text) }
func (s style) faint(text string) string { return s.paint("2", text) }
func (s style) red(text string) string   { return s.paint("31", text) }
func (s style) green(text string) string { return s.paint("32", text) }

func (s style) event(p webhook.Payload) string {
	name := fmt.Sprintf("%-12s", printable(string(p.Event)))
	switch p.Event {
	case webhook.RunFinish:
		if p.Failures > 0 || p.Skipped > 0 {
			return s.paint("1;31", name)
		}
		return s.paint("1;32", name)
	case webhook.RunTimeout, webhook.RunCanceled:
		return s.paint("1;33", name)
	default:
		return s.paint("1;36", name)
	}
}

// line prints a request as one line, to be read at a glance.
func (s style) line(got received) string {
	at := s.faint(got.Time.Local().Format("15:04:05.000"))
	p := got.Payload
	if p.Event == "" {
		return fmt.Sprintf("%s  %s  %s", at, s.red(fmt.Sprintf("refused %d  ", got.Answered)), printable(got.Problem))
	}
	name := p.BuildID
	if p.GroupID != "" {
		name += " / " + p.GroupID
	}
	notes := []string{counts(p), fmt.Sprintf("attempt %d, sequence %d", got.Attempt, got.Sequence)}
	switch got.Signature {
	case signatureOK:
		notes = append(notes, s.green("signature ok"))
	case signatureBad:
		notes = append(notes, s.red("signature BAD"))
	case signatureNotChecked:
		notes = append(notes, s.faint("signature not checked"))
	}
	if got.Test {
		notes = append(notes, "test")
	}
	if got.Duplicate {
		notes = append(notes, s.red("duplicate of an earlier one"))
	}
	if got.Answered/100 != 2 {
		notes = append(notes, s.red(strings.TrimSuffix(fmt.Sprintf("responded %d: %s", got.Answered, printable(got.Problem)),
			": ")))
	}
	return fmt.Sprintf("%s  %s  %s  %s", at, s.event(p), s.bold(printable(name)), strings.Join(notes, " · "))
}

// counts says in words what is not zero.
func counts(p webhook.Payload) string {
	parts := []string{fmt.Sprintf("%d tests", p.Overall)}
	if p.Overall == 1 {
		parts[0] = "1 test"
	}
	for _, c := range []struct {
		n    int
		word string
	}{{p.Passes, "passed"}, {p.Failures, "failed"}, {p.Pending, "pending"}, {p.Skipped, "skipped"}, {p.Flaky, "flaky"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.word))
		}
	}
	switch {
	case p.Retries == 1:
		parts = append(parts, "1 retry")
	case p.Retries > 1:
		parts = append(parts, fmt.Sprintf("%d retries", p.Retries))
	}
	return strings.Join(parts, ", ")
}
