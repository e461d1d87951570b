package body

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/run"
)

// pipes is a listener whose connections are pipes, so that their deadlines run
// on virtual time.
type pipes struct {
	conns chan net.Conn
}

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// TestASlowUploadEnds: a body that comes slower than the minimum rate is refused
// when its grace is over; one that comes faster is received, however long it takes.
func TestASlowUploadEnds(t *testing.T) {
	const size = 512 << 10
	for _, c := range []struct {
		rate    int // bytes a second
		refused bool
		takes   time.Duration
	}{
		{rate: 1, refused: true, takes: grace},
		{rate: minRate / 4, refused: true, takes: 19 * time.Second}, // the bytes that came earn a little more
		{rate: minRate, takes: size / minRate * time.Second},
		{rate: size, takes: time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			pool := NewPools().Strangers
			var took time.Duration
			var failed error
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				began := time.Now()
				b, err := pool.Receive(w, r, loose(size))
				if err == nil {
					b.Release()
				}
				took, failed = time.Since(began), err
			})}
			l := pipes{conns: make(chan net.Conn)}
			go func() { _ = s.Serve(l) }()
			client, server := net.Pipe()
			l.conns <- server
			go func() {
				// When the server refuses it, it closes the connection.
				if _, err := fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size); err != nil {
					return
				}
				for sent := 0; sent < size; sent += c.rate {
					time.Sleep(time.Second)
					if _, err := client.Write([]byte(strings.Repeat("x", min(c.rate, size-sent)))); err != nil {
						return
					}
				}
			}()
			resp, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil {
				t.Fatalf("%d bytes a second: %v", c.rate, err)
			}
			_ = resp.Body.Close()
			close(l.conns)
			_ = s.Close()
			_ = client.Close()
			time.Sleep(2 * time.Second) // the server and the sender end
			synctest.Wait()
			if took < c.takes || took > c.takes+2*time.Second {
				t.Errorf("%d bytes a second: ended after %s, want %s", c.rate, took, c.takes)
			}
			if refused := run.KindOf(failed) == run.Unavailable && strings.Contains(failed.Error(), "too slowly"); refused != c.refused || !refused && failed != nil {
				t.Errorf("%d bytes a second: %v", c.rate, failed)
			}
			if pool.used != 0 || len(pool.reading) != 0 {
				t.Errorf("%d bytes are still taken by %d bodies", pool.used, len(pool.reading))
			}
		})
	}
}
