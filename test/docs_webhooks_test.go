package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// block is the code in docs/webhooks.md whose first line is a comment with a
// file's name.
func block(t *testing.T, name string) string {
	t.Helper()
	for _, m := range fenced.FindAllStringSubmatch(markdown(t)["docs/webhooks.md"], -1) {
		if strings.HasPrefix(m[2], "// "+name+"\n") || strings.HasPrefix(m[2], "# "+name+"\n") {
			return m[2]
		}
	}
	t.Fatalf("docs/webhooks.md has no code that starts with a comment %s", name)
	return ""
}

// letter is a webhook as it arrives, and whether it is genuine: by the secret
// that the receiver knows, and by the public key.
type letter struct {
	Name     string            `json:"name"`
	Key      string            `json:"key"`
	Public   string            `json:"public"`
	Headers  map[string]string `json:"headers"`
	Body     string            `json:"body"`
	genuine  bool
	byPublic bool
}

// letters are some that are genuine, and some that are not, all for one receiver.
func letters(t *testing.T) (secret webhook.Secret, list []letter) {
	t.Helper()
	secret = webhook.NewSecret()
	private := webhook.NewPrivateKey()
	public, err := private.Public()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, genuine, byPublic bool, at time.Time, private webhook.PrivateKey, keys ...webhook.Secret) letter {
		signer, err := webhook.NewSigner(private, keys...)
		if err != nil {
			t.Fatal(err)
		}
		const id, body = "evt_1", `{"event":"RUN_FINISH","runUrl":"http://r/run/1","buildId":"grün <1>","failures":3}`
		return letter{name, secret.Reveal(), string(public), map[string]string{webhook.HeaderID: id, webhook.HeaderTimestamp: strconv.FormatInt(at.Unix(), 10),
			webhook.HeaderSignature: string(signer.Sign(nil, id, at, []byte(body)))}, body, genuine, byPublic}
	}
	now := time.Now()
	good := write("genuine", true, true, now, private, secret)
	list = []letter{
		good,
		// While a secret is replaced there are two signatures.
		write("genuine, by the new secret", true, true, now, private, secret, webhook.NewSecret()),
		write("genuine, by the former secret", true, true, now, private, webhook.NewSecret(), secret),
		write("signed with another secret", false, true, now, private, webhook.NewSecret()),
		write("signed with another private key", true, false, now, webhook.NewPrivateKey(), secret),
		write("signed with the secret alone", true, false, now, "", secret),
		write("signed long ago", false, false, now.Add(-10*time.Minute), private, secret),
		write("signed ahead", false, false, now.Add(10*time.Minute), private, secret),
	}
	change := func(name string, how func(*letter)) {
		l := good
		l.Name, l.genuine, l.byPublic, l.Headers = name, false, false, maps.Clone(good.Headers)
		how(&l)
		list = append(list, l)
	}
	change("another body", func(l *letter) { l.Body = strings.Replace(l.Body, "3", "0", 1) })
	change("another event", func(l *letter) { l.Headers[webhook.HeaderID] = "evt_2" })
	change("half a signature", func(l *letter) { l.Headers[webhook.HeaderSignature] = l.Headers[webhook.HeaderSignature][:20] })
	change("the end of a signature", func(l *letter) { l.Headers[webhook.HeaderSignature] = l.Headers[webhook.HeaderSignature][60:] })
	change("a signature that is none", func(l *letter) { l.Headers[webhook.HeaderSignature] = "v1,ü v1a,ü v1 ,, v1a," })
	change("no time", func(l *letter) { l.Headers[webhook.HeaderTimestamp] = "now" })
	for _, name := range []string{webhook.HeaderID, webhook.HeaderTimestamp, webhook.HeaderSignature} {
		change("without "+name, func(l *letter) { delete(l.Headers, name) })
	}
	return secret, list
}

// program finds a language, which scripts/setup installs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing, 'make setup' installs it: %v", name, err)
	}
	return path
}

