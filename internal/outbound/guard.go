package outbound

import (
	"errors"
	"fmt"
	"net/netip"

	"code.dny.dev/ssrf"
)

// ErrBlocked is in the chain of errors of connections that were refused
// because of their address.
var ErrBlocked = errors.New("the address is private, local or reserved; RUNBELL_WEBHOOK_ALLOW can allow its network")

// Guard decides which addresses may be called.
type Guard struct {
	guardian *ssrf.Guardian
	allow    []netip.Prefix
}

// NewGuard allows everything public and the given networks.
func NewGuard(allow []netip.Prefix) *Guard {
	return &Guard{
		guardian: ssrf.New(
			ssrf.WithAnyPort(), // receivers listen where they like
			ssrf.WithNetworks("tcp4", "tcp6"),
			// Looks public, but is the host of a machine in Azure, which hands out its secrets.
			ssrf.WithDeniedV4Prefixes(netip.MustParsePrefix("168.63.129.16/32")),
		),
		allow: allow,
	}
}

// Check says whether an address may be called.
func (g *Guard) Check(addr netip.Addr) error {
	if g.allowed(addr) {
		return nil
	}
	plain := plain(addr)
	// Documentation, benchmarking and other reserved networks are the
	// library's business; the unspecified address reaches the local host.
	if !plain.IsValid() || plain.IsUnspecified() || plain.IsMulticast() || addr.Zone() != "" ||
		g.guardian.SafeAddr(plain) != nil {
		return fmt.Errorf("%s: %w", plain, ErrBlocked)
	}
	return nil
}

// allowed says whether an address is in a network that the operator named.
func (g *Guard) allowed(addr netip.Addr) bool {
	for _, p := range g.allow {
		if p.Contains(plain(addr)) {
			return true
		}
	}
	return false
}

// plain is the address that a connection goes to: an IPv4 address may come as
// an IPv6 one, and a zone only says through which interface.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }
