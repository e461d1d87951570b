//go:build !unix

package recorder

import (
	"os/exec"
	"strconv"
)

func ownGroup(*exec.Cmd) {}

func terminate(c *exec.Cmd) { killGroup(c) }

// killGroup ends the process and all that it started.
func killGroup(c *exec.Cmd) {
	_ = exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(c.Process.Pid)).Run()
}

// endGroup does nothing: these systems cannot find the children of an ended process.
func endGroup(*exec.Cmd) {}
