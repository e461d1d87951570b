package recorder

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"time"
)

//go:embed bridge.js
var bridgeScript string

// project is what Cypress' package and command line tell before it has run.
type project struct {
	Root           string          `json:"root"`
	Cypress        string          `json:"cypress"`    // version of the npm package
	ConfigFile     string          `json:"configFile"` // the path
	ESModule       bool            `json:"esModule"`   // Node imports the configuration
	Component      bool            `json:"component"`
	Browser        string          `json:"browser"` // as requested, "" is Cypress' default
	PosixExitCodes bool            `json:"posixExitCodes"`
	OSName         string          `json:"osName"`
	OSVersion      string          `json:"osVersion"`
	OSCPUs         json.RawMessage `json:"osCpus"`
	OSMemory       json.RawMessage `json:"osMemory"`

	Spec string `json:"-"` // Cypress' own --spec; "" is none
}

// testingType is Cypress' name for the kind of tests.
func (p project) testingType() string {
	if p.Component {
		return "component"
	}
	return "e2e"
}

// bridge is a Node process in the user's project that runs Cypress.
type bridge struct {
	command *exec.Cmd
	conn    net.Conn
	answers *bufio.Reader
	out     *relay
	errs    *relay
	exited  chan struct{}
}

// startBridge starts Node. The output of Cypress goes to out and errs.
func startBridge(ctx context.Context, dir string, env []string, out, errs *relay) (*bridge, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, errors.New("node was not found: Cypress needs Node.js, see https://nodejs.org")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for Node: %w", err)
	}
	defer listener.Close()
	token := rand.Text()
	call, err := json.Marshal(map[string]any{"port": listener.Addr().(*net.TCPAddr).Port, "token": token})
	if err != nil {
		return nil, err
	}

	b := &bridge{command: exec.Command(node, "-"), out: out, errs: errs, exited: make(chan struct{})}
	b.command.Dir = dir
	b.command.Env = withoutKeys(env)
	b.command.Stdin = strings.NewReader(bridgeScript + "\nserve(" + string(call) + ")\n")
	b.command.Stdout, b.command.Stderr = out, errs
	b.command.WaitDelay = time.Second // for processes that a killed Cypress may have left
	ownGroup(b.command)
	if err := b.command.Start(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	go func() {
		_ = b.command.Wait()
		endGroup(b.command) // otherwise Cypress might outlive Node
		close(b.exited)
		_ = listener.Close() // Node will not connect any more
	}()
	if err := b.accept(ctx, listener, token); err != nil {
		b.kill()
		return nil, err
	}
	return b, nil
}

// withoutKeys returns the environment for Cypress without record keys: it does not need
// them, and Cypress' own record key would make it record by itself.
func withoutKeys(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "RUNBELL_RECORD_KEY" || name == "CYPRESS_RECORD_KEY" || name == "RUNBELL_API_KEY"
	})
}

// accept waits for Node's connection. Other programs on this machine could connect, too,
// but do not know the token.
func (b *bridge) accept(ctx context.Context, listener net.Listener, token string) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return b.ended("Node ended at once")
		}
		answers := bufio.NewReaderSize(conn, 64<<10)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		line, err := answers.ReadSlice('\n')
		var hello struct{ Token string }
		if err != nil || json.Unmarshal(line, &hello) != nil || hello.Token != token {
			_ = conn.Close()
			continue
		}
		_ = conn.SetReadDeadline(time.Time{})
		b.conn, b.answers = conn, answers
		return nil
	}
}

// ended makes an error from Node's last output.
func (b *bridge) ended(what string) error {
	<-b.exited
	if said := strings.TrimSpace(b.errs.tail() + b.out.tail()); said != "" {
		what += ": " + said
	}
	return errors.New(what)
}

// call sends a request and waits for the answer, which may be large.
func (b *bridge) call(doing string, request map[string]any, into any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := b.conn.Write(append(line, '\n')); err != nil {
		return b.ended("Node ended " + doing)
	}
	var answer struct {
		OK    json.RawMessage
		Error string
	}
	line, err = b.answers.ReadBytes('\n')
	if err != nil {
		return b.ended("Node ended " + doing)
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return fmt.Errorf("the response of Node: %w", err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.OK, into)
}

// open reads the project. Cypress itself parses its arguments. spec is its --spec.
func (b *bridge) open(args []string, spec string) (project, error) {
	var p project
	err := b.call("while it loaded the cypress package", map[string]any{"do": "open", "args": args, "spec": spec}, &p)
	return p, err
}

// run runs Cypress once, with a configuration file, and returns when all of its output
// has been passed on. It fails only if Node ended.
func (b *bridge) run(configFile string, keepArtifacts bool) (moduleResult, error) {
	var r moduleResult
	marker := "\x1e" + rand.Text() + "\x1e"
	out, errs := b.out.until(marker), b.errs.until(marker)
	err := b.call("while Cypress ran",
		map[string]any{"do": "run", "configFile": configFile, "keepArtifacts": keepArtifacts, "marker": marker}, &r)
	if err != nil {
		<-b.exited
	} else {
		for _, seen := range []<-chan struct{}{out, errs} {
			select {
			case <-seen:
			case <-b.exited:
			}
		}
	}
	b.out.stop()
	b.errs.stop()
	return r, err
}

// interrupt asks Node, Cypress and the browsers to end, and kills them after the time.
func (b *bridge) interrupt(within time.Duration) {
	terminate(b.command)
	select {
	case <-b.exited:
	case <-time.After(within):
	}
	b.kill()
}

// kill ends everything at once. A process that has already ended has no group any more,
// and its number may belong to another process.
func (b *bridge) kill() {
	select {
	case <-b.exited:
	default:
		killGroup(b.command)
		<-b.exited
	}
	if b.conn != nil {
		_ = b.conn.Close()
	}
}

// close lets Node clean up and end, when nothing is left to run.
func (b *bridge) close() {
	_ = b.conn.Close()
	select {
	case <-b.exited:
	case <-time.After(5 * time.Second):
	}
	b.kill()
}
