package api

import (
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"runbell/internal/run"
	"runbell/internal/store"
)

// param is a query parameter.
type param struct {
	name     string
	doc      string
	enum     []string // its values, nil if free
	format   string   // of JSON Schema, or integer
	required bool
	repeats  bool
}

var inProject = param{name: "projectId", doc: "The project.", required: true}

const (
	defaultLimit = 10
	maxLimit     = 100
	// maxFilters bounds how often a filter may be repeated, and so the size of
	// a statement.
	maxFilters = 100
	maxSearch  = 200
)

func cursors() []param {
	return []param{
		{name: "limit", doc: "Maximum number of items, 1 to 100. Default: 10.", format: "integer"},
		{name: "starting_after", doc: "The cursor of an item: returns the older items after it."},
		{name: "ending_before", doc: "The cursor of an item: returns the newer items before it."},
	}
}

// page reads the parameters of cursors.
func (r *request) page() (store.Page, error) {
	page := store.Page{Limit: defaultLimit}
	if s := r.query.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxLimit {
			return page, run.Errorf(run.Invalid, "limit must be a number from 1 to %d.", maxLimit)
		}
		page.Limit = n
	}
	for name, into := range map[string]**store.Position{"starting_after": &page.After, "ending_before": &page.Before} {
		s := r.query.Get(name)
		if s == "" {
			continue
		}
		p, ok := parseCursor(s)
		if !ok {
			return page, run.Errorf(run.Invalid, "%s must be the cursor of an item of this list.", name)
		}
		*into = &p
	}
	if page.After != nil && page.Before != nil {
		return page, run.Errorf(run.Invalid, "Send starting_after or ending_before, not both.")
	}
	return page, nil
}

// cursorOf is opaque to clients: creation is not unique, so a place in a list
// is an instant and an id.
func cursorOf(at time.Time, id string) string {
	return store.Position{At: at, ID: id}.Cursor()
}

func parseCursor(s string) (store.Position, bool) {
	p, ok := store.ParseCursor(s)
	return p, ok && storable(p.ID)
}

// parseQuery refuses what a database would refuse.
func parseQuery(raw string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, run.Errorf(run.Invalid, "The query of the URL is not valid: percent-encode its values.")
	}
	for name, values := range q {
		if slices.ContainsFunc(values, func(v string) bool { return !storable(v) }) {
			return nil, run.Errorf(run.Invalid, "%s must be UTF-8 text without control characters.",
				run.Clip(strings.ToValidUTF8(name, "?"), 40))
		}
	}
	return q, nil
}

// storable says that a string is text to both databases and to people.
func storable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c == 0x7F })
}

// all reads a parameter that may be repeated, with or without brackets after
// its name.
func (r *request) all(names ...string) ([]string, error) {
	var out []string
	for _, name := range names {
		for _, v := range slices.Concat(r.query[name+"[]"], r.query[name]) {
			if v != "" && !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	if len(out) > maxFilters {
		return nil, run.Errorf(run.Invalid, "%s can be repeated at most %d times.", names[0], maxFilters)
	}
	return out, nil
}

// choices is all for a parameter with known values, in any case.
func choices[T ~string](r *request, name string, known []T) ([]T, error) {
	given, err := r.all(name)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(given))
	for i, v := range given {
		if out[i], err = oneChoice(name, v, known); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// choice is the value of a parameter with known values, in any case.
func choice[T ~string](r *request, name string, known []T, absent T) (T, error) {
	v := r.query.Get(name)
	if v == "" {
		return absent, nil
	}
	return oneChoice(name, v, known)
}

func oneChoice[T ~string](name, v string, known []T) (T, error) {
	n := slices.IndexFunc(known, func(k T) bool { return strings.EqualFold(string(k), v) })
	if n < 0 {
		return "", run.Errorf(run.Invalid, "%s must be %s, not %q.", name, oneOf(known), run.Clip(v, 40))
	}
	return known[n], nil
}

// oneOf lists words for a message: "a, b or c".
func oneOf[T ~string](words []T) string {
	out := ""
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			out += " or "
		default:
			out += ", "
		}
		out += string(w)
	}
	return out
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

// instant reads a parameter that is a time, zero if absent.
func (r *request) instant(name string) (time.Time, error) {
	s := r.query.Get(name)
	if s == "" {
		return time.Time{}, nil
	}
	s = strings.Replace(s, " ", "+", 1) // a + that was not percent-encoded
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, run.Errorf(run.Invalid,
		"%s must be a time such as 2026-01-31T12:00:00Z, or a date such as 2026-01-31 (its midnight, UTC).", name)
}

// dates reads date_start and date_end; each is zero if it is not given. A date without a time
// is the midnight at which it begins; as the end, the one at which it ends.
func (r *request) dates() (start, end time.Time, err error) {
	if start, err = r.instant("date_start"); err != nil {
		return start, end, err
	}
	if end, err = r.instant("date_end"); err != nil {
		return start, end, err
	}
	if _, err := time.Parse(time.DateOnly, r.query.Get("date_end")); err == nil {
		end = end.AddDate(0, 0, 1)
	}
	return start, end, checkPeriod("date_start", start, "date_end", end)
}

// checkPeriod refuses a period that ends before it begins. A zero time is no limit.
func checkPeriod(from string, start time.Time, until string, end time.Time) error {
	if !start.IsZero() && !end.IsZero() && !start.Before(end) {
		return run.Errorf(run.Invalid, "%s must be after %s.", until, from)
	}
	return nil
}

// checkText says whether a field is text of min to max characters.
func checkText(name, value string, minimum, maximum int) error {
	if n := utf8.RuneCountInString(value); n < minimum || n > maximum {
		if minimum == 0 {
			return run.Errorf(run.Invalid, "%s must have at most %d characters.", name, maximum)
		}
		return run.Errorf(run.Invalid, "%s must have %d to %d characters.", name, minimum, maximum)
	}
	if !storable(value) {
		return run.Errorf(run.Invalid, "%s must not contain control characters.", name)
	}
	return nil
}

// nullable is a field of a body that tells null from absent.
type nullable[T any] struct {
	given bool
	value *T // nil if null
}

// UnmarshalJSON is called only for fields that are there.
func (n *nullable[T]) UnmarshalJSON(b []byte) error {
	*n = nullable[T]{given: true}
	if string(b) == "null" {
		return nil
	}
	n.value = new(T)
	return json.Unmarshal(b, n.value)
}

// element is for the schema of the body.
func (n nullable[T]) element() reflect.Type { return reflect.TypeFor[T]() }

// or is the value, or other if it is null or absent.
func (n nullable[T]) or(other T) T {
	if n.value == nil {
		return other
	}
	return *n.value
}

// number is a field that clients send as a JSON number or string, kept as text.
type number string

// UnmarshalJSON takes both forms.
func (n *number) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case string:
		*n = number(v)
	case float64:
		*n = number(b) // not v: ids have more digits than a float
	case nil:
	default:
		return &json.UnmarshalTypeError{Value: kindOf(v), Type: reflect.TypeFor[number]()}
	}
	return nil
}

// kindOf names a decoded JSON value.
func kindOf(v any) string {
	switch v.(type) {
	case bool:
		return "bool"
	case []any:
		return "array"
	default:
		return "object"
	}
}
