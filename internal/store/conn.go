package store

import (
	"context"
	"database/sql"
)

// conn runs the statements of a transaction: through database/sql on
// PostgreSQL, on a connection of its own on SQLite.
type conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) row
}

// row is the one row of a query, or the current one of rows.
type row interface{ Scan(dest ...any) error }

// rows are the result of a query, as *sql.Rows are. They must be closed.
type rows interface {
	row
	Next() bool
	Err() error
	Close() error
}

// pooled is a transaction of database/sql as a conn.
type pooled struct{ *sql.Tx }

func (p pooled) QueryContext(ctx context.Context, query string, args ...any) (rows, error) {
	r, err := p.Tx.QueryContext(ctx, query, args...) //nolint:sqlclosecheck,rowserrcheck // the caller's
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (p pooled) QueryRowContext(ctx context.Context, query string, args ...any) row {
	return p.Tx.QueryRowContext(ctx, query, args...)
}
