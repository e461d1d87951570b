// Package dispatch is the delivery engine: it sends the deliveries that are due and
// records the outcomes.
//
// The delivery table is the queue, and a process may lose everything that it keeps in
// memory. The unit of work is the endpoint: each has a [lane], and a lane belongs to
// one process at a time. So an endpoint's limits hold for any number of processes,
// one endpoint does not delay another, and a claim of a delivery writes nothing. Each
// delivery is sent at least once, always with the same Webhook-Id and the same bytes.
package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/outbound"
	"runbell/internal/store"
)

// Options configure an engine.
type Options struct {
	DB       *store.DB
	Poster   *outbound.Poster // refuses private addresses and limits the time of an attempt
	Schedule Schedule
	Version  string // for User-Agent
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil for nobody
}

const (
	// maxInFlight limits the concurrent requests of one process. maxStruggling limits
	// those to struggling endpoints, so that there is always room for the others.
	maxInFlight   = 2048
	maxStruggling = maxInFlight / 2
	// A process keeps its lanes for the time of a lease after it last renewed it. It
	// renews it at the interval renew.
	lease = 15 * time.Second
	renew = 5 * time.Second
	// sharedSleep limits how late a process notices a change by another process that
	// died before it could notify anyone.
	sharedSleep = time.Second
	// longestSleep limits how late a process notices that the clock was set or the
	// machine was suspended: timers notice neither.
	longestSleep = 5 * time.Second
	// errorPause is the wait after the database failed.
	errorPause = time.Second
)

// Engine sends webhooks. Make it with New, run it once.
type Engine struct {
	Options
	node      string // "" on a database that no other process uses: nobody takes its lanes
	userAgent string
	metrics   *metrics
	recorder  *recorder

	inFlight   atomic.Int64
	struggling atomic.Int64
	renewed    atomic.Pointer[time.Time] // when this process last renewed its leases; nil before

	look    chan struct{} // size 1: other deliveries may be due now
	lanes   sync.WaitGroup
	mu      sync.Mutex
	ctx     context.Context // of Run; nil before
	stopped bool            // no lane begins any more: Run waits for the running ones
	byID    map[string]*lane
}

// New makes an engine.
func New(o Options) *Engine {
	e := &Engine{Options: o, userAgent: userAgent(o.Version), look: make(chan struct{}, 1), byID: map[string]*lane{}}
	if e.Metrics == nil {
		e.Metrics = prometheus.NewRegistry()
	}
	if o.DB.Shared() {
		e.node = uuid.NewString()
	}
	e.recorder = newRecorder(e)
	e.metrics = newMetrics(e)
	return e
}

// Changed tells the engine that the settings or deliveries of endpoints have changed,
// apart from new events. No request begins with the old ones. It never blocks.
func (e *Engine) Changed(endpointIDs ...string) {
	e.mu.Lock()
	for _, id := range endpointIDs {
		if l, ok := e.byID[id]; ok {
			l.changed.Store(true)
		}
	}
	e.mu.Unlock()
	e.Kick(endpointIDs...)
}

// Kick tells the engine that deliveries were queued at endpoints. It never blocks.
func (e *Engine) Kick(endpointIDs ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx == nil || e.stopped {
		return // Run looks when it starts; a stopped engine leaves them to the next one
	}
	for _, id := range endpointIDs {
		if l, ok := e.byID[id]; ok {
			l.poke()
			continue
		}
		l := newLane(e, id)
		e.byID[id] = l
		e.lanes.Go(func() { l.run(e.ctx) })
	}
}

