// Package body receives the bodies of requests, and decodes their JSON. Whatever
// is sent, and by however many, what it costs has a bound:
//
// A body is received as it was sent, and takes from a budget what has arrived of
// it. It must arrive at a minimum rate. When the budget is used up, a large body is
// refused, with 503: one that has stopped coming, or else the last to begin. Nothing
// else waits for a peer.
//
// Then it is measured, which needs no memory: bytes after gzip, values, depth and
// the length of strings have limits. Only then is it decoded, when there is room
// for what that takes.
package body

import (
	"cmp"
	"compress/gzip"
	"context"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"runbell/internal/run"
)

// Room is the memory that all decoding together may take.
type Room struct {
	size int64
	free *semaphore.Weighted
}

// NewRoom makes room for size bytes.
func NewRoom(size int64) *Room { return &Room{size, semaphore.NewWeighted(size)} }

// take waits for n bytes, or for everything if that is less, and says how many
// there are to give back.
func (r *Room) take(ctx context.Context, n int64) (int64, error) {
	n = min(n, r.size)
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	if r.free.Acquire(ctx, n) != nil {
		return 0, errBusy
	}
	return n, nil
}

// maxWait is how long a body waits to be decoded. Clients wait 30 s for an answer.
const maxWait = 15 * time.Second

var errBusy = run.Errorf(run.Unavailable, "The server is busy with other large requests: try again.")

// Pool is a budget for bodies that are received or wait to be decoded.
type Pool struct {
	room  *Room
	slots chan struct{} // who measures a large body
	// unpackers keeps the 40 KB of a gzip.Reader for the next: it makes a fifth of
	// what a packed body costs.
	unpackers sync.Pool

	mu      sync.Mutex
	size    int64
	used    int64
	reading map[*Body]bool
}

// NewPool makes a budget of size bytes. slots is how many large bodies may be
// measured at a time, and so how many processors that takes at most.
func NewPool(size int64, slots int, room *Room) *Pool {
	return &Pool{room: room, slots: make(chan struct{}, slots),
		unpackers: sync.Pool{New: func() any { return new(gzip.Reader) }}, size: size, reading: map[*Body]bool{}}
}

// begin lists a body among those that may be refused for others.
func (p *Pool) begin(b *Body) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reading[b] = true
}

// end says that a body has arrived.
func (p *Pool) end(b *Body) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.reading, b)
}

// charge takes n bytes for a body, from those that are being received if need be.
func (p *Pool) charge(b *Body, n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if over := p.used + int64(n) - p.size; over > 0 {
		p.refuse(b, over)
	}
	if b.refused || p.used+int64(n) > p.size {
		return errBusy
	}
	p.used += int64(n)
	b.held += n
	b.grew = time.Now()
	return nil
}

// refuse frees at least n bytes: it ends the bodies that are worth it. It frees some
// more, so that the next does not look again, and stops at the body b it is done for.
func (p *Pool) refuse(b *Body, n int64) {
	now := time.Now()
	order := make([]*Body, 0, len(p.reading))
	for other := range p.reading {
		order = append(order, other)
	}
	slices.SortFunc(order, func(x, y *Body) int {
		rank := p.rank(x, now)
		if byRank := cmp.Compare(rank, p.rank(y, now)); byRank != 0 || rank != large {
			return cmp.Or(byRank, cmp.Compare(y.burden(now), x.burden(now)))
		}
		return y.began.Compare(x.began)
	})
	for n += p.size / 16; n > 0 && len(order) > 0; order = order[1:] {
		victim := order[0]
		n -= int64(victim.held)
		p.used -= int64(victim.held)
		victim.held, victim.refused = 0, true
		delete(p.reading, victim)
		victim.interrupt()
		if victim == b {
			return
		}
	}
}

// The order in which bodies are refused. Those that hold much and stopped coming are
// first, the one that has held the most for the longest before others. Of large ones that keep coming, the
// last to begin is first: if each ended those before it, and was ended when they are
// sent again, none would ever arrive.
const (
	stuck = iota
	large
	usual
)

func (p *Pool) rank(b *Body, now time.Time) int {
	switch {
	case b.held > int(p.size/64) && now.Sub(b.grew) > steady:
		return stuck
	case max(b.held, b.promised) > int(p.size/8):
		return large
	default:
		return usual
	}
}

// steady is how long a body that keeps coming takes for a piece, at most.
const steady = 5 * time.Second

// refused says whether a body was refused for others while it was received.
func (p *Pool) refused(b *Body) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return b.refused
}

// free gives back what a body holds.
func (p *Pool) free(b *Body) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.reading, b)
	p.used -= int64(b.held)
	b.held = 0
}

// burden is what a body that is being received costs others: bytes held, times
// seconds.
func (b *Body) burden(now time.Time) float64 {
	return float64(b.held+1) * (now.Sub(b.began).Seconds() + 0.01)
}

// interrupt ends a read that waits for the peer.
func (b *Body) interrupt() {
	// Where there is no connection, as in tests, nothing waits.
	_ = b.conn.SetReadDeadline(time.Unix(1, 0))
}

// Refuse readies a request to be answered although its body was not read: the
// server then reads what is left of it, up to a limit of its own, and must not
// wait long for it.
func Refuse(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(maxDiscard))
}

const maxDiscard = 2 * time.Second

// Pools are the budgets of a server.
type Pools struct {
	// Strangers is for bodies whose sender is not known before they are read.
	Strangers *Pool
	// Known is for bodies of those who showed a key or an id that is a secret.
	Known *Pool
}

// The budgets, in bytes. The largest body that may be sent fits into known, and
// the largest of a stranger twice into strangers.
const (
	strangers = 32 << 20
	known     = 80 << 20
	decoding  = 160 << 20
)

// NewPools makes the budgets of a server.
func NewPools() Pools {
	room := NewRoom(decoding)
	return Pools{Strangers: NewPool(strangers, 1, room), Known: NewPool(known, runtime.GOMAXPROCS(0), room)}
}
