package dispatch

import (
	"context"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	// linger is how long a lane with nothing to do stays, so that the next event finds
	// open connections.
	linger = 30 * time.Second
	// forever is the wait for something that wakes the lane, whenever it happens.
	forever = time.Hour
	// fullHouse is the wait when the process has no room for another request.
	fullHouse = 50 * time.Millisecond
)

// lane delivers to one endpoint. Its fields belong to the goroutine of run, apart
// from those that say otherwise.
type lane struct {
	engine *Engine
	id     string

	wake chan struct{} // size 1: look again
	work chan job
	sent chan sent
	read chan result

	changed  atomic.Bool // settings or deliveries changed: those already read must not be used
	mu       sync.Mutex
	recorded []string // guarded: deliveries whose outcome has been stored

	setup    *setup // nil until something has been read
	backlog  backlog
	throttle throttle

	inFlight  int
	workers   int
	done      []*store.Outcome // to be recorded
	recording bool             // one batch at a time, so that the last one decides the endpoint's health
	gone      bool             // disabled, deleted, or another process's
	refused   string           // the delivery that got a 410
	idleAt    time.Time        // since when there is nothing to do; zero if there is something
}

// result is the result of a read of the database.
type result struct {
	query query
	work  store.Work
	err   error
}

func newLane(e *Engine, id string) *lane {
	return &lane{engine: e, id: id, wake: make(chan struct{}, 1), work: make(chan job, webhook.MaxInFlight),
		sent: make(chan sent, webhook.MaxInFlight), read: make(chan result, 1), backlog: newBacklog(),
		throttle: newThrottle(0)}
}

// poke has the lane look again. It may be called from any goroutine.
func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // it will
	}
}

// run delivers until there is nothing to do or ctx ends.
func (l *lane) run(ctx context.Context) {
	defer close(l.work)
	if !l.take(ctx) {
		return
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		stopping := ctx.Err() != nil
		switch {
		case l.changed.Swap(false):
			l.backlog.outdate()
		case stopping, l.gone, l.backlog.stale(time.Now()):
			l.backlog.giveBack()
		}
		if !stopping && l.wantsMore() {
			l.readMore(ctx)
		}
		wait := forever // until the requests in flight have ended
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
				wait = 0 // it was poked: await returns at once
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

// await waits for the next thing that can happen to a lane, and handles it.
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
		// The reason why the lane was gone may be over, once a 410 has been recorded.
		l.backlog.more, l.gone = true, l.backlog.known[l.refused]
	case <-timer:
		l.backlog.tick(l.engine.DB.Now())
	case <-stop:
	}
}

// take takes the lane for this process. If another process has it, take notifies that one.
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
		// If this fails, the next scan of this process finds the lane.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), errorPause)
		_ = l.engine.DB.Write(ctx, func(tx *store.Tx) error { return tx.LeaveLane(ctx, l.id, l.engine.node) })
		cancel()
	}
	return l.engine.forget(l) || !l.take(ctx)
}

// idle reports whether the lane has no delivery in progress.
func (l *lane) idle(stopping bool) bool {
	b := &l.backlog
	return l.inFlight == 0 && len(l.done) == 0 && len(b.known) == 0 && !b.reading &&
		(!b.more || stopping || l.gone || l.throttle.wait(time.Now()) > 0)
}

// limit is how many requests may be in flight.
func (l *lane) limit() int {
	if l.setup == nil {
		return l.throttle.window
	}
	return min(l.throttle.window, l.setup.endpoint.MaxInFlight)
}

// occupied reports whether the one request of a struggling endpoint is in flight. It
// may take long, and deliveries that are read meanwhile would be out of date.
func (l *lane) occupied() bool { return l.throttle.struggling() && l.inFlight > 0 }

// wantsMore reports whether to read now.
func (l *lane) wantsMore() bool {
	now := time.Now()
	return !l.gone && !l.occupied() && l.throttle.wait(now) <= 0 && l.backlog.wantsMore(now, l.limit())
}

// readMore reads due deliveries while the lane sends others.
func (l *lane) readMore(ctx context.Context) {
	r := result{query: l.backlog.beginRead(time.Now(), l.limit())}
	go func() {
		r.err = l.engine.DB.Read(ctx, func(tx *store.Tx) (err error) {
			r.work, err = tx.Work(ctx, l.id, r.query.after, r.query.limit, r.query.known)
			return err
		})
		l.read <- r
	}()
}

// takeRead handles the result of a read.
func (l *lane) takeRead(ctx context.Context, r result) {
	switch {
	case l.backlog.outdated:
		l.backlog.discard()
	case run.KindOf(r.err) == run.NotFound:
		l.gone = true // deleted
		l.backlog.discard()
	case r.err != nil:
		if ctx.Err() == nil {
			l.engine.Log.Error("cannot read due deliveries, trying again", "endpoint", l.id, "error", r.err)
		}
		l.backlog.fail(time.Now(), errorPause)
	case !r.work.Endpoint.Enabled || r.work.Node != l.engine.node:
		l.gone = true
		l.backlog.discard()
	default:
		if l.setup == nil {
			l.throttle = newThrottle(r.work.Failures) // continues the one of the last lane
		}
		l.prepare(r.work)
		now := time.Now()
		l.throttle.holdOff(now.Add(r.work.Hold.Sub(l.engine.DB.Now())))
		l.backlog.add(now, r.query, r.work)
	}
}

// prepare makes the set-up again if the endpoint has changed.
func (l *lane) prepare(w store.Work) {
	if l.setup == nil || !reflect.DeepEqual(l.setup.endpoint, w.Endpoint) {
		l.setup = newSetup(w, l.engine.userAgent, l.engine.Log)
	}
}

// forgetRecorded drops the deliveries that the recorder has stored.
func (l *lane) forgetRecorded() {
	l.mu.Lock()
	ids := l.recorded
	l.recorded = nil
	l.mu.Unlock()
	if len(ids) > 0 {
		l.recording = false
	}
	l.backlog.forget(ids)
}

// begin begins the requests that may begin, and returns the time until more may.
func (l *lane) begin() time.Duration {
	for len(l.backlog.ready) > 0 {
		now, struggling := time.Now(), l.throttle.struggling()
		switch {
		case l.changed.Load():
			return 0
		case l.inFlight >= l.limit(), l.backlog.unrecorded() >= maxUnrecorded:
			return forever // until something is settled or recorded
		case l.throttle.wait(now) > 0:
			return l.throttle.wait(now)
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
		l.work <- job{l.setup, l.backlog.take(), struggling}
		l.throttle.begun(now, l.setup.endpoint.RatePerMinute)
	}
	if l.occupied() {
		return forever // until it is settled
	}
	now := time.Now()
	return max(l.backlog.wait(now, l.engine.DB.Now()), l.throttle.wait(now), 0)
}

// settle handles an attempt that ended.
func (l *lane) settle(s sent) {
	l.inFlight--
	l.engine.release(s.struggling)
	o := s.outcome
	l.throttle.settle(time.Now(), o.Attempt, o.Decision)
	if o.Decision.Gone {
		l.gone, l.refused = true, o.Delivery.ID
	}
	o.Failures = l.throttle.stored()
	l.done = append(l.done, o)
}

// hasRecorded tells the lane which deliveries the recorder has stored. It may be called
// from any goroutine.
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
