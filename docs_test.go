package runbell_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"runbell/internal/webhook"
)

// markdown is the text of every Markdown file of the project, by path.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && (name == "node_modules" || strings.HasPrefix(name, ".") && name != ".") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[path] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// goFiles parses the files of a package that are not tests.
func goFiles(t *testing.T, dir string) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
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
	read := map[string]bool{}
	for _, dir := range []string{"internal/config", "internal/app"} {
		for _, file := range goFiles(t, dir) {
			ast.Inspect(file, func(n ast.Node) bool {
				field, ok := n.(*ast.Field)
				if !ok {
					return true
				}
				tag := tagOf(t, field)
				for name := range strings.SplitSeq(tag.Get("env"), ",") {
					if name == "" {
						continue
					}
					read[name] = true
					if value := tag.Get("default"); value != "" && !strings.Contains(doc, "`"+value+"`") {
						t.Errorf("docs/configuration.md does not have the default of %s, %s", name, value)
					}
				}
				return true
			})
		}
	}
	if len(read) < 10 {
		t.Fatalf("only %d variables found: are they declared otherwise now?", len(read))
	}
	for name := range read {
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("docs/configuration.md does not have %s", name)
		}
	}
	for path, text := range markdown(t) {
		if path != "README.md" && filepath.Dir(path) != "docs" {
			continue // those for developers have variables of tests, too
		}
		for _, name := range regexp.MustCompile(`\bRUNBELL_[A-Z_]+`).FindAllString(text, -1) {
			if !read[name] {
				t.Errorf("%s has %s, which nothing reads", path, name)
			}
		}
	}
}

