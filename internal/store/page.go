package store

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"runbell/internal/database"
)

// Position is a place in a list that is ordered by creation, newest first.
type Position struct {
	At time.Time
	ID string
}

// Cursor encodes the position for URLs. Clients send it back unchanged.
func (p Position) Cursor() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.At.UnixMicro(), 36) + "." + p.ID))
}

// ParseCursor is the inverse of Cursor.
func ParseCursor(s string) (Position, bool) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	at, id, ok := strings.Cut(string(b), ".")
	us, errAt := strconv.ParseInt(at, 36, 64)
	text := utf8.ValidString(id) && !strings.ContainsRune(id, 0)
	return Position{At: timeOf(us), ID: id}, ok && text && err == nil && errAt == nil
}

// Page asks for a part of such a list: the rows after After, or those before Before;
// from the beginning if both are nil.
type Page struct {
	Limit  int
	After  *Position
	Before *Position
}

// query is a SELECT that is put together from conditions.
type query struct {
	text string
	args []any
}

// where adds a condition; each ? in it stands for the next argument.
func (q *query) where(condition string, args ...any) {
	q.text += ` AND (`
	for i, part := range strings.Split(condition, "?") {
		if i > 0 {
			q.args = append(q.args, args[i-1])
			q.text += "$" + strconv.Itoa(len(q.args))
		}
		q.text += part
	}
	q.text += `)`
}

// in adds "column IN (values)"; no values, no condition.
func (q *query) in(column string, values []string) {
	if len(values) == 0 {
		return
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	q.where(column+` IN (`+strings.TrimSuffix(strings.Repeat("?, ", len(values)), ", ")+`)`, args...)
}

// between adds the condition that a row was created at or after since and before until,
// if they are set.
func (q *query) between(since, until time.Time) {
	if !since.IsZero() {
		q.where(`created_at >= ?`, micros(since))
	}
	if !until.IsZero() {
		q.where(`created_at < ?`, micros(until))
	}
}

// along orders a table with created_at and id in the direction of a page: newest first,
// but oldest first from Before.
func (q *query) along(page Page) {
	order := ` ORDER BY created_at DESC, id DESC`
	switch {
	case page.After != nil:
		q.where(`(created_at, id) < (?, ?)`, micros(page.After.At), page.After.ID)
	case page.Before != nil:
		q.where(`(created_at, id) > (?, ?)`, micros(page.Before.At), page.Before.ID)
		order = ` ORDER BY created_at, id`
	}
	q.text += order
}

// upTo ends a search at a place, if one is given.
func (q *query) upTo(limit *Position, page Page) {
	switch {
	case limit == nil:
	case page.Before != nil:
		q.where(`(created_at, id) <= (?, ?)`, micros(limit.At), limit.ID)
	default:
		q.where(`(created_at, id) >= (?, ?)`, micros(limit.At), limit.ID)
	}
}

// limit returns the last row that a search in the direction of a page should read, depth
// rows further on, and whether there is one. q selects created_at and id.
func (tx *Tx) limit(ctx context.Context, q query, page Page, depth int) (Position, bool, error) {
	q.along(page)
	p, err := one(tx.QueryRow(ctx, q.text+` LIMIT 1 OFFSET `+strconv.Itoa(depth), q.args...),
		func(r database.Row) (Position, error) {
			var p Position
			var at int64
			err := r.Scan(&at, &p.ID)
			p.At = timeOf(at)
			return p, err
		}, nil)
	return p, p.ID != "", err
}

// paged runs a query over a table with created_at and id, newest first, and
// says whether there is more in the direction of the page.
func paged[T any](ctx context.Context, tx *Tx, q query, page Page,
	scan func(database.Row) (T, error)) ([]T, bool, error) {
	q.along(page)
	q.text += ` LIMIT ` + strconv.Itoa(page.Limit+1)
	rows, err := tx.Query(ctx, q.text, q.args...)
	list, err := database.All(rows, err, scan)
	if err != nil {
		return nil, false, err
	}
	more := len(list) > page.Limit
	list = list[:min(len(list), page.Limit)]
	if page.Before != nil {
		slices.Reverse(list)
	}
	return list, more, nil
}
