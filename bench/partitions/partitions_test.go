// Package partitions compares two ways to remove old results from PostgreSQL: in
// batches, as Runbell does, and by dropping partitions of a time. See
// docs/adr/batches-not-partitions.md.
package partitions

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"runbell/internal/testkit"
)

const (
	months     = 12
	perMonth   = 10_000 // instances, of 5 in each run
	inRun      = 5
	lookups    = 2_000
	inABatch   = 125 // instances that go in one transaction
	outcome    = 4_000
	announced  = 2_000
	writerRest = 2 * time.Millisecond
)

// grows are the tables that grow with tests, and the column that tells their time:
// ids begin with it.
var grows = []struct{ table, id string }{{"console_output", "instance_id"}, {"outcome", "instance_id"}, {"announcement", "instance_id"}, {"instance", "id"}}

// BenchmarkRemoval fills the tables with a year, looks things up, and removes the first
// month while somebody writes.
func BenchmarkRemoval(b *testing.B) {
	cluster := testkit.PostgresCluster(b, "fsync=on", "full_page_writes=on", "autovacuum=on")
	for _, way := range []string{"batches", "partitions"} {
		b.Run(way, func(b *testing.B) {
			for range b.N {
				w := newWorld(b, cluster.Database(b), way == "partitions")
				w.fill()
				w.lookUp()
				w.remove()
			}
		})
	}
}

// written numbers what is written while something is removed.
var written atomic.Int64

type world struct {
	*testing.B
	url         string
	conn        *pgx.Conn
	partitioned bool
}

func newWorld(b *testing.B, url string, partitioned bool) *world {
	b.Helper()
	testkit.Open(b, url) // makes the schema
	w := &world{B: b, url: url, partitioned: partitioned}
	w.conn = w.connect()
	if !partitioned {
		return w
	}
	for _, g := range grows { // without foreign keys: they would make it slower to drop a partition
		w.exec(fmt.Sprintf(`ALTER TABLE %s RENAME TO old_%[1]s`, g.table))
	}
	for _, g := range grows {
		w.exec(fmt.Sprintf(`CREATE TABLE %s (LIKE old_%[1]s INCLUDING DEFAULTS) PARTITION BY RANGE (%s)`, g.table, g.id))
		w.exec(fmt.Sprintf(`ALTER TABLE %s ADD PRIMARY KEY (%s)`, g.table, g.id))
		for m := range months + 1 {
			w.exec(fmt.Sprintf(`CREATE TABLE %s_%d PARTITION OF %[1]s FOR VALUES FROM ('%[3]s') TO ('%[4]s')`, g.table, m, month(m), month(m+1)))
		}
	}
	for _, index := range []string{`(run_id, group_name, position)`, `(run_id, group_name, position) WHERE failures > 0`,
		`(run_id, group_name, position) WHERE machine_id IS NULL`, `(completed_at, id) WHERE history_due = 1`} {
		w.exec(`CREATE INDEX ON instance ` + index)
	}
	return w
}

func (w *world) connect() *pgx.Conn {
	conn, err := pgx.Connect(context.Background(), w.url)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (w *world) exec(sql string, args ...any) {
	if _, err := w.conn.Exec(context.Background(), sql, args...); err != nil {
		w.Fatal(sql, err)
	}
}

func (w *world) number(sql string) (n int64) {
	if err := w.conn.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		w.Fatal(sql, err)
	}
	return n
}

// month is how ids of a month begin.
func month(m int) string { return fmt.Sprintf("%04x", 0x1000+m*0x100) }

// id is the id of an instance, and of its run.
func id(m, n int) (instance, run string) {
	return fmt.Sprintf("%s%08xi%019x", month(m), n, n), fmt.Sprintf("%s%08xr%019x", month(m), n/inRun*inRun, 0)
}

// text is one that can be packed by half, as documents can.
func text(size int) string {
	begin := rand.IntN(len(texts) - size)
	return texts[begin : begin+size]
}

var texts = func() string {
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = "{\"state\":\"passed\",\"attempts\":[]}"[i%32]
		if i%2 == 0 {
			b[i] = 'a' + byte(rand.IntN(26))
		}
	}
	return string(b)
}()

// insert writes an instance with what belongs to it, as a transaction of its own or a part
// of one.
func insert(ctx context.Context, to interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}, m, n int) error {
	instance, run := id(m, n)
	var q pgx.Batch
	q.Queue(`INSERT INTO instance (id, run_id, group_name, spec, position, claim, announced, completed_at, passes, failures, pending, skipped, retries, flaky, duration, exception)
		VALUES ($1, $2, 'g', 'a.cy.js', $3, 1, 10, NULL, 10, 0, 0, 0, 0, 0, 1000, '')`, instance, run, n%inRun)
	q.Queue(`INSERT INTO announcement (instance_id, document) VALUES ($1, $2)`, instance, text(announced))
	q.Queue(`INSERT INTO outcome (instance_id, document) VALUES ($1, $2)`, instance, text(outcome))
	q.Queue(`INSERT INTO console_output (instance_id, text) VALUES ($1, $2)`, instance, text(announced))
	return to.SendBatch(ctx, &q).Close()
}

