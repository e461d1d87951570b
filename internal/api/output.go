package api

import "time"

// timestamp is a time as the API writes it: ISO 8601, UTC, milliseconds.
type timestamp time.Time

const timeLayout = "2006-01-02T15:04:05.000Z"

// MarshalJSON writes the fixed form.
func (t timestamp) MarshalJSON() ([]byte, error) {
	return []byte(time.Time(t).UTC().Format(`"` + timeLayout + `"`)), nil
}

// known is nil for the zero time, which is written as null.
func known(t time.Time) *timestamp {
	if t.IsZero() {
		return nil
	}
	ts := timestamp(t)
	return &ts
}

// text is nil for the empty string, which means unknown or none, and is written
// as null.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
