package ui

import (
	"context"
	"sync"
	"time"

	"runbell/internal/run"
)

const (
	// share bounds what pages for strangers take of one processor: a tenth.
	share = 10
	// longestRest is the longest rest after one page: a page may take long because other processes keep the machine
	// busy.
	longestRest = 5 * time.Second
	// workAhead is how long pages may be made without a rest after a time with little to do.
	workAhead = 250 * time.Millisecond
	// turnWait is how long a request waits for its turn.
	turnWait = 10 * time.Second
	// maxWaiting is how many requests of one network wait.
	maxWaiting = 64
)

// turns bounds the cost of pages for strangers. One page is made at a time, and all of them get a share of one
// processor. Networks take turns: each has one request waiting, and its other requests wait behind that. So a network
// with many requests delays the others by one page at most.
type turns struct {
	turn chan struct{} // full while a page is made
	paid time.Time     // when the rest for all work until now is over; guarded by turn

	mu    sync.Mutex
	lines map[string]*line // by network
}

// line is the requests of one network.
type line struct {
	first   chan struct{} // full: the request that has the turn or waits for it
	waiting int           // all of them
}

func newTurns() *turns { return &turns{turn: make(chan struct{}, 1), lines: map[string]*line{}} }

// take waits for the turn of a network; done ends it. The error is TooMany if the network has too many requests, and
// Unavailable if others do.
func (t *turns) take(ctx context.Context, network string) (done func(), err error) {
	l := t.enter(network)
	if l == nil {
		return nil, run.Errorf(run.TooMany, "Too many requests from your network. Wait a minute, or sign in.")
	}
	wait, cancel := context.WithTimeout(ctx, turnWait)
	defer cancel()
	if err := t.wait(wait, l); err != nil {
		t.leave(network, l)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, run.Errorf(run.Unavailable,
			"The server is busy with requests from people without an account. Try again in a minute, or sign in.")
	}
	began := time.Now()
	return func() {
		took := time.Since(began)
		if t.paid.Before(began) {
			t.paid = began
		}
		t.paid = t.paid.Add(min(share*took, took+longestRest))
		<-t.turn
		<-l.first
		t.leave(network, l)
	}, nil
}

func (t *turns) enter(network string) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[network]
	if l == nil {
		l = &line{first: make(chan struct{}, 1)}
		t.lines[network] = l
	}
	if l.waiting == maxWaiting {
		return nil
	}
	l.waiting++
	return l
}

func (t *turns) leave(network string, l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.waiting--; l.waiting == 0 {
		delete(t.lines, network)
	}
}

// wait waits to be the first of a line, then for the turn, then for the rest.
func (t *turns) wait(ctx context.Context, l *line) error {
	select {
	case l.first <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		<-l.first
		return ctx.Err()
	}
	rest := time.NewTimer(time.Until(t.paid.Add(-share * workAhead)))
	defer rest.Stop()
	select {
	case <-rest.C:
		return nil
	case <-ctx.Done():
		<-t.turn
		<-l.first
		return ctx.Err()
	}
}
