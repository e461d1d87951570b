package auth

import (
	"sync"
	"time"
)

// limiter counts what somebody tries in vain: so many at once, and then one
// more for each interval that passes.
type limiter struct {
	burst int
	every time.Duration

	mu   sync.Mutex
	full map[string]time.Time // when the bucket of a name will be full again
}

// maxNames bounds the memory of a limiter. Whoever makes up so many names has
// made it forget; each of the names had a try or two.
const maxNames = 10_000

func newLimiter(burst int, every time.Duration) *limiter {
	return &limiter{burst: burst, every: every, full: map[string]time.Time{}}
}

// wait is how long a name must wait for its next try; 0 is not at all.
func (l *limiter) wait(name string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	full, known := l.full[name]
	if !known {
		return 0
	}
	return max(0, time.Until(full)-time.Duration(l.burst-1)*l.every)
}

// failed counts a try.
func (l *limiter) failed(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if len(l.full) >= maxNames {
		for n, at := range l.full {
			if at.Before(now) {
				delete(l.full, n)
			}
		}
		if len(l.full) >= maxNames {
			clear(l.full)
		}
	}
	at := l.full[name]
	if at.Before(now) {
		at = now
	}
	l.full[name] = at.Add(l.every)
}

// forget forgives a name.
func (l *limiter) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.full, name)
}
