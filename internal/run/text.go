package run

import (
	"strings"
	"unicode/utf8"
)

// ShellWord is s as one word of a shell, for commands that people copy.
func ShellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Plain is text that was made for a terminal, made for a page or a message: without
// escape sequences (ECMA-48: CSI, OSC and the other strings, and the two- and
// three-byte ones, in their 7-bit and their 8-bit form), other control
// characters, and invalid UTF-8. A carriage return ends a line.
func Plain(s string) string {
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
