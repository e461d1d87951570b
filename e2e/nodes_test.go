package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// TestTwoNodes: of two processes on one PostgreSQL, one delivers to an endpoint.
// What commits on the other one leaves within a second or so. When the one is killed
// in the middle of an attempt, the other takes over after the lease, begins with
// that one, and goes on.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	r := testkit.NewReceiver(t)
	nodes := newNodes(t, testkit.Postgres(t), 2, "RUNBELL_WEBHOOK_TIMEOUT=1m", "RUNBELL_LOG_LEVEL=info")
	key := nodes[0].project("shop", nil)
	hook := nodes[0].endpoint(r, "shop", "/hook", "group")
	sends := func(s *server) bool {
		return strings.Contains(s.log.String(), `msg="webhook attempt" endpoint=`+hook)
	}

	newPlayer(t, key, nodes[0]).play("first")
	r.Wait(t, 20*time.Second, func(list []testkit.Received) bool { return len(list) == 2 })
	eventually(t, 20*time.Second, "somebody has delivered", func() bool { return sends(nodes[0]) || sends(nodes[1]) })
	holder, other := nodes[0], nodes[1]
	if sends(other) {
		holder, other = other, holder
	}
	starts := func(runID string) func([]testkit.Received) bool {
		return func(list []testkit.Received) bool {
			last := list[len(list)-1]
			return filepath.Base(decode(t, last).RunURL) == runID
		}
	}
	p := newPlayer(t, key, other)
	var took []time.Duration
	for _, build := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		m := p.join(build, "", "one")
		committed := time.Now()
		list := r.Wait(t, 20*time.Second, starts(m.RunID))
		took = append(took, list[len(list)-1].At.Sub(committed))
	}
	// Each waits for the holder's next look, which is a second after the one that found the event before. On a busy
	// machine some take longer, but all of them only if it looks less often.
	if t.Logf("they arrived after %s", took); slices.Min(took) > 3*time.Second {
		t.Errorf("the fastest arrived after %s", slices.Min(took))
	}
	if sends(other) {
		t.Error("two processes delivered to one endpoint")
	}

	// Deliveries that were not recorded when their node died are also repeated.
	eventually(t, 20*time.Second, "all that came is recorded", func() bool {
		for d := range pages[delivery](other, "/webhooks/"+hook+"/deliveries") {
			if d.Status != "delivered" {
				return false
			}
		}
		return true
	})
	r.Answer(func(_ testkit.Received, n int) testkit.Answer {
		if n == 10 {
			return testkit.Answer{Wait: time.Minute}
		}
		return testkit.Answer{}
	})
	hung := p.join("hung", "", "one")
	r.Wait(t, 20*time.Second, starts(hung.RunID))
	holder.kill()
	killed := time.Now()
	next := p.join("next", "", "one")
	// 15 s of lease, and a second until somebody looks.
	list := r.Wait(t, 30*time.Second, func(list []testkit.Received) bool { return len(list) == 13 })
	t.Logf("taken over after %s", list[11].At.Sub(killed))
	again := map[string]bool{}
	for _, w := range list[11:] {
		again[filepath.Base(decode(t, w).RunURL)] = true
	}
	if list[10].ID != list[11].ID && list[10].ID != list[12].ID || !again[hung.RunID] || !again[next.RunID] {
		t.Errorf("after the take-over came %s and %s, want that of %s again and that of %s", list[11].Body, list[12].Body, hung.RunID, next.RunID)
	}
}
