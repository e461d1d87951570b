package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// maxPostgresConns is per process. Several processes share a server, whose default limit
// is 100.
const maxPostgresConns = 24

func openPostgres(ctx context.Context, url string) (*DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		// The parser's message repeats the URL, and the URL has the password.
		return nil, errors.New("the database URL is not one that PostgreSQL understands: " +
			"postgres://user:password@host:5432/database")
	}
	pool := stdlib.OpenDB(*cfg)
	pool.SetMaxOpenConns(maxPostgresConns)
	pool.SetMaxIdleConns(maxPostgresConns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	if err := pool.PingContext(ctx); err != nil {
		_ = pool.Close()
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	provider, err := newProvider(pool, postgres)
	if err == nil {
		err = migrate(ctx, provider)
	}
	if err != nil {
		_ = pool.Close()
		return nil, err
	}
	server, err := newServer(ctx, pool, cfg)
	if err != nil {
		_ = pool.Close()
		return nil, err
	}
	return &DB{kind: postgres, pool: pool, server: server}, nil
}

// server has what only a database server offers: a clock for all processes, and
// messages between them.
type server struct {
	pool   *sql.DB
	config *pgx.ConnConfig
	local  func() time.Time // this machine's clock
	offset atomic.Int64     // nanoseconds by which the server's clock is ahead
	stop   context.CancelFunc
	ended  chan struct{}
}

const (
	// lookAtClock is how often the clocks are compared.
	lookAtClock = 15 * time.Second
	// sameClock is a difference that counts as none, because a comparison is not more
	// exact.
	sameClock = 20 * time.Millisecond
)

func newServer(ctx context.Context, pool *sql.DB, config *pgx.ConnConfig) (*server, error) {
	s := &server{pool: pool, config: config, local: steady(), ended: make(chan struct{})}
	if err := s.compare(ctx); err != nil {
		return nil, fmt.Errorf("read the clock of PostgreSQL: %w", err)
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.keepComparing(ctx)
	return s, nil
}

// steady is this machine's clock without steps by people and NTP; compare follows
// those.
func steady() func() time.Time {
	start := time.Now()
	return func() time.Time { return start.Add(time.Since(start)).UTC() }
}

func (s *server) close() {
	s.stop()
	<-s.ended
}

func (s *server) now() time.Time {
	return s.local().Add(time.Duration(s.offset.Load())).Truncate(time.Microsecond)
}

// compare measures how far the clocks are apart. This is the only place where SQL reads
// a clock. It gives the transactions of all machines the same clock, so a delivery
// that one machine queues is due on another.
func (s *server) compare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var theirs int64
	before := s.local()
	err := s.pool.QueryRowContext(ctx,
		`SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)`).Scan(&theirs)
	if err != nil {
		return err
	}
	took := s.local().Sub(before)
	ahead := time.UnixMicro(theirs).Sub(before.Add(took / 2))
	if moved := ahead - time.Duration(s.offset.Load()); moved.Abs() > max(sameClock, took) {
		s.offset.Store(int64(ahead))
	}
	return nil
}

func (s *server) keepComparing(ctx context.Context) {
	defer close(s.ended)
	for {
		select {
		case <-time.After(lookAtClock):
			_ = s.compare(ctx) // if the server is down, others report it
		case <-ctx.Done():
			return
		}
	}
}

// channel carries the ids of endpoints.
const channel = "runbell_lane"

// Tell sends a word to all listening processes once the transaction has committed. Only a
// shared database has any.
func (tx *Tx) Tell(ctx context.Context, word string) error {
	_, err := tx.conn.Exec(ctx, `SELECT pg_notify('`+channel+`', $1)`, word)
	return err
}

// Listen passes the words of Tell to heard until ctx ends. It passes "" whenever it may
// have missed some, and once at the start.
func (db *DB) Listen(ctx context.Context, heard func(word string)) {
	for ctx.Err() == nil {
		if conn, err := pgx.ConnectConfig(ctx, db.server.config); err == nil {
			if _, err = conn.Exec(ctx, `LISTEN `+channel); err == nil {
				heard("")
				for {
					n, err := conn.WaitForNotification(ctx)
					if err != nil {
						break
					}
					heard(n.Payload)
				}
			}
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = conn.Close(closing)
			cancel()
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}
