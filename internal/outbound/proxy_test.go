package outbound_test

import (
	"bufio"
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
	plain := httptest.NewServer(answer)
	t.Cleanup(plain.Close)
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
	through := func(s *httptest.Server, user string) outbound.Options {
		u, err := url.Parse(strings.Replace(s.URL, "://", "://"+user, 1))
		if err != nil {
			t.Fatal(err)
		}
		return outbound.Options{Timeout: 5 * time.Second, Proxy: u, Roots: roots, Resolver: lies}
	}
	_, here, _ := net.SplitHostPort(plain.Listener.Addr().String())
	for name, c := range map[string]struct {
		options     outbound.Options
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
		"the proxy says no":    {through(overHTTP, "user:pa55word@"), "http://bad.example.com/", "", "responded with 403 Forbidden", "93.184.215.15:80", "Basic dXNlcjpwYTU1d29yZA=="},
		"a private address":    {through(overHTTP, ""), "http://10.0.0.1/", "", "private", "", ""},
		"a private name":       {through(overHTTP, ""), "http://inside.example.com/", "", "private", "", ""},
		"the proxy itself":     {through(toSecure, ""), "http://10.1.1.1:3128/", "", "private", "", ""},
		"a name nobody knows":  {through(overHTTP, ""), "http://nowhere.example.com/", "", "no such host", "", ""},
		"what is allowed here": {through(overHTTP, ""), "http://127.0.0.1:" + here + "/", "hello 127.0.0.1:" + here, "", "", ""},
	} {
		asked, authorization = nil, ""
		a, err := send(line(t, c.url, c.options))
		body := string(a.Body)
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
	l := line(t, "http://changes.example.com/", through(overHTTP, ""))
	if a, err := send(l); string(a.Body) != "hello changes.example.com" || err != nil {
		t.Errorf("while it is public: %q, %v", a.Body, err)
	}
	l.Close()
	if _, err := send(l); !errors.Is(err, outbound.ErrBlocked) || !slices.Equal(asked, []string{"93.184.215.14:80"}) {
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
		"silent":                {func(net.Conn) { <-over }, "did not connect in time"},
		"a letter at a time":    {says("", "H", 20*time.Millisecond), "did not connect in time"},
		"closes":                {func(net.Conn) {}, "sent a response that cannot be read"},
		"not HTTP":              {says("SSH-2.0-OpenSSH\r\n\r\n", "", 0), "sent a response that cannot be read"},
		"HTTP/2":                {says("HTTP/2 200 OK\r\n\r\n", "", 0), "sent a response that cannot be read"},
		"wants a password":      {says("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "", 0), "responded with 407 Proxy Authentication Required"},
		"cannot connect either": {says("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nsorry", "", 0), "responded with 502 Bad Gateway"},
		"redirects":             {says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "", 0), "responded with 302 Found"},
		"says more":             {says("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "", 0), "sent more than its response"},
		"endless head":          {says("HTTP/1.1 200 OK\r\n", strings.Repeat("X-More: and more\r\n", 100), 0), "sent a response that cannot be read"},
		"endless line":          {says("HTTP/1.1 200 ", strings.Repeat("OK and ", 100), 0), "sent a response that cannot be read"},
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
			_, err = send(line(t, "http://93.184.215.14/", outbound.Options{Proxy: proxy, Timeout: aTimeout}))
			if !errors.Is(err, outbound.ErrProxy) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want ErrProxy in its chain, and that it says %q", err, c.says)
			} else if strings.Contains(err.Error(), "pa55word") || strings.Contains(err.Error(), proxy.Host) {
				t.Errorf("the error shows the proxy: %v", err)
			}
		})
	}
}
