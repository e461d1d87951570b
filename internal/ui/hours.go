package ui

import (
	"context"
	"fmt"
	"time"

	"runbell/internal/store"
	"runbell/internal/webhook"
)

// hours draws the deliveries of the last 24 hours, by the hour in which they were queued.
type hours struct {
	Bars                       []hourBar
	Delivered, Failed, Pending int
	Cut                        bool // there were more than are counted
}

// hourBar is an hour: its parts lie on top of each other.
type hourBar struct {
	X     int
	Text  string
	Parts []hourPart
}

type hourPart struct {
	Tone tone
	Y, H int
}

// maxHourly is how many deliveries are counted.
const maxHourly = 20_000

func hoursOf(ctx context.Context, tx *store.Tx, e webhook.Endpoint) (*hours, error) {
	const all = 24
	first := tx.Now.UTC().Truncate(time.Hour).Add(-(all - 1) * time.Hour)
	list, err := tx.Hours(ctx, e.ID, first, maxHourly)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var out hours
	most := 1
	for _, h := range list {
		most = max(most, h.Delivered+h.Failed+h.Pending)
		out.Delivered, out.Failed, out.Pending = out.Delivered+h.Delivered, out.Failed+h.Failed, out.Pending+h.Pending
	}
	out.Cut = out.Delivered+out.Failed+out.Pending == maxHourly
	for _, h := range list {
		bar := hourBar{X: 10 * int(h.At.Sub(first)/time.Hour),
			Text: fmt.Sprintf("%s UTC: %s delivered, %s failed, %s pending", h.At.Format("15:04"), number(h.Delivered),
				number(h.Failed), number(h.Pending))}
		y := barHeight
		for _, part := range []struct {
			tone tone
			n    int
		}{{tonePass, h.Delivered}, {toneRun, h.Pending}, {toneFail, h.Failed}} {
			if part.n == 0 {
				continue
			}
			height := max(1, barHeight*part.n/most)
			y = max(0, y-height)
			bar.Parts = append(bar.Parts, hourPart{part.tone, y, height})
		}
		out.Bars = append(out.Bars, bar)
	}
	return &out, nil
}
