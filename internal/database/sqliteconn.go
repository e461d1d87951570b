package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	lite "zombiezen.com/go/sqlite"
)

// sqliteConn is a connection to SQLite without database/sql. Requests run a hundred
// statements per run, and the overhead of database/sql took as long as the statement.
// Only one goroutine may use a sqliteConn. Each statement is prepared once. Contexts
// are ignored: see [DB.Write] for those of writers; those of readers interrupt the
// connection.
type sqliteConn struct {
	conn  *lite.Conn
	stmts map[string]*sqliteStmt
	open  int // statements that were started and have not ended
}

// keepStmts is how many statements stay prepared. There are fewer fixed statements, but
// some are put together from a filter.
const keepStmts = 300

// openSQLiteConn opens a file that exists.
func openSQLiteConn(path string, pragmas ...string) (*sqliteConn, error) {
	c, err := lite.OpenConn(fileURI(path), lite.OpenReadWrite, lite.OpenURI)
	if err != nil {
		return nil, err
	}
	conn := &sqliteConn{conn: c, stmts: map[string]*sqliteStmt{}}
	for _, p := range pragmas {
		if _, err := conn.Exec(context.Background(), "PRAGMA "+p); err != nil {
			conn.close()
			return nil, err
		}
	}
	return conn, nil
}

// fileURI names a file to SQLite where options follow.
func fileURI(path string) string {
	uri := (&url.URL{Path: path}).EscapedPath()
	if strings.HasPrefix(uri, "/") { // otherwise "//" would begin the name of a host
		uri = "//" + uri
	}
	return "file:" + uri
}

func (c *sqliteConn) close() {
	c.forget()
	_ = c.conn.Close()
}

func (c *sqliteConn) forget() {
	for _, s := range c.stmts {
		_ = s.stmt.Finalize()
	}
	clear(c.stmts)
}

// reset makes the connection ready for another transaction: it ends queries whose rows
// were not closed because their reader panicked.
func (c *sqliteConn) reset() {
	switch {
	case len(c.stmts) > keepStmts:
		c.forget()
	case c.open > 0:
		for _, s := range c.stmts {
			_ = s.stmt.Reset()
		}
	}
	c.open = 0
}

func (c *sqliteConn) prepare(query string) (*sqliteStmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, s.stmt.Reset()
	}
	// Not Prepare: it clears the bindings before each use, and then SQLite plans a join
	// or a sorted query again.
	stmt, rest, err := c.conn.PrepareTransient(query)
	if err != nil {
		return nil, err
	}
	if rest != 0 {
		_ = stmt.Finalize()
		return nil, errors.New("more than one statement")
	}
	s := &sqliteStmt{conn: c, stmt: stmt, args: make([]int, stmt.BindParamCount()), columns: stmt.ColumnCount()}
	for i := range s.args {
		// SQLite numbers parameters in the order in which they are first named.
		name := stmt.BindParamName(i + 1)
		n, err := strconv.Atoi(strings.TrimPrefix(name, "$"))
		if err != nil || n < 1 {
			_ = stmt.Finalize()
			return nil, fmt.Errorf("parameter %q is not one of $1, $2, …", name)
		}
		s.args[i] = n - 1
	}
	c.stmts[query] = s
	return s, nil
}

func (c *sqliteConn) start(query string, args []any) (*sqliteStmt, error) {
	s, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	if err := s.bind(args); err != nil {
		return nil, err
	}
	c.open++
	return s, nil
}

func (c *sqliteConn) Exec(_ context.Context, query string, args ...any) (int64, error) {
	s, err := c.start(query, args)
	if err != nil {
		return 0, err
	}
	defer s.end()
	for more := true; more; {
		if more, err = s.stmt.Step(); err != nil {
			return 0, err
		}
	}
	return int64(c.conn.Changes()), nil
}

func (c *sqliteConn) Query(_ context.Context, query string, args ...any) (Rows, error) {
	s, err := c.start(query, args)
	if err != nil {
		return nil, err
	}
	return &sqliteRows{s: s}, nil
}

func (c *sqliteConn) QueryRow(_ context.Context, query string, args ...any) Row {
	s, err := c.start(query, args)
	return sqliteRow{s, err}
}

