package web

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// ValidText makes the path, the query and the headers of every request text that
// a database takes. Bytes that are not UTF-8, and NUL, become U+FFFD, as in JSON
// that ParseJSON reads. So a name with such bytes is a name that does not exist,
// and each handler answers that in its own way.
func ValidText(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isValid(r.URL.Path) || !validQuery(r.URL.RawQuery) {
			u := *r.URL
			u.RawPath = validEscapedPath(r.URL.EscapedPath())
			u.Path, _ = url.PathUnescape(u.RawPath) // which was escaped just now
			if !validQuery(u.RawQuery) {
				u.RawQuery = validValues(u.Query()).Encode()
			}
			changed := *r
			changed.URL = &u
			r = &changed
		}
		for _, values := range r.Header {
			for i, v := range values {
				if !isValid(v) {
					values[i] = valid(v)
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

func isValid(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func valid(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// validEscapedPath goes by segments, because a slash in one may be escaped.
func validEscapedPath(escaped string) string {
	segments := strings.Split(escaped, "/")
	for i, segment := range segments {
		text, err := url.PathUnescape(segment)
		if err != nil || !isValid(text) {
			segments[i] = url.PathEscape(valid(text))
		}
	}
	return strings.Join(segments, "/")
}

// validQuery says whether all names and values of a query are valid. One
// without escapes is as it looks.
func validQuery(query string) bool {
	if !strings.Contains(query, "%") {
		return isValid(query)
	}
	text, err := url.QueryUnescape(query)
	return err == nil && isValid(text)
}

func validValues(values url.Values) url.Values {
	out := url.Values{}
	for name, list := range values {
		for _, v := range list {
			out.Add(valid(name), valid(v))
		}
	}
	return out
}
