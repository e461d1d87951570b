//go:build unix

package outbound

import (
	"net"
	"syscall"
)

// quiet says that nothing has come on an idle connection: neither its end, nor
// an answer that nobody asked for, such as the 408 with which some servers say
// goodbye. It would be taken for the answer to the next request.
func quiet(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return true // a network in memory
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	nothing := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		nothing = err == syscall.EAGAIN
	})
	return err == nil && nothing
}
