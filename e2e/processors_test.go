package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// TestProcessorsForGoroutines: on SQLite the server has one more than Go gives
// it, unless somebody has said how many.
func TestProcessorsForGoroutines(t *testing.T) {
	t.Parallel()
	given := newNodes(t, testkit.Postgres(t), 1)[0].processors()
	if given < 1 {
		t.Fatalf("Go gives %d", given)
	}
	for _, c := range []struct {
		server *server
		want   int
	}{{newServer(t), given + 1}, {newServer(t, "GOMAXPROCS=7"), 7}} {
		// It answers a moment before.
		eventually(t, 10*time.Second, fmt.Sprint("the server has ", c.want), func() bool { return c.server.processors() == c.want })
	}
}

// processors is what the server says of itself in its metrics.
func (s *server) processors() (n int) {
	s.t.Helper()
	resp, err := http.Get(s.url + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(body), "\ngo_sched_gomaxprocs_threads ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		s.t.Fatalf("go_sched_gomaxprocs_threads: %v", err)
	}
	return n
}
