package database

import (
	"context"
	"slices"
	"strconv"
	"strings"
)

// Statements about many rows. SQLite takes each value as a parameter. PostgreSQL takes
// each column as an array, so that one statement works for any number of rows.

// Chunks calls f with pieces of a list in a few fixed lengths, so that few
// statements stay prepared for any number of rows. On PostgreSQL it is one piece.
func Chunks[T any](tx *Tx, list []T, f func([]T) error) error {
	if tx.kind == postgres && len(list) > 0 {
		return f(list)
	}
	for _, size := range []int{64, 16, 4, 1} {
		for len(list) >= size {
			if err := f(list[:size]); err != nil {
				return err
			}
			list = list[size:]
		}
	}
	return nil
}

// Among returns a condition to put after a column: it has one of the values of a list. It
// also returns args followed by the parameters of the condition.
func (tx *Tx) Among(list []string, args ...any) (string, []any) {
	first := len(args) + 1
	if tx.kind == postgres {
		return ` = ANY ($` + strconv.Itoa(first) + `)`, append(args, list)
	}
	args = slices.Grow(args, len(list))
	for _, v := range list {
		args = append(args, v)
	}
	return ` IN (` + placeholders(first, len(list)) + `)`, args
}

// Table returns a query that yields the rows, all of equal length, and its
// parameters, which must be the first of the statement.
func (tx *Tx) Table(rows [][]any) (string, []any) {
	if tx.kind != postgres {
		return `VALUES ` + tuples(len(rows), len(rows[0])), slices.Concat(rows...)
	}
	columns, arrays := make([]string, len(rows[0])), make([]any, len(rows[0]))
	for i, v := range rows[0] {
		columns[i] = `CAST($` + strconv.Itoa(i+1) + ` AS BIGINT[])`
		if _, text := v.(string); text {
			columns[i] = `CAST($` + strconv.Itoa(i+1) + ` AS TEXT[])`
		}
		array := make([]any, len(rows))
		for n, row := range rows {
			array[n] = row[i]
		}
		arrays[i] = array
	}
	return `SELECT * FROM unnest(` + strings.Join(columns, ", ") + `)`, arrays
}

// InsertMany inserts rows of equal length in few statements. into names a table
// and its columns: "t (a, b)".
func (tx *Tx) InsertMany(ctx context.Context, into string, rows [][]any) error {
	return Chunks(tx, rows, func(chunk [][]any) error {
		table, args := tx.Table(chunk)
		_, err := tx.Exec(ctx, `INSERT INTO `+into+` `+table, args...)
		return err
	})
}

// placeholders is "$first, …", n of them.
func placeholders(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(first+i))
	}
	return b.String()
}

// tuples is "($1, …), (…), …": n rows of width columns.
func tuples(n, width int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + placeholders(1+i*width, width) + ")")
	}
	return b.String()
}
