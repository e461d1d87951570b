package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// client is a connection to a server, kept open.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dial(t *testing.T, address string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) ask(path string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
}

// answered says whether an answer comes, rather than the end of the connection.
func (c *client) answered() bool {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		c.t.Error(err)
	}
	return true
}

// until waits for the server to notice what its clients have seen already.
func (c *connections) until(t *testing.T, holds func(open, waiting int) bool) {
	t.Helper()
	for t.Context().Err() == nil {
		c.mu.Lock()
		done := holds(len(c.open), c.waiting.Len())
		c.mu.Unlock()
		if done {
			return
		}
		runtime.Gosched()
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	working, finish := make(chan struct{}), make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/work" {
			working <- struct{}{}
			<-finish
		}
	}))
	limit := newConnections(3)
	server.Config.ConnState = limit.changed
	server.Start()
	defer server.Close()
	address := server.Listener.Addr().String()

	work := dial(t, address)
	work.ask("/work")
	<-working
	silent := dial(t, address) // never sends anything
	idle := dial(t, address)
	idle.ask("/")
	if !idle.answered() {
		t.Fatal("a connection within the limit was closed")
	}
	limit.until(t, func(_, waiting int) bool { return waiting == 2 })
	// Three are open. The next two take the places of those that wait.
	for range 2 {
		next := dial(t, address)
		next.ask("/work")
		<-working
	}
	if silent.answered() {
		t.Error("the connection that waited longest got an answer")
	}
	if idle.answered() {
		t.Error("the second connection that waited got an answer")
	}
	// Now all are at work, so the new one has no place.
	if late := dial(t, address); late.answered() {
		t.Error("a connection over the limit got an answer")
	}
	close(finish)
	if !work.answered() {
		t.Error("a connection at work was closed")
	}
	// What ends makes room.
	_ = work.conn.Close()
	limit.until(t, func(open, _ int) bool { return open < 3 })
	again := dial(t, address)
	again.ask("/")
	if !again.answered() {
		t.Error("no connection is taken after others ended")
	}
}

// A network that has all connections at work keeps nobody else out.
func TestOneNetworkKeepsNobodyOut(t *testing.T) {
	limit := newConnections(4)
	open := func(address string, state http.ConnState) *fakeConn {
		conn := &fakeConn{address: address}
		limit.changed(conn, http.StateNew)
		if !conn.closed {
			limit.changed(conn, state)
		}
		return conn
	}
	honest := open("192.0.2.7:1", http.StateActive)
	var many []*fakeConn
	for n := range 3 {
		many = append(many, open(fmt.Sprintf("[2001:db8::%d]:1", n), http.StateActive))
	}
	if again := open("[2001:db8::9]:1", http.StateActive); !again.closed {
		t.Error("the network with the most got one more")
	}
	if other := open("192.0.2.8:1", http.StateActive); other.closed || honest.closed || !many[0].closed || many[1].closed {
		t.Errorf("the newcomer is closed: %v; another: %v; of the network with the most: %v, %v", other.closed, honest.closed, many[0].closed, many[1].closed)
	}
	// What waits goes first, of any network.
	idle := open("192.0.2.9:1", http.StateIdle)
	if many[2].closed || !many[1].closed || idle.closed {
		t.Errorf("closed: %v, %v, %v", many[1].closed, many[2].closed, idle.closed)
	}
	if next := open("[2001:db8::9]:2", http.StateActive); !idle.closed || next.closed {
		t.Errorf("the idle one is closed: %v, the newcomer: %v", idle.closed, next.closed)
	}
	if len(limit.open) != 4 || limit.waiting.Len() != 0 {
		t.Errorf("%d are open, %d wait", len(limit.open), limit.waiting.Len())
	}
}

// fakeConn is a connection that nobody uses.
type fakeConn struct {
	net.Conn
	address string
	closed  bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.address))
}

func (c *fakeConn) Close() error {
	c.closed = true
	return nil
}
