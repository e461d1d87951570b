package test

import (
	"fmt"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "runbell"

// anything allows every package of the module but app, which only cmd may use.
const anything = "anything but app"

// mayImport says which packages of internal/ each part of the program may import. Imports point one way:
//
//	run, webhook <- database, store <- history <- lifecycle, dispatch, auth <- intake/*, api, ui <- server <- app <- cmd
//
// intake, api and ui serve different people and never import each other; nor do the protocols below intake. Only app reads the environment; server hands
// the configuration down as values. A package below another, such as app/demo, follows its rule.
//
// Tests may import everything but app, to arrange what they look at.
var mayImport = map[string][]string{
	".":           {}, // the documents that the server shows
	"cmd/runbell": {"app"},
	"bench":       {anything},
	"e2e":         {"testkit", "replay", "client"}, // it drives the built binary, as others would
	"test":        {anything},

	"internal/run":            {},
	"internal/webhook":        {"run"},
	"internal/database":       {},
	"internal/store":          {"run", "webhook", "database"},
	"internal/lifecycle":      {"run", "webhook", "store", "history"}, // what events say of tests over time
	"internal/client":         {},                                     // as a program of somebody else
	"internal/outbound":       {},
	"internal/dispatch":       {"run", "webhook", "store", "outbound", "notify"},
	"internal/notify":         {"run", "webhook"},
	"internal/endpoint":       {"run", "webhook", "store"},
	"internal/auth":           {"run", "store"},
	"internal/history":        {"run", "store"},
	"internal/retention":      {"run", "store", "auth", "history"},
	"internal/projects":       {"run", "webhook", "store", "endpoint", "auth", "retention"},
	"internal/web":            {"run"},
	"internal/artifact":       {"run", "lifecycle", "store", "body"}, // an upload counts as a report, at the pace of a body
	"internal/files":          {"run", "artifact", "auth", "store", "web", "body"},
	"internal/backup":         {"run", "database", "store", "artifact"}, // it copies the database as a file
	"internal/body":           {"run"},
	"internal/intake":         {"run", "lifecycle", "auth", "artifact", "web", "body"},
	"internal/intake/cypress": {"run", "lifecycle", "body", "intake"},
	"internal/api":            {"run", "webhook", "lifecycle", "artifact", "store", "endpoint", "auth", "projects", "retention", "history", "web", "body"},
	"internal/ui":             {"run", "webhook", "lifecycle", "artifact", "store", "endpoint", "auth", "projects", "retention", "history", "web"},
	"internal/importer":       {"run", "webhook", "store", "lifecycle", "endpoint", "artifact", "intake", "intake/cypress"}, // which reads what reporters sent
	"internal/recorder":       {},
	"internal/config":         {"run"}, // how people write sizes
	"internal/replay":         {},
	"internal/server":         {anything},
	"internal/app":            {anything},
	"internal/testkit":        {anything},
}

// The domain is pure: it decides, and others read, write and send.
var domain = []string{"internal/run", "internal/webhook"}

// Packages that no file of the domain but its tests may import, nor those below them.
var impure = []string{"database", "net", "os", "io/fs"}

// What looks impure by its path and is not: parsing URLs and addresses.
var pure = []string{"net/url", "net/netip"}

// The packages that may import database/sql, tests included. testkit makes the databases that tests use.
var mayImportSQL = []string{"internal/database", "internal/testkit"}

func TestImportsPointOneWay(t *testing.T) {
	files := token.NewFileSet()
	unknown := map[string]bool{}
	walk(t, func(file string) {
		if path.Ext(file) != ".go" {
			return
		}
		dir := path.Dir(file)
		part, known := partOf(dir)
		if !known {
			if !unknown[dir] {
				t.Errorf("package %s is in no rule: add it to mayImport in test/imports_test.go, with what it may import", dir)
			}
			unknown[dir] = true
			return
		}
		// Every file, whatever system it is for: the go command lists only those for this one.
		parsed, err := parser.ParseFile(files, file, read(t, file), parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if problem := checkImport(part, strings.HasSuffix(file, "_test.go"), imported); problem != "" {
				t.Errorf("%s: %s", files.Position(spec.Pos()), problem)
			}
		}
	}, "testdata", "tools")
}

func TestCheckImport(t *testing.T) {
	for _, c := range []struct {
		file, imported string
		allowed        bool
	}{
		{"internal/store/run.go", "runbell/internal/run", true},
		{"internal/store/run.go", "database/sql", false},
		{"internal/database/sqlite.go", "database/sql", true},
		{"internal/database/sqlite.go", "runbell/internal/run", false},
		{"internal/store/store.go", "runbell/internal/database", true},
		{"internal/lifecycle/create.go", "runbell/internal/database", false},
		{"internal/store/run_test.go", "runbell/internal/testkit", true},
		{"internal/lifecycle/create.go", "database/sql", false},
		{"internal/lifecycle/create_test.go", "database/sql", false},
		{"internal/lifecycle/create.go", "runbell/internal/testkit", false},
		{"internal/run/run.go", "runbell/internal/webhook", false},
		{"internal/run/run.go", "net/http", false},
		{"internal/run/run.go", "strings", true},
		{"internal/run/run_test.go", "os", true},
		{"internal/webhook/endpoint.go", "net/url", true},
		{"internal/webhook/endpoint.go", "net", false},
		{"internal/ui/page.go", "runbell/internal/api", false},
		{"internal/ui/page_test.go", "runbell/internal/intake/cypress", true},
		{"internal/ui/page_test.go", "runbell/internal/app", false},
		{"internal/api/server.go", "runbell/internal/config", false},
		{"internal/app/serve.go", "runbell/internal/config", true},
		{"internal/app/serve.go", "runbell/internal/app/demo", true},
		{"internal/app/demo/demo.go", "runbell/internal/testkit", false},
		{"internal/app/demo/demo.go", "runbell/internal/recorder", true},
		{"internal/intake/cypress/wire.go", "runbell/internal/intake", true},
		{"internal/intake/cypress/wire.go", "runbell/internal/ui", false},
		{"internal/intake/cypress/wire.go", "runbell/internal/store", false},
		{"internal/api/runs.go", "runbell/internal/intake/cypress", false},
		{"internal/testkit/store.go", "runbell/internal/app", false},
		{"cmd/runbell/main.go", "runbell/internal/app", true},
		{"cmd/runbell/main.go", "runbell/internal/store", false},
		{"bench/ingest/main.go", "runbell/internal/testkit", true},
		{"e2e/serve_test.go", "runbell/internal/testkit", true},
		{"e2e/serve_test.go", "runbell/internal/store", false},
	} {
		part, known := partOf(path.Dir(c.file))
		if !known {
			t.Errorf("%s is in no rule", c.file)
			continue
		}
		problem := checkImport(part, strings.HasSuffix(c.file, "_test.go"), c.imported)
		if allowed := problem == ""; allowed != c.allowed {
			t.Errorf("%s importing %s: allowed = %v, want %v (%s)", c.file, c.imported, allowed, c.allowed, problem)
		}
	}
}

// checkImport says what is wrong with an import in a file or test file of a part, or "" if nothing is.
func checkImport(part string, test bool, imported string) string {
	if within(imported, "database/sql") && !slices.Contains(mayImportSQL, part) {
		return part + " imports database/sql: only internal/database runs SQL with it"
	}
	if slices.Contains(domain, part) && !test && within(imported, impure...) && !within(imported, pure...) {
		return fmt.Sprintf("%s imports %s, but the domain is pure", part, imported)
	}

	inModule, ok := strings.CutPrefix(imported, module+"/")
	if !ok || within(inModule, part) {
		return ""
	}
	target := inModule
	if owner, known := partOf(inModule); known {
		target = owner
	}
	target = strings.TrimPrefix(target, "internal/")
	rule := mayImport[part]
	// The tests of the program from outside stay outside.
	if test && part != "e2e" || slices.Contains(rule, anything) {
		if target == "app" {
			return part + " imports app, which is only for cmd"
		}
		if target == "testkit" && !test && part != "bench" {
			return part + " imports testkit, which is only for tests, benchmarks and e2e"
		}
		return ""
	}
	if !slices.Contains(rule, target) {
		return fmt.Sprintf("%s may not import %s, only %v (see mayImport in test/imports_test.go)", part, inModule, rule)
	}
	return ""
}

// partOf returns the longest key of mayImport that a directory falls under.
func partOf(dir string) (part string, known bool) {
	for p := range mayImport {
		if within(dir, p) && len(p) > len(part) {
			part, known = p, true
		}
	}
	return part, known
}

// within reports whether an import path is one of the parents or below it.
func within(imported string, parents ...string) bool {
	return slices.ContainsFunc(parents, func(parent string) bool {
		return imported == parent || strings.HasPrefix(imported, parent+"/")
	})
}
