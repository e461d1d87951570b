package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"runbell/internal/webhook"
)

// maxPostgresConns is per process; several processes share a server whose own
// default is 100.
const maxPostgresConns = 24

func openPostgres(ctx context.Context, url string, sealer *webhook.Sealer) (*DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		// The parser's message repeats the URL, and the URL has the password.
		return nil, fmt.Errorf("the database URL is not one that PostgreSQL understands: postgres://user:password@host:5432/database")
	}
	pool := stdlib.OpenDB(*cfg)
	pool.SetMaxOpenConns(maxPostgresConns)
	pool.SetMaxIdleConns(maxPostgresConns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	if err := pool.PingContext(ctx); err != nil {
		_ = pool.Close()
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	if err := migrate(ctx, pool, postgres); err != nil {
		_ = pool.Close()
		return nil, err
	}
	return &DB{kind: postgres, pool: pool, sealer: sealer}, nil
}
