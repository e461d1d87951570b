package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"unicode/utf8"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

const maxHeaders = 4096

// parseHeaders reads custom headers in the form Currents has for them: a JSON
// object in a string.
func parseHeaders(s string) (map[string]string, error) {
	if utf8.RuneCountInString(s) > maxHeaders {
		return nil, run.Errorf(run.Invalid, "headers must have at most %d characters.", maxHeaders)
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(s), &object); err != nil || object == nil {
		return nil, run.Errorf(run.Invalid,
			`headers must be a JSON object in a string, such as "{\"Authorization\":\"Bearer …\"}", or null.`)
	}
	headers := make(map[string]string, len(object))
	for name, v := range object {
		value, isText := v.(string)
		if !isText {
			return nil, run.Errorf(run.Invalid, "headers: the value of %s must be a string.",
				http.CanonicalHeaderKey(run.Clip(name, 80)))
		}
		headers[name] = value
	}
	return headers, nil
}

// formatHeaders is the inverse of parseHeaders; nil if there never were any.
func formatHeaders(headers map[string]string, reveal bool) *string {
	if headers == nil {
		return nil
	}
	shown := make(map[string]string, len(headers))
	for name, value := range headers {
		if !reveal {
			value = webhook.Masked
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
