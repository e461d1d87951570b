// Package outbound makes the only HTTP client that may call a URL a user gave.
//
// It resolves and checks the address of every connection at the moment it is
// made, so that a name that changes between check and use gains nothing; it
// follows no redirect, uses no proxy but the one it is given, and bounds what
// it reads.
package outbound

import (
	"crypto/x509"
	"net"
	"net/url"
	"time"
)

// Options configure a client.
type Options struct {
	// Timeout bounds a call from dial to the end of the response.
	Timeout time.Duration
	// Proxy is where connections go through, but those to allowed networks;
	// nil for none.
	Proxy *url.URL
	// Roots are the authorities that certificates come from, nil for those of
	// the system.
	Roots *x509.CertPool
	// Resolver is nil for the system's. Tests bring one that lies.
	Resolver *net.Resolver
}
