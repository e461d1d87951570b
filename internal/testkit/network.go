package testkit

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
)

// Network is one in memory: real HTTP on virtual time. It ends with the test.
type Network struct {
	mu    sync.Mutex
	hosts map[string]*listener
}

// NewNetwork makes a network without hosts.
func NewNetwork() *Network { return &Network{hosts: map[string]*listener{}} }

// Serve puts a server at an address, "host:port", until the test ends.
func (n *Network) Serve(t testing.TB, at string, h http.Handler) {
	l := &listener{address: address(at), conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.hosts[at] = l
	n.mu.Unlock()
	server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// Dial connects to a host of the network.
func (n *Network) Dial(ctx context.Context, _, at string) (net.Conn, error) {
	n.mu.Lock()
	l, ok := n.hosts[at]
	n.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("dial %s: %w", at, syscall.ECONNREFUSED)
	}
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, fmt.Errorf("dial %s: %w", at, syscall.ECONNREFUSED)
	}
}

type listener struct {
	address
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.address }

type address string

func (a address) Network() string { return "memory" }
func (a address) String() string  { return string(a) }
