package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"runbell/internal/config"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// logged is what a server has logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// lines are those of a level.
func (l *logged) lines(level slog.Level) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, "level="+level.String()) {
			out = append(out, line)
		}
	}
	return out
}

// start starts a server on a database until the test ends.
func start(t *testing.T, databaseURL string, change func(*config.Serve)) (*Server, *logged) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, log, err := tryStart(ctx, t, databaseURL, change)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
	})
	return s, log
}

// tryStart starts a server, which may fail.
func tryStart(ctx context.Context, t *testing.T, databaseURL string, change func(*config.Serve)) (*Server, *logged, error) {
	t.Helper()
	cfg := config.Serve{
		Database: config.Database{DataDir: t.TempDir(), DatabaseURL: databaseURL},
		Addr:     "127.0.0.1:0", PublicURL: config.DefaultPublicURL, Recording: "keys",
		Storage:        config.Storage{ArtifactMax: 2 << 30},
		WebhookTimeout: 10 * time.Second, WebhookRetries: "5s", LogLevel: "info", LogFormat: "text",
	}
	if change != nil {
		change(&cfg)
	}
	log := &logged{}
	s, err := Start(ctx, cfg, "v0-test", cfg.Logger(log))
	return s, log, err
}

// TestAnotherSecretKeyIsRefused: two servers with different keys would not know each other's
// reporters, even where no webhook has a secret yet.
func TestAnotherSecretKeyIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, databaseURL string) {
		dir := t.TempDir() // with the key that the first start makes
		withKey := func(c *config.Serve) { c.DataDir = dir }
		t.Run("the first start", func(t *testing.T) { start(t, databaseURL, withKey) })
		_, _, err := tryStart(t.Context(), t, databaseURL, nil)
		if !errors.Is(err, webhook.ErrSealed) || !strings.Contains(err.Error(), "RUNBELL_SECRET_KEY") {
			t.Errorf("with another key: %v", err)
		}
		t.Run("again", func(t *testing.T) { start(t, databaseURL, withKey) })
	})
}

// fetch is a request and its whole answer. Redirects are not followed.
func fetch(t *testing.T, method, address string, header http.Header) (fetched, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fetched{resp.StatusCode, resp.Header}, string(body)
}

// fetched is a response whose body has been read.
type fetched struct {
	StatusCode int
	Header     http.Header
}

// onEach runs a test on a new database of each kind.
func onEach(t *testing.T, f func(t *testing.T, databaseURL string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, testkit.MigratedFile(t, t.TempDir())) })
	t.Run("postgres", func(t *testing.T) { f(t, testkit.Migrated(t)) })
}

func TestMetricsAskForTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	s, _ := start(t, "", func(c *config.Serve) { c.MetricsToken = token })
	for authorization, want := range map[string]int{
		"":                      401,
		"Bearer":                401,
		"Bearer ":               401,
		"Bearer 0123456789":     401,
		"Basic " + token:        401,
		token:                   401,
		"Bearer " + token + "x": 401,
		"Bearer " + token:       200,
		"bearer " + token:       200,
	} {
		header := http.Header{}
		if authorization != "" {
			header.Set("Authorization", authorization)
		}
		resp, body := fetch(t, "GET", s.URL()+"/metrics", header)
		if resp.StatusCode != want || strings.Contains(body, "runbell_build_info") != (want == 200) {
			t.Errorf("with %q: %d, want %d", authorization, resp.StatusCode, want)
		}
		if want == 401 && (resp.Header.Get("WWW-Authenticate") != "Bearer" || strings.Contains(body, token)) {
			t.Errorf("with %q: %v %s", authorization, resp.Header, body)
		}
	}
	open, _ := start(t, "", nil)
	if resp, body := fetch(t, "GET", open.URL()+"/metrics", http.Header{}); resp.StatusCode != 200 || !strings.Contains(body, "runbell_webhook_deliveries") {
		t.Errorf("without a token: %d", resp.StatusCode)
	}
}

