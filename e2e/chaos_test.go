package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runbell/internal/client"
	"runbell/internal/testkit"
)

// The schedule of these tests: three quick retries, and a wait that lasts beyond
// the test, so that later events of the run overtake, and what was overtaken is
// still scheduled at the end.
const (
	chaosRetries  = "20ms,40ms,80ms,1h"
	chaosAttempts = 4 // with quick retries between
	chaosTimeout  = 400 * time.Millisecond
)

// chaosLasts is for how long processes are killed; RUNBELL_CHAOS sets more.
func chaosLasts(t *testing.T) time.Duration {
	text, set := os.LookupEnv("RUNBELL_CHAOS")
	if !set {
		return 4 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("RUNBELL_CHAOS: %v", err)
	}
	return d
}

// newChance draws what happens. RUNBELL_CHAOS_SEED repeats the draws of an
// earlier test; what the processes do meanwhile is up to the system.
func newChance(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if text, set := os.LookupEnv("RUNBELL_CHAOS_SEED"); set {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("RUNBELL_CHAOS_SEED: %v", err)
		}
	}
	t.Logf("RUNBELL_CHAOS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestKilledAtAnyMoment kills the only process on a SQLite database at random
// moments.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := newServer(t, "RUNBELL_WEBHOOK_RETRIES="+chaosRetries, "RUNBELL_WEBHOOK_TIMEOUT="+chaosTimeout.String(), "RUNBELL_LOG_LEVEL=error")
	c := newChaos(t, 2, s)
	c.rage(func(int) {
		c.moment(300 * time.Millisecond)
		s.kill()
		if c.chance.IntN(4) == 0 { // again, while it starts
			s.launch()
			c.moment(100 * time.Millisecond)
			s.kill()
		}
		s.start()
	})
	c.settle()
	s.stop()
	testkit.CheckSQLite(t, filepath.Join(s.dir, "runbell.db"))
}

// TestNodesKilledAtAnyMoment kills processes that share a PostgreSQL database at
// random moments, and the database, too.
func TestNodesKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	cluster := testkit.PostgresCluster(t)
	nodes := newNodes(t, cluster.Database(t), 3, "RUNBELL_WEBHOOK_RETRIES="+chaosRetries, "RUNBELL_WEBHOOK_TIMEOUT="+chaosTimeout.String(), "RUNBELL_LOG_LEVEL=error")
	c := newChaos(t, 4, nodes...)
	c.rage(func(round int) {
		node := nodes[c.chance.IntN(len(nodes))]
		c.moment(700 * time.Millisecond)
		if round%3 != 1 {
			node.kill()
			if c.chance.IntN(3) == 0 { // the others are alone for a while
				c.moment(300 * time.Millisecond)
			}
			node.launch()
			return
		}
		// A process that runs outlives its database; one that starts needs it.
		for _, n := range nodes {
			n.awaitReady()
		}
		cluster.Abort(t)
		killed := c.chance.IntN(3) == 0
		if killed {
			node.kill()
		}
		c.moment(200 * time.Millisecond)
		cluster.Start(t)
		if killed {
			node.launch()
		}
	})
	for _, n := range nodes {
		n.awaitReady()
	}
	c.settle()
}

// chaos is servers on one database, machines that report runs to them, and a
// receiver with troubles of its own.
type chaos struct {
	t        *testing.T
	chance   *rand.Rand
	servers  []*server
	receiver *testkit.Receiver
	key      string
	hooks    map[string]string // path -> id
	paths    []string
	builds   []build

	mu       sync.Mutex // the receiver asks from goroutines of its own
	troubles map[string]trouble
	well     bool
}

// newChaos makes a project with this many webhooks at either scope, half of them with the
// extended payload.
func newChaos(t *testing.T, webhooks int, servers ...*server) *chaos {
	c := &chaos{t: t, chance: newChance(t), servers: servers, receiver: testkit.NewReceiver(t), hooks: map[string]string{}, troubles: map[string]trouble{}}
	c.key = servers[0].project("shop", map[string]any{"completionDelaySeconds": 0})
	for i := range webhooks {
		for _, scope := range []string{"group", "run"} {
			path := fmt.Sprintf("/%s-%d", scope, i)
			c.paths = append(c.paths, path)
			id, secret := servers[i%len(servers)].webhook("shop", client.WebhookSettings{URL: new(c.receiver.URL + path), Scope: scope,
				Payload: []string{"default", "extended"}[i%2]})
			c.receiver.Expect(path, secret)
			c.hooks[path] = id
		}
	}
	c.receiver.Answer(func(w testkit.Received, n int) testkit.Answer {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch trouble, has := c.troubles[w.Path]; {
		case has:
			return trouble(n)
		case !c.well && w.ID[len(w.ID)-2]%8 == 0: // what it does not understand it never takes
			return testkit.Answer{Status: http.StatusInternalServerError}
		default:
			return testkit.Answer{}
		}
	})
	return c
}

// checkFacts compares the failures in the facts of an end with the played ones: in each spec, one test of two fails.
func (c *chaos) checkFacts() {
	c.t.Helper()
	checked := 0
	for _, w := range c.receiver.All() {
		var body struct {
			Event    string
			Failures int
			Facts    *struct{ Failures []struct{ Title []string } }
		}
		if err := json.Unmarshal(w.Body, &body); err != nil {
			c.t.Fatal(err)
		}
		if extended := strings.HasSuffix(w.Path, "1") || strings.HasSuffix(w.Path, "3"); extended != (body.Facts != nil) {
			c.t.Errorf("%s has the body %s", w.Path, w.Body)
		}
		if body.Facts != nil && body.Event == "RUN_FINISH" {
			checked++
			if len(body.Facts.Failures) != min(body.Failures, 10) || body.Failures == 0 {
				c.t.Errorf("facts with %d of %d failures: %s", len(body.Facts.Failures), body.Failures, w.Body)
			}
		}
	}
	if checked == 0 {
		c.t.Error("no end had facts")
	}
}

