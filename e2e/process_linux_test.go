package e2e

import "syscall"

// dieWithParent covers what a cleanup cannot: a test process that is killed.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
