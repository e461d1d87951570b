package intake

import (
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The types of this file accept any JSON value. A value of the wrong type is ignored, because a report with an odd
// value is better than none.

// Number is a number, also one in a string. Anything else is 0.
type Number float64

// UnmarshalJSONFrom takes any value.
func (n *Number) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*n = 0
	if kind := d.PeekKind(); kind != '0' && kind != '"' {
		return d.SkipValue()
	}
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	if f, err := strconv.ParseFloat(token.String(), 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
		*n = Number(f)
	}
	return nil
}

// Int is the whole number next to n, within what an int32 holds.
func (n Number) Int() int { return int(max(math.MinInt32, min(float64(n), math.MaxInt32))) }

// Texts are the strings and numbers of an array. A single string is an array of
// one.
type Texts []string

// UnmarshalJSONFrom takes any value.
func (t *Texts) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*t = nil
	if d.PeekKind() == '"' {
		var one Text
		err := one.UnmarshalJSONFrom(d)
		*t = Texts{string(one)}
		return err
	}
	return elements(d, func(kind jsontext.Kind) error {
		if kind != '"' && kind != '0' {
			return d.SkipValue()
		}
		var one Text
		err := one.UnmarshalJSONFrom(d)
		*t = append(*t, string(one))
		return err
	})
}

// List is the objects of an array.
type List[T any] []T

// UnmarshalJSONFrom takes any value.
func (l *List[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*l = nil
	return elements(d, func(kind jsontext.Kind) error {
		if kind != '{' {
			return d.SkipValue()
		}
		var one T
		err := json.UnmarshalDecode(d, &one)
		*l = append(*l, one)
		return err
	})
}

// Problem is the text of an error. Any value is one, except null, false and "". For an object it is the message,
// otherwise its JSON.
type Problem string

// UnmarshalJSONFrom takes any value.
func (p *Problem) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*p = ""
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	kind := raw.Kind()
	if kind == 'n' || kind == 'f' {
		return nil
	}
	var text Text
	var object struct {
		Message Text `json:"message"`
	}
	if kind == '{' && json.Unmarshal(raw, &object) == nil {
		text = object.Message
	} else if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	if text == "" && kind != '"' {
		text = Text(raw)
	}
	*p = Problem(text)
	return nil
}

// elements calls f before each element of an array, for it to read. Any other
// value it skips.
func elements(d *jsontext.Decoder, f func(jsontext.Kind) error) error {
	if d.PeekKind() != '[' {
		return d.SkipValue()
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for {
		kind := d.PeekKind()
		if kind == ']' || kind == 0 { // 0: ReadToken returns the error
			_, err := d.ReadToken()
			return err
		}
		if err := f(kind); err != nil {
			return err
		}
	}
}

// Object is an object; Valid says that there was one.
type Object[T any] struct {
	Value T
	Valid bool
}

// UnmarshalJSONFrom takes any value.
func (o *Object[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*o = Object[T]{}
	if d.PeekKind() != '{' {
		return d.SkipValue()
	}
	o.Valid = true
	return json.UnmarshalDecode(d, &o.Value)
}
