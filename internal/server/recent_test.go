package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRecentLooksOnceForEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		takes := 10 * time.Millisecond
		r := newRecent(5*time.Second, func() (int64, error) {
			time.Sleep(takes)
			return looks.Add(1), nil
		})
		ask := func(want int64) {
			t.Helper()
			var asking sync.WaitGroup
			for range 100 {
				asking.Go(func() {
					if got, err := r.get(t.Context()); got != want || err != nil {
						t.Errorf("got %d, %v, want %d", got, err, want)
					}
				})
			}
			asking.Wait()
		}
		ask(1)
		time.Sleep(4 * time.Second)
		ask(1)
		time.Sleep(time.Second)
		takes = time.Second
		ask(2)
		// A look that takes a second is not repeated for twenty.
		time.Sleep(19 * time.Second)
		ask(2)
		time.Sleep(time.Second)
		takes = time.Hour
		ask(3)
		time.Sleep(59 * time.Second)
		ask(3)
		time.Sleep(time.Second)
		takes = 10 * time.Second
		// Nobody waits for longer than they want. The look goes on for those who do.
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 {
			if _, err := r.get(soon); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
		}
		ask(4)
	})
}
