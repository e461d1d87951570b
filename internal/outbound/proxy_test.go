package outbound_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runbell/internal/outbound"
)

// newProxy tunnels every connection to one server. decide is told the target,
// and says the status: 200 connects.
func newProxy(t testing.TB, to string, decide func(target string) int) *url.URL {
	t.Helper()
	s := httptest.NewServer(tunnel(t, to, decide))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func tunnel(t testing.TB, to string, decide func(target string) int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			t.Errorf("the proxy was asked to %s %s", r.Method, r.RequestURI)
			return
		}
		if status := decide(r.RequestURI); status != 200 {
			http.Error(w, "no", status)
			return
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		near, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(near, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(far, near); _ = far.Close() })
		wg.Go(func() { _, _ = io.Copy(near, far); _ = near.Close() })
		wg.Wait()
	}
}

func TestThroughAProxy(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.Host) })
	plain := serve(t, answer)
	secure := httptest.NewUnstartedServer(answer)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of names it has no certificate for
	secure.StartTLS()                                                                // its certificate is for example.com
	t.Cleanup(secure.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	lies := resolver(t, map[string][]string{"example.com": {"2606:2800:21f::1 93.184.215.14"}, "bad.example.com": {"93.184.215.15"}, "inside.example.com": {"10.0.0.1"},
		"changes.example.com": {"93.184.215.14", "10.0.0.1"}})

	var mu sync.Mutex
	var asked []string
	var authorization string
	decide := func(target string) int {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, target)
		if strings.HasPrefix(target, "93.184.215.15") {
			return 403
		}
		return 200
	}
	authorized := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			authorization = r.Header.Get("Proxy-Authorization")
			mu.Unlock()
			h(w, r)
		}
	}
	overHTTP := httptest.NewServer(authorized(tunnel(t, plain.Listener.Addr().String(), decide)))
	t.Cleanup(overHTTP.Close)
	toSecure := httptest.NewTLSServer(tunnel(t, secure.Listener.Addr().String(), decide))
	t.Cleanup(toSecure.Close)
	roots.AddCert(toSecure.Certificate())
	through := func(s *httptest.Server, user string) *http.Client {
		u, err := url.Parse(strings.Replace(s.URL, "://", "://"+user, 1))
		if err != nil {
			t.Fatal(err)
		}
		return client(t, outbound.Options{Proxy: u, Roots: roots, Resolver: lies})
	}
	_, here, _ := net.SplitHostPort(plain.Listener.Addr().String())
	for name, c := range map[string]struct {
		client      *http.Client
		url         string
		body, fails string
		asked       string
		authorized  string
	}{
		// The name is looked up here, and the proxy gets the address that was checked.
		"http":                 {through(overHTTP, ""), "http://example.com/", "hello example.com", "", "93.184.215.14:80", ""},
		"with a port":          {through(overHTTP, ""), "http://example.com:8080/", "hello example.com:8080", "", "93.184.215.14:8080", ""},
		"a name and password":  {through(overHTTP, "run%40bell:p%3Ass@"), "http://example.com/", "hello example.com", "", "93.184.215.14:80", "Basic cnVuQGJlbGw6cDpzcw=="},
		"an address":           {through(overHTTP, ""), "http://93.184.215.14/", "hello 93.184.215.14", "", "93.184.215.14:80", ""},
		"IPv6":                 {through(overHTTP, ""), "http://[2606:2800:21f::1]/", "hello [2606:2800:21f::1]", "", "[2606:2800:21f::1]:80", ""},
		"https, over https":    {through(toSecure, ""), "https://example.com/", "hello example.com", "", "93.184.215.14:443", ""},
		"another name's":       {through(toSecure, ""), "https://93.184.215.14/", "", "certificate", "93.184.215.14:443", ""},
		"the proxy says no":    {through(overHTTP, "user:pa55word@"), "http://bad.example.com/", "", "answered 403 Forbidden", "93.184.215.15:80", "Basic dXNlcjpwYTU1d29yZA=="},
		"a private address":    {through(overHTTP, ""), "http://10.0.0.1/", "", "private", "", ""},
		"a private name":       {through(overHTTP, ""), "http://inside.example.com/", "", "private", "", ""},
		"the proxy itself":     {through(toSecure, ""), "http://10.1.1.1:3128/", "", "private", "", ""},
		"a name nobody knows":  {through(overHTTP, ""), "http://nowhere.example.com/", "", "no such host", "", ""},
		"what is allowed here": {through(overHTTP, ""), "http://127.0.0.1:" + here + "/", "hello 127.0.0.1:" + here, "", "", ""},
	} {
		asked, authorization = nil, ""
		_, body, err := post(c.client, c.url)
		mu.Lock()
		if body != c.body || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %q, %v; want %q or an error that says %q", name, body, err, c.body, c.fails)
		}
		if strings.Join(asked, " ") != c.asked || authorization != c.authorized {
			t.Errorf("%s: the proxy was asked for %q with %q, want %q with %q", name, asked, authorization, c.asked, c.authorized)
		}
		if err != nil && (strings.Contains(err.Error(), "pa55word") || errors.Is(err, outbound.ErrProxy) != strings.Contains(c.fails, "403")) {
			t.Errorf("%s: %v", name, err)
		}
		mu.Unlock()
	}

	// Public when it was created and at the first attempt, private at the second.
	asked = nil
	c := through(overHTTP, "")
	if _, body, err := post(c, "http://changes.example.com/"); body != "hello changes.example.com" || err != nil {
		t.Errorf("while it is public: %q, %v", body, err)
	}
	c.CloseIdleConnections()
	if _, _, err := post(c, "http://changes.example.com/"); !errors.Is(err, outbound.ErrBlocked) || !slices.Equal(asked, []string{"93.184.215.14:80"}) {
		t.Errorf("when it is private: %v; the proxy was asked for %q", err, asked)
	}
}

