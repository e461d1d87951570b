package body

import (
	v1 "encoding/json"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"runbell/internal/run"
)

// What clients send is read as JavaScript would: the last of two equal names counts, and text that is not UTF-8 is
// repaired.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// explain says what is wrong with a JSON text, in the words of its sender.
func explain(err error) error {
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		return explainField(e)
	}
	if strings.Contains(err.Error(), "after top-level value") {
		return run.Errorf(run.Invalid, "The request body has more text after its JSON value.")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return run.Errorf(run.Invalid, "The request body is cut short: its JSON is incomplete.")
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return run.Errorf(run.Invalid, "The request body is not valid JSON (at byte %d).", e.ByteOffset)
	}
	return run.Errorf(run.Invalid, "The request body is not valid JSON.")
}

func explainField(e *json.SemanticError) error {
	field := run.Clip(strings.ReplaceAll(strings.Trim(string(e.JSONPointer), "/"), "/", "."), 100)
	if errors.Is(e.Err, json.ErrUnknownName) {
		return run.Errorf(run.Invalid, "Unknown field %q.", field)
	}
	if field == "" {
		field = "the body"
	}
	switch kind := jsonKinds[e.JSONKind]; {
	case errors.Is(e.Err, strconv.ErrRange):
		return run.Errorf(run.Invalid, "%s is out of range.", field)
	case errors.Is(e.Err, strconv.ErrSyntax) && e.JSONKind == '0':
		return run.Errorf(run.Invalid, "%s must be a whole number.", field)
	case e.GoType == reflect.TypeFor[time.Time]():
		return run.Errorf(run.Invalid, "%s must be a time such as 2026-01-31T12:00:00Z.", field)
	case kind != "" && wanted(e) != "":
		return run.Errorf(run.Invalid, "%s must be %s, not %s.", field, wanted(e), kind)
	case kind != "":
		return run.Errorf(run.Invalid, "%s must not be %s.", field, kind)
	}
	return run.Errorf(run.Invalid, "%s has the wrong type.", field)
}

// wanted is what a field takes, "" if that is not known. Of types that read their own
// JSON, only those that take text say it; others take several forms.
func wanted(e *json.SemanticError) string {
	t := e.GoType
	if own, ok := errors.AsType[*v1.UnmarshalTypeError](e.Err); ok && own.Type == reflect.TypeFor[string]() {
		t = own.Type
	}
	if t == nil || t.Implements(ownReader) || reflect.PointerTo(t).Implements(ownReader) {
		return ""
	}
	return goKinds[t.Kind()]
}

var ownReader = reflect.TypeFor[v1.Unmarshaler]()

var goKinds = map[reflect.Kind]string{reflect.String: "a string", reflect.Bool: "true or false",
	reflect.Int: "a whole number"}

var jsonKinds = map[jsontext.Kind]string{'n': "null", 'f': "false", 't': "true", '"': "a JSON string",
	'0': "a JSON number", '{': "a JSON object", '[': "a JSON array"}
