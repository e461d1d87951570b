package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// Header is a header of a request or response.
type Header struct {
	Name  string
	Value string
	// Secret values are sent and never logged.
	Secret bool
}

// Headers keeps headers in their order. As JSON it is an object, with secret
// values masked: this is what the log stores and shows.
type Headers []Header

// Masked stands where a secret value was.
const Masked = "…"

// Get is the value of a header, "" if it is not there.
func (h Headers) Get(name string) string {
	for _, one := range h {
		if one.Name == name {
			return one.Value
		}
	}
	return ""
}

// Format masks secret values in everything that prints headers.
func (h Header) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, h.Name+": "+h.shown()) }

// MarshalJSON masks them there, too.
func (h Header) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"Name": h.Name, "Value": h.shown()})
}

func (h Header) shown() string {
	if h.Secret {
		return Masked
	}
	return h.Value
}

// MarshalJSON is AppendJSON.
func (h Headers) MarshalJSON() ([]byte, error) { return h.AppendJSON(nil), nil }

// AppendJSON appends the headers as JSON. It is written by hand because every
// attempt is logged.
func (h Headers) AppendJSON(dst []byte) []byte {
	size := 2
	for _, one := range h {
		size += len(one.Name) + len(one.shown()) + len(`"":"",`)
	}
	dst = append(slices.Grow(dst, size), '{') // enough, unless something has to be escaped
	for i, one := range h {
		if i > 0 {
			dst = append(dst, ',')
		}
		// The errors are about bytes that are not UTF-8: those are replaced.
		dst, _ = jsontext.AppendQuote(dst, one.Name)
		dst = append(dst, ':')
		dst, _ = jsontext.AppendQuote(dst, one.shown())
	}
	return append(dst, '}')
}

// UnmarshalJSON reads an object, in its order.
func (h *Headers) UnmarshalJSON(b []byte) error {
	*h = nil
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return err
		}
		*h = append(*h, Header{Name: fmt.Sprint(name), Value: value})
	}
	return nil
}
