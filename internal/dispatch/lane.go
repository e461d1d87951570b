package dispatch

import (
	"context"
	"maps"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	// mostRead is how many deliveries are read at once at most.
	mostRead = 256
	// maxUnrecorded bounds how far sending may run ahead of recording.
	maxUnrecorded = 1024
	// fresh is for how long settings and deliveries that were read are used, and
	// reads go on from where the last one stopped.
	fresh = time.Second
	// linger is for how long a lane with nothing to do stays: the next event finds
	// open connections.
	linger = 30 * time.Second
	// forever is the wait for something that is told, and not a matter of time.
	forever = time.Hour
	// fullHouse is the wait when the process has no place for another request.
	fullHouse = 50 * time.Millisecond

	// An endpoint struggles after so many failures in a row; one without an
	// answer counts for all of them. Then it gets one request at a time, with
	// pauses that grow. So it costs the others nothing, and is not knocked down
	// again when it comes back.
	struggles    = 3
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// lane delivers to one endpoint. What is in it belongs to the goroutine of run,
// unless it says otherwise.
type lane struct {
	engine *Engine
	id     string

	wake chan struct{} // size 1: look again
	work chan job
	sent chan sent
	read chan readResult

	changed  atomic.Bool // what was read is not to be used
	mu       sync.Mutex
	recorded []string // guarded: deliveries whose outcome has been stored

	setup    *setup
	window   int           // how many requests may be in flight; grows with successes
	trouble  int           // failures in a row
	pause    time.Time     // nothing begins before: a pause, the rate, or Retry-After
	ready    []store.Claim // read and not begun
	readAt   time.Time
	retryAt  time.Time // when to read again after an error
	reading  bool
	outdated bool                // what is being read is not to be used
	after    store.QueuePosition // where the next read goes on; zero is from the beginning
	again    bool                // what was read has been given back during a read: the next one is from the beginning
	beganAt  time.Time           // when a read was from the beginning
	more     bool                // there may be more to read
	next     time.Time           // when there will be; zero if nothing waits
	known    map[string]bool     // deliveries that are ready, in flight, or not recorded
	late     []string            // recorded during a read, which may not have seen it

	inFlight  int
	workers   int
	done      []*store.Outcome // to be recorded
	recording bool             // some are: one batch at a time, so that the endpoint's health is the last one's
	gone      bool             // disabled, deleted, or another process's
	refused   string           // the delivery that was answered with 410
	idleAt    time.Time        // since when there is nothing to do; zero if there is
}

// readResult is what a look into the database brought.
type readResult struct {
	work  store.Work
	after store.QueuePosition
	limit int
	err   error
}

func newLane(e *Engine, id string) *lane {
	return &lane{engine: e, id: id, wake: make(chan struct{}, 1), work: make(chan job, webhook.MaxInFlight), sent: make(chan sent, webhook.MaxInFlight),
		read: make(chan readResult, 1), known: map[string]bool{}, more: true, window: 1}
}

// poke has the lane look again. It may be called from any goroutine.
func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // it will
	}
}

// run delivers until there is nothing to do, or ctx ends.
func (l *lane) run(ctx context.Context) {
	defer close(l.work)
	if !l.take(ctx) {
		return
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		stopping := ctx.Err() != nil
		changed := l.changed.Swap(false)
		l.outdated = l.outdated || changed && l.reading
		if stopping || l.gone || changed || (len(l.ready) > 0 && time.Since(l.readAt) > fresh) {
			l.unread()
		}
		if !stopping && l.wantsMore() {
			l.readMore(ctx)
		}
		wait := forever // until what is in flight has ended
		if !stopping && !l.gone {
			wait = l.begin()
		}
		if l.idle(stopping) {
			if l.idleAt.IsZero() {
				l.idleAt = time.Now()
			}
			rest := linger - time.Since(l.idleAt)
			if stopping || l.gone || (wait > linger && rest <= 0) {
				if l.leave(ctx) {
					return
				}
				wait = 0 // it was poked: that is what happens next
			}
			if rest > 0 {
				wait = min(wait, rest)
			}
		} else {
			l.idleAt = time.Time{}
		}
		timer.Reset(min(wait, longestSleep))
		l.await(ctx, timer.C, stopping)
	}
}

