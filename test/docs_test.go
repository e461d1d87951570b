package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// markdown is the text of every Markdown file of the project, by path.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	walk(t, func(file string) {
		if path.Ext(file) == ".md" {
			files[file] = string(read(t, file))
		}
	})
	return files
}

// goFiles parses the files of a package that are not tests.
func goFiles(t *testing.T, dir string) []*ast.File {
	t.Helper()
	paths, err := fs.Glob(repository, dir+"/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, read(t, path), parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// tagOf is the tag of a field.
func tagOf(t *testing.T, f *ast.Field) reflect.StructTag {
	t.Helper()
	if f.Tag == nil {
		return ""
	}
	s, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		t.Fatal(err)
	}
	return reflect.StructTag(s)
}

// TestDocumentedVariables compares the variables that flags read with those of
// docs/configuration.md, either way, and their defaults.
func TestDocumentedVariables(t *testing.T) {
	doc := markdown(t)["docs/configuration.md"]
	variables := map[string]bool{}
	for _, dir := range []string{"internal/config", "internal/app"} {
		for _, file := range goFiles(t, dir) {
			ast.Inspect(file, func(n ast.Node) bool {
				field, ok := n.(*ast.Field)
				if !ok {
					return true
				}
				tag := tagOf(t, field)
				name := tag.Get("var")
				if name == "" {
					return true
				}
				variables[name] = true
				_, secret := tag.Lookup("secret")
				variables[name+"_FILE"] = secret
				if value := tag.Get("default"); value != "" && !strings.Contains(doc, "`"+value+"`") {
					t.Errorf("docs/configuration.md does not have the default of %s, %s", name, value)
				}
				return true
			})
		}
	}
	if len(variables) < 10 {
		t.Fatalf("only %d variables found: are they declared otherwise now?", len(variables))
	}
	for name, exists := range variables {
		if exists && !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("docs/configuration.md does not have %s", name)
		}
	}
	for file, text := range markdown(t) {
		if file != "README.md" && path.Dir(file) != "docs" {
			continue // those for developers have variables of tests, too
		}
		for _, name := range regexp.MustCompile(`\bRUNBELL_[A-Z0-9_]+`).FindAllString(text, -1) {
			if !variables[name] {
				t.Errorf("%s has %s, which nothing reads", file, name)
			}
		}
	}
}

// TestDocumentedLinks follows every relative link, to its heading.
func TestDocumentedLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	files := markdown(t)
	for page, text := range files {
		for _, m := range link.FindAllStringSubmatch(withoutBlocks(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, heading, _ := strings.Cut(m[1], "#")
			file := page
			if target != "" {
				file = path.Join(path.Dir(page), target)
			}
			if _, err := fs.Stat(repository, file); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
				continue
			}
			if heading != "" && !slices.Contains(headings(files[file]), heading) {
				t.Errorf("%s: %s has no heading %q, only %q", page, file, heading, headings(files[file]))
			}
		}
	}
}

// headings are the anchors that forges make of headings.
func headings(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(withoutBlocks(text), -1) {
		anchor := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(anchor, " ", "-"))
	}
	return out
}

var fenced = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

func withoutBlocks(text string) string { return fenced.ReplaceAllString(text, "") }

// TestDocumentedCommands checks that every command that is named exists.
func TestDocumentedCommands(t *testing.T) {
	commands := commandLine(t)
	if !commands["serve"] || !commands["webhook create"] {
		t.Fatalf("the commands were not found: %v", commands)
	}
	// In code only, and where a command line starts there: "runbell runs" may be prose.
	named := regexp.MustCompile("(?m)(?:^ *|[`'(/])runbell ([a-z]+)((?: [a-z][a-z-]*)?)")
	code := regexp.MustCompile("(?m)`[^`\n]+`|^    .+$")
	for path, text := range markdown(t) {
		spans := code.FindAllString(withoutBlocks(text), -1)
		for _, m := range fenced.FindAllStringSubmatch(text, -1) {
			spans = append(spans, m[2])
		}
		for _, span := range spans {
			for _, m := range named.FindAllStringSubmatch(span, -1) {
				command, sub := m[1], strings.TrimSpace(m[2])
				switch {
				case !commands[command]:
					t.Errorf("%s: there is no command 'runbell %s' (in %q)", path, command, span)
				case sub != "" && hasSubcommands(commands, command) && !commands[command+" "+sub]:
					t.Errorf("%s: there is no command 'runbell %s %s' (in %q)", path, command, sub, span)
				}
			}
		}
	}
}

