package retention

import (
	"context"
	"time"

	"runbell/internal/store"
)

const (
	// longest is how long a removing transaction should take: on SQLite, requests wait for it.
	longest = 2 * time.Millisecond
	// firstRows is how many rows, about, the first one removes; fewestRows and mostRows limit
	// the others. A row may have megabytes.
	firstRows  = 50
	fewestRows = 4
	mostRows   = 500
)

// pace is how much one transaction removes. It adapts the number of rows to the allowed time, because rows may be
// large and disks slow.
type pace struct {
	db   *store.DB
	rows int
}

func newPace(db *store.DB) *pace { return &pace{db, firstRows} }

// rowsOfRun is about how many rows of a run the first transaction removes: the rest follows.
const rowsOfRun = 10

// runs is how many runs a transaction removes.
func (p *pace) runs() int { return max(1, p.rows/rowsOfRun) }

// remove runs a transaction that removes about as many rows as f is given, and returns their number.
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
