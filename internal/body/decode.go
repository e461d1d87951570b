package body

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"runbell/internal/run"
)

// Peek decodes a part of the body while it is measured. v is a struct of a few
// strings; other members are skipped. So it can be known who sent a body before
// it is decoded.
func (b *Body) Peek(v any) error { return b.measure(v) }

// Decode decodes the body into v, which keeps no part of the body's memory, and
// lets go of the body. strict refuses members that v does not have. What was
// decoded takes room until the body is released.
func (b *Body) Decode(v any, strict bool) error {
	if b.counts == nil {
		if err := b.measure(nil); err != nil {
			return err
		}
	}
	m := b.counts
	structure := int64(m.groups*groupCost + m.values*valueCost)
	// The text and its copy in strings; then these, and twice the document that is
	// made of them. In strings, a byte that is not UTF-8 becomes three.
	taken, err := b.pool.room.take(b.ctx, int64(3*(m.bytes+2*m.wide))+structure)
	if err != nil {
		return err
	}
	b.taken = taken
	text, err := b.text()
	if err != nil {
		return err
	}
	if m.wide > 0 && len(text)+2*notUTF8(text) > b.limits.Bytes {
		return b.limits.tooLarge()
	}
	if string(bytes.TrimSpace(text)) == "null" {
		return run.Errorf(run.Invalid, "The request body must not be null.")
	}
	if err := json.Unmarshal(text, v, lenient, json.RejectUnknownMembers(strict)); err != nil {
		return explain(err)
	}
	b.drop()
	return nil
}

// notUTF8 counts the bytes that are not UTF-8.
func notUTF8(text []byte) (n int) {
	if utf8.Valid(text) {
		return 0
	}
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			n++
		}
		text = text[size:]
	}
	return n
}

// What an object or a list, and each value in one, takes at most once it is
// decoded and translated, beside its text.
const (
	groupCost = 320
	valueCost = 48
)

// Sum is the SHA-256 of the text.
func (b *Body) Sum() ([sha256.Size]byte, error) {
	h := sha256.New()
	in, err := b.reader(false)
	if err == nil {
		_, err = io.Copy(h, in)
	}
	return [sha256.Size]byte(h.Sum(nil)), err
}

// text is the whole text in one piece of memory.
func (b *Body) text() ([]byte, error) {
	switch {
	case b.unpacked != nil:
		return b.unpacked, nil
	case !b.packed && len(b.chunks) == 1:
		return b.chunks[0], nil
	}
	in, err := b.reader(true)
	if err != nil {
		return nil, err
	}
	text := make([]byte, b.counts.bytes)
	_, err = io.ReadFull(in, text)
	return text, err
}

// measure holds the body to its limits, and decodes v on the way unless it is nil.
func (b *Body) measure(v any) error {
	in, err := b.reader(false)
	if err != nil {
		return err
	}
	r := &meteredReader{in: in, body: b, meter: &meter{limits: b.limits}, keep: b.packed}
	defer r.leaveSlot()
	if v == nil {
		_, err = io.Copy(io.Discard, r)
	} else {
		err = json.UnmarshalRead(r, v, lenient)
	}
	switch {
	case r.err != nil:
		return r.err
	case !r.meter.solid:
		return run.Errorf(run.Invalid, "The request body is empty: send JSON.")
	case err != nil:
		return explain(err)
	}
	if r.keep {
		if err := b.pool.charge(b, cap(r.kept)); err != nil {
			return err
		}
		b.unpacked = r.kept
	}
	b.counts = r.meter
	return nil
}

// meteredReader reads a text through a meter, and keeps it if it is small. A
// text that is not small needs one of the pool's slots.
type meteredReader struct {
	in     io.Reader
	body   *Body
	meter  *meter
	keep   bool
	kept   []byte
	inSlot bool
	err    error
}

func (r *meteredReader) enterSlot() error {
	if r.inSlot {
		return nil
	}
	select {
	case r.body.pool.slots <- struct{}{}:
		r.inSlot = true
		return nil
	case <-r.body.ctx.Done():
		return errBusy
	}
}

func (r *meteredReader) leaveSlot() {
	if r.inSlot {
		<-r.body.pool.slots
	}
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = notGzip()
	}
	if over := r.count(p[:n]); over != nil {
		n, err = 0, over
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (r *meteredReader) count(p []byte) error {
	if _, err := r.meter.Write(p); err != nil {
		return err
	}
	if l := r.meter.limits; l.Ratio > 0 && r.meter.bytes > freeText+l.Ratio*r.body.size {
		return l.exceeded("grows more than %d times when it is decompressed", l.Ratio)
	}
	if r.meter.bytes > small {
		r.keep, r.kept = false, nil
		return r.enterSlot()
	}
	if r.keep {
		r.kept = append(r.kept, p...)
	}
	return nil
}
