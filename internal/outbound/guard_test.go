package outbound_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"runbell/internal/outbound"
)

func networks(t testing.TB, list ...string) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestOnlyPublicAddressesAreCalled(t *testing.T) {
	blocked := map[string]string{
		"this network":              "0.0.0.0 0.0.0.1 0.255.255.255",
		"loopback":                  "127.0.0.1 127.0.0.2 127.255.255.255",
		"private":                   "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255",
		"carrier-grade NAT":         "100.64.0.1 100.127.255.255",
		"link-local":                "169.254.0.1 169.254.255.255",
		"metadata of clouds":        "169.254.169.254 169.254.170.2 100.100.100.200 fd00:ec2::254",
		"protocol assignments":      "192.0.0.1 192.0.0.170",
		"documentation":             "192.0.2.1 198.51.100.7 203.0.113.9",
		"relays":                    "192.88.99.1",
		"benchmarking":              "198.18.0.1 198.19.255.255",
		"multicast":                 "224.0.0.1 239.255.255.255",
		"reserved":                  "240.0.0.1 254.1.2.3",
		"broadcast":                 "255.255.255.255",
		"IPv6 unspecified":          "::",
		"IPv6 loopback":             "::1",
		"IPv6 local (ULA)":          "fc00::1 fd12:3456:789a::1",
		"IPv6 link-local":           "fe80::1 febf::1",
		"IPv6 site-local":           "fec0::1",
		"IPv6 multicast":            "ff02::1 ff0e::1",
		"IPv6 documentation":        "2001:db8::1 3fff::1",
		"IPv6 benchmarking":         "2001:2::1",
		"IPv6 ORCHID":               "2001:20::1",
		"IPv6 discard":              "100::1",
		"IPv4 mapped":               "::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::ffff:192.168.1.1 ::ffff:255.255.255.255",
		"IPv4 compatible":           "::127.0.0.1 ::10.0.0.1",
		"IPv4 translated":           "::ffff:0:127.0.0.1",
		"NAT64":                     "64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b::808:808 64:ff9b:1::a00:1",
		"6to4":                      "2002:7f00:1:: 2002:a00:1::1 2002:c0a8:101::1",
		"Teredo":                    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
		"a zone":                    "fe80::1%eth0 ::1%lo 2606:4700::1111%eth0",
		"outside of global unicast": "4000::1 8000::1 e000::1",
	}
	public := map[string]string{
		"IPv4":                    "1.1.1.1 8.8.8.8 93.184.215.14 223.255.255.255",
		"beside private networks": "9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0",
		"beside others":           "100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255 169.255.0.0 198.17.255.255 198.20.0.0",
		"IPv6":                    "2606:4700:4700::1111 2001:4860:4860::8888 2a00:1450:4001:80b::200e 2400:cb00::1",
		"IPv4 mapped":             "::ffff:8.8.8.8",
	}
	guard := outbound.NewGuard(nil)
	for kind, addresses := range blocked {
		for s := range strings.FieldsSeq(addresses) {
			if err := guard.Check(netip.MustParseAddr(s)); !errors.Is(err, outbound.ErrBlocked) {
				t.Errorf("%s (%s) is called: %v", s, kind, err)
			}
		}
	}
	for kind, addresses := range public {
		for s := range strings.FieldsSeq(addresses) {
			if err := guard.Check(netip.MustParseAddr(s)); err != nil {
				t.Errorf("%s (%s) is refused: %v", s, kind, err)
			}
		}
	}
	if err := guard.Check(netip.Addr{}); !errors.Is(err, outbound.ErrBlocked) {
		t.Errorf("no address at all is called: %v", err)
	}
}

