package e2e

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUploadsArrive: what the reporters have of a spec is on the server, as it was.
func TestUploadsArrive(t *testing.T) {
	t.Parallel()
	const spec = "cypress/e2e/b_fail.cy.js" // fails three times
	for name, run := range map[string]func(*testing.T, *server, string) (dir string, m *machine){
		"cypress-cloud": func(t *testing.T, s *server, key string) (string, *machine) {
			dir := checkout(t)
			config := filepath.Join(dir, "cypress.config.js")
			text, err := os.ReadFile(config)
			if err == nil {
				err = os.WriteFile(config, bytes.Replace(text, []byte("video: false"), []byte("video: true"), 1), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			return dir, record(t, s, dir, "shop", key, nil, "--ci-build-id", "b", "--parallel", "--spec", spec)
		},
		"runbell cypress run": func(t *testing.T, s *server, key string) (string, *machine) {
			p := newCypress(t, usual)
			return p.dir, p.record(t, s.url, key, "--ci-build-id", "b", "--spec", spec, "--config", "video=true").machine
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			dir, m := run(t, s, s.project("shop", nil))
			if code, out := m.wait(t); code != 1 {
				t.Errorf("exit code %d\n%s", code, out)
			}
			want := map[string]int{} // how often a content was taken
			for path, content := range filesBelow(t, filepath.Join(dir, "cypress")) {
				if strings.HasSuffix(path, ".png") || strings.HasSuffix(path, ".mp4") {
					want[content]++
				}
			}
			if len(want) != 2 { // all screenshots of the stand-in are alike
				t.Fatalf("the reporter has %d files: %v", len(want), want)
			}
			for path, content := range filesBelow(t, filepath.Join(s.dir, "artifacts")) {
				want[content]--
				id, _, _ := strings.Cut(filepath.Base(path), "-")
				if status, got := s.file(id, ""); status != http.StatusOK || got != content {
					t.Errorf("%s: %d, %q", id, status, got)
				}
				if status, got := s.file(id, "bytes=4-7"); status != http.StatusPartialContent || got != content[4:8] {
					t.Errorf("a part of %s: %d, %q", id, status, got)
				}
			}
			for content, n := range want {
				if n != 0 {
					t.Errorf("%d of %q are not on the server", n, content)
				}
			}
		})
	}
}

// filesBelow is what is in the files below a directory.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // removed just now
			return nil
		}
		files[path] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// file reads an artifact, or a range of it.
func (s *server) file(id, part string) (status int, content string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/files/"+id, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	if part != "" {
		req.Header.Set("Range", part)
	}
	return s.send(req)
}

// send sends a request and reads the answer.
func (s *server) send(req *http.Request) (status int, content string) {
	s.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
