package app

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"2h":                        "2026-03-10T10:00:00+01:00",
		"1h30m":                     "2026-03-10T10:30:00+01:00",
		"0s":                        "2026-03-10T12:00:00+01:00",
		"3d":                        "2026-03-07T12:00:00+01:00",
		"2026-01-31":                "2026-01-31T00:00:00+01:00",
		"2026-01-31 08:15":          "2026-01-31T08:15:00+01:00",
		"2026-01-31 08:15:30":       "2026-01-31T08:15:30+01:00",
		"2026-01-31T08:15":          "2026-01-31T08:15:00+01:00",
		"2026-01-31T08:15:30Z":      "2026-01-31T08:15:30Z",
		"2026-01-31T08:15:30-05:00": "2026-01-31T08:15:30-05:00",
	} {
		got, ok := parseMoment(text, now)
		if want, err := time.Parse(time.RFC3339, want); err != nil || !ok || !got.Equal(want) {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"", "yesterday", "-2h", "-1d", "d", "1.5d", "99999d", "2026-13-01", "12:00", "2026-01-31 25:00"} {
		if got, ok := parseMoment(text, now); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}
