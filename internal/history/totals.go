package history

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"runbell/internal/store"
)

// Explorer counts tests, specs and errors. It remembers what it counted of a day, for the
// next question about that day with the same filter.
//
// A total is found by what it is the sum of: the runs of the day that match, and the digests
// of their packed results. So there is nothing to keep in step. After late results, a reset
// or a deletion, nobody asks for the old total any more, and it makes room for others.
type Explorer struct {
	mu     sync.Mutex
	totals map[totalKey]*list.Element // of remembered
	recent *list.List                 // the latest asked for first
	bytes  int
	few    int // the least number of packed bytes of a day with a total; 0 is the size of its total
}

// maxTotals limits how many bytes of totals are remembered: of 5,000 tests, those of some 180
// days.
const maxTotals = 64 << 20

// totalBytes is what a total takes besides what it counts.
const totalBytes = 300

type totalKey [sha256.Size]byte

type remembered struct {
	key   totalKey
	value any
	bytes int
}

// NewExplorer makes an explorer that remembers nothing yet.
func NewExplorer() *Explorer {
	return &Explorer{totals: map[totalKey]*list.Element{}, recent: list.New()}
}

func (x *Explorer) find(key totalKey) (any, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, known := x.totals[key]
	if !known {
		return nil, false
	}
	x.recent.MoveToFront(e)
	return e.Value.(remembered).value, true
}

func (x *Explorer) keep(key totalKey, value any, bytes int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, known := x.totals[key]; known {
		return // another question has stored it meanwhile
	}
	bytes += totalBytes
	x.totals[key] = x.recent.PushFront(remembered{key, value, bytes})
	for x.bytes += bytes; x.bytes > maxTotals; {
		oldest := x.recent.Remove(x.recent.Back()).(remembered)
		delete(x.totals, oldest.key)
		x.bytes -= oldest.bytes
	}
}

// daySum is a day of a period with results.
type daySum struct {
	filter store.HistoryFilter // for its results
	key    totalKey
	bytes  int // of its packed results
}

// daysOf divides a period into its days with results, oldest first.
func daysOf(ctx context.Context, tx *store.Tx, kind, projectID string,
	filter store.HistoryFilter) (days []daySum, err error) {
	var sum []byte // what the key of the day is made of
	end := func() {
		if len(days) > 0 {
			days[len(days)-1].key = sha256.Sum256(sum)
		}
	}
	text := func(s string) { sum = append(binary.AppendUvarint(sum, uint64(len(s))), s...) }
	var until time.Time
	err = tx.EachHistoryDigest(ctx, projectID, filter,
		func(r store.HistoryRun, p store.HistoryPart, bytes int, digest int64) error {
			if len(days) == 0 || !r.CreatedAt.Before(until) {
				end()
				day := filter
				start := r.CreatedAt.Truncate(24 * time.Hour)
				if until = start.AddDate(0, 0, 1); start.After(filter.Since) {
					day.Since = start
				}
				if filter.Until.IsZero() || until.Before(filter.Until) {
					day.Until = until
				}
				days, sum = append(days, daySum{filter: day}), sum[:0]
				text(kind)
				text(projectID)
			}
			days[len(days)-1].bytes += bytes
			text(r.ID)
			text(r.Branch)
			text(r.Tags)
			text(p.Group)
			for _, n := range []int64{r.CreatedAt.UnixMicro(), int64(p.Part), digest} {
				sum = binary.AppendVarint(sum, n)
			}
			return nil
		})
	end()
	return days, err
}

// fewBytes is the least number of bytes of packed results of a day with a total.
const fewBytes = 64 << 10

// sumDays counts a period day by day: it calls add with the total of each day, oldest first. count makes the total of
// a part of the period, and says how many bytes it takes. most is how many bytes a total may take. Days with fewer
// packed results than that have no total of their own: unpacking them costs less than adding a total.
func sumDays[T any](ctx context.Context, tx *store.Tx, x *Explorer, kind, projectID string, filter store.HistoryFilter,
	most int, count func(store.HistoryFilter) (T, int, error), add func(T)) error {
	days, err := daysOf(ctx, tx, kind, projectID, filter)
	if err != nil {
		return err
	}
	if most = max(most, fewBytes); x.few > 0 {
		most = x.few
	}
	for n := 0; n < len(days); {
		day := days[n]
		n++
		if total, known := x.find(day.key); known {
			add(total.(T))
			continue
		}
		small := day.bytes < most
		for small && n < len(days) && days[n].bytes < most {
			day.filter.Until = days[n].filter.Until
			n++
		}
		total, bytes, err := count(day.filter)
		if err != nil {
			return err
		}
		if !small {
			x.keep(day.key, total, bytes)
		}
		add(total)
	}
	return nil
}
