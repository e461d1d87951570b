package database

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// processorTime is what this process has used of the processors so far. It
// depends less than the clock on what else the machine does.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWrite is what a transaction costs with 16 callers at once, and what
// those that fail cost the others. Jobs that fail do so before or after a write.
func BenchmarkWrite(b *testing.B) {
	for _, failing := range []int{0, 30} {
		for _, when := range []string{"before", "after"} {
			if failing == 0 && when == "after" {
				continue
			}
			b.Run(fmt.Sprintf("failing=%d%%/%s", failing, when), func(b *testing.B) {
				db, _ := newLedger(b)
				refused, text := errors.New("refused"), strings.Repeat("x", 500)
				var next, succeeded atomic.Int64
				var wg sync.WaitGroup
				used := processorTime(b)
				b.ResetTimer()
				for range 16 {
					wg.Go(func() {
						for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
							fails := int(n%10) < failing/10
							err := db.Write(b.Context(), func(tx *Tx) error {
								if fails && when == "before" {
									return refused
								}
								for k := range int64(5) { // as a request does
									if _, err := tx.Exec(b.Context(), `INSERT INTO ledger VALUES ($1, $2)`, n*5+k, text); err != nil {
										return err
									}
								}
								if fails {
									return refused
								}
								return nil
							})
							if err == nil {
								succeeded.Add(1)
							} else if !errors.Is(err, refused) {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64((processorTime(b)-used).Microseconds())/float64(b.N), "cpu-µs/op")
				b.ReportMetric(float64(succeeded.Load())/b.Elapsed().Seconds(), "committed/s")
			})
		}
	}
}
