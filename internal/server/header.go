package server

import (
	"errors"
	"net"
)

const (
	// maxHeaderBytes is how long the header of a request may be, with its address.
	maxHeaderBytes = 16 << 10
	// maxHeaderLines is how many lines it may have: http.Server has no limit for that,
	// and each line takes some hundred bytes for as long as the request takes.
	maxHeaderLines = 100
)

// headerLimit is a listener whose connections end when the header of a request has
// too many lines.
type headerLimit struct{ net.Listener }

// Accept waits for the next connection.
func (l headerLimit) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		conn = &headerConn{TCPConn: tcp}
	}
	return conn, err
}

// headerConn is a connection to http.Server. The server reads from one goroutine at a
// time.
type headerConn struct {
	*net.TCPConn
	lines int  // of the header
	begun bool // it has some text; empty lines may come first
	blank bool // there is nothing in its last line
	over  bool // what comes is the body
}

var errHeaderLines = errors.New("the header of a request has too many lines")

// Read counts lines until an empty one.
func (c *headerConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	for i := 0; i < n && !c.over; i++ {
		switch p[i] {
		case '\n':
			c.over = c.begun && c.blank
			c.blank = true
			c.lines++
		case '\r':
		default:
			c.begun, c.blank = true, false
		}
	}
	if c.lines > maxHeaderLines {
		return 0, errHeaderLines
	}
	return n, err
}

// next begins with the header of the next request.
func (c *headerConn) next() { c.lines, c.begun, c.blank, c.over = 0, false, false, false }
