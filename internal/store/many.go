package store

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Statements about many rows. SQLite takes each value as a parameter, PostgreSQL
// each column as an array: there one statement does for any number of rows, and
// what it costs to read it and its parameters is paid once.

// inChunks hands out a list in pieces of a few fixed lengths, so that there are
// few statements for any number of rows, and each stays prepared; with arrays,
// in one piece.
func inChunks[T any](tx *Tx, list []T, f func([]T) error) error {
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

// among is the condition, to be put behind a column, that it has one of the
// values of a list, and args with its parameters behind them.
func (tx *Tx) among(list []string, args ...any) (string, []any) {
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

// table is a query whose answer is the rows, all of equal length, and its
// parameters, which are the first of the statement.
func (tx *Tx) table(rows [][]any) (string, []any) {
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

// insertMany inserts rows of equal length in few statements.
func insertMany(ctx context.Context, tx *Tx, into string, rows [][]any) error {
	return inChunks(tx, rows, func(chunk [][]any) error {
		table, args := tx.table(chunk)
		_, err := tx.conn.ExecContext(ctx, `INSERT INTO `+into+` `+table, args...)
		return err
	})
}

// lists are the texts of placeholders and tuples: few, for lists come in a few
// lengths, and asked for with nearly every statement.
var lists sync.Map

// placeholders is "$first, …", n of them.
func placeholders(first, n int) string {
	type list struct{ first, n int }
	if text, ok := lists.Load(list{first, n}); ok {
		return text.(string)
	}
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(first+i))
	}
	lists.Store(list{first, n}, b.String())
	return b.String()
}

// tuples is "($1, …), (…), …": n rows of width columns.
func tuples(n, width int) string {
	type table struct{ rows, width int }
	if text, ok := lists.Load(table{n, width}); ok {
		return text.(string)
	}
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + placeholders(1+i*width, width) + ")")
	}
	lists.Store(table{n, width}, b.String())
	return b.String()
}
