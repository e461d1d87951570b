package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Disk is a Store in a directory.
type Disk struct {
	dir     string
	buffers sync.Pool
	mu      sync.Mutex
	opened  *os.Root // nil until the directory could be opened
}

// copyAtOnce is how many bytes of a file are in memory at a time.
const copyAtOnce = 64 << 10

// NewDisk makes a Store in a directory, which is created at the first use. Until that succeeds, everything fails.
func NewDisk(dir string) *Disk {
	return &Disk{dir: dir, buffers: sync.Pool{New: func() any { return new([copyAtOnce]byte) }}}
}

// root opens the directory. Files are spread over 256 directories in it. These are never removed, because another
// upload may be putting a file into one.
func (d *Disk) root() (*os.Root, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened != nil {
		return d.opened, nil
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return nil, err
	}
	for n := range 256 {
		if err := root.Mkdir(fmt.Sprintf("%02x", n), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, root.Close())
		}
	}
	if err := syncDir(root, "."); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	d.opened = root
	return root, nil
}

// Close closes the directory. Open files stay open.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened == nil {
		return nil
	}
	root := d.opened
	d.opened = nil
	return root.Close()
}

// Linger is no time.
func (d *Disk) Linger() time.Duration { return 0 }

// String is the directory.
func (d *Disk) String() string { return d.dir }

// Put writes the file directly to its place, because the key is not known to anyone yet.
func (d *Disk) Put(_ context.Context, key string, r io.Reader, size int64, _ string) error {
	err := d.put(key, r, size)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func (d *Disk) put(key string, r io.Reader, size int64) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	if err = d.write(root, key, r, size); err == nil {
		err = syncDir(root, path.Dir(key))
	}
	if err != nil {
		return errors.Join(err, remove(root, key)) // at once, since a disk may be full
	}
	return nil
}

func (d *Disk) write(root *os.Root, key string, r io.Reader, size int64) (err error) {
	f, err := root.OpenFile(key, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffer := d.buffers.Get().(*[copyAtOnce]byte)
	defer d.buffers.Put(buffer)
	out := &early{file: f}
	n, err := io.CopyBuffer(out, r, buffer[:])
	if err = errors.Join(err, out.wait()); err != nil {
		return err
	}
	if size >= 0 && n != size {
		return errSize
	}
	return f.Sync()
}

// syncEvery is how many bytes of a file are written before the disk gets them.
const syncEvery = 16 << 20

// early writes to a file, and syncs it while more arrives. Otherwise a large file would keep the disk busy at the
// end, and the database would wait.
type early struct {
	file    *os.File
	written int // since the last sync began
	syncing chan error
}

func (e *early) Write(p []byte) (int, error) {
	n, err := e.file.Write(p)
	if e.written += n; err != nil || e.written < syncEvery {
		return n, err
	}
	// One at a time: a sender that is faster than the disk waits for it here.
	if err := e.wait(); err != nil {
		return n, err
	}
	e.written, e.syncing = 0, make(chan error, 1)
	go func(done chan<- error) { done <- e.file.Sync() }(e.syncing)
	return n, nil
}

// wait returns the error of the sync in progress.
func (e *early) wait() error {
	if e.syncing == nil {
		return nil
	}
	done := e.syncing
	e.syncing = nil
	return <-done
}

// syncDir makes the names in a directory durable.
func syncDir(root *os.Root, name string) error {
	if runtime.GOOS == "windows" {
		return nil // has no such thing
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Open opens a file.
func (d *Disk) Open(_ context.Context, key string) (io.ReadSeekCloser, error) {
	root, err := d.root()
	if err != nil {
		return nil, err
	}
	f, err := root.Open(key)
	if err != nil {
		return nil, err // not f, which would not be a nil interface
	}
	return f, nil
}

// Delete removes a file. It does not wait for a sync: at worst, a power failure restores a file that is no longer
// needed.
func (d *Disk) Delete(_ context.Context, key string) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	return remove(root, key)
}

func remove(root *os.Root, name string) error {
	if err := root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Check writes a small file and removes it.
func (d *Disk) Check(context.Context) error {
	const name = "check"
	root, err := d.root()
	if err != nil {
		return err
	}
	return errors.Join(root.WriteFile(name, make([]byte, 4<<10), 0o600), remove(root, name))
}
