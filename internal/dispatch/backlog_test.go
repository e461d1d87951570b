package dispatch

import (
	"strconv"
	"testing"
	"time"

	"runbell/internal/store"
	"runbell/internal/webhook"
)

// claims are deliveries with the numbers from first to last, due in that order.
func claims(first, last int) (list []store.Claim) {
	for i := first; i <= last; i++ {
		list = append(list, store.Claim{Delivery: webhook.Delivery{ID: strconv.Itoa(i), DueAt: time.Unix(int64(i), 0)}})
	}
	return list
}

// When to read: the number of deliveries that are ready or unrecorded, of requests
// that may be in flight, and what is under way.
func TestBacklogWantsMore(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		set      func(*backlog)
		inFlight int
		want     bool
	}{
		"at the start":        {func(*backlog) {}, 1, true},
		"nothing more":        {func(b *backlog) { b.more = false }, 1, false},
		"a read is under way": {func(b *backlog) { b.beginRead(now, 1); b.more = true }, 1, false},
		"enough is ready":     {func(b *backlog) { b.ready = claims(1, 8) }, 1, false},
		"not for two":         {func(b *backlog) { b.ready = claims(1, 8) }, 2, true},
		"too much to record": {func(b *backlog) {
			b.add(now, query{limit: 2000}, store.Work{Claims: claims(1, maxUnrecorded)})
			b.ready = nil
			b.more = true
		}, 16, false},
		"a read has failed":     {func(b *backlog) { b.fail(now, time.Second) }, 1, false},
		"and that was long ago": {func(b *backlog) { b.fail(now.Add(-time.Second), time.Second) }, 1, true},
	} {
		b := newBacklog()
		c.set(&b)
		if got := b.wantsMore(now, c.inFlight); got != c.want {
			t.Errorf("%s: wants more is %v, want %v", name, got, c.want)
		}
	}
}

// Where reads begin: while reads come back full, each continues after the one before, for a second at most. Only a
// read from the beginning that is not full is the last.
func TestBacklogReadsOn(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBacklog()
	large := false
	read := func(after time.Duration, wantAfter string, brought ...store.Claim) {
		t.Helper()
		now = now.Add(after)
		if q := b.beginRead(now, 1); q.limit != 16 || q.after.ID != wantAfter || len(q.known) != len(b.known) {
			t.Fatalf("reads %d after %q, passing over %d; want 16 after %q, passing over %d", q.limit, q.after.ID, len(q.known), wantAfter, len(b.known))
		} else {
			b.add(now, q, store.Work{Claims: brought, Large: large})
		}
	}
	read(0, "", claims(1, 16)...)
	read(time.Millisecond, "16", claims(17, 32)...)
	read(time.Second, "", claims(33, 48)...) // from the beginning, passing over 32
	read(time.Millisecond, "48", claims(49, 50)...)
	if !b.more || len(b.ready) != 50 {
		t.Fatalf("more is %v with %d ready: a read that went on does not say that nothing is left", b.more, len(b.ready))
	}
	read(time.Millisecond, "")
	if b.more {
		t.Error("there is more after a read from the beginning that brought nothing")
	}
	large = true // one that ended early is as good as a full one
	read(0, "", claims(51, 52)...)
	large = false
	read(0, "52")
}

// Deliveries that are given back during a read are read again, from the beginning. A change outdates that read, too.
func TestBacklogGivesBack(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		back  func(*backlog)
		ready int // after the read has ended
	}{
		"given back": {(*backlog).giveBack, 16},
		"changed":    {(*backlog).outdate, 0},
	} {
		b := newBacklog()
		b.add(now, query{limit: 16}, store.Work{Claims: claims(1, 16)})
		first := b.take()
		q := b.beginRead(now, 1)
		c.back(&b)
		if !b.known[first.ID] || len(b.known) != 1 || len(b.ready) != 0 || b.unrecorded() != 1 {
			t.Errorf("%s: %v is known, want only the one in flight", name, b.known)
		}
		if b.outdated {
			b.discard()
		} else {
			b.add(now, q, store.Work{Claims: claims(17, 32)})
		}
		if len(b.ready) != c.ready || !b.more || b.outdated || b.again {
			t.Errorf("%s: %d are ready, want %d; more is %v", name, len(b.ready), c.ready, b.more)
		}
		if next := b.beginRead(now, 1); next.after != (store.QueuePosition{}) {
			t.Errorf("%s: the next read goes on after %s", name, next.after.ID)
		}
	}
}

// How long there is nothing to read.
func TestBacklogWaits(t *testing.T) {
	now, due := time.Unix(1000, 0), time.Unix(5000, 0) // two clocks
	for name, c := range map[string]struct {
		set  func(*backlog)
		want time.Duration
		more bool // a minute later
	}{
		"nothing waits":         {func(b *backlog) { b.add(now, query{limit: 16}, store.Work{}) }, forever, false},
		"the next is due later": {func(b *backlog) { b.add(now, query{limit: 16}, store.Work{Next: due.Add(time.Minute)}) }, time.Minute, true},
		"a read is under way":   {func(b *backlog) { b.beginRead(now, 1) }, forever, false},
		"a read has failed":     {func(b *backlog) { b.fail(now, time.Second) }, time.Second, true},
	} {
		b := newBacklog()
		b.more = false
		c.set(&b)
		if got := b.wait(now, due); got != c.want {
			t.Errorf("%s: a wait of %s, want %s", name, got, c.want)
		}
		b.tick(due.Add(time.Minute))
		if b.more != c.more {
			t.Errorf("%s: a minute later more is %v, want %v", name, b.more, c.more)
		}
	}
}

// Deliveries that were read a second ago are no longer used. Those in flight stay known.
func TestBacklogGoesStale(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBacklog()
	if b.stale(now.Add(time.Hour)) {
		t.Error("nothing is stale")
	}
	b.add(now, query{limit: 16}, store.Work{Claims: claims(1, 2)})
	if b.stale(now.Add(fresh)) || !b.stale(now.Add(fresh+1)) {
		t.Error("not stale after just over a second")
	}
	first := b.take()
	b.forget([]string{first.ID})
	if b.known[first.ID] || b.unrecorded() != 0 || !b.known["2"] {
		t.Errorf("%v is known after the first has been recorded", b.known)
	}
}
