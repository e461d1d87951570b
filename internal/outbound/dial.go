package outbound

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
)

// dialer opens connections to the hosts of URLs that users gave. Every address
// is checked, every time.
type dialer struct {
	guard    *Guard
	proxy    *url.URL // nil for none
	resolver *net.Resolver
	roots    *x509.CertPool
	guarded  net.Dialer
	free     net.Dialer // for the proxy alone
}

func (g *Guard) dialer(o Options) *dialer {
	d := &dialer{guard: g, proxy: o.Proxy, resolver: cmp.Or(o.Resolver, net.DefaultResolver), roots: o.Roots}
	d.free = net.Dialer{Timeout: o.Timeout, Resolver: o.Resolver}
	d.guarded = d.free
	// After the look-up, for each address that is tried: what a name meant
	// before does not matter.
	d.guarded.ControlContext = func(_ context.Context, network, address string, _ syscall.RawConn) error {
		addr, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%s %s: %w", network, address, ErrBlocked)
		}
		return g.Check(addr.Addr())
	}
	return d
}

// dial connects to address, the host and port of a URL.
func (d *dialer) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if host, err = asciiHost(host); err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: host, IsNotFound: true}
	}
	if d.proxy == nil {
		return d.guarded.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	}
	if d.guarded.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.guarded.Timeout)
		defer cancel()
	}
	addrs, err := d.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	// The proxy is given an address, not the name, so that it cannot come to
	// another address than the one that was checked.
	var first error
	for _, addr := range addrs {
		conn, err := d.reach(ctx, addr, port)
		if err == nil {
			return conn, nil
		}
		first = cmp.Or(first, err)
	}
	return nil, first
}

// lookup finds the addresses of a host, of IPv4 first: not every proxy has IPv6.
func (d *dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := d.resolver.LookupNetIP(ctx, "ip", host)
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(a.Unmap().BitLen(), b.Unmap().BitLen()) })
	return addrs, err
}

// reach connects to an address through the proxy, or directly if the operator
// allowed its network: 127.0.0.1 is this machine, not the proxy's.
func (d *dialer) reach(ctx context.Context, addr netip.Addr, port string) (net.Conn, error) {
	if err := d.guard.Check(addr); err != nil {
		return nil, err
	}
	target := net.JoinHostPort(addr.Unmap().String(), port)
	if d.guard.allowed(addr) {
		return d.guarded.DialContext(ctx, "tcp", target)
	}
	return d.connect(ctx, target)
}

// tls configures TLS with a host, whose name the certificate must have.
func (d *dialer) tls(host string) *tls.Config {
	return &tls.Config{ServerName: host, RootCAs: d.roots, MinVersion: tls.VersionTLS12}
}
