// Package outbound makes the only HTTP client that may call a URL a user gave.
//
// It resolves and checks the address of every connection at the moment it is
// made, so that a name that changes between check and use gains nothing; it
// follows no redirect, reads no proxy setting, and bounds what it reads.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// ErrBlocked is in the chain of errors of connections that were refused
// because of their address.
var ErrBlocked = errors.New("the address is private, local or reserved; RUNBELL_WEBHOOK_ALLOW can allow its network")

// Options configure a client.
type Options struct {
	// Timeout bounds a call from dial to the end of the response.
	Timeout time.Duration
	// MaxConnsPerHost bounds connections to one host; 0 does not.
	MaxConnsPerHost int
}

// Guard decides which addresses may be called.
type Guard struct {
	guardian *ssrf.Guardian
	allow    []netip.Prefix
}

// NewGuard allows everything public and the given networks.
func NewGuard(allow []netip.Prefix) *Guard {
	return &Guard{
		// Ports are free: receivers listen where they like.
		guardian: ssrf.New(ssrf.WithAnyPort(), ssrf.WithNetworks("tcp4", "tcp6")),
		allow:    allow,
	}
}

// Check says whether an address may be called.
func (g *Guard) Check(addr netip.Addr) error {
	plain := addr.Unmap().WithZone("")
	for _, p := range g.allow {
		if p.Contains(plain) {
			return nil
		}
	}
	// Documentation, benchmarking and other reserved networks are the
	// library's business; the unspecified address reaches the local host.
	if !plain.IsValid() || plain.IsUnspecified() || plain.IsMulticast() || addr.Zone() != "" || g.guardian.SafeAddr(plain) != nil {
		return fmt.Errorf("%s: %w", plain, ErrBlocked)
	}
	return nil
}

// CheckURL says whether a URL is one we would call, as far as can be known
// without a look-up: the error is meant for the person who gave it.
func (g *Guard) CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return errors.New("url must be a complete URL such as https://example.com/hook")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("url must start with https:// or http://")
	case u.User != nil:
		return errors.New("url must not contain a user or password: use headers for credentials")
	case u.Fragment != "":
		return errors.New("url must not contain a #fragment: it would never be sent")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("url must have a port between 1 and 65535, or none")
		}
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		if g.Check(addr) != nil {
			return fmt.Errorf("url points to %s, a private, local or reserved address; RUNBELL_WEBHOOK_ALLOW of the server can allow its network", addr)
		}
		return nil
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		if g.Check(netip.AddrFrom4([4]byte{127, 0, 0, 1})) != nil {
			return errors.New("url points to localhost; RUNBELL_WEBHOOK_ALLOW=127.0.0.0/8 of the server can allow it")
		}
	}
	return nil
}

// Client makes the HTTP client.
func (g *Guard) Client(o Options) *http.Client {
	dialer := &net.Dialer{
		Timeout: o.Timeout,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			addr, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%s %s: %w", network, address, ErrBlocked)
			}
			return g.Check(addr.Addr())
		},
	}
	return &http.Client{
		Timeout: o.Timeout,
		// The answer to a webhook is the answer: a redirect is not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    o.Timeout,
			ResponseHeaderTimeout:  o.Timeout,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    64,
			MaxConnsPerHost:        o.MaxConnsPerHost,
			IdleConnTimeout:        90 * time.Second,
			DisableCompression:     true, // the log shows what was sent; no decompression bombs
			ForceAttemptHTTP2:      true,
		},
	}
}