func hasSubcommands(commands map[string]bool, name string) bool {
	for c := range commands {
		if strings.HasPrefix(c, name+" ") {
			return true
		}
	}
	return false
}

// commandLine reads the commands off the structs of package app: "serve",
// "webhook", "webhook create".
func commandLine(t *testing.T) map[string]bool {
	t.Helper()
	structs := map[string]*ast.StructType{}
	for _, file := range goFiles(t, "internal/app") {
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					structs[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	out := map[string]bool{}
	var walk func(of, prefix string)
	walk = func(of, prefix string) {
		s := structs[of]
		if s == nil {
			return
		}
		for _, field := range s.Fields.List {
			tag := tagOf(t, field)
			if _, command := tag.Lookup("cmd"); !command || len(field.Names) == 0 {
				continue
			}
			name := tag.Get("name")
			if name == "" {
				name = strings.ToLower(field.Names[0].Name)
			}
			out[prefix+name] = true
			for _, alias := range strings.Fields(strings.ReplaceAll(tag.Get("aliases"), ",", " ")) {
				out[prefix+alias] = true
			}
			if kind, ok := field.Type.(*ast.Ident); ok {
				walk(kind.Name, prefix+name+" ")
			}
		}
	}
	walk("commands", "")
	return out
}

// TestDocumentedLimits compares numbers in docs/configuration.md with the
// constants that they describe.
func TestDocumentedLimits(t *testing.T) {
	doc := strings.Join(strings.Fields(markdown(t)["docs/configuration.md"]), " ")
	constant := func(dir, name string) string {
		for _, file := range goFiles(t, dir) {
			for _, d := range file.Decls {
				decl, ok := d.(*ast.GenDecl)
				if !ok {
					continue
				}
				for _, s := range decl.Specs {
					if v, ok := s.(*ast.ValueSpec); ok && v.Names[0].Name == name && len(v.Values) == 1 {
						if l, ok := v.Values[0].(*ast.BasicLit); ok {
							return l.Value
						}
					}
				}
			}
		}
		t.Fatalf("%s has no number called %s", dir, name)
		return ""
	}
	for _, want := range []string{
		"shows up to " + constant("internal/ui", "maxSpecs") + " specs and " + constant("internal/ui", "maxTests") + " tests with their errors",
		"| connections to the server | " + constant("internal/server", "maxConnections") + " per process.",
		"| headers of a request | 16 KiB and " + constant("internal/server", "maxHeaderLines") + " lines |",
	} {
		if !strings.Contains(strings.ReplaceAll(doc, ",", ""), strings.ReplaceAll(want, ",", "")) {
			t.Errorf("docs/configuration.md does not say %q", want)
		}
	}
}

// TestDocumentedCodes looks in docs/troubleshooting.md for every code that a reporter can be refused with, and every
// class of a failed attempt.
func TestDocumentedCodes(t *testing.T) {
	doc := markdown(t)["docs/troubleshooting.md"]
	found := 0
	expect := func(value ast.Expr) {
		literal, ok := value.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return
		}
		found++
		name, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("docs/troubleshooting.md does not have %s", name)
		}
	}
	for _, dir := range []string{"internal/run", "internal/lifecycle", "internal/intake", "internal/intake/cypress"} {
		for _, file := range goFiles(t, dir) {
			ast.Inspect(file, func(n ast.Node) bool {
				literal, ok := n.(*ast.CompositeLit)
				if !ok || !isNamed(literal.Type, "Error") {
					return true
				}
				for _, element := range literal.Elts {
					if pair, ok := element.(*ast.KeyValueExpr); ok && isNamed(pair.Key, "Code") {
						expect(pair.Value)
					}
				}
				return true
			})
		}
	}
	if found < 5 {
		t.Errorf("only %d codes were found: are errors made otherwise now?", found)
	}
	for _, file := range goFiles(t, "internal/webhook") {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if ok && isNamed(spec.Type, "Class") && spec.Names[0].Name != "OK" {
				expect(spec.Values[0])
			}
			return true
		})
	}
	if found < 15 {
		t.Errorf("only %d codes and classes were found: are classes declared otherwise now?", found)
	}
}

// isNamed says whether an expression is a name, of this package or another.
func isNamed(e ast.Expr, name string) bool {
	if s, ok := e.(*ast.SelectorExpr); ok {
		e = s.Sel
	}
	ident, ok := e.(*ast.Ident)
	return ok && ident.Name == name
}
