package ui

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"runbell/internal/run"
)

// budget bounds the text from clients on a page.
type budget struct{ left int }

// head is at most limit bytes of the beginning of s, and says how much is missing.
func (b *budget) head(s string, limit int) string {
	s = strings.Trim(run.Plain(s), "\n")
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
	s = strings.Trim(run.Plain(s), "\n")
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
	if bytes >= 1_000_000 {
		return strconv.FormatFloat(float64(bytes)/1e6, 'f', 1, 64) + " MB"
	}
	if bytes >= 10_000 {
		return number(bytes/1000) + " kB"
	}
	return count(bytes, "byte")
}

// number writes 9800 as 9,800.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// capital writes a word with a capital.
func capital(word string) string {
	r, size := utf8.DecodeRuneInString(word)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(r)) + word[size:]
}

func add(numbers ...int) (sum int) {
	for _, n := range numbers {
		sum += n
	}
	return sum
}

// count writes a number with its noun.
func count(n int, noun string) string {
	stem, y := strings.CutSuffix(noun, "y")
	switch {
	case n == 1:
	case y && !strings.HasSuffix(stem, "a"): // days, but retries
		noun = stem + "ies"
	default:
		noun += "s"
	}
	return number(n) + " " + noun
}

// span writes a duration as precisely as people need it.
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
