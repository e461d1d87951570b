package database

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// CopySQLite copies the SQLite database in the file from, which a server may be using,
// to the new file to. The copy has everything that was committed before it began, and
// nothing that was committed later. It is durable when CopySQLite returns, and needs no
// other file.
func CopySQLite(ctx context.Context, from, to string) (err error) {
	if _, err := os.Stat(to); err == nil {
		return fmt.Errorf("%s exists already", to)
	}
	c, err := openSQLiteConn(from, "busy_timeout(10000)")
	if err != nil {
		return unusable(from, err)
	}
	defer c.close()
	defer func() {
		if err != nil {
			_ = os.Remove(to)
		}
	}()
	if err := closeToOthers(to); err != nil { // SQLite fills an empty file
		return err
	}
	c.conn.SetInterrupt(ctx.Done())
	if _, err := c.Exec(ctx, "VACUUM INTO $1", to); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("copy: %w", unusable(from, err))
	}
	return SyncFile(to)
}

// SyncFile makes a file and its name in the directory durable.
func SyncFile(path string) error {
	for _, name := range []string{path, filepath.Dir(path)} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
