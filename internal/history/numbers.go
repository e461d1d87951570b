package history

import (
	"context"
	"maps"
	"time"

	"runbell/internal/store"
)

// numbers remembers numbers of names, because the same tests run again and again: to
// look them up took half of a worker's time.
type numbers struct {
	projects map[string]*projectNumbers
	size     int
}

// maxNumbers limits how many are remembered: all are forgotten then.
const maxNumbers = 300_000

// projectNumbers are those of a project since its history began. A project that is
// deleted and made again starts at 1 again.
type projectNumbers struct {
	began  time.Time
	byKind map[store.NameKind]map[string]int
}

// of finds what is known of a project.
func (n *numbers) of(projectID string, began time.Time) *projectNumbers {
	p := n.projects[projectID]
	if p == nil || began.IsZero() || !p.began.Equal(began) {
		p = &projectNumbers{began, map[store.NameKind]map[string]int{store.SpecName: {}, store.TestName: {},
			store.ErrorName: {}}}
	}
	return p
}

// learn remembers what a transaction has found or given, after its commit.
func (n *numbers) learn(projectID string, p *projectNumbers, found map[store.NameKind]map[string]int) {
	if p.began.IsZero() { // nobody knows yet when this history began
		return
	}
	if n.size > maxNumbers || n.projects == nil {
		n.projects, n.size = map[string]*projectNumbers{}, 0
	}
	for kind, keys := range found {
		n.size += len(keys)
		maps.Copy(p.byKind[kind], keys)
	}
	n.projects[projectID] = p
}

// lookup returns the numbers of names, which get one if they have none. What was not
// remembered is added to found.
func (p *projectNumbers) lookup(ctx context.Context, tx *store.Tx, projectID string, kind store.NameKind,
	names []store.HistoryName, found map[store.NameKind]map[string]int) (func(key string) int, error) {
	known := p.byKind[kind]
	var unknown []store.HistoryName
	for _, name := range names {
		if known[name.Key] == 0 {
			unknown = append(unknown, name)
		}
	}
	fresh, err := tx.NumberNames(ctx, projectID, kind, unknown)
	found[kind] = fresh
	return func(key string) int {
		if n := known[key]; n != 0 {
			return n
		}
		return fresh[key]
	}, err
}
