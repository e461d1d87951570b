package body

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"runbell/internal/run"
)

// sender is a connection that sends one body in parts.
type sender struct {
	*testing.T
	net.Conn
}

func send(t *testing.T, s *httptest.Server, size int) sender {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size); err != nil {
		t.Fatal(err)
	}
	return sender{t, conn}
}

func (s sender) part(n int) {
	s.Helper()
	if _, err := io.WriteString(s, strings.Repeat("x", n)); err != nil {
		s.Errorf("%d bytes cannot be sent: %v", n, err)
	}
}

func (s sender) status() int {
	s.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		s.Errorf("no answer: %v", err)
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestWhoIsRefusedGetsAnAnswer: a large body that is refused for others while it is
// sent gets 503 once all of it was sent. Many clients look for an answer no sooner.
func TestWhoIsRefusedGetsAnAnswer(t *testing.T) {
	const most = 16 << 20
	const rest = most - 7<<19 // without it, the body takes the whole pool, and still fits
	pool := NewPool(4<<20, 1, NewRoom(1<<20))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := pool.Receive(w, r, loose(most))
		if err != nil {
			if run.KindOf(err) != run.Unavailable {
				t.Error(err)
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		b.Release()
	}))
	defer s.Close()

	tooLarge := send(t, s, most) // for the pool
	tooLarge.part(most)
	if status := tooLarge.status(); status != http.StatusServiceUnavailable {
		t.Errorf("larger than the pool: %d", status)
	}

	slow := send(t, s, most)
	slow.part(most - rest)
	for held := int64(0); held < 4<<20; { // then the server waits for more
		runtime.Gosched()
		pool.mu.Lock()
		held = pool.used
		pool.mu.Unlock()
	}
	other := send(t, s, 100<<10)
	other.part(100 << 10)
	if status := other.status(); status != http.StatusOK {
		t.Errorf("beside a slow one: %d", status)
	}
	slow.part(rest)
	if status := slow.status(); status != http.StatusServiceUnavailable {
		t.Errorf("refused for another: %d", status)
	}
	s.Close()
	if pool.used != 0 || len(pool.reading) != 0 {
		t.Errorf("%d bytes are still taken", pool.used)
	}
}
