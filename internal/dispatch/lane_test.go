package dispatch

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// A lease is over as soon as either clock says so.
func TestLeaseHolds(t *testing.T) {
	for _, c := range []struct {
		elapsed, onTheWall time.Duration
		want               bool
	}{
		{0, 0, true}, {lease - 1, lease - 1, true}, {lease, lease, false},
		{lease, -time.Hour, false},      // set back
		{time.Second, time.Hour, false}, // suspended, or set forward
		{time.Second, -time.Hour, true},
	} {
		if got := leaseHolds(c.elapsed, c.onTheWall); got != c.want {
			t.Errorf("%v elapsed, %v on the wall clock: %v", c.elapsed, c.onTheWall, got)
		}
	}
}

// A lane that is over and was poked meanwhile looks again, and then leaves.
func TestALaneThatIsOverLooksAgain(t *testing.T) {
	t.Parallel()
	e := New(Options{DB: testkit.SQLite(t), Schedule: DefaultSchedule(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e.ctx = ctx
	l := newLane(e, "deleted")
	e.byID[l.id], l.gone = l, true
	l.poke()
	left := make(chan struct{})
	go func() { defer close(left); l.run(ctx) }()
	select {
	case <-left:
	case <-time.After(20 * time.Second):
		t.Error("it does not leave")
		cancel()
		<-left
	}
	if e.runs(l.id) || ctx.Err() != nil {
		t.Error("it has not been forgotten, or only because the engine stops")
	}
}
