// Package dispatch is the delivery engine: it claims due deliveries, sends
// them, and records what came of it.
//
// The delivery table is the queue; nothing here is remembered that is not in
// it. A claim is a lease: a process that dies leaves its deliveries to be
// claimed again when the lease ends, so each is sent at least once, and every
// time with the same Webhook-Id and the same bytes.
package dispatch

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"runbell/internal/store"
	"runbell/internal/webhook"
)

// Options configure an engine.
type Options struct {
	DB       *store.DB
	Client   *http.Client // guards what it connects to, see package outbound
	Schedule webhook.Schedule
	Timeout  time.Duration // of one attempt; the client enforces it
	Version  string        // for User-Agent
	Log      *slog.Logger
}

const (
	// inFlight is how many deliveries one process works on at once.
	inFlight = 256
	// perRecord bounds how many outcomes share a transaction.
	perRecord = 256
	// leaseMargin is added to the timeout of an attempt: the time to record it.
	leaseMargin = 20 * time.Second
	// sharedSleep bounds how late a delivery is noticed that another process
	// queued; a process that has the database to itself is kicked.
	sharedSleep = time.Second
	aloneSleep  = time.Hour
	// errorPause is the wait after the database failed.
	errorPause = time.Second
)

// Engine sends webhooks. Make it with New, run it once.
type Engine struct {
	Options
	node     string
	kick     chan struct{}
	outcomes chan outcome
}

// outcome is what a sender found out about one claim.
type outcome struct {
	claim   store.Claim
	attempt webhook.Attempt
	verdict func(now time.Time) store.Verdict
}

// New makes an engine.
func New(o Options) *Engine {
	return &Engine{Options: o, node: uuid.NewString(), kick: make(chan struct{}, 1), outcomes: make(chan outcome, inFlight)}
}

// Kick tells the engine that deliveries were queued. It never blocks.
func (e *Engine) Kick() {
	select {
	case e.kick <- struct{}{}:
	default: // told already
	}
}

// Run delivers until ctx ends. Then it claims nothing more, waits for the
// attempts in flight, which their timeout bounds, records them, and returns.
func (e *Engine) Run(ctx context.Context) {
	// Attempts and records outlive the wish to stop.
	work := context.WithoutCancel(ctx)
	if !e.DB.Shared() {
		// No other process can hold a lease: what is leased was left by a crash.
		e.untilDone(ctx, "cannot take over deliveries of the last run", func() error {
			return e.DB.Write(work, func(tx *store.Tx) error { return tx.ReleaseNode(work, "") })
		})
	}
	var senders sync.WaitGroup
	free := make(chan int, inFlight) // places that recorded outcomes gave back
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		e.record(work, free)
	}()

	room := inFlight
	for ctx.Err() == nil {
		claims, next, err := e.claim(ctx, room)
		if err != nil && ctx.Err() == nil {
			e.Log.Error("cannot claim deliveries, trying again", "error", err)
			next = time.Now().Add(errorPause)
		}
		room -= len(claims)
		for _, c := range claims {
			senders.Go(func() { e.outcomes <- e.attempt(work, c) })
		}
		room = e.wait(ctx, room, next, free)
	}
	senders.Wait()
	close(e.outcomes)
	<-recorded
}

// wait sleeps until there may be something to claim and room for it, and
// returns the room.
func (e *Engine) wait(ctx context.Context, room int, next time.Time, free <-chan int) int {
	timer := time.NewTimer(max(0, min(time.Until(next), e.longestSleep())))
	defer timer.Stop()
	due, kick := timer.C, e.kick
	if room == 0 {
		due, kick = nil, nil // only a recorded outcome helps
	}
	select {
	case <-due:
	case <-kick:
	case n := <-free:
		room += n
	case <-ctx.Done():
	}
	for {
		select {
		case n := <-free:
			room += n
		default:
			return room
		}
	}
}

func (e *Engine) longestSleep() time.Duration {
	if e.DB.Shared() {
		return sharedSleep
	}
	return aloneSleep
}

// claim takes due deliveries. next is when there may be more.
func (e *Engine) claim(ctx context.Context, room int) (claims []store.Claim, next time.Time, err error) {
	if room == 0 {
		return nil, time.Time{}, nil
	}
	// A look first: most wake-ups find nothing, and a look costs no commit.
	err = e.DB.Read(ctx, func(tx *store.Tx) error {
		at, any, err := tx.NextDue(ctx)
		next = at
		if !any {
			next = tx.Now.Add(e.longestSleep())
		}
		return err
	})
	if err != nil || time.Until(next) > 0 {
		return nil, next, err
	}
	err = e.DB.Write(ctx, func(tx *store.Tx) (err error) {
		claims, err = tx.ClaimDeliveries(ctx, e.node, room, tx.Now.Add(e.Timeout+leaseMargin))
		return err
	})
	if len(claims) == 0 {
		next = time.Now().Add(e.longestSleep()) // another node was quicker
	}
	return claims, next, err
}

// record stores outcomes, as many as there are in one transaction, until the
// channel is closed.
func (e *Engine) record(ctx context.Context, free chan<- int) {
	batch := make([]outcome, 0, perRecord)
	for first := range e.outcomes {
		batch = append(batch[:0], first)
	more:
		for len(batch) < perRecord {
			select {
			case o, ok := <-e.outcomes:
				if !ok {
					break more
				}
				batch = append(batch, o)
			default:
				break more
			}
		}
		e.untilDone(ctx, "cannot record attempts, trying again", func() error {
			return e.DB.Write(ctx, func(tx *store.Tx) error {
				for _, o := range batch {
					if _, err := tx.RecordAttempt(ctx, e.node, o.claim.Delivery, o.attempt, o.verdict(tx.Now)); err != nil {
						return err
					}
				}
				return nil
			})
		})
		free <- len(batch)
	}
}

// giveUpAfter bounds how often the database is asked to do the same again. What
// could not be recorded is sent again when its lease ends.
const giveUpAfter = 60

func (e *Engine) untilDone(ctx context.Context, trouble string, f func() error) {
	for range giveUpAfter {
		err := f()
		if err == nil {
			return
		}
		e.Log.Error(trouble, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(errorPause):
		}
	}
}

// retry says when the next attempt is, if there is one.
func (e *Engine) retry(attempt int, retryAfter time.Duration) func(time.Time) store.Verdict {
	wait, more := e.Schedule.Next(attempt, rand.Float64())
	return func(now time.Time) store.Verdict {
		if !more {
			return store.Verdict{State: webhook.Failed}
		}
		return store.Verdict{State: webhook.Waiting, RetryAt: now.Add(max(wait, retryAfter))}
	}
}

func delivered(time.Time) store.Verdict { return store.Verdict{State: webhook.Delivered} }

func userAgent(version string) string { return "Runbell/" + strings.ReplaceAll(version, " ", "-") }
