package dispatch_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/dispatch"
	"runbell/internal/lifecycle"
	"runbell/internal/outbound"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// etiquette is how a receiver reacts to the first attempt, and the expected outcome. Every further attempt gets 200.
type etiquette struct {
	does   http.HandlerFunc
	class  webhook.Class
	status int
	took   time.Duration // the first attempt
	// The wait from the end of the first attempt to the second; 0 is none.
	soonest, latest time.Duration
	says            string // in the log
}

// ours is an outcome that is followed by the schedule's first wait.
func ours(class webhook.Class, status int, does http.HandlerFunc) etiquette {
	return etiquette{does: does, class: class, status: status, soonest: 4 * time.Second, latest: 6 * time.Second}
}

// theirs is one that is followed by a wait that the receiver chose.
func theirs(status int, retryAfter string, wait time.Duration) etiquette {
	return etiquette{does: answers(status, "Retry-After", retryAfter), class: webhook.BadStatus, status: status, soonest: wait, latest: wait}
}

func delivered(status int, does http.HandlerFunc) etiquette {
	return etiquette{does: does, class: webhook.OK, status: status}
}

func (e etiquette) after(took time.Duration) etiquette { e.took = took; return e }
func (e etiquette) saying(words string) etiquette      { e.says = words; return e }

func answers(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// raw responds with bytes, and then repeats more with pauses until the sender closes the connection. Without more it
// closes the connection itself.
func raw(first, more string, pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, first)
		for err == nil && more != "" {
			time.Sleep(pause)
			_, err = io.WriteString(conn, more)
		}
	}
}

// hangs until the sender closes the connection.
func hangs(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice
	<-r.Context().Done()
}