// sqliteStmt is a prepared statement.
type sqliteStmt struct {
	conn    *sqliteConn
	stmt    *lite.Stmt
	args    []int // which argument each parameter takes
	columns int
	large   []int // parameters that hold a copy of something large
}

// keep is the longest text that stays bound until the next use.
const keep = 1 << 10

func (s *sqliteStmt) bind(args []any) error {
	for i, n := range s.args {
		if n >= len(args) {
			return fmt.Errorf("%d arguments, but the statement has $%d", len(args), n+1)
		}
		if err := s.bindOne(i+1, args[n]); err != nil {
			return fmt.Errorf("$%d: %w", n+1, err)
		}
	}
	return nil
}

func (s *sqliteStmt) bindOne(i int, arg any) error {
	switch v := arg.(type) {
	case nil:
		s.stmt.BindNull(i)
	case string:
		s.stmt.BindText(i, v)
		if len(v) > keep {
			s.large = append(s.large, i)
		}
	case []byte:
		s.stmt.BindBytes(i, v)
		if len(v) > keep {
			s.large = append(s.large, i)
		}
	case int64:
		s.stmt.BindInt64(i, v)
	case int:
		s.stmt.BindInt64(i, int64(v))
	case bool:
		s.stmt.BindBool(i, v)
	default:
		v, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return err
		}
		switch v.(type) {
		case nil, string, int64, bool:
			return s.bindOne(i, v)
		}
		return fmt.Errorf("a %T is neither text, bytes nor a whole number", arg)
	}
	return nil
}

// end makes the statement ready for its next use. Bindings stay, except large ones.
func (s *sqliteStmt) end() {
	s.conn.open--
	_ = s.stmt.Reset() // repeats the error of the last step
	for _, i := range s.large {
		s.stmt.BindNull(i)
	}
	s.large = s.large[:0]
}

// scan reads the current row.
func (s *sqliteStmt) scan(dest []any) error {
	if len(dest) != s.columns {
		return fmt.Errorf("%d destinations for %d columns", len(dest), s.columns)
	}
	for i, d := range dest {
		if err := s.scanOne(i, d); err != nil {
			return fmt.Errorf("column %d: %w", i, err)
		}
	}
	return nil
}

func (s *sqliteStmt) scanOne(i int, dest any) error {
	kind := s.stmt.ColumnType(i)
	switch d := dest.(type) {
	case *sql.NullInt64:
		*d = sql.NullInt64{Int64: s.stmt.ColumnInt64(i), Valid: kind != lite.TypeNull}
		return nil
	case *sql.NullString:
		*d = sql.NullString{String: s.stmt.ColumnText(i), Valid: kind != lite.TypeNull}
		return nil
	}
	if kind == lite.TypeNull {
		return fmt.Errorf("NULL does not fit into %T", dest)
	}
	switch d := dest.(type) {
	case *string:
		*d = s.stmt.ColumnText(i)
	case *[]byte:
		*d = make([]byte, s.stmt.ColumnLen(i))
		s.stmt.ColumnBytes(i, *d)
	case *int64:
		*d = s.stmt.ColumnInt64(i)
	case *int:
		*d = s.stmt.ColumnInt(i)
	case *bool:
		*d = s.stmt.ColumnBool(i)
	default:
		v := reflect.ValueOf(dest)
		if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.String {
			return fmt.Errorf("cannot scan into %T", dest)
		}
		v.Elem().SetString(s.stmt.ColumnText(i))
	}
	return nil
}

// sqliteRows are the rows of a statement that runs.
type sqliteRows struct {
	s      *sqliteStmt
	err    error
	closed bool
}

func (r *sqliteRows) Next() bool {
	if r.closed || r.err != nil {
		return false
	}
	more, err := r.s.stmt.Step()
	r.err = err
	return more
}

func (r *sqliteRows) Scan(dest ...any) error { return r.s.scan(dest) }
func (r *sqliteRows) Err() error             { return r.err }

func (r *sqliteRows) Close() error {
	if !r.closed {
		r.closed = true
		r.s.end()
	}
	return nil
}

// sqliteRow is the first row of a statement, or why there is none.
type sqliteRow struct {
	s   *sqliteStmt
	err error
}

func (r sqliteRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.s.end()
	switch more, err := r.s.stmt.Step(); {
	case err != nil:
		return err
	case !more:
		return sql.ErrNoRows
	}
	return r.s.scan(dest)
}
