package outbound_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/outbound"
)

// line is a way to a receiver on this machine, as the engine has one.
func line(t testing.TB, url string, o outbound.Options) *outbound.Line {
	t.Helper()
	target, err := outbound.NewTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	l := outbound.NewGuard(networks(t, "127.0.0.0/8", "::1/128")).Poster(o).Line(target)
	t.Cleanup(l.Close)
	return l
}

// send posts one webhook.
func send(l *outbound.Line) (outbound.Answer, error) {
	l.Reset()
	l.Header("Content-Type", "application/json")
	return l.Post([]byte(`{"event":"RUN_START"}`))
}

// What is sent is the URL, in a form that every receiver can read, and nothing
// that was not asked for: no offer to compress the answer, for example.
func TestTheRequest(t *testing.T) {
	t.Parallel()
	type request struct{ line, host, headers, body string }
	got := make(chan request, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var names []string
		for name := range r.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		got <- request{r.Method + " " + r.RequestURI + " " + r.Proto, r.Host, strings.Join(names, " "), string(body)}
	}))
	t.Cleanup(s.Close)
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	lies := resolver(t, map[string][]string{"hooks.example": {"127.0.0.1"}, "xn--bcher-kva.example": {"127.0.0.1"}})
	for url, want := range map[string]struct{ uri, host string }{
		"http://127.0.0.1" + port:                       {"/", "127.0.0.1" + port},
		"http://127.0.0.1" + port + "/a/b?c=d&e":        {"/a/b?c=d&e", "127.0.0.1" + port},
		"http://127.0.0.1" + port + "/?":                {"/?", "127.0.0.1" + port},
		"http://127.0.0.1" + port + "?c=d":              {"/?c=d", "127.0.0.1" + port},
		"http://127.0.0.1" + port + "/%2f/a%20b/../c;d": {"/%2f/a%20b/../c;d", "127.0.0.1" + port},
		"http://127.0.0.1" + port + "/grün und blau":    {"/gr%C3%BCn%20und%20blau", "127.0.0.1" + port},
		"http://127.0.0.1" + port + "/?q=grün und blau": {"/?q=gr%C3%BCn%20und%20blau", "127.0.0.1" + port},
		"http://hooks.example" + port + "/":             {"/", "hooks.example" + port},
		"http://HOOKS.example" + port + "/":             {"/", "hooks.example" + port},
		"http://bücher.example" + port + "/":            {"/", "xn--bcher-kva.example" + port},
	} {
		a, err := send(line(t, url, outbound.Options{Timeout: 5 * time.Second, Resolver: lies}))
		if err != nil || a.Status != 200 {
			t.Errorf("%s: %d, %v", url, a.Status, err)
			continue
		}
		if r, want := <-got, (request{"POST " + want.uri + " HTTP/1.1", want.host, "Content-Length Content-Type", `{"event":"RUN_START"}`}); r != want {
			t.Errorf("%s: sent as %+v, want %+v", url, r, want)
		}
	}
	for _, url := range []string{"", "/", "ftp://hooks.example/", "http://", "http://exa<mple/", "http://a..b/", "http://[::1/", "http://hooks.example/\r\nX: y", "http://hooks.example:port/"} {
		if _, err := outbound.NewTarget(url); err == nil {
			t.Errorf("%q is a target", url)
		}
	}
}
