package history

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"runbell/internal/store"
)

// numbers caches the numbers of names by project, because the same tests run again and
// again, and looking them up took half of a worker's time.
type numbers map[string]*projectNumbers

// maxNumbers limits how many are remembered: beyond it, all are forgotten.
const maxNumbers = 300_000

// projectNumbers are those of a project, found when its [store.Tx.NumbersSince] was this instant. A project that is
// deleted and created again starts at 1 again, and unused names are removed.
type projectNumbers struct {
	since  time.Time
	byKind map[store.NameKind]map[string]int
}

// of returns the known numbers of a project. since must be read before any number is found.
func (n numbers) of(projectID string, since time.Time) *projectNumbers {
	p := n[projectID]
	if p == nil || since.IsZero() || !p.since.Equal(since) {
		p = &projectNumbers{since, map[store.NameKind]map[string]int{store.SpecName: {}, store.TestName: {},
			store.ErrorName: {}}}
	}
	return p
}

// keep remembers the numbers of a project.
func (n numbers) keep(projectID string, p *projectNumbers) {
	n[projectID] = p
	size := 0
	for _, p := range n {
		for _, keys := range p.byKind {
			size += len(keys)
		}
	}
	if size > maxNumbers {
		clear(n)
	}
}

// learn calls give with the names of results whose numbers are not known.
func (p *projectNumbers) learn(results map[string]facts, give func(store.NameKind, []store.HistoryName) error) error {
	var specs, tests, errs []store.HistoryName
	// By position, because lists of what changed are in the order of numbers.
	inOrder := slices.SortedFunc(maps.Values(results), func(a, b facts) int { return cmp.Compare(a.Position, b.Position) })
	for _, f := range inOrder {
		specs = append(specs, store.HistoryName{Key: f.spec})
		for _, e := range slices.Concat(f.errors, []*store.HistoryName{f.exception}) {
			if e != nil {
				errs = append(errs, *e)
			}
		}
	}
	if err := errors.Join(give(store.SpecName, p.unknown(store.SpecName, specs)),
		give(store.ErrorName, p.unknown(store.ErrorName, errs))); err != nil {
		return err
	}
	for _, f := range inOrder {
		for _, t := range f.tests {
			t.Spec = p.byKind[store.SpecName][f.spec]
			tests = append(tests, t)
		}
	}
	return give(store.TestName, p.unknown(store.TestName, tests))
}

// unknown lists those of the names whose numbers are not known, each once.
func (p *projectNumbers) unknown(kind store.NameKind, names []store.HistoryName) (list []store.HistoryName) {
	asked := map[string]bool{}
	for _, name := range names {
		if p.byKind[kind][name.Key] == 0 && !asked[name.Key] {
			asked[name.Key] = true
			list = append(list, name)
		}
	}
	return list
}
