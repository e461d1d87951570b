package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"runbell/internal/auth"
	"runbell/internal/store"
)

// send makes a request with headers.
func (s *server) send(t *testing.T, method, path, key, body string, headers ...string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return s.do(t, req)
}

// However often a POST with an Idempotency-Key is sent, and however many of them at the
// same time, it creates one thing and has one answer.
func TestIdempotencyKey(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		const path = "/v1/projects/demo/record-keys"
		var answers sync.Map
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				switch resp := s.send(t, "POST", path, s.writeKey, `{"label":"ci"}`, idempotencyKey, "a"); resp.status {
				case http.StatusCreated:
					answers.Store(resp.text, true)
				case http.StatusConflict: // it is still in progress
				default:
					t.Errorf("status %d: %s", resp.status, resp.text)
				}
			})
		}
		all.Wait()
		again := s.send(t, "POST", path, s.writeKey, `{"label":"ci"}`, idempotencyKey, "a")
		answers.Store(again.text, true)
		count := 0
		answers.Range(func(any, any) bool { count++; return true })
		if count != 1 || again.header.Get("Idempotent-Replayed") != "true" || !strings.Contains(again.text, `"recordKey":"rk_`) {
			t.Errorf("%d answers, the last %v %s", count, again.header, again.text)
		}
		if keys := s.items(t, path); len(keys) != 2 { // and the one of the project
			t.Errorf("%d record keys", len(keys))
		}
		for what, c := range map[string]struct {
			path, key, body, as string
			status              int
		}{
			"another body":    {path, s.writeKey, `{"label":"cd"}`, "a", 422},
			"another path":    {"/v1/webhooks?projectId=demo", s.writeKey, `{"label":"ci"}`, "a", 422},
			"another key":     {path, s.newKey(t, auth.Write), `{"label":"ci"}`, "a", 201},
			"a read-only key": {path, s.readKey, `{"label":"ci"}`, "a", 403},
			"too long":        {path, s.writeKey, `{"label":"ci"}`, strings.Repeat("k", 256), 400},
		} {
			if resp := s.send(t, "POST", c.path, c.key, c.body, idempotencyKey, c.as); resp.status != c.status {
				t.Errorf("%s: status %d, want %d: %s", what, resp.status, c.status, resp.text)
			}
		}
		// What failed may be tried again.
		if resp := s.send(t, "POST", "/v1/projects", s.writeKey, `{"projectId":"demo"}`, idempotencyKey, "b"); resp.status != http.StatusConflict {
			t.Errorf("a project that exists: %d", resp.status)
		}
		s.data(t, "DELETE", "/v1/projects/demo", nil)
		if resp := s.send(t, "POST", "/v1/projects", s.writeKey, `{"projectId":"demo"}`, idempotencyKey, "b"); resp.status != http.StatusCreated {
			t.Errorf("after it was deleted: %d %s", resp.status, resp.text)
		}
	})
}

// A request whose process died is not done a second time by itself.
func TestInterruptedRequest(t *testing.T) {
	s := sqliteServer(t)
	var keyID string
	s.write(t, func(ctx context.Context, tx *store.Tx) error {
		list, err := tx.APIKeys(ctx)
		for _, k := range list {
			if k.Write {
				keyID = k.ID
			}
		}
		return err
	})
	if resp := s.send(t, "POST", "/v1/projects", s.writeKey, `{"projectId":"x"}`, idempotencyKey, "a"); resp.status != http.StatusCreated {
		t.Fatalf("%d %s", resp.status, resp.text)
	}
	begun := store.Once{KeyID: keyID, Key: "a"}
	s.write(t, func(ctx context.Context, tx *store.Tx) error {
		before, err := tx.BeginOnce(ctx, begun)
		begun.Request = before.Request
		if before.Answer == "" {
			t.Error("the answer is gone")
		}
		if err == nil {
			err = tx.ForgetOnce(ctx, begun)
		}
		if err == nil {
			_, err = tx.BeginOnce(ctx, begun)
		}
		return err
	})
	if resp := s.send(t, "POST", "/v1/projects", s.writeKey, `{"projectId":"x"}`, idempotencyKey, "a"); resp.status != http.StatusConflict || !strings.Contains(resp.text, "interrupted") {
		t.Errorf("%d %s", resp.status, resp.text)
	}
}

func TestETagAndGzip(t *testing.T) {
	s := sqliteServer(t)
	for n := range 10 {
		s.project(t, fmt.Sprint("demo-", n))
	}
	first := s.send(t, "GET", "/v1/projects", s.readKey, "", "Accept-Encoding", "identity")
	packed := s.send(t, "GET", "/v1/projects", s.readKey, "", "Accept-Encoding", "gzip")
	etag := first.header.Get("ETag")
	if etag == "" || packed.header.Get("ETag") != etag || packed.header.Get("Content-Encoding") != "gzip" || len(packed.text) > len(first.text)/3 {
		t.Errorf("%q, then packed %d of %d bytes: %v", etag, len(packed.text), len(first.text), packed.header)
	}
	if same := s.send(t, "GET", "/v1/projects", s.readKey, "", "If-None-Match", etag); same.status != http.StatusNotModified || same.text != "" {
		t.Errorf("unchanged: %d %s", same.status, same.text)
	}
	s.project(t, "one-more")
	if now := s.send(t, "GET", "/v1/projects", s.readKey, "", "If-None-Match", etag); now.status != http.StatusOK || now.header.Get("ETag") == etag {
		t.Errorf("changed: %d %v", now.status, now.header)
	}
	hook := s.hook(t, "one-more", object{})
	if secret := s.send(t, "GET", "/v1/webhooks/"+hook+"/secret", s.writeKey, "", "Accept-Encoding", "gzip"); secret.header.Get("ETag") != "" ||
		secret.header.Get("Cache-Control") != "no-store" || secret.header.Get("Content-Encoding") != "" {
		t.Errorf("a secret: %v", secret.header)
	}
}

// A program that asks without end is told to wait, and others are not.
func TestRateLimit(t *testing.T) {
	s := sqliteServer(t)
	ended := false
	for range 2000 {
		resp := s.fetch(t, "GET", "/v1/api-keys", s.readKey, nil)
		if resp.status == http.StatusTooManyRequests {
			ended = resp.header.Get("Retry-After") == "1" && strings.Contains(resp.text, "50 a second")
			break
		}
	}
	if !ended {
		t.Error("nothing limits the requests of a key")
	}
	s.call(t, http.StatusOK, "GET", "/v1/api-keys", nil)
}
