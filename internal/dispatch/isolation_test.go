package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// receiver notes what arrives when, and how much of it at the same time.
type receiver struct {
	takes time.Duration // for an answer
	code  func() int    // nil is 200

	mu       sync.Mutex
	arrived  []arrival
	inFlight int
}

type arrival struct {
	at      time.Time
	beside  int // requests in flight, with this one
	request *http.Request
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	r.mu.Lock()
	r.inFlight++
	r.arrived = append(r.arrived, arrival{time.Now(), r.inFlight, req})
	r.mu.Unlock()
	time.Sleep(r.takes)
	r.mu.Lock()
	r.inFlight--
	r.mu.Unlock()
	if r.code != nil {
		w.WriteHeader(r.code())
	}
}

func (r *receiver) all() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.arrived)
}

func (r *receiver) most(since time.Time) (n int) {
	for _, a := range r.all() {
		if !a.at.Before(since) {
			n = max(n, a.beside)
		}
	}
	return n
}

// backlog queues deliveries that belong to no run at an endpoint, and does not
// tell the engine.
func (w *world) backlog(endpointID string, n int) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *store.Tx) error { return queue(ctx, tx, endpointID, n) })
}

func queue(ctx context.Context, tx *store.Tx, endpointID string, n int) error {
	payload := endpoint.Sample(webhook.RunFinish, run.NewProject("shop"), "http://runbell.test", tx.Now).Payload.Bytes()
	for range n {
		e := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: "shop", Scope: run.GroupScope, Kind: webhook.RunFinish, Payload: payload, CreatedAt: tx.Now}
		if _, err := tx.InsertTest(ctx, webhook.NewEndpoint(endpointID, "shop"), e); err != nil {
			return err
		}
	}
	return nil
}

// graveyard adds endpoints at these addresses by turns, with a backlog each, that
// take no events.
func (w *world) graveyard(n, each int, urls ...string) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *store.Tx) error {
		for i := range n {
			e := webhook.NewEndpoint(fmt.Sprint("dead", i), "shop")
			e.URL, e.Events, e.Secret, e.CreatedAt, e.UpdatedAt = urls[i%len(urls)], nil, webhook.NewSecret(), tx.Now, tx.Now
			if err := tx.InsertEndpoint(ctx, e); err != nil {
				return err
			}
			if err := queue(ctx, tx, e.ID, each); err != nil {
				return err
			}
		}
		return nil
	})
}

// change sets what is given, as a person would.
func (w *world) change(id string, s endpoint.Settings) {
	w.t.Helper()
	if _, _, err := w.endpoints.Change(w.t.Context(), id, s, "by a test"); err != nil {
		w.t.Fatal(err)
	}
}

// TestDeadEndpointsDelayNoOthers: whatever is pending at endpoints that do not respond, the webhooks of the healthy
// one are sent at once.
func TestDeadEndpointsDelayNoOthers(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		w.network.Serve(t, "hangs.test:80", http.HandlerFunc(hangs))
		w.hook("hangs", "http://hangs.test/", nil)
		w.backlog("hangs", 3000)
		w.graveyard(200, 3, "http://hangs.test/", "http://refuses.test/")
		w.start()
		sent := map[string]time.Time{}
		for i := range 40 {
			time.Sleep(50 * time.Millisecond)
			build := fmt.Sprint("b", i)
			sent[build] = time.Now()
			w.finish(build)
		}
		synctest.Wait()
		calls := w.all()
		if len(calls) != 80 {
			t.Fatalf("the healthy one got %d webhooks, want 80", len(calls))
		}
		for _, c := range calls {
			var p struct{ BuildID string }
			if err := json.Unmarshal([]byte(c.body), &p); err != nil {
				t.Fatal(err)
			}
			if late := c.at.Sub(sent[p.BuildID]); late != 0 {
				t.Errorf("a webhook of %s came %s late", p.BuildID, late)
			}
		}
	})
}

