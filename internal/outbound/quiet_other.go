//go:build !unix

package outbound

import (
	"errors"
	"net"
	"os"
	"time"
)

// quiet reports whether a connection has nothing to read, not even its end. A
// byte that it reads is lost: the caller closes the connection then.
func quiet(conn net.Conn) bool {
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return false
	}
	n, err := conn.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}
