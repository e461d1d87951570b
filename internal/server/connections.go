package server

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"runbell/internal/auth"
)

// maxConnections is how many connections a server keeps open.
const maxConnections = 4096

// connections bounds the connections of an HTTP server. When one too many is
// opened, the one that has waited for a request for the longest time is closed. If
// all are at work, one of the network that has the most is: so no network keeps
// others out.
type connections struct {
	max int

	mu      sync.Mutex
	open    map[net.Conn]*connection
	waiting *list.List // of net.Conn, the longest wait first
	changes int        // of states, of all connections
}

type connection struct {
	network string
	place   *list.Element // in waiting, or nil while there is a request
	since   int           // of changes
}

func newConnections(most int) *connections {
	return &connections{max: most, open: map[net.Conn]*connection{}, waiting: list.New()}
}

// changed is the ConnState of an http.Server.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	if h, ok := conn.(*headerConn); ok && state == http.StateIdle {
		h.next()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	this := c.open[conn]
	if this == nil {
		if state != http.StateNew {
			return // was closed here
		}
		this = &connection{network: networkOf(conn)}
		c.open[conn] = this
	}
	c.changes++
	this.since = c.changes
	if this.place != nil {
		c.waiting.Remove(this.place)
		this.place = nil
	}
	switch state {
	case http.StateNew, http.StateIdle:
		this.place = c.waiting.PushBack(conn)
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	case http.StateActive:
	}
	if len(c.open) > c.max {
		victim := c.waiting.Front().Value.(net.Conn)
		if victim == conn {
			victim = c.atWork(conn)
		}
		if place := c.open[victim].place; place != nil {
			c.waiting.Remove(place)
		}
		delete(c.open, victim)
		_ = victim.Close() // the server notices, and forgets it
	}
}

// atWork is the connection that makes room for another one where all are at work: the
// one that has worked the longest, of the network with the most. It is the newcomer
// itself if it is of that network.
func (c *connections) atWork(newcomer net.Conn) net.Conn {
	count := map[string]int{}
	for _, other := range c.open {
		count[other.network]++
	}
	own := c.open[newcomer].network
	most := own
	for network, n := range count {
		if n > count[most] {
			most = network
		}
	}
	if most == own {
		return newcomer
	}
	var oldest net.Conn
	for conn, other := range c.open {
		if other.network == most && (oldest == nil || other.since < c.open[oldest].since) {
			oldest = conn
		}
	}
	return oldest
}

func networkOf(conn net.Conn) string {
	address, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	return auth.Network(address.Addr())
}
