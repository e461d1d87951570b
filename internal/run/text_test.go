package run_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"runbell/internal/run"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "",
		"nothing to do\n\tat all":        "nothing to do\n\tat all",
		"\x1b[31mred\x1b[0m":             "red",
		"\x1b[1;38;5;196mbold\x1b[m":     "bold",
		"\x1b[38:2::1:2:3mcolons\x1b[0m": "colons",
		"\x1b[2K\x1b[1Aerased":           "erased",
		"\x1b[?25lcursor\x1b[?25h":       "cursor",
		"\x1b]8;;https://x.test\x07link\x1b]8;;\x07":             "link",
		"\x1b]0;title\x1b\\text":                                 "text",
		"\x1b]8;;https://x.test\u009clink":                       "link",
		"\x1bPdevice\x1b\\control":                               "control",
		"\x1b]unterminated\nnext line":                           "\nnext line",
		"\x1b(Bcharset\x1b)0":                                    "charset",
		"\x1b7saved\x1b8\x1bc\x1bM":                              "saved",
		"\u009b31mC1\u009b0m":                                    "C1",
		"\u009d0;title\u009ctext":                                "text",
		"unfinished \x1b":                                        "unfinished ",
		"unfinished \x1b[":                                       "unfinished ",
		"unfinished \x1b[31":                                     "unfinished ",
		"broken \x1b[31\nnext":                                   "broken \nnext",
		"a\r\nb":                                                 "a\nb",
		"10%\r20%":                                               "10%\n20%",
		"bell\x07 and null\x00 and delete\x7f":                   "bell and null and delete",
		"broken \xff utf-8":                                      "broken \uFFFD utf-8",
		"broken \xff \x1b[31mutf-8":                              "broken \uFFFD utf-8",
		"✓ naïve 你好 🎥\x1b[0m":                                    "✓ naïve 你好 🎥",
		"array[31m] is no sequence":                              "array[31m] is no sequence",
		"\x1b[31m\x1b[1mnested\x1b[22m\x1b[39m \x1b[4mx\x1b[24m": "nested x",
	} {
		if got := run.Plain(in); got != want {
			t.Errorf("Plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\r\n\u009b1m\x1b]8;;x\x07y\x1b\\\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := run.Plain(s)
		if !utf8.ValidString(got) {
			t.Errorf("Plain(%q) = %q is not UTF-8", s, got)
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r <= 0x9f }); i >= 0 {
			t.Errorf("Plain(%q) = %q has a control character at %d", s, got, i)
		}
		if again := run.Plain(got); again != got {
			t.Errorf("plain twice: %q, then %q", got, again)
		}
		if strings.Count(got, "\n") < strings.Count(s, "\n") {
			t.Errorf("Plain(%q) = %q lost a line", s, got)
		}
	})
}

func TestShellWord(t *testing.T) {
	for s, want := range map[string]string{
		"shop": "shop", "owner/my-project": "owner/my-project", "my shop": "'my shop'", "": "''", "$HOME": "'$HOME'", "it's": `'it'\''s'`, "a;b": "'a;b'", "Łódź": "'Łódź'",
	} {
		if got := run.ShellWord(s); got != want {
			t.Errorf("%q is %s, want %s", s, got, want)
		}
	}
}