// TestEtiquette: what each response means, and when the next attempt begins.
func TestEtiquette(t *testing.T) {
	// Time in a bubble begins at this instant.
	date := func(after time.Duration) string {
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(after).Format(http.TimeFormat)
	}
	const filler = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	table := map[string]etiquette{
		"200":                             delivered(200, answers(200)),
		"201":                             delivered(201, answers(201)),
		"202":                             delivered(202, answers(202)),
		"204":                             delivered(204, answers(204)),
		"299":                             delivered(299, answers(299)),
		"300":                             ours(webhook.BadStatus, 300, answers(300)),
		"301":                             ours(webhook.BadStatus, 301, answers(301, "Location", "http://hook.test/")).saying("redirects are not followed"),
		"302":                             ours(webhook.BadStatus, 302, answers(302, "Location", "http://hook.test/")).saying("redirects are not followed"),
		"303":                             ours(webhook.BadStatus, 303, answers(303, "Location", "http://hook.test/")).saying("redirects are not followed"),
		"304":                             ours(webhook.BadStatus, 304, answers(304)),
		"307":                             ours(webhook.BadStatus, 307, answers(307, "Location", "http://hook.test/")).saying("redirects are not followed"),
		"308":                             ours(webhook.BadStatus, 308, answers(308, "Location", "http://hook.test/")).saying("change the URL"),
		"400":                             ours(webhook.BadStatus, 400, answers(400)).saying("responded with 400 Bad Request"),
		"401":                             ours(webhook.BadStatus, 401, answers(401, "WWW-Authenticate", "Basic")),
		"404":                             ours(webhook.BadStatus, 404, answers(404)),
		"408":                             ours(webhook.BadStatus, 408, answers(408)),
		"409":                             ours(webhook.BadStatus, 409, answers(409)),
		"410":                             {does: answers(410), class: webhook.BadStatus, status: 410},
		"413":                             ours(webhook.BadStatus, 413, answers(413)),
		"425":                             ours(webhook.BadStatus, 425, answers(425)),
		"429":                             ours(webhook.BadStatus, 429, answers(429)),
		"500":                             ours(webhook.BadStatus, 500, answers(500)),
		"503":                             ours(webhook.BadStatus, 503, answers(503)),
		"599":                             ours(webhook.BadStatus, 599, answers(599)),
		"999":                             ours(webhook.BadStatus, 999, answers(999)),
		"500 may not name a time":         ours(webhook.BadStatus, 500, answers(500, "Retry-After", "120")),
		"302 may not name a time":         ours(webhook.BadStatus, 302, answers(302, "Retry-After", "120")),
		"429 in seconds":                  theirs(429, "120", 2*time.Minute),
		"503 in seconds":                  theirs(503, " 120 ", 2*time.Minute),
		"429 in less than our wait":       ours(webhook.BadStatus, 429, answers(429, "Retry-After", "1")),
		"503 at once":                     ours(webhook.BadStatus, 503, answers(503, "Retry-After", "0")),
		"429 by date":                     theirs(429, date(90*time.Second), 90*time.Second),
		"503 by date":                     theirs(503, date(90*time.Second), 90*time.Second),
		"429 by date of asctime":          theirs(429, time.Date(2000, 1, 1, 0, 1, 30, 0, time.UTC).Format(time.ANSIC), 90*time.Second),
		"503 by a date in the past":       ours(webhook.BadStatus, 503, answers(503, "Retry-After", date(-time.Hour))),
		"429 by a date far away":          theirs(429, date(9*24*time.Hour), time.Hour),
		"429 for a day":                   theirs(429, "86400", time.Hour),
		"503 for longer than numbers are": theirs(503, "99999999999999999999", time.Hour),
		"429 soon":                        ours(webhook.BadStatus, 429, answers(429, "Retry-After", "soon")),
		"503 with a fraction":             ours(webhook.BadStatus, 503, answers(503, "Retry-After", "120.5")),
		"503 of less than nothing":        ours(webhook.BadStatus, 503, answers(503, "Retry-After", "-120")),
		"429 of much less than nothing":   ours(webhook.BadStatus, 429, answers(429, "Retry-After", "-99999999999999999999")),
		"429 with an empty time":          ours(webhook.BadStatus, 429, answers(429, "Retry-After", "")),

		"never answers":                ours(webhook.Timeout, 0, hangs).after(10 * time.Second).saying("within the timeout"),
		"a byte a second":              ours(webhook.Timeout, 200, raw("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", "x", time.Second)).after(10 * time.Second),
		"headers a byte a second":      ours(webhook.Timeout, 0, raw("HTTP/1.1 200 OK\r\nX-Slow: ", "x", time.Second)).after(10 * time.Second),
		"a slow answer that makes it":  delivered(200, func(w http.ResponseWriter, _ *http.Request) { time.Sleep(9 * time.Second) }).after(9 * time.Second),
		"closes without an answer":     ours(webhook.Reset, 0, raw("", "", 0)).saying("broke before the response was complete"),
		"closes within the headers":    ours(webhook.Reset, 0, raw("HTTP/1.1 200 OK\r\nX-Half: ", "", 0)),
		"closes within the body":       ours(webhook.Reset, 200, raw("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nhalf", "", 0)),
		"closes within a chunk":        ours(webhook.Reset, 200, raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", "", 0)),
		"endless headers":              ours(webhook.OtherError, 0, raw("HTTP/1.1 200 OK\r\n", "X-More: "+filler+"\r\n", 0)).saying("headers of the response are longer than 64 KB"),
		"an endless header":            ours(webhook.OtherError, 0, raw("HTTP/1.1 200 OK\r\nX-More: ", filler, 0)).saying("longer than 64 KB"),
		"headers over the limit":       ours(webhook.OtherError, 0, answers(200, "X-Huge", strings.Repeat("x", 65<<10))).saying("longer than 64 KB"),
		"headers below the limit":      delivered(200, answers(200, "X-Large", strings.Repeat("x", 60<<10))),
		"an endless body":              delivered(200, raw("HTTP/1.1 200 OK\r\n\r\n", filler, 0)),
		"an endless body in chunks":    delivered(200, raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "40\r\n"+filler+"\r\n", 0)),
		"an endless body of a failure": ours(webhook.BadStatus, 500, raw("HTTP/1.1 500 Oops\r\n\r\n", filler, 0)).saying("responded with 500 Oops"),
		"hints before the answer":      delivered(200, raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 0)),
		"hints without end":            ours(webhook.OtherError, 0, raw("", "HTTP/1.1 102 Processing\r\n\r\n", 0)).saying("too many interim responses"),
		"hints a second":               ours(webhook.OtherError, 0, raw("", "HTTP/1.1 102 Processing\r\n\r\n", time.Second)).after(5 * time.Second),
		"101":                          ours(webhook.BadStatus, 101, raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "", 0)),
		"HTTP/1.0":                     delivered(200, raw("HTTP/1.0 200 OK\r\n\r\nfine", "", 0)),
		"HTTP/1.0 that failed":         ours(webhook.BadStatus, 503, raw("HTTP/1.0 503 Busy\r\n\r\n", "", 0)),
		"an answer to the end":         delivered(200, raw("HTTP/1.1 200 OK\r\n\r\nfine", "", 0)),
		"no HTTP":                      ours(webhook.OtherError, 0, raw("SSH-2.0-OpenSSH_9.6\r\n", "", 0)).saying("malformed HTTP"),
		"HTTP/2":                       ours(webhook.OtherError, 0, raw("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x10\x00\x00\r\n", "", 0)).saying("malformed HTTP"),
		"a status that is no number":   ours(webhook.OtherError, 0, raw("HTTP/1.1 fine\r\n\r\n", "", 0)),
		"two lengths":                  ours(webhook.OtherError, 0, raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "", 0)),
	}
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		for name, row := range table {
			host := strings.ToLower(strings.NewReplacer(" ", "-", "/", "-", ".", "-").Replace(name)) + ".test"
			var calls atomic.Int64
			w.network.Serve(t, host+":80", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if calls.Add(1) == 1 {
					row.does(rw, r)
				}
			}))
			w.hook(name, "http://"+host+"/x", nil)
		}
		w.hook("nobody is there", "http://nobody.test/", nil)
		table["nobody is there"] = etiquette{class: webhook.RefusedTCP, soonest: 4 * time.Second, latest: 6 * time.Second, says: "nothing listens"}
		w.start()
		w.join("b1")
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		for name, want := range table {
			w.holds(t, name, want)
		}
		if calls := w.all(); len(calls) != 1 {
			t.Errorf("the endpoint beside them got %d requests, want 1: a redirect was followed", len(calls))
		}
		if e := w.settings("410"); e.Enabled || !strings.Contains(e.DisabledReason, "410") {
			t.Errorf("after 410 the endpoint is enabled: %v, %q", e.Enabled, e.DisabledReason)
		}
	})
}

