package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"runbell/internal/run"
)

const maxHeaders = 4096

// ourHeaders belong to the request that carries a webhook, or to the
// connection; everything that starts with ourPrefixes does too.
var (
	ourHeaders = []string{"content-type", "content-length", "content-encoding", "user-agent", "host", "x-timestamp",
		"transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect", "accept-encoding"}
	ourPrefixes = []string{"webhook-", "x-runbell-"}
)

// parseHeaders reads custom headers in the form Currents has for them: a JSON
// object in a string.
func parseHeaders(s string) (map[string]string, error) {
	if utf8.RuneCountInString(s) > maxHeaders {
		return nil, run.Errorf(run.Invalid, "headers must have at most %d characters.", maxHeaders)
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(s), &object); err != nil || object == nil {
		return nil, run.Errorf(run.Invalid, `headers must be a JSON object in a string, such as "{\"Authorization\":\"Bearer …\"}", or null.`)
	}
	headers := make(map[string]string, len(object))
	seen := map[string]bool{}
	for name, v := range object {
		shown := run.Clip(name, 80)
		if !token(name) {
			return nil, run.Errorf(run.Invalid, "headers: %q is not a name of a header: use letters, digits and dashes.", shown)
		}
		lower := strings.ToLower(name)
		if slices.Contains(ourHeaders, lower) || slices.ContainsFunc(ourPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) }) {
			return nil, run.Errorf(run.Invalid, "headers: %s is set by the server and cannot be overridden: remove it or use another name.", shown)
		}
		if seen[lower] {
			return nil, run.Errorf(run.Invalid, "headers: %s is there twice: names differ by more than upper and lower case.", http.CanonicalHeaderKey(shown))
		}
		seen[lower] = true
		value, isText := v.(string)
		if !isText {
			return nil, run.Errorf(run.Invalid, "headers: the value of %s must be a string.", shown)
		}
		// Receivers disagree about what other bytes mean.
		if strings.ContainsFunc(value, func(c rune) bool { return c != '\t' && (c < ' ' || c > '~') }) {
			return nil, run.Errorf(run.Invalid, "headers: the value of %s must be printable ASCII on one line.", shown)
		}
		headers[name] = value
	}
	return headers, nil
}

// token says that s is a token of HTTP, as names of headers are.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}

// mask stands for a value that is secret to the reader.
const mask = "…"

// formatHeaders is the inverse of parseHeaders; nil if there never were any.
func formatHeaders(headers map[string]string, reveal bool) *string {
	if headers == nil {
		return nil
	}
	shown := make(map[string]string, len(headers))
	for name, value := range headers {
		if !reveal {
			value = mask
		}
		shown[name] = value
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // as it was given
	if err := enc.Encode(shown); err != nil {
		panic("api: a map of strings does not encode: " + err.Error())
	}
	s := strings.TrimSuffix(b.String(), "\n")
	return &s
}
