package history

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// ResultQuery asks for the results of one test.
type ResultQuery struct {
	Filter store.HistoryFilter
	States []run.TestState // none is all
	Flaky  *bool
}

// TestResult is one result of a test, with where it is from.
type TestResult struct {
	Run      run.Run
	Instance run.Instance
	Test     run.Test
	Duration time.Duration
	Flaky    bool
	Position store.Position // in the list
}

// place is where a result is in the list: the latest first.
type place struct {
	at       time.Time
	runID    string
	group    string
	position int
	index    int // among the results of its execution
}

func (p place) compare(o place) int {
	return cmp.Or(p.at.Compare(o.at), cmp.Compare(p.runID, o.runID), cmp.Compare(p.group, o.group),
		cmp.Compare(p.position, o.position), cmp.Compare(p.index, o.index))
}

func (p place) cursor() store.Position {
	return store.Position{At: p.at,
		ID: p.runID + "/" + strconv.Itoa(p.position) + "/" + strconv.Itoa(p.index) + "/" + p.group}
}

// placeOf is the inverse of cursor.
func placeOf(c store.Position) (place, error) {
	parts := strings.SplitN(c.ID, "/", 4)
	if len(parts) != 4 {
		return place{}, errCursor
	}
	position, err := strconv.Atoi(parts[1])
	index, errIndex := strconv.Atoi(parts[2])
	if err != nil || errIndex != nil {
		return place{}, errCursor
	}
	return place{c.At, parts[0], parts[3], position, index}, nil
}

var errCursor = run.Errorf(run.Invalid, "starting_after and ending_before must be the cursor of an item of this list.")

var errEnough = errors.New("enough")

// Results lists a page of the results of a test, the latest first, and says whether
// there is more in the direction of the page.
func Results(ctx context.Context, tx *store.Tx, signature string, q ResultQuery,
	page store.Page) (list []TestResult, more bool, err error) {
	projectID, name, err := tx.TestOfSignature(ctx, signature)
	if err != nil {
		return nil, false, err
	}
	places, err := q.places(ctx, tx, projectID, name, page)
	if err != nil {
		return nil, false, err
	}
	more = len(places) > page.Limit
	places = places[:min(len(places), page.Limit)]
	if page.Before != nil {
		slices.Reverse(places)
	}
	for _, p := range places {
		r, found, err := load(ctx, tx, signature, p)
		if err != nil {
			return nil, false, err
		}
		if found {
			list = append(list, r)
		}
	}
	return list, more, nil
}

// places finds results from a cursor on, one more than the page has.
func (q ResultQuery) places(ctx context.Context, tx *store.Tx, projectID string, name store.HistoryName,
	page store.Page) ([]place, error) {
	order, sign := store.NewestFirst, -1
	var from *place
	filter := q.Filter
	for _, c := range []*store.Position{page.After, page.Before} {
		if c == nil {
			continue
		}
		p, err := placeOf(*c)
		if err != nil {
			return nil, err
		}
		from = &p
	}
	switch {
	case page.After != nil && from.at.Before(filter.Until):
		filter.Until = from.at.Add(time.Microsecond)
	case page.Before != nil:
		order, sign = store.OldestFirst, 1
		if from.at.After(filter.Since) {
			filter.Since = from.at
		}
	}
	var found, ofRun []place
	flush := func() {
		slices.SortFunc(ofRun, func(a, b place) int { return sign * a.compare(b) })
		for _, p := range ofRun {
			if from == nil || sign*p.compare(*from) > 0 {
				found = append(found, p)
			}
		}
		ofRun = ofRun[:0]
	}
	err := tx.FirstHistoryParts(ctx, projectID, filter, order,
		func(r store.HistoryRun, p store.HistoryPart, packed []byte) error {
			if len(ofRun) > 0 && ofRun[0].runID != r.ID {
				flush()
			}
			if len(found) > page.Limit {
				return errEnough
			}
			return unpack(packed, ofSpec(name.Spec), func(e *Execution) {
				for i, result := range e.Results {
					if result.Test == name.Number && q.wants(result) {
						ofRun = append(ofRun, place{r.CreatedAt, r.ID, p.Group, e.Position, i})
					}
				}
			})
		})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	flush()
	return found[:min(len(found), page.Limit+1)], nil
}

func (q ResultQuery) wants(r Result) bool {
	return (len(q.States) == 0 || slices.Contains(q.States, r.State.Name())) && (q.Flaky == nil || *q.Flaky == r.Flaky())
}

// load reads a result with its attempts. It reports false if the result no longer
// exists.
func load(ctx context.Context, tx *store.Tx, signature string, p place) (TestResult, bool, error) {
	owner, err := tx.Run(ctx, p.runID)
	if err != nil {
		return TestResult{}, false, err
	}
	instance, err := tx.InstanceAt(ctx, p.runID, p.group, p.position)
	if err != nil {
		return TestResult{}, false, err
	}
	announcement, outcome, err := tx.Tests(ctx, instance.ID)
	if err != nil {
		return TestResult{}, false, err
	}
	done := slices.DeleteFunc(run.Tests(announcement, outcome), func(t run.Test) bool { return !t.Done })
	// A spec that was reset may have other results by now.
	if p.index >= len(done) || run.Signature(owner.ProjectID, instance.Spec, done[p.index].Title) != signature {
		return TestResult{}, false, nil
	}
	t := done[p.index]
	r := resultOf(t)
	return TestResult{owner, instance, t, time.Duration(r.Duration) * time.Millisecond, r.Flaky(), p.cursor()}, true, nil
}
