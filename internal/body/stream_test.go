package body

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/run"
)

// A stream may take longer than the server gives to requests, if it comes at the
// pace of other bodies and without long pauses.
func TestStream(t *testing.T) {
	const size = 64 * minRate // takes about a minute at the least pace
	for name, c := range map[string]struct {
		before, pause, after int // seconds of full pace, of nothing, of full pace
		received             int // seconds until it is refused, 0 if it is not
	}{
		"at the least pace":     {before: 64},
		"a pause that is short": {before: 32, pause: 10, after: 32},
		"a slow beginning":      {pause: 20, after: 64, received: 15},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var took time.Duration
				var failed error
				var n int64
				s := &http.Server{ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					began := time.Now()
					n, failed = io.Copy(io.Discard, Stream(w, r))
					took = time.Since(began)
					Answer(w)
					_, _ = io.WriteString(w, "done")
				})}
				client := serve(s)
				go func() {
					if _, err := fmt.Fprintf(client, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size); err != nil {
						return
					}
					for second := range c.before + c.pause + c.after {
						time.Sleep(time.Second)
						if second < c.before || second >= c.before+c.pause {
							if _, err := io.WriteString(client, strings.Repeat("x", minRate)); err != nil {
								return
							}
						}
					}
				}()
				resp, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = resp.Body.Close() }()
				if b, err := io.ReadAll(resp.Body); string(b) != "done" || err != nil {
					t.Errorf("the answer is %q, %v", b, err)
				}
				if c.received == 0 && (failed != nil || n != size) {
					t.Errorf("%d bytes, %v after %s", n, failed, took)
				}
				if c.received > 0 && (run.KindOf(failed) != run.Unavailable || took != time.Duration(c.received)*time.Second) {
					t.Errorf("%v after %s", failed, took)
				}
				_ = client.Close()
				_ = s.Close()
				time.Sleep(2 * time.Minute) // the sender ends
				synctest.Wait()
			})
		})
	}
}

// serve is a connection to a server, on virtual time.
func serve(s *http.Server) net.Conn {
	l := pipes{conns: make(chan net.Conn, 1)}
	client, server := net.Pipe()
	l.conns <- server
	close(l.conns)
	go func() { _ = s.Serve(l) }()
	return client
}
