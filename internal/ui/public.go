package ui

import (
	"bytes"
	"compress/gzip"
	"container/list"
	"context"
	"io"
	"strconv"
	"strings"
	"sync"
)

const (
	// maxPublic bounds the memory of public pages, packed, in bytes.
	maxPublic = 32 << 20
	// mostPages is more than any list has: 20,000 tests of a spec, 10,000 specs.
	mostPages = 20_000 / testsPerPage
)

// publicPages keeps the pages of runs that people without an account have asked
// for. To make one takes up to a tenth of a second, and anybody may ask again
// and again. So one is made at a time, and each once while nothing changes.
type publicPages struct {
	making chan struct{} // holds one while a page is made

	mu    sync.Mutex
	byKey map[string]*list.Element
	order *list.List // of publicPage, the one asked for last first
	size  int
}

type publicPage struct {
	key    string
	packed []byte
}

func newPublicPages() *publicPages {
	return &publicPages{making: make(chan struct{}, 1), byKey: map[string]*list.Element{}, order: list.New()}
}

// publicKey names a page of a run by all that it depends on. Other parameters
// and pages that no list has must not make it another one.
func publicKey(r *request, tag string) string {
	page, _ := strconv.Atoi(r.URL.Query().Get("page")) // no number is the first
	paused := strconv.FormatBool(r.URL.Query().Get("refresh") == "off")
	filter := r.specFilter("")
	return strings.Join([]string{filter.Show, filter.Text, filter.Sort, tag, r.Pattern, r.PathValue("runId"), r.query("group"), r.query("file"),
		strconv.Itoa(min(max(page, 1), mostPages)), paused}, "\x00")
}

// get returns a page, packed with gzip, and makes it if it is not kept.
func (c *publicPages) get(ctx context.Context, key string, load func() ([]byte, error)) ([]byte, error) {
	if packed := c.kept(key); packed != nil {
		return packed, nil
	}
	select {
	case c.making <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.making }()
	if packed := c.kept(key); packed != nil { // made while this one waited
		return packed, nil
	}
	body, err := load()
	if err != nil {
		return nil, err
	}
	packed := pack(body)
	c.keep(key, packed)
	return packed, nil
}

func (c *publicPages) kept(key string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	place := c.byKey[key]
	if place == nil {
		return nil
	}
	c.order.MoveToFront(place)
	return place.Value.(publicPage).packed
}

func (c *publicPages) keep(key string, packed []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey[key] = c.order.PushFront(publicPage{key, packed})
	c.size += len(key) + len(packed)
	for c.size > maxPublic {
		oldest := c.order.Remove(c.order.Back()).(publicPage)
		delete(c.byKey, oldest.key)
		c.size -= len(oldest.key) + len(oldest.packed)
	}
}

// pack compresses a page.
func pack(body []byte) []byte {
	var b bytes.Buffer
	z := packers.Get().(*gzip.Writer)
	z.Reset(&b)
	_, _ = z.Write(body) // into memory
	_ = z.Close()
	packers.Put(z)
	return b.Bytes()
}

// unpack is the page again.
func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}
