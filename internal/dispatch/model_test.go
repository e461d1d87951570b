package dispatch_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"runbell/internal/dispatch"
	"runbell/internal/endpoint"
	"runbell/internal/lifecycle"
	"runbell/internal/webhook"
)

// model is the rules of delivery written down a second time, plainly, with everything in memory. It gets the
// commands, and reads from the log of the engine what was sent. The rules must allow every attempt at its time, and
// no required attempt may be missing.
type model struct {
	schedule  dispatch.Schedule
	endpoints []*modelEndpoint
	down      []span // no engine ran
}

type modelEndpoint struct {
	id         string
	limit      int
	enabled    bool
	off        []span // disabled
	holds      []span // the receiver sent Retry-After
	busy       []span // a request was in flight
	failing    time.Time
	keys       [][]byte // that sign now, the newest first
	until      time.Time
	deliveries map[string]*modelDelivery

	mu       sync.Mutex
	answer   string // what the receiver does
	inFlight int
	bodies   map[string]string // by Webhook-Id
	faults   []string
}

type modelDelivery struct {
	run      string
	sequence int64
	state    webhook.DeliveryState
	attempts int
	try      int       // since it was queued
	parked   bool      // an earlier one blocks
	blocks   bool      // later events of the run wait
	soonest  time.Time // of the next attempt
	latest   time.Time
}

// span is from a moment to another; zero is not over.
type span struct{ from, to time.Time }

func (s span) end(now time.Time) time.Time {
	if s.to.IsZero() {
		return now
	}
	return s.to
}

// inside says whether a moment lies in one of the spans, their ends apart.
func inside(spans []span, at time.Time) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return at.After(s.from) && (s.to.IsZero() || at.Before(s.to)) })
}

// longestGap is the longest time between two moments that no span covers.
func longestGap(from, to time.Time, spans ...[]span) (longest time.Duration) {
	all := slices.Concat(spans...)
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	at := from
	for _, s := range all {
		if s.from.After(to) {
			break
		}
		longest = max(longest, s.from.Sub(at))
		if end := s.end(to); end.After(at) {
			at = end
		}
	}
	return max(longest, to.Sub(at))
}

// ServeHTTP is the receiver.
func (e *modelEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	id := r.Header.Get("Webhook-Id")
	e.mu.Lock()
	if was, ok := e.bodies[id]; ok && was != string(body) {
		e.faults = append(e.faults, id+" has another body than before")
	}
	e.bodies[id] = string(body)
	keys := e.keys
	if !time.Now().Before(e.until.Add(time.Second)) { // settings may have been read a second ago
		keys = keys[:1]
	}
	// A receiver that knows the new secret and one that knows the old accept it.
	for i, key := range keys {
		if i > 0 && !time.Now().Before(e.until) {
			continue
		}
		if !webhook.Verify(id, time.Now(), body, key, r.Header.Get("Webhook-Signature")) {
			e.faults = append(e.faults, fmt.Sprint(id, " is not signed with secret ", i))
		}
	}
	answer := e.answer
	if e.inFlight++; e.inFlight > e.limit {
		e.faults = append(e.faults, fmt.Sprint(e.inFlight, " requests at the same time"))
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.inFlight--
		e.mu.Unlock()
	}()
	switch answer {
	case "500":
		w.WriteHeader(500)
	case "429":
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(429)
	case "503":
		w.Header().Set("Retry-After", "5000")
		w.WriteHeader(503)
	case "410":
		w.WriteHeader(410)
	case "hang":
		<-r.Context().Done()
	case "break":
		panic(http.ErrAbortHandler)
	}
}

// inWork says whether a request is in flight.
func (e *modelEndpoint) inWork() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.inFlight > 0
}

// longestPause is the longest pause of a failing endpoint.
const longestPause = time.Second + 100*time.Millisecond

// observe adds the new entries of the log to the model, and compares the others.
func (m *model) observe(rt *rapid.T, w *world) {
	now := time.Now()
	for _, e := range m.endpoints {
		m.observeEndpoint(rt, w, e, now)
	}
}

