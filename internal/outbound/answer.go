package outbound

import (
	"maps"
	"net/http"
	"slices"
)

// Answer is what came back.
type Answer struct {
	Status int
	Text   string // the status line, such as "404 Not Found"
	Header []Field
	Body   []byte // the beginning, at most KeepBody
}

// Field is one line of an answer's headers. They are in the order of their
// names, which are canonical; those of one name are as they came.
type Field struct{ Name, Value string }

// Get is the first value of a header, "" if it is not there.
func (a Answer) Get(name string) string {
	for _, f := range a.Header {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// fields lists the headers of an answer.
func fields(h http.Header) []Field {
	out := make([]Field, 0, len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			out = append(out, Field{name, value})
		}
	}
	return out
}
