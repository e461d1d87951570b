package history

import (
	"context"
	"errors"
	"time"

	"runbell/internal/store"
)

const (
	// namesEvery is the time between two looks at the names of a project.
	namesEvery = 24 * time.Hour
	// nameGrace is how long a name stays after it was found unused: longer than any transaction takes that uses its
	// number.
	nameGrace = time.Hour
	// sweepBytes and sweepNames limit what one transaction looks at.
	sweepBytes = 2 << 20
	sweepNames = 10_000
)

// NameSweep removes names of a project that no results have any more. New results may have any name again, and
// processes remember numbers. So a name is removed in two steps, at least [nameGrace] apart. First it is marked as
// unused, and all processes forget the numbers that they remember ([store.Tx.NumbersSince]). Then it is deleted if
// still no results have it. A request for its number in between clears the mark.
type NameSweep struct {
	projectID string
	began     time.Time
	used      map[store.NameKind][]bool // by number
	from      time.Time                 // the runs before are scanned
	scanned   bool
	kinds     []store.NameKind // whose names are still to be looked at
	after     int              // of these, the number up to which they are
	specs     map[int]bool     // that a test has
	unhealthy map[int]string   // tests of which it is known that they are not healthy
	changes   []nameChange
	done      bool
}

// nameChange is a change of a name.
type nameChange struct {
	kind   store.NameKind
	number int
	do     nameAction
}

type nameAction int

const (
	markUsed nameAction = iota
	markUnused
	deleteName
)

// SweepNames begins to remove names of a project.
func SweepNames(projectID string) *NameSweep {
	return &NameSweep{projectID: projectID, specs: map[int]bool{}}
}

// Looking reports whether [NameSweep.Look] has more to read.
func (s *NameSweep) Looking() bool {
	return !s.done && (s.used == nil || !s.scanned || len(s.kinds) > 0)
}

// Done reports whether nothing is left to do.
func (s *NameSweep) Done() bool { return s.done }

// Look finds the names that are used, some at a time.
func (s *NameSweep) Look(ctx context.Context, tx *store.Tx) error {
	switch {
	case s.used == nil:
		return s.begin(ctx, tx)
	case !s.scanned:
		return s.scan(ctx, tx)
	default:
		return s.compare(ctx, tx)
	}
}

func (s *NameSweep) begin(ctx context.Context, tx *store.Tx) error {
	last, swept, err := tx.LastNumbers(ctx, s.projectID)
	if err != nil {
		return err
	}
	if s.done = len(last) == 0 || tx.Now.Sub(swept) < namesEvery; s.done {
		return nil
	}
	s.began, s.used = tx.Now, map[store.NameKind][]bool{}
	for kind, number := range last {
		s.used[kind] = make([]bool, number+1)
	}
	s.kinds = []store.NameKind{store.ErrorName, store.TestName, store.SpecName} // specs after the tests that have them
	s.unhealthy, err = tx.TestStatuses(ctx, s.projectID)
	return err
}

// scan marks what the next results have.
func (s *NameSweep) scan(ctx context.Context, tx *store.Tx) error {
	left := sweepBytes
	err := tx.FirstHistoryParts(ctx, s.projectID, store.HistoryFilter{Since: s.from}, store.OldestFirst,
		func(r store.HistoryRun, _ store.HistoryPart, packed []byte) error {
			if left < 0 && r.CreatedAt.After(s.from) { // all runs of one instant at once
				s.from = r.CreatedAt
				return errEnough
			}
			left -= len(packed)
			return unpack(packed, everything, func(e *Execution) {
				s.use(store.SpecName, e.Spec)
				s.use(store.ErrorName, e.Error)
				for _, v := range e.Results {
					s.use(store.TestName, v.Test)
					s.use(store.ErrorName, v.Error)
				}
			})
		})
	if errors.Is(err, errEnough) {
		return nil
	}
	s.scanned = err == nil
	return err
}

func (s *NameSweep) use(kind store.NameKind, number int) {
	if used := s.used[kind]; number < len(used) { // a newer one is not looked at
		used[number] = true
	}
}

// compare decides about the next names.
func (s *NameSweep) compare(ctx context.Context, tx *store.Tx) error {
	kind := s.kinds[0]
	names, err := tx.NamesAfter(ctx, s.projectID, kind, s.after, sweepNames)
	if err != nil {
		return err
	}
	for _, n := range names {
		if kind == store.TestName {
			s.specs[n.Spec] = true
		}
		if s.after = n.Number; n.Number >= len(s.used[kind]) {
			continue
		}
		used := s.used[kind][n.Number] || kind == store.SpecName && s.specs[n.Number] ||
			kind == store.TestName && s.unhealthy[n.Number] != ""
		marked := !n.UnusedSince.IsZero()
		switch {
		case used && marked:
			s.changes = append(s.changes, nameChange{kind, n.Number, markUsed})
		case !used && !marked:
			s.changes = append(s.changes, nameChange{kind, n.Number, markUnused})
		case !used && n.UnusedSince.Before(s.began.Add(-nameGrace)):
			s.changes = append(s.changes, nameChange{kind, n.Number, deleteName})
		}
	}
	if len(names) < sweepNames {
		s.kinds, s.after = s.kinds[1:], 0
	}
	return nil
}

// next lists up to limit changes of one sort.
func (s *NameSweep) next(limit int) []nameChange {
	for n, c := range s.changes {
		if n == limit || c.kind != s.changes[0].kind || c.do != s.changes[0].do {
			return s.changes[:n]
		}
	}
	return s.changes
}

// Change makes up to limit changes, and returns how many it made and how many names it
// deleted. Call [NameSweep.Changed] when they are committed.
func (s *NameSweep) Change(ctx context.Context, tx *store.Tx, limit int) (changed, deleted int, err error) {
	changes := s.next(limit)
	if len(changes) == 0 {
		return 0, 0, tx.SetNamesSwept(ctx, s.projectID, s.began)
	}
	numbers := make([]int, len(changes))
	for n, c := range changes {
		numbers[n] = c.number
	}
	switch kind := changes[0].kind; changes[0].do {
	case markUsed:
		err = tx.MarkNames(ctx, s.projectID, kind, numbers, false)
	case markUnused:
		err = tx.MarkNames(ctx, s.projectID, kind, numbers, true)
	case deleteName:
		deleted, err = tx.DeleteNames(ctx, s.projectID, kind, numbers, s.began.Add(-nameGrace))
	}
	return len(changes), deleted, err
}

// Changed continues after that many committed changes.
func (s *NameSweep) Changed(changed int) {
	s.changes = s.changes[changed:]
	s.done = changed == 0
}
