package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
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

func words(pattern, instead string) phrase {
	return phrase{regexp.MustCompile(`(?i)\b(?:` + pattern + `)\b`), instead}
}

// unwanted are phrases that read as translated, second words for things that
// the glossary of CONTRIBUTING.md names, and British spellings.
var unwanted = []phrase{
	words(`whoever`, "anyone who"),
	words(`who wrote`, "the writer"),
	words(`so many|so long`, "this many, this long, or the number"),
	words(`nothing but`, "only"),
	words(`be it`, "whether it is"),
	words(`takes? (?:it|them|that) back`, "undoes it, revokes it"),
	words(`given up`, "failed"),
	words(`send again`, "redeliver"),
	words(`what waited`, "pending deliveries, held deliveries"),
	words(`in earnest`, "in production"),
	words(`anew`, "again"),
	words(`nothing (?:was|is) heard`, "there was no report"),
	words(`for who (?:has|have|is)`, "for people who"),
	words(`all else`, "everything else"),
	words(`of no meaning`, "does not matter"),
	words(`asks? for quiet|asked for quiet`, "rate limited"),

	words(`cancelled|cancelling`, "canceled, canceling"),
	words(`behaviours?`, "behavior"),
	words(`colours?|coloured|colouring`, "color"),
	words(`honour(?:s|ed|ing)?`, "honor"),
	words(`favour\w*`, "favor"),
	words(`neighbour\w*`, "neighbor"),
	words(`(?:recogn|organ|normal|serial|initial|synchron|summar|minim|optim)is(?:e|es|ed|ing|ation)`, "-ize"),
	words(`analys(?:e|es|ed|ing)`, "analyze"),
	words(`centred?`, "center"),
	words(`grey`, "gray"),
	words(`catalogues?`, "catalog"),
	words(`artefacts?`, "artifact"),
	words(`labelled|modelled|signalled|travelled|levelled`, "one l"),
	words(`learnt|spelt|whilst|amongst`, "learned, spelled, while, among"),
}

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
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		name := entry.Name()
		if entry.IsDir() {
			if path != "." && (strings.HasPrefix(name, ".") || slices.Contains([]string{"node_modules", "testdata", "demodata"}, name)) {
				return filepath.SkipDir
			}
			return nil
		}
		if allowed[path] != "" {
			return nil
		}
		for place, text := range textsOf(t, path) {
			seen[filepath.Ext(name)]++
			text = protocol.ReplaceAllString(strings.Join(strings.Fields(text), " "), "")
			for _, p := range unwanted {
				if at := p.pattern.FindStringIndex(text); at != nil {
					t.Errorf("%s: write %s instead of %q in %q", place, p.instead, text[at[0]:at[1]], around(text, at[0], at[1]))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{".md", ".html", ".go", ".js"} {
		if seen[ext] == 0 {
			t.Errorf("no text was found in files %s: is the search still right?", ext)
		}
	}
}

// TestSentences holds the sentences of the pages that people read to fewer than 25 words. What is between colons and
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
	for path, text := range markdown(t) {
		path = filepath.ToSlash(path)
		if dir := filepath.ToSlash(filepath.Dir(path)); dir != "docs" && path != "README.md" && path != "CONTRIBUTING.md" || long[path] != "" {
			continue
		}
		text = target.ReplaceAllString(code.ReplaceAllString(indented.ReplaceAllString(withoutBlocks(text), ""), "X"), "]")
		for _, b := range block.Split(text, -1) {
			for _, sentence := range end.Split(b, -1) {
				if n := len(word.FindAllString(sentence, -1)); n >= limit {
					t.Errorf("%s has a sentence of %d words: %q", path, n, strings.Join(strings.Fields(sentence), " "))
				}
			}
		}
	}
}

// textsOf are the texts of a file that people read, by their places.
func textsOf(t *testing.T, path string) map[string]string {
	t.Helper()
	switch filepath.Ext(path) {
	case ".md", ".html", ".js", ".css", ".yaml", ".yml", ".sql", ".sh":
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{path: string(b)}
	case ".go":
	default:
		return nil
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
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
