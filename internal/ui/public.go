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

	"runbell/internal/web"
)

const (
	// maxPublic bounds the memory of public pages, packed, in bytes.
	maxPublic = 32 << 20
	// mostPages is more than any list of a run has: 20,000 tests of a spec, 10,000 specs.
	mostPages = 20_000 / testsPerPage
)

// publicPages keeps the pages of runs that people without an account have asked for. Making one takes up to a tenth
// of a second, and anyone may ask again and again. So each is made once while nothing changes, and the cost of making
// the others is bounded.
type publicPages struct {
	making *turns

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
	return &publicPages{making: newTurns(), byKey: map[string]*list.Element{}, order: list.New()}
}

// publicKey names a page of a run by all that it depends on: the run, whose state is in the tag, and the values of
// the parameters that the page reads. Other parameters do not count.
func publicKey(r *request, tag string, parameters []string) string {
	key := []string{tag, r.Pattern, r.PathValue("runId")}
	filter := r.specFilter("")
	for _, name := range parameters {
		value := r.query(name) // as the page reads it: unknown values do not count
		switch name {
		case "page":
			value = strconv.Itoa(min(pageNumber(r), mostPages))
		case "show":
			value = filter.Show
		case "sort":
			value = filter.Sort
		case "q":
			value = filter.Text
		case "refresh":
			if value != "off" {
				value = ""
			}
		}
		key = append(key, value)
	}
	return strings.Join(key, "\x00")
}

// get returns a page, packed with gzip. If it is not kept, it is made when the network of the request has its turn.
func (c *publicPages) get(ctx context.Context, network, key string, load func() ([]byte, error)) ([]byte, error) {
	if packed := c.kept(key); packed != nil {
		return packed, nil
	}
	done, err := c.making.take(ctx, network)
	if err != nil {
		return nil, err
	}
	defer done()
	if packed := c.kept(key); packed != nil { // another request has made it meanwhile
		return packed, nil
	}
	body, err := load()
	if err != nil {
		return nil, err
	}
	packed := web.Pack(body)
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

// unpack writes the page as it was. It takes little memory, even with many slow readers.
func unpack(w io.Writer, packed []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, z)
	return err
}
