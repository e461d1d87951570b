package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"runbell/internal/testkit"
)

// TestFilesCannotBeStored: whatever is wrong with the place where files are kept, the run is recorded, the reporter
// gets a response that it understands, and people see what is missing. Once the place is fixed, the same upload
// succeeds.
func TestFilesCannotBeStored(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("this test needs strace, which makes system calls fail: run scripts/setup")
	}
	for name, c := range map[string]struct {
		inject  string // into the system calls of the server
		s3      func(w http.ResponseWriter, r *http.Request, pass http.Handler)
		problem string
	}{
		// SQLite uses fdatasync and makes no directories.
		"the disk is full":           {"fsync:error=ENOSPC", nil, "The server had no free space for it."},
		"the directory is read-only": {"mkdirat:error=EROFS", nil, "The server could not store it."},
		"S3 is down": {"", func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) },
			"The server could not store it."},
		"S3 takes the file and fails": {"", func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			pass.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(http.StatusInternalServerError)
		}, "The server could not store it."},
		"S3 says yes and has nothing": {"", func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { _, _ = io.Copy(io.Discard, r.Body) },
			"The server could not store it."},
		"S3 is full": {"", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusInsufficientStorage)
		}, "The server had no free space for it."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			broken.Store(true)
			mend := func() { broken.Store(false) }
			var s *server
			if c.s3 == nil {
				s = newServer(t, "RUNBELL_ARTIFACTS=disk:"+filepath.Join(t.TempDir(), "artifacts")) // makes the database
				s.stop()
				s.env = append(s.env, "RUNBELL_ARTIFACTS=disk:"+filepath.Join(t.TempDir(), "others"))
				s.via = []string{"strace", "-D", "-I1", "-f", "-qq", "-o", filepath.Join(t.TempDir(), "calls"), "-e", "inject=" + c.inject}
				s.start()
				mend = s.untrace
			} else {
				real, bucket := testkit.S3Bucket(t)
				pass := testkit.PassTo(t, real.URL)
				front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if broken.Load() {
						c.s3(w, r, pass)
						return
					}
					pass.ServeHTTP(w, r)
				}))
				t.Cleanup(front.Close)
				s = newServer(t, "RUNBELL_ARTIFACTS=s3://"+bucket+"/e2e", "RUNBELL_S3_ENDPOINT="+front.URL,
					"RUNBELL_S3_ACCESS_KEY_ID="+testkit.S3AccessKeyID, "RUNBELL_S3_SECRET_ACCESS_KEY="+testkit.S3SecretAccessKey)
			}
			upload, id := s.recordScreenshot(s.project("shop", nil))

			status, answer := s.putFile(upload, "0123456789")
			var said struct{ Message string }
			if err := json.Unmarshal([]byte(answer), &said); status != http.StatusServiceUnavailable || err != nil || said.Message == "" {
				t.Errorf("the upload is answered with %d %s", status, answer)
			}
			if r := s.theRun(); r.Status != "PASSED" {
				t.Errorf("the run is %s", r.Status)
			}
			if status, answer := s.file(id, ""); status != http.StatusNotFound || !strings.Contains(answer, c.problem) {
				t.Errorf("the file is answered with %d %s, want %q", status, answer, c.problem)
			}
			if strings.Contains(s.log.String(), testkit.S3SecretAccessKey) {
				t.Error("the log has the secret")
			}

			mend()
			if status, answer := s.putFile(upload, "0123456789"); status != http.StatusOK {
				t.Errorf("once it is fixed, the upload gets %d %s", status, answer)
			}
			if status, answer := s.file(id, ""); status != http.StatusOK || answer != "0123456789" {
				t.Errorf("once it is fixed, the file is %d %q", status, answer)
			}
		})
	}
}

// TestReportersUploadToS3: with presigned addresses, a file comes to the bucket past the server, which shows it.
func TestReportersUploadToS3(t *testing.T) {
	t.Parallel()
	real, bucket := testkit.S3Bucket(t)
	s := newServer(t, "RUNBELL_ARTIFACTS=s3://"+bucket, "RUNBELL_S3_ENDPOINT="+real.URL, "RUNBELL_S3_PRESIGN=on",
		"RUNBELL_S3_ACCESS_KEY_ID="+testkit.S3AccessKeyID, "RUNBELL_S3_SECRET_ACCESS_KEY="+testkit.S3SecretAccessKey)
	upload, id := s.recordScreenshot(s.project("shop", nil))
	if !strings.HasPrefix(upload, real.URL+"/"+bucket+"/") {
		t.Fatalf("the reporter uploads to %s", upload)
	}
	if status, answer := s.file(id, ""); status != http.StatusNotFound || !strings.Contains(answer, "not been uploaded yet") {
		t.Errorf("before the upload: %d %s", status, answer)
	}
	if status, answer := s.putFile(upload, "0123456789"); status != http.StatusOK {
		t.Fatalf("the bucket says %d %s", status, answer)
	}
	if status, answer := s.file(id, ""); status != http.StatusOK || answer != "0123456789" {
		t.Errorf("after the upload: %d %q", status, answer)
	}
}

// recordScreenshot records a run of one spec with a screenshot. It returns where the reporter uploads that, and the id
// of the file.
func (s *server) recordScreenshot(key string) (uploadURL, id string) {
	s.t.Helper()
	send := func(path, body string, into any) {
		s.t.Helper()
		status, answer, err := s.post("POST", path, []byte(body), "")
		if err != nil || status != http.StatusOK {
			s.t.Fatalf("POST %s: %d %s, %v", path, status, answer, err)
		}
		if err := json.Unmarshal(answer, into); err != nil {
			s.t.Fatal(err)
		}
	}
	var joined struct{ RunID, MachineID string }
	send("/runs", fmt.Sprintf(`{"projectId":"shop","recordKey":%q,"ciBuildId":"b","specs":["a.cy.js"]}`, key), &joined)
	var claimed struct{ InstanceID string }
	send("/runs/"+joined.RunID+"/instances", fmt.Sprintf(`{"machineId":%q}`, joined.MachineID), &claimed)
	send("/instances/"+claimed.InstanceID+"/tests", `{"tests":[{"clientId":"r0","title":["a"]}]}`, new(any))
	var done struct {
		ScreenshotUploadURLs []struct{ UploadURL, ReadURL string }
	}
	send("/instances/"+claimed.InstanceID+"/results", `{"tests":[{"clientId":"r0","state":"passed"}],"screenshots":[{"screenshotId":"s1","testId":"r0"}]}`, &done)
	if len(done.ScreenshotUploadURLs) != 1 {
		s.t.Fatalf("the answer to the results is %+v", done)
	}
	shot := done.ScreenshotUploadURLs[0]
	return shot.UploadURL, strings.TrimPrefix(shot.ReadURL, s.url+"/files/")
}

// putFile uploads a screenshot as reporters do.
func (s *server) putFile(address, content string) (status int, answer string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPut, address, strings.NewReader(content))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "image/png")
	return s.send(r)
}
