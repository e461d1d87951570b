package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test has started. It does not outlive the test.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when it has ended
}

// start starts a program with nothing in its environment but env. What it prints goes to out, and into the log of a
// test that fails.
func start(t testing.TB, name string, out *output, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(program, args...), out: out, done: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(p.cmd.SysProcAttr)
	// What it started may hold on to its output for a moment longer than it lives.
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState says how it ended
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // the whole group; mostly it is gone already
		<-p.done
	})
	return p
}

// wait returns the exit code of a program; -1 is one that a signal ended.
func (p *process) wait(timeout time.Duration) int {
	p.t.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-timer.C:
		p.t.Fatalf("%s has not ended within %s", p.name, timeout)
		return 0
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("send %s to %s: %v", s, p.name, err)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// output is what a program has printed so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// newOutput keeps the output of one program, or of several that follow each other, and shows it if the test fails.
func newOutput(t testing.TB, name string) *output {
	o := &output{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- %s printed:\n%s", name, tail(o.String(), 16<<10))
		}
	})
	return o
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

// eventually polls until something is so, or fails the test after the timeout.
func eventually(t testing.TB, what string, timeout time.Duration, so func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", timeout, what)
		}
	}
}

// printed waits until a program has printed something.
func (o *output) printed(t testing.TB, text string, timeout time.Duration) {
	t.Helper()
	eventually(t, fmt.Sprintf("printed %q", text), timeout, func() bool { return strings.Contains(o.String(), text) })
}

var ports struct {
	sync.Mutex
	next int
}

// freePort is a port that a server can take, leave and take again. Ports that the system gives to clients will not do:
// while the server is down one of them could get it.
func freePort(t testing.TB) int {
	t.Helper()
	const first, last = 15000, 32000
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = first + rand.IntN(last-first)
	}
	for range last - first {
		ports.next++
		if ports.next >= last {
			ports.next = first
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ports.next))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		return ports.next
	}
	t.Fatal("no port is free")
	return 0
}
