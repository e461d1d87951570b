package retention

import (
	"context"
	"time"

	"runbell/internal/store"
)

const (
	// longest is how long a transaction should take that removes something: on SQLite, requests
	// wait for it.
	longest = 2 * time.Millisecond
	// firstRows is how many rows, about, the first one removes; fewestRows and mostRows limit
	// the others. A row may have megabytes.
	firstRows  = 50
	fewestRows = 4
	mostRows   = 500
)

// pace is how much one transaction removes. It finds out what takes as long as it may:
// rows are small or large, and disks fast or slow.
type pace struct {
	db   *store.DB
	rows int
}

func newPace(db *store.DB) *pace { return &pace{db, firstRows} }

// rowsOfRun is how many rows, about, a transaction removes of a run: the rest follows.
const rowsOfRun = 10

// runs is how many runs a transaction removes.
func (p *pace) runs() int { return max(1, p.rows/rowsOfRun) }

// remove runs a transaction that removes about as many rows as f is given at most,
// and returns how many these were.
func (p *pace) remove(ctx context.Context, f func(tx *store.Tx, rows int) (int, error)) (removed int, err error) {
	var took time.Duration
	err = p.db.Write(ctx, func(tx *store.Tx) (err error) {
		began := time.Now()
		removed, err = f(tx, p.rows)
		took = time.Since(began)
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case took > longest:
		p.rows = max(fewestRows, p.rows/2)
	case removed >= max(1, p.rows/rowsOfRun*rowsOfRun) && took < longest/2: // as much as it may, in whole runs
		p.rows = min(mostRows, 2*p.rows)
	}
	return removed, nil
}