func (m *model) observeEndpoint(rt *rapid.T, w *world, e *modelEndpoint, now time.Time) {
	type made struct {
		d *modelDelivery
		a webhook.Attempt
	}
	list, log := w.log(e.id)
	var attempts []made
	for i, row := range list {
		d := e.deliveries[row.ID]
		if d == nil {
			d = &modelDelivery{run: row.RunID, sequence: row.Sequence, state: webhook.Waiting, soonest: row.CreatedAt, latest: row.CreatedAt, blocks: true}
			e.park(d)
			e.deliveries[row.ID] = d
		}
		for _, a := range log[i][d.attempts:] {
			attempts = append(attempts, made{d, a})
		}
	}
	if n := len(e.deliveries); n != len(list) {
		rt.Fatalf("%s: %d deliveries in the log, %d were queued", e.id, len(list), n)
	}
	ends := func(a webhook.Attempt) time.Time { return a.StartedAt.Add(a.Duration) }
	slices.SortStableFunc(attempts, func(a, b made) int { return cmp.Or(ends(a.a).Compare(ends(b.a)), a.a.StartedAt.Compare(b.a.StartedAt)) })
	for _, x := range attempts {
		e.busy = append(e.busy, span{x.a.StartedAt, ends(x.a)})
	}
	for _, x := range attempts {
		m.attempt(rt, e, x.d, x.a)
	}
	for i, row := range list {
		d := e.deliveries[row.ID]
		want := d.state
		if want == webhook.Waiting && !e.enabled {
			want = webhook.Held
		}
		if row.State != want || row.Attempts != d.attempts || len(log[i]) != d.attempts {
			rt.Fatalf("%s: delivery %d of run %s is %s after %d attempts, want %s after %d", e.id, d.sequence, d.run, row.State, row.Attempts, want, d.attempts)
		}
		if !e.inWork() && e.enabled && d.state == webhook.Waiting && !d.latest.IsZero() && d.latest.Before(now) {
			if gap := longestGap(d.latest, now, e.off, e.holds, e.busy, m.down); gap > longestPause {
				rt.Fatalf("%s: delivery %d of run %s was due at %s and nothing happened for %s", e.id, d.sequence, d.run, d.latest, gap)
			}
		}
	}
	if got := w.settings(e.id); got.Enabled != e.enabled {
		rt.Fatalf("%s is enabled: %v, want %v", e.id, got.Enabled, e.enabled)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.faults) > 0 {
		rt.Fatalf("%s: %v", e.id, e.faults)
	}
}

// attempt checks one attempt, and applies the rules to it.
func (m *model) attempt(rt *rapid.T, e *modelEndpoint, d *modelDelivery, a webhook.Attempt) {
	ended := a.StartedAt.Add(a.Duration)
	d.attempts++
	d.try++
	switch {
	case a.Number != d.attempts:
		rt.Fatalf("attempt %d has number %d", d.attempts, a.Number)
	case d.state != webhook.Waiting:
		rt.Fatalf("attempt %d of what is %s", a.Number, d.state)
	case a.StartedAt.Before(d.soonest):
		rt.Fatalf("attempt %d at %s, before %s", a.Number, a.StartedAt, d.soonest)
	case inside(e.off, a.StartedAt):
		rt.Fatalf("%s: an attempt at %s while disabled %v", e.id, a.StartedAt, e.off)
	case inside(e.holds, a.StartedAt):
		rt.Fatalf("%s: an attempt at %s while the receiver wanted quiet %v", e.id, a.StartedAt, e.holds)
	case inside(m.down, a.StartedAt):
		rt.Fatalf("an attempt at %s while no engine ran", a.StartedAt)
	}
	if !d.latest.IsZero() && a.StartedAt.After(d.latest) {
		if gap := longestGap(d.latest, a.StartedAt, e.off, e.holds, e.busy, m.down); gap > longestPause {
			rt.Fatalf("%s: an attempt was due at %s and came at %s; nothing happened for %s", e.id, d.latest, a.StartedAt, gap)
		}
	}
	if d.parked { // once released, it is not parked again
		rt.Fatalf("%s: event %d of run %s overtook one that has a quick retry ahead", e.id, d.sequence, d.run)
	}
	defer e.unpark(d.run, ended)
	d.blocks, d.soonest, d.latest = false, time.Time{}, time.Time{}
	if a.Class == webhook.OK {
		d.state, e.failing = webhook.Delivered, time.Time{}
		return
	}
	var hold time.Duration
	switch a.Status {
	case 429:
		hold = 90 * time.Second
	case 503:
		hold = time.Hour
	}
	if hold > 0 {
		e.holds = append(e.holds, span{ended, ended.Add(hold)})
	}
	if d.try > len(m.schedule) {
		d.state = webhook.Failed
	} else {
		wait := m.schedule[d.try-1]
		d.soonest = ended.Add(max(wait*8/10, hold))
		d.latest = ended.Add(max(wait*12/10, hold) + time.Millisecond)
		if wait <= 30*time.Second {
			d.blocks = true
		}
	}
	if e.failing.IsZero() {
		e.failing = ended
	}
	if e.enabled && (a.Status == 410 || ended.Sub(e.failing) >= 5*24*time.Hour) {
		e.disable(ended)
	}
}