// Run delivers until ctx ends. Then it begins no more attempts, waits for those
// in flight, which their timeout bounds, records them, and returns.
func (e *Engine) Run(ctx context.Context) {
	e.mu.Lock()
	e.ctx = ctx
	e.mu.Unlock()
	var helpers sync.WaitGroup
	var recording sync.WaitGroup
	for range e.recorder.transactions() {
		recording.Go(func() {
			e.recorder.run(context.WithoutCancel(ctx)) // sent deliveries are recorded even when stopping
		})
	}
	if e.DB.Shared() {
		now := time.Now()
		e.renewed.Store(&now)
		// Until the requests in flight are recorded, even when stopping.
		keep, leave := context.WithCancel(context.WithoutCancel(ctx))
		defer leave()
		go e.keepLeases(keep)
		helpers.Go(func() { e.DB.Listen(ctx, e.heard) })
	}
	var told time.Time // when running lanes were told to look again
	for ctx.Err() == nil {
		tell := e.DB.Shared() && time.Since(told) >= sharedSleep
		if tell {
			told = time.Now()
		}
		timer := time.NewTimer(e.scan(ctx, tell))
		select {
		case <-timer.C:
		case <-e.look:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	e.mu.Lock()
	e.stopped = true
	e.mu.Unlock()
	e.lanes.Wait()
	e.recorder.stop()
	recording.Wait()
	helpers.Wait()
}

// scan starts the lanes of endpoints with something due, and returns the time until
// there is more. Running lanes look by themselves. With tell, scan wakes them too,
// because they may have missed a notification from another process.
func (e *Engine) scan(ctx context.Context, tell bool) time.Duration {
	var lanes []store.Lane
	err := e.DB.Read(ctx, func(tx *store.Tx) (err error) {
		lanes, err = tx.Lanes(ctx, e.node)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			e.Log.Error("cannot look for due deliveries, trying again", "error", err)
		}
		return errorPause
	}
	wait := longestSleep
	if e.DB.Shared() {
		wait = sharedSleep
	}
	now := e.DB.Now()
	for _, l := range lanes {
		until := l.DueAt.Sub(now)
		switch {
		case e.runs(l.EndpointID) && !tell:
		case until > 0:
			wait = min(wait, until)
		default:
			e.Kick(l.EndpointID)
		}
	}
	return wait
}

func (e *Engine) runs(endpointID string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.byID[endpointID] != nil
}

// lookAgain has the engine look again for what is due, and when.
func (e *Engine) lookAgain() {
	select {
	case e.look <- struct{}{}:
	default: // it will
	}
}

// heard handles a notification from another process: the id of an endpoint that needs
// its lane, or "" if notifications may have been missed.
func (e *Engine) heard(endpointID string) {
	if endpointID == "" {
		e.lookAgain()
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if l, ok := e.byID[endpointID]; ok {
		l.poke()
	}
}

// keepLeases renews the leases of this process's lanes.
func (e *Engine) keepLeases(ctx context.Context) {
	for {
		select {
		case <-time.After(renew):
		case <-ctx.Done():
			return
		}
		began := time.Now()
		err := e.DB.Write(ctx, func(tx *store.Tx) error { return tx.KeepLanes(ctx, e.node, tx.Now.Add(lease)) })
		if err == nil {
			e.renewed.Store(&began)
		} else if ctx.Err() == nil {
			e.Log.Error("cannot renew the leases of lanes, trying again", "error", err)
		}
	}
}

// leased reports whether this process may send.
func (e *Engine) leased() bool {
	if e.node == "" {
		return true
	}
	renewed := e.renewed.Load()
	if renewed == nil {
		return false
	}
	now := time.Now()
	return leaseHolds(now.Sub(*renewed), now.Round(0).Sub(renewed.Round(0)))
}

// leaseHolds takes the time since the lease was renewed, by the monotonic clock and by
// the wall clock. The monotonic clock stops while a machine is suspended, and the wall
// clock can be set back, so the larger one counts.
func leaseHolds(elapsed, onTheWall time.Duration) bool { return max(elapsed, onTheWall) < lease }

// admit takes a place for a request, if there is one. An endpoint that does not
// struggle always gets a place for its first request.
func (e *Engine) admit(struggling, first bool) bool {
	if struggling {
		if e.struggling.Add(1) > maxStruggling {
			e.struggling.Add(-1)
			return false
		}
	}
	if e.inFlight.Add(1) > maxInFlight && (struggling || !first) {
		e.release(struggling)
		return false
	}
	return true
}

func (e *Engine) release(struggling bool) {
	e.inFlight.Add(-1)
	if struggling {
		e.struggling.Add(-1)
	}
}

// forget removes a lane that has nothing to do, unless it was poked meanwhile.
func (e *Engine) forget(l *lane) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(l.wake) > 0 && e.ctx.Err() == nil {
		return false
	}
	delete(e.byID, l.id)
	e.lookAgain() // for the time at which it is due again
	return true
}
