//go:build unix

package recorder

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a process the leader of a group: Ctrl-C of a terminal then
// reaches only us, and a signal to the group reaches Cypress and its browsers.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func terminate(c *exec.Cmd) { _ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }

func killGroup(c *exec.Cmd) { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }

// endGroup ends what its leader, which has ended, has left behind.
func endGroup(c *exec.Cmd) { killGroup(c) }