// trouble is how a failing receiver responds to its n-th request.
type trouble func(n int) testkit.Answer

func troubles() []trouble {
	always := func(a testkit.Answer) trouble { return func(int) testkit.Answer { return a } }
	late := 2 * chaosTimeout
	all := []trouble{
		always(testkit.Answer{Status: http.StatusInternalServerError}),
		always(testkit.Answer{Wait: late}), // it accepts the webhook, but the sender gets no response
		always(testkit.Answer{Reset: true}),
		always(testkit.Answer{Wait: chaosTimeout / 4, Reset: true}),
		always(testkit.Answer{Status: http.StatusPermanentRedirect, Header: map[string]string{"Location": "/group-0"}}),
		always(testkit.Answer{Status: http.StatusFound, Header: map[string]string{"Location": "/elsewhere"}}),
		always(testkit.Answer{Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "1"}}),
		always(testkit.Answer{Wait: chaosTimeout / 8}),
	}
	any := append([]trouble{always(testkit.Answer{})}, all...)
	return append(all, func(n int) testkit.Answer { return any[n*7%len(any)](n) })
}

// befall gives a webhook another trouble, or none.
func (c *chaos) befall(path string) {
	all := troubles()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.troubles, path)
	if n := c.chance.IntN(2 * len(all)); n < len(all) {
		c.troubles[path] = all[n]
	}
}

// recover ends all troubles.
func (c *chaos) recover() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.troubles)
	c.well = true
}

// moment lets a random time pass: when something happens is the input of these
// tests.
func (c *chaos) moment(most time.Duration) { time.Sleep(time.Duration(c.chance.Int64N(int64(most)))) }

// rage has machines report runs while strike strikes, again and again.
func (c *chaos) rage(strike func(round int)) {
	c.t.Helper()
	var mu sync.Mutex
	var number atomic.Int64
	var stop atomic.Bool
	var machines sync.WaitGroup
	player := newPlayer(c.t, c.key, c.servers...)
	for range 3 {
		machines.Go(func() {
			for !stop.Load() && !c.t.Failed() {
				b := player.playAny(number.Add(1))
				mu.Lock()
				c.builds = append(c.builds, b)
				mu.Unlock()
			}
		})
	}
	for _, path := range c.paths {
		c.befall(path)
	}
	lasts, began, round := chaosLasts(c.t), time.Now(), 0
	for ; time.Since(began) < lasts; round++ {
		c.befall(c.paths[c.chance.IntN(len(c.paths))])
		strike(round)
	}
	stop.Store(true)
	machines.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
	c.t.Logf("%d strikes", round)
}

// settle waits until nothing is left to do, and checks that exactly the committed events were delivered.
func (c *chaos) settle() {
	c.t.Helper()
	s := c.servers[0]
	waiting := func(path string) (soon, scheduled []delivery) {
		for d := range pages[delivery](s, "/webhooks/"+c.hooks[path]+"/deliveries") {
			switch {
			case d.Status != "pending":
			case d.AttemptCount == chaosAttempts && d.NextAttemptAt != nil && time.Until(*d.NextAttemptAt) > 30*time.Minute:
				scheduled = append(scheduled, d)
			default:
				soon = append(soon, d)
			}
		}
		return soon, scheduled
	}
	struck := map[string]int{} // requests at a path before
	for _, w := range c.receiver.All() {
		struck[w.Path]++
	}
	for _, path := range c.paths {
		// The lanes of a killed process are free when their lease has ended; the one that
		// takes them meets the troubles, too.
		eventually(c.t, 60*time.Second, "somebody delivers to "+path, func() bool {
			n := -struck[path]
			for _, w := range c.receiver.All() {
				if w.Path == path {
					n++
				}
			}
			soon, _ := waiting(path)
			return n >= 2 || len(soon) == 0
		})
	}
	c.recover()
	var scheduled []delivery
	for _, path := range c.paths {
		// The lanes of a killed process are free when their lease has ended.
		eventually(c.t, 60*time.Second, "nothing is due at "+path, func() bool {
			soon, later := waiting(path)
			if len(soon) == 0 {
				scheduled = append(scheduled, later...)
			}
			return len(soon) == 0
		})
	}
	a := whatIsTold(c.t, s, c.hooks, c.builds, chaosAttempts)
	a.checkEvents(s, c.hooks)
	repeated := a.checkReceived(c.receiver.All())
	c.checkFacts()
	overtaken := a.checkOrder()
	c.t.Logf("%d runs, %d deliveries, %d repetitions, %d wait for the hour, %d times overtaken", len(c.builds), len(a.committed), repeated, len(scheduled), overtaken)

	// What is scheduled has not vanished.
	for _, d := range scheduled {
		s.call("POST", "/deliveries/"+d.DeliveryID+"/retry", map[string]any{}, nil)
	}
	for _, path := range c.paths {
		eventually(c.t, 60*time.Second, "everything is delivered at "+path, func() bool {
			soon, later := waiting(path)
			return len(soon)+len(later) == 0
		})
	}
	a = whatIsTold(c.t, s, c.hooks, c.builds, chaosAttempts)
	for id, d := range a.committed {
		if d.Status != "delivered" {
			c.t.Errorf("%s is %s in the end", id, d.Status)
		}
	}
	a.checkReceived(c.receiver.All())
}
