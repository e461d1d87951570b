package outbound_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runbell/internal/outbound"
)

// client may call this machine, which is where the tests' servers are.
func client(t testing.TB, o outbound.Options) *http.Client {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	c := outbound.NewGuard(networks(t, "127.0.0.0/8", "::1/128")).Client(o)
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func post(c *http.Client, url string) (status int, body string, err error) {
	// Far beyond the timeouts of the clients here: what has none must not hang.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		return 0, "", err
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func TestARedirectIsTheAnswer(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		var followed atomic.Bool
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				followed.Store(true)
				return
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		if got, _, err := post(client(t, outbound.Options{}), s.URL); got != status || err != nil || followed.Load() {
			t.Errorf("%d: answered %d, %v, followed %v", status, got, err, followed.Load())
		}
	}
}

// proxy is one for the whole process, because net/http reads the environment once.
var proxy = sync.OnceValue(func() (p struct {
	*httptest.Server
	asked *atomic.Bool
}) {
	p.asked = new(atomic.Bool)
	p.Server = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { p.asked.Store(true) }))
	return p
})

func TestNoProxyIsUsed(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, proxy().URL)
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
	}
	// An address of which nobody answers, so that only a proxy could.
	req := httptest.NewRequest(http.MethodPost, "http://203.0.113.1/", nil)
	if u, err := http.ProxyFromEnvironment(req); err != nil || u == nil || u.String() != proxy().URL {
		t.Fatalf("the environment names no proxy: %v, %v", u, err)
	}
	if _, _, err := post(client(t, outbound.Options{}), req.URL.String()); !errors.Is(err, outbound.ErrBlocked) || proxy().asked.Load() {
		t.Errorf("through a proxy: %v; %v", proxy().asked.Load(), err)
	}
}

// What counts is the address at the moment of connecting, whatever name it came from.
func TestPrivateAddressesAreBlockedWhenConnecting(t *testing.T) {
	var reached atomic.Bool
	s := serve(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	closed := outbound.NewGuard(nil).Client(outbound.Options{Timeout: 10 * time.Second})
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"} {
		_, _, err := post(closed, "http://"+host+":"+port)
		if !errors.Is(err, outbound.ErrBlocked) {
			t.Errorf("%s: %v, want ErrBlocked in its chain", host, err)
		}
		if _, ok := errors.AsType[*url.Error](err); !ok {
			t.Errorf("%s: %T", host, err)
		}
	}
	if reached.Load() {
		t.Error("a request arrived")
	}
	if status, _, err := post(client(t, outbound.Options{}), "http://localhost:"+port); status != 200 || err != nil || !reached.Load() {
		t.Errorf("where it is allowed: %d, %v", status, err)
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	countConnections(s, &connections)
	t.Cleanup(s.Close)
	c := client(t, outbound.Options{})
	for range 5 {
		if status, body, err := post(c, s.URL); status != 200 || body != "ok" || err != nil {
			t.Fatal(status, body, err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("5 requests, %d connections", n)
	}
}

func TestConnectionsToAHostAreBounded(t *testing.T) {
	var here, connections atomic.Int32
	twoAreHere := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if here.Add(1) == 2 {
			close(twoAreHere)
		}
		<-twoAreHere // until then the others have to wait, or to connect
	}))
	countConnections(s, &connections)
	c := client(t, outbound.Options{MaxConnsPerHost: 2})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if status, _, err := post(c, s.URL); status != 200 || err != nil {
				t.Error(status, err)
			}
		})
	}
	wg.Wait()
	s.Close()
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func countConnections(s *httptest.Server, n *atomic.Int32) {
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			n.Add(1)
		}
	}
	s.Start()
}

func TestSlowServersAreLeft(t *testing.T) {
	const timeout = 100 * time.Millisecond
	over := make(chan struct{})
	defer close(over) // before the servers are closed, which wait for their handlers
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		url     string
	}{
		"never answers":         {handler: func(http.ResponseWriter, *http.Request) { <-over }},
		"never ends its answer": {handler: func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); <-over }},
		"answers byte after byte": {handler: func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(timeout / 20)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					_, _ = io.WriteString(w, "x")
					w.(http.Flusher).Flush()
				case <-r.Context().Done():
					return
				case <-over:
					return
				}
			}
		}},
		"takes the connection only":  {url: "http://" + raw.Addr().String()},
		"never shakes hands for TLS": {url: "https://" + raw.Addr().String()},
	} {
		url := c.url
		if c.handler != nil {
			s := httptest.NewServer(c.handler)
			defer s.CloseClientConnections() // the handlers go on until over is closed
			url = s.URL
		}
		start := time.Now()
		_, _, err := post(client(t, outbound.Options{Timeout: timeout}), url)
		took := time.Since(start)
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
			t.Errorf("a server that %s: %v, want a timeout", name, err)
		}
		// Far above the timeout, for slow machines; far below what a server that never ends would take.
		if took < timeout || took > timeout+5*time.Second {
			t.Errorf("a server that %s took %v", name, took)
		}
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	var size atomic.Int64
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Huge", strings.Repeat("x", int(size.Load())))
	})
	c := client(t, outbound.Options{})
	for n, want := range map[int64]bool{1 << 10: true, 32 << 10: true, 128 << 10: false, 16 << 20: false} {
		size.Store(n)
		if _, _, err := post(c, s.URL); (err == nil) != want {
			t.Errorf("%d bytes of headers: %v, want them accepted: %v", n, err, want)
		}
	}
}

// The log shows what was sent, and a small answer cannot become a large one.
func TestAnswersAreNotDecompressed(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(make([]byte, 10<<20))
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Accept-Encoding"); a != "" {
			t.Errorf("the client asked for %s", a)
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed.Bytes())
	})
	if _, body, err := post(client(t, outbound.Options{}), s.URL); err != nil || body != packed.String() {
		t.Errorf("%d bytes of %d arrived, %v", len(body), packed.Len(), err)
	}
}

func TestUnknownCertificatesAreRefused(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // the server complains too
	s.StartTLS()
	defer s.Close()
	_, _, err := post(client(t, outbound.Options{}), s.URL)
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok || errors.Is(err, outbound.ErrBlocked) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want an unknown authority", err)
	}
}
