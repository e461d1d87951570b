// Package recorder is the client behind 'runbell cypress run': it runs the
// specs of a Cypress project through Cypress' own Module API, and reports them
// to a server with the protocol that all reporters speak.
//
// It knows nothing of the server's packages, and must never be worse than no
// recorder: whatever becomes of the server, the specs run, and the exit code is
// Cypress' own.
package recorder

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Options say what to record, and where.
type Options struct {
	Version string // of this program
	Dir     string // where the command was started
	Env     []string
	Out     io.Writer // what Cypress prints
	Err     io.Writer // what Cypress prints as errors, and what we say
	Color   bool      // both are terminals

	Server     string
	Key        string
	ProjectID  string // "" is that of the Cypress configuration
	BuildID    string // "" is the CI service's
	Group      string
	Tags       []string
	Parallel   bool
	Specs      []string // globs
	Batch      int
	AutoCancel any      // a number of failures, or false for never; nil is the project's
	Cypress    []string // arguments of 'cypress run'

	RequireServer    bool
	ServerWait       time.Duration
	LeaveOnInterrupt bool
	ResultsFile      string // "" is in the directory for temporary files
}

// UploadOptions say what to send later.
type UploadOptions struct {
	Version    string
	File       string
	Server     string // "" is that of the run
	Key        string
	ServerWait time.Duration
	Err        io.Writer
}

// Interrupted is the cause of the context of a recording that was told to end:
// by Ctrl-C, or by CI whose job was cancelled.
type Interrupted struct{ Signal os.Signal }

func (i Interrupted) Error() string { return "interrupted (" + i.Signal.String() + ")" }

// interruptTime is how long ending may take: CI services kill soon after they
// have asked.
const (
	interruptTime = 4500 * time.Millisecond
	cypressTime   = 2 * time.Second // of it, for Cypress to end by itself
)

// Record runs the specs of this machine, and returns the exit code that Cypress
// would have had. An error is one that kept them from running.
func Record(ctx context.Context, o Options) (code int, err error) {
	if dir, err := filepath.EvalSymlinks(o.Dir); err == nil {
		o.Dir = dir // as Node knows it
	}
	say := &progress{to: o.Err, color: o.Color}
	keep := &transcript{}
	start := func() (*bridge, project, error) {
		env := o.Env
		if o.Color {
			env = append(env[:len(env):len(env)], "FORCE_COLOR=1") // it sees a pipe, and we see a terminal
		}
		b, err := startBridge(ctx, o.Dir, env, &relay{to: o.Out, keep: keep}, &relay{to: o.Err, keep: keep})
		if err != nil {
			return nil, project{}, err
		}
		stop := context.AfterFunc(ctx, b.kill)
		p, err := b.open(o.Cypress)
		if !stop() && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			b.kill()
		}
		return b, p, err
	}
	b, p, err := start()
	if err != nil {
		return 0, err
	}
	m := &machine{o: o, say: say, keep: keep, start: start, bridge: b, project: p, ran: map[string]bool{}, known: map[string]bool{}}
	defer func() { m.node().close() }()

	request, err := m.prepare(ctx)
	if err != nil {
		return 0, err
	}
	m.server = newServer(o.Server, o.Version, o.ServerWait, say.warn)
	o.Server = withoutCredentials(o.Server) // from here on it is only told
	m.o = o
	m.server.cypress = p.Cypress
	m.request = request
	if m.journal, err = createJournal(o.ResultsFile, header{Server: o.Server, Cypress: p.Cypress, Join: request}); err != nil {
		return 0, err
	}
	if err = m.join(ctx); err != nil {
		return 0, errors.Join(err, m.journal.close())
	}
	if m.recorded {
		if _, err := m.journal.append(line{Joined: &m.joined}); err != nil {
			say.warn("%v", err)
		}
	}
	return m.record(ctx)
}

