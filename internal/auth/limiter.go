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

// take takes one of a name's tries. If there is none, it answers how long to wait
// for one. It is taken before the try: many that begin at once are as many tries.
func (l *limiter) take(name string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	at, known := l.full[name]
	if at.Before(now) {
		at = now
	}
	if wait := at.Sub(now) - time.Duration(l.burst-1)*l.every; wait > 0 {
		return wait
	}
	if !known && len(l.full) >= maxNames {
		for n, at := range l.full {
			if at.Before(now) {
				delete(l.full, n)
			}
		}
		if len(l.full) >= maxNames {
			clear(l.full)
		}
	}
	l.full[name] = at.Add(l.every)
	return 0
}

// giveBack gives a try back that was not in vain.
func (l *limiter) giveBack(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, known := l.full[name]; known {
		l.full[name] = at.Add(-l.every)
	}
}

// forget forgives a name.
func (l *limiter) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.full, name)
}
