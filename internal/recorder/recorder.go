// Package recorder is the client behind 'runbell cypress run': it runs the
// specs of a Cypress project through Cypress' own Module API, and reports them
// to a server with the protocol that all reporters speak.
//
// It imports no package of the server, and must never be worse than no recorder: even
// if the server fails, the specs run, and the exit code is Cypress' own.
package recorder

import (
	"cmp"
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
	Dir     string // the directory in which the command was started
	Env     []string
	Out     io.Writer // what Cypress prints
	Err     io.Writer // what Cypress prints as errors, and the recorder's own messages
	Color   bool      // both are terminals

	Server     string
	Key        string
	ProjectID  string // "" is the one in the Cypress configuration
	BuildID    string // "" is the CI service's
	Group      string
	Tags       []string
	Parallel   bool
	Specs      []string // globs
	Batch      int      // specs of one start of Cypress; 0 is automatic
	AutoCancel any      // a number of failures, or false for off; nil is the project's setting
	Cypress    []string // arguments of 'cypress run'

	RequireServer    bool
	ServerWait       time.Duration
	LeaveOnInterrupt bool
	ResultsFile      string // "" is in the directory for temporary files
}

// UploadOptions say which results to upload, and where.
type UploadOptions struct {
	Version    string
	File       string
	Server     string // "" is the server of the run
	Key        string
	ServerWait time.Duration
	Err        io.Writer
}

// Interrupted is the cause with which the context of a recording is canceled: after
// Ctrl-C, or when CI cancels the job.
type Interrupted struct{ Signal os.Signal }

func (i Interrupted) Error() string { return "interrupted (" + i.Signal.String() + ")" }

// interruptTime is how long ending may take: CI services kill a process soon after
// their signal.
const (
	interruptTime = 4500 * time.Millisecond
	cypressTime   = 2 * time.Second // of it, for Cypress to end by itself
)

// Record runs the specs of this machine, and returns the exit code that Cypress
// would have had. An error means that the specs did not run.
func Record(ctx context.Context, o Options) (code int, err error) {
	if dir, err := filepath.EvalSymlinks(o.Dir); err == nil {
		o.Dir = dir // the form that Node uses
	}
	m := newMachine(o)
	if err := m.checkBuild(); err != nil {
		return 0, err
	}
	m.project, err = m.open(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { m.node().close() }()
	m.only = splitGlobs(o.Specs, o.Dir, m.project.Root)
	if m.watcher, err = watch(m.project); err != nil {
		return 0, err
	}
	defer m.watcher.close()
	m.server.cypress = m.project.Cypress
	return m.record(ctx)
}

// open starts the Node process in which Cypress will run.
func (m *machine) open(ctx context.Context) (project, error) {
	env := m.o.Env
	if m.o.Color {
		env = append(env[:len(env):len(env)], "FORCE_COLOR=1") // it writes to a pipe, but the pipe ends at a terminal
	}
	b, err := startBridge(ctx, m.o.Dir, env, &relay{to: m.o.Out, keep: m.keep}, &relay{to: m.o.Err, keep: m.keep})
	if err != nil {
		return project{}, err
	}
	stop := context.AfterFunc(ctx, b.kill)
	spec := ""
	patterns := slices.DeleteFunc(slices.Clone(m.only), func(name string) bool { return isFile(name, m.o.Dir) })
	if m.specs == nil && !understood(patterns) {
		spec = strings.Join(m.o.Specs, ",")
	}
	p, err := b.open(m.o.Cypress, spec)
	if !stop() && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		b.kill()
		return p, err
	}
	m.mu.Lock()
	m.bridge = b
	m.mu.Unlock()
	p.Spec = spec
	return p, nil
}

// checkBuild checks that machines that share specs can find each other, before anything
// is started.
func (m *machine) checkBuild() error {
	ci, _ := detectCI(newEnvironment(m.o.Env))
	switch {
	case m.o.BuildID != "" || ci.Provider != "":
		return nil // the server checks whether the service's variables name the build
	case m.o.Parallel:
		return errors.New("--parallel needs --ci-build-id here: no CI service was recognized, and machines find each other " +
			"by the build id.\nPass the same value on every machine of this build, and a new one for each build")
	}
	m.o.BuildID = "local-" + strings.ToLower(rand.Text()[:16])
	return nil
}

// prepare makes the request to join.
func (m *machine) prepare(ctx context.Context, specs []string) (joinRequest, error) {
	o, p := m.o, m.project
	r := joinRequest{ProjectID: cmp.Or(o.ProjectID, m.config.ProjectID), CIBuildID: o.BuildID, Group: o.Group,
		Parallel: o.Parallel, Specs: specs, Tags: o.Tags, Pattern: m.config.Find, Type: p.testingType(),
		BatchSize: max(1, o.Batch), AutoCancel: o.AutoCancel,
		Platform: wirePlatform{OSName: p.OSName, OSVersion: p.OSVersion, OSCPUs: p.OSCPUs, OSMemory: p.OSMemory,
			BrowserName: browserName(p.Browser)}}
	if r.Tags == nil {
		r.Tags = []string{}
	}
	for _, b := range m.config.Browsers {
		if strings.EqualFold(b.Name, r.Platform.BrowserName) {
			r.Platform.BrowserVersion = b.Version
			break
		}
	}
	if r.ProjectID == "" {
		return r, errors.New("the project is not known: give --project (or RUNBELL_PROJECT), or set projectId in the " +
			"Cypress configuration")
	}
	ci, c := facts(ctx, p.Root, newEnvironment(o.Env))
	r.CI, r.Commit = ci, c.wire()
	m.below = belowRoot(ctx, p.Root)
	return r, ctx.Err()
}

// browserName is the name that Cypress uses for the browser; its default is Electron.
// Of a path, only the last part is shown: the rest depends on this machine.
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

// join joins the run with the specs, or decides to continue without a server.
func (m *machine) join(ctx context.Context, specs []string) (err error) {
	if m.request, err = m.prepare(ctx, specs); err != nil {
		return err
	}
	m.specs = specs
	m.say.say("%s found, Cypress %s, %s.", plural(len(specs), "spec"), m.project.Cypress, m.o.Server)
	if m.journal, err = createJournal(m.o.ResultsFile,
		header{Server: m.o.Server, Cypress: m.project.Cypress, Join: m.request}); err != nil {
		return err
	}
	m.sender.journal = m.journal
	m.joined, err = m.server.join(ctx, m.request, m.o.Key)
	switch {
	case err == nil:
		m.recorded = true
		m.clock.order = m.joined.HandOutOrder
		if m.o.Parallel && m.o.Batch == 0 {
			m.plan = plan(m.joined.HandOutOrder, cmp.Or(m.joined.Machines, defaultMachines))
		}
		close(m.isJoined)
		m.say.say("Run: %s", m.joined.RunURL)
		for _, w := range m.joined.Warnings {
			m.say.warn("%s", warningText(w))
		}
		if _, err := m.journal.append(line{Joined: &m.joined}); err != nil {
			m.say.warn("%v", err)
		}
		return nil
	case ctx.Err() != nil:
		// The server may have received the request, although its response did not arrive.
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

// warningText returns the text of a server's warning, which is a string or an object. Of
// an object, the message comes first and the other fields follow.
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
