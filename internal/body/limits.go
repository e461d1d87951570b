package body

import (
	"fmt"
	"unicode/utf8"

	"runbell/internal/run"
)

// Limits are the most that a body may hold. They hold while it is read, in
// fields that nobody reads too, so they bound what reading it costs.
type Limits struct {
	Bytes  int // as sent, and after gzip
	Values int // members of objects and elements of arrays, in total
	Groups int // objects and arrays, in total
	Depth  int // of objects and arrays in each other
	Text   int // bytes of one string or number
	// Ratio is how many times its size a body may become by unpacking, after the
	// first MiB. 0 is no limit: text that repeats itself is honestly small.
	Ratio int
	// Advice says what to do when a limit is exceeded. It may be empty.
	Advice string
}

// freeText is the text that a body may become whatever its size.
const freeText = 1 << 20

func (l Limits) exceeded(format string, args ...any) error {
	e := &run.Error{Kind: run.TooLarge, Message: fmt.Sprintf("The request body "+format+".", args...)}
	if l.Advice != "" {
		e.Details = []string{l.Advice}
	}
	return e
}

func (l Limits) tooLarge() error { return l.exceeded("is larger than %s", size(l.Bytes)) }

func size(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// meter counts what a JSON text holds, as its bytes come by, and keeps nothing.
// It does not check the syntax.
type meter struct {
	limits         Limits
	bytes          int
	values, groups int
	depth, text    int
	wide           int  // bytes of strings beyond ASCII
	quoted         bool // in a string
	escaped        bool // behind a backslash in it
	solid          bool // there is more than white space
}

// What a byte outside of strings means.
const (
	other = iota
	open
	closing
	comma
	colon
	quote
)

var meaning = [256]byte{'{': open, '[': open, '}': closing, ']': closing, ',': comma, ':': colon, '"': quote}

// Write counts p, and returns an error of kind TooLarge once a limit is exceeded.
func (m *meter) Write(p []byte) (int, error) {
	if m.bytes += len(p); m.bytes > m.limits.Bytes {
		return 0, m.limits.tooLarge()
	}
	for i := 0; i < len(p); {
		switch {
		case m.quoted:
			i += m.inString(p[i:])
		case meaning[p[i]] == other:
			m.text++
			m.solid = m.solid || p[i] > ' '
			i++
		default:
			m.structure(meaning[p[i]])
			i++
		}
		if m.text > m.limits.Text || m.values > m.limits.Values || m.groups > m.limits.Groups || m.depth > m.limits.Depth {
			return 0, m.exceeded()
		}
	}
	return len(p), nil
}

// inString counts the bytes of a string, up to one more than it may have, and
// says how many there were.
func (m *meter) inString(p []byte) int {
	p = p[:min(len(p), m.limits.Text-m.text+1)]
	i := 0
	if m.escaped {
		m.escaped = false
		i = 1
	}
	for ; i < len(p); i++ {
		if c := p[i]; c == '"' {
			m.text, m.quoted = 0, false
			return i + 1
		} else if c == '\\' {
			i++
			m.escaped = i == len(p)
		} else if c >= utf8.RuneSelf {
			m.wide++
		}
	}
	m.text += len(p)
	return len(p)
}

func (m *meter) structure(c byte) {
	m.text = 0
	m.solid = true
	switch c {
	case open:
		m.depth++
		m.groups++
		m.values++
	case closing:
		m.depth = max(0, m.depth-1)
	case comma:
		m.values++
	case quote:
		m.quoted = true
	}
}

func (m *meter) exceeded() error {
	switch l := m.limits; {
	case m.depth > l.Depth:
		return l.exceeded("is nested more than %d levels deep", l.Depth)
	case m.groups > l.Groups:
		return l.exceeded("has more than %d objects and lists", l.Groups)
	case m.values > l.Values:
		return l.exceeded("has more than %d values", l.Values)
	default:
		return l.exceeded("has a string of more than %s", size(l.Text))
	}
}
