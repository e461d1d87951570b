package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/store"
	"runbell/internal/testkit"
)

// TestANewDatabaseIsTheOneTheMigrationsMake holds schema.sql to the migrations, from
// nothing and from every schema there has been. With -update it writes it.
func TestANewDatabaseIsTheOneTheMigrationsMake(t *testing.T) {
	migrated := filepath.Join(t.TempDir(), "migrated.db")
	if err := store.MigrateSQLite(t.Context(), migrated); err != nil {
		t.Fatal(err)
	}
	want := look(t, migrated)
	if want.Filled != nil {
		t.Errorf("a migration stores rows in %q: script has to write them into schema.sql, too", want.Filled)
	}
	if *update {
		if err := os.WriteFile("schema.sql", []byte(want.script()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(written), want.script()); d != "" {
		t.Errorf("schema.sql is not what the migrations make: write it with -update (-written +migrated):\n%s", d)
	}
	files := map[string]string{"new": "", "made by the migrations": migrated}
	for _, name := range earlier(t) {
		files[name] = name
	}
	for name, file := range files {
		path := filepath.Join(t.TempDir(), "runbell.db")
		if file != "" {
			copyFile(t, file, path)
		}
		closeNow(t, "sqlite:"+path)
		got := look(t, path)
		got.Filled = nil
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-migrated +opened):\n%s", name, d)
		}
	}
}

// A process may have been killed when it had made the file and nothing in it.
func TestAFileWithNothingInItGetsTheSchema(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"empty": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"no table": func(path string) error {
			db, err := sql.Open("sqlite", "file:"+path)
			if err != nil {
				return err
			}
			_, err = db.ExecContext(t.Context(), "PRAGMA journal_mode(WAL)")
			return errors.Join(err, db.Close())
		},
	} {
		path := filepath.Join(t.TempDir(), "runbell.db")
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		db := testkit.Open(t, "sqlite:"+path)
		if !verbatim(t, path) {
			t.Errorf("%s: it was made in another way than with schema.sql", name)
		}
		fill(t, db, stored())
		if e := readEverything(t, db); e.Project.ID != "shop" {
			t.Errorf("%s: %+v", name, e.Project)
		}
	}
}

