package database

import (
	"sync/atomic"
	"time"
)

// clock tells the time of a process that has the database to itself. It follows the
// machine's clock when that is set forward, or has advanced while the machine was
// suspended. When the machine's clock is set back, clock continues from its last time:
// deadlines do not move away, and no row is older than the one before it.
type clock struct {
	start time.Time
	ahead atomic.Int64 // nanoseconds that the wall clock gained on the monotonic one since start
}

func newClock() *clock { return &clock{start: time.Now()} }

// now is in UTC and whole microseconds.
func (c *clock) now() time.Time {
	now := time.Now()
	return c.at(now.Sub(c.start), now.Round(0)) // without the monotonic reading
}

// at returns the time when elapsed has passed by the monotonic clock and the machine's
// clock shows wall.
func (c *clock) at(elapsed time.Duration, wall time.Time) time.Time {
	steady := c.start.Round(0).Add(elapsed)
	ahead := int64(wall.Sub(steady))
	for {
		before := c.ahead.Load()
		if ahead <= before {
			ahead = before
			break
		}
		if c.ahead.CompareAndSwap(before, ahead) {
			break
		}
	}
	return steady.Add(time.Duration(ahead)).UTC().Truncate(time.Microsecond)
}
