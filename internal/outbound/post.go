package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// KeepBody is how much of an answer's body is kept.
	KeepBody = 8 << 10
	// readBody is how much of it is read at all, so that its connection can be
	// used again; after that it is closed.
	readBody = 64 << 10
	// maxHead bounds the status line and headers of an answer.
	maxHead = 64 << 10
	// idleFor is how long a connection is kept for the next request.
	idleFor = 30 * time.Second
)

// ErrHead is the error of an answer whose headers do not end.
var ErrHead = fmt.Errorf("the headers of the response are longer than %d KB", maxHead>>10)

// Poster sends webhooks. It writes HTTP/1.1 requests itself, because an attempt
// must be exact: net/http's Transport retries on its own, adds headers of its
// own, and follows its own rules for connections. One call of [Line.Post] is one
// attempt within one timeout, with the headers it was given. net/http reads every
// answer.
//
// There is one exception to "one attempt, one request": a connection that was
// kept from an earlier request, and ends before a byte of the answer arrives, had
// most likely been closed before our request reached the receiver. The request is
// then sent once more, over a new connection, with the same Webhook-Id.
//
// This type is finished: new kinds of endpoints and new features do not need to
// change it.
type Poster struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	tls     func(host string) *tls.Config
	timeout time.Duration
}

// Poster makes a poster whose connections are guarded.
func (g *Guard) Poster(o Options) *Poster {
	d := g.dialer(o)
	return &Poster{d.dial, d.tls, o.Timeout}
}

// NewPoster makes one that connects as it is told, without a guard: for a
// network in memory.
func NewPoster(timeout time.Duration,
	dial func(ctx context.Context, network, address string) (net.Conn, error)) *Poster {
	return &Poster{dial, func(host string) *tls.Config { return &tls.Config{ServerName: host} }, timeout}
}

// Target is where webhooks of an endpoint go.
type Target struct {
	address string // host and port to dial
	host    string // of TLS
	secure  bool
	head    string // request line and Host
}

// NewTarget takes the URL of an endpoint.
func NewTarget(raw string) (Target, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return Target{}, errors.New("the URL of the webhook is not valid")
	}
	host, err := asciiHost(u.Hostname())
	if err != nil {
		return Target{}, errors.New("the host of the webhook's URL is not valid")
	}
	port := u.Port()
	shown, _, _ := strings.Cut(host, "%") // a zone is this machine's business
	if strings.Contains(host, ":") {
		shown = "[" + shown + "]"
	}
	if port != "" {
		shown += ":" + port
	} else {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return Target{address: net.JoinHostPort(host, port), host: host, secure: u.Scheme == "https",
		head: "POST " + escape(u.RequestURI()) + " HTTP/1.1\r\nHost: " + shown + "\r\n"}, nil
}

// escape writes what a query may hold, and a request line may not, in ASCII.
func escape(uri string) string {
	var b strings.Builder
	for i := range len(uri) {
		if c := uri[i]; c <= ' ' || c > '~' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Line is a connection to a target, opened when it is needed. One goroutine uses
// it at a time.
type Line struct {
	poster  *Poster
	target  Target
	conn    net.Conn // nil unless open
	wire    net.Conn // what is below TLS, else the same
	source  source   // reads conn
	limit   io.LimitedReader
	reader  *bufio.Reader
	request []byte
	body    []byte
	used    time.Time
}

// Line makes a line to a target.
func (p *Poster) Line(t Target) *Line {
	return &Line{poster: p, target: t}
}

// Header writes a header of the next request. The caller has checked name and
// value.
func (l *Line) Header(name, value string) {
	l.request = append(append(append(append(l.request, name...), ": "...), value...), "\r\n"...)
}

// Reset begins the next request.
func (l *Line) Reset() { l.request = append(l.request[:0], l.target.head...) }

// Post sends the request, with the headers since Reset and a body, and reads the
// answer. An error means that there was none, or not all of it; then Answer has
// what there was. A connection that the receiver closed while nobody used it is
// no answer: the request goes over a new one.
func (l *Line) Post(body []byte) (Answer, error) {
	l.request = strconv.AppendInt(append(l.request, "Content-Length: "...), int64(len(body)), 10)
	l.request = append(append(l.request, "\r\n\r\n"...), body...)
	deadline := time.Now().Add(l.poster.timeout)
	if l.conn != nil && (time.Since(l.used) > idleFor || !l.silent()) {
		l.Close()
	}
	reused := l.conn != nil
	for {
		if l.conn == nil {
			if err := l.open(deadline); err != nil {
				return Answer{}, err
			}
		}
		a, heard, err := l.exchange(deadline)
		if err == nil {
			l.used = time.Now()
			return a, nil
		}
		l.Close()
		if !reused || heard || !broken(err) {
			return a, err
		}
		reused = false
	}
}

// silent reports whether the receiver has sent nothing since its last answer:
// neither the end of the connection nor bytes that nobody asked for, such as a
// second answer or the 408 with which some servers close idle connections. Such
// bytes would be taken for the answer to the next request.
func (l *Line) silent() bool {
	if l.wire != l.conn {
		// TLS may hold bytes that it has read from the wire. A deadline in the past
		// returns those and reads no more.
		if err := l.conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
			return false
		}
		if n, err := l.conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
	}
	return quiet(l.wire)
}

// broken says that the other side had ended the connection.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (l *Line) open(deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := l.poster.dial(ctx, "tcp", l.target.address)
	if err != nil {
		return err
	}
	l.wire = conn
	if l.target.secure {
		secure := tls.Client(conn, l.poster.tls(l.target.host))
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return err
		}
		conn = secure
	}
	l.conn = conn
	l.source = source{conn: conn}
	l.limit.R = &l.source
	if l.reader == nil {
		l.reader = bufio.NewReader(&l.limit)
	} else {
		l.reader.Reset(&l.limit)
	}
	return nil
}