// Proxies that do not do their work: the error says whose fault it is, and
// neither where the proxy is nor how to sign in there.
func TestProxiesThatFail(t *testing.T) {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	for name, c := range map[string]struct {
		serve func(net.Conn) // nil: nobody listens
		says  string
	}{
		"nobody there":          {nil, "cannot be reached: connect: connection refused"},
		"silent":                {func(net.Conn) { <-over }, "deadline exceeded"},
		"a letter at a time":    {func(c net.Conn) { trickle(c, over) }, "deadline exceeded"},
		"closes":                {func(net.Conn) {}, "gave no answer that can be read"},
		"not HTTP":              {func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH\r\n\r\n") }, "gave no answer that can be read"},
		"HTTP/2":                {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/2 200 OK\r\n\r\n") }, "gave no answer that can be read"},
		"wants a password":      {says("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), "answered 407 Proxy Authentication Required"},
		"cannot connect either": {says("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nsorry"), "answered 502 Bad Gateway"},
		"redirects":             {says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"), "answered 302 Found"},
		"says more":             {says("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), "sent more than its answer"},
		"endless head":          {func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\n", "X-More: and more\r\n") }, "gave no answer that can be read"},
		"endless line":          {func(c net.Conn) { endless(c, "HTTP/1.1 200 ", "OK and ") }, "gave no answer that can be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if c.serve == nil {
				_ = l.Close()
			} else {
				t.Cleanup(func() { _ = l.Close() })
				go func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						go func() {
							defer conn.Close()
							// Its question first, so that closing does not reset the answer away.
							if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
								c.serve(conn)
							}
						}()
					}
				}()
			}
			proxy := &url.URL{Scheme: "http", User: url.UserPassword("user", "pa55word"), Host: l.Addr().String()}
			_, _, err = post(client(t, outbound.Options{Proxy: proxy, Timeout: time.Second}), "http://93.184.215.14/")
			// When the time is over, whoever notices first says so.
			late := errors.Is(err, context.DeadlineExceeded)
			if err == nil || !errors.Is(err, outbound.ErrProxy) && !late || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want ErrProxy in its chain, and that it says %q", err, c.says)
			} else if strings.Contains(err.Error(), "pa55word") || strings.Contains(err.Error(), proxy.Host) {
				t.Errorf("the error shows the proxy: %v", err)
			}
		})
	}
}

func says(answer string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, answer) }
}

// trickle sends a letter at a time, until the other side is gone.
func trickle(c net.Conn, over <-chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := io.WriteString(c, "H"); err != nil {
				return
			}
		case <-over:
			return
		}
	}
}

// endless never comes to an end by itself.
func endless(c net.Conn, first, more string) {
	_, err := io.WriteString(c, first)
	for err == nil {
		_, err = io.WriteString(c, strings.Repeat(more, 100))
	}
}
