package body

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"runbell/internal/run"
)

// The pace of a body: the bytes a second that must arrive, after some time to
// begin with.
const (
	minRate = 16 << 10
	grace   = 15 * time.Second
)

// A body is one piece of memory up to small bytes, and in pieces after that.
const (
	first = 4 << 10
	small = 64 << 10
	piece = 1 << 20
)

// Body is the body of a request, as it was sent. It must be released.
type Body struct {
	pool   *Pool
	limits Limits
	ctx    context.Context //nolint:containedctx // of the request, as the body is
	conn   *http.ResponseController
	began  time.Time
	packed bool // with gzip
	// promised is the length that the request has named; -1 if none.
	promised int

	chunks   [][]byte
	size     int // bytes received
	unpacker *gzip.Reader
	unpacked []byte // the text of a packed body, if it is small
	counts   *meter // nil until the body was measured
	taken    int64  // bytes of the room

	// Guarded by the lock of the pool.
	held    int       // bytes of the pool
	grew    time.Time // when it took the last of them
	refused bool
}

// Receive reads the body of a request. The error says what is wrong with it, or
// that there is no room.
func (p *Pool) Receive(w http.ResponseWriter, r *http.Request, l Limits) (*Body, error) {
	b := &Body{pool: p, limits: l, ctx: r.Context(), conn: http.NewResponseController(w), began: time.Now(),
		promised: int(r.ContentLength)}
	var err error
	if b.packed, err = isPacked(r); err == nil && r.ContentLength > int64(l.Bytes) {
		err = l.tooLarge()
	}
	if err != nil {
		Refuse(w)
		return nil, err
	}
	p.begin(b)
	if err := b.read(r); err != nil {
		b.Release()
		if errors.Is(err, errBusy) {
			b.discard(r)
		}
		w.Header().Set("Connection", "close") // a read that was interrupted ends the context of all later requests
		return nil, err
	}
	p.end(b)
	return b, nil
}

func isPacked(r *http.Request) (bool, error) {
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip":
		return true, nil
	default:
		return false, run.Errorf(run.Invalid, "Content-Encoding %q is not supported: send gzip or none.",
			run.Clip(encoding, 40))
	}
}

func (b *Body) read(r *http.Request) error {
	defer func() { _ = b.conn.SetReadDeadline(time.Time{}) }()
	for {
		chunk, err := b.space()
		if err != nil {
			return err
		}
		_ = b.conn.SetReadDeadline(b.began.Add(grace + time.Duration(b.size)*time.Second/minRate))
		if b.pool.refused(b) { // before the deadline was set
			return errBusy
		}
		n, err := r.Body.Read((*chunk)[len(*chunk):cap(*chunk)])
		*chunk = (*chunk)[:len(*chunk)+n]
		b.size += n
		switch {
		case b.size > b.limits.Bytes:
			return b.limits.tooLarge()
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && b.pool.refused(b):
			return errBusy
		case errors.Is(err, os.ErrDeadlineExceeded):
			return run.Errorf(run.Unavailable, "The request body arrived too slowly: send at least %s a second.", size(minRate))
		case err != nil:
			return run.Errorf(run.Invalid, "The request body was cut short: send it again.")
		}
	}
}

// discard reads the rest of a body that was refused for others, and keeps nothing of
// it: a client that still sends when its connection is closed sees no answer.
func (b *Body) discard(r *http.Request) {
	_ = b.conn.SetReadDeadline(time.Now().Add(maxDrain))
	_, _ = io.CopyN(io.Discard, r.Body, int64(b.limits.Bytes-b.size)) // at worst, there is no answer
	_ = b.conn.SetReadDeadline(time.Time{})
}

// maxDrain is how long the rest of a body is read that nobody wants.
const maxDrain = 20 * time.Second

// space is a chunk with room in it. What is taken is about what has arrived, so
// that a promise of much costs nothing.
func (b *Body) space() (*[]byte, error) {
	last, promised := len(b.chunks)-1, b.promised
	if last >= 0 && len(b.chunks[last]) < cap(b.chunks[last]) {
		return &b.chunks[last], nil
	}
	n, grown := first, false
	switch {
	case last < 0:
	case last == 0 && 2*b.size <= small:
		n, grown = 2*b.size, true
	default:
		n = min(b.size, piece)
	}
	if promised > 0 && grown {
		n = min(n, max(promised, b.size+1))
	} else if promised > b.size {
		n = min(n, promised-b.size)
	}
	more := n
	if grown {
		more = n - b.size
	}
	if err := b.pool.charge(b, more); err != nil {
		return nil, err
	}
	if !grown {
		b.chunks = append(b.chunks, make([]byte, 0, n))
		return &b.chunks[last+1], nil
	}
	b.chunks[0] = append(make([]byte, 0, n), b.chunks[0]...)
	return &b.chunks[0], nil
}

// Empty says that nothing was sent.
func (b *Body) Empty() bool { return b.size == 0 }

// Sent writes what was sent, packed if it was packed.
func (b *Body) Sent(w io.Writer) {
	for _, chunk := range b.chunks {
		_, _ = w.Write(chunk) // of a hash, which takes everything
	}
}

// Release gives back everything.
func (b *Body) Release() {
	b.drop()
	b.pool.room.free.Release(b.taken)
	b.taken = 0
}

// drop lets go of the text.
func (b *Body) drop() {
	clear(b.chunks) // the unpacker, which is kept, still has them
	b.chunks, b.unpacked = nil, nil
	b.pool.free(b)
	if b.unpacker != nil {
		b.pool.unpackers.Put(b.unpacker)
		b.unpacker = nil
	}
}

// reader reads the text. If last is set, the chunks are let go as they are read.
func (b *Body) reader(last bool) (io.Reader, error) {
	var in io.Reader = &chunkReader{chunks: b.chunks, last: last}
	if !b.packed {
		return in, nil
	}
	if b.unpacker == nil {
		b.unpacker = b.pool.unpackers.Get().(*gzip.Reader)
	}
	if err := b.unpacker.Reset(in); err != nil {
		return nil, notGzip()
	}
	return b.unpacker, nil
}

func notGzip() error {
	return run.Errorf(run.Invalid, "The request body was cut short or is not valid gzip: send it again.")
}

type chunkReader struct {
	chunks [][]byte
	last   bool
	chunk  int
	at     int
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for r.chunk < len(r.chunks) && r.at == len(r.chunks[r.chunk]) {
		if r.last {
			r.chunks[r.chunk] = nil
		}
		r.chunk, r.at = r.chunk+1, 0
	}
	if r.chunk == len(r.chunks) {
		return 0, io.EOF
	}
	n := copy(p, r.chunks[r.chunk][r.at:])
	r.at += n
	return n, nil
}