// holds compares the log of an endpoint with the expected outcome of its first attempt.
func (w *world) holds(t *testing.T, name string, want etiquette) {
	t.Helper()
	list, log := w.log(name)
	if len(list) == 0 || len(log[0]) == 0 {
		t.Errorf("%s: no attempt", name)
		return
	}
	d, attempts := list[0], log[0]
	a := attempts[0]
	ended := a.StartedAt.Add(a.Duration)
	if a.Class != want.class || a.Status != want.status || a.Duration != want.took || !strings.Contains(a.Error, want.says) || (a.Class == webhook.OK) != (a.Error == "") {
		t.Errorf("%s: %s, status %d, after %s: %q\nwant %s, status %d, after %s: %q", name, a.Class, a.Status, a.Duration, a.Error, want.class, want.status, want.took, want.says)
	}
	if len(a.ResponseBody) > 8<<10 {
		t.Errorf("%s: the log has %d bytes of the answer", name, len(a.ResponseBody))
	}
	switch {
	case want.latest > 0 && want.class != webhook.RefusedTCP:
		if len(attempts) != 2 || d.State != webhook.Delivered {
			t.Errorf("%s: %d attempts, %s; want a second one that delivers", name, len(attempts), d.State)
			return
		}
	case want.latest > 0:
		if len(attempts) < 2 || d.State != webhook.Waiting {
			t.Errorf("%s: %d attempts, %s; want more to come", name, len(attempts), d.State)
			return
		}
	case len(attempts) != 1 || (want.class == webhook.OK) != (d.State == webhook.Delivered):
		t.Errorf("%s: %d attempts, %s; want one", name, len(attempts), d.State)
		return
	default:
		return
	}
	if wait := attempts[1].StartedAt.Sub(ended); wait < want.soonest || wait > want.latest {
		t.Errorf("%s: the second attempt came after %s, want %s to %s", name, wait, want.soonest, want.latest)
	}
}

