package store

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// wal is the write-ahead log of the connection that writes, as SQLite sees it: a
// file system (VFS) like the one that is there, apart from how the log is
// written. SQLite does that in two pieces for each page, which were a tenth of the
// time of a commit; here a commit is one piece. And it waits for the disk at the
// end of each commit; here who commits may do that, see later.
//
// SQLite shows a commit to other connections only after it has synced the log, or
// believes so. All that is collected is written by then.
type wal struct {
	name string // of the file system
	tls  *libc.TLS
	vfs  uintptr
	file uintptr // the log, while SQLite has it open
	// The methods of the file: those that are there, and ours in C memory.
	theirs lib.Tsqlite3_io_methods
	ours   uintptr
	used   []any // functions that only SQLite has pointers to

	buffer []byte // what SQLite has written, and we have not
	start  int64  // where that begins in the file
	end    int64  // of what SQLite has written
	later  bool   // a sync is left to who commits
	behind bool   // and there is one to do

	syncing sync.Mutex // held while the disk is waited for
	refused int32      // what it said, if it refused: see flush
}

const (
	mostCollected = 1 << 20
	mostWritten   = 64 << 10 // at once: SQLite's own methods take less than 128 KB
)

// What the methods of a file and of a file system look like.
type (
	openMethod     = func(tls *libc.TLS, vfs, path, file uintptr, flags int32, out uintptr) int32
	closeMethod    = func(tls *libc.TLS, file uintptr) int32
	transferMethod = func(tls *libc.TLS, file, memory uintptr, n int32, offset int64) int32
	truncateMethod = func(tls *libc.TLS, file uintptr, size int64) int32
	syncMethod     = func(tls *libc.TLS, file uintptr, flags int32) int32
	sizeMethod     = func(tls *libc.TLS, file, size uintptr) int32
)

func newWAL() (*wal, error) {
	w := &wal{tls: libc.NewTLS()}
	w.name = fmt.Sprintf("%p", w) // no other has it
	there := lib.Xsqlite3_vfs_find(w.tls, 0)
	if there == 0 {
		return nil, errors.New("SQLite finds no file system")
	}
	vfs := *at[lib.Tsqlite3_vfs](there)
	name, err := libc.CString(w.name)
	if err != nil {
		return nil, err
	}
	open := method[openMethod](vfs.FxOpen)
	vfs.FzName = name
	vfs.FxOpen = pointer(w, openMethod(func(tls *libc.TLS, vfs, path, file uintptr, flags int32, out uintptr) int32 {
		rc := open(tls, vfs, path, file, flags, out)
		if rc == lib.SQLITE_OK && flags&lib.SQLITE_OPEN_WAL != 0 {
			w.opened(file)
		}
		return rc
	}))
	w.vfs, w.ours = w.allocate(unsafe.Sizeof(vfs)), w.allocate(unsafe.Sizeof(w.theirs))
	*at[lib.Tsqlite3_vfs](w.vfs) = vfs
	if rc := lib.Xsqlite3_vfs_register(w.tls, w.vfs, 0); rc != lib.SQLITE_OK {
		return nil, fmt.Errorf("SQLite takes no file system: error %d", rc)
	}
	return w, nil
}

// close is called when the connection is closed.
func (w *wal) close() {
	lib.Xsqlite3_vfs_unregister(w.tls, w.vfs)
	for _, memory := range []uintptr{at[lib.Tsqlite3_vfs](w.vfs).FzName, w.vfs, w.ours} {
		libc.Xfree(w.tls, memory)
	}
	w.tls.Close()
}

