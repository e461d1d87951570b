package recorder

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// relay passes the output of Cypress on unchanged while specs run, and keeps a
// transcript. A marker, printed after Cypress has ended, shows where its output ends;
// it is not passed on. Output between runs is kept for error messages.
type relay struct {
	to   io.Writer
	keep *transcript

	mu     sync.Mutex
	marker []byte // nil while no spec runs
	held   []byte // may be the beginning of the marker
	seen   chan struct{}
	idle   []byte
}

const keepIdle = 4 << 10

// until passes output on until the marker; the channel is closed then.
func (r *relay) until(marker string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marker, r.held, r.seen = []byte(marker), nil, make(chan struct{})
	return r.seen
}

// stop stops passing output on: no marker will come.
func (r *relay) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marker != nil {
		r.pass(r.held)
		r.marker, r.held = nil, nil
	}
}

// Write never fails, so that Cypress does not end because nobody reads its output.
func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(p)
	if r.marker != nil {
		if len(r.held) > 0 {
			p = append(r.held, p...)
			r.held = nil
		}
		at := bytes.Index(p, r.marker)
		if at < 0 {
			cut := len(p) - partial(p, r.marker)
			r.held = bytes.Clone(p[cut:])
			r.pass(p[:cut])
			return n, nil
		}
		r.pass(p[:at])
		p = p[at+len(r.marker):]
		r.marker = nil
		close(r.seen)
	}
	r.idle = append(r.idle, p...)
	r.idle = bytes.Clone(r.idle[max(0, len(r.idle)-keepIdle):])
	return n, nil
}

func (r *relay) pass(p []byte) {
	_, _ = r.to.Write(p)
	r.keep.write(p)
}

// tail is the last output from a time when no spec ran.
func (r *relay) tail() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.idle)
}

// partial is how many bytes at the end of p may be the beginning of marker.
func partial(p, marker []byte) int {
	for n := min(len(p), len(marker)-1); n > 0; n-- {
		if bytes.HasSuffix(p, marker[:n]) {
			return n
		}
	}
	return 0
}

// transcript keeps the beginning and the end of the output, to limit its memory.
type transcript struct {
	mu         sync.Mutex
	head, tail []byte
	left       int // bytes between the two
}

const keepHead, keepTail = 128 << 10, 512 << 10

func (t *transcript) write(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(p), keepHead-len(t.head))
	t.head = append(t.head, p[:n]...)
	t.tail = append(t.tail, p[n:]...)
	if over := len(t.tail) - keepTail; over > keepTail/4 { // not for every line
		t.left += over
		t.tail = append(t.tail[:0], t.tail[over:]...)
	}
}

// take returns the output since the last call.
func (t *transcript) take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if over := len(t.tail) - keepTail; over > 0 {
		t.left += over
		t.tail = t.tail[over:]
	}
	var b bytes.Buffer
	b.Write(t.head)
	if t.left > 0 {
		fmt.Fprintf(&b, "\n[… %d bytes left out …]\n", t.left)
	}
	b.Write(t.tail)
	t.head, t.tail, t.left = nil, nil, 0
	return b.String()
}
