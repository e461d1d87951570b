package dispatch

import (
	"maps"
	"time"

	"runbell/internal/store"
)

const (
	// mostRead limits how many deliveries one read returns.
	mostRead = 256
	// maxUnrecorded bounds how far sending may run ahead of recording.
	maxUnrecorded = 1024
	// fresh is how long deliveries and settings may be used after they were read. During
	// that time, reads continue from where the last one stopped.
	fresh = time.Second
)

// backlog is what a lane knows about the deliveries of its endpoint: which are due,
// which are in progress, and whether there are more. At most one read of the database
// runs at a time, while the lane sends.
type backlog struct {
	ready   []store.Claim   // read but not begun
	readAt  time.Time       // when they were read
	known   map[string]bool // deliveries that are ready, in flight, or not recorded
	more    bool            // there may be more to read
	next    time.Time       // when there will be more, by the database's clock; zero if nothing waits
	retryAt time.Time       // no read before this: the last one failed

	after   store.QueuePosition // where the next read goes on; zero is the beginning
	beganAt time.Time           // when a read last started from the beginning

	reading  bool
	outdated bool // the result of the current read must not be used
	again    bool // deliveries were given back during a read: the next one starts from the beginning
}

// newBacklog makes an empty backlog, which wants a read.
func newBacklog() backlog { return backlog{known: map[string]bool{}, more: true} }

// query says what to read.
type query struct {
	after store.QueuePosition
	limit int
	known map[string]bool
}

// wantsMore reports whether to read now, if inFlight requests may be in flight. A read
// takes a while, so it begins while some deliveries are left. It does not begin too
// early, because a read from the beginning skips the known ones.
func (b *backlog) wantsMore(now time.Time, inFlight int) bool {
	return b.more && !b.reading && len(b.ready) < 8*inFlight && len(b.known) < maxUnrecorded && !now.Before(b.retryAt)
}

// beginRead says what to read. While there is much to read, it continues from where
// the last read stopped, so that known deliveries are not read again.
func (b *backlog) beginRead(now time.Time, inFlight int) query {
	b.reading, b.more = true, false
	if now.Sub(b.beganAt) > fresh {
		b.after = store.QueuePosition{} // deliveries queued before that position have waited long enough
	}
	if b.after == (store.QueuePosition{}) {
		b.beganAt = now
	}
	return query{after: b.after, limit: min(16*inFlight, mostRead), known: maps.Clone(b.known)}
}

// fail ends a read that failed. The next one waits for a pause.
func (b *backlog) fail(now time.Time, pause time.Duration) {
	b.more, b.retryAt = true, now.Add(pause)
	b.discard()
}

// discard ends a read whose result is not used.
func (b *backlog) discard() {
	b.more = b.more || b.outdated
	b.reading, b.outdated, b.again = false, false, false
}

// add ends a read and takes over its deliveries.
func (b *backlog) add(now time.Time, q query, w store.Work) {
	b.readAt, b.next = now, w.Next
	full := len(w.Claims) == q.limit || w.Large
	// Only a read from the beginning that is not full proves that nothing is left.
	b.more = b.more || full || q.after != (store.QueuePosition{})
	b.after = store.QueuePosition{}
	if full && !b.again {
		last := w.Claims[len(w.Claims)-1]
		b.after = store.QueuePosition{Due: last.DueAt, ID: last.ID}
	}
	for _, c := range w.Claims {
		b.known[c.ID] = true
	}
	b.ready = append(b.ready, w.Claims...)
	b.reading, b.again = false, false
}

// stale reports whether the ready deliveries were read too long ago.
func (b *backlog) stale(now time.Time) bool { return len(b.ready) > 0 && now.Sub(b.readAt) > fresh }

// outdate notes that settings or deliveries have changed: a read that is running
// may have missed the change.
func (b *backlog) outdate() {
	b.outdated = b.outdated || b.reading
	b.giveBack()
}

// giveBack forgets the deliveries that were read but not begun.
func (b *backlog) giveBack() {
	for _, c := range b.ready {
		delete(b.known, c.ID)
	}
	b.more = b.more || len(b.ready) > 0
	b.ready, b.after, b.again = nil, store.QueuePosition{}, b.reading
}

// take removes the first ready delivery. It stays known until it is recorded.
func (b *backlog) take() store.Claim {
	c := b.ready[0]
	b.ready = b.ready[1:]
	return c
}

// unrecorded is how many deliveries have begun but are not recorded.
func (b *backlog) unrecorded() int { return len(b.known) - len(b.ready) }

// forget drops recorded deliveries. A read that is running skips them, so it does not
// return them.
func (b *backlog) forget(ids []string) {
	for _, id := range ids {
		delete(b.known, id)
	}
}

// tick looks again once the next delivery is due, by the database's clock.
func (b *backlog) tick(now time.Time) {
	if !b.next.IsZero() && !b.next.After(now) {
		b.more = true
	}
}

// wait returns how long there will be nothing to read. due is the current time by
// the database's clock.
func (b *backlog) wait(now, due time.Time) time.Duration {
	switch {
	case b.reading, len(b.known) >= maxUnrecorded:
		return forever // until it is read, or recorded
	case b.more:
		return b.retryAt.Sub(now)
	case b.next.IsZero():
		return forever
	default:
		return b.next.Sub(due)
	}
}