// await waits for what may happen to a lane and takes note of it.
func (l *lane) await(ctx context.Context, timer <-chan time.Time, stopping bool) {
	recorder, stop := l.engine.recorder.in, ctx.Done()
	if len(l.done) == 0 || l.recording {
		recorder = nil
	}
	if stopping {
		stop = nil
	}
	select {
	case s := <-l.sent:
		l.settle(s)
		for range len(l.sent) {
			l.settle(<-l.sent)
		}
	case r := <-l.read:
		l.takeRead(ctx, r)
	case recorder <- batch{l, l.done}:
		l.done, l.recording = nil, true
	case <-l.wake:
		l.forgetRecorded()
		// Whatever kept us out may have changed, once it is recorded.
		l.more, l.gone = true, l.known[l.refused]
	case <-timer:
		if !l.next.IsZero() && !l.next.After(l.engine.DB.Now()) {
			l.more = true
		}
	case <-stop:
	}
}

// take makes the lane this process's. If it is another's, that one is told.
func (l *lane) take(ctx context.Context) bool {
	for l.engine.node != "" {
		taken := false
		err := l.engine.DB.Write(ctx, func(tx *store.Tx) (err error) {
			taken, err = tx.TakeLane(ctx, l.id, l.engine.node, tx.Now.Add(lease))
			if err == nil && !taken {
				err = tx.Tell(ctx, l.id)
			}
			return err
		})
		if taken && err == nil {
			return true
		}
		if err != nil && ctx.Err() == nil {
			l.engine.Log.Error("cannot take the lane of a webhook, trying again", "endpoint", l.id, "error", err)
			pause(ctx, errorPause)
			continue
		}
		if l.engine.forget(l) {
			return false
		}
		<-l.wake
	}
	return true
}

// leave ends the lane, unless it was poked meanwhile.
func (l *lane) leave(ctx context.Context) bool {
	if l.engine.node != "" {
		// Should it fail, the lane is found by the next scan, of this process.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), errorPause)
		_ = l.engine.DB.Write(ctx, func(tx *store.Tx) error { return tx.LeaveLane(ctx, l.id, l.engine.node) })
		cancel()
	}
	return l.engine.forget(l) || !l.take(ctx)
}

// idle says that the lane has nothing in hand.
func (l *lane) idle(stopping bool) bool {
	return l.inFlight == 0 && len(l.done) == 0 && len(l.known) == 0 && !l.reading && (!l.more || stopping || l.gone || l.paused() > 0)
}

// paused is how long it is until a request may begin.
func (l *lane) paused() time.Duration { return time.Until(l.pause) }

func (l *lane) holdOff(until time.Time) {
	if until.After(l.pause) {
		l.pause = until
	}
}

// limit is how many requests may be in flight.
func (l *lane) limit() int {
	if l.setup == nil {
		return l.window // nothing has been read yet
	}
	return min(l.window, l.setup.endpoint.MaxInFlight)
}

func (l *lane) struggling() bool { return l.trouble >= struggles }

// wantsMore says whether to read. That takes a while, so some are left then; but
// a read from the beginning passes over those that are known.
func (l *lane) wantsMore() bool {
	return l.more && !l.reading && !l.gone && !l.occupied() && len(l.ready) < 8*l.limit() && len(l.known) < maxUnrecorded &&
		l.paused() <= 0 && time.Until(l.retryAt) <= 0
}

// occupied says that the one request of an endpoint that struggles is in flight:
// it may take long, and what was read meanwhile would be old.
func (l *lane) occupied() bool { return l.struggling() && l.inFlight > 0 }

// readMore looks for what is due, beside the work. As long as there is much of it,
// it goes on from where it stopped, and does not pass over all that is known.
func (l *lane) readMore(ctx context.Context) {
	l.reading, l.more = true, false
	if time.Since(l.beganAt) > fresh {
		l.after = store.QueuePosition{} // what came to stand before has waited long enough
	}
	if l.after == (store.QueuePosition{}) {
		l.beganAt = time.Now()
	}
	known, r := maps.Clone(l.known), readResult{after: l.after, limit: min(16*l.limit(), mostRead)}
	go func() {
		r.err = l.engine.DB.Read(ctx, func(tx *store.Tx) (err error) {
			r.work, err = tx.Work(ctx, l.id, r.after, r.limit, known)
			return err
		})
		l.read <- r
	}()
}