// What runs the snippets: it reads letters, and prints the names of those that
// the snippet accepts.
const (
	runGo = `
func main() {
	var letters []struct{ Name, Key, Public, Body string; Headers map[string]string }
	if err := json.NewDecoder(os.Stdin).Decode(&letters); err != nil {
		panic(err)
	}
	for _, l := range letters {
		header := http.Header{}
		for name, value := range l.Headers {
			header.Set(name, value)
		}
		if ACCEPTS {
			fmt.Println(l.Name)
		}
	}
}
`
	runJavaScript = `
for (const { name, key, public: publicKey, headers, body } of JSON.parse(require("node:fs").readFileSync(0))) {
  const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  try {
    if (ACCEPTS) console.log(name);
  } catch (error) {
    if (error.constructor.name !== "WebhookVerificationError") throw error;
  }
}
`
	runPython = `
import json, sys
for letter in json.load(sys.stdin):
    try:
        if ACCEPTS:
            print(letter["name"])
    except ValueError: # a number or base64 that is none: the request is refused, too
        pass
`
)

// TestDocumentedSnippets runs the code of docs/webhooks.md that verifies.
func TestDocumentedSnippets(t *testing.T) {
	_, list := letters(t)
	input, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := filepath.Abs("../e2e/client/node_modules") // what scripts/setup installs
	if err != nil {
		t.Fatal(err)
	}
	bySecret, byPublic := func(l letter) bool { return l.genuine }, func(l letter) bool { return l.byPublic }
	imports := `"crypto/ed25519"; "crypto/hmac"; "crypto/sha256"; "encoding/base64"; "encoding/json"; "fmt"; "net/http"; "os"; "slices"; "strconv"; "strings"; "time"`
	for name, c := range map[string]struct {
		accepts, run string
		genuine      func(letter) bool
	}{
		"verify.go":  {`verify(l.Key, header, []byte(l.Body)) == nil`, runGo, bySecret},
		"genuine.go": {`genuine(l.Key, header, []byte(l.Body))`, runGo, bySecret},
		"ed25519.go": {`genuine(l.Public, header, []byte(l.Body))`, runGo, byPublic},
		"verify.js":  {`verify(key, headers, body)`, runJavaScript, bySecret},
		"genuine.js": {`genuine(key, lower, Buffer.from(body))`, runJavaScript, bySecret},
		"ed25519.js": {`genuine(publicKey, lower, Buffer.from(body))`, runJavaScript, byPublic},
		"genuine.py": {`genuine(letter["key"], letter["headers"], letter["body"].encode())`, runPython, bySecret},
		"ed25519.py": {`genuine(letter["public"], letter["headers"], letter["body"].encode())`, runPython, byPublic},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path, text := filepath.Join(dir, name), block(t, name)
			var command []string
			switch filepath.Ext(name) {
			case ".go":
				// As an editor would, it imports what the snippet uses.
				var used []string
				for i := range strings.SplitSeq(imports, "; ") {
					if at := strings.LastIndex(i, "/"); strings.Contains(text+c.run, strings.Trim(i[at+1:], `"`)+".") {
						used = append(used, i)
					}
				}
				text = "package main\nimport (" + strings.Join(used, "; ") + ")\n" + text
				command = []string{filepath.Join(dir, "snippet")}
			case ".js":
				command = []string{program(t, "node"), path}
			case ".py":
				command = []string{program(t, "python3"), path}
			}
			if err := os.WriteFile(path, []byte(text+strings.Replace(c.run, "ACCEPTS", c.accepts, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(name) == ".go" {
				// From here, so that the library is the version of go.mod.
				if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", command[0], path).CombinedOutput(); err != nil {
					t.Fatalf("go build: %v\n%s", err, out)
				}
			}
			cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
			cmd.Stdin = bytes.NewReader(input)
			var complaints bytes.Buffer
			cmd.Stderr = &complaints
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, &complaints)
			}
			accepted := strings.Split(string(out), "\n")
			for _, l := range list {
				if want := c.genuine(l); slices.Contains(accepted, l.Name) != want {
					t.Errorf("%s: accepted: %v, want %v", l.Name, !want, want)
				}
			}
		})
	}
	// Python's library of Standard Webhooks is not among what the tests install:
	// that its snippet is Python is all that is known here.
	t.Run("verify.py", func(t *testing.T) {
		t.Parallel()
		cmd := exec.CommandContext(t.Context(), program(t, "python3"), "-c", "import sys; compile(sys.stdin.read(), 'verify.py', 'exec')")
		cmd.Stdin = strings.NewReader(block(t, "verify.py"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestDocumentedReceiver runs the receiver of docs/webhooks.md.
func TestDocumentedReceiver(t *testing.T) {
	secret, list := letters(t)
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
	cmd := exec.CommandContext(t.Context(), program(t, "node"), path)
	cmd.Env = append(os.Environ(), fmt.Sprintf("PORT=%d", addr.Port), "RUNBELL_WEBHOOK_SECRET="+secret.Reveal())
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	post := func(l letter, sequence int) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr.String(), strings.NewReader(l.Body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range l.Headers {
			req.Header.Set(name, value)
		}
		req.Header.Set("X-Runbell-Sequence", strconv.Itoa(sequence))
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
	signer, err := webhook.NewSigner("", secret)
	if err != nil {
		t.Fatal(err)
	}
	again := func(l letter, id, event string) letter {
		l.Headers, l.Body = maps.Clone(l.Headers), strings.Replace(l.Body, "RUN_FINISH", event, 1)
		l.Headers[webhook.HeaderID] = id
		l.Headers[webhook.HeaderSignature] = string(signer.Sign(nil, id, time.Now(), []byte(l.Body)))
		l.Headers[webhook.HeaderTimestamp] = strconv.FormatInt(time.Now().Unix(), 10)
		return l
	}
	for _, l := range list {
		want := map[bool]int{true: http.StatusNoContent, false: http.StatusUnauthorized}[l.genuine]
		if code := post(l, 4); code != want {
			t.Errorf("%s: answered with %d, want %d", l.Name, code, want)
		}
	}
	test := again(list[0], "evt_3", "RUN_TIMEOUT")
	test.Headers["X-Runbell-Test"] = "1"
	// One that happened before comes late, one after that in time, and a test.
	for i, l := range []letter{again(list[0], "evt_0", "RUN_START"), again(list[0], "evt_2", "RUN_CANCELED"), test} {
		if code := post(l, 3+2*i); code != http.StatusNoContent {
			t.Errorf("a later one is answered with %d", code)
		}
	}
	// It prints after it has answered; the answer to one more request is after that.
	post(list[0], 4)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	if got, want := out.String(), "RUN_FINISH grün <1> 3\nRUN_CANCELED grün <1> 3\n"; got != want {
		t.Errorf("the receiver printed %q, want %q", got, want)
	}
}

func TestPayloadSchema(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile("../docs/webhook.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(body []byte) error {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			return err
		}
		return schema.Validate(value)
	}
	// Keys are those of the type that makes the payload, and all are described.
	var document struct {
		Properties map[string]struct{ Description string }
		Required   []string
	}
	if err := json.Unmarshal(read(t, "docs/webhook.schema.json"), &document); err != nil {
		t.Fatal(err)
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[webhook.ExtendedPayload]()) {
		if field.Anonymous {
			continue
		}
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		if document.Properties[name].Description == "" || slices.Contains(document.Required, name) == (option == "omitempty" || name == "facts") {
			t.Errorf("%s is not described, or required and may be absent, or the other way round", name)
		}
		delete(document.Properties, name)
	}
	if len(document.Properties) > 0 {
		t.Errorf("no payload has %v", document.Properties)
	}

	// Real payloads: those of the recordings, and the one in the documentation.
	var bodies [][]byte
	files, err := fs.Glob(repository, "internal/intake/cypress/testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		for line := range bytes.Lines(read(t, file)) {
			if line[0] == '{' {
				bodies = append(bodies, line)
			}
		}
	}
	for _, m := range fenced.FindAllStringSubmatch(markdown(t)["docs/webhooks.md"], -1) {
		if m[1] == "json" {
			bodies = append(bodies, []byte(m[2]))
		}
	}
	if len(bodies) < 20 {
		t.Fatalf("only %d payloads", len(bodies))
	}
	extended := extendedPayloads(t)
	for _, body := range append(slices.Clone(bodies), extended...) {
		if err := validate(body); err != nil {
			t.Errorf("%v: %s", err, body)
		}
	}
	for _, body := range extended {
		for name, changed := range damaged(t, body) {
			if err := validate(changed); err == nil {
				t.Errorf("%s: accepted: %s", name, changed)
			}
		}
	}

	// Changed, they are refused, here and by the check that all other tests use.
	refused := 0
	for _, body := range bodies {
		for name, changed := range mutations(t, body) {
			if err := validate(changed); err == nil {
				t.Errorf("%s: accepted: %s", name, changed)
			}
			if err := testkit.CheckPayload(changed); err == nil {
				t.Errorf("%s: testkit accepts it: %s", name, changed)
			}
			refused++
		}
	}
	if refused < 1000 {
		t.Errorf("only %d changed payloads", refused)
	}
}

// extendedPayloads are those of the golden file, and the samples that tests send.
func extendedPayloads(t *testing.T) (bodies [][]byte) {
	t.Helper()
	for part := range bytes.SplitSeq(read(t, "internal/webhook/testdata/facts.golden"), []byte("# ")) {
		if _, body, found := bytes.Cut(part, []byte("\n")); found {
			bodies = append(bodies, body)
		}
	}
	for _, kind := range webhook.Kinds() {
		bodies = append(bodies, endpoint.Sample(kind, run.NewProject("shop"), "https://runbell.example.com", time.Now()).Bytes())
	}
	if len(bodies) < 9 {
		t.Fatalf("only %d extended payloads", len(bodies))
	}
	return bodies
}

// damaged are extended payloads in whose facts, at any depth, a key is missing or is one too many.
func damaged(t *testing.T, body []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	var payload map[string]any
	if err := json.Unmarshal(body, &payload); err != nil {
		t.Fatal(err)
	}
	keep := func(name string) {
		changed, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = changed
	}
	var visit func(path string, value any)
	visit = func(path string, value any) {
		switch value := value.(type) {
		case map[string]any:
			value["other"] = 1
			keep(path + " with another key")
			delete(value, "other")
			for key, of := range value {
				delete(value, key)
				keep(path + " without " + key)
				value[key] = of
				visit(path+"."+key, of)
			}
		case []any:
			for n, of := range value {
				visit(fmt.Sprint(path, n), of)
			}
		}
	}
	visit("facts", payload["facts"])
	return out
}

// mutations are payloads that differ from a good one in one thing.
func mutations(t *testing.T, body []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	change := func(name string, how func(payload, commit map[string]any)) {
		var payload map[string]any
		if err := json.Unmarshal(body, &payload); err != nil {
			t.Fatal(err)
		}
		how(payload, payload["commit"].(map[string]any))
		changed, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = changed
	}
	for _, key := range []string{"event", "runUrl", "buildId", "tags", "commit", "overall", "passes", "failures", "pending", "skipped", "retries", "flaky"} {
		change("no "+key, func(p, _ map[string]any) { delete(p, key) })
		change(key+" is null", func(p, _ map[string]any) { p[key] = nil })
		change(key+" is a boolean", func(p, _ map[string]any) { p[key] = true })
		change(key+" in capitals", func(p, _ map[string]any) { p[strings.ToUpper(key)] = p[key] })
	}
	for _, key := range []string{"overall", "passes", "failures", "pending", "skipped", "retries", "flaky"} {
		for name, value := range map[string]any{"negative": -1, "a fraction": 1.5, "text": "1", "a list": []int{1}} {
			change(key+" is "+name, func(p, _ map[string]any) { p[key] = value })
		}
	}
	for _, key := range []string{"sha", "branch", "authorName", "authorEmail", "message", "remoteOrigin", "defaultBranch"} {
		change("no commit."+key, func(_, c map[string]any) { delete(c, key) })
		for name, value := range map[string]any{"empty": "", "a number": 1, "a list": []string{"a"}} {
			change("commit."+key+" is "+name, func(_, c map[string]any) { c[key] = value })
		}
	}
	for name, how := range map[string]func(p, c map[string]any){
		"another event":             func(p, _ map[string]any) { p["event"] = "RUN_STOP" },
		"an event in small letters": func(p, _ map[string]any) { p["event"] = "run_start" },
		"no build":                  func(p, _ map[string]any) { p["buildId"] = "" },
		"no group":                  func(p, _ map[string]any) { p["groupId"] = "" },
		"a group that is null":      func(p, _ map[string]any) { p["groupId"] = nil },
		"no run":                    func(p, _ map[string]any) { p["runUrl"] = "" },
		"a line end":                func(_, c map[string]any) { c["message"] = "fix\n" },
		"tags that are text":        func(p, _ map[string]any) { p["tags"] = "a,b" },
		"a tag that is a number":    func(p, _ map[string]any) { p["tags"] = []any{1} },
		"one key more":              func(p, _ map[string]any) { p["machineId"] = "m" },
		"one key more of commit":    func(_, c map[string]any) { c["url"] = "u" },
		"a commit that is text":     func(p, _ map[string]any) { p["commit"] = "561b38e" },
	} {
		change(name, how)
	}
	for name, text := range map[string]string{"a list": "[" + string(body) + "]", "cut short": string(body[:len(body)/2]), "nothing": "", "text": `"RUN_START"`} {
		out[name] = []byte(text)
	}
	return out
}
