package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// TestADatabaseFromTheFuture: an older program must not touch what a newer one
// has written, and says what to do.
func TestADatabaseFromTheFuture(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.project("shop", nil)
	s.stop()
	database := filepath.Join(s.dir, "runbell.db")
	testkit.CheckSQLite(t, database)
	testkit.SetSchema(t, database, 9999)

	s.launch()
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the server serves")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{"newer Runbell", "schema 9999", "use that version or a newer one"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// TestKilledWhileItMakesTheDatabase: what a first start leaves behind when it is
// killed is nothing or everything, and the next one goes on from there.
func TestKilledWhileItMakesTheDatabase(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	chance := newChance(t)
	for range 12 {
		dir := t.TempDir()
		killed := exec.Command(binary, "migrate", "--data-dir", dir)
		if err := killed.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(chance.Int64N(int64(40 * time.Millisecond))))
		_ = killed.Process.Kill() // it may have ended
		_ = killed.Wait()         // with an error or without
		if out, err := exec.Command(binary, "migrate", "--data-dir", dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		testkit.CheckSQLite(t, filepath.Join(dir, "runbell.db"))
	}
}
