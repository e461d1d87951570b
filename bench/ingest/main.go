// Command ingest measures how many life cycles of runs a server takes in over
// HTTP, with plain bodies and with gzip. It compares that with two bare handlers.
// One reads the same bodies and answers: the most that the machine, net/http and
// the load allow. The other also keeps the bodies durably: the most that the disk
// allows. With -beside it compares with another server too.
//
// Package load says what a life cycle is. The server is the built binary on
// SQLite with synchronous=FULL; every answer is durable.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"runbell/bench/load"
)

const bareFlag = "-bare-handler"

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareFlag {
		serveBare(os.Args[3], os.Args[2])
		return
	}
	seconds := flag.Duration("for", 8*time.Second, "how long each measurement takes")
	keep := flag.Bool("keep", false, "keep the server's data directory and print where it is")
	url := flag.String("url", "", "load a server that runs already (with RUNBELL_RECORDING=open), with 16 clients, and "+
		"nothing else")
	beside := flag.String("beside", "",
		"load this server too, which runs already, in turns, and print the ratio: sorry-cypress' director, or another version")
	flag.Parse()
	if *url != "" && *beside != "" {
		fmt.Fprintln(os.Stderr, "ingest: -url loads one server and compares nothing: leave one of -url and -beside out")
		os.Exit(2)
	}
	if *url != "" {
		for _, packed := range []bool{false, true} {
			r, err := load.Play(*url, 16, *seconds, packed)
			if err != nil {
				fmt.Fprintln(os.Stderr, "ingest:", err)
				os.Exit(1)
			}
			printResult(r, map[bool]string{false: "plain", true: "gzip"}[packed])
		}
		return
	}
	if err := measure(*seconds, *keep, *beside); err != nil {
		fmt.Fprintln(os.Stderr, "ingest:", err)
		os.Exit(1)
	}
}

func measure(d time.Duration, keep bool, beside string) error {
	dir, err := os.MkdirTemp(".", ".bench-")
	if err != nil {
		return err
	}
	if keep {
		fmt.Println("data:", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	binary, err := load.Build(dir)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}

	fmt.Printf("%-22s %12s %12s %9s %9s %9s\n", "", "cycles/s", "requests/s", "p50", "p99", "max")
	for _, clients := range []int{1, 16} {
		ceiling, err := loadBare(self, "", clients, d/2)
		if err != nil {
			return fmt.Errorf("bare handler: %w", err)
		}
		printResult(ceiling, fmt.Sprintf("bare handler, %d", clients))
		durable, err := loadBare(self, filepath.Join(dir, "bodies"), clients, d/2)
		if err != nil {
			return fmt.Errorf("bare handler that is durable: %w", err)
		}
		printResult(durable, fmt.Sprintf("and durable, %d", clients))

		var other load.Result
		if beside != "" {
			// The first round warms it up, as below.
			for range 2 {
				if other, err = load.Play(beside, clients, d/2, false); err != nil {
					return fmt.Errorf("%s: %w", beside, err)
				}
			}
			printResult(other, fmt.Sprintf("the other, %d", clients))
		}

		began := time.Now()
		srv, err := load.StartRunbell(binary, filepath.Join(dir, "data"+strconv.Itoa(clients)), "RUNBELL_RECORDING=open")
		if err != nil {
			return err
		}
		ready := time.Since(began)
		before := srv.RSS()
		first, err := load.Play(srv.URL, clients, d/2, false)
		if err != nil {
			return fmt.Errorf("runbell: %w", err)
		}
		middle := srv.RSS()
		second, err := load.Play(srv.URL, clients, d/2, false)
		if err != nil {
			return fmt.Errorf("runbell: %w", err)
		}
		after := srv.RSS()
		packed, err := load.Play(srv.URL, clients, d/2, true)
		if err != nil {
			return fmt.Errorf("runbell, gzip: %w", err)
		}
		srv.Stop()
		printResult(second, fmt.Sprintf("runbell, %d", clients))
		printResult(packed, fmt.Sprintf("runbell, gzip, %d", clients))
		fmt.Printf("  ratio to the bare handler %.2f, to the durable one %.2f", second.Rate()/ceiling.Rate(),
			second.Rate()/durable.Rate())
		fmt.Printf("; with gzip %.2f of without", packed.Rate()/second.Rate())
		if beside != "" {
			fmt.Printf("; to the other %.1f", second.Rate()/other.Rate())
		}
		fmt.Println()
		fmt.Printf("  RSS %d MB at start, %d MB after %d runs, %d MB after %d runs; ready %d ms after exec\n",
			before, middle, first.Cycles, after, first.Cycles+second.Cycles, ready.Milliseconds())
	}
	return nil
}

// loadBare measures the bare handler, in a process of its own. It keeps the
// bodies in a file, unless its name is empty.
func loadBare(self, file string, clients int, d time.Duration) (load.Result, error) {
	s, err := load.Start(func(addr string) *exec.Cmd { return exec.Command(self, bareFlag, file, addr) })
	if err != nil {
		return load.Result{}, err
	}
	defer s.Stop()
	return load.Play(s.URL, clients, d, false)
}

func printResult(r load.Result, name string) {
	fmt.Printf("%-22s %12.0f %12.0f %9s %9s %9s\n", name, r.Rate(), r.Rate()*load.RequestsPerCycle, r.Latency(0.5),
		r.Latency(0.99), r.Latency(1))
}

// serveBare reads every body and answers what a client needs to go on.
func serveBare(addr, file string) {
	var n atomic.Int64
	keep := func([]byte) error { return nil }
	if file != "" {
		j, err := newJournal(file)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		keep = j.keep
	}
	mux := http.NewServeMux()
	answer := func(body func() string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			sent, err := io.ReadAll(r.Body)
			if err == nil {
				err = keep(sent)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body())
		}
	}
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /runs", answer(func() string { return `{"runId":"r","groupId":"g","machineId":"m","runUrl":"u"}` }))
	mux.HandleFunc("POST /runs/{id}/instances", answer(func() string {
		return `{"spec":"s","instanceId":"` + strconv.FormatInt(n.Add(1), 10) + `","claimedInstances":1,"totalInstances":5}`
	}))
	mux.HandleFunc("/instances/", answer(func() string { return `{"screenshotUploadUrls":[]}` }))
	fmt.Fprintln(os.Stderr, http.ListenAndServe(addr, mux))
	os.Exit(1)
}

// journal keeps what it gets in a file, durably, and nothing else: the least
// that can be done. Who comes while it waits for the disk shares the next wait.
// Like the log of SQLite it writes over what is there, which is faster than a
// file that grows.
type journal struct {
	file *os.File
	in   chan entry
}

const journalSize = 16 << 20

type entry struct {
	text []byte
	done chan error
}

func newJournal(name string) (*journal, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(make([]byte, journalSize)); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	j := &journal{f, make(chan entry, 64)}
	go func() {
		at := int64(0)
		for first := range j.in {
			batch := []entry{first}
			for range len(j.in) {
				batch = append(batch, <-j.in)
			}
			var text []byte
			for _, e := range batch {
				text = append(text, e.text...)
			}
			if at+int64(len(text)) > journalSize {
				at = 0
			}
			_, err := f.WriteAt(text, at)
			at += int64(len(text))
			if err == nil {
				err = syscall.Fdatasync(int(f.Fd()))
			}
			for _, e := range batch {
				e.done <- err
			}
		}
	}()
	return j, nil
}

func (j *journal) keep(text []byte) error {
	e := entry{text, make(chan error, 1)}
	j.in <- e
	return <-e.done
}
