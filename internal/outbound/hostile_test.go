package outbound_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runbell/internal/outbound"
)

// speak is a receiver that answers each request as it likes, on the bare
// connection, which is closed when answer returns false. connections are those
// that came, written the bytes it could get rid of.
func speak(t testing.TB, answer func(c net.Conn, request int) (stay bool)) (url string, connections, written *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections, written = speakOn(t, l, answer)
	return "http://" + l.Addr().String(), connections, written
}

// speakOn is speak for a listener, which it closes.
func speakOn(t testing.TB, l net.Listener, answer func(c net.Conn, request int) (stay bool)) (connections, written *atomic.Int64) {
	connections, written = new(atomic.Int64), new(atomic.Int64)
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			open.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for n, stay := 0, true; stay; n++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, req.Body); err != nil {
						return
					}
					stay = answer(counted{c, written}, n)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); open.Wait() })
	return connections, written
}

type counted struct {
	net.Conn
	written *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// says is an answer that begins with text and, if there is more, repeats that
// without end, with pauses between.
func says(text, more string, pause time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		_, err := io.WriteString(c, text)
		for err == nil && more != "" {
			_, err = io.WriteString(c, more)
			time.Sleep(pause)
		}
	}
}

const aTimeout = 400 * time.Millisecond

// Whatever a receiver does, an attempt is over in time, reads little, and is an
// answer only if there was one.
func TestHostileReceivers(t *testing.T) {
	t.Parallel()
	const ok, length, chunked = "HTTP/1.1 200 OK\r\n", "Content-Length: ", "Transfer-Encoding: chunked\r\n\r\n"
	const slow, fast = aTimeout / 40, 0
	for name, c := range map[string]struct {
		answer func(net.Conn)
		status int    // 0: there is none
		fails  string // "" if it is an answer; words of which one is in the error
	}{
		"never answers":              {says("", "H", time.Hour), 0, "timeout"},
		"a byte at a time":           {says("", "H", slow), 0, "timeout"},
		"a header at a time":         {says(ok, "A: b\r\n", slow), 0, "timeout"},
		"headers without end":        {says(ok, "A: "+strings.Repeat("b", 1000)+"\r\n", fast), 0, "longer than 64 KB"},
		"a header without end":       {says(ok+"A: ", strings.Repeat("b", 1000), fast), 0, "longer than 64 KB"},
		"a status without end":       {says("HTTP/1.1 200 ", strings.Repeat("OK, ", 300), fast), 0, "longer than 64 KB"},
		"a huge header":              {says(ok+length+"0\r\nA: "+strings.Repeat("b", 128<<10)+"\r\n\r\n", "", fast), 0, "longer than 64 KB"},
		"a large header":             {says(ok+length+"0\r\nA: "+strings.Repeat("b", 32<<10)+"\r\n\r\n", "", fast), 200, ""},
		"many small headers":         {says(ok+length+"0\r\n"+strings.Repeat("A: b\r\n", 1000)+"\r\n", "", fast), 200, ""},
		"early hints without end":    {says("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", fast), 0, "1xx"},
		"early hints at a time":      {says("", "HTTP/1.1 102 Processing\r\n\r\n", aTimeout/3), 0, "timeout"},
		"an early hint":              {says("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "", fast), 204, ""},
		"another protocol":           {says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "", fast), 101, ""},
		"a body, a byte at a time":   {says(ok+length+"1000\r\n\r\n", "x", slow), 200, "timeout"},
		"a body without end":         {says(ok+"\r\n", strings.Repeat("x", 1000), fast), 200, ""},
		"a body without end, slowly": {says(ok+"\r\n", "x", slow), 200, "timeout"},
		"chunks without end":         {says("HTTP/1.1 500 No\r\n"+chunked, strings.Repeat("5\r\nhello\r\n", 100), fast), 500, ""},
		"a chunk's name without end": {says(ok+chunked+"5;a=", strings.Repeat("b", 1000), fast), 200, "too long"},
		"trailers without end":       {says(ok+chunked+"0\r\n", strings.Repeat("A: b\r\n", 200), fast), 200, "trailer"},
		"the promise of a terabyte":  {says(ok+length+"1099511627776\r\n\r\n", "x", slow), 200, "timeout"},
		"an impossible length":       {says(ok+length+"-1\r\n\r\n", "", fast), 0, "Content-Length"},
		"two lengths":                {says(ok+length+"1\r\n"+length+"2\r\n\r\nxx", "", fast), 0, "Content-Length"},
		"a body cut short":           {says(ok+length+"10\r\n\r\nhalf", "", fast), 200, "EOF"},
		"chunks cut short":           {says(ok+chunked+"5\r\nhe", "", fast), 200, "EOF"},
		"headers cut short":          {says(ok+"Content-Le", "", fast), 0, "EOF"},
		"a line too few":             {says(ok, "", fast), 0, "EOF"},
		"closes":                     {says("", "", fast), 0, "EOF"},
		"resets":                     {func(c net.Conn) { _ = c.(counted).Conn.(*net.TCPConn).SetLinger(0) }, 0, "EOF|reset"},
		"speaks SSH":                 {says("SSH-2.0-OpenSSH_9.2\r\n", "\r\n", slow), 0, "malformed"},
		"speaks HTTP/0.9":            {says("<html>hello</html>\r\n", "", fast), 0, "malformed"},
		"speaks HTTP/2":              {says("HTTP/2 200\r\n\r\n", "", fast), 0, "malformed"},
		"a status of two digits":     {says("HTTP/1.1 20 success\r\n\r\n", "", fast), 0, "malformed"},
		"a body behind 204":          {says("HTTP/1.1 204 No Content\r\n"+length+"5\r\n\r\nhello", "", fast), 204, ""},
		"compressed":                 {says(ok+"Content-Encoding: gzip\r\n"+length+"2\r\n\r\n\x1f\x8b", "", fast), 200, ""},
		"HTTP/1.0":                   {says("HTTP/1.0 200 OK\r\n\r\nhello", "", fast), 200, ""},
		"a redirect":                 {says("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n"+length+"0\r\n\r\n", "", fast), 302, ""},
		"a redirect of everything":   {says("HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\n"+length+"0\r\n\r\n", "", fast), 307, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over := make(chan struct{})
			url, connections, written := speak(t, func(conn net.Conn, _ int) bool {
				if name == "never answers" {
					<-over
				} else {
					c.answer(conn)
				}
				return false
			})
			defer close(over)
			start := time.Now()
			a, err := send(line(t, url, outbound.Options{Timeout: aTimeout}))
			if took := time.Since(start); took > aTimeout+5*time.Second {
				t.Errorf("it took %v", took)
			}
			if a.Status != c.status || (err == nil) != (c.fails == "") {
				t.Errorf("status %d, error %v; want %d, and that it fails: %q", a.Status, err, c.status, c.fails)
			}
			if err != nil && !slices.ContainsFunc(strings.Split(c.fails, "|"), func(s string) bool {
				return s == "timeout" && isTimeout(err) || strings.Contains(err.Error(), s)
			}) {
				t.Errorf("%v, want %s", err, c.fails)
			}
			if len(a.Body) > outbound.KeepBody {
				t.Errorf("%d bytes of the body are kept", len(a.Body))
			}
			// What the system takes in between is not ours.
			if n := written.Load(); n > 16<<20 || connections.Load() != 1 {
				t.Errorf("it was read from without end: %d bytes, %d connections", n, connections.Load())
			}
		})
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

// A connection that is used again must not bring the answer to something else.
func TestAnswersAreNotMistaken(t *testing.T) {
	t.Parallel()
	const good = "HTTP/1.1 204 No Content\r\n\r\n"
	for name, c := range map[string]struct {
		first       string // the answer to the first request
		later       string // what comes after it, unasked
		ends        bool   // the connection, then
		connections int64
	}{
		"nothing else":               {good, "", false, 1},
		"a second answer at once":    {good + "HTTP/1.1 500 No\r\n\r\n", "", false, 2},
		"a body where there is none": {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "", false, 2},
		"a second answer, later":     {good, "HTTP/1.1 500 No\r\n\r\n", false, 2},
		"a goodbye":                  {good, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", true, 2},
		"the end":                    {good, "", true, 2},
		"an answer and the end":      {"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "", true, 2},
		"a long answer":              {"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), "", false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answered, said := make(chan struct{}), make(chan struct{})
			var connection atomic.Int64
			url, connections, _ := speak(t, func(conn net.Conn, request int) bool {
				if request > 0 || connection.Add(1) > 1 {
					_, _ = io.WriteString(conn, good)
					return true
				}
				_, _ = io.WriteString(conn, c.first)
				<-answered
				_, _ = io.WriteString(conn, c.later)
				if c.ends {
					_ = conn.Close()
				}
				close(said)
				return !c.ends
			})
			l := line(t, url, outbound.Options{Timeout: 5 * time.Second})
			a, err := send(l)
			close(answered)
			if err != nil || a.Status/100 != 2 {
				t.Fatalf("the first: %d, %v", a.Status, err)
			}
			<-said
			for c.later != "" && l.Silent() { // the kernel may take a moment to pass it on
				runtime.Gosched()
			}
			if a, err := send(l); err != nil || a.Status != 204 {
				t.Errorf("the second: %d, %v", a.Status, err)
			}
			if n := connections.Load(); n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
		})
	}
}
