package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestErrorsHaveOneForm: what pages, the REST API and reporters say is a sentence with a period. An error of a
// command or in the log starts in lower case and has no period.
func TestErrorsHaveOneForm(t *testing.T) {
	ordinary := regexp.MustCompile(`^(?:[A-Z][a-z]+|A) `)
	names := regexp.MustCompile(`^(?:Cypress|Runbell) `)
	seen := map[string]int{}
	walk(t, func(path string) {
		if !strings.HasPrefix(path, "internal/") || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, read(t, path), parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name, at := called(call.Fun), 0
			if name == "run.Errorf" || name == "Errorf" && file.Name.Name == "run" {
				name, at = "run.Errorf", 1
			}
			if len(call.Args) <= at {
				return true
			}
			text, ok := literal(call.Args[at])
			if !ok || text == "" {
				return true
			}
			place := files.Position(call.Pos())
			switch name {
			case "run.Errorf":
				if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "%s") { // %s may be a sentence
					t.Errorf("%s: %q is no sentence: end it with a period", place, text)
				}
			case "fmt.Errorf", "errors.New", "usagef":
				if strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "...") {
					t.Errorf("%s: %q ends with a period", place, text)
				}
				if ordinary.MatchString(text) && !names.MatchString(text) {
					t.Errorf("%s: %q starts with a capital", place, text)
				}
			default:
				return true
			}
			seen[name]++
			return true
		})
	}, "testdata")
	for _, name := range []string{"run.Errorf", "fmt.Errorf", "errors.New", "usagef"} {
		if seen[name] < 10 {
			t.Errorf("only %d calls of %s were found: is the search still right?", seen[name], name)
		}
	}
}

// called names the function of a call: f, or p.f.
func called(fun ast.Expr) string {
	switch f := fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if p, ok := f.X.(*ast.Ident); ok {
			return p.Name + "." + f.Sel.Name
		}
	}
	return ""
}

// literal is the value of a string, or of strings with + between them.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, isLeft := literal(e.X)
		right, isRight := literal(e.Y)
		return left + right, isLeft && isRight && e.Op == token.ADD
	}
	return "", false
}