// A scrape costs the database nothing while the numbers of the last one are fresh.
func TestScrapesShareALook(t *testing.T) {
	s, _ := start(t, "", nil)
	count := func() string {
		_, body := fetch(t, "GET", s.URL()+"/metrics", http.Header{})
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "go_gc_cycles") || strings.HasPrefix(line, "process_cpu_seconds_total") {
				return line
			}
		}
		t.Fatal("no metric that changes")
		return ""
	}
	first := count()
	var scrapes sync.WaitGroup
	for range 8 {
		scrapes.Go(func() {
			for range 25 {
				if again := count(); again != first {
					t.Errorf("gathered again: %s, then %s", first, again)
					return
				}
			}
		})
	}
	scrapes.Wait()
}

func TestEveryAnswerForbidsGuessing(t *testing.T) {
	s, _ := start(t, "", func(c *config.Serve) { c.MetricsToken = "0123456789abcdef" })
	for _, r := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/healthz", 200}, {"POST", "/healthz", 405}, {"GET", "/readyz", 200}, {"GET", "/metrics", 401},
		{"GET", "/", 303}, {"GET", "/signin", 200}, {"GET", "/none", 404}, {"PUT", "/signin", 405}, {"POST", "/signin", 401},
		{"GET", "/static/none", 404}, {"GET", "/run//x", 307}, {"GET", "/v1/none", 404}, {"GET", "/v1/openapi.json", 200},
		{"POST", "/runs", 400}, {"PATCH", "/runs", 405}, {"GET", "/v1/projects", 401},
	} {
		resp, _ := fetch(t, r.method, s.URL()+r.path, http.Header{})
		if resp.StatusCode != r.want || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: %d, want %d, %v", r.method, r.path, resp.StatusCode, r.want, resp.Header)
		}
	}
	req := &http.Request{Method: "OPTIONS", Host: "h", URL: &url.URL{Scheme: "http", Host: s.listener.Addr().String(), Opaque: "*"}, Header: http.Header{}}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("OPTIONS *: %d %v", resp.StatusCode, resp.Header)
	}
}

// eventually is for what a server notices at its next look.
func eventually(t *testing.T, address string, want int, text string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		resp, body := fetch(t, "GET", address, http.Header{})
		if resp.StatusCode == want && strings.Contains(body, text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: still %d %s", address, resp.StatusCode, body)
		}
	}
}

func TestReadyAsksForAWrite(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		s, log := start(t, testkit.MigratedFile(t, dir), nil)
		eventually(t, s.URL()+"/readyz", 200, "ready")
		// Where the file for the room should be, there is something that no file fits into.
		room := filepath.Join(dir, "runbell.db.room")
		if err := os.MkdirAll(filepath.Join(room, "below"), 0o700); err != nil {
			t.Fatal(err)
		}
		eventually(t, s.URL()+"/readyz", 503, "accepts no writes")
		if resp, _ := fetch(t, "GET", s.URL()+"/healthz", http.Header{}); resp.StatusCode != 200 {
			t.Errorf("/healthz: %d", resp.StatusCode)
		}
		if err := os.RemoveAll(room); err != nil {
			t.Fatal(err)
		}
		eventually(t, s.URL()+"/readyz", 200, "ready")
		if _, err := os.Stat(room); !os.IsNotExist(err) {
			t.Errorf("the probe left its file: %v", err)
		}
		if lines := log.lines(slog.LevelError); len(lines) != 1 || !strings.Contains(lines[0], "no room for 1 MiB") {
			t.Errorf("the log has %q", lines)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		cluster := testkit.PostgresCluster(t)
		s, _ := start(t, cluster.Database(t), nil)
		eventually(t, s.URL()+"/readyz", 200, "ready")
		cluster.Stop(t)
		eventually(t, s.URL()+"/readyz", 503, "accepts no writes")
		// Metrics that do not need the database are still there.
		if resp, body := fetch(t, "GET", s.URL()+"/metrics", http.Header{}); resp.StatusCode != 200 || !strings.Contains(body, "go_goroutines") {
			t.Errorf("/metrics: %d %s", resp.StatusCode, body)
		}
		cluster.Start(t)
		eventually(t, s.URL()+"/readyz", 200, "ready")
	})
}
