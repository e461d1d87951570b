package dispatch_test

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/webhook"
)

// TestStruggling: a failing endpoint gets one request at a time, with short pauses. Once it works again, its backlog
// is sent quickly.
func TestStruggling(t *testing.T) {
	for name, broken := range map[string]struct {
		code  int
		takes time.Duration
	}{"fails at once": {500, 0}, "fails after a while": {500, 200 * time.Millisecond}, "hangs": {200, 20 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newWorld(t, dir, nil)
				start := time.Now()
				sick := func() bool { return time.Since(start) < 10*time.Minute }
				r := &receiver{code: func() int {
					if sick() {
						return broken.code
					}
					return 200
				}}
				w.network.Serve(t, "sick.test:80", http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
					if sick() && broken.takes > 10*time.Second {
						r.mu.Lock()
						r.inFlight++
						r.arrived = append(r.arrived, arrival{time.Now(), r.inFlight, req})
						r.mu.Unlock()
						hangs(rw, req)
						r.mu.Lock()
						r.inFlight--
						r.mu.Unlock()
						return
					}
					r.ServeHTTP(rw, req)
				}))
				if broken.takes < time.Second {
					r.takes = broken.takes
				}
				w.hook("sick", "http://sick.test/", func(e *webhook.Endpoint) { e.Events = nil })
				w.backlog("sick", 400)
				w.start()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				all := r.all()
				for i, a := range all {
					if i > 0 && (a.beside > 1 || a.at.Sub(all[i-1].at) > 12*time.Second) {
						t.Fatalf("request %d came %s after the one before, %d at the same time", i, a.at.Sub(all[i-1].at), a.beside)
					}
				}
				if n := len(all); n > 720 {
					t.Errorf("%d requests in 10 minutes to an endpoint that fails", n)
				}
				well := time.Now()
				time.Sleep(time.Minute)
				synctest.Wait()
				list, _ := w.log("sick")
				waiting := 0
				for _, d := range list {
					if d.State == webhook.Waiting && d.DueAt.Before(time.Now()) {
						waiting++
					}
				}
				if waiting > 0 {
					t.Errorf("%d deliveries are due a minute after the endpoint was well", waiting)
				}
				if n := r.most(well); n > webhook.DefaultInFlight {
					t.Errorf("%d requests at the same time", n)
				}
			})
		})
	}
}

// atRandom fails that share of requests: with a status, or 0 for a broken connection. The others get 200.
func atRandom(percent, code int) func() int {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same in each test run
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(100) >= percent {
			return 200
		}
		if code == 0 {
			panic(http.ErrAbortHandler)
		}
		return code
	}
}

// TestFailuresAtRandom: an endpoint that succeeds more often than it fails gets its backlog as fast as one that
// always succeeds.
func TestFailuresAtRandom(t *testing.T) {
	const backlog = 2000
	took := func(percent, code int) (took time.Duration) {
		bubble(t, func(t *testing.T, dir string) {
			w := newWorld(t, dir, nil)
			r := &receiver{takes: 5 * time.Millisecond, code: atRandom(percent, code)}
			w.network.Serve(t, "random.test:80", r)
			w.hook("random", "http://random.test/", nil)
			w.backlog("random", backlog)
			start := time.Now()
			w.start()
			for len(r.all()) < backlog && time.Since(start) < time.Minute {
				time.Sleep(5 * time.Millisecond)
				synctest.Wait()
			}
			took = time.Since(start)
		})
		return took
	}
	well := took(0, 200)
	for _, c := range []struct{ percent, code int }{{40, 500}, {40, 0}} {
		if got := took(c.percent, c.code); got > 2*well {
			t.Errorf("with %d%% of status %d a backlog takes %s, without failures %s", c.percent, c.code, got, well)
		}
	}
}

// TestSuddenDeath: an endpoint that has worked for long and then only fails soon gets
// one request at a time, with pauses.
func TestSuddenDeath(t *testing.T) {
	for name, c := range map[string]struct {
		death http.HandlerFunc
		first int           // requests that may come quickly
		pause time.Duration // between the others
	}{
		// As many as the credit allows, and those in flight then.
		"fails":  {answers(500), 16 + 3 + webhook.DefaultInFlight, 50 * time.Millisecond},
		"breaks": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 16 + 3 + webhook.DefaultInFlight, 50 * time.Millisecond},
		"hangs":  {hangs, 1, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newWorld(t, dir, nil)
				start := time.Now()
				r := &receiver{takes: 10 * time.Millisecond}
				w.network.Serve(t, "dies.test:80", http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
					r.ServeHTTP(rw, req)
					if time.Since(start) > time.Second {
						c.death(rw, req)
					}
				}))
				w.hook("dies", "http://dies.test/", nil)
				w.backlog("dies", 2500)
				w.start()
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				all := r.all()
				alive := slices.IndexFunc(all, func(a arrival) bool { return a.at.Sub(start) > time.Second })
				if alive < 1000 || len(all)-alive <= c.first {
					t.Fatalf("%d requests before the death and %d after it: too few to tell", alive, len(all)-alive)
				}
				last := all[alive+c.first-1].at
				for i, a := range all[alive+c.first:] {
					if gap := a.at.Sub(last); gap < c.pause {
						t.Fatalf("request %d after the death came %s after the one before", c.first+i, gap)
					}
					last = a.at
				}
			})
		})
	}
}
