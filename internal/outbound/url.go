package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

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
	host, err := asciiHost(u.Hostname())
	if err != nil {
		return fmt.Errorf("url must have a host name that can exist: %w", err)
	}
	name := strings.TrimSuffix(host, ".")
	addr, err := netip.ParseAddr(name)
	switch isAddress := err == nil; {
	case isAddress && g.Check(addr) != nil:
		return fmt.Errorf("url points to %s, a private, local or reserved address; RUNBELL_WEBHOOK_ALLOW of the server can "+
			"allow its network", addr)
	case isAddress && name == host:
		return nil
	// No top-level domain is a number, so it is an address in a form that some
	// programs read one way and some another: 127.1, 0x7f.1, 2130706433, 0177.0.0.1.
	case isAddress, numeric.MatchString(name):
		return errors.New("url must have its address as four decimal numbers, such as 203.0.113.7, or as IPv6 in brackets")
	case name == "localhost" || strings.HasSuffix(name, ".localhost"):
		if g.Check(netip.AddrFrom4([4]byte{127, 0, 0, 1})) != nil {
			return errors.New("url points to localhost; RUNBELL_WEBHOOK_ALLOW=127.0.0.0/8 of the server can allow it")
		}
	}
	return nil
}

// numeric matches hosts that are read as an IPv4 address because of their last
// part (WHATWG URL, "ends in a number").
var numeric = regexp.MustCompile(`(^|\.)(0[xX][0-9a-fA-F]*|[0-9]+)$`)

// label is a part of a name. The underscore is in no host's name by the letter
// of the standards, and in many in practice.
var label = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// asciiHost is a host of a URL as it is looked up: in lower case, and with
// names in other scripts in their ASCII form. Only then does it show what it
// is: the full-width digits of １２７.０.０.１ are digits then.
func asciiHost(host string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	ascii := strings.ToLower(host)
	if strings.ContainsFunc(host, func(r rune) bool { return r > '~' }) {
		var err error
		if ascii, err = idna.Lookup.ToASCII(host); err != nil {
			return "", fmt.Errorf("%q is not one", host)
		}
	}
	if len(ascii) > 254 {
		return "", errors.New("it is longer than 253 characters")
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(ascii, "."), ".") {
		if !label.MatchString(part) {
			return "", fmt.Errorf("%q is not one", host)
		}
	}
	return ascii, nil
}
