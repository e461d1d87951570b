package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"runbell/internal/testkit"
	"runbell/internal/testkit/backlog"
)

// TestKilledWhilePacking kills the server at random moments while it packs a backlog of
// results. At each moment the history has exactly the results that are not due any more, and in
// the end it has all of them, each once.
func TestKilledWhilePacking(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, "RUNBELL_SECRET_KEY="+testkit.SecretKey())
		s.killWhilePacking(t, "sqlite:"+filepath.Join(s.dir, "runbell.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		database := testkit.Postgres(t)
		s := newServer(t, "RUNBELL_DATABASE_URL="+database, "RUNBELL_SECRET_KEY="+testkit.SecretKey())
		s.killWhilePacking(t, database)
	})
}

func (s *server) killWhilePacking(t *testing.T, database string) {
	s.project("shop", nil)
	s.stop()
	b := backlog.New("shop", database)
	for round := range *kills {
		b.Add(t, fmt.Sprint("build-", round))
		s.launch()
		time.Sleep(time.Duration(50+rand.IntN(350)) * time.Millisecond) // not for something to happen: any moment will do
		s.kill()
		due, all := b.Check(t)
		t.Logf("round %d: killed when %d of %d specs were still to be packed", round, due, all)
		if t.Failed() {
			return
		}
	}
	added := time.Now()
	s.start()
	day := url.Values{"date_start": {added.AddDate(0, 0, -1).UTC().Format(time.RFC3339)}, "date_end": {added.AddDate(0, 0, 1).UTC().Format(time.RFC3339)}}
	eventually(t, time.Minute, "the history has all results", func() bool {
		var tests struct{ CompleteUpTo time.Time }
		s.call("GET", "/tests/shop?"+day.Encode(), nil, &tests)
		return tests.CompleteUpTo.After(added)
	})
	s.stop()
	if due, all := b.Check(t); due > 0 {
		t.Errorf("%d of %d specs are still to be packed", due, all)
	}
}