// opened puts our methods in place of those of the log's file. All but write see
// the file as SQLite has written it.
func (w *wal) opened(file uintptr) {
	f := at[lib.Tsqlite3_file](file)
	w.file, w.theirs = file, *at[lib.Tsqlite3_io_methods](f.FpMethods)
	m := w.theirs
	m.FxWrite = pointer(w, transferMethod(w.collect))
	m.FxRead = pointer(w, transferMethod(func(tls *libc.TLS, file, memory uintptr, n int32, offset int64) int32 {
		return w.written(tls, func() int32 { return method[transferMethod](w.theirs.FxRead)(tls, file, memory, n, offset) })
	}))
	m.FxTruncate = pointer(w, truncateMethod(func(tls *libc.TLS, file uintptr, size int64) int32 {
		return w.written(tls, func() int32 { return method[truncateMethod](w.theirs.FxTruncate)(tls, file, size) })
	}))
	m.FxFileSize = pointer(w, sizeMethod(func(tls *libc.TLS, file, size uintptr) int32 {
		return w.written(tls, func() int32 { return method[sizeMethod](w.theirs.FxFileSize)(tls, file, size) })
	}))
	m.FxSync = pointer(w, syncMethod(func(tls *libc.TLS, file uintptr, flags int32) int32 {
		// Of a log that begins anew, the header is on the disk before anything else.
		header := w.start == 0
		return w.written(tls, func() int32 {
			if w.later && !header {
				w.behind = true
				return lib.SQLITE_OK
			}
			return w.flush(tls, flags)
		})
	}))
	m.FxClose = pointer(w, closeMethod(func(tls *libc.TLS, file uintptr) int32 {
		failed := w.write(tls)
		if rc := method[closeMethod](w.theirs.FxClose)(tls, file); rc != lib.SQLITE_OK {
			return rc
		}
		return failed
	}))
	*at[lib.Tsqlite3_io_methods](w.ours) = m
	f.FpMethods = w.ours
}

// collect takes what SQLite writes.
func (w *wal) collect(tls *libc.TLS, _, memory uintptr, n int32, offset int64) int32 {
	if offset != w.start+int64(len(w.buffer)) || len(w.buffer) > mostCollected {
		if rc := w.write(tls); rc != lib.SQLITE_OK {
			return rc
		}
		w.start = offset
	}
	w.buffer = append(w.buffer, unsafe.Slice(at[byte](memory), n)...)
	w.end = w.start + int64(len(w.buffer))
	return lib.SQLITE_OK
}

// write writes what has been collected. If that fails, so does the commit, and
// SQLite begins again where it began.
func (w *wal) write(tls *libc.TLS) int32 {
	rest := w.buffer
	w.buffer = w.buffer[:0]
	for len(rest) > 0 {
		n := min(len(rest), mostWritten)
		if rc := method[transferMethod](w.theirs.FxWrite)(tls, w.file, uintptr(unsafe.Pointer(&rest[0])), int32(n), w.start); rc != lib.SQLITE_OK {
			return rc
		}
		rest, w.start = rest[n:], w.start+int64(n)
	}
	return lib.SQLITE_OK
}

func (w *wal) written(tls *libc.TLS, then func() int32) int32 {
	if rc := w.write(tls); rc != lib.SQLITE_OK {
		return rc
	}
	return then()
}

// flush waits for the disk. It says only once that it does not take what was
// written, to whoever asks first; here all hear of it, and for good.
func (w *wal) flush(tls *libc.TLS, flags int32) int32 {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	if w.refused == lib.SQLITE_OK {
		w.refused = method[syncMethod](w.theirs.FxSync)(tls, w.file, flags)
	}
	return w.refused
}

// sync waits until the disk has what was written, which may go on meanwhile.
// Only one goroutine at a time may call it.
func (w *wal) sync() error {
	if w.file == 0 { // SQLite could not have a log there, and syncs itself
		return nil
	}
	w.flush(w.tls, lib.SQLITE_SYNC_NORMAL)
	return w.failed()
}

// failed is why the disk does not have what was written.
func (w *wal) failed() error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	if w.refused == lib.SQLITE_OK {
		return nil
	}
	return fmt.Errorf("the disk does not take the log of the database: SQLite's error %d", w.refused)
}

func (w *wal) allocate(n uintptr) uintptr { return libc.Xcalloc(w.tls, 1, libc.Tsize_t(n)) }

// The code of SQLite is C made Go. What is a pointer there is a number here: to
// memory that the garbage collector does not know, or to a function.

func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

func method[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

// pointer is to a function that stays as long as w.
func pointer[F any](w *wal, f F) uintptr {
	w.used = append(w.used, f)
	return *(*uintptr)(unsafe.Pointer(&f))
}
