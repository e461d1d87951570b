package outbound

import (
	"bufio"
	"bytes"
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

// answers are what receivers say, and whether we read it without net/http.
var answers = map[string]bool{
	"HTTP/1.1 204 No Content\r\n\r\n":                                                                                                true,
	"HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 0\r\n\r\n":                                                                    true,
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello":                                                                              true,
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 500 No\r\n":                                                           true, // what is behind it stays there
	"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 002\r\n\r\nno":                                            true,
	"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n":                                                                                      true,
	"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n":                                                                                     true,
	"HTTP/1.1 299 Très bien\r\nContent-Length: 0\r\n\r\n":                                                                            true,
	"HTTP/1.1 999 ?\r\nContent-Length: 0\r\n\r\n":                                                                                    true,
	"HTTP/1.1 200 OK\r\nset-cookie: b\r\nA:\r\nB: \t c d \t\r\nSET-COOKIE: a\r\nCONTENT-length:1\r\nconnection: Keep-Alive\r\n\r\n{": true,
	// A body that is not here yet, or not of a known length.
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell":                            false,
	"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\nhello":         false,
	"HTTP/1.1 200 OK\r\n\r\nhello":                                                false,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n":    false,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\nContent-Length: 1\r\n\r\nx":       false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTrailer: X\r\n\r\nx":                 false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx":          false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx":         false,
	"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx":                              false,
	"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nx":                                 false,
	"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx":                              false,
	"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx":                            false,
	"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\nx":                       false,
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\n\r\n":                      false,
	"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000): false,
	// A connection that ends.
	"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx":                         false,
	"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx":    false,
	"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\nx": false,
	"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n":       false,
	"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n":       false,
	// Odd, or wrong.
	"":                              false,
	"\r\n\r\n":                      false,
	"HTTP/1.1 200 OK\r\nContent-Le": false,
	"HTTP/1.1 200 OK\nContent-Length: 1\n\nx":                          false,
	"HTTP/1.1 200 OK\r\nA: b\n\r\nContent-Length: 0\r\n\r\n":           false,
	"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n":       false,
	"HTTP/1.1 200 OK\r\n A: b\r\nContent-Length: 0\r\n\r\n":            false,
	"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n":            false,
	"HTTP/1.1 200 OK\r\nA\r\nContent-Length: 0\r\n\r\n":                false,
	"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n":              false,
	"HTTP/1.1 200 OK\r\nÄ: b\r\nContent-Length: 0\r\n\r\n":             false,
	"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n":          false,
	"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n":        false,
	"HTTP/1.1 200 OK\r\nPragma: no-cache\r\nContent-Length: 0\r\n\r\n": false,
	"HTTP/1.1 200 OK\x01\r\nContent-Length: 0\r\n\r\n":                 false,
	"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n":                    false,
	"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n":                      false,
	"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n":                    false,
	"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n":                     false,
	"HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n":                     false,
	"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":                     false,
	"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n":                     false,
	"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n":                     false,
	"SSH-2.0-OpenSSH_9.2\r\n\r\n":                                      false,
}

// What we read without net/http is what net/http would read; and it is what
// receivers say.
func TestUsualAnswers(t *testing.T) {
	for text, want := range answers {
		if _, size := usual([]byte(text)); (size > 0) != want {
			t.Errorf("%.80q is read without net/http: %v, want %v", text, !want, want)
		}
		compare(t, []byte(text))
	}
}

// In whatever pieces an answer comes, it is the same answer.
func TestAnswersInPieces(t *testing.T) {
	for text := range answers {
		var got [2]Answer
		var failed [2]error
		for i, size := range []int{max(len(text), 1), 1} {
			receiver, ours := net.Pipe()
			go func() {
				defer receiver.Close()
				req, err := http.ReadRequest(bufio.NewReader(receiver))
				if err == nil {
					_, err = io.Copy(io.Discard, req.Body)
				}
				for piece := range slices.Chunk([]byte(text), size) {
					if err == nil {
						_, err = receiver.Write(piece) // until it is read, or nobody does
					}
				}
			}()
			l := NewPoster(time.Minute, func(context.Context, string, string) (net.Conn, error) { return ours, nil }).Line(Target{head: "POST / HTTP/1.1\r\nHost: x\r\n"})
			l.Reset()
			got[i], failed[i] = l.Post([]byte("{}"))
			l.Close()
		}
		if diff := cmp.Diff(got[0], got[1]); diff != "" || (failed[0] == nil) != (failed[1] == nil) {
			t.Errorf("%.80q: %v at once, %v byte by byte (-at once +byte by byte):\n%s", text, failed[0], failed[1], diff)
		}
	}
}

func FuzzUsual(f *testing.F) {
	for text := range answers {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) { compare(t, b) })
}

// compare reads an answer both ways.
func compare(t *testing.T, b []byte) {
	t.Helper()
	given := bytes.Clone(b)
	got, size := usual(b)
	if !bytes.Equal(b, given) {
		t.Fatalf("%q was changed", given)
	}
	if size == 0 {
		return
	}
	reader := bufio.NewReaderSize(bytes.NewReader(b), len(b)+16)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatalf("%q is refused: %v", b, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Close || size != len(b)-reader.Buffered() {
		t.Fatalf("%q: %v; closes: %v; size %d, want %d", b, err, resp.Close, size, len(b)-reader.Buffered())
	}
	want := Answer{Status: resp.StatusCode, Text: resp.Status, Header: fields(resp.Header), Body: append([]byte(nil), body...)}
	if diff := cmp.Diff(want, got); diff != "" || len(got.Body) > KeepBody {
		t.Errorf("%q (-want +got):\n%s", b, diff)
	}
	if got.Get("Retry-After") != resp.Header.Get("Retry-After") {
		t.Errorf("%q: Retry-After %q, want %q", b, got.Get("Retry-After"), resp.Header.Get("Retry-After"))
	}
}