func (e *modelEndpoint) disable(at time.Time) {
	e.enabled = false
	e.off = append(e.off, span{from: at})
}

// blocked says whether an earlier event of the run comes first.
func (e *modelEndpoint) blocked(d *modelDelivery) bool {
	for _, other := range e.deliveries {
		if other.run == d.run && other.sequence < d.sequence && other.blocks {
			return true
		}
	}
	return false
}

// unpark releases the deliveries that waited for an earlier event of the run.
func (e *modelEndpoint) unpark(runID string, at time.Time) {
	for _, d := range e.deliveries {
		if d.run == runID && d.state == webhook.Waiting && d.parked && !e.blocked(d) {
			d.parked, d.latest = false, at
		}
	}
}

// requeue is the effect of a redelivery on a delivery.
func (e *modelEndpoint) requeue(d *modelDelivery, now time.Time) {
	d.state, d.try, d.blocks, d.soonest, d.latest, d.parked = webhook.Waiting, 0, true, now, now, false
}

// park makes queued deliveries wait for earlier events.
func (e *modelEndpoint) park(list ...*modelDelivery) {
	for _, d := range list {
		if e.blocked(d) {
			d.parked, d.latest = true, time.Time{}
		}
	}
}

var modelChecks = flag.Int("model.checks", 8, "how many times a few plays of the engine are held against the model")

// TestDeliveryAgreesWithTheModel plays runs, all kinds of responses, changes of endpoints, retries, replays,
// rotations and restarts in any order over days.
func TestDeliveryAgreesWithTheModel(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		w.start()
		check := 0
		for range *modelChecks {
			// rapid gives up after a day, which is one to ten checks.
			rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) {
				check++ // names of its own for what a failure has it play again
				checkDelivery(rt, w, check)
			})
		}
		w.stop()
	})
}

