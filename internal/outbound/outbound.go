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
	"net/http"
	"net/url"
	"time"
)

// Options configure a client.
type Options struct {
	// Timeout bounds a call from dial to the end of the response.
	Timeout time.Duration
	// MaxConnsPerHost bounds connections to one host; 0 does not.
	MaxConnsPerHost int
	// Proxy is where connections go through, but those to allowed networks;
	// nil for none.
	Proxy *url.URL
	// Roots are the authorities that certificates come from, nil for those of
	// the system.
	Roots *x509.CertPool
	// Resolver is nil for the system's. Tests bring one that lies.
	Resolver *net.Resolver
}

// Client makes the HTTP client.
func (g *Guard) Client(o Options) *http.Client {
	d := g.dialer(o)
	return &http.Client{
		Timeout: o.Timeout,
		// The answer to a webhook is the answer: a redirect is not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil, // not the environment's; dial knows the operator's
			DialContext:            d.dial,
			TLSClientConfig:        d.tls(""), // of the URL's host
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
