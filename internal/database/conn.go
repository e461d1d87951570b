package database

import (
	"context"
	"database/sql"
)

// conn runs the statements of a transaction: through database/sql on
// PostgreSQL, directly on a connection on SQLite.
type conn interface {
	// Exec returns how many rows the statement changed.
	Exec(ctx context.Context, query string, args ...any) (changed int64, err error)
	Query(ctx context.Context, query string, args ...any) (Rows, error)
	QueryRow(ctx context.Context, query string, args ...any) Row
}

// Row is the only row of a query, or the current one of [Rows].
type Row interface{ Scan(dest ...any) error }

// Rows are the result of a query, as [sql.Rows] are. They must be closed.
type Rows interface {
	Row
	Next() bool
	Err() error
	Close() error
}

// The types of columns that may be NULL come from database/sql, which no other package
// imports.
type (
	NullInt64  = sql.NullInt64
	NullString = sql.NullString
)

// ErrNoRows is the error of [Row.Scan] if a query found no row.
var ErrNoRows = sql.ErrNoRows

// All collects the rows of a query, and closes them.
func All[T any](rows Rows, err error, scan func(Row) (T, error)) ([]T, error) {
	return Append(nil, rows, err, scan)
}

// Append is [All] for a list that is already allocated.
func Append[T any](out []T, rows Rows, err error, scan func(Row) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// pooled is a transaction of database/sql as a conn.
type pooled struct{ tx *sql.Tx }

func (p pooled) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := p.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (p pooled) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	r, err := p.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (p pooled) QueryRow(ctx context.Context, query string, args ...any) Row {
	return p.tx.QueryRowContext(ctx, query, args...)
}

// watched is a conn that shows each statement before it runs.
type watched struct {
	conn
	see func(ctx context.Context, query string, args []any)
}

func (w watched) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	w.see(ctx, query, args)
	return w.conn.Exec(ctx, query, args...)
}

func (w watched) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	w.see(ctx, query, args)
	return w.conn.Query(ctx, query, args...)
}

func (w watched) QueryRow(ctx context.Context, query string, args ...any) Row {
	w.see(ctx, query, args)
	return w.conn.QueryRow(ctx, query, args...)
}

// Watched returns a transaction that passes each statement to see before it runs. Tests
// use it to ask the database for its plan.
func (tx *Tx) Watched(see func(ctx context.Context, query string, args []any)) *Tx {
	return &Tx{Now: tx.Now, kind: tx.kind, conn: watched{tx.conn, see}}
}
