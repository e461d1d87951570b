package database

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
)

// room is what must fit beside a SQLite file for it to count as writable. A
// commit needs less; but the log is written over again and again, so that for a
// while commits still succeed on a disk that is full.
const room = 1 << 20

// Writable says whether a transaction that writes, which probe does, commits now. On SQLite
// the disk must also have room for 1 MiB. On PostgreSQL a server that is read-only, as a
// standby is, takes no writes.
func (db *DB) Writable(ctx context.Context, probe func(*Tx) error) error {
	if db.kind == sqlite {
		if err := hasRoom(db.readers.path + ".room"); err != nil {
			return err
		}
	}
	return db.Write(ctx, probe)
}

// hasRoom writes a file and removes it. What is in it is random, because some
// file systems take no room for zeros.
func hasRoom(path string) error {
	content := make([]byte, room)
	rand.Read(content)
	err := os.WriteFile(path, content, 0o600)
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return fmt.Errorf("the disk of the database has no room for 1 MiB: %w", err)
	}
	return nil
}
