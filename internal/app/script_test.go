package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"

	"runbell/internal/replay"
	"runbell/internal/testkit"
)

// The scripts run the program in processes of its own, as people and their
// scripts do, but for administration.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"runbell": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(Main(ctx, "v1.2.3-test", os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			// With the race detector, each process would end with a second's sleep.
			env.Setenv("GORACE", "atexit_sleep_ms=20")
			env.Setenv("BIN", filepath.SplitList(os.Getenv("PATH"))[0]) // where runbell is, and nothing else
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"until":   until,
			"port":    port,
			"listens": listens,
			"capture": capture,
			"record":  record,
		},
	})
}

// administration are the commands that only talk to a server: most lines of the scripts. They run in the process of the
// test, because with the race detector each process takes a quarter of a second of a processor to start. Flags and
// words that are no command run there, too.
var administration = []string{"project", "key", "user", "webhook", "delivery", "run", "gc", "complete", "completion", "version",
	"nonsense"}

// execute runs a program to its end, and returns its exit code and what it printed.
func execute(ts *testscript.TestScript, program string, args ...string) (code int, stdout, stderr string) {
	if program == "runbell" && (len(args) == 0 || strings.HasPrefix(args[0], "-") || slices.Contains(administration, args[0])) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var out, err strings.Builder
		ts.Logf("[runbell in the process of the test]")
		code := Main(ctx, "v1.2.3-test", args, variables(ts), strings.NewReader(""), &out, &err)
		return code, out.String(), err.String()
	}
	err := ts.Exec(program, args...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	} else {
		ts.Check(err)
	}
	return code, ts.ReadFile("stdout"), ts.ReadFile("stderr")
}

// variables are those of the script that some flag reads.
func variables(ts *testscript.TestScript) (list []string) {
	for _, name := range variableNames() {
		list = append(list, name+"="+ts.Getenv(name))
	}
	return list
}

var variableNames = sync.OnceValue(func() (names []string) {
	for _, leaf := range kong.Must(&commands{}).Model.Leaves(true) {
		for _, flag := range leaf.Flags {
			if name := flag.Tag.Get("var"); name != "" {
				names = append(names, name, name+"_FILE")
			}
		}
	}
	return names
})

// prints has the next lines of the script see what a program printed.
func prints(ts *testscript.TestScript, stdout, stderr string) {
	_, err := io.WriteString(ts.Stdout(), stdout)
	ts.Check(err)
	_, err = io.WriteString(ts.Stderr(), stderr)
	ts.Check(err)
}

// exits CODE PROGRAM ARG… runs a program that must end with an exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG…")
	}
	code, stdout, stderr := execute(ts, args[1], args[2:]...)
	prints(ts, stdout, stderr)
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// until PATTERN PROGRAM ARG… runs a program again and again until it succeeds
// and prints what is wanted, for a bounded time.
func until(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until PATTERN PROGRAM ARG…")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	deadline := time.Now().Add(20 * time.Second)
	for {
		code, stdout, stderr := execute(ts, args[1], args[2:]...)
		if code == 0 && pattern.MatchString(stdout) {
			prints(ts, stdout, stderr)
			return
		}
		if time.Now().After(deadline) {
			prints(ts, stdout, stderr)
			ts.Fatalf("%s did not print %q in time (last exit code: %d)", strings.Join(args[1:], " "), args[0], code)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// port NAME… sets each variable to a port that is free.
func port(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		port, err := testkit.FreePort()
		ts.Check(err)
		ts.Setenv(name, strconv.Itoa(port))
	}
}

// listens PORT waits until something does, for a bounded time.
func listens(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: listens PORT")
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", args[0]))
		if err == nil {
			ts.Check(c.Close())
			return
		}
		if time.Now().After(deadline) {
			ts.Check(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// capture NAME PATTERN sets a variable to the first group of a pattern in what
// the last program printed.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: capture NAME PATTERN")
	}
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) < 2 {
		ts.Fatalf("nothing printed matches %q", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// record PROJECT KEY BUILD plays the recorded run; with "start" it stops after
// the first claim. FIELD=VALUE changes what it sends first. It sets RUN to the
// run's id.
func record(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: record PROJECT KEY BUILD [start [FIELD=VALUE…]]")
	}
	recording, err := replay.Load(strings.NewReader(string(demoRun)))
	ts.Check(err)
	player := replay.Player{Recording: recording, URL: ts.Getenv("RUNBELL_URL"),
		Change: map[string]any{"projectId": args[0], "recordKey": args[1], "ciBuildId": args[2]}}
	for _, change := range args[min(len(args), 4):] {
		field, value, _ := strings.Cut(change, "=")
		player.Change[field] = value
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	m, err := player.Join(ctx)
	ts.Check(err)
	ts.Setenv("RUN", m.RunID)
	if len(args) > 3 {
		_, err = m.Claim(ctx)
	} else {
		err = m.Run(ctx)
	}
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), m.RunURL)
}