// TestHangingEndpointsLeavePlaces: endpoints that hang cannot take all places of the process, not even after a
// restart.
func TestHangingEndpointsLeavePlaces(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		var hanging atomic.Int64
		w.network.Serve(t, "hangs.test:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hanging.Add(1)
			defer hanging.Add(-1)
			hangs(w, r)
		}))
		w.graveyard(1100, 2, "http://hangs.test/")
		w.start()
		time.Sleep(15 * time.Second) // they have timed out once
		for i := range 20 {
			at := time.Now()
			w.finish(fmt.Sprint("b", i))
			synctest.Wait()
			calls := w.all()
			if len(calls) != 2*(i+1) || !calls[2*i].at.Equal(at) || !calls[2*i+1].at.Equal(at) {
				t.Fatalf("%d requests after %d runs", len(calls), i+1)
			}
			time.Sleep(50 * time.Millisecond)
		}
		w.stop()
		w.engine = w.newEngine()
		w.start()
		time.Sleep(time.Second)
		synctest.Wait()
		if n := hanging.Load(); n < 1000 || n > 1024 {
			t.Errorf("%d of 1100 hang after the start, want as many as may struggle", n)
		}
	})
}

// TestHangingEndpointsCostLittle: the cost of an endpoint that hangs does not grow with their number, even if one of
// them is rate limited.
func TestHangingEndpointsCostLittle(t *testing.T) {
	cost := func(endpoints int) (each float64) {
		bubble(t, func(t *testing.T, dir string) {
			w := newWorld(t, dir, func(int, *http.Request) reply { return status(429, "Retry-After", "3600") })
			w.network.Serve(t, "hangs.test:80", http.HandlerFunc(hangs))
			w.graveyard(endpoints, 2, "http://hangs.test/")
			w.start()
			time.Sleep(15 * time.Second) // all have started
			w.join("b")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			time.Sleep(70 * time.Second)
			synctest.Wait()
			runtime.ReadMemStats(&after)
			each = float64(after.Mallocs-before.Mallocs) / float64(endpoints)
		})
		return each
	}
	if few, many := cost(20), cost(300); many > 2*few {
		t.Errorf("an endpoint that hangs allocates %.0f times beside 20 of them, %.0f times beside 300", few, many)
	}
}

// TestInFlight: the limit of an endpoint is reached and never exceeded, even right after it was lowered.
func TestInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		r := &receiver{takes: 100 * time.Millisecond}
		w.network.Serve(t, "limited.test:80", r)
		w.hook("limited", "http://limited.test/", func(e *webhook.Endpoint) { e.MaxInFlight = 8 })
		w.backlog("limited", 300)
		w.start()
		time.Sleep(1250 * time.Millisecond)
		synctest.Wait()
		if n := r.most(time.Time{}); n != 8 {
			t.Errorf("%d requests at the same time, want 8", n)
		}
		w.change("limited", endpoint.Settings{MaxInFlight: new(2)})
		lowered := time.Now()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := r.most(lowered); n != 2 {
			t.Errorf("%d requests at the same time after the limit was lowered to 2", n)
		}
		w.change("limited", endpoint.Settings{MaxInFlight: new(30)})
		raised := time.Now()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := r.most(raised); n != 30 {
			t.Errorf("%d requests at the same time after the limit was raised to 30", n)
		}
		if n := len(r.all()); n != 300 {
			t.Errorf("%d requests, want 300", n)
		}
	})
}

// TestRate: no period of a minute has more attempts than the endpoint allows, and the backlog is sent as fast as that
// permits.
func TestRate(t *testing.T) {
	for _, rate := range []int{1, 7, 90, 210} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w := newWorld(t, dir, nil)
				r := &receiver{takes: 10 * time.Millisecond}
				w.network.Serve(t, "limited.test:80", r)
				w.hook("limited", "http://limited.test/", func(e *webhook.Endpoint) { e.RatePerMinute, e.Events = rate, nil })
				w.backlog("limited", rate+1)
				w.start()
				time.Sleep(59_950 * time.Millisecond)
				synctest.Wait()
				if n := len(r.all()); n != rate {
					t.Errorf("%d requests within the first minute, want %d", n, rate)
				}
				// From time to time, with pauses without work.
				for _, wait := range []time.Duration{40 * time.Second, 45 * time.Second, 55 * time.Second} {
					time.Sleep(wait)
					w.backlog("limited", 1)
					w.engine.Kick("limited")
				}
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				all := r.all()
				if len(all) != rate+4 {
					t.Errorf("%d requests, want %d", len(all), rate+4)
				}
				for i := rate; i < len(all); i++ {
					if took := all[i].at.Sub(all[i-rate].at); took < time.Minute {
						t.Errorf("%d requests within %s", rate+1, took)
					}
				}
			})
		})
	}
}