// exchange sends the request and reads the answer, on the open connection. heard
// says whether a byte of it came.
func (l *Line) exchange(deadline time.Time) (a Answer, heard bool, err error) {
	if err := l.conn.SetDeadline(deadline); err != nil {
		return a, false, err
	}
	l.limit.N = maxHead
	// A receiver may answer before it has read everything, and close: then the
	// answer counts, not the error of the write.
	_, failed := l.conn.Write(l.request)
	a, again, err := l.answer()
	heard = a.Status != 0 || l.limit.N != maxHead
	if err != nil {
		if a.Status == 0 && l.source.err != nil {
			err = l.source.err // rather than that half a line makes no sense
		}
		if failed != nil && !heard {
			err = failed
		}
		return a, heard, err
	}
	if !again || failed != nil || l.reader.Buffered() > 0 {
		l.Close()
	}
	return a, true, nil
}

// answer reads the answer, and says whether the connection may be used again.
func (l *Line) answer() (a Answer, again bool, err error) {
	if _, err := l.reader.Peek(1); err != nil {
		return a, false, err
	}
	resp, err := l.head() //nolint:bodyclose // closing it would read the rest; the connection is closed instead
	if err != nil {
		return a, false, err
	}
	a = Answer{Status: resp.StatusCode, Text: resp.Status, Header: fields(resp.Header)}
	l.limit.N = readBody
	whole, err := l.read(resp.Body)
	a.Body = append([]byte(nil), l.body[:min(len(l.body), KeepBody)]...)
	return a, whole && !resp.Close, err
}

// source reads a connection, and remembers how it ended.
type source struct {
	conn net.Conn
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.conn.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// head reads the status and the headers of the answer, after any that only say
// that it is coming.
func (l *Line) head() (*http.Response, error) {
	for range 5 {
		resp, err := http.ReadResponse(l.reader, nil)
		if err != nil && l.limit.N <= 0 {
			err = ErrHead
		}
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
	return nil, errors.New("the receiver sent too many interim responses (status 1xx)")
}

// read reads a body up to its limit, and says whether that was all of it.
func (l *Line) read(body io.Reader) (whole bool, err error) {
	l.body = l.body[:0]
	if body == http.NoBody {
		return true, nil
	}
	for len(l.body) < readBody {
		if len(l.body) == cap(l.body) {
			l.body = append(l.body, make([]byte, 512)...)[:len(l.body)]
		}
		n, err := body.Read(l.body[len(l.body):min(cap(l.body), readBody)])
		l.body = l.body[:len(l.body)+n]
		if err == io.EOF {
			return true, nil
		}
		if err != nil && l.limit.N <= 0 {
			return false, nil // a long one: what there is will do
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// Close ends the connection, if one is open. The line can be used again.
func (l *Line) Close() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}
