package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
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
	span := 1500 * time.Millisecond // in which the server is killed
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
		time.Sleep(rand.N(span)) // not for something to happen: any moment will do
		s.kill()
		db = testkit.OpenData(t, s.dir)
		there := testkit.Files(t, files)
		for file := range testkit.ArtifactFiles(t, db) {
			if !there[file] {
				t.Errorf("round %d: an artifact has lost its file %s", round, file)
			}
		}
		const rest = runs / 3 * specs * shots // files of a round that stay
		runsLeft, filesLeft := len(testkit.KeptRuns(t, db))-len(want), len(there)-rest*(round+1)
		t.Logf("round %d: killed when %d of %d runs and %d of %d files were still to go", round, runsLeft, runs/3, filesLeft, 2*rest)
		switch { // the machine may be fast or slow
		case filesLeft == 0:
			span = span * 3 / 4
		case runsLeft == runs/3:
			span = span * 3 / 2
		}
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