// TestStopInTheMiddle: a stop waits for the requests in flight, but no longer than their timeout, and the next
// process continues.
func TestStopInTheMiddle(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		r := &receiver{takes: time.Second}
		w.network.Serve(t, "slow.test:80", r)
		w.network.Serve(t, "hangs.test:80", http.HandlerFunc(hangs))
		w.hook("slow", "http://slow.test/", nil)
		w.hook("hangs", "http://hangs.test/", nil)
		w.backlog("slow", 200)
		w.backlog("hangs", 200)
		w.start()
		time.Sleep(7500 * time.Millisecond)
		stopped := time.Now()
		w.stop()
		if took := time.Since(stopped); took > 10*time.Second {
			t.Errorf("the stop took %s", took)
		}
		before := r.all()
		if n := len(before); n == 0 || n == 200 || before[n-1].at.After(stopped) {
			t.Fatalf("%d requests, the last after the stop: %v", n, n > 0 && before[n-1].at.After(stopped))
		}
		list, attempts := w.log("slow")
		delivered := 0
		for i, d := range list {
			if d.State == webhook.Delivered {
				delivered++
			}
			if len(attempts[i]) > 1 {
				t.Errorf("%d attempts of %s", len(attempts[i]), d.ID)
			}
		}
		if delivered != len(before) {
			t.Errorf("%d requests, %d of them recorded", len(before), delivered)
		}
		w.engine = w.newEngine()
		w.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(r.all()); n != 200 {
			t.Errorf("%d requests, want 200", n)
		}
	})
}

// TestSettingsTakeEffect with the next request, however many deliveries wait.
func TestSettingsTakeEffect(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		r := &receiver{takes: 100 * time.Millisecond}
		w.network.Serve(t, "busy.test:80", r)
		w.network.Serve(t, "moved.test:80", r)
		first := w.hook("busy", "http://busy.test/", nil)
		w.backlog("busy", 2000)
		w.start()
		step := func() time.Time {
			time.Sleep(330 * time.Millisecond)
			synctest.Wait()
			return time.Now()
		}
		after := func(what string, at time.Time, ok func(*http.Request) bool) {
			t.Helper()
			step()
			n := 0
			for _, a := range r.all() {
				if a.at.After(at) {
					n++
					if !ok(a.request) {
						t.Fatalf("%s: a request that began %s later does not know of it", what, a.at.Sub(at))
					}
				}
			}
			if n == 0 {
				t.Fatalf("%s: no further request", what)
			}
		}
		time.Sleep(time.Second)

		at := step()
		w.change("busy", endpoint.Settings{Headers: &map[string]string{"X-New": "yes"}})
		after("headers", at, func(r *http.Request) bool { return r.Header.Get("X-New") == "yes" })
		at = step()
		w.change("busy", endpoint.Settings{URL: new("http://moved.test/there")})
		after("URL", at, func(r *http.Request) bool { return r.Host == "moved.test" && r.URL.Path == "/there" })
		at = step()
		second, err := w.endpoints.Rotate(t.Context(), "busy", time.Second, "by a test")
		if err != nil {
			t.Fatal(err)
		}
		signatures := func(r *http.Request) int { return len(bytes.Fields([]byte(r.Header.Get("Webhook-Signature")))) }
		after("rotation", at, func(r *http.Request) bool { return signatures(r) == 2 })
		time.Sleep(2 * time.Second)
		after("the end of the overlap", at.Add(2*time.Second), // a second of it may have been read ahead
			func(r *http.Request) bool { return signatures(r) == 1 })
		if first.Secret == second.Secret {
			t.Error("the rotation brought no other secret")
		}
		at = step()
		w.change("busy", endpoint.Settings{Enabled: new(false)})
		step()
		if all := r.all(); all[len(all)-1].at.After(at) {
			t.Errorf("a request %s after the endpoint was disabled", all[len(all)-1].at.Sub(at))
		}
		at = step()
		w.change("busy", endpoint.Settings{Enabled: new(true)})
		step()
		if all := r.all(); !slices.ContainsFunc(all, func(a arrival) bool { return a.at.Equal(at) }) {
			t.Error("no request at once after the endpoint was enabled")
		}
		at = step()
		if _, err := w.endpoints.Delete(t.Context(), "busy"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if all := r.all(); len(all) == 2000 || all[len(all)-1].at.After(at) {
			t.Errorf("%d requests, the last %s after the endpoint was deleted", len(all), all[len(all)-1].at.Sub(at))
		}
	})
}
