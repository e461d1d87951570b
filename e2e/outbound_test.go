package e2e

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runbell/internal/client"
	"runbell/internal/testkit"
)

// TestProxyAndPrivateAuthority sends webhooks through a proxy with a password,
// and past it to a receiver on an allowed network whose certificate comes from
// a private authority.
func TestProxyAndPrivateAuthority(t *testing.T) {
	t.Parallel()
	r := testkit.NewReceiver(t)
	secure := httptest.NewTLSServer(r)
	t.Cleanup(secure.Close)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, strings.TrimPrefix(r.URL, "http://"))
	trap := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the environment's proxy was asked for %s", r.RequestURI)
	}))
	t.Cleanup(trap.Close)

	s := newServer(t, "RUNBELL_WEBHOOK_PROXY=http://bell:pa55word@"+p.addr, "RUNBELL_WEBHOOK_CA_FILE="+authority, "RUNBELL_WEBHOOK_RETRIES=1h",
		"HTTP_PROXY="+trap.URL, "HTTPS_PROXY="+trap.URL, "http_proxy="+trap.URL, "https_proxy="+trap.URL)
	key := s.project("shop", nil)
	hooks := map[string]string{}
	for path, url := range map[string]string{"/direct": secure.URL, "/through": "http://93.184.215.14", "/denied": "http://93.184.215.15"} {
		id, secret := s.webhook("shop", client.WebhookSettings{URL: new(url + path)})
		r.Expect(path, secret)
		hooks[path] = id
	}
	player := newPlayer(t, key, s)
	player.play("build-1")
	got := r.Wait(t, 20*time.Second, func(list []testkit.Received) bool { return len(list) >= 4 })
	for _, path := range []string{"/direct", "/through"} {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(w testkit.Received) bool { return w.Path != path })); n != 2 {
			t.Errorf("%d webhooks came to %s, want 2", n, path)
		}
	}

	// The log of the webhook says whose fault it is.
	var attempts []struct{ Class, Error string }
	eventually(t, 20*time.Second, "the denied one is in the log", func() bool {
		var list []struct{ DeliveryID string }
		s.call("GET", "/webhooks/"+hooks["/denied"]+"/deliveries", nil, &list)
		for _, d := range list {
			var one struct {
				Attempts []struct{ Class, Error string }
			}
			s.call("GET", "/deliveries/"+d.DeliveryID, nil, &one)
			attempts = append(attempts, one.Attempts...)
		}
		return len(attempts) > 0
	})
	if a := attempts[0]; a.Class != "proxy" || !strings.Contains(a.Error, "responded with 403 Forbidden") {
		t.Errorf("the attempt that the proxy denied is %+v", a)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.asked)
	if want := []string{"93.184.215.14:80", "93.184.215.15:80"}; !slices.Equal(slices.Compact(p.asked), want) || p.password != "Basic YmVsbDpwYTU1d29yZA==" {
		t.Errorf("the proxy was asked for %q with %q", p.asked, p.password)
	}
	if log := s.log.String(); strings.Contains(log, "pa55word") || !strings.Contains(log, "proxy=http://"+p.addr) {
		t.Error("the log shows the password, or does not say that there is a proxy")
	}
}

// proxy connects everybody to one server, but denies one address.
type proxy struct {
	addr string

	mu       sync.Mutex
	asked    []string
	password string
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	p := &proxy{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked, p.password = append(p.asked, r.RequestURI), r.Header.Get("Proxy-Authorization")
		p.mu.Unlock()
		if r.Method != http.MethodConnect || strings.HasPrefix(r.RequestURI, "93.184.215.15") {
			http.Error(w, "denied", http.StatusForbidden)
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
		_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.Copy(far, near); _ = far.Close() })
		both.Go(func() { _, _ = io.Copy(near, far); _ = near.Close() })
		both.Wait()
	}))
	t.Cleanup(s.Close)
	p.addr = s.Listener.Addr().String()
	return p
}