func (w *world) fill() {
	ctx := context.Background()
	began := time.Now()
	for m := range months {
		for n := 0; n < perMonth; n += 500 {
			tx, err := w.conn.Begin(ctx)
			if err != nil {
				w.Fatal(err)
			}
			for i := n; i < n+500; i++ {
				if err := insert(ctx, tx, m, i); err != nil {
					w.Fatal(err)
				}
			}
			if err := tx.Commit(ctx); err != nil {
				w.Fatal(err)
			}
		}
	}
	w.ReportMetric(float64(time.Since(began).Microseconds())/months/perMonth, "fill-µs/instance")
	w.exec(`VACUUM ANALYZE`)
	w.exec(`CHECKPOINT`)
}

// lookUp measures the reads of every request: by the id of an instance, and by its run.
func (w *world) lookUp() {
	for _, q := range []struct{ name, sql string }{
		{"by-id", `SELECT i.run_id, o.document FROM instance i JOIN outcome o ON o.instance_id = i.id WHERE i.id = $1 AND $2 <> ''`},
		{"by-run", `SELECT i.spec, i.id FROM instance i WHERE i.run_id = $2 AND $1 <> ''`},
	} {
		var took []time.Duration
		for range lookups {
			instance, run := id(rand.IntN(months), rand.IntN(perMonth))
			began := time.Now()
			rows, err := w.conn.Query(context.Background(), q.sql, instance, run)
			if err != nil {
				w.Fatal(err)
			}
			for rows.Next() {
			}
			if rows.Err() != nil || rows.CommandTag().RowsAffected() == 0 {
				w.Fatal(q.name, rows.Err(), "nothing was found")
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		w.ReportMetric(float64(took[len(took)/2].Microseconds()), q.name+"-p50-µs")
	}
}

func (w *world) remove() {
	const size = `SELECT SUM(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind IN ('r', 'p') AND relname ~ '^(instance|outcome|announcement|console_output)'`
	before := w.number(size)
	quiet := w.write(3*time.Second, nil)
	wal := w.number(`SELECT pg_current_wal_lsn() - '0/0'`)
	ended := make(chan struct{})
	busy := make(chan []time.Duration)
	go func() { busy <- w.write(0, ended) }()
	began := time.Now()
	if w.partitioned {
		w.drop()
	} else {
		w.batches()
	}
	took := time.Since(began)
	close(ended)
	latencies := <-busy
	w.ReportMetric(took.Seconds(), "removal-s")
	w.ReportMetric(float64(w.number(`SELECT pg_current_wal_lsn() - '0/0'`)-wal)/1e6, "wal-MB")
	w.ReportMetric(float64(p99(latencies).Microseconds())/1e3, "writes-p99-ms")
	w.ReportMetric(float64(p99(quiet).Microseconds())/1e3, "writes-p99-ms-before")
	w.ReportMetric(float64(before)/1e6, "before-MB")
	w.ReportMetric(float64(w.number(size))/1e6, "after-MB")
}

// batches removes the first month in transactions.
func (w *world) batches() {
	for n := 0; n < perMonth; n += inABatch {
		var ids []string
		for i := n; i < n+inABatch; i++ {
			instance, _ := id(0, i)
			ids = append(ids, instance)
		}
		if err := pgx.BeginFunc(context.Background(), w.conn, func(tx pgx.Tx) error {
			for _, g := range grows {
				if _, err := tx.Exec(context.Background(), fmt.Sprintf(`DELETE FROM %s WHERE %s = ANY($1)`, g.table, g.id), ids); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			w.Fatal(err)
		}
	}
}

// drop removes the first month with its partitions.
func (w *world) drop() {
	for _, g := range grows {
		w.exec(fmt.Sprintf(`DROP TABLE %s_0`, g.table))
	}
}

// write writes instances of now for a time, or until ended, and says how long each took.
func (w *world) write(d time.Duration, ended chan struct{}) (took []time.Duration) {
	conn := w.connect()
	for until := time.Now().Add(d); ended != nil || time.Now().Before(until); {
		select {
		case <-ended:
			if len(took) > 0 {
				return took
			}
		case <-time.After(writerRest):
		}
		began := time.Now()
		if err := insert(context.Background(), conn, months, int(written.Add(1))); err != nil {
			w.Error(err)
			return took
		}
		took = append(took, time.Since(began))
	}
	return took
}

func p99(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)*99/100]
}
