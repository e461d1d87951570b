package database

import (
	"testing"
	"time"
)

// Whatever happens to the machine's clock, a deadline comes in time: no later than
// it would have, and no time comes before one that has been told already.
func TestClock(t *testing.T) {
	start := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	type step struct {
		elapsed time.Duration // by the monotonic clock, since start
		wall    time.Duration // on the machine's clock, since start
		want    time.Duration
	}
	for name, steps := range map[string][]step{
		"nothing happens":          {{0, 0, 0}, {time.Second, time.Second, time.Second}},
		"set forward":              {{time.Second, time.Second, time.Second}, {2 * time.Second, time.Hour, time.Hour}, {3 * time.Second, time.Hour + time.Second, time.Hour + time.Second}},
		"suspended":                {{time.Second, time.Second, time.Second}, {time.Second, 8 * time.Hour, 8 * time.Hour}},
		"set back":                 {{time.Minute, time.Minute, time.Minute}, {2 * time.Minute, -time.Hour, 2 * time.Minute}, {time.Hour, -time.Minute, time.Hour}},
		"set back and right again": {{time.Minute, time.Minute, time.Minute}, {2 * time.Minute, -time.Hour, 2 * time.Minute}, {3 * time.Minute, 3 * time.Minute, 3 * time.Minute}},
	} {
		c := &clock{start: start}
		for _, s := range steps {
			if got := c.at(s.elapsed, start.Add(s.wall)).Sub(start); got != s.want {
				t.Errorf("%s: %v after %v of work and with %v on the clock, want %v", name, got, s.elapsed, s.wall, s.want)
			}
		}
	}
	if now := newClock().now(); time.Since(now).Abs() > time.Minute || now.Location() != time.UTC {
		t.Errorf("now is %v", now)
	}
}