// TestEtiquetteOfSockets: cases that depend on the kernel, TLS and names. The log says what went wrong and what to
// do.
func TestEtiquetteOfSockets(t *testing.T) {
	t.Parallel()
	db := testkit.SQLite(t)
	poster := outbound.NewGuard(loopback()).Poster(outbound.Options{Timeout: 3 * time.Second})
	engine := dispatch.New(dispatch.Options{DB: db, Poster: poster, Version: "test", Log: slog.New(slog.DiscardHandler)}) // no schedule: one attempt
	w := &world{t: t, db: db, engine: engine, runs: lifecycle.New(db, "http://runbell.test", engine.Kick)}
	testkit.Project(t, w.db, "shop")

	foreign := httptest.NewUnstartedServer(http.NotFoundHandler())
	foreign.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // it complains of us, too
	foreign.StartTLS()
	t.Cleanup(foreign.Close)
	old := listen(t, func(c net.Conn) {
		_ = tls.Server(c, &tls.Config{Certificates: foreign.TLS.Certificates, MaxVersion: tls.VersionTLS11}).Handshake() //nolint:gosec // what is refused
	})
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	closed := httptest.NewServer(nil)
	closed.Close()
	table := map[string]struct {
		url    string
		class  webhook.Class
		status int
		says   string
	}{
		"nothing listens":      {closed.URL, webhook.RefusedTCP, 0, "connection refused"},
		"never answers":        {"http://" + listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), webhook.Timeout, 0, "within the timeout"},
		"never shakes hands":   {"https://" + listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), webhook.Timeout, 0, "within the timeout"},
		"resets at once":       {"http://" + listen(t, reset), webhook.Reset, 0, "broke"},
		"resets after reading": {"http://" + listen(t, func(c net.Conn) { _, _ = request(c); reset(c) }), webhook.Reset, 0, "broke"},
		"resets within the body": {"http://" + listen(t, func(c net.Conn) {
			_, _ = request(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
			_, _ = io.WriteString(c, "x")
			reset(c)
		}), webhook.Reset, 200, "broke"},
		"resets within TLS":       {"https://" + listen(t, reset), webhook.Reset, 0, "broke"},
		"an unknown authority":    {foreign.URL, webhook.TLS, 0, "RUNBELL_WEBHOOK_CA_FILE"},
		"a TLS of long ago":       {"https://" + old, webhook.TLS, 0, "version"},
		"plain HTTP behind https": {strings.Replace(plain.URL, "http:", "https:", 1), webhook.TLS, 0, "does not look like a TLS handshake"},
		"TLS behind plain HTTP":   {strings.Replace(foreign.URL, "https:", "http:", 1), webhook.BadStatus, 400, "responded with 400"},
		"a private address":       {"http://10.0.0.1:9/", webhook.Blocked, 0, "RUNBELL_WEBHOOK_ALLOW"},
		"a name without address":  {"http://nowhere.invalid/", webhook.DNS, 0, "nowhere.invalid"},
		"an early refusal":        {"http://" + listen(t, early("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")), webhook.BadStatus, 413, "responded with 413"},
		"an early success":        {"http://" + listen(t, early("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), webhook.OK, 200, ""},
	}
	for name, row := range table {
		w.hook(name, row.url, nil)
	}
	w.start()
	w.join("b1")
	for name, want := range table {
		_, attempts := w.ended(name, 1)
		if a := attempts[0][0]; a.Class != want.class || a.Status != want.status || !strings.Contains(a.Error, want.says) {
			t.Errorf("%s: %s, status %d, %q; want %s, status %d, %q", name, a.Class, a.Status, a.Error, want.class, want.status, want.says)
		}
	}
}

// TestAnIdleConnectionIsClosed by the receiver: that is no failed attempt, the
// request goes over a new connection.
func TestAnIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	for name, hangUp := range map[string]func(net.Conn){"closed": func(c net.Conn) { _ = c.Close() }, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testkit.SQLite(t)
			poster := outbound.NewGuard(loopback()).Poster(outbound.Options{Timeout: 10 * time.Second})
			engine := dispatch.New(dispatch.Options{DB: db, Poster: poster, Version: "test", Log: slog.New(slog.DiscardHandler)})
			w := &world{t: t, db: db, engine: engine, runs: lifecycle.New(db, "http://runbell.test", engine.Kick)}
			testkit.Project(t, w.db, "shop")
			var connections atomic.Int64
			recorded, over := make(chan struct{}), make(chan struct{})
			t.Cleanup(func() { close(over) })
			w.hook("hook", "http://"+listen(t, func(c net.Conn) {
				connections.Add(1)
				if _, err := request(c); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				select {
				case recorded <- struct{}{}: // the first one
				case <-over:
					return
				}
				hangUp(c)
				recorded <- struct{}{}
			}), nil)
			w.start()
			w.join("b1")
			<-recorded
			w.ended("hook", 1)
			<-recorded
			w.join("b2")
			list, attempts := w.ended("hook", 2)
			for i, d := range list {
				if d.State != webhook.Delivered || len(attempts[i]) != 1 || attempts[i][0].Class != webhook.OK {
					t.Errorf("delivery %d is %s after %+v", i+1, d.State, attempts[i])
				}
			}
			if n := connections.Load(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
		})
	}
}

// ended waits until n deliveries of an endpoint are over.
func (w *world) ended(endpointID string, n int) ([]webhook.Delivery, [][]webhook.Attempt) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 6000 {
		list, attempts := w.log(endpointID)
		over := 0
		for _, d := range list {
			if d.State != webhook.Waiting {
				over++
			}
		}
		if over == n {
			return list, attempts
		}
		<-tick.C
	}
	w.t.Fatalf("the deliveries to %s do not end", endpointID)
	return nil, nil
}

// listen serves connections on a real socket until the test ends, and answers
// its address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// request reads one.
func request(c net.Conn) (body []byte, err error) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Body.Close() }()
	return io.ReadAll(r.Body)
}

// early responds before it has read the request, and closes: the kernel then sends RST.
func early(answer string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_, _ = io.WriteString(c, answer)
	}
}

// reset ends a connection with RST.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}