// takeRead takes over what was read.
func (l *lane) takeRead(ctx context.Context, r readResult) {
	outdated, again := l.outdated, l.again
	l.reading, l.outdated, l.again = false, false, false
	switch {
	case outdated:
		l.more = true
	case run.KindOf(r.err) == run.NotFound:
		l.gone = true // deleted
	case r.err != nil:
		if ctx.Err() == nil {
			l.engine.Log.Error("cannot read due deliveries, trying again", "endpoint", l.id, "error", r.err)
		}
		l.more, l.retryAt = true, time.Now().Add(errorPause)
	case !r.work.Endpoint.Enabled || r.work.Node != l.engine.node:
		l.gone = true
	default:
		if l.setup == nil {
			l.trouble = r.work.Failures // as the lane before has left it
		}
		l.prepare(r.work)
		l.readAt, l.next = time.Now(), r.work.Next
		full := len(r.work.Claims) == r.limit
		// Only a read from the beginning says that nothing is left.
		l.more = l.more || full || r.after != (store.QueuePosition{})
		l.after = store.QueuePosition{}
		if full && !again {
			last := r.work.Claims[r.limit-1]
			l.after = store.QueuePosition{Due: last.DueAt, ID: last.ID}
		}
		l.holdOff(time.Now().Add(r.work.Hold.Sub(l.engine.DB.Now())))
		for _, c := range r.work.Claims {
			l.known[c.ID] = true
		}
		l.ready = append(l.ready, r.work.Claims...)
	}
	for _, id := range l.late {
		delete(l.known, id)
	}
	l.late = nil
}

// prepare makes the set-up anew if the endpoint has changed.
func (l *lane) prepare(w store.Work) {
	if l.setup == nil || !reflect.DeepEqual(l.setup.endpoint, w.Endpoint) {
		l.setup = newSetup(w, l.engine.userAgent, l.engine.Log)
	}
}

// unread gives back what was read and not begun.
func (l *lane) unread() {
	for _, c := range l.ready {
		delete(l.known, c.ID)
	}
	l.more = l.more || len(l.ready) > 0
	l.ready, l.after, l.again = nil, store.QueuePosition{}, l.reading
}

// forgetRecorded drops what has been recorded. A read that is under way may
// still bring it, so it stays known until then.
func (l *lane) forgetRecorded() {
	l.mu.Lock()
	ids := l.recorded
	l.recorded = nil
	l.mu.Unlock()
	if len(ids) > 0 {
		l.recording = false
	}
	if l.reading {
		l.late = append(l.late, ids...)
		return
	}
	for _, id := range ids {
		delete(l.known, id)
	}
}

// begin begins what may begin, and says how long it is until more may.
func (l *lane) begin() time.Duration {
	for len(l.ready) > 0 {
		struggling := l.struggling()
		switch {
		case l.changed.Load():
			return 0
		case l.inFlight >= l.limit(), len(l.known)-len(l.ready) >= maxUnrecorded:
			return forever // until something is settled or recorded
		case l.paused() > 0:
			return l.paused()
		case !l.engine.leased():
			return errorPause
		case !l.engine.admit(struggling, l.inFlight == 0):
			return fullHouse
		}
		if l.inFlight == l.workers {
			l.workers++
			go l.worker()
		}
		l.inFlight++
		l.work <- job{l.setup, l.ready[0], struggling}
		l.ready = l.ready[1:]
		if rate := l.setup.endpoint.RatePerMinute; rate > 0 {
			l.holdOff(time.Now().Add(time.Minute/time.Duration(rate) + 1)) // rounded up
		}
	}
	switch {
	case l.reading, len(l.known) >= maxUnrecorded, l.occupied():
		return forever // until it is read, recorded, or settled
	case l.more && !l.gone:
		return max(l.paused(), time.Until(l.retryAt), 0)
	case l.next.IsZero():
		return forever
	default:
		return max(l.next.Sub(l.engine.DB.Now()), l.paused(), 0)
	}
}

// settle takes note of an attempt that ended.
func (l *lane) settle(s sent) {
	l.inFlight--
	l.engine.release(s.struggling)
	d := s.outcome.Decision
	if d.Hold > 0 {
		l.holdOff(time.Now().Add(d.Hold))
	}
	if d.State == webhook.Delivered {
		l.trouble, l.window = 0, min(2*l.window, webhook.MaxInFlight)
	} else {
		l.trouble++
		if s.outcome.Attempt.Status == 0 {
			l.trouble = max(l.trouble, struggles)
		}
		if l.struggling() {
			l.window = 1
			l.holdOff(time.Now().Add(min(firstPause<<min(l.trouble-struggles, 10), longestPause)))
		}
		if d.Gone {
			l.gone, l.refused = true, s.outcome.Delivery.ID
		}
	}
	s.outcome.Failures = l.trouble
	l.done = append(l.done, s.outcome)
}

// hasRecorded is told by the recorder what is stored. It may be called from any
// goroutine.
func (l *lane) hasRecorded(outcomes []*store.Outcome) {
	l.mu.Lock()
	for _, o := range outcomes {
		l.recorded = append(l.recorded, o.Delivery.ID)
	}
	l.mu.Unlock()
	l.poke()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
