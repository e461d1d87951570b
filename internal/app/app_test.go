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

	"github.com/alecthomas/kong"
)

// run calls Main as a process would.
func run(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(t.Context(), "v1.2.3-test", args, env, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

func TestEveryCommandHasHelp(t *testing.T) {
	model := kong.Must(&commands{}, kong.Name("runbell"), kong.Exit(func(int) {}))
	for _, leaf := range model.Model.Leaves(true) {
		args := strings.Fields(leaf.FullPath())[1:]
		code, out, err := run(t, nil, append(args, "--help")...)
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
		if _, _, err := run(t, c.env, append([]string{"project", "list"}, c.args...)...); !strings.Contains(err, c.want) {
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
		{"both", []string{"RUNBELL_API_KEY=k", "RUNBELL_API_KEY_FILE=" + key}, "", "RUNBELL_API_KEY and RUNBELL_API_KEY_FILE are both set: keep one"},
		{"no such file", []string{"RUNBELL_API_KEY_FILE=" + filepath.Join(dir, "none")}, "", "RUNBELL_API_KEY_FILE: open "},
		{"an empty file", []string{"RUNBELL_API_KEY_FILE=" + file("empty", "\n")}, "", "is empty"},
		{"a large file", []string{"RUNBELL_API_KEY_FILE=" + file("large", strings.Repeat("k", 65<<10))}, "", "is larger than 64 KiB"},
		{"what is no secret", []string{"RUNBELL_URL_FILE=" + key}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			header = ""
			code, _, err := run(t, append(c.env, "RUNBELL_URL="+server.URL), "project", "list")
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

func TestSeconds(t *testing.T) {
	for n, want := range map[int64]string{0: "0s", 1: "1s", 60: "1m", 90: "1m30s", 1800: "30m", 3600: "1h", 43200: "12h", 5400: "1h30m", 610: "10m10s"} {
		if got := seconds(n); got != want {
			t.Errorf("seconds(%d) = %q, want %q", n, got, want)
		}
	}
}
