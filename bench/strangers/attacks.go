package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"runbell/bench/load"
)

// attack is what one kind of attacker does.
type attack struct {
	name, about string
	workers     int           // that do it at the same time
	every       time.Duration // how often each of them does it
	do          func(ctx context.Context, t *target) (status int, err error)
}

func attacks() []attack {
	return []attack{
		{"element bomb", "gzip of 22 million empty objects to an instance that does not exist, 16 a second", 16, time.Second,
			func(ctx context.Context, t *target) (int, error) {
				return t.post(ctx, "/instances/nope/results", "gzip", t.elements)
			}},
		{"plain 1 MiB bodies", "POST /runs of 1 MiB without a key, 64 connections, 16 a second", 64, 4 * time.Second,
			func(ctx context.Context, t *target) (int, error) { return t.post(ctx, "/runs", "identity", t.plain) }},
		{"gzip bomb", "gzip of 64 MiB of long strings to POST /runs with a wrong key, 8 a second", 8, time.Second,
			func(ctx context.Context, t *target) (int, error) { return t.post(ctx, "/runs", "gzip", t.strings) }},
		{"idle uploads", "64 connections that send one byte of POST /runs in chunks, and wait", 64, time.Second,
			func(ctx context.Context, t *target) (int, error) { return t.upload(ctx, 0) }},
		{"slow uploads", "500 connections that send POST /runs with one byte a second", 500, time.Second,
			func(ctx context.Context, t *target) (int, error) { return t.upload(ctx, time.Second) }},
		{"scrapes", "GET /metrics, 50 a second", 5, time.Second / 10,
			func(ctx context.Context, t *target) (int, error) { return t.get(ctx, "/metrics", "") }},
		{"public page", "pages of a public run that runs and has a spec of 20,000 tests, another query each time, 20 a second", 5, time.Second / 4,
			func(ctx context.Context, t *target) (int, error) {
				page := []string{t.run + "?", t.run + "/specs?", t.page + "&", t.page + "&"}[rand.IntN(4)]
				return t.get(ctx, fmt.Sprintf("%spage=%d&q=%x", page, 1+rand.IntN(40), rand.Uint64()), "")
			}},
		{"read key", "GET /v1/projects/{id}/runs of 100 runs with a read-only key, 10 a second", 5, time.Second / 2,
			func(ctx context.Context, t *target) (int, error) {
				return t.get(ctx, "/v1/projects/"+load.Project+"/runs?limit=100", readKey)
			}},
	}
}

func choose(all []attack, only string) ([]attack, error) {
	if only == "" {
		return all, nil
	}
	for _, a := range all {
		if a.name == only {
			return []attack{a}, nil
		}
	}
	return nil, fmt.Errorf("there is no attack %q: --help lists them", only)
}

// begin starts attacks, which go on until stop is called.
func begin(ctx context.Context, t *target, attacks []attack, answers *tally) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	for _, a := range attacks {
		for n := range a.workers {
			workers.Go(func() {
				// They do not all begin at the same moment.
				wait := time.NewTimer(a.every * time.Duration(n) / time.Duration(a.workers))
				defer wait.Stop()
				for {
					select {
					case <-wait.C:
					case <-ctx.Done():
						return
					}
					wait.Reset(a.every)
					status, err := a.do(ctx, t)
					if ctx.Err() == nil {
						answers.add(status, err)
					}
				}
			})
		}
	}
	return func() {
		cancel()
		workers.Wait()
		t.client.CloseIdleConnections()
	}
}

// target is the server that is attacked.
type target struct {
	url, host string
	run, page string // paths of the public run, and of its large spec
	client    *http.Client

	elements, strings, plain []byte // bodies
}

func newTarget(url string) *target {
	const stranger = `{"projectId":"` + load.Project + `","recordKey":"wrong","x":[`
	// No string is too long, so that only the sum is.
	long := `"` + strings.Repeat("x", 200<<10) + `",`
	return &target{url: url, host: strings.TrimPrefix(url, "http://"),
		client:   &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
		elements: load.Pack([]byte(`{"tests":[` + strings.Repeat(`{},`, 22_400_000) + `{}]}`)),
		strings:  load.Pack([]byte(stranger + strings.Repeat(long, 320) + `""]}`)),
		plain:    []byte(stranger + strings.Repeat(long, 5) + `""]}`)}
}

func (t *target) post(ctx context.Context, path, encoding string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Encoding", encoding)
	return t.send(req)
}

func (t *target) get(ctx context.Context, path, key string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url+path, nil)
	if err != nil {
		return 0, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	return t.send(req)
}

func (t *target) send(req *http.Request) (int, error) {
	resp, err := t.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// upload sends the beginning of a POST /runs, then a byte each time, or nothing
// if that is 0, until the server ends the connection or ctx ends.
func (t *target) upload(ctx context.Context, each time.Duration) (int, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.host)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := io.WriteString(conn,
		"POST /runs HTTP/1.1\r\nHost: runbell\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"); err != nil {
		return 0, err
	}
	for each > 0 {
		select {
		case <-time.After(each):
		case <-ctx.Done():
			return 0, nil
		}
		if _, err := io.WriteString(conn, "1\r\n \r\n"); err != nil {
			return 0, err
		}
	}
	_, err = io.Copy(io.Discard, conn)
	return 0, err
}

// tally counts the answers to attacks.
type tally struct {
	mu      sync.Mutex
	answers map[string]int
}

func (c *tally) add(status int, err error) {
	answer := fmt.Sprint(status)
	if err != nil {
		answer = "no answer"
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			answer = "timeout"
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers = map[string]int{}
	}
	c.answers[answer]++
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, answer := range slices.Sorted(maps.Keys(c.answers)) {
		out = append(out, fmt.Sprintf("%s ×%d", answer, c.answers[answer]))
	}
	if out == nil {
		return "none"
	}
	return strings.Join(out, ", ")
}
