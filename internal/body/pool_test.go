package body

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/run"
)

// slow is a body of which a part arrives, and the rest only when its connection
// lets go of it.
type slow struct {
	io.Reader
	arrived chan<- struct{}
	stop    <-chan time.Time
	stopped bool
}

func (s *slow) Read(p []byte) (int, error) {
	if n, err := s.Reader.Read(p); err == nil {
		return n, nil
	}
	if s.arrived != nil {
		close(s.arrived)
		s.arrived = nil
	}
	if !s.stopped {
		<-s.stop
		s.stopped = true
	}
	return 0, io.ErrUnexpectedEOF
}

// connection is a response whose connection has a read deadline.
type connection struct {
	*httptest.ResponseRecorder
	deadlines chan time.Time
}

func (c connection) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && t.Before(time.Now()) {
		select {
		case c.deadlines <- t:
		default:
		}
	}
	return nil
}

// upload starts a body of which n bytes arrive; ended gets its error when it ends.
func upload(p *Pool, n int, ended chan<- error) {
	arrived, done := make(chan struct{}), make(chan struct{})
	c := connection{httptest.NewRecorder(), make(chan time.Time, 1)}
	r := httptest.NewRequest(http.MethodPost, "/", &slow{Reader: strings.NewReader(strings.Repeat("x", n)), arrived: arrived, stop: c.deadlines})
	go func() {
		b, err := p.Receive(c, r, loose(16<<20))
		if err == nil {
			b.Release()
		}
		ended <- err
		close(done)
	}()
	select {
	case <-arrived:
	case <-done:
	}
}

func sends(p *Pool, n int) error {
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(make([]byte, n)))
	b, err := p.Receive(httptest.NewRecorder(), r, loose(16<<20))
	if err == nil {
		b.Release()
	}
	return err
}

// TestAFullPoolRefusesTheLargest: idle and slow uploads hold what has arrived of
// them, and when that is too much, the largest ends. Small bodies always pass.
func TestAFullPoolRefusesTheLargest(t *testing.T) {
	p := NewPool(4<<20, 1, NewRoom(1<<20))
	const idle, large = 200, 10
	idleEnded, largeEnded := make(chan error, idle), make(chan error, large)
	for range idle {
		upload(p, 1, idleEnded)
	}
	for i := range large {
		upload(p, 900<<10, largeEnded)
		if err := sends(p, 10<<10); err != nil {
			t.Fatalf("a small body beside %d large ones: %v", i+1, err)
		}
	}
	p.mu.Lock()
	refused := idle + large - len(p.reading)
	p.mu.Unlock()
	if refused < 6 {
		t.Errorf("%d of 10 uploads of 900 KiB were refused where 4 MiB is for all", refused)
	}
	for range refused {
		select {
		case err := <-largeEnded:
			if run.KindOf(err) != run.Unavailable {
				t.Errorf("a large upload ended with %v", err)
			}
		case err := <-idleEnded:
			t.Errorf("an idle one ended for the large ones: %v", err)
		}
	}
	if p.used > p.size {
		t.Errorf("%d bytes are taken of %d", p.used, p.size)
	}
}

// TestLargeBodiesDoNotEndEachOther: a large body that keeps coming is not refused for one
// that began later. If it was, and sent again, none of several would ever arrive.
func TestLargeBodiesDoNotEndEachOther(t *testing.T) {
	for _, c := range []struct {
		pause time.Duration // of the first body, before the second begins
		first run.Kind      // 0 if the first arrives, and the second is refused
	}{{time.Second, 0}, {time.Minute, run.Unavailable}} {
		synctest.Test(t, func(t *testing.T) {
			p := NewPool(8<<20, 1, NewRoom(1<<20))
			receive := func(part, pause int) run.Kind {
				in := io.MultiReader(bytes.NewReader(make([]byte, part)), watch(func() { time.Sleep(time.Duration(pause)) }), bytes.NewReader(make([]byte, 6<<20-part)))
				r := httptest.NewRequest(http.MethodPost, "/", in)
				r.ContentLength = 6 << 20
				b, err := p.Receive(httptest.NewRecorder(), r, loose(16<<20))
				if err == nil {
					b.Release()
				}
				return run.KindOf(err)
			}
			ended := make(chan run.Kind)
			go func() { ended <- receive(5<<20, int(c.pause)+1) }()
			synctest.Wait() // it waits with most of what it sends
			time.Sleep(c.pause)
			if second := receive(6<<20, 0); (second == run.Unavailable) != (c.first == 0) {
				t.Errorf("after a pause of %s, the second ended as %d", c.pause, second)
			}
			if first := <-ended; (first == run.Unavailable) != (c.first == run.Unavailable) {
				t.Errorf("after a pause of %s, the first ended as %d", c.pause, first)
			}
		})
	}
}

// TestWhatIsPromisedCostsNothing: a body takes what has arrived of it.
func TestWhatIsPromisedCostsNothing(t *testing.T) {
	for _, arrived := range []int{0, 1, 3000, 10 << 10, 60 << 10, 500 << 10, 5 << 20} {
		for _, promised := range []int64{-1, 16 << 20} {
			p := NewPool(64<<20, 1, NewRoom(1<<20))
			var most int
			in := io.Reader(strings.NewReader(strings.Repeat("x", arrived)))
			r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(in, watch(func() { most = int(p.used) })))
			r.ContentLength = promised
			if b, err := p.Receive(httptest.NewRecorder(), r, loose(16<<20)); err == nil {
				b.Release()
			}
			if limit := 2*arrived + 2*first; most == 0 || most > limit && most > arrived+piece {
				t.Errorf("%d bytes arrived of %d, and %d are taken", arrived, promised, most)
			}
			if p.used != 0 || len(p.reading) != 0 {
				t.Errorf("%d bytes are still taken by %d bodies", p.used, len(p.reading))
			}
		}
	}
}

type watch func()

func (w watch) Read([]byte) (int, error) {
	w()
	return 0, io.EOF
}

// TestPackedBodiesAreWorkedOnAtOnce: what a packed body takes is about what is in it, and
// not what could be. So one does not wait until another is stored.
func TestPackedBodiesAreWorkedOnAtOnce(t *testing.T) {
	p := NewPools().Known
	sent := packed(t, []byte(`{"tags":["`+strings.Repeat("x", 100<<10)+`"]}`))
	for n := range 64 {
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(sent))
		r.Header.Set("Content-Encoding", "gzip")
		b, err := p.Receive(httptest.NewRecorder(), r, loose(64<<20))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		var v input
		if err := b.Decode(&v, false); err != nil {
			t.Fatalf("beside %d that are being stored: %v", n, err)
		}
	}
}

// TestARoomIsGivenBack, whether a body was decoded, was wrong, or had no room.
func TestARoomIsGivenBack(t *testing.T) {
	room := NewRoom(1 << 20)
	p := NewPool(1<<20, 1, room)
	for _, text := range []string{`{"name":"x"}`, `{"name":1}`, `{`, `[]`, ``, `{"tags":[` + strings.Repeat(`"x",`, 20_000) + `"x"]}`} {
		for range 50 {
			b, err := p.Receive(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text)), loose(1<<20))
			if err != nil {
				t.Fatal(err)
			}
			var v input
			_ = b.Decode(&v, false)
			b.Release()
		}
	}
	if !room.free.TryAcquire(room.size) || p.used != 0 {
		t.Errorf("%d bytes of the pool are taken, and some of the room", p.used)
	}
	// Nobody waits for room forever.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := room.take(ctx, 1); run.KindOf(err) != run.Unavailable {
		t.Errorf("without room: %v", err)
	}
}