// TestDocumentedLinks follows every relative link, to its heading.
func TestDocumentedLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	files := markdown(t)
	for path, text := range files {
		for _, m := range link.FindAllStringSubmatch(withoutBlocks(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, heading, _ := strings.Cut(m[1], "#")
			file := path
			if target != "" {
				file = filepath.Join(filepath.Dir(path), filepath.FromSlash(target))
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: the link %s leads nowhere", path, m[1])
				continue
			}
			if heading != "" && !slices.Contains(headings(files[file]), heading) {
				t.Errorf("%s: %s has no heading %q, only %q", path, file, heading, headings(files[file]))
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
	named := regexp.MustCompile("(?m)(?:^ *|[`'(/])runbell ([a-z]+)((?: [a-z]+)?)")
	code := regexp.MustCompile("(?m)`[^`\n]+`|^    .+$")
	for path, text := range markdown(t) {
		spans := code.FindAllString(withoutBlocks(text), -1)
		for _, m := range fenced.FindAllStringSubmatch(text, -1) {
			spans = append(spans, m[2])
		}
		for _, span := range spans {
			for _, m := range named.FindAllStringSubmatch(span, -1) {
				command, sub := m[1], strings.TrimSpace(m[2])
				planned := command == "cypress" // said to be planned wherever it is named
				switch {
				case planned:
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
			if kind, ok := field.Type.(*ast.Ident); ok {
				walk(kind.Name, prefix+name+" ")
			}
		}
	}
	walk("commands", "")
	return out
}

// block is the code in docs/webhooks.md whose first line is a comment with a
// file's name.
func block(t *testing.T, name string) string {
	t.Helper()
	for _, m := range fenced.FindAllStringSubmatch(markdown(t)["docs/webhooks.md"], -1) {
		if strings.HasPrefix(m[2], "// "+name+"\n") {
			return m[2]
		}
	}
	t.Fatalf("docs/webhooks.md has no code that starts with // %s", name)
	return ""
}

// letter is a webhook, signed now.
type letter struct {
	secret webhook.Secret
	header http.Header
	body   []byte
}

func sign(t *testing.T, at time.Time, body []byte, secrets ...webhook.Secret) string {
	t.Helper()
	signer, err := webhook.NewSigner("", secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return string(signer.Sign(nil, "evt_1", at, body))
}

func newLetter(t *testing.T, at time.Time) letter {
	t.Helper()
	secret := webhook.NewSecret()
	body := []byte(`{"event":"RUN_FINISH","buildId":"grün <1>","failures":3}`)
	// The second signature is the receiver's: while a secret is rotated there are two.
	signature := sign(t, at, body, webhook.NewSecret(), secret)
	header := http.Header{}
	header.Set(webhook.HeaderID, "evt_1")
	header.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	header.Set(webhook.HeaderSignature, signature)
	return letter{secret, header, body}
}

// letters are one that is genuine, and some that are not, by what is wrong.
func letters(t *testing.T) (genuine letter, bad map[string]letter) {
	t.Helper()
	genuine = newLetter(t, time.Now())
	bad = map[string]letter{
		"signed long ago": newLetter(t, time.Now().Add(-10*time.Minute)),
		"signed ahead":    newLetter(t, time.Now().Add(10*time.Minute)),
	}
	for name, l := range bad {
		// Of the same secret, for a receiver that knows one.
		at, err := strconv.ParseInt(l.header.Get(webhook.HeaderTimestamp), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		l.secret = genuine.secret
		l.header.Set(webhook.HeaderSignature, sign(t, time.Unix(at, 0), l.body, genuine.secret))
		bad[name] = l
	}
	changed := genuine
	changed.body = bytes.Replace(genuine.body, []byte("3"), []byte("0"), 1)
	bad["the body was changed"] = changed
	for _, name := range []string{webhook.HeaderID, webhook.HeaderTimestamp, webhook.HeaderSignature} {
		l := genuine
		l.header = genuine.header.Clone()
		l.header.Del(name)
		bad["no "+name] = l
	}
	other := genuine
	other.header = genuine.header.Clone()
	other.header.Set(webhook.HeaderID, "evt_2")
	bad["of another event"] = other
	return genuine, bad
}

// node finds Node, which scripts/setup installs.
func node(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node is missing, 'make setup' installs it: %v", err)
	}
	return path
}

// TestDocumentedReceiver runs the receiver of docs/webhooks.md.
func TestDocumentedReceiver(t *testing.T) {
	good, bad := letters(t)
	path := filepath.Join(t.TempDir(), "receiver.js")
	if err := os.WriteFile(path, []byte(block(t, "receiver.js")), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().(*net.TCPAddr)
	_ = listener.Close() // for the receiver
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), node(t), path)
	cmd.Env = append(os.Environ(), fmt.Sprintf("PORT=%d", addr.Port), "RUNBELL_WEBHOOK_SECRET="+good.secret.Reveal())
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	post := func(l letter) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr.String(), bytes.NewReader(l.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = l.header.Clone()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			req.Body, _ = req.GetBody()
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			if time.Now().After(deadline) {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				t.Fatalf("the receiver does not answer: %v\n%s", err, &out)
			}
		}
	}
	for range 2 { // the second one is a repetition
		if code := post(good); code != http.StatusNoContent {
			t.Errorf("a genuine webhook is answered with %d", code)
		}
	}
	for name, l := range bad {
		if code := post(l); code != http.StatusUnauthorized {
			t.Errorf("%s: answered with %d, want 401", name, code)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if got, want := out.String(), "RUN_FINISH grün <1> 3\n"; got != want {
		t.Errorf("the receiver printed %q, want %q", got, want)
	}
}

// TestDocumentedLibraries runs the code of docs/webhooks.md that uses the
// libraries of Standard Webhooks, in Node and in Go.
func TestDocumentedLibraries(t *testing.T) {
	good, bad := letters(t)
	modules, err := filepath.Abs("e2e/client/node_modules") // what scripts/setup installs
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script, program, binary := filepath.Join(dir, "verify.js"), filepath.Join(dir, "verify.go"), filepath.Join(dir, "verify")
	// Arguments: the secret, the three headers. The body comes from stdin.
	javascript := block(t, "verify.js") + `
const [secret, id, timestamp, signature] = process.argv.slice(2);
const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
verify(secret, headers, require("node:fs").readFileSync(0, "utf8"));
`
	library := strings.Replace(block(t, "verify.go"), "import ", "package main\nimport (\"io\"; \"net/http\"; \"os\")\nimport ", 1) + `
func main() {
	header := http.Header{}
	for i, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		header.Set(name, os.Args[2+i])
	}
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	if verify(os.Args[1], header, body) != nil {
		os.Exit(1)
	}
}
`
	for path, text := range map[string]string{script: javascript, program: library} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// From here, so that the library is the version of go.mod.
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, program).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for language, command := range map[string][]string{"Node": {node(t), script}, "Go": {binary}} {
		verify := func(l letter) (string, error) {
			args := append(slices.Clone(command[1:]), l.secret.Reveal())
			for _, name := range []string{webhook.HeaderID, webhook.HeaderTimestamp, webhook.HeaderSignature} {
				args = append(args, l.header.Get(name))
			}
			cmd := exec.CommandContext(t.Context(), command[0], args...)
			cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
			cmd.Stdin = bytes.NewReader(l.body)
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		if out, err := verify(good); err != nil {
			t.Errorf("%s refuses a genuine webhook: %v\n%s", language, err, out)
		}
		for name, l := range bad {
			if _, err := verify(l); err == nil {
				t.Errorf("%s accepts a webhook: %s", language, name)
			}
		}
	}
}
