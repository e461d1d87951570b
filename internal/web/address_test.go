package web_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"runbell/internal/web"
)

func TestBehind(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48"), netip.MustParsePrefix("127.0.0.0/8")}
	for name, c := range map[string]struct {
		peer      string
		forwarded []string
		trusted   []netip.Prefix
		want      string
	}{
		"no proxy":                        {"203.0.113.9:1234", nil, trusted, "203.0.113.9"},
		"by default nobody is believed":   {"10.0.0.1:1234", []string{"198.51.100.1"}, nil, "10.0.0.1"},
		"nor loopback":                    {"127.0.0.1:1234", []string{"198.51.100.1"}, nil, "127.0.0.1"},
		"a stranger is not believed":      {"203.0.113.9:1234", []string{"198.51.100.1"}, trusted, "203.0.113.9"},
		"another private address":         {"192.168.0.1:1234", []string{"198.51.100.1"}, trusted, "192.168.0.1"},
		"a proxy":                         {"10.0.0.1:1234", []string{"198.51.100.1"}, trusted, "198.51.100.1"},
		"what the client wrote":           {"10.0.0.1:1234", []string{"8.8.8.8, 198.51.100.1"}, trusted, "198.51.100.1"},
		"two headers":                     {"10.0.0.1:1234", []string{"8.8.8.8", "198.51.100.1"}, trusted, "198.51.100.1"},
		"two proxies":                     {"10.0.0.1:1234", []string{"8.8.8.8, 198.51.100.1, 10.9.9.9"}, trusted, "198.51.100.1"},
		"the client pretends to be one":   {"10.0.0.1:1234", []string{"10.1.1.1, 198.51.100.1, 10.9.9.9"}, trusted, "198.51.100.1"},
		"all are proxies":                 {"10.0.0.1:1234", []string{"10.0.0.3, 10.0.0.2"}, trusted, "10.0.0.3"},
		"no address":                      {"10.0.0.1:1234", []string{"198.51.100.1, unknown"}, trusted, "10.0.0.1"},
		"no address behind the second":    {"10.0.0.1:1234", []string{"x, 10.0.0.2"}, trusted, "10.0.0.2"},
		"empty":                           {"10.0.0.1:1234", []string{""}, trusted, "10.0.0.1"},
		"with a port":                     {"10.0.0.1:1234", []string{"198.51.100.1:5555"}, trusted, "198.51.100.1"},
		"IPv6":                            {"[2001:db8:1::1]:1234", []string{"2001:db8:9::7"}, trusted, "2001:db8:9::7"},
		"IPv6 in brackets":                {"10.0.0.1:1234", []string{"[2001:db8:9::7]"}, trusted, "2001:db8:9::7"},
		"IPv6 in brackets with a port":    {"10.0.0.1:1234", []string{"[2001:db8:9::7]:443"}, trusted, "2001:db8:9::7"},
		"IPv4 in IPv6":                    {"[::ffff:10.0.0.1]:1234", []string{"::ffff:198.51.100.1"}, trusted, "198.51.100.1"},
		"a zone":                          {"10.0.0.1:1234", []string{"fe80::1%eth0"}, trusted, "fe80::1"},
		"no peer address, such as a pipe": {"@", []string{"198.51.100.1"}, trusted, "invalid IP"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = c.peer
			r.Header["X-Forwarded-For"] = c.forwarded
			got := ""
			web.Behind(c.trusted, slog.New(slog.DiscardHandler), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got = web.Address(r).String()
			})).ServeHTTP(httptest.NewRecorder(), r)
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// An operator who forgot the setting is told once.
func TestBehindHints(t *testing.T) {
	var log strings.Builder
	h := web.Behind(nil, slog.New(slog.NewTextHandler(&log, nil)), http.NotFoundHandler())
	for _, peer := range []string{"203.0.113.9:1", "10.0.0.7:1", "10.0.0.8:1"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-For", "198.51.100.1")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "RUNBELL_TRUSTED_PROXIES") || !strings.Contains(got, "10.0.0.7") {
		t.Errorf("log %q", got)
	}
}
