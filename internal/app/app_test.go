package app

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// run calls Main as a process would.
func runMain(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(t.Context(), "v1.2.3-test", args, env, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

func TestEveryCommandHasHelp(t *testing.T) {
	model := kong.Must(&commands{}, kong.Name("runbell"), kong.Exit(func(int) {}))
	for _, leaf := range model.Model.Leaves(true) {
		args := strings.Fields(leaf.FullPath())[1:]
		code, out, err := runMain(t, nil, append(args, "--help")...)
		if code != exitOK || err != "" {
			t.Errorf("%s --help: exit code %d, stderr %q", leaf.FullPath(), code, err)
		}
		if !strings.HasPrefix(out, "Usage: "+leaf.FullPath()) {
			t.Errorf("%s --help prints %.60q", leaf.FullPath(), out)
		}
		if leaf.Detail == "" {
			t.Errorf("%s --help says nothing beyond its flags", leaf.FullPath())
		}
	}
}

// The environment is the one that was passed, and never that of the process.
func TestEnvironmentIsPassed(t *testing.T) {
	t.Setenv("RUNBELL_URL", "process")
	for _, c := range []struct {
		env  []string
		args []string
		want string
	}{
		{[]string{"RUNBELL_URL=passed"}, nil, `not "passed"`},
		{[]string{"RUNBELL_URL=passed"}, []string{"--server", "flag"}, `not "flag"`},
		{[]string{"RUNBELL_URL=http://127.0.0.1:1"}, nil, "nothing answers at http://127.0.0.1:1"},
	} {
		if _, _, err := runMain(t, c.env, append([]string{"project", "list"}, c.args...)...); !strings.Contains(err, c.want) {
			t.Errorf("%q %q prints %q, want %q in it", c.env, c.args, err, c.want)
		}
	}
}

// The parser's own tag, env, would read the environment of the process.
func TestVariablesAreNamedByOurTag(t *testing.T) {
	model := kong.Must(&commands{}, kong.Name("runbell"), kong.Exit(func(int) {}))
	for _, leaf := range model.Model.Leaves(true) {
		for _, flags := range leaf.AllFlags(false) {
			for _, flag := range flags {
				if len(flag.Tag.Envs) > 0 {
					t.Errorf("%s --%s has the tag env: name its variable in the tag var", leaf.FullPath(), flag.Name)
				}
			}
		}
	}
}

func TestSecretsFromFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var header string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Get("Authorization")
		fmt.Fprint(w, `{"status":"OK","data":[]}`)
	}))
	defer server.Close()
	key := file("key", "from a file\n")
	for _, c := range []struct {
		name   string
		env    []string
		header string
		want   string
	}{
		{"a file", []string{"RUNBELL_API_KEY_FILE=" + key}, "Bearer from a file", ""},
		{"an empty variable and a file", []string{"RUNBELL_API_KEY=", "RUNBELL_API_KEY_FILE=" + key}, "Bearer from a file", ""},
		{"both", []string{"RUNBELL_API_KEY=k", "RUNBELL_API_KEY_FILE=" + key}, "", "RUNBELL_API_KEY and RUNBELL_API_KEY_FILE are both set: unset one"},
		{"no such file", []string{"RUNBELL_API_KEY_FILE=" + filepath.Join(dir, "none")}, "", "RUNBELL_API_KEY_FILE: open "},
		{"an empty file", []string{"RUNBELL_API_KEY_FILE=" + file("empty", "\n")}, "", "is empty"},
		{"a large file", []string{"RUNBELL_API_KEY_FILE=" + file("large", strings.Repeat("k", 65<<10))}, "", "is larger than 64 KiB"},
		{"what is no secret", []string{"RUNBELL_URL_FILE=" + key}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			header = ""
			code, _, err := runMain(t, append(c.env, "RUNBELL_URL="+server.URL), "project", "list")
			if header != c.header || !strings.Contains(err, c.want) || (c.want == "") != (code == exitOK) {
				t.Errorf("exit code %d, stderr %q, Authorization %q", code, err, header)
			}
		})
	}
}

func TestCanceledContextEndsListen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, err bytes.Buffer
	if code := Main(ctx, "", []string{"listen", "--addr", "127.0.0.1:0"}, nil, strings.NewReader(""), &out, &err); code != exitOK {
		t.Errorf("exit code %d: %s", code, &err)
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ms", 4 * time.Millisecond: "4ms", 999 * time.Millisecond: "999ms", time.Second: "1s", 4256 * time.Millisecond: "4.2s",
		10900 * time.Millisecond: "10s", time.Minute: "1m", 79 * time.Second: "1m 19s", 30 * time.Minute: "30m", time.Hour: "1h",
		5400 * time.Second: "1h 30m", 12 * time.Hour: "12h", time.Hour + 5*time.Minute + 3*time.Second: "1h 5m",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v prints as %q, want %q", d, got, want)
		}
	}
	if got := seconds(0); got != "0s" {
		t.Errorf("no seconds print as %q", got)
	}
}

func TestPick(t *testing.T) {
	list := []named{{"abcd1111", "chat", "shop"}, {"abcd2222", "Chat", "web"}, {"ef001111", "", "web"}, {"1234ffff", "abcd", "web"}}
	for ref, want := range map[string]string{"ef00": "ef001111", "EF00": "ef001111", "abcd1": "abcd1111", "abcd2222": "abcd2222"} {
		if got, err := pick("thing", ref, list); got != want || err != nil {
			t.Errorf("%q is %q (%v), want %q", ref, got, err, want)
		}
	}
	for ref, want := range map[string]string{"ef0": "there is no thing", "": "there is no thing", "CHAT": "matches 2 of them", "abcd": "matches 3 of them"} {
		if got, err := pick("thing", ref, list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %q (%v), want an error with %q", ref, got, err, want)
		}
	}
}

// A password in the server's address reaches the server and no message.
func TestPasswordInTheAddressIsNotPrinted(t *testing.T) {
	answers := map[string]string{
		"/v1/projects/none":  `{"status":"FAILED","error":"no key"}`,
		"/v1/projects/other": `<html>Hello</html>`,
		"/v1/projects":       `{"status":"OK","data":{"projectId":"shop","name":"Shop","recordKey":"rk"}}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); r.Header.Get("Authorization") != "Bearer key" && password != "hush" {
			t.Errorf("%s came without the password", r.URL)
		}
		if r.URL.Path == "/v1/projects/none" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprint(w, answers[r.URL.Path])
	}))
	defer server.Close()
	address := strings.Replace(server.URL, "//", "//user:hush@", 1)
	for _, args := range [][]string{
		{"project", "show", "none", "--server", address},
		{"project", "show", "none", "--server", address, "--api-key", "key"},
		{"project", "show", "other", "--server", address},
		{"project", "create", "Shop", "--server", address},
		{"project", "list", "--server", "http://user:hush@127.0.0.1:1"},
		{"project", "list", "--server", "http://user:hush@host.invalid"},
		{"project", "list", "--server", "user:hush@host"},
		{"project", "list", "--server", "http://user:hush@ho st"},
		{"cypress", "run", "--url", "ftp://user:hush@host", "--key", "k", "--project", "p"},
	} {
		_, out, err := runMain(t, nil, args...)
		if out+err == "" || strings.Contains(out+err, "hush") {
			t.Errorf("%q prints %q and %q", args, out, err)
		}
	}
}
