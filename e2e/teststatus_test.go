package e2e

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"runbell/internal/client"
	"runbell/internal/testkit"
)

// TestStatusSurvivesKills: a change of the health of tests is reported once, although the server is killed again and
// again meanwhile.
func TestStatusSurvivesKills(t *testing.T) {
	t.Parallel()
	s, r := newServer(t), testkit.NewReceiver(t)
	p := newPlayer(t, s.project("shop", map[string]any{"completionDelaySeconds": 0}), s)
	_, secret := s.webhook("shop", client.WebhookSettings{URL: new(r.URL + "/tests"), HookEvents: []string{"TEST_STATUS"}})
	r.Expect("/tests", secret)
	// seen waits until the history has a number of runs. Then those before the last have been
	// looked at, too.
	seen := func(runs int) {
		t.Helper()
		var tests struct {
			List []struct{ Metrics struct{ Executions int } }
		}
		day := time.Now().UTC().Format(time.DateOnly)
		eventually(t, 30*time.Second, "the runs are in the history", func() bool {
			s.call("GET", "/tests/shop?date_start=2026-01-01&date_end="+day, nil, &tests)
			return len(tests.List) == 6 && tests.List[0].Metrics.Executions == runs
		})
	}
	p.play("b-1")
	seen(1)
	p.play("b-2")
	seen(2)
	p.play("b-3") // a test of each spec has failed three times now
	for range 8 {
		s.kill()
		s.launch()
		time.Sleep(time.Duration(50+rand.IntN(400)) * time.Millisecond) // which is where it dies
	}
	s.awaitReady()
	list := r.Wait(t, 20*time.Second, has("/tests TEST_STATUS 1"))
	if !bytes.Contains(list[0].Body, []byte(`"buildId":"b-3"`)) || !bytes.Contains(list[0].Body, []byte(`"changes":{"total":3,`)) {
		t.Errorf("told %s", list[0].Body)
	}
	p.play("b-4")
	seen(4)
	exactly(t, r, "/tests TEST_STATUS 1")
}
