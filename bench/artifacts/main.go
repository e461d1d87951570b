// Command artifacts measures uploads of artifacts: one large file, many at once,
// many small ones, and the large file as 'curl -T' sends it. It compares each with a bare handler in a process of its own, which
// writes what it gets to a file on the same disk, syncs it, and answers.
//
// The server is the built binary on SQLite; it answers once a file is whole, hashed
// and synced, and noted in the database. The two take turns. What it prints last is
// the median of the ratios, and how much memory of the server grew.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"runbell/bench/load"
)

const bareFlag = "-bare-handler"

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareFlag {
		serveBare(os.Args[2], os.Args[3])
		return
	}
	rounds := flag.Int("rounds", 3, "how often each measurement is repeated")
	large := flag.Int64("large", 2<<30, "bytes of the large file")
	flag.Parse()
	if err := measure(*rounds, []work{
		{name: "one large file", files: 1, atOne: 1, size: *large},
		{name: "the same by curl", files: 1, atOne: 1, size: *large, curl: true},
		{name: "100 at once", files: 100, atOne: 100, size: 8 << 20},
		{name: "screenshots", files: 1000, atOne: 16, size: 200 << 10},
	}); err != nil {
		fmt.Fprintln(os.Stderr, "artifacts:", err)
		os.Exit(1)
	}
}

// work is a number of files of one size, some of them at once.
type work struct {
	name  string
	files int
	atOne int
	size  int64
	curl  bool   // curl sends them, from one file
	file  string // that file
}

func measure(rounds int, works []work) error {
	dir, err := os.MkdirTemp(".", ".bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := load.Build(dir)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("%-16s %12s %12s %8s %10s\n", "", "bare MB/s", "Runbell MB/s", "ratio", "RSS grew")
	for _, w := range works {
		if w.curl {
			w.file = filepath.Join(dir, "content")
			if err := writeContent(w.file, w.size); err != nil {
				return err
			}
		}
		var ratios []float64
		grown := 0
		for range rounds {
			bare, err := measureBare(filepath.Join(dir, "bare"), self, w)
			if err != nil {
				return err
			}
			ours, growth, err := measureRunbell(filepath.Join(dir, "data"), binary, w)
			if err != nil {
				return err
			}
			ratios, grown = append(ratios, ours/bare), max(grown, growth)
			fmt.Printf("%-16s %12.0f %12.0f %8.2f %6d MiB\n", w.name, bare, ours, ours/bare, growth)
		}
		slices.Sort(ratios)
		fmt.Printf("%-16s median ratio %.2f, memory grew by %d MiB at most\n", w.name, ratios[len(ratios)/2], grown)
	}
	return nil
}

// measureBare is the megabytes a second of the bare handler.
func measureBare(dir, self string, w work) (float64, error) {
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	s, err := load.Start(func(addr string) *exec.Cmd { return exec.Command(self, bareFlag, addr, dir) })
	if err != nil {
		return 0, err
	}
	defer s.Stop()
	var addresses []string
	for n := range w.files {
		addresses = append(addresses, s.URL+"/"+strconv.Itoa(n))
	}
	return upload(addresses, w)
}

// measureRunbell is that of the server, and by how many MiB its memory grew.
func measureRunbell(dir, binary string, w work) (rate float64, grown int, err error) {
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := load.StartRunbell(binary, dir, "RUNBELL_RECORDING=open", "RUNBELL_ARTIFACT_MAX=16GiB")
	if err != nil {
		return 0, 0, err
	}
	defer s.Stop()
	addresses, err := expect(s.URL, w.files)
	if err != nil {
		return 0, 0, err
	}
	if _, err := upload(addresses[:1], work{files: 1, atOne: 1, size: 1 << 20}); err != nil {
		return 0, 0, err
	}
	if err := s.ResetPeak(); err != nil {
		return 0, 0, err
	}
	before := s.RSS()
	rate, err = upload(addresses, w)
	return rate, s.PeakRSS() - before, err
}

// expect makes a run with a spec that has n screenshots, and returns where they go.
func expect(url string, n int) ([]string, error) {
	post := func(path string, body, into any) error {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		resp, err := http.Post(url+path, "application/json", bytes.NewReader(b))
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("POST %s: %s", path, resp.Status)
		}
		return json.NewDecoder(resp.Body).Decode(into)
	}
	type object map[string]any
	var joined struct{ RunID, MachineID string }
	if err := post("/runs", object{"projectId": "bench", "recordKey": "any", "ciBuildId": "b",
		"specs": []string{"a.cy.js"}}, &joined); err != nil {
		return nil, err
	}
	var claimed struct{ InstanceID string }
	if err := post("/runs/"+joined.RunID+"/instances", object{"machineId": joined.MachineID}, &claimed); err != nil {
		return nil, err
	}
	var shots []object
	for i := range n {
		shots = append(shots, object{"screenshotId": strconv.Itoa(i)})
	}
	var answer struct {
		ScreenshotUploadURLs []struct {
			UploadURL string `json:"uploadUrl"`
		} `json:"screenshotUploadUrls"`
	}
	err := post("/instances/"+claimed.InstanceID+"/results", object{"tests": []any{}, "screenshots": shots}, &answer)
	var addresses []string
	for _, u := range answer.ScreenshotUploadURLs {
		addresses = append(addresses, u.UploadURL)
	}
	return addresses, err
}

// upload puts a file to each address, and returns the megabytes a second.
func upload(addresses []string, w work) (float64, error) {
	content := randomContent()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: w.atOne, WriteBufferSize: 256 << 10}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	errs := make([]error, w.atOne)
	began := time.Now()
	var done sync.WaitGroup
	for worker := range w.atOne {
		done.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(addresses) && errs[worker] == nil; n = int(next.Add(1)) - 1 {
				if w.curl {
					errs[worker] = putByCurl(addresses[n], w.file)
				} else {
					errs[worker] = put(client, addresses[n], content, w.size)
				}
			}
		})
	}
	done.Wait()
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(w.size) * float64(len(addresses)) / 1e6 / took.Seconds(), nil
}

func put(client *http.Client, address string, content []byte, size int64) error {
	req, err := http.NewRequest(http.MethodPut, address, io.LimitReader(&endless{content: content}, size))
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "image/png")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("PUT: %s", resp.Status)
	}
	return nil
}

func putByCurl(address, file string) error {
	out, err := exec.Command("curl", "--silent", "--show-error", "--fail", "-H", "Content-Type: image/png", "-T", file, address).CombinedOutput()
	if err != nil {
		return fmt.Errorf("curl -T: %w: %s", err, out)
	}
	return nil
}

// randomContent is what files are made of.
func randomContent() []byte {
	content := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	return content
}

// writeContent writes what put sends to a file.
func writeContent(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.LimitReader(&endless{content: randomContent()}, size))
	return errors.Join(err, f.Sync(), f.Close())
}

// endless repeats a content.
type endless struct {
	content []byte
	at      int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.content[e.at:])
	e.at = (e.at + n) % len(e.content)
	return n, nil
}

// serveBare writes each request to a file in a directory, and syncs it.
func serveBare(addr, dir string) {
	err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			return
		}
		f, err := os.Create(filepath.Join(dir, filepath.Base(r.URL.Path)))
		if err == nil {
			_, err = io.Copy(f, r.Body)
		}
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	fmt.Fprintln(os.Stderr, "artifacts:", err)
	os.Exit(1)
}
