package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var kills = flag.Int("kills", 4, "how often a server is killed while files are uploaded and deleted")

// TestKilledWhileUploading kills the server at random moments of uploads and of the
// sweep at its start. After a start and its sweep there is no file on the disk that
// nobody needs, and what was answered with success is there, whole.
func TestKilledWhileUploading(t *testing.T) {
	t.Parallel()
	const shots = 8
	s := newServer(t, "RUNBELL_RECORDING=open")
	addresses := s.uploadAddresses(shots)
	stored := make([]string, shots) // what was answered with success last
	for round := range *kills {
		maybe := make([]string, shots) // what was sent then and not answered
		var done sync.WaitGroup
		for n, address := range addresses {
			content := fmt.Sprint(round, "-", n, strings.Repeat("x", 200_000*(n%3)))
			done.Go(func() {
				for range 20 {
					maybe[n] = content
					if !putFile(address, content) {
						return // killed
					}
					stored[n] = content
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) // not for something to happen: any moment will do
		s.kill()
		done.Wait()
		s.start()
		if rand.IntN(2) == 0 { // in the sweep, perhaps
			s.kill()
			s.start()
		}
		for n, address := range addresses {
			id, _, _ := strings.Cut(address[strings.LastIndexByte(address, '/')+1:], "?")
			status, got := s.file(id, "")
			if status == http.StatusOK && got != stored[n] && got != maybe[n] || status != http.StatusOK && stored[n] != "" {
				t.Fatalf("round %d: file %d: %d, %d bytes", round, n, status, len(got))
			}
			if status == http.StatusOK {
				stored[n] = got
			}
		}
		want := 0
		for _, content := range stored {
			if content != "" {
				want++
			}
		}
		eventually(t, 30*time.Second, "only what is needed is on the disk", func() bool {
			return len(filesBelow(t, filepath.Join(s.dir, "artifacts"))) == want
		})
	}
}

// uploadAddresses makes a run with a spec, and returns where its screenshots go.
func (s *server) uploadAddresses(n int) []string {
	s.t.Helper()
	var joined struct{ RunID, MachineID string }
	s.report("POST", "/runs", `{"projectId":"shop","recordKey":"any","ciBuildId":"b","specs":["a.cy.js"]}`, &joined)
	var claimed struct{ InstanceID string }
	s.report("POST", "/runs/"+joined.RunID+"/instances", fmt.Sprintf(`{"machineId":%q}`, joined.MachineID), &claimed)
	return s.results(claimed.InstanceID, n)
}

// results reports a spec with n screenshots, and returns where these go.
func (s *server) results(instanceID string, n int) (addresses []string) {
	s.t.Helper()
	var shots []string
	for i := range n {
		shots = append(shots, fmt.Sprintf(`{"screenshotId":"s%d"}`, i))
	}
	var answer struct{ ScreenshotUploadURLs []struct{ UploadURL string } }
	s.report("POST", "/instances/"+instanceID+"/results", `{"tests":[],"screenshots":[`+strings.Join(shots, ",")+`]}`, &answer)
	for _, u := range answer.ScreenshotUploadURLs {
		addresses = append(addresses, u.UploadURL)
	}
	return addresses
}

// report sends what a reporter says, and reads the answer.
func (s *server) report(method, path, body string, into any) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Error(err) // not Fatal: some report at once
		return
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Errorf("%s %s: %s %s, %v", method, path, resp.Status, b, err)
	}
}

// putFile uploads a file, and says whether that was answered with success.
func putFile(address, content string) bool {
	req, err := http.NewRequest(http.MethodPut, address, bytes.NewReader([]byte(content)))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "image/png")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}
