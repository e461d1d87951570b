package intake

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"runbell/internal/run"
)

// Text is a string that some clients send as a number (a build number) or as
// null, which is "". So is an object or an array.
type Text string

// UnmarshalJSONFrom takes any value.
func (t *Text) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*t = ""
	switch d.PeekKind() {
	case '"', '0', 't', 'f':
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		*t = Text(token.String())
		return nil
	default:
		return d.SkipValue()
	}
}

// Name is a [Text] without space around it: a key from a file ends with a line break,
// and the variables of some shells do, too.
type Name string

// UnmarshalJSONFrom takes any value.
func (n *Name) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	var t Text
	err := t.UnmarshalJSONFrom(d)
	*n = Name(strings.TrimSpace(string(t)))
	return err
}

// Moment is a time for display. It is nil if the client sent null or something
// that is not RFC 3339.
type Moment struct{ *time.Time }

// UnmarshalJSONFrom takes any value.
func (m *Moment) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	m.Time = nil
	if d.PeekKind() != '"' {
		return d.SkipValue()
	}
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	// JSON of our own has no years beyond 9999.
	if t, err := time.Parse(time.RFC3339, token.String()); err == nil && t.UTC().Year() >= 0 && t.UTC().Year() <= 9999 {
		t = t.UTC()
		m.Time = &t
	}
	return nil
}

// Flag is true if the client sent true, and false for anything else.
type Flag bool

// UnmarshalJSONFrom takes any value.
func (f *Flag) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*f = d.PeekKind() == 't'
	return d.SkipValue()
}

// Clean replaces NUL, which PostgreSQL does not store in text.
func Clean(s string) string { return strings.ReplaceAll(s, "\x00", "\uFFFD") }

// Short is a clean string of about n bytes at most.
func Short(s Text, n int) string { return run.Clip(Clean(string(s)), n) }

// CheckName returns an error of kind Refused unless s can be a name; what says
// which field it is.
func CheckName(what, s string) error {
	if !run.ValidName(s) {
		return run.Errorf(run.Refused, "%s must have at most %d characters, without control characters.", what,
			run.MaxNameLength)
	}
	return nil
}

// CheckTags returns an error of kind Refused if there are too many tags or one
// is not a name.
func CheckTags(tags []string) error {
	if len(tags) > run.MaxTags {
		return run.Errorf(run.Refused, "%d tags are too many: the limit is %d.", len(tags), run.MaxTags)
	}
	for _, t := range tags {
		if err := CheckName("a tag", t); err != nil {
			return err
		}
	}
	return nil
}

// Milliseconds is a duration from a client: not negative, and a week at most.
func Milliseconds(ms float64) time.Duration {
	const most = 7 * 24 * time.Hour
	if !(ms > 0) {
		return 0
	}
	return time.Duration(min(ms, float64(most.Milliseconds())) * float64(time.Millisecond))
}

// PathID is the id in the path, as text that can be looked up.
func PathID(r *http.Request) string {
	return Clean(strings.ToValidUTF8(r.PathValue("id"), "\uFFFD"))
}

// Attempt is the number of the try in a header. Clients count from 0.
func Attempt(r *http.Request, header string) int {
	n, err := strconv.Atoi(r.Header.Get(header))
	if err != nil || n < 0 {
		return 0
	}
	return n
}