// prepare finds the specs and says what there is to join.
func (m *machine) prepare(ctx context.Context) (joinRequest, error) {
	o, p := m.o, m.project
	only := splitGlobs(p.Root, o.Specs)
	switch unknown := p.ConfigProblem != "" || p.PatternsChange; {
	case unknown && len(only) > 0:
		if p.ConfigProblem != "" {
			m.say.warn("%s\nThe specs are those of --spec alone.", p.ConfigProblem)
		}
		p.SpecPattern = []string{"**"} // --spec decides, and then Cypress
	case p.ConfigProblem != "":
		return joinRequest{}, errors.New(p.ConfigProblem + "\nWithout it, say which specs to run (--spec) and of which project (--project).")
	case unknown:
		m.say.warn("setupNodeEvents speaks of specPattern: what it changes is not seen here, and only the specs that the configuration itself names are run.\nSay with --spec which ones to run.")
	}
	var err error
	if m.specs, err = findSpecs(p, o.Dir, only); err != nil {
		return joinRequest{}, err
	}
	r := joinRequest{ProjectID: o.ProjectID, CIBuildID: o.BuildID, Group: o.Group, Parallel: o.Parallel, Specs: m.specs, Tags: o.Tags,
		Pattern: p.specPattern(), Type: "e2e", BatchSize: o.Batch, AutoCancel: o.AutoCancel,
		Platform: wirePlatform{OSName: p.OSName, OSVersion: p.OSVersion, OSCPUs: p.OSCPUs, OSMemory: p.OSMemory, BrowserName: browserName(p.Browser)}}
	if p.Component {
		r.Type = "component"
	}
	if r.Tags == nil {
		r.Tags = []string{}
	}
	if r.ProjectID == "" {
		r.ProjectID = p.ProjectID
	}
	if r.ProjectID == "" {
		return r, errors.New("the project is not known: give --project (or RUNBELL_PROJECT), or set projectId in the Cypress configuration")
	}
	ci, c := facts(ctx, p.Root, newEnvironment(o.Env))
	r.CI, r.Commit = ci, c.wire()
	if r.CIBuildID == "" && ci.Provider == "" {
		if o.Parallel {
			return r, errors.New("--parallel needs --ci-build-id here: machines find each other by it, and no CI service was recognized that has one")
		}
		r.CIBuildID = "local-" + strings.ToLower(rand.Text()[:16])
	}
	return r, ctx.Err()
}

// browserName is the browser as Cypress would call it; its default is Electron.
// A path is shown by its last part: the rest is of this machine.
func browserName(given string) string {
	if given == "" {
		return "Electron"
	}
	name, _, _ := strings.Cut(given[strings.LastIndexAny(given, `/\`)+1:], ":")
	first, size := utf8.DecodeRuneInString(name)
	if size == 0 {
		return given
	}
	return string(unicode.ToUpper(first)) + name[size:]
}

// join joins the run, or decides to go on without a server.
func (m *machine) join(ctx context.Context) error {
	m.say.say("%s found, Cypress %s, %s.", plural(len(m.specs), "spec"), m.project.Cypress, m.o.Server)
	var err error
	m.joined, err = m.server.join(ctx, m.request, m.o.Key)
	switch {
	case err == nil:
		m.recorded = true
		m.say.say("The run: %s", m.joined.RunURL)
		for _, w := range m.joined.Warnings {
			m.say.warn("%s", warningText(w))
		}
		return nil
	case ctx.Err() != nil:
		// The server may have heard us although we did not hear it.
		if m.request.CIBuildID != "" && !m.o.LeaveOnInterrupt {
			m.cancelRun(ctx)
		}
		return err
	}
	if _, ok := refused(err); ok {
		return err
	}
	err = fmt.Errorf("%s cannot be reached: %w", m.o.Server, err)
	if m.o.RequireServer {
		return err
	}
	m.away(err)
	return nil
}

// warningText is a server's warning: a text, or an object whose message comes
// first and whose other fields follow.
func warningText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil {
		return string(raw)
	}
	message := fmt.Sprint(fields["message"])
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if name != "message" {
			message += fmt.Sprintf("\n- %s: %v", name, fields[name])
		}
	}
	return message
}

// hostname names this machine to people.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "a machine"
	}
	return name
}
