package server

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// maxConnections is how many connections a server keeps open.
const maxConnections = 4096

// connections bounds the connections of an HTTP server. When one too many is
// opened, the one that has waited for a request for the longest time is closed:
// that may be the new one, if all others are at work.
type connections struct {
	max int

	mu      sync.Mutex
	open    map[net.Conn]*list.Element // in waiting, or nil while there is a request
	waiting *list.List                 // of net.Conn, the longest wait first
}

func newConnections(most int) *connections {
	return &connections{max: most, open: map[net.Conn]*list.Element{}, waiting: list.New()}
}

// changed is the ConnState of an http.Server.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	place, known := c.open[conn]
	if !known && state != http.StateNew {
		return // was closed here
	}
	if place != nil {
		c.waiting.Remove(place)
	}
	switch state {
	case http.StateNew, http.StateIdle:
		c.open[conn] = c.waiting.PushBack(conn)
	case http.StateActive:
		c.open[conn] = nil
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
	if len(c.open) > c.max {
		longest := c.waiting.Remove(c.waiting.Front()).(net.Conn)
		delete(c.open, longest)
		_ = longest.Close() // the server notices, and forgets it
	}
}
