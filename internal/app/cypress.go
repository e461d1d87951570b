package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"runbell/internal/recorder"
)

type cypressCmd struct {
	Run    cypressRunCmd    `cmd:"" help:"Run the specs of a Cypress project and record them."`
	Upload cypressUploadCmd `cmd:"" help:"Send results that could not be sent when the specs ran."`
}

// recording is the flags of both commands: the server, and the key.
type recording struct {
	Key        string        `help:"The project's record key (required). Prefer the variable: others can see the command line." var:"RUNBELL_RECORD_KEY" secret:"" placeholder:"KEY"`
	ServerWait time.Duration `help:"How long to retry if the server does not respond." default:"2m" placeholder:"TIME"`
}

// check says what to do if there is no key.
func (r recording) check() error {
	if r.Key == "" {
		return usagef("a record key is needed: set RUNBELL_RECORD_KEY, or give --key ('runbell key create --project " +
			"ID' creates one)")
	}
	return nil
}

type cypressRunCmd struct {
	recording
	Project    string   `help:"The projectId. Default: from the Cypress configuration." var:"RUNBELL_PROJECT" placeholder:"ID"`
	URL        string   `name:"url" aliases:"server" help:"URL of the server; --server works too." var:"RUNBELL_URL" default:"http://localhost:8484" placeholder:"URL"`
	CIBuildID  string   `name:"ci-build-id" help:"Build id: machines with the same one share a run. Default: from the CI service." placeholder:"ID"`
	Group      string   `help:"Name of this group of specs, such as a browser." placeholder:"NAME"`
	Tag        []string `help:"Tags of the run." placeholder:"A,B"`
	Parallel   bool     `help:"Share the group's specs with other machines."`
	Spec       []string `sep:"none" help:"Specs to run: a pattern, or the name of a file." placeholder:"GLOBS"`
	Batch      *int     `help:"Specs per start of Cypress, 1 to 100. Default: chosen for each start." placeholder:"N"`
	AutoCancel *string  `name:"auto-cancel-after-failures" help:"Cancel the run after this many failures; false turns this off. Default: the project's setting." placeholder:"N"`

	Browser    string `help:"As in 'cypress run'." placeholder:"BROWSER"`
	Config     string `help:"As in 'cypress run'." placeholder:"CONFIG"`
	Env        string `help:"As in 'cypress run'." placeholder:"ENV"`
	ConfigFile string `help:"As in 'cypress run'." placeholder:"FILE"`
	Component  bool   `help:"As in 'cypress run': run component tests." xor:"type"`
	E2E        bool   `name:"e2e" help:"As in 'cypress run': run end-to-end tests, which is the default." xor:"type"`

	RequireServer bool   `help:"Fail if the server cannot be reached, instead of running the specs without it."`
	OnInterrupt   string `help:"What to do with the run if this machine is stopped (Ctrl-C, a canceled CI job): cancel it, or leave it to other machines." enum:"cancel,leave" default:"cancel" placeholder:"cancel|leave"`
	ResultsFile   string `help:"File for results that cannot be sent. Default: in the directory for temporary files." placeholder:"FILE"`

	Options []string `arg:"" optional:"" name:"cypress-options" help:"After '--': other options of 'cypress run', such as --headed or --project DIR."`
}

func (cypressRunCmd) Help() string {
	return `Runs the specs with the cypress package of the project in this directory, Cypress 10 or newer, and reports
them. The project needs no plugin and is not changed. Machines with --parallel and the same build id and group share
the specs.

The exit code is that of 'cypress run': the number of failed tests. If the server cannot be reached, the specs run
without it, and the results are kept in a file for 'runbell cypress upload'.

Examples:

    runbell cypress run
    runbell cypress run --parallel --group chrome --browser chrome --tag smoke,nightly
    runbell cypress run --spec "cypress/e2e/shop/**" --batch 5 -- --headed --project ./web`
}

// Run records until the specs have ended, or a signal ends the process.
func (c *cypressRunCmd) Run(ctx context.Context, s *streams, env *environment, version versionText) error {
	if err := c.check(); err != nil {
		return err
	}
	if looksLikePath(c.Project) {
		return usagef("--project is the projectId on the server, and %[1]q is a directory. To test the project in it, give "+
			"the option to Cypress: runbell cypress run -- --project %[1]s", c.Project)
	}
	if c.Batch != nil && (*c.Batch < 1 || *c.Batch > 100) {
		return usagef("--batch must be 1 to 100")
	}
	if c.ServerWait < 0 {
		return usagef("--server-wait must not be negative")
	}
	if len(c.Options) > 0 && !strings.HasPrefix(c.Options[0], "-") {
		return usagef("unexpected argument %q: options of Cypress go after --", c.Options[0])
	}
	limit, err := failLimit(c.AutoCancel)
	if err != nil {
		return err
	}
	if _, err := dial(c.URL, ""); err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	ctx, end := interruptible(ctx)
	defer end()
	code, err := recorder.Record(ctx, recorder.Options{
		Version: string(version), Dir: dir, Env: env.list, Out: s.Out, Err: s.Err,
		Color: bool(styleFor(s.Out, env)) && bool(styleFor(s.Err, env)), Server: strings.TrimRight(c.URL, "/"), Key: c.Key,
		ProjectID: c.Project, BuildID: c.CIBuildID, Group: c.Group, Tags: c.Tag, Parallel: c.Parallel, Specs: c.Spec,
		Batch: c.batch(), AutoCancel: limit, Cypress: c.cypress(), RequireServer: c.RequireServer, ServerWait: c.ServerWait,
		LeaveOnInterrupt: c.OnInterrupt == "leave", ResultsFile: c.ResultsFile,
	})
	return exited(code, err)
}

