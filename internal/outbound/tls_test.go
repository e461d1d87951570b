package outbound_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"runbell/internal/outbound"
)

// authority is a private one, of a company for example.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for a name, until a time.
func (a authority) issue(t testing.TB, name string, until time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	house, other := newAuthority(t), newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(house.certificate)
	soon := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		host   string
		server *tls.Config
		fails  string // "" if it works
	}{
		"the private authority": {"hooks.example", &tls.Config{Certificates: []tls.Certificate{house.issue(t, "hooks.example", soon)}}, ""},
		"with a dot behind":     {"hooks.example.", &tls.Config{Certificates: []tls.Certificate{house.issue(t, "hooks.example", soon)}}, ""},
		"in capitals":           {"HOOKS.example", &tls.Config{Certificates: []tls.Certificate{house.issue(t, "hooks.example", soon)}}, ""},
		"in another script":     {"bücher.example", &tls.Config{Certificates: []tls.Certificate{house.issue(t, "xn--bcher-kva.example", soon)}}, ""},
		"only TLS 1.3":          {"hooks.example", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{house.issue(t, "hooks.example", soon)}}, ""},
		"HTTP/2, too":           {"hooks.example", &tls.Config{NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{house.issue(t, "hooks.example", soon)}}, ""},
		"another's name":        {"hooks.example", &tls.Config{Certificates: []tls.Certificate{house.issue(t, "example", soon)}}, "valid for example, not hooks.example"},
		"an address":            {"127.0.0.1", &tls.Config{Certificates: []tls.Certificate{house.issue(t, "hooks.example", soon)}}, "127.0.0.1"},
		"another authority":     {"hooks.example", &tls.Config{Certificates: []tls.Certificate{other.issue(t, "hooks.example", soon)}}, "unknown authority"},
		"expired":               {"hooks.example", &tls.Config{Certificates: []tls.Certificate{house.issue(t, "hooks.example", time.Now().Add(-time.Hour))}}, "expired"},
		"wants a certificate":   {"hooks.example", &tls.Config{ClientAuth: tls.RequireAnyClientCert, Certificates: []tls.Certificate{house.issue(t, "hooks.example", soon)}}, "certificate required"},
		"TLS 1.1 at best":       {"hooks.example", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, Certificates: []tls.Certificate{house.issue(t, "hooks.example", soon)}}, "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 1 || r.TLS == nil {
					t.Errorf("a request by %s", r.Proto)
				}
			}))
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // it complains, too
			s.TLS = c.server
			s.StartTLS()
			t.Cleanup(s.Close)
			_, port, err := net.SplitHostPort(s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			lies := resolver(t, map[string][]string{"hooks.example": {"127.0.0.1"}, "xn--bcher-kva.example": {"127.0.0.1"}})
			l := line(t, "https://"+c.host+":"+port+"/", outbound.Options{Timeout: 5 * time.Second, Resolver: lies, Roots: roots})
			a, err := send(l)
			if c.fails == "" && (err != nil || a.Status != 200) || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Errorf("%d, %v; want an error that says %q", a.Status, err, c.fails)
			}
		})
	}
}

// A receiver that does not finish the handshake runs into the timeout.
func TestSlowHandshakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(net.Conn)
		fails  string // "" for a timeout
	}{
		"silent":                 {says("", "\x16", time.Hour), ""},
		"a byte at a time":       {says("\x16\x03\x03\x40\x00", "\x02", aTimeout/40), ""},
		"speaks HTTP":            {says("HTTP/1.1 400 Bad Request\r\n\r\n", "", 0), "server gave HTTP response|first record does not look like a TLS handshake"},
		"breaks off":             {says("\x16\x03\x03", "", 0), "EOF"},
		"alerts without end":     {says("", "\x15\x03\x03\x00\x02\x01\x5a", 0), "too many|unexpected|alert|user canceled"},
		"a record without sense": {says("\x17\x03\x03\x00\x05hello", "", 0), "unexpected message|first record"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			over := make(chan struct{})
			t.Cleanup(func() { close(over); _ = l.Close() })
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 4096)); err != nil {
					return
				}
				if name == "silent" {
					<-over
				} else {
					c.answer(conn)
				}
			}()
			start := time.Now()
			_, err = send(line(t, "https://"+l.Addr().String(), outbound.Options{Timeout: aTimeout}))
			if took := time.Since(start); took > aTimeout+5*time.Second {
				t.Errorf("it took %v", took)
			}
			found := c.fails == "" && err != nil && isTimeout(err)
			for s := range strings.SplitSeq(c.fails, "|") {
				found = found || s != "" && err != nil && strings.Contains(err.Error(), s)
			}
			if !found {
				t.Errorf("%v, want %q", err, c.fails)
			}
		})
	}
}

// A second answer that TLS has read already, and we have not, is not the answer
// to the next request either.
func TestAnswersAreNotMistakenOverTLS(t *testing.T) {
	t.Parallel()
	house := newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(house.certificate)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{DynamicRecordSizingDisabled: true, Certificates: []tls.Certificate{house.issue(t, "hooks.example", time.Now().Add(time.Hour))}})
	if err != nil {
		t.Fatal(err)
	}
	// A whole buffer of bufio, so that the second answer stays behind in TLS.
	first := "HTTP/1.1 200 OK\r\nContent-Length: 4000\r\nPad: \r\n\r\n"
	first = strings.Replace(first, "Pad: ", "Pad: "+strings.Repeat("p", 4096-4000-len(first)), 1) + strings.Repeat("x", 4000)
	const second = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
	connections, _ := speakOn(t, listener, func(c net.Conn, request int) bool {
		_, err := io.WriteString(c, first+second)
		return err == nil
	})
	l := line(t, "https://hooks.example"+strings.TrimPrefix(listener.Addr().String(), "127.0.0.1"), outbound.Options{Timeout: 5 * time.Second, Roots: roots,
		Resolver: resolver(t, map[string][]string{"hooks.example": {"127.0.0.1"}})})
	for n := range 3 {
		if a, err := send(l); err != nil || a.Status != 200 {
			t.Errorf("request %d: %d, %v", n, a.Status, err)
		}
	}
	if n := connections.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}
