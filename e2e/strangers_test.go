package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packedMany is what packed makes of head, piece n times, and tail, but in parts of
// which only one is compressed: that takes long with the race detector.
func packedMany(t *testing.T, head, piece string, n int, tail string) []byte {
	t.Helper()
	const part = 20_000
	if n%part != 0 {
		t.Fatalf("%d is not a multiple of %d", n, part)
	}
	many := bytes.Repeat(packed(t, strings.Repeat(piece, part)), n/part)
	return slices.Concat(packed(t, head), many, packed(t, tail))
}

// mostMemory is the most resident memory that a process had so far, in MiB, as
// the kernel counts it.
func (s *server) mostMemory() int {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return kb >> 10
}

// post sends a body as reporters do, and returns the status and the answer.
func (s *server) post(method, path string, body []byte, encoding string) (int, []byte, error) {
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Encoding", encoding)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// record is a run with one spec, in packed requests.
func (s *server) record(key, build string) {
	s.t.Helper()
	send := func(method, path, body string, into any) {
		s.t.Helper()
		status, answer, err := s.post(method, path, packed(s.t, body), "gzip")
		if err != nil || status != http.StatusOK {
			s.t.Fatalf("%s %s: %d %s, %v", method, path, status, answer, err)
		}
		if into != nil {
			if err := json.Unmarshal(answer, into); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	var joined struct{ RunID, MachineID string }
	send("POST", "/runs", fmt.Sprintf(`{"projectId":"shop","recordKey":%q,"ciBuildId":%q,"specs":["a.cy.js"]}`, key, build), &joined)
	var claimed struct{ InstanceID string }
	send("POST", "/runs/"+joined.RunID+"/instances", fmt.Sprintf(`{"machineId":%q}`, joined.MachineID), &claimed)
	send("POST", "/instances/"+claimed.InstanceID+"/tests", `{"tests":[{"clientId":"r0","title":["a"]}]}`, nil)
	send("POST", "/instances/"+claimed.InstanceID+"/results", `{"tests":[{"clientId":"r0","state":"passed"}]}`, nil)
	send("PUT", "/instances/"+claimed.InstanceID+"/stdout", `{"stdout":"done"}`, nil)
}

// hold opens a connection and sends the beginning of a body in chunks, and no
// more. The connection stays open until the test ends.
func (s *server) hold(path string, n int) error {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return err
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	// The server may refuse it before all is sent.
	_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s", path, n+1, `{"x":"`+strings.Repeat("x", n-6))
	return nil
}

// TestStrangersCannotTakeMemory: 64 strangers at once send what would take much
// memory to decode, and leave bodies unfinished. The server stays below 256 MiB,
// and takes in what honest machines send meanwhile.
func TestStrangersCannotTakeMemory(t *testing.T) {
	s := newServer(t)
	key := s.project("shop", nil)

	elementBomb := packedMany(t, `{"tests":[`, "{},", 22_000_000, `{}]}`)
	runBomb := packedMany(t, `{"projectId":"shop","recordKey":"wrong","specs":[`, `"",`, 4_000_000, `""]}`)
	zeros := packedMany(t, "", strings.Repeat("\x00", 64), 1_040_000, "")
	plain := []byte(`{"tests":[` + strings.Repeat("{},", 1<<20/3) + `{}]}`)[:1<<20]
	plainRun := []byte(`{"projectId":"shop","recordKey":"wrong","specs":[` + strings.Repeat(`"`+strings.Repeat("x", 1000)+`",`, 9_000) + `""]}`)
	attacks := []func() error{
		func() error { return s.hold("/runs", 8) },
		func() error { return s.hold("/runs", 8<<20) },
		func() error { return s.hold("/instances/nobody/results", 8<<20) },
	}
	for _, a := range []struct {
		path, encoding string
		body           []byte
	}{
		{"/instances/nobody/results", "gzip", elementBomb}, {"/runs/nobody/instances", "gzip", elementBomb},
		{"/runs", "gzip", elementBomb}, {"/runs", "gzip", runBomb}, {"/runs", "gzip", zeros}, {"/v1/runs/cancel", "gzip", zeros},
		{"/instances/nobody/results", "", plain}, {"/runs", "", plain}, {"/runs", "", plainRun}, {"/v1/runs/x/heartbeat", "", plain},
	} {
		attacks = append(attacks, func() error {
			// A body that is refused early may end its connection instead of an answer.
			if status, answer, err := s.post("POST", a.path, a.body, a.encoding); err == nil && (status < 400 || status == http.StatusInternalServerError) {
				return fmt.Errorf("%s: %d %s", a.path, status, answer)
			}
			return nil
		})
	}

	s.record(key, "before")
	var strangers sync.WaitGroup
	for i := range 64 {
		strangers.Go(func() {
			for j := range 8 {
				if err := attacks[(i+j)%len(attacks)](); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 5 {
		s.record(key, fmt.Sprintf("meanwhile-%d", i))
	}
	strangers.Wait()
	s.record(key, "after")
	most := s.mostMemory()
	t.Logf("the most memory: %d MiB", most)
	if most >= 256 {
		t.Errorf("the server took %d MiB", most)
	}
}
