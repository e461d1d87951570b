// Command strangers measures what attackers cost those who record runs. It starts
// the built server on SQLite and lets well-behaved machines record runs, alone
// and beside one attack at a time, in turns, and at the end beside all attacks at
// once. Package load says what a machine sends.
//
// Each attack has a fixed pace, so that it measures what the server spends on a
// request, not how many requests the load can make: attackers, machines and
// server share the processors.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"runbell/bench/load"
)

// What the server is held to beside every attack.
const (
	leastRate   = 0.9 // of the rate alone
	mostLatency = 50 * time.Millisecond
	mostMemory  = 400 // MiB
)

type options struct {
	turn     time.Duration
	rounds   int
	machines int
	waiting  int
	only     string
}

func main() {
	var o options
	flag.DurationVar(&o.turn, "for", 3*time.Second, "how long each turn takes, alone and beside an attack")
	flag.IntVar(&o.rounds, "rounds", 2, "how many times the turns alone and beside an attack are repeated")
	flag.IntVar(&o.machines, "machines", 16, "how many machines record runs")
	flag.IntVar(&o.waiting, "waiting", 200_000, "how many deliveries wait in the database")
	flag.StringVar(&o.only, "only", "", "measure this attack only, by its name in the output")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Measure what attackers cost those who record runs.\n\nAttacks:\n")
		for _, a := range attacks() {
			fmt.Fprintf(flag.CommandLine.Output(), "  %-22s %s\n", a.name, a.about)
		}
		fmt.Fprintf(flag.CommandLine.Output(), "\nFlags:\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := measure(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "strangers:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, o options) error {
	chosen, err := choose(attacks(), o.only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(".", ".bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	data := filepath.Join(dir, "data")
	if err := generate(ctx, data, o.waiting); err != nil {
		return fmt.Errorf("fill the database: %w", err)
	}
	binary, err := load.Build(dir)
	if err != nil {
		return err
	}
	s, err := load.StartRunbell(binary, data)
	if err != nil {
		return err
	}
	defer s.Stop()
	t := newTarget(s.URL)
	if t.run, t.page, err = recordLargeSpec(s.URL); err != nil {
		return fmt.Errorf("record a large spec: %w", err)
	}
	if _, err := load.Play(s.URL, o.machines, o.turn, true); err != nil { // warm up
		return err
	}

	fmt.Printf("%d machines, gzip; %d deliveries wait. Aims: ratio %.1f, p99 %s, memory %d MiB; ! marks what misses one.\n"+
		"CPU is what the attack cost the server, in percent of one processor.\n\n",
		o.machines, o.waiting, leastRate, mostLatency, mostMemory)
	fmt.Printf("%-20s %9s %9s %8s %10s %10s %8s %9s  %s\n", "beside", "alone/s", "beside/s", "ratio", "p99 alone", "p99",
		"MiB", "CPU", "answers to the attack")
	for _, a := range chosen {
		if err := o.turns(ctx, s, t, a.name, []attack{a}); err != nil {
			return err
		}
	}
	if len(chosen) > 1 {
		return o.turns(ctx, s, t, "all at once", chosen)
	}
	return nil
}

// turns measures the machines alone and beside attacks, in turns, and prints a
// line.
func (o options) turns(ctx context.Context, s *load.Server, t *target, name string, attacks []attack) error {
	var alone, beside load.Result
	var cpuAlone, cpuBeside time.Duration
	var answers tally
	memory := 0
	for range o.rounds {
		before := s.CPU()
		r, err := load.Play(s.URL, o.machines, o.turn, true)
		if err != nil {
			return fmt.Errorf("alone, before %s: %w", name, err)
		}
		alone, cpuAlone = alone.Plus(r), cpuAlone+s.CPU()-before
		if err := s.ResetPeak(); err != nil {
			return err
		}
		before = s.CPU()
		stop := begin(ctx, t, attacks, &answers)
		r, err = load.Play(s.URL, o.machines, o.turn, true)
		stop()
		if err != nil {
			return fmt.Errorf("beside %s: %w", name, err)
		}
		beside, cpuBeside = beside.Plus(r), cpuBeside+s.CPU()-before
		memory = max(memory, s.PeakRSS())
	}
	ratio, p99 := beside.Rate()/alone.Rate(), beside.Latency(0.99)
	// What the machines did not cost, by what they cost alone.
	attack := cpuBeside.Seconds() - cpuAlone.Seconds()/float64(alone.Cycles)*float64(beside.Cycles)
	mark := func(missed bool) string {
		if missed {
			return "!"
		}
		return " "
	}
	fmt.Printf("%-20s %9.0f %9.0f %7.2f%s %10s %9s%s %7d%s %8.0f%%  %s\n", name, alone.Rate(), beside.Rate(), ratio,
		mark(ratio < leastRate), alone.Latency(0.99), p99, mark(p99 > mostLatency), memory, mark(memory > mostMemory),
		100*attack/beside.Took.Seconds(), &answers)
	return nil
}
