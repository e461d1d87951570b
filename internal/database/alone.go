package database

import (
	"context"
	"hash/fnv"
	"time"
)

// Alone runs f unless another call of Alone with the same name is running, in this
// process or in another one on the same database. It reports whether f ran. When a
// process ends, others can run f at once. f must be safe without Alone, because a
// process that loses its connection to PostgreSQL also loses the lock.
func (db *DB) Alone(ctx context.Context, name string, f func(context.Context) error) (ran bool, err error) {
	if _, busy := db.alone.LoadOrStore(name, true); busy {
		return false, nil
	}
	defer db.alone.Delete(name)
	if db.kind == sqlite {
		return true, f(ctx)
	}
	// A lock in PostgreSQL belongs to a connection.
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	h := fnv.New64a()
	_, _ = h.Write([]byte("runbell " + name)) // takes everything
	id := int64(h.Sum64())                    //nolint:gosec // any 64 bits do
	var locked bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", id).Scan(&locked); err != nil || !locked {
		return false, err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = conn.ExecContext(ending, "SELECT pg_advisory_unlock($1)", id) // if it fails, so has the connection
	}()
	return true, f(ctx)
}
