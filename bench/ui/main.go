// Command ui measures how long the pages of the dashboard take and how large
// they are, with a year of runs in the database: 100,000 runs of 2,000 specs,
// with 10,000,000 test results, and one run of 2,000 specs. The server is the built binary on
// SQLite; the times are those of whole requests over loopback, one at a time.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"runbell/internal/run"
	"runbell/internal/store"
)

func main() {
	runs := flag.Int("runs", 100_000, "how many runs are in the database")
	data := flag.String("data", "",
		"where the database is kept, and made if it is not there; without it, it is removed at the end")
	requests := flag.Int("requests", 200, "how many times each page is asked for")
	flag.Parse()
	if err := measure(context.Background(), *data, *runs, *requests); err != nil {
		fmt.Fprintln(os.Stderr, "ui:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, data string, runs, requests int) error {
	dir, err := os.MkdirTemp(".", ".bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if data == "" {
		data = filepath.Join(dir, "data")
	}
	if _, err := os.Stat(filepath.Join(data, "runbell.db")); err != nil {
		if err := generate(ctx, data, runs); err != nil {
			return fmt.Errorf("generate: %w", err)
		}
	}
	binary := filepath.Join(dir, "runbell")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/runbell")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(data, "runbell.db"))
	if err != nil {
		return err
	}
	s, err := start(binary, data)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := s.counted(); err != nil {
		return err
	}

	fmt.Printf("%d runs, %d test results, %.1f GB\n\n", runs, (runs*specsPerRun+largest)*testsPer,
		float64(info.Size())/1e9)
	fmt.Printf("%-34s %9s %9s %9s %10s %10s\n", "", "p50", "p95", "max", "bytes", "packed")
	random := rand.New(rand.NewPCG(3, 4))
	some := func() int { return random.IntN(runs) }
	feed := "/projects/" + project
	hook := feed + "/webhooks/" + endpointID
	for _, p := range []struct {
		name string
		path func() string
	}{
		{"projects", func() string { return "/" }},
		{"feed", func() string { return feed }},
		{"feed, anywhere in the year", func() string { return feed + "?after=" + cursor(some(), runs) }},
		{"feed, a branch", func() string { return feed + fmt.Sprintf("?branch=feature/%d-checkout", random.IntN(400)) }},
		{"feed, failed", func() string { return feed + "?status=FAILED" }},
		{"feed, failed, anywhere", func() string { return feed + "?status=FAILED&after=" + cursor(some(), runs) }},
		{"feed, a tag that is not there", func() string { return feed + "?tag=none" }},
		{"feed, a text that is not there",
			func() string { return feed + "?q=" + url.QueryEscape(fmt.Sprint("nothing ", some())) }},
		{"run", func() string { return "/run/" + runID(some()) }},
		{"run of 2,000 specs", func() string { return "/run/" + runID(runs) }},
		{"spec with its tests", func() string {
			n := some()
			return "/run/" + runID(n) + "/spec?file=" + url.QueryEscape(specName(n*specsPerRun%specsOfAll))
		}},
		{"webhook with its log", func() string { return hook }},
		{"log, anywhere in the year", func() string { return hook + "?after=" + cursor(some(), runs) }},
		{"log, failed", func() string { return hook + "?state=failed" }},
		{"insights", func() string { return feed + "/insights" }},
		{"insights, a year", func() string { return feed + "/insights?days=365" }},
		{"tests", func() string { return feed + "/tests" }},
		{"tests of main, flaky", func() string { return feed + "/tests?branch=main&health=flaky" }},
		{"specs", func() string { return feed + "/specs" }},
		{"errors", func() string { return feed + "/errors" }},
		{"test", func() string { return feed + "/tests/" + signature(random.IntN(specsOfAll), random.IntN(testsPer)) }},
		{"error", func() string { return feed + "/errors/" + run.Fingerprint(failureText) }},
	} {
		if err := s.page(p.name, p.path, requests); err != nil {
			return err
		}
	}
	return s.paint("/run/" + runID(runs/2))
}

// cursor is a place in the feed.
func cursor(n, runs int) string {
	at := time.Now().AddDate(-1, 0, 0).Add(time.Duration(float64(365*24*time.Hour) * float64(n) / float64(runs+1)))
	return store.Position{At: at, ID: "z"}.Cursor()
}

type server struct {
	cmd *exec.Cmd
	url string
}

func start(binary, data string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	s := &server{exec.Command(binary, "serve"), "http://" + addr}
	s.cmd.Env = []string{"RUNBELL_ADDR=" + addr, "RUNBELL_PUBLIC_URL=" + s.url, "RUNBELL_DATA_DIR=" + data,
		"RUNBELL_LOG_LEVEL=error", "RUNBELL_WEBHOOK_TIMEOUT=100ms"}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 3000 {
		if resp, err := http.Get(s.url + "/readyz"); err == nil {
			_ = resp.Body.Close()
			return s, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("the server did not start")
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// counted waits until all results are in the history, as the pages say.
func (s *server) counted() error {
	for range 600 {
		req, err := http.NewRequest(http.MethodGet, s.url+"/projects/"+project+"/insights", nil)
		if err != nil {
			return err
		}
		req.AddCookie(&http.Cookie{Name: "runbell", Value: token})
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %w", req.URL, resp.Status, err)
		}
		if !bytes.Contains(body, []byte(`id="behind"`)) {
			return nil
		}
		time.Sleep(2 * time.Second)
	}
	return errors.New("the history does not catch up")
}

// page asks for a page many times and prints how long it took.
func (s *server) page(name string, path func() string, requests int) error {
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	var took []time.Duration
	var packed, whole int
	for n := range requests + 5 {
		req, err := http.NewRequest(http.MethodGet, s.url+path(), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept-Encoding", "gzip")
		req.AddCookie(&http.Cookie{Name: "runbell", Value: token})
		began := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s: %w", req.URL, resp.Status, err)
		}
		if n >= 5 { // the first ones warm up
			took = append(took, time.Since(began))
		}
		if len(body) > packed {
			packed, whole = len(body), unpacked(resp.Header.Get("Content-Encoding"), body)
		}
	}
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(10 * time.Microsecond) }
	fmt.Printf("%-34s %9s %9s %9s %10d %10d\n", name, at(.5), at(.95), at(1), whole, packed)
	return nil
}

func unpacked(encoding string, body []byte) int {
	if encoding != "gzip" {
		return len(body)
	}
	r, w := io.Pipe()
	go func() {
		_, err := w.Write(body)
		_ = w.CloseWithError(err)
	}()
	z, err := gzip.NewReader(r)
	if err != nil {
		return 0
	}
	n, err := io.Copy(io.Discard, z)
	if err != nil {
		return 0
	}
	return int(n)
}

// paint measures when a browser has drawn the page of a run for the first time.
func (s *server) paint(path string) error {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("no-proxy-server", true))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	defer stop()
	ctx, closeTab := chromedp.NewContext(ctx)
	defer closeTab()
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		return fmt.Errorf("first paint: %w (is there a Chromium?)", err)
	}
	if _, err := chromedp.Call(ctx, network.SetCookie,
		network.SetCookieParams{Name: "runbell", Value: token, URL: s.url}); err != nil {
		return err
	}
	var took []float64
	for range 11 {
		if err := chromedp.Do(ctx, chromedp.Navigate(s.url+path)); err != nil {
			return err
		}
		ms, err := chromedp.Run(ctx, chromedp.Evaluate[float64](`new Promise(done => {
			const look = () => { const e = performance.getEntriesByName("first-contentful-paint")[0]; e ? done(e.startTime) : setTimeout(look, 10); };
			look();
		})`, chromedp.EvalAwaitPromise))
		if err != nil {
			return err
		}
		took = append(took, ms)
	}
	first := took[0]
	slices.Sort(took)
	fmt.Printf("\nfirst paint of a run in Chromium: %.0f ms with an empty cache, then %.0f ms (median of 11; "+
		"longest %.0f ms)\n", first, took[5], took[10])
	return nil
}
