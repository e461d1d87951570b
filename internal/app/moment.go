package app

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// moment is a flag that is a time, or an age: how long ago.
type moment struct{ time.Time }

// momentHelp is for the help of commands that have such flags.
const momentHelp = `A time is 2026-01-31T12:00:00Z, or as the commands print it: '2026-01-31 12:00:00', in the time zone
of this machine. The seconds and the time of day may be left out. An age is 90s, 30m, 2h or 3d.`

// UnmarshalText reads either.
func (m *moment) UnmarshalText(text []byte) error {
	now := time.Now()
	t, ok := parseMoment(string(text), now)
	if !ok {
		return fmt.Errorf("%q is neither a time such as '2026-01-31 12:00' nor an age such as 2h or 3d", text)
	}
	m.Time = t
	return nil
}

func parseMoment(s string, now time.Time) (time.Time, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		return now.AddDate(0, 0, -n), err == nil && n >= 0 && n <= 36500
	}
	if age, err := time.ParseDuration(s); err == nil {
		return now.Add(-age), age >= 0
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05",
		"2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