func TestAURLThatNamesNoFile(t *testing.T) {
	for _, url := range []string{"sqlite:", "sqlite::memory:"} {
		if _, err := store.Open(t.Context(), url, testkit.Sealer(t)); err == nil || !strings.Contains(err.Error(), "names no file: sqlite:PATH") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A file that cannot be the database stays as it is, and the message names it.
func TestAFileThatIsNoDatabase(t *testing.T) {
	half := filepath.Join(t.TempDir(), "half.db")
	closeNow(t, "sqlite:"+half)
	if err := os.Truncate(half, 100_000); err != nil {
		t.Fatal(err)
	}
	damaged, err := os.ReadFile(half)
	if err != nil {
		t.Fatal(err)
	}
	for want, content := range map[string]string{
		"is no SQLite database: name another file": strings.Repeat("a list of shops\n", 1000),
		"is damaged: restore the backup":           string(damaged),
	} {
		path := filepath.Join(t.TempDir(), "shops.txt")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the refusal leaves nothing locked
			db, err := store.Open(t.Context(), "sqlite:"+path, testkit.Sealer(t))
			if err == nil {
				db.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), path+" "+want) {
				t.Errorf("the message is not %q: %v", want, err)
			}
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != content {
			t.Errorf("the file has %d bytes now, %v", len(now), err)
		}
	}
}

// Of several that start on a new file at once, one makes it and has it.
func TestANewFileIsMadeByOneOfMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runbell.db")
	opened := make([]*store.DB, 8)
	var wg sync.WaitGroup
	for i := range opened {
		wg.Go(func() {
			var err error
			opened[i], err = store.Open(t.Context(), "sqlite:"+path, testkit.Sealer(t))
			if err != nil && !strings.Contains(err.Error(), "another runbell uses this database") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	owners := slices.DeleteFunc(opened, func(db *store.DB) bool { return db == nil })
	if len(owners) != 1 {
		t.Fatalf("%d have it", len(owners))
	}
	insertProject(t, owners[0], "shop")
	if err := owners[0].Close(); err != nil {
		t.Fatal(err)
	}
	testkit.CheckSQLite(t, path)
}

// verbatim says whether schema.sql made a file: each step of the migrations
// leaves its traces in the text of a table.
func verbatim(t *testing.T, path string) bool {
	t.Helper()
	script, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var missing int
	err = db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND instr($1, sql) = 0`, string(script)).Scan(&missing)
	if err != nil {
		t.Fatal(err)
	}
	return missing == 0
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err = errors.Join(err, os.WriteFile(to, b, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// made is what there is in a SQLite file before anybody stores something.
type made struct {
	Objects  []object
	Versions []versionRow
	Sequence int64    // of their ids
	Filled   []string // other tables with rows
}

// object is a table, an index, a trigger or a view.
type object struct{ Type, Name, Table, SQL string }

type versionRow struct{ ID, Version, Applied int64 }

func look(t *testing.T, path string) (m made) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	each := func(query string, scan func(*sql.Rows) error) {
		t.Helper()
		rows, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			if err := scan(rows); err != nil {
				t.Fatal(err)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	// Tables in the order in which they were made, each with what belongs to it; those of goose last.
	each(`SELECT o.type, o.name, o.tbl_name, COALESCE(o.sql, '') FROM sqlite_master o
		JOIN sqlite_master t ON t.type IN ('table', 'view') AND t.name = o.tbl_name
		ORDER BY t.name IN ('goose_db_version', 'sqlite_sequence'), t.rowid, o.rowid`, func(rows *sql.Rows) error {
		var o object
		err := rows.Scan(&o.Type, &o.Name, &o.Table, &o.SQL)
		o.SQL = tidy(o.SQL)
		m.Objects = append(m.Objects, o)
		return err
	})
	each(`SELECT id, version_id, is_applied FROM goose_db_version ORDER BY id`, func(rows *sql.Rows) error {
		var v versionRow
		err := rows.Scan(&v.ID, &v.Version, &v.Applied)
		m.Versions = append(m.Versions, v)
		return err
	})
	each(`SELECT seq FROM sqlite_sequence WHERE name = 'goose_db_version'`, func(rows *sql.Rows) error { return rows.Scan(&m.Sequence) })
	for _, o := range m.Objects {
		if o.Type != "table" || o.Name == "goose_db_version" || o.Name == "sqlite_sequence" {
			continue
		}
		each(`SELECT 1 FROM "`+o.Name+`" LIMIT 1`, func(*sql.Rows) error {
			m.Filled = append(m.Filled, o.Name)
			return nil
		})
	}
	return m
}

// script is the text of schema.sql.
func (m made) script() string {
	var b strings.Builder
	b.WriteString(`-- The schema of today on SQLite, with which a new file is made: all that the
-- migrations lead to, and the rows that say so. Written by a test:
-- go test ./internal/store -run MigrationsMake -update
--
-- Times are microseconds since 1970, UTC; booleans are 0 and 1; JSON is TEXT.
`)
	for _, o := range m.Objects {
		if o.SQL == "" || strings.HasPrefix(o.Name, "sqlite_") { // SQLite makes it
			continue
		}
		if o.Type == "table" {
			b.WriteString("\n")
		}
		b.WriteString(o.SQL + ";\n")
	}
	b.WriteString("INSERT INTO goose_db_version (version_id, is_applied) VALUES ")
	for i, v := range m.Versions {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "(%d, %d)", v.Version, v.Applied)
	}
	b.WriteString(";\n")
	return b.String()
}

// sqlToken is a comment, something quoted, space, a character with a meaning, or a word.
var sqlToken = regexp.MustCompile(`--[^\n]*|'[^']*'|"[^"]*"|\s+|[(),]|[^\s(),'"]+`)

// tidy lays out a statement in one way, whatever migrations have added to its
// end: a table has a line for each column and constraint, with the comments before.
func tidy(statement string) string {
	var head, item string
	var lines [][2]string // the name of a column or nothing, and the rest
	depth := 0
	flush := func() {
		name, rest, _ := strings.Cut(strings.TrimSpace(item), " ")
		if name == strings.ToUpper(name) { // a constraint
			name, rest = "", strings.TrimSpace(item)
		}
		lines = append(lines, [2]string{name, rest})
		item = ""
	}
	for _, token := range sqlToken.FindAllString(statement, -1) {
		switch token {
		case "(":
			depth++
		case ")":
			depth--
		}
		switch {
		case !strings.HasPrefix(statement, "CREATE TABLE"), depth > 1, token == ")" && depth == 1:
			switch {
			case strings.HasPrefix(token, "--"):
				token += "\n"
			case strings.TrimSpace(token) == "":
				token = " "
			}
			item += token
		case token == "(":
			head, item = item, ""
		case token == ",", token == ")":
			flush()
		case strings.HasPrefix(token, "--"):
			lines = append(lines, [2]string{token, ""})
		case strings.TrimSpace(token) == "":
			item += " "
		default:
			item += token
		}
	}
	if lines == nil {
		return item
	}
	width := 0
	for _, l := range lines {
		if !strings.HasPrefix(l[0], "--") {
			width = max(width, len(l[0]))
		}
	}
	var b strings.Builder
	b.WriteString(head + "(\n")
	for i, l := range lines {
		switch {
		case strings.HasPrefix(l[0], "--"):
			b.WriteString("    " + l[0])
		case l[0] == "":
			b.WriteString("    " + l[1])
		default:
			fmt.Fprintf(&b, "    %-*s %s", width, l[0], l[1])
		}
		if !strings.HasPrefix(l[0], "--") && i < len(lines)-1 {
			b.WriteString(",")
		}
		b.WriteString("\n")
	}
	return b.String() + ")" + strings.TrimRight(item, " ")
}
