package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"runbell/internal/testkit"
)

// TestKilledWhileRemoving kills the server at random moments of the sweep at its start, which
// removes runs, files and console output. Even then each artifact has its file; and after the
// next sweep nothing is half there, and what had to stay is.
func TestKilledWhileRemoving(t *testing.T) {
	t.Parallel()
	const (
		day   = 24 * time.Hour
		runs  = 60 // a third of them goes, of a third only the files
		specs = 2
		shots = 3 // of each spec
	)
	s := newServer(t, "RUNBELL_RECORDING=open", "RUNBELL_SECRET_KEY="+testkit.SecretKey())
	s.project("shop", map[string]any{"runDays": 10, "artifactsPassedDays": 3, "artifactsFailedDays": 3, "outputDays": 3})
	files := filepath.Join(s.dir, "artifacts")
	want := map[string]testkit.Kept{}
	for round := range *kills {
		ids := s.recordRuns(fmt.Sprint("build-", round, "-"), runs, specs, shots)
		s.stop()
		db := testkit.OpenData(t, s.dir)
		for n, id := range ids {
			switch n % 3 {
			case 0:
				testkit.Age(t, db, id, 20*day)
			case 1:
				testkit.Age(t, db, id, 5*day)
				want[id] = testkit.Kept{}
			default:
				want[id] = testkit.Kept{Files: specs * shots, Output: true}
			}
		}
		s.close(db)
		s.launch()
		s.awaitRemoved(rand.IntN(700)) // of some 740 rows and files: any moment will do
		s.kill()
		db = testkit.OpenData(t, s.dir)
		there := testkit.Files(t, files)
		for file := range testkit.ArtifactFiles(t, db) {
			if !there[file] {
				t.Errorf("round %d: an artifact has lost its file %s", round, file)
			}
		}
		const rest = runs / 3 * specs * shots // files of a round that stay
		t.Logf("round %d: killed when %d of %d runs and %d of %d files were still to go", round, len(testkit.KeptRuns(t, db))-len(want), runs/3,
			len(there)-rest*(round+1), 2*rest)
		s.close(db)
		s.start()
		if report, err := s.api().GC(context.Background(), false); err != nil || report.Value.More {
			t.Fatalf("round %d: %+v, %v", round, report, err)
		}
		s.stop()
		db = testkit.OpenData(t, s.dir)
		testkit.Whole(t, db, files)
		if got := testkit.KeptRuns(t, db); !maps.Equal(got, want) {
			t.Errorf("round %d: %v are left, want %v", round, got, want)
		}
		s.close(db)
		if t.Failed() {
			return
		}
		s.start()
	}
}

// awaitRemoved waits until the sweep has removed n things, or removes no more.
func (s *server) awaitRemoved(n int) {
	s.t.Helper()
	for last, since := 0, time.Now(); last < n && time.Since(since) < 2*time.Second; {
		resp, err := http.Get(s.url + "/metrics")
		if err != nil {
			since = time.Now() // it is not there yet
			select {
			case <-s.done:
				s.t.Fatalf("the server ended: %v\n%s", s.err, s.log.String())
			case <-time.After(time.Millisecond):
			}
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			s.t.Fatal(err)
		}
		sum := 0
		for _, m := range removedTotal.FindAllSubmatch(body, -1) {
			value, err := strconv.ParseFloat(string(m[1]), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			sum += int(value)
		}
		if sum > last {
			last, since = sum, time.Now()
		}
	}
}

var removedTotal = regexp.MustCompile(`(?m)^runbell_retention_removed_total\{.*\} (\S+)$`)

// close closes what has to be closed before the server starts again.
func (s *server) close(c interface{ Close() error }) {
	s.t.Helper()
	if err := c.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// recordRuns records runs that pass, each with some specs, which have console output and as many
// files, and returns their ids.
func (s *server) recordRuns(build string, runs, specs, files int) (ids []string) {
	s.t.Helper()
	names := make([]string, specs)
	for n := range names {
		names[n] = fmt.Sprintf(`"%d.cy.js"`, n)
	}
	ids = make([]string, runs)
	var done sync.WaitGroup
	for n := range runs {
		done.Go(func() { // 60 at once
			var joined struct{ RunID, MachineID string }
			s.report("POST", "/runs", fmt.Sprintf(`{"projectId":"shop","recordKey":"any","ciBuildId":"%s%d","specs":[%s]}`, build, n, strings.Join(names, ",")), &joined)
			for range specs {
				var claimed struct{ InstanceID string }
				s.report("POST", "/runs/"+joined.RunID+"/instances", fmt.Sprintf(`{"machineId":%q}`, joined.MachineID), &claimed)
				for _, address := range s.results(claimed.InstanceID, files) {
					if !putFile(address, address) {
						s.t.Errorf("a file of run %d was not stored", n)
					}
				}
				s.report("PUT", "/instances/"+claimed.InstanceID+"/stdout", `{"stdout":"what was printed"}`, nil)
			}
			ids[n] = joined.RunID
		})
	}
	done.Wait()
	return ids
}
