package recorder

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// leave makes the file of a machine that ran its specs while nobody was there.
func leave(t *testing.T, build string, specs ...string) string {
	t.Helper()
	j, err := createJournal(filepath.Join(t.TempDir(), "left.jsonl"), header{Server: "http://127.0.0.1:1",
		Join: joinRequest{ProjectID: "shop", CIBuildID: build, Specs: specs, Tags: []string{}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range specs {
		r, _ := newReport(runResult{Tests: []testResult{{Title: []string{"t"}, State: "passed"}}})
		body, err := json.Marshal(r)
		if err == nil {
			_, err = j.append(line{Entry: &entry{Spec: spec, Report: body, Output: "said"}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	return j.path
}

// TestUploadToARunThatIsOver: what a machine ran that never joined comes to the
// run of its build, whatever became of that; what others ran is theirs.
func TestUploadToARunThatIsOver(t *testing.T) {
	h := realServer(t)
	web := httptest.NewServer(h)
	defer web.Close()
	ctx := t.Context()
	other := quietServer(wire{handler: h}, 0)
	specs := []string{"a", "b"}
	j, err := other.join(ctx, joinRequest{ProjectID: "shop", CIBuildID: "b", Specs: specs, Tags: []string{}}, "key")
	if err != nil {
		t.Fatal(err)
	}
	c, err := other.claim(ctx, j, 1)
	if err != nil || len(c.Specs) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	r, _ := newReport(runResult{Tests: []testResult{{Title: []string{"t"}, State: "failed"}}})
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.results(ctx, c.Specs[0].InstanceID, body); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	upload := func(file string) (int, string, error) {
		said.Reset()
		return Upload(ctx, UploadOptions{File: file, Server: web.URL, Key: "key", ServerWait: time.Second, Err: &said})
	}
	file := leave(t, "b", specs...)
	if sent, url, err := upload(file); err != nil || sent != 2 || url != j.RunURL || strings.Count(said.String(), "Another machine also recorded") != 1 {
		t.Errorf("while the run goes on: %d, %q, %v\n%s", sent, url, err, said.String())
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	if sent, url, err := upload(leave(t, "b", specs...)); err != nil || sent != 2 || url != j.RunURL || strings.Count(said.String(), "Another machine also recorded") != 2 {
		t.Errorf("when it is over: %d, %q, %v\n%s", sent, url, err, said.String())
	}
	file = leave(t, "b", "a", "c", "d")
	if sent, _, err := upload(file); err == nil || sent != 0 || strings.Count(said.String(), "refuses") != 1 || !strings.Contains(err.Error(), "3 of 3") {
		t.Errorf("other specs: %d, %v\n%s", sent, err, said.String())
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("what was refused is gone: %v", err)
	}
}

// TestUploadInterrupted says where the rest is, and sends only the rest later.
func TestUploadInterrupted(t *testing.T) {
	h := realServer(t)
	ctx, interrupt := context.WithCancelCause(t.Context())
	results := 0
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/cy/results") {
			if results++; results == 2 {
				interrupt(Interrupted{os.Interrupt}) // the answer is not heard any more
				<-ctx.Done()
				return
			}
		}
		h.ServeHTTP(w, r)
	}))
	defer web.Close()
	file := leave(t, "b", "a", "b", "c")
	o := UploadOptions{File: file, Server: web.URL, Key: "key", ServerWait: time.Minute, Err: &strings.Builder{}}
	if sent, _, err := Upload(ctx, o); err == nil || sent != 1 || !strings.Contains(err.Error(), "2 of 3 specs are still in "+file) {
		t.Errorf("interrupted: %d, %v", sent, err)
	}
	if sent, _, err := Upload(t.Context(), o); err != nil || sent != 2 {
		t.Errorf("again: %d, %v", sent, err)
	}
}

// TestTheEndDoesNotWaitForEverySpec: a server that takes requests and says
// nothing costs the end of a run a moment, however many results wait.
func TestTheEndDoesNotWaitForEverySpec(t *testing.T) {
	var specs []string
	for n := range 40 {
		specs = append(specs, fmt.Sprint("spec-", n))
	}
	file := leave(t, "b", specs...)
	synctest.Test(t, func(t *testing.T) {
		j, err := openJournal(file)
		if err != nil {
			t.Fatal(err)
		}
		srv := newServer("http://runbell.test", "test", 0, func(string, ...any) {})
		srv.http.Transport = silent{}
		s := newSender(srv, j, "key", srv.warn, func(string) {})
		for n := range specs {
			s.queue <- n
		}
		began := time.Now()
		s.start(t.Context())
		time.Sleep(time.Second)
		s.close(t.Context())
		if took := time.Since(began); took > 2*hasty {
			t.Errorf("the end took %s", took)
		}
		if unsent := j.unsent(); len(unsent) != len(specs) {
			t.Errorf("%d of %d are kept", len(unsent), len(specs))
		}
		if err := j.close(); err != nil {
			t.Error(err)
		}
	})
}
