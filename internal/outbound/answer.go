package outbound

import (
	"bytes"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
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

// usual reads an answer as nearly all receivers give it: HTTP/1.1, headers of
// one line each, a body of a known length or none, and all of it here. Then it
// says how long it is; otherwise 0, and net/http reads it, which knows of every
// other form, and takes three times as long. usual takes nothing that net/http
// would not, and gives the same.
func usual(b []byte) (a Answer, size int) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return Answer{}, 0
	}
	line, rest, _ := strings.Cut(string(b[:end]), "\r\n")
	text, ok := strings.CutPrefix(line, "HTTP/1.1 ")
	if !ok || len(text) < 3 || len(text) > 3 && text[3] != ' ' || !httpguts.ValidHeaderFieldValue(text) {
		return Answer{}, 0
	}
	status, err := strconv.ParseUint(text[:3], 10, 16)
	if err != nil || status < 200 || status == http.StatusNotModified {
		return Answer{}, 0
	}
	a = Answer{Status: int(status), Text: text, Header: make([]Field, 0, strings.Count(rest, "\r\n")+1)}
	length := -1
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return Answer{}, 0
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch name {
		case "Content-Length":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || length >= 0 {
				return Answer{}, 0
			}
			length = int(n)
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return Answer{}, 0
			}
		case "Transfer-Encoding", "Trailer", "Pragma": // net/http makes something of them
			return Answer{}, 0
		}
		a.Header = append(a.Header, Field{name, value})
	}
	if none := status == http.StatusNoContent; none != (length < 0) {
		return Answer{}, 0
	}
	body := b[end+len("\r\n\r\n"):]
	length = max(length, 0)
	if length > min(len(body), KeepBody) {
		return Answer{}, 0
	}
	if length > 0 {
		a.Body = bytes.Clone(body[:length])
	}
	slices.SortStableFunc(a.Header, func(x, y Field) int { return strings.Compare(x.Name, y.Name) })
	return a, end + len("\r\n\r\n") + length
}

// fields are headers that net/http has read.
func fields(h http.Header) []Field {
	out := make([]Field, 0, len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			out = append(out, Field{name, value})
		}
	}
	return out
}
