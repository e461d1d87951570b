// Command retention measures how old data goes: a year of runs, with their files, is
// written as of then, and a server that keeps what new projects keep removes the rest.
// It prints sizes before and after, checks by a plain recount that nothing is kept
// that should go and nothing is gone that should stay, and says what removing does to those
// who record runs meanwhile.
//
// The server is the built binary on SQLite and a directory. In turns, machines record
// runs while nothing is removed and while rows and files go. What it prints last is
// the ratio of the 99th percentiles of their requests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"runbell/bench/load"
	"runbell/internal/client"
)

// apiKey is that of the server under test.
const apiKey = "an-api-key-for-the-benchmark"

func main() {
	var y year
	flag.IntVar(&y.runs, "runs", 2_000, "how many runs the year has, of 20 specs with 10 tests each; about half of them go, with 85 rows each")
	flag.IntVar(&y.files, "files", 10_000, "how many files they have; most of them go")
	flag.Int64Var(&y.size, "size", 4<<10, "bytes of a file")
	clients := flag.Int("clients", 4, "how many machines record runs meanwhile")
	fill := flag.String("fill", "", "only write the year, into this new directory: that takes long, and the machine need not be quiet")
	from := flag.String("from", "", "use up the year that -fill wrote into this directory")
	turn := flag.Duration("for", 20*time.Second, "how long they do so while nothing is removed, each time")
	flag.Parse()
	ctx := context.Background()
	var err error
	if *fill != "" {
		err = y.save(ctx, *fill)
	} else {
		err = measure(ctx, &y, *from, *clients, *turn)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "retention:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, y *year, from string, clients int, turn time.Duration) error {
	dir, err := os.MkdirTemp(".", ".bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := load.Build(dir)
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	if from != "" {
		err = y.load(from, data)
	} else {
		err = y.write(ctx, data)
	}
	if err != nil {
		return fmt.Errorf("write the year: %w", err)
	}
	before, err := takeStock(ctx, data)
	if err != nil {
		return err
	}
	s, err := load.StartRunbell(binary, data, "RUNBELL_RECORDING=open", "RUNBELL_API_KEY="+apiKey)
	if err != nil {
		return err
	}
	err = removeInTurns(ctx, s.URL, data, clients, turn)
	s.Stop()
	if err != nil {
		return err
	}
	after, err := takeStock(ctx, data)
	if err != nil {
		return err
	}
	printStock(before, after)
	return y.recount(ctx, data)
}

// removeInTurns has the server remove what is due, and prints what it costs others.
func removeInTurns(ctx context.Context, url, data string, clients int, turn time.Duration) error {
	c, err := client.New(url, apiKey)
	if err != nil {
		return err
	}
	if _, err := load.Play(url, clients, 3*time.Second, true); err != nil { // warm up
		return err
	}
	if err := shorten(ctx, c); err != nil {
		return err
	}
	fmt.Printf("%-8s %10s %10s %10s %10s %8s %10s %8s\n", "", "", "cycles/s", "p50", "p99", "max", "took", "ratio")
	var still, busy load.Result
	for round, more := 1, true; more; round++ {
		without, err := load.Play(url, clients, turn, true)
		if err != nil {
			return err
		}
		with, report, err := playWhileRemoving(ctx, c, url, clients)
		if err != nil {
			return err
		}
		more = report.More
		printTurn(round, "without", without, "")
		printTurn(round, "with", with, fmt.Sprintf("%.2f", ratio(with, without)))
		still, busy = still.Plus(without), busy.Plus(with)
		if more {
			if err := settle(url, data, clients); err != nil {
				return err
			}
		}
	}
	fmt.Printf("\np99 of a request: %s without, %s while rows and files go: %.2f of it\n\n", still.Latency(.99), busy.Latency(.99),
		ratio(busy, still))
	return nil
}

func ratio(a, b load.Result) float64 { return float64(a.Latency(.99)) / float64(b.Latency(.99)) }

func printTurn(round int, what string, r load.Result, ratio string) {
	fmt.Printf("%-8d %10s %10.1f %10s %10s %8s %10s %8s\n", round, what, r.Rate(), r.Latency(.5), r.Latency(.99),
		r.Latency(1).Round(time.Millisecond), r.Took.Round(100*time.Millisecond), ratio)
}

// playWhileRemoving records runs for as long as one request to remove what is due takes.
func playWhileRemoving(ctx context.Context, c *client.Client, url string, clients int) (load.Result, client.GC, error) {
	playing, stop := context.WithCancel(ctx)
	defer stop()
	var report client.Result[client.GC]
	var failed error
	go func() {
		defer stop()
		report, failed = c.GC(ctx, false)
	}()
	r, err := load.PlayUntil(playing, url, clients, true)
	<-playing.Done() // the load may have failed before
	return r, report.Value, errors.Join(err, failed)
}

// settle waits until SQLite has given back the space of what was removed: that is a
// part of removing, and must not fall into a turn without.
func settle(url, data string, clients int) error {
	const spare = 2_500 // pages that stay free
	for range 300 {
		// What is written makes SQLite bring its file up to date.
		if _, err := load.Play(url, clients, time.Second, true); err != nil {
			return err
		}
		free, err := freePages(data)
		if err != nil || free <= spare {
			return err
		}
	}
	return nil
}