func TestAllowOpensExactlyItsNetwork(t *testing.T) {
	for name, c := range map[string]struct {
		allow           string
		opened, blocked string
	}{
		"one address":    {"127.0.0.1/32", "127.0.0.1 ::ffff:127.0.0.1", "127.0.0.2 ::ffff:127.0.0.2 ::1 10.0.0.1"},
		"a network":      {"10.1.0.0/16", "10.1.0.0 10.1.255.255 ::ffff:10.1.2.3", "10.0.255.255 10.2.0.0 ::ffff:10.2.0.0 192.168.0.1 64:ff9b::a01:1 2002:a01:1::"},
		"several":        {"127.0.0.0/8 192.168.0.0/16", "127.9.9.9 192.168.3.4", "10.0.0.1 172.16.0.1"},
		"IPv6":           {"fd00:1::/32", "fd00:1::5", "fd00:2::5 fe80::1 ::1"},
		"IPv6 loopback":  {"::1/128", "::1", "::2 :: 127.0.0.1"},
		"link-local":     {"fe80::/10", "fe80::1 fe80::1%eth0", "fec0::1 ::1"},
		"all of IPv4":    {"0.0.0.0/0", "10.0.0.1 127.0.0.1 0.0.0.0 ::ffff:127.0.0.1", "::1 fd00::1"},
		"all of IPv6":    {"::/0", "::1 fd00::1", "127.0.0.1 ::ffff:127.0.0.1"},
		"public already": {"8.8.8.0/24", "8.8.8.8 1.1.1.1", "10.0.0.1"},
	} {
		guard := outbound.NewGuard(networks(t, strings.Fields(c.allow)...))
		for s := range strings.FieldsSeq(c.opened) {
			if err := guard.Check(netip.MustParseAddr(s)); err != nil {
				t.Errorf("%s: %s is refused: %v", name, s, err)
			}
		}
		for s := range strings.FieldsSeq(c.blocked) {
			if err := guard.Check(netip.MustParseAddr(s)); !errors.Is(err, outbound.ErrBlocked) {
				t.Errorf("%s: %s is called: %v", name, s, err)
			}
		}
	}
}

func TestCheckURL(t *testing.T) {
	closed, open := outbound.NewGuard(nil), outbound.NewGuard(networks(t, "127.0.0.0/8", "::1/128"))
	for _, c := range []struct {
		guard *outbound.Guard
		url   string
		says  string // "" when it is fine
	}{
		{closed, "https://example.com/hook", ""},
		{closed, "http://example.com:8080/hook?x=1", ""},
		{closed, "HTTPS://EXAMPLE.COM", ""},
		{closed, "https://1.1.1.1/", ""},
		{closed, "https://[2606:4700:4700::1111]:8443/", ""},
		{closed, "https://bücher.example/", ""},
		{closed, "", "complete URL"},
		{closed, "example.com/hook", "complete URL"},
		{closed, "/hook", "complete URL"},
		{closed, "//example.com/hook", "https://"},
		{closed, "https://", "complete URL"},
		{closed, "https:///hook", "complete URL"},
		{closed, "https:example.com", "complete URL"},
		{closed, "https://:8080/hook", "complete URL"},
		{closed, "https://exa mple.com/", "complete URL"},
		{closed, "https://example.com/\n", "complete URL"},
		{closed, "https://example.com:port/", "complete URL"},
		{closed, "https://example.com:65536/", "port"},
		{closed, "https://example.com:0/", "port"},
		{closed, "https://example.com:99999999999999999999/", "port"},
		{closed, "https://example.com:65535/", ""},
		{closed, "https://example.com:/", ""},
		{closed, "ftp://example.com/", "https://"},
		{closed, "file:///etc/passwd", "complete URL"},
		{closed, "gopher://example.com/", "https://"},
		{closed, "javascript:alert(1)", "complete URL"},
		{closed, "https://user:secret@example.com/", "headers"},
		{closed, "https://user@example.com/", "headers"},
		{closed, "https://@example.com/", "headers"},
		{closed, "https://example.com/#part", "#fragment"},
		{closed, "http://127.0.0.1:9000/", "127.0.0.1"},
		{closed, "http://127.0.0.1./", "127.0.0.1"},
		{closed, "http://10.1.2.3/", "10.1.2.3"},
		{closed, "http://169.254.169.254/latest/meta-data", "169.254.169.254"},
		{closed, "http://[::1]/", "::1"},
		{closed, "http://[::ffff:127.0.0.1]/", "127.0.0.1"},
		{closed, "http://[fe80::1%25eth0]/", "fe80::1"},
		{closed, "http://[64:ff9b::7f00:1]/", "64:ff9b::"},
		{closed, "http://0.0.0.0/", "0.0.0.0"},
		{closed, "http://localhost:9000/", "localhost"},
		{closed, "http://LocalHost./", "localhost"},
		{closed, "http://app.localhost/", "localhost"},
		{closed, "http://notlocalhost/", ""},
		{open, "http://127.0.0.1:9000/", ""},
		{open, "http://localhost:9000/", ""},
		{open, "http://[::1]/", ""},
		{open, "http://10.0.0.1/", "10.0.0.1"},
		{open, "http://user@127.0.0.1/", "headers"},
	} {
		err := c.guard.CheckURL(c.url)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%q is refused: %v", c.url, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%q: %v, want an error that says %q", c.url, err, c.says)
		case err != nil && (!strings.HasPrefix(err.Error(), "url ") || strings.Contains(err.Error(), "secret")):
			t.Errorf("%q: the message is %q", c.url, err)
		}
	}
}
