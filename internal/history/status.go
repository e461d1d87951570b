package history

import (
	"context"
	"errors"
	"maps"
	"slices"

	"runbell/internal/store"
)

// statusRuns is how many of the latest runs decide the health of a test.
const statusRuns = 30

// StatusChange is a test whose health has changed.
type StatusChange struct {
	TestDescription
	From, To Health
}

// Statuses returns the tests of a project whose health has changed since the last call. now is the result of
// [HealthsOn] for a branch. It stores the healths. The first time, and after the branch has changed, it only stores
// them.
func Statuses(ctx context.Context, tx *store.Tx, projectID, branch string, now map[int]Health) ([]StatusChange,
	error) {
	last, known, err := tx.LockStatuses(ctx, projectID)
	if err != nil {
		return nil, err
	}
	stored, err := tx.TestStatuses(ctx, projectID)
	if err != nil {
		return nil, err
	}
	before := make(map[int]Health, len(stored))
	for number, health := range stored {
		before[number] = Health(health)
	}
	changed := changes(before, now)
	if known && last == branch && len(changed) == 0 {
		return nil, nil
	}
	set := make(map[int]string, len(changed))
	for number, health := range changed {
		if set[number] = string(health); health == Healthy || health == Unknown {
			set[number] = ""
		}
	}
	if err := tx.SetTestStatuses(ctx, projectID, branch, set); err != nil || !known || last != branch {
		return nil, err
	}
	return describeChanges(ctx, tx, projectID, before, changed)
}

// changes are the healths that have changed, by the number of the test. A test that is not in before was healthy.
func changes(before, now map[int]Health) map[int]Health {
	out := map[int]Health{}
	for number, was := range before {
		if is, ran := now[number]; !ran {
			out[number] = Unknown
		} else if is != was {
			out[number] = is
		}
	}
	for number, is := range now {
		if _, known := before[number]; !known && is != Healthy && is != Unknown {
			out[number] = is
		}
	}
	return out
}

// HealthsOn are those of the tests in the latest 30 runs of a branch, of all branches if
// that is "", by number.
func HealthsOn(ctx context.Context, tx *store.Tx, projectID, branch string) (map[int]Health, error) {
	var filter store.HistoryFilter
	if branch != "" {
		filter.Branches = []string{branch}
	}
	var runs [][][]byte // the parts of each, of the latest first
	last := ""
	err := tx.FirstHistoryParts(ctx, projectID, filter, store.NewestFirst,
		func(r store.HistoryRun, _ store.HistoryPart, results []byte) error {
			if r.ID != last {
				if len(runs) == statusRuns {
					return errEnough
				}
				runs, last = append(runs, nil), r.ID
			}
			runs[len(runs)-1] = append(runs[len(runs)-1], results)
			return nil
		})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	var t tests
	for _, parts := range slices.Backward(runs) {
		for _, results := range parts {
			if err := unpack(results, everything, func(e *Execution) { t.add(0, "", e) }); err != nil {
				return nil, err
			}
		}
	}
	out := make(map[int]Health, len(t.tallies))
	for number := range t.tallies {
		if v := t.of(number); v != nil {
			out[number] = v.recent.Health()
		}
	}
	return out, nil
}

// describeChanges names the tests that changed, in the order of their numbers. One that
// did not run lately has no health.
func describeChanges(ctx context.Context, tx *store.Tx, projectID string,
	before, changed map[int]Health) ([]StatusChange, error) {
	numbers := slices.Sorted(maps.Keys(changed))
	names, err := descriptions(ctx, tx, projectID, numbers)
	if err != nil {
		return nil, err
	}
	var out []StatusChange
	for _, number := range numbers {
		c := StatusChange{TestDescription: names[number], From: Healthy, To: changed[number]}
		if was, known := before[number]; known {
			c.From = was
		}
		if c.To != Unknown {
			out = append(out, c)
		}
	}
	return out, nil
}
