package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// phrase is something that must not come back, and what to write instead.
type phrase struct {
	pattern *regexp.Regexp
	instead string
}

// words are phrases to write otherwise. Each begins with letters, not with a choice, so that it is searched for fast.
func words(instead string, patterns ...string) (list []phrase) {
	for _, p := range patterns {
		list = append(list, phrase{regexp.MustCompile(p + `\b`), instead})
	}
	return list
}

// find is where a phrase is in a text of small letters, or nil.
func (p phrase) find(text string) []int {
	for _, at := range p.pattern.FindAllStringIndex(text, -1) {
		if before := text[:at[0]]; before == "" || !wordEnd.MatchString(before[len(before)-1:]) {
			return at
		}
	}
	return nil
}

var wordEnd = regexp.MustCompile(`\w`)

// unwanted are phrases that read as translated, second words for things that
// the glossary of CONTRIBUTING.md names, and British spellings.
var unwanted = slices.Concat(
	words("anyone who", `whoever`),
	words("the writer", `who wrote`),
	words("this many, this long, or the number", `so many`, `so long`),
	words("only", `nothing but`),
	words("whether it is", `be it`),
	words("undoes it, revokes it", `takes? (?:it|them|that) back`),
	words("failed", `given up`),
	words("redeliver", `send again`),
	words("pending deliveries, held deliveries", `what waited`),
	words("in production", `in earnest`),
	words("again", `anew`),
	words("there was no report", `nothing (?:was|is) heard`),
	words("for people who", `for who (?:has|have|is)`),
	words("everything else", `all else`),
	words("does not matter", `of no meaning`),
	words("rate limited", `asks? for quiet`, `asked for quiet`),
	words("the outcome, the result", `what came of`, `what became of`),
	words("counts as a report", `signs? of life`),
	words("no route to", `no way leads`),
	words("does not respond as expected", `keeps saying`),
	words("someone who, the person who", `who watches`, `who looks at`, `who gives up`),

	words("canceled, canceling", `cancelled`, `cancelling`),
	words("behavior", `behaviours?`),
	words("color", `colour(?:s|ed|ing)?`),
	words("honor", `honour(?:s|ed|ing)?`),
	words("favor", `favour\w*`),
	words("neighbor", `neighbour\w*`),
	words("-ize", `recognis\w+`, `organis\w+`, `normalis\w+`, `serialis\w+`, `initialis\w+`, `synchronis\w+`,
		`summaris\w+`, `minimis\w+`, `optimis(?:e|es|ed|ing|ation)`),
	words("analyze", `analys(?:e|es|ed|ing)`),
	words("center", `centred?`),
	words("gray", `grey`),
	words("catalog", `catalogues?`),
	words("artifact", `artefacts?`),
	words("one l", `labelled`, `modelled`, `signalled`, `travelled`, `levelled`),
	words("learned, spelled, while, among", `learnt`, `spelt`, `whilst`, `amongst`),
)

// protocol are the places where somebody else dictates the British spelling: what
// reporters and clients of Currents read and send, and what recordings hold.
var protocol = regexp.MustCompile("RUN_CANCELLED|Run (?:is )?cancelled|[\"`']cancelled[\"`']|^cancelled$|json:\"cancelled|cancelledAt|button[ -]colour|'\\.colour'")

// allowed are files with a reason to have what is unwanted elsewhere.
var allowed = map[string]string{
	"test/words_test.go": "this list",
}

// TestWords looks for unwanted phrases in documents, pages, scripts of pages, and the comments and strings of Go files.
func TestWords(t *testing.T) {
	seen := map[string]int{}
	walk(t, func(file string) {
		if allowed[file] != "" {
			return
		}
		for place, text := range textsOf(t, file) {
			seen[path.Ext(file)]++
			text = strings.Join(strings.Fields(text), " ")
			small := strings.ToLower(text)
			for _, p := range unwanted {
				if p.find(small) == nil {
					continue
				}
				rest := strings.ToLower(protocol.ReplaceAllString(text, ""))
				if at := p.find(rest); at != nil {
					t.Errorf("%s: write %s instead of %q in %q", place, p.instead, rest[at[0]:at[1]], around(rest, at[0], at[1]))
				}
			}
		}
	}, "testdata", "demodata")
	for _, ext := range []string{".md", ".html", ".go", ".js"} {
		if seen[ext] == 0 {
			t.Errorf("no text was found in files %s: is the search still right?", ext)
		}
	}
}

// TestSentences holds the sentences of the documents that people read to fewer than 25 words. What is between colons and
// semicolons counts as a sentence, and so does a cell of a table; code counts as one word.
func TestSentences(t *testing.T) {
	const limit = 25
	var (
		indented = regexp.MustCompile("(?m)^    .*$")
		code     = regexp.MustCompile("`[^`\n]*`")
		target   = regexp.MustCompile(`\]\([^)]*\)`)
		block    = regexp.MustCompile(`\n\s*\n|\n\s*(?:[-*]|\d+\.) |\|`)
		end      = regexp.MustCompile(`[.!?:;][*)]*\s+`)
		word     = regexp.MustCompile(`\S*\w\S*`)
	)
	long := map[string]string{"docs/performance.md": "its sentences list measurements"}
	for file, text := range markdown(t) {
		if dir := path.Dir(file); dir != "." && dir != "docs" && dir != "docs/adr" || long[file] != "" {
			continue
		}
		text = target.ReplaceAllString(code.ReplaceAllString(indented.ReplaceAllString(withoutBlocks(text), ""), "X"), "]")
		for _, b := range block.Split(text, -1) {
			for _, sentence := range end.Split(b, -1) {
				if n := len(word.FindAllString(sentence, -1)); n >= limit {
					t.Errorf("%s has a sentence of %d words: %q", file, n, strings.Join(strings.Fields(sentence), " "))
				}
			}
		}
	}
}

// textsOf are the texts of a file that people read, by their places.
func textsOf(t *testing.T, name string) map[string]string {
	t.Helper()
	switch path.Ext(name) {
	case ".md", ".html", ".js", ".css", ".yaml", ".yml", ".sql", ".sh":
		return map[string]string{name: string(read(t, name))}
	case ".go":
	default:
		return nil
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, read(t, name), parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, group := range file.Comments {
		texts[files.Position(group.Pos()).String()] = group.Text()
	}
	ast.Inspect(file, func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		texts[files.Position(literal.Pos()).String()] = text
		return true
	})
	return texts
}

// around is the part of a text that has what was found in it.
func around(text string, from, to int) string {
	return strings.ToValidUTF8(text[max(0, from-40):min(len(text), to+40)], "")
}
