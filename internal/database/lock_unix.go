//go:build unix

package database

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// fileLock keeps a second process away from a SQLite database, because only one process
// knows which deliveries are in flight.
type fileLock struct{ f *os.File }

func lockFile(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the database: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another runbell uses this database (%s is locked): stop it first, or use PostgreSQL, "+
				"which several servers can share", path)
		}
		return nil, fmt.Errorf("lock the database: %w", err)
	}
	return &fileLock{f}, nil
}

// release releases the lock. The file stays: if it were removed, a third process could
// lock a new file of the same name while a second one holds the old one.
func (l *fileLock) release() error { return l.f.Close() }
