package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// A request may have many headers, within limits: they take memory for as long as it lasts.
func TestHeadersAreBounded(t *testing.T) {
	s, _ := start(t, "", nil)
	address := strings.TrimPrefix(s.URL(), "http://")
	ask := func(conn net.Conn, in *bufio.Reader, headers, body string) int {
		t.Helper()
		if _, err := io.WriteString(conn, "POST /runs HTTP/1.1\r\nHost: h\r\n"+headers+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)); err != nil {
			return 0
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return 0
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "X-%d: y\r\n", i)
		}
		return b.String()
	}
	lines := strings.Repeat("\n", 3000) + "{}" + strings.Repeat("\r\n", 3000)
	for name, c := range map[string]struct {
		headers string
		want    int
	}{
		"the most":      {many(90), http.StatusBadRequest}, // there is no projectId
		"too many":      {many(150), http.StatusBadRequest},
		"far too many":  {many(1000), http.StatusBadRequest},
		"too long":      {"X: " + strings.Repeat("y", 40<<10) + "\r\n", http.StatusRequestHeaderFieldsTooLarge},
		"a long cookie": {"Cookie: " + strings.Repeat("y", 12<<10) + "\r\n", http.StatusBadRequest},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		// Each request of a connection counts for itself, and lines of bodies do not count.
		for range 3 {
			if status := ask(conn, in, many(90), lines); status != http.StatusBadRequest {
				t.Errorf("before %s: %d", name, status)
			}
		}
		status := ask(conn, in, c.headers, "{}")
		if status != c.want && status != 0 { // the connection may end sooner than the answer comes
			t.Errorf("%s: %d, want %d", name, status, c.want)
		}
		if good := name == "the most" || name == "a long cookie"; good != (ask(conn, in, "", "{}") == http.StatusBadRequest) {
			t.Errorf("%s: the connection goes on: %v", name, !good)
		}
		_ = conn.Close()
	}
}
