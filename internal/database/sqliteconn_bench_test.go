package database

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	lite "zombiezen.com/go/sqlite"
)

// BenchmarkStatements is what a statement of each kind takes of the processors: kept prepared by us; by
// the driver, which clears the bindings before each use; and prepared for each use.
func BenchmarkStatements(b *testing.B) {
	for name, prepare := range map[string]func(c *sqliteConn, query string) (*lite.Stmt, error){
		"kept":   nil,
		"driver": func(c *sqliteConn, query string) (*lite.Stmt, error) { return c.conn.Prepare(query) },
		"again": func(c *sqliteConn, query string) (*lite.Stmt, error) {
			s, _, err := c.conn.PrepareTransient(query)
			return s, err
		},
	} {
		b.Run(name, func(b *testing.B) {
			c := benchConn(b)
			use := func(query string, args ...any) {
				s, err := c.prepare(query)
				if prepare != nil {
					var stmt *lite.Stmt
					if stmt, err = prepare(c, query); err == nil {
						s = &sqliteStmt{conn: c, stmt: stmt, args: s.args, columns: s.columns}
					}
				}
				if err == nil {
					err = s.bind(args)
				}
				for more := true; more && err == nil; {
					if more, err = s.stmt.Step(); more && err == nil {
						err = s.scan([]any{new(string), new(string), new(int64)})
					}
				}
				if err != nil {
					b.Fatal(err)
				}
				if name == "again" {
					err = s.stmt.Finalize()
				} else {
					err = s.stmt.Reset()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			text := strings.Repeat("x", 500)
			used := processorTime(b)
			for n := range b.N {
				use(`SELECT o.id, p.id, o.at FROM owner o JOIN part p ON p.owner_id = o.id WHERE o.id = $1 ORDER BY p.at LIMIT 1`, "o"+strconv.Itoa(n%100))
				use(`UPDATE owner SET name = $2, at = $3 WHERE id = $1`, "o"+strconv.Itoa(n%100), "name", int64(n))
				use(`INSERT INTO part (id, owner_id, text, at) VALUES ($1, '', $2, $3)`, strconv.Itoa(n), text, int64(n))
			}
			b.ReportMetric(float64((processorTime(b)-used).Nanoseconds())/1e3/float64(3*b.N), "cpu-µs/statement")
		})
	}
}

// benchConn is a connection in a transaction, to a database with 100 owners of a part each.
func benchConn(b *testing.B) *sqliteConn {
	b.Helper()
	ctx := context.Background()
	path := filepath.Join(b.TempDir(), "a.db")
	db, err := Open(ctx, "sqlite:"+path)
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	c, err := openSQLiteConn(path, writerPragmas...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.close)
	run := func(query string, args ...any) {
		if _, err := c.Exec(ctx, query, args...); err != nil {
			b.Fatal(err)
		}
	}
	run("BEGIN IMMEDIATE")
	run(`CREATE TABLE owner (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, at BIGINT NOT NULL)`)
	run(`CREATE TABLE part (id TEXT NOT NULL PRIMARY KEY, owner_id TEXT NOT NULL, text TEXT NOT NULL, at BIGINT NOT NULL)`)
	run(`CREATE INDEX part_owner ON part (owner_id)`)
	for n := range 100 {
		id := strconv.Itoa(n)
		run(`INSERT INTO owner (id, name, at) VALUES ($1, '', 1)`, "o"+id)
		run(`INSERT INTO part (id, owner_id, text, at) VALUES ($1, $2, '', 1)`, "of o"+id, "o"+id)
	}
	return c
}
