package outbound

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answers are what receivers say: usual, unusual and wrong.
var answers = []string{
	"HTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 500 No\r\n",
	"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 002\r\n\r\nno",
	"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 299 Très bien\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 999 ?\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nset-cookie: b\r\nA:\r\nB: \t c d \t\r\nSET-COOKIE: a\r\nCONTENT-length:1\r\nconnection: Keep-Alive\r\n\r\n{",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
	"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\nContent-Length: 1\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTrailer: X\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
	"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx",
	"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\nx",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000),
	"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
	"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\nx",
	"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
	"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
	"",
	"\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Le",
	"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
	"HTTP/1.1 200 OK\r\nA: b\n\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\n A: b\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nA\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nÄ: b\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nPragma: no-cache\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\x01\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
	"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
	"SSH-2.0-OpenSSH_9.2\r\n\r\n",
}

// In whatever pieces an answer arrives, it is the same answer.
func TestAnswersInPieces(t *testing.T) {
	for _, text := range answers {
		comparePieces(t, []byte(text))
	}
}

func FuzzAnswer(f *testing.F) {
	for _, text := range answers {
		f.Add([]byte(text))
	}
	f.Fuzz(comparePieces)
}

// comparePieces reads an answer at once and byte by byte.
func comparePieces(t *testing.T, text []byte) {
	t.Helper()
	whole, failed := readAnswer(text, max(len(text), 1))
	pieces, failedInPieces := readAnswer(text, 1)
	if diff := cmp.Diff(whole, pieces); diff != "" || (failed == nil) != (failedInPieces == nil) {
		t.Errorf("%.80q: %v at once, %v byte by byte (-at once +byte by byte):\n%s", text, failed, failedInPieces, diff)
	}
	if len(whole.Body) > KeepBody || failed == nil && whole.Status == 0 {
		t.Errorf("%.80q: status %d, %d bytes of the body are kept", text, whole.Status, len(whole.Body))
	}
}

// readAnswer posts to a receiver that answers in pieces of a size, and then
// closes the connection.
func readAnswer(text []byte, size int) (Answer, error) {
	receiver, ours := net.Pipe()
	go func() {
		defer receiver.Close()
		req, err := http.ReadRequest(bufio.NewReader(receiver))
		if err == nil {
			_, err = io.Copy(io.Discard, req.Body)
		}
		for piece := range slices.Chunk(text, size) {
			if err == nil {
				_, err = receiver.Write(piece) // until it is read, or nobody does
			}
		}
	}()
	l := NewPoster(time.Minute, func(context.Context, string, string) (net.Conn, error) { return ours, nil }).Line(Target{head: "POST / HTTP/1.1\r\nHost: x\r\n"})
	defer l.Close()
	l.Reset()
	return l.Post([]byte("{}"))
}

// What the log shows of an answer.
func TestAnswer(t *testing.T) {
	got, err := readAnswer([]byte("HTTP/1.1 200 OK\r\nset-cookie: b\r\nA:\r\nB: \t c d \t\r\nSET-COOKIE: a\r\nCONTENT-length:1\r\n\r\n{"), 1000)
	want := Answer{Status: 200, Text: "200 OK", Body: []byte("{"),
		Header: []Field{{"A", ""}, {"B", "c d"}, {"Content-Length", "1"}, {"Set-Cookie", "b"}, {"Set-Cookie", "a"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got.Get("Set-Cookie") != "b" || got.Get("Retry-After") != "" {
		t.Errorf("Get: %q, %q", got.Get("Set-Cookie"), got.Get("Retry-After"))
	}
}
