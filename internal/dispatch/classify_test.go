package dispatch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"runbell/internal/outbound"
	"runbell/internal/webhook"
)

// The text of an error must say what to do, and who caused it.
func TestClassify(t *testing.T) {
	connecting := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	looking := func(err net.DNSError) error {
		err.Name, err.Err = "hooks.example.com", "server misbehaving"
		return connecting(&err)
	}
	for name, c := range map[string]struct {
		err   error
		class webhook.Class
		says  string
	}{
		"a private address":     {connecting(outbound.NewGuard(nil).Check(netip.MustParseAddr("10.0.0.1"))), webhook.Blocked, "RUNBELL_WEBHOOK_ALLOW"},
		"no such name":          {looking(net.DNSError{IsNotFound: true}), webhook.DNS, "could not resolve hooks.example.com"},
		"a broken name server":  {looking(net.DNSError{IsTemporary: true}), webhook.DNS, "the lookup of hooks.example.com failed: server misbehaving"},
		"a silent name server":  {looking(net.DNSError{IsTimeout: true}), webhook.DNS, "the lookup of hooks.example.com failed"},
		"too late":              {context.DeadlineExceeded, webhook.Timeout, "within the timeout"},
		"a slow connection":     {connecting(os.ErrDeadlineExceeded), webhook.Timeout, "within the timeout"},
		"a private authority":   {x509.UnknownAuthorityError{}, webhook.TLS, "RUNBELL_WEBHOOK_CA_FILE"},
		"another's certificate": {x509.HostnameError{Host: "a.example", Certificate: &x509.Certificate{DNSNames: []string{"b.example"}}}, webhook.TLS, "valid for b.example, not a.example"},
		"a certificate wanted":  {&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, webhook.TLS, "certificate required"},
		"no TLS we know":        {errors.New("tls: server selected unsupported protocol version 301"), webhook.TLS, "protocol version"},
		"nothing listens":       {connecting(os.NewSyscallError("connect", syscall.ECONNREFUSED)), webhook.RefusedTCP, "nothing listens"},
		"no route":              {connecting(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), webhook.RefusedTCP, "no route to the address"},
		"no network":            {connecting(os.NewSyscallError("connect", syscall.ENETUNREACH)), webhook.RefusedTCP, "network is unreachable"},
		"a reset":               {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, webhook.Reset, "broke"},
		"an early end":          {io.ErrUnexpectedEOF, webhook.Reset, "broke"},
		"the proxy is away":     {fmt.Errorf("%w cannot be reached: %w", outbound.ErrProxy, syscall.ECONNREFUSED), webhook.Proxy, "RUNBELL_WEBHOOK_PROXY cannot be reached"},
		"the proxy is slow":     {fmt.Errorf("%w did not connect in time: %w", outbound.ErrProxy, context.DeadlineExceeded), webhook.Proxy, "did not connect in time"},
		"the proxy has no name": {fmt.Errorf("%w: %w", outbound.ErrProxy, looking(net.DNSError{IsNotFound: true})), webhook.Proxy, "RUNBELL_WEBHOOK_PROXY"},
		"something else":        {errors.New("too many open files"), webhook.OtherError, "too many open files"},
	} {
		if class, text := classify(c.err); class != c.class || !strings.Contains(text, c.says) {
			t.Errorf("%s: %q, %q; want %q and that it says %q", name, class, text, c.class, c.says)
		}
	}
}
