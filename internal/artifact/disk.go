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
)

// Disk is a Store in a directory.
type Disk struct {
	dir     string
	root    *os.Root
	buffers sync.Pool
}

// copyAtOnce is how many bytes of a file are in memory at a time.
const copyAtOnce = 256 << 10

// OpenDisk makes the directory, if it is not there, and the 256 in it that files
// are spread over. They are never removed, so that nobody removes one while somebody
// else puts a file into it.
func OpenDisk(dir string) (*Disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	d := &Disk{dir: dir, root: root, buffers: sync.Pool{New: func() any { return new([copyAtOnce]byte) }}}
	for n := range 256 {
		if err := root.Mkdir(fmt.Sprintf("%02x", n), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, root.Close())
		}
	}
	return d, d.sync(".")
}

// Close lets go of the directory. Files that are open stay open.
func (d *Disk) Close() error { return d.root.Close() }

// String is the directory.
func (d *Disk) String() string { return d.dir }

// Put writes the file to its place at once: nobody knows the key yet.
func (d *Disk) Put(_ context.Context, key string, r io.Reader, size int64, _ string) error {
	err := d.write(key, r, size)
	if err == nil {
		err = d.sync(path.Dir(key))
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	return errors.Join(err, d.remove(key)) // at once, since a disk may be full
}

func (d *Disk) write(key string, r io.Reader, size int64) (err error) {
	f, err := d.root.OpenFile(key, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffer := d.buffers.Get().(*[copyAtOnce]byte)
	defer d.buffers.Put(buffer)
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, r, buffer[:])
	if err != nil {
		return err
	}
	if size >= 0 && n != size {
		return errSize
	}
	return f.Sync()
}

// sync makes the names in a directory durable.
func (d *Disk) sync(name string) error {
	if runtime.GOOS == "windows" {
		return nil // has no such thing
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Open opens a file.
func (d *Disk) Open(_ context.Context, key string) (io.ReadSeekCloser, error) {
	f, err := d.root.Open(key)
	if err != nil {
		return nil, err // not f, which would be no nil interface
	}
	return f, nil
}

// Delete removes a file. It does not wait until the disk knows that: at worst, a
// power failure brings back a file that nobody needs.
func (d *Disk) Delete(_ context.Context, key string) error { return d.remove(key) }

func (d *Disk) remove(key string) error {
	if err := d.root.Remove(key); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Check writes a small file and removes it.
func (d *Disk) Check(context.Context) error {
	const name = "check"
	return errors.Join(d.root.WriteFile(name, make([]byte, 4<<10), 0o600), d.remove(name))
}
