package database

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
)

// room is the free space that a SQLite file needs to count as writable. A commit needs
// less. But SQLite reuses its log, so for a while commits succeed on a full disk.
const room = 1 << 20

// Writable checks that a transaction that writes, by calling probe, commits now. On SQLite
// the disk must also have room for 1 MiB. On PostgreSQL a read-only server, such as a
// standby, fails the check.
func (db *DB) Writable(ctx context.Context, probe func(*Tx) error) error {
	if db.kind == sqlite {
		if err := hasRoom(db.readers.path + ".room"); err != nil {
			return err
		}
	}
	return db.Write(ctx, probe)
}

// hasRoom writes a file and removes it. Its content is random, because some file systems
// store zeros without using space.
func hasRoom(path string) error {
	content := make([]byte, room)
	rand.Read(content)
	err := os.WriteFile(path, content, 0o600)
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return fmt.Errorf("the disk of the database has no room for 1 MiB: %w", err)
	}
	return nil
}
