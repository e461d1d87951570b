package web

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
)

// Behind makes handlers see the client's address as r.RemoteAddr when the request
// came through trusted proxies, which say it in X-Forwarded-For. The client is
// the right-most address that is not a trusted proxy; what stands to the left of
// it was written by the client, and is not believed.
func Behind(trusted []netip.Prefix, log *slog.Logger, next http.Handler) http.Handler {
	var hint sync.Once
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, forwarded := Address(r), r.Header.Values("X-Forwarded-For")
		switch {
		case len(forwarded) == 0:
		case !within(peer, trusted):
			if peer.IsLoopback() || peer.IsPrivate() {
				hint.Do(func() {
					log.Warn("a request has X-Forwarded-For, which is ignored: if its sender is your proxy, name its network "+
						"in RUNBELL_TRUSTED_PROXIES", "address", peer)
				})
			}
		default:
			behind := r.WithContext(r.Context())
			behind.RemoteAddr = netip.AddrPortFrom(clientOf(peer, strings.Split(strings.Join(forwarded, ","), ","), trusted),
				0).String()
			r = behind
		}
		next.ServeHTTP(w, r)
	})
}

// Address is where a request comes from: the zero Addr if that is no IP address.
func Address(r *http.Request) netip.Addr { return parseAddress(r.RemoteAddr) }

// parseAddress reads an address with or without a port. IPv4 in IPv6 is IPv4.
func parseAddress(s string) netip.Addr {
	if at, err := netip.ParseAddrPort(s); err == nil {
		return at.Addr().Unmap().WithZone("")
	}
	addr, _ := netip.ParseAddr(strings.Trim(s, "[]"))
	return addr.Unmap().WithZone("")
}

// clientOf goes back along the proxies, from the last one. An entry that is no
// address ends the way: the proxy that passed it on counts.
func clientOf(peer netip.Addr, forwarded []string, trusted []netip.Prefix) netip.Addr {
	for len(forwarded) > 0 && within(peer, trusted) {
		before := parseAddress(strings.TrimSpace(forwarded[len(forwarded)-1]))
		if !before.IsValid() {
			return peer
		}
		peer, forwarded = before, forwarded[:len(forwarded)-1]
	}
	return peer
}

func within(addr netip.Addr, networks []netip.Prefix) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