func checkDelivery(rt *rapid.T, w *world, check int) {
	ctx := w.t.Context()
	must := func(err error) {
		if err != nil {
			rt.Helper()
			rt.Fatal(err)
		}
	}
	m := &model{schedule: dispatch.DefaultSchedule()}
	key := func(s webhook.Secret) []byte {
		k, err := s.Key()
		must(err)
		return k
	}
	for i, limit := range []int{16, 1} {
		id := fmt.Sprintf("m%d-%d", check, i)
		e := &modelEndpoint{id: id, limit: limit, enabled: true, deliveries: map[string]*modelDelivery{}, bodies: map[string]string{}}
		w.network.Serve(w.t, id+".test:80", e)
		hook := w.hook(id, "http://"+id+".test/", func(h *webhook.Endpoint) { h.MaxInFlight = limit })
		e.keys = [][]byte{key(hook.Secret)}
		m.endpoints = append(m.endpoints, e)
		defer func() { _, _ = w.endpoints.Delete(context.Background(), id) }()
	}
	pick := func(rt *rapid.T) *modelEndpoint { return m.endpoints[rapid.IntRange(0, 1).Draw(rt, "endpoint")] }
	pass := func(d time.Duration) {
		time.Sleep(d)
		synctest.Wait()
		m.observe(rt, w)
	}
	enable := func(e *modelEndpoint) {
		now := time.Now()
		_, _, err := w.endpoints.Change(ctx, e.id, endpoint.Settings{Enabled: new(true)}, "by a test")
		must(err)
		if e.enabled {
			return
		}
		e.enabled, e.off[len(e.off)-1].to = true, now
		list, _ := w.log(e.id)
		for _, row := range list {
			// Deliveries that were due continue; the others start from the beginning.
			d := e.deliveries[row.ID]
			if d.state != webhook.Waiting || d.parked || d.try == 0 {
				continue
			}
			anew := row.Earlier == d.attempts
			if now.Before(d.soonest) && !anew {
				rt.Fatalf("%s: a delivery that waited for a retry was not resumed", e.id)
			}
			if anew {
				d.try, d.soonest, d.latest = 0, now, now
			}
		}
	}
	var open []lifecycle.Joined
	builds := 0
	rt.Repeat(map[string]func(*rapid.T){
		"start": func(rt *rapid.T) {
			if builds == 6 {
				rt.Skip("enough")
			}
			builds++
			open = append(open, w.join(fmt.Sprintf("m%d-b%d", check, builds)))
			pass(0)
		},
		"end": func(rt *rapid.T) {
			if len(open) == 0 {
				rt.Skip("no run")
			}
			j := open[0]
			open = open[1:]
			_, err := w.runs.Cancel(ctx, j.RunID, "a person", "")
			must(err)
			pass(0)
		},
		"answer": func(rt *rapid.T) {
			e := pick(rt)
			answer := rapid.SampledFrom([]string{"", "", "", "500", "500", "429", "503", "410", "hang", "break"}).Draw(rt, "answer")
			e.mu.Lock()
			e.answer = answer
			e.mu.Unlock()
		},
		"disable": func(rt *rapid.T) {
			e := pick(rt)
			if !e.enabled {
				rt.Skip("it is")
			}
			w.change(e.id, endpoint.Settings{Enabled: new(false)})
			e.disable(time.Now())
			pass(0)
		},
		"enable": func(rt *rapid.T) { enable(pick(rt)); pass(0) },
		"retry": func(rt *rapid.T) {
			e := pick(rt)
			list, _ := w.log(e.id)
			if len(list) == 0 || !e.enabled || e.inWork() {
				rt.Skip("nothing to retry")
			}
			row := list[rapid.IntRange(0, len(list)-1).Draw(rt, "delivery")]
			_, err := w.endpoints.Retry(ctx, row.ID)
			must(err)
			d := e.deliveries[row.ID]
			e.requeue(d, time.Now())
			e.park(d)
			pass(0)
		},
		"replay": func(rt *rapid.T) {
			e := pick(rt)
			if !e.enabled || e.inWork() {
				rt.Skip("not now")
			}
			all := rapid.Bool().Draw(rt, "all")
			n, err := w.endpoints.Replay(ctx, e.id, endpoint.Replay{All: all}, "by a test")
			must(err)
			var queued []*modelDelivery
			for _, d := range e.deliveries {
				if d.state == webhook.Failed || all && d.state == webhook.Delivered {
					queued = append(queued, d)
				}
			}
			if int(n) != len(queued) {
				rt.Fatalf("%d were replayed, want %d", n, len(queued))
			}
			for _, d := range queued {
				e.requeue(d, time.Now())
			}
			e.park(queued...)
			pass(0)
		},
		"rotate": func(rt *rapid.T) {
			e := pick(rt)
			grace := rapid.SampledFrom([]time.Duration{0, time.Minute, 24 * time.Hour}).Draw(rt, "grace")
			if e.inWork() {
				rt.Skip("it was signed before")
			}
			hook, err := w.endpoints.Rotate(ctx, e.id, grace, "by a test")
			must(err)
			e.mu.Lock()
			e.keys, e.until = [][]byte{key(hook.Secret), e.keys[0]}, time.Now().Add(grace)
			e.mu.Unlock()
			pass(0)
		},
		"restart": func(rt *rapid.T) {
			stopped := time.Now()
			w.stop()
			synctest.Wait() // receivers notice that the connection was closed
			time.Sleep(rapid.SampledFrom([]time.Duration{0, time.Minute, 3 * time.Hour}).Draw(rt, "down"))
			m.down = append(m.down, span{stopped, time.Now()})
			w.engine = w.newEngine()
			w.start()
			pass(0)
		},
		"time": func(rt *rapid.T) {
			// From a moment to a day, each magnitude alike.
			d := time.Millisecond << rapid.IntRange(0, 26).Draw(rt, "magnitude")
			pass(d + time.Duration(rapid.Int64Range(0, int64(d/time.Microsecond)).Draw(rt, "µs"))*time.Microsecond)
		},
	})
	// At the end all receivers work, and nothing is lost.
	for _, e := range m.endpoints {
		e.mu.Lock()
		e.answer = ""
		e.mu.Unlock()
	}
	pass(time.Minute)
	for _, e := range m.endpoints {
		enable(e)
	}
	const longest = 40 // hours, more than the longest wait before a retry
	for hour := 0; m.waiting() != nil; hour++ {
		if hour == longest {
			rt.Fatal(*m.waiting())
		}
		pass(time.Hour)
	}
}

// waiting is a delivery that waits, nil if there is none.
func (m *model) waiting() *modelDelivery {
	for _, e := range m.endpoints {
		for _, d := range e.deliveries {
			if d.state == webhook.Waiting {
				return d
			}
		}
	}
	return nil
}
