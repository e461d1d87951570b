//go:build unix

package recorder

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a process the leader of a group. Then Ctrl-C in a terminal reaches only
// the recorder, and a signal to the group reaches Cypress and its browsers.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func terminate(c *exec.Cmd) { _ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }

func killGroup(c *exec.Cmd) { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }

// endGroup ends the processes that an ended leader has left.
func endGroup(c *exec.Cmd) { killGroup(c) }
