package load

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Build builds the runbell binary in a directory and returns its path.
func Build(dir string) (string, error) {
	binary := filepath.Join(dir, "runbell")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/runbell")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return binary, nil
}

// Server is a server in a process of its own. It ends with this process.
type Server struct {
	URL string // without a trailing slash
	cmd *exec.Cmd
}

// Start starts a server and waits until /readyz answers. command makes the
// server's command for the address it is to listen on.
func Start(command func(addr string) *exec.Cmd) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + addr, cmd: command(addr)}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 30_000 {
		resp, err := http.Get(s.URL + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			return s, nil
		}
		time.Sleep(time.Millisecond)
	}
	s.Stop()
	return nil, fmt.Errorf("%s did not start", s.cmd.Path)
}

// StartRunbell starts the built binary on SQLite in the directory data. The
// environment has the address, the directory and env, and nothing else.
func StartRunbell(binary, data string, env ...string) (*Server, error) {
	return Start(func(addr string) *exec.Cmd {
		cmd := exec.Command(binary, "serve")
		cmd.Env = append([]string{"RUNBELL_ADDR=" + addr, "RUNBELL_PUBLIC_URL=http://" + addr, "RUNBELL_DATA_DIR=" + data,
			"RUNBELL_LOG_LEVEL=error"}, env...)
		return cmd
	})
}

// Stop stops the server and waits until it has ended.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// RSS is the resident memory in MiB.
func (s *Server) RSS() int { return s.memory("VmRSS:") }

// PeakRSS is the most resident memory in MiB since the start, or since
// ResetPeak.
func (s *Server) PeakRSS() int { return s.memory("VmHWM:") }

// ResetPeak makes PeakRSS begin again.
func (s *Server) ResetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0)
}

// CPU is how long the server has run on processors since the start.
func (s *Server) CPU() time.Duration {
	const tick = 10 * time.Millisecond // of the kernel, for user space
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name is before
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

func (s *Server) memory(name string) int {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 2 && fields[0] == name {
			kb, _ := strconv.Atoi(fields[1])
			return kb >> 10
		}
	}
	return 0
}
