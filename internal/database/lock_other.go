//go:build !unix

package database

import (
	"fmt"
	"os"
)

// fileLock keeps a second process away from a SQLite database on systems without
// flock: the open file itself is the lock.
type fileLock struct{ f *os.File }

func lockFile(path string) (*fileLock, error) {
	_ = os.Remove(path) // fails while another process has it open
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("another runbell uses this database, or its lock cannot be made: %w", err)
	}
	return &fileLock{f}, nil
}

func (l *fileLock) release() error { return l.f.Close() }
