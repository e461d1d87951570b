package outbound_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runbell/internal/outbound"
)

// What an attacker writes into the field of a URL: each host leads to the
// machine itself, to its network or to a service of its cloud. None may be
// called, whatever the name server says.
//
// created is what the refusal at creation says, "" if nobody can know yet. Then,
// and if such a URL is stored all the same, connecting fails.
var refused = []struct{ host, created, answers string }{
	// Addresses as they are written.
	{"127.0.0.1", "127.0.0.1", ""},
	{"127.0.0.2", "127.0.0.2", ""},
	{"127.255.255.254", "127.255.255.254", ""},
	{"127.0.0.1.", "127.0.0.1", ""},
	{"0.0.0.0", "0.0.0.0", ""},
	{"0.0.0.1", "0.0.0.1", ""},
	{"10.0.0.1", "10.0.0.1", ""},
	{"172.16.0.1", "172.16.0.1", ""},
	{"172.31.255.255", "172.31.255.255", ""},
	{"192.168.1.1", "192.168.1.1", ""},
	{"169.254.169.254", "169.254.169.254", ""}, // metadata of AWS, Google, Azure and others
	{"169.254.170.2", "169.254.170.2", ""},     // credentials of a container on AWS
	{"168.63.129.16", "168.63.129.16", ""},     // Azure's host
	{"100.64.0.1", "100.64.0.1", ""},           // carrier-grade NAT
	{"100.100.100.200", "100.100.100.200", ""}, // metadata of Alibaba
	{"192.0.0.192", "192.0.0.192", ""},         // metadata of Oracle
	{"192.0.2.1", "192.0.2.1", ""},
	{"198.18.0.1", "198.18.0.1", ""},
	{"198.51.100.1", "198.51.100.1", ""},
	{"203.0.113.1", "203.0.113.1", ""},
	{"192.88.99.1", "192.88.99.1", ""},
	{"224.0.0.1", "224.0.0.1", ""},
	{"239.255.255.250", "239.255.255.250", ""},
	{"240.0.0.1", "240.0.0.1", ""},
	{"255.255.255.255", "255.255.255.255", ""},
	{"[::1]", "::1", ""},
	{"[::]", "::", ""},
	{"[0:0:0:0:0:0:0:1]", "::1", ""},
	{"[::ffff:127.0.0.1]", "127.0.0.1", ""},
	{"[::ffff:7f00:1]", "127.0.0.1", ""},
	{"[::ffff:169.254.169.254]", "169.254.169.254", ""},
	{"[0:0:0:0:0:ffff:10.0.0.1]", "10.0.0.1", ""},
	{"[::127.0.0.1]", "::7f00:1", ""}, // compatible
	{"[::ffff:0:127.0.0.1]", "::ffff:0:", ""},
	{"[64:ff9b::127.0.0.1]", "64:ff9b::", ""},
	{"[64:ff9b::a9fe:a9fe]", "64:ff9b::", ""},
	{"[64:ff9b:1::10.0.0.1]", "64:ff9b:1::", ""},
	{"[2002:7f00:1::]", "2002:7f00:1::", ""},
	{"[2002:a9fe:a9fe::1]", "2002:a9fe:a9fe::1", ""},
	{"[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "2001:0:", ""},
	{"[fc00::1]", "fc00::1", ""},
	{"[fd00:ec2::254]", "fd00:ec2::254", ""}, // metadata of AWS
	{"[fd20:ce::254]", "fd20:ce::254", ""},   // metadata of Google
	{"[fe80::1]", "fe80::1", ""},
	{"[fe80::1%25lo]", "fe80::1", ""},
	{"[::1%25lo]", "::1", ""},
	{"[2606:4700:4700::1111%25lo]", "2606:4700", ""},
	{"[fec0::1]", "fec0::1", ""},
	{"[ff02::1]", "ff02::1", ""},
	{"[2001:db8::1]", "2001:db8::1", ""},
	{"[100::1]", "100::1", ""},
	{"[5f00::1]", "5f00::1", ""},

	// Numbers that some programs read as 127.0.0.1 or 169.254.169.254.
	{"127.1", "four decimal numbers", ""},
	{"127.0.1", "four decimal numbers", ""},
	{"0", "four decimal numbers", ""},
	{"2130706433", "four decimal numbers", ""},
	{"0x7f000001", "four decimal numbers", ""},
	{"0x7f.1", "four decimal numbers", ""},
	{"0X7F.0.0.1", "four decimal numbers", ""},
	{"0177.0.0.1", "four decimal numbers", ""},
	{"017700000001", "four decimal numbers", ""},
	{"127.0.0.01", "four decimal numbers", ""},
	{"127.0.0.0x1", "four decimal numbers", ""},
	{"127.0.0.1.1", "four decimal numbers", ""},
	{"127.0.0.256", "four decimal numbers", ""},
	{"2852039166", "four decimal numbers", ""},
	{"1.1.1.1.", "four decimal numbers", ""},
	{"１２７.０.０.１", "127.0.0.1", ""},
	{"127。0。0。1", "127.0.0.1", ""},
	{"①②⑦.⓪.⓪.①", "127.0.0.1", ""},
	{"%E2%91%A0%E2%91%A1%E2%91%A6.0.0.1", "127.0.0.1", ""},

	// Names of this machine, in scripts that become its name.
	{"localhost", "localhost", ""},
	{"LOCALHOST.", "localhost", ""},
	{"any.thing.localhost", "localhost", ""},
	{"ｌｏｃａｌｈｏｓｔ", "localhost", ""},
	{"ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "localhost", ""},
	{"local\u00adhost", "localhost", ""},

	// Hosts that cannot be.
	{"exam%00ple.com", "complete URL", ""},
	{"127.0.0.1%2f@example.com", "user or password", ""},
	{"example.com%2f.internal", "complete URL", ""},
	{"a..example", "can exist", ""},
	{".example", "can exist", ""},
	{"-a.example", "can exist", ""},
	{"exa<mple.example", "can exist", ""},
	{"exa'mple.example", "can exist", ""},
	{"*.example", "can exist", ""},
	{strings.Repeat("a", 64) + ".example", "can exist", ""},
	{strings.Repeat("a.", 127) + "example", "can exist", ""},
	{"xn--\u00e4.example", "can exist", ""},

	// Names: only connecting shows where they lead.
	{"loopback.example", "", "127.0.0.1"},
	{"LOOPBACK.example.", "", "127.0.0.1"},
	{"127.0.0.1.nip.example", "", "127.0.0.1"},
	{"everywhere.example", "", "0.0.0.0"},
	{"inside.example", "", "10.1.2.3"},
	{"router.example", "", "192.168.0.1"},
	{"metadata.google.internal", "", "169.254.169.254"},
	{"instance-data.ec2.internal", "", "fd00:ec2::254"},
	{"six.example", "", "::1"},
	{"mapped.example", "", "::ffff:127.0.0.1"},
	{"nat64.example", "", "64:ff9b::7f00:1"},
	{"both.example", "", "10.0.0.1 fd00::1"},
	{"many.example", "", "10.0.0.1 10.0.0.2 169.254.169.254 ::1 fe80::1"},
	{"bücher.example", "", "127.0.0.1"},
	{"under_score.example", "", "127.0.0.1"},
	{"localhost.example", "", "127.0.0.1"},
	{"0x7f.example", "", "127.0.0.1"},
}

func TestNobodyComesIntoTheNetwork(t *testing.T) {
	if len(refused) < 60 {
		t.Fatalf("%d hosts", len(refused))
	}
	var reached, asked atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string][]string{}
	for _, c := range refused {
		name := strings.ToLower(strings.TrimSuffix(c.host, "."))
		answers[strings.ReplaceAll(name, "bücher", "xn--bcher-kva")] = []string{c.answers}
	}
	proxy := newProxy(t, s.Listener.Addr().String(), func(string) int { asked.Store(true); return 200 })
	guard, lies := outbound.NewGuard(nil), resolver(t, answers)
	posters := map[string]*outbound.Poster{
		"directly":        guard.Poster(outbound.Options{Timeout: 5 * time.Second, Resolver: lies}),
		"through a proxy": guard.Poster(outbound.Options{Timeout: 5 * time.Second, Resolver: lies, Proxy: proxy}),
	}
	for _, c := range refused {
		url := "http://" + c.host + ":" + port + "/"
		switch err := guard.CheckURL(url); {
		case c.created == "" && err != nil:
			t.Errorf("%s is refused when it is created: %v", c.host, err)
		case c.created != "" && (err == nil || !strings.Contains(err.Error(), c.created)):
			t.Errorf("%s: %v, want an error at creation that says %q", c.host, err, c.created)
		}
		for how, poster := range posters {
			target, err := outbound.NewTarget(url)
			if err == nil {
				_, err = send(poster.Line(target))
			}
			// What is not an address, or known to no name server, cannot be connected to.
			if err == nil || c.answers != "" && !errors.Is(err, outbound.ErrBlocked) {
				t.Errorf("%s %s: %v, want ErrBlocked in its chain", c.host, how, err)
			}
			if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() && !errors.Is(err, outbound.ErrBlocked) {
				t.Errorf("%s %s: somebody was called: %v", c.host, how, err)
			}
		}
	}
	if reached.Load() || asked.Load() {
		t.Errorf("a request arrived: %v; the proxy was asked: %v", reached.Load(), asked.Load())
	}
}

// A name that was fine when the webhook was created, and at the attempt before,
// leads to the machine itself now.
func TestANameThatChangesGainsNothing(t *testing.T) {
	const public, private = "127.0.0.2", "127.0.0.1" // public in so far as it is allowed
	var reached atomic.Int32
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	victim := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the private address was called") }))
	t.Cleanup(victim.Close)
	_, port, err := net.SplitHostPort(victim.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	receiver := httptest.NewUnstartedServer(handler)
	if receiver.Listener, err = net.Listen("tcp", net.JoinHostPort(public, port)); err != nil {
		t.Fatal(err)
	}
	receiver.Start()
	t.Cleanup(receiver.Close)
	guard := outbound.NewGuard(networks(t, public+"/32"))
	url := "http://rebind.example:" + port + "/"
	if err := guard.CheckURL(url); err != nil {
		t.Fatal(err)
	}
	target, err := outbound.NewTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	l := guard.Poster(outbound.Options{Timeout: 5 * time.Second, Resolver: resolver(t, map[string][]string{
		"rebind.example": {public, private, private + " " + public},
	})}).Line(target)
	defer l.Close()
	if a, err := send(l); a.Status != 200 || err != nil {
		t.Fatalf("while it is public: %d, %v", a.Status, err)
	}
	// A connection that is kept goes where it went when it was checked.
	if a, err := send(l); a.Status != 200 || err != nil || reached.Load() != 2 {
		t.Errorf("on the kept connection: %d, %v, %d requests", a.Status, err, reached.Load())
	}
	l.Close()
	if _, err := send(l); !errors.Is(err, outbound.ErrBlocked) {
		t.Errorf("when it is private: %v", err)
	}
	// With both, the one that may be called is.
	if a, err := send(l); a.Status != 200 || err != nil || reached.Load() != 3 {
		t.Errorf("when it is both: %d, %v, %d requests", a.Status, err, reached.Load())
	}
}
