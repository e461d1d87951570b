package server

import (
	"context"
	"time"
)

// recent is a value that is looked up once for all requests: one look at a time, and then
// none for a while. So the requests of strangers cost the same however many there are, and
// however long a look takes.
type recent[T any] struct {
	look func() (T, error)
	rest time.Duration // between two looks, at least

	turn  chan struct{} // holds one while somebody uses the fields below
	value T
	err   error
	until time.Time
}

func newRecent[T any](rest time.Duration, look func() (T, error)) *recent[T] {
	return &recent[T]{look: look, rest: rest, turn: make(chan struct{}, 1)}
}

const (
	// restPerLook bounds the share of time that looks take: after each, there is
	// none for this many times as long as it took.
	restPerLook = 20
	// longestRest is how old a value gets at most, however long a look takes.
	longestRest = time.Minute
)

// get returns the value of the last look, or looks if it is too old. It waits
// for a look under way until ctx ends.
func (r *recent[T]) get(ctx context.Context) (T, error) {
	var none T
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return none, ctx.Err()
	}
	if time.Now().Before(r.until) {
		defer func() { <-r.turn }()
		return r.value, r.err
	}
	type found struct {
		value T
		err   error
	}
	looked := make(chan found, 1)
	go func() { // which goes on when ctx ends: the next to ask may find the value
		began := time.Now()
		r.value, r.err = r.look()
		looked <- found{r.value, r.err}
		ended := time.Now()
		r.until = ended.Add(max(r.rest, min(longestRest, restPerLook*ended.Sub(began))))
		<-r.turn
	}()
	select {
	case f := <-looked:
		return f.value, f.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
