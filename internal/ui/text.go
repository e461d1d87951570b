package ui

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"runbell/internal/run"
)

// plain makes text for a page of text that was made for a terminal: without
// escape sequences (ECMA-48: CSI, OSC and the other strings, and the two- and
// three-byte ones, in their 7-bit and their 8-bit form), other control
// characters, and invalid UTF-8. A carriage return ends a line.
func plain(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r <= 0x9f }) {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\r\n", "\n"), "\uFFFD")
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == 0x1b:
			i += size
			if i < len(s) && s[i] >= 0x40 && s[i] <= 0x5f {
				i = skip(s, i+1, rune(s[i])+0x40) // ESC [ is the 7-bit form of U+009B, and so on
				continue
			}
			for i < len(s) && s[i] >= 0x20 && s[i] <= 0x2f { // ESC ( B: intermediate bytes, then one final
				i++
			}
			if i < len(s) && s[i] >= 0x30 && s[i] <= 0x7e {
				i++
			}
			continue
		case r >= 0x80 && r <= 0x9f:
			i = skip(s, i+size, r)
			continue
		case r == '\r':
			b.WriteByte('\n')
		case r >= ' ' && r != 0x7f || r == '\n' || r == '\t':
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// skip returns where the sequence that the C1 control r starts before i ends.
func skip(s string, i int, r rune) int {
	switch r {
	case 0x9b: // CSI: parameters, intermediate bytes, one final byte
		for i < len(s) && s[i] >= 0x20 && s[i] <= 0x3f {
			i++
		}
		if i < len(s) && s[i] >= 0x40 && s[i] <= 0x7e {
			i++
		}
	case 0x90, 0x98, 0x9d, 0x9e, 0x9f: // DCS, SOS, OSC, PM, APC: a string up to its terminator
		for ; i < len(s); i++ {
			switch {
			case s[i] == '\n': // unterminated: what follows is worth more than the string
				return i
			case s[i] == 0x07:
				return i + 1
			case s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\', s[i] == 0xc2 && i+1 < len(s) && s[i+1] == 0x9c:
				return i + 2
			}
		}
	}
	return i
}

// budget bounds the text from clients on a page.
type budget struct{ left int }

// head is at most limit bytes of the beginning of s, and says how much is missing.
func (b *budget) head(s string, limit int) string {
	s = strings.Trim(plain(s), "\n")
	limit = min(limit, b.left)
	if len(s) > limit {
		kept := run.Clip(s, limit)
		s = fmt.Sprintf("%s\n(%s more)", kept, size(len(s)-limit))
	}
	b.left = max(0, b.left-len(s))
	return s
}

// tail is head for the end of s.
func (b *budget) tail(s string, limit int) string {
	s = strings.Trim(plain(s), "\n")
	limit = min(limit, b.left)
	if len(s) > limit {
		from := len(s) - limit
		for from < len(s) && !utf8.RuneStart(s[from]) {
			from++
		}
		s = fmt.Sprintf("(%s before this)\n…%s", size(from), s[from:])
	}
	b.left = max(0, b.left-len(s))
	return s
}

func size(bytes int) string {
	if bytes >= 10_000 {
		return number(bytes/1000) + " kB"
	}
	return count(bytes, "byte")
}

var errorLine = regexp.MustCompile(`(?m)^\s*\w*(?:Error|Exception): .+$`)

// headline is the line of an error that says most: the one that names an
// error, or else the first.
func headline(s string) string {
	s = strings.TrimSpace(plain(s))
	line, _, _ := strings.Cut(s, "\n")
	if found := errorLine.FindString(s); found != "" {
		line = strings.TrimSpace(found)
	}
	return run.Clip(strings.TrimRight(line, ": "), 300)
}

// number writes 9800 as 9,800.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return number(n) + " " + noun
}

// span writes a duration as exactly as people need it.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', -1, 64) + " s"
	}
	d = d.Truncate(time.Second)
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case h == 0 && s == 0:
		return fmt.Sprintf("%d min", m)
	case h == 0:
		return fmt.Sprintf("%d min %d s", m, s)
	case m == 0:
		return fmt.Sprintf("%d h", h)
	default:
		return fmt.Sprintf("%d h %d min", h, m)
	}
}
