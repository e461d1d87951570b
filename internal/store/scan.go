package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	fast "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"runbell/internal/database"
)

// micros is how instants are stored.
func micros(t time.Time) int64 { return t.UnixMicro() }

// microsOrNull stores the zero time as NULL.
func microsOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time { return time.UnixMicro(us).UTC() }

func timeOrZero(us database.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return timeOf(us.Int64)
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func document(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: %T does not encode: %v", v, err))
	}
	return string(b)
}

// lenient is for our own documents: they need no validation.
var lenient = fast.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// parse reads a document. The page of a run reads about a hundred of them, so parse works
// in one pass, unlike encoding/json.
func parse(doc string, into any) error {
	if err := fast.UnmarshalRead(strings.NewReader(doc), into, lenient); err != nil {
		return fmt.Errorf("stored document: %w", err)
	}
	return nil
}

// one scans a single row. If there is none, it returns the caller's error missing.
func one[T any](r database.Row, scan func(database.Row) (T, error), missing error) (T, error) {
	v, err := scan(r)
	if errors.Is(err, database.ErrNoRows) {
		return v, missing
	}
	return v, err
}

// prefixed puts a table's alias before each of its columns.
func prefixed(alias, columns string) string {
	list := strings.Split(columns, ",")
	for i, c := range list {
		list[i] = alias + "." + strings.TrimSpace(c)
	}
	return strings.Join(list, ", ")
}
