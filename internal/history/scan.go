package history

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"runbell/internal/store"
)

// scanner counts the executions of a period, oldest first. look and add are as those of [unpack]; run is the number
// of a run in the order of creation.
type scanner struct {
	look func(*Summary) bool
	add  func(run int, group string, e *Execution)
}

// maxScanners limits how many processors one question keeps busy.
const maxScanners = 4

// cores is how many scanners a large question has.
func cores() int { return min(runtime.GOMAXPROCS(0), maxScanners) }

// scan unpacks the results of a period, each scanner on a processor of its own. The specs are divided among the
// scanners, so counting by spec or by test needs no lock. It returns the runs in the order of their numbers.
func scan(ctx context.Context, tx *store.Tx, projectID string, filter store.HistoryFilter,
	scanners []scanner) (runs []store.HistoryRun, err error) {
	type part struct {
		run    int
		group  string
		packed []byte
	}
	work, failed := errgroup.WithContext(ctx)
	parts := make([]chan part, len(scanners))
	for n, s := range scanners {
		parts[n] = make(chan part, 16)
		work.Go(func() error {
			for p := range parts[n] {
				if err := unpack(p.packed, func(e *Summary) bool { return e.Spec%len(scanners) == n && s.look(e) },
					func(e *Execution) { s.add(p.run, p.group, e) }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	errRead := tx.EachHistoryPart(ctx, projectID, filter, store.OldestFirst,
		func(r store.HistoryRun, p store.HistoryPart, packed []byte) error {
			if n := len(runs); n == 0 || runs[n-1].ID != r.ID {
				runs = append(runs, r)
			}
			for _, to := range parts {
				select {
				case to <- part{len(runs) - 1, p.Group, packed}:
				case <-failed.Done():
					return failed.Err()
				}
			}
			return nil
		})
	for _, to := range parts {
		close(to)
	}
	if err := work.Wait(); err != nil { // which is why the reader stopped
		return nil, err
	}
	return runs, errRead
}
