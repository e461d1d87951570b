// Package app is the program: its commands, and how they wire the other
// packages together. One file per command.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/alecthomas/kong"
)

// commands is the command line: what the fields say is what --help says.
type commands struct {
	Serve   serveCmd   `cmd:"" group:"server" help:"Run the server: dashboard, APIs and delivery of webhooks."`
	Migrate migrateCmd `cmd:"" group:"server" help:"Migrate the database to the schema of this version."`
	Health  healthCmd  `cmd:"" group:"server" help:"Check whether the server on this machine is ready."`
	Backup  backupCmd  `cmd:"" group:"server" help:"Back up the database and the artifacts to a file, while the server runs."`
	Restore restoreCmd `cmd:"" group:"server" help:"Restore a backup into an empty data directory."`
	Import  importCmd  `cmd:"" group:"server" help:"Import the history of another system."`

	Cypress cypressCmd `cmd:"" group:"record" help:"Record the specs of a Cypress project."`

	Demo   demoCmd   `cmd:"" group:"try" help:"Replay a recorded Cypress run to a temporary server, and print its webhooks."`
	Listen listenCmd `cmd:"" group:"try" help:"Receive, verify and print webhooks on this machine."`

	Project  projectCmd  `cmd:"" group:"admin" help:"Manage projects, and show their tests over time."`
	Key      keyCmd      `cmd:"" group:"admin" help:"Create, list and delete record keys and API keys."`
	User     userCmd     `cmd:"" group:"admin" help:"Invite, list, change and remove people."`
	Webhook  webhookCmd  `cmd:"" group:"admin" help:"Manage a project's webhooks, their secrets and deliveries."`
	Delivery deliveryCmd `cmd:"" group:"admin" help:"Show and redeliver deliveries of webhooks."`
	Run      runCmd      `cmd:"" group:"admin" help:"List, show, compare, cancel, reset, pin and delete runs."`
	GC       gcCmd       `cmd:"" group:"admin" name:"gc" help:"Remove data past its retention now."`

	kong.Plugins // see devCommands

	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
	Complete   completeCmd   `cmd:"" hidden:"" help:"List what can follow words of a command line, for the scripts of completion."`

	PrintVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

// versionText names the build. It is bound, so that commands can ask for it.
type versionText string

// streams is where a command reads and writes.
type streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Main runs one command line and returns its exit code. linked is the version
// that was linked in, or "". env has the form of os.Environ.
func Main(ctx context.Context, linked string, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := commands{Plugins: devCommands()}
	exited := false // by --help, which ends the parsing of a command line early
	environment := newEnvironment(env)
	parser, err := kong.New(&c,
		kong.Name("runbell"),
		kong.Description("A dashboard for Cypress tests that tells other systems about runs through webhooks that do "+
			"not get lost."),
		kong.ExplicitGroups([]kong.Group{
			{Key: "server", Title: "Server:"},
			{Key: "record", Title: "Record:"},
			{Key: "try", Title: "Try it:"},
			{Key: "admin", Title: "Administration, through the REST API of a running server:"},
		}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Vars{"version": versionLine(describe(linked))},
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { exited = true }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&streams{In: stdin, Out: stdout, Err: stderr}, environment, versionText(describe(linked))),
		kong.ValueFormatter(help),
		kong.Resolvers(kong.ResolverFunc(environment.resolve)),
	)
	if err != nil {
		fmt.Fprintln(stderr, "runbell:", err)
		return exitFailed
	}
	if bare(parser.Model.Node, args) {
		args = append(args[:len(args):len(args)], "--help")
	}
	command, err := parser.Parse(args)
	if exited {
		return exitOK
	}
	if err != nil {
		return failed(stderr, misused(err, args))
	}
	if err := command.Run(); err != nil {
		return failed(stderr, hint(err))
	}
	return exitOK
}

// bare says whether a command line names a group of commands and no more: people
// who type that want to see what there is.
func bare(node *kong.Node, args []string) bool {
	for _, arg := range args {
		at := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == arg })
		if at < 0 {
			return false
		}
		node = node.Children[at]
	}
	return hasCommands(node)
}

// exitError ends a command with an exit code of its own; err is nil where all
// is said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprint("exit code ", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func failed(stderr io.Writer, err error) int {
	exit, ok := errors.AsType[*exitError](err)
	if !ok || exit.err != nil {
		fmt.Fprintln(stderr, "runbell:", phrase(err.Error()))
	}
	if ok {
		return exit.code
	}
	usage, ok := errors.AsType[*usageError](err)
	if !ok {
		return exitFailed
	}
	if usage.help != "" {
		fmt.Fprintln(stderr, usage.help)
	}
	return exitUsage
}
