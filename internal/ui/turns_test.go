package ui

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/run"
)

// However many pages strangers ask for, making them takes a share of the time.
func TestPagesForStrangersTakeAShareOfTheTime(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			turns := newTurns()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var worked time.Duration
			var asking sync.WaitGroup
			for n := range 100 {
				asking.Go(func() {
					for ctx.Err() == nil {
						if done, err := turns.take(ctx, fmt.Sprint(n%10)); err == nil {
							time.Sleep(takes)
							worked += takes
							done()
						}
					}
				})
			}
			asking.Wait()
			if most := time.Minute/share + workAhead + takes; worked > most || worked < most/2 {
				t.Errorf("pages that take %s took %s of a minute, want %s at most", takes, worked, most)
			}
			if len(turns.lines) != 0 {
				t.Errorf("%d networks are remembered", len(turns.lines))
			}
		})
	}
}

// A network that asks for all it can keeps another one waiting for one page, and
// is told when it asks for more.
func TestNetworksTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = 50 * time.Millisecond
		turns := newTurns()
		ctx, stop := context.WithCancel(t.Context())
		for range maxWaiting {
			go func() {
				for ctx.Err() == nil {
					if done, err := turns.take(ctx, "greedy"); err == nil {
						time.Sleep(takes)
						done()
					}
				}
			}()
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, err := turns.take(ctx, "greedy"); run.KindOf(err) != run.TooMany {
			t.Errorf("one more request: %v", err)
		}
		for range 20 {
			asked := time.Now()
			done, err := turns.take(ctx, "modest")
			if waited := time.Since(asked); err != nil || waited > 2*share*takes {
				t.Fatalf("another network waited for %s, %v", waited, err)
			}
			time.Sleep(takes)
			done()
			time.Sleep(time.Second)
		}
		stop()
		synctest.Wait()
		// Who has been quiet does not wait, nor for others who do not ask.
		time.Sleep(time.Minute)
		asked := time.Now()
		for range int(workAhead / takes) {
			done, err := turns.take(t.Context(), "modest")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(takes)
			done()
		}
		if took := time.Since(asked); took > workAhead {
			t.Errorf("the first pages took %s", took)
		}
	})
}

// No request waits forever, and one that is canceled leaves nothing behind.
func TestAWaitForATurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		done, err := turns.take(t.Context(), "slow")
		if err != nil {
			t.Fatal(err)
		}
		for _, network := range []string{"slow", "another"} { // in its line, and at the turn
			if _, err := turns.take(t.Context(), network); run.KindOf(err) != run.Unavailable {
				t.Errorf("%s: %v", network, err)
			}
			gone, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := turns.take(gone, network); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s, gone: %v", network, err)
			}
			cancel()
		}
		done()
		// The turn took 22 s. The rest for that is short enough to wait for it.
		asked := time.Now()
		done, err = turns.take(t.Context(), "another")
		if waited := time.Since(asked); err != nil || waited > longestRest {
			t.Fatalf("after a long turn another network waited for %s, %v", waited, err)
		}
		done()
		if len(turns.lines) != 0 || len(turns.turn) != 0 {
			t.Errorf("%d networks are remembered", len(turns.lines))
		}
	})
}