// cypress is the command line of 'cypress run'.
func (c *cypressRunCmd) cypress() []string {
	args := append([]string{}, c.Options...)
	for _, f := range []struct{ name, value string }{{"--browser", c.Browser}, {"--config", c.Config}, {"--env", c.Env},
		{"--config-file", c.ConfigFile}} {
		if f.value != "" {
			args = append(args, f.name, f.value)
		}
	}
	if c.Component {
		args = append(args, "--component")
	}
	if c.E2E {
		args = append(args, "--e2e")
	}
	return args
}

// failLimit reads a number of failures, or false for no limit.
func failLimit(given *string) (any, error) {
	switch {
	case given == nil:
		return nil, nil
	case *given == "false":
		return false, nil
	}
	n, err := strconv.Atoi(*given)
	if err != nil || n < 1 {
		return nil, usagef("--auto-cancel-after-failures must be a whole number above 0, or false, not %q", *given)
	}
	return n, nil
}

// interruptible is a context that ends with the signals that CI services and
// terminals send; its cause is a recorder.Interrupted. SIGHUP is among them: it
// is what is left of a terminal, or of a connection to a machine, that closed.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A closed pipe must not end the process: 'runbell cypress run | head'.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		select {
		case s := <-signals:
			cancel(recorder.Interrupted{Signal: s})
		case <-parent.Done(): // most likely of the same signal, which then says more
			select {
			case s := <-signals:
				cancel(recorder.Interrupted{Signal: s})
			case <-time.After(100 * time.Millisecond):
				cancel(context.Cause(parent))
			}
		case <-ctx.Done():
			return
		}
		// npm passes Ctrl-C on to a process that got it from the terminal already. After
		// that, the next one ends the process at once.
		time.Sleep(time.Second)
		signal.Stop(signals)
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// exited turns the end of a recording into an exit code.
func exited(code int, err error) error {
	if i, ok := errors.AsType[recorder.Interrupted](err); ok {
		code = exitFailed
		if s, ok := i.Signal.(syscall.Signal); ok {
			code = 128 + int(s)
		}
	}
	switch {
	case err != nil:
		return &exitError{code: max(exitFailed, code), err: err}
	case code != 0:
		return &exitError{code: code}
	}
	return nil
}

type cypressUploadCmd struct {
	recording
	URL  string `name:"url" aliases:"server" help:"URL of the server, if it differs from that of the run." placeholder:"URL"`
	File string `arg:"" help:"Results file of 'runbell cypress run'." placeholder:"FILE"`
}

func (cypressUploadCmd) Help() string {
	return `Adds the results to the run of their build, or creates that run. Results that were already sent are not sent
again. The file is removed after everything is sent.

Examples:

    runbell cypress upload /tmp/runbell-results-123.jsonl`
}

// Run sends the file.
func (c *cypressUploadCmd) Run(ctx context.Context, s *streams, version versionText) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.URL != "" {
		if _, err := dial(c.URL, ""); err != nil {
			return err
		}
	}
	sent, url, err := recorder.Upload(ctx,
		recorder.UploadOptions{Version: string(version), File: c.File, Server: strings.TrimRight(c.URL, "/"), Key: c.Key,
			ServerWait: c.ServerWait, Err: s.Err})
	if err != nil {
		return err
	}
	specs := "1 spec"
	if sent != 1 {
		specs = fmt.Sprintf("%d specs", sent)
	}
	_, err = fmt.Fprintf(s.Out, "Sent the results of %s: %s\n", specs, url)
	return err
}

// looksLikePath says whether a projectId looks like a directory, as 'cypress run
// --project' takes it. Ids of other dashboards may have a slash in them: owner/shop.
func looksLikePath(project string) bool {
	if strings.HasPrefix(project, ".") || strings.HasPrefix(project, "~") || strings.HasPrefix(project, "/") ||
		strings.Contains(project, `\`) {
		return true
	}
	info, err := os.Stat(project)
	return strings.Contains(project, "/") && err == nil && info.IsDir()
}

// ofCypress are options of 'cypress run' that are not ours.
var ofCypress = []string{"--headed", "--headless", "--no-exit", "--record", "--reporter", "--reporter-options",
	"--port", "--quiet", "--runner-ui", "--no-runner-ui", "--posix-exit-codes", "--pass-with-no-tests", "--expose", "-q",
	"-r", "-o", "-P", "-p", "-b", "-c", "-C", "-e", "-s", "-t", "-k"}

// cypressHint says where options of Cypress go, where the parser knows no such flag.
func cypressHint(err error, args []string) error {
	if len(args) < 2 || args[0] != "cypress" || args[1] != "run" {
		return err
	}
	for _, arg := range args[2:] {
		name, _, _ := strings.Cut(arg, "=")
		switch {
		case name == "--":
			return err
		case !slices.Contains(ofCypress, name) || !strings.Contains(err.Error(), "unknown flag "+name):
		case name == "--record":
			return fmt.Errorf("%w: leave it out; 'runbell cypress run' always records", err)
		default:
			return fmt.Errorf("%w: options of Cypress go after --, such as: runbell cypress run -- %s", err, name)
		}
	}
	return err
}

// batch is how many specs one start of Cypress runs; 0 is as many as pays.
func (c *cypressRunCmd) batch() int {
	if c.Batch == nil {
		return 0
	}
	return *c.Batch
}
