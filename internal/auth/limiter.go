package auth

import (
	"container/heap"
	"sync"
	"time"
)

// limiter limits failed attempts per name: burst at once, then one more each
// interval.
//
// It remembers a bounded number of names. When it is full it drops the name that
// owes the least, and from then on a name that it does not know owes as much as any
// that was dropped: it may be that one. So filling the limiter with invented
// names gives nobody a new attempt.
type limiter struct {
	burst int
	every time.Duration
	limit int // names remembered

	mu    sync.Mutex
	names map[string]*debt
	debts debts
	floor time.Time // what a name that is not remembered may owe
}

// debt is what one name owes: it has all its attempts again at paid.
type debt struct {
	name string
	paid time.Time
	at   int // index in the heap
}

// rememberedNames bounds the memory of a limiter, to about 2 MB.
const rememberedNames = 10_000

func newLimiter(burst int, every time.Duration) *limiter {
	return &limiter{burst: burst, every: every, limit: rememberedNames, names: map[string]*debt{}}
}

// take takes one attempt of a name, or returns how long to wait for one. It is
// called before the attempt, so that attempts made at the same time all count.
func (l *limiter) take(name string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	d := l.names[name]
	paid := l.floor
	if d != nil {
		paid = d.paid
	}
	if paid.Before(now) {
		paid = now
	}
	if wait := paid.Sub(now) - time.Duration(l.burst-1)*l.every; wait > 0 {
		return wait
	}
	l.set(name, paid.Add(l.every))
	return 0
}

// set stores what a name owes, and makes room for it.
func (l *limiter) set(name string, paid time.Time) {
	if d := l.names[name]; d != nil {
		d.paid = paid
		heap.Fix(&l.debts, d.at)
		return
	}
	if len(l.names) >= l.limit {
		least := heap.Pop(&l.debts).(*debt)
		delete(l.names, least.name)
		if least.paid.After(l.floor) { // a new name may owe less than one that was dropped
			l.floor = least.paid
		}
	}
	d := &debt{name: name, paid: paid}
	l.names[name] = d
	heap.Push(&l.debts, d)
}

// giveBack returns an attempt that succeeded.
func (l *limiter) giveBack(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.names[name]; d != nil {
		l.set(name, d.paid.Add(-l.every))
	}
}

// debts is a heap with the smallest debt first.
type debts []*debt

func (d debts) Len() int           { return len(d) }
func (d debts) Less(i, j int) bool { return d[i].paid.Before(d[j].paid) }
func (d debts) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].at, d[j].at = i, j
}
func (d *debts) Push(x any) {
	n := x.(*debt)
	n.at = len(*d)
	*d = append(*d, n)
}
func (d *debts) Pop() any {
	old := *d
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return last
}
