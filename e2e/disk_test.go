package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// TestTheDiskFails makes the kernel refuse syncs and writes of SQLite, again and again. After a kill, confirmed
// writes are there and refused ones are not. The server continues as soon as the disk works.
func TestTheDiskFails(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("this test needs strace, which makes system calls fail: run scripts/setup")
	}
	// From the n-th call of each thread on, so that the server can start.
	for name, inject := range map[string]string{
		"a sync fails":     "inject=fsync,fdatasync:error=EIO:when=12+2",
		"the disk is full": "inject=pwrite64:error=ENOSPC:when=150+11",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t) // makes the database
			s.stop()
			// -D: the server stays the child of the test, and strace is a process of its own. -I1: a signal ends it.
			s.via = []string{"strace", "-D", "-I1", "-f", "-qq", "-o", filepath.Join(t.TempDir(), "calls"), "-e", inject}
			s.start()
			made, refused := s.makeProjects(10)
			s.untrace()
			// A commit that was written and not synced is overwritten by the next one.
			// If the server was killed before that, SQLite would find it in the log.
			s.project("next", nil)
			s.kill()
			s.via = nil
			s.start()
			stored := map[string]bool{}
			for p := range pages[struct{ ProjectID string }](s, "/projects") {
				stored[p.ProjectID] = true
			}
			for _, id := range append(made, "next") {
				if !stored[id] {
					t.Errorf("%s was answered with success and is not there", id)
				}
			}
			for _, id := range refused {
				if stored[id] {
					t.Errorf("%s was refused and is there", id)
				}
			}
			if len(made) == 0 || len(refused) == 0 {
				t.Errorf("%d requests succeeded and %d were refused; the test needs some of both", len(made), len(refused))
			}
			s.stop()
			testkit.CheckSQLite(t, filepath.Join(s.dir, "runbell.db"))
		})
	}
}

// makeProjects has clients make projects until some were made and some were
// refused with an error of the server. It returns the ids of both.
func (s *server) makeProjects(clients int) (made, refused []string) {
	s.t.Helper()
	const enough, most = 20, 200 // most is for each client
	var mu sync.Mutex
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := range most {
				id := fmt.Sprintf("p%d-%d", c, n)
				err := s.try("POST", "/projects", map[string]any{"name": id, "projectId": id}, nil)
				mu.Lock()
				switch {
				case err == nil:
					made = append(made, id)
				case strings.Contains(err.Error(), ": 500 "):
					refused = append(refused, id)
				default:
					s.t.Errorf("%s: %v", id, err)
				}
				done := len(made) >= enough && len(refused) >= enough
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	wg.Wait()
	return made, refused
}

// untrace ends the strace that runs beside the server, and waits until it has
// let the server go.
func (s *server) untrace() {
	s.t.Helper()
	tracer := func() (pid int) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
		if err != nil {
			s.t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(status), "TracerPid:")
		if _, err := fmt.Sscan(after, &pid); err != nil {
			s.t.Fatal(err)
		}
		return pid
	}
	pid := tracer()
	if pid == 0 {
		s.t.Fatal("strace does not trace the server")
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, 20*time.Second, "strace ends", func() bool { return tracer() == 0 })
}
