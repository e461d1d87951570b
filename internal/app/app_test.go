package app

import (
	"bytes"
	"context"
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
